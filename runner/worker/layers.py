"""Which modules are worth a template of their own, and what else their first use would import."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Sequence

# Top-level modules that take long to import and may be forked afterwards, each with what belongs to it.
# jax and tensorflow start threads when imported, so they are not among them.
_BELONGING: dict[str, tuple[str, ...]] = {
    "numpy": ("numpy", "numpy.random", "numpy.linalg", "numpy.fft"),
    "pandas": ("pandas",),
    "scipy": ("scipy", "scipy.sparse", "scipy.linalg"),
    "sklearn": ("sklearn", "sklearn.linear_model", "sklearn.model_selection"),
    "torch": ("numpy", "torch", "torch.utils.data", "torch.optim", "torch.optim.lr_scheduler", "torch._dynamo"),
    "torchvision": ("torchvision",),
    "tokenizers": ("tokenizers",),
    "safetensors": ("safetensors",),
    "transformers": ("transformers", "transformers.modeling_utils", "transformers.tokenization_utils_base"),
    "datasets": ("datasets",),
}
# A layer with the first one is a layer with the others: they are imported together in practice.
_IMPLIED: dict[str, tuple[str, ...]] = {
    "transformers": ("torch", "numpy"),
    "torchvision": ("torch", "numpy"),
    "torch": ("numpy",),
    "pandas": ("numpy",),
    "scipy": ("numpy",),
    "sklearn": ("numpy", "scipy"),
}


def layer_of(modules: Iterable[str]) -> frozenset[str]:
    """The layer for a function that uses `modules`; empty: the base template will do."""
    heavy = {name for name in modules if name in _BELONGING and _is_installed(name)}
    implied = {more for name in heavy for more in _IMPLIED.get(name, ()) if _is_installed(more)}
    return frozenset(heavy | implied)


def closure(modules: Sequence[str]) -> list[str]:
    """What to import for a layer, in order; modules that are not in the table stand for themselves.

    Parts that this version of a package does not have are left out; a whole package that is missing is not.
    """
    # numpy before torch before what builds on torch.
    order = {name: index for index, name in enumerate(_BELONGING)}
    found: dict[str, None] = {}
    for name in sorted(modules, key=lambda name: order.get(name, len(order))):
        for part in _BELONGING.get(name, (name,)):
            if part == name or _has_part(part):
                found[part] = None
    return list(found)


def _is_installed(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


def _has_part(name: str) -> bool:
    """Imports the parents of `name`, which are to be imported anyway."""
    try:
        return _is_installed(name)
    except ImportError:
        return False
