"""Which providers there are, and how a coordinator makes one. Light: clients and the command line import it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.errors import BadOptionsError

if TYPE_CHECKING:
    from pathlib import Path

    from runner.ids import ClusterId
    from runner.providers.base import Provider

# Each module has `check_options(options) -> None` (BadOptionsError; no network) and `make(place) -> Provider`.
_MODULES = {
    "local": "runner.providers.local",
    "fly": "runner.providers.fly",
    "container": "runner.providers.container",
    "qemu": "runner.providers.qemu",
}
PROVIDERS = tuple(_MODULES)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a provider works: one cluster's coordinator."""

    cluster_id: ClusterId
    embedded: bool
    options: Mapping[str, Any] = field(repr=False)  # `provider_options`, checked
    log_dir: Path  # what machines wrote, one file each
    store_path: str  # of this host's object store
    artefact_path: str
    host_id: str
    coordinator_host: str = ""  # where machines find the coordinator; empty: not known yet
    zygote: Any = None  # local: runner.worker.zygote.Zygote, forked before all else


def check_provider(name: str, options: Mapping[str, Any]) -> None:
    """Refuse what cannot work, without asking anybody.

    Raises:
        BadOptionsError: no such provider, a package that it needs is not installed, an unknown option or a bad value.
    """
    check: Callable[[Mapping[str, Any]], None] = _module(name).check_options
    check(options)


def make_provider(name: str, place: Place) -> Provider:
    """The provider of one cluster, inside the coordinator's event loop.

    Raises:
        BadOptionsError: as `check_provider`.
    """
    provider: Provider = _module(name).make(place)
    return provider


def _module(name: str) -> Any:
    if name not in _MODULES:
        raise BadOptionsError(f"provider {name!r} is unknown; known are: {', '.join(PROVIDERS)}")
    try:
        return importlib.import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("runner"):
            raise
        raise BadOptionsError(
            f"provider {name!r} needs the package {error.name!r}; install it with: pip install 'runner[{name}]'"
        ) from None
