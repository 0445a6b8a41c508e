"""What `provider_options` of the qemu provider may say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from runner.errors import BadOptionsError
from runner.options import parse_memory
from runner.providers.qemu.image import default_folder

ACCELS = ("auto", "kvm", "tcg")
VARIANTS = ("cpu", "slim")
_MEMORY_BYTES_MIN = 256 << 20  # an agent, a template and one executor that has imported nothing


@dataclass(frozen=True, slots=True)
class QemuOptions:
    """How machines of one cluster are made.

    Raises:
        BadOptionsError: an unknown option or a value that cannot work.
    """

    image: str = "cpu"  # a variant that `runner image build --engine qemu` has built, or the path of its folder
    accel: str = "auto"  # auto: kvm where a guest really runs with it, else tcg, which emulates
    default_memory: int | str = "1GiB"  # of a guest whose pool does not say what a machine has
    qemu: str = "qemu-system-x86_64"  # the program

    def __post_init__(self) -> None:
        for name in ("image", "qemu"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise BadOptionsError(f"option {name} of provider 'qemu' is {value!r}; expected a text")
        if self.image not in VARIANTS and "/" not in self.image:
            raise BadOptionsError(
                f"option image of provider 'qemu' is {self.image!r}; expected {' or '.join(VARIANTS)}, or the path of a folder"
            )
        if self.accel not in ACCELS:
            raise BadOptionsError(
                f"option accel of provider 'qemu' is {self.accel!r}; expected one of {', '.join(ACCELS)}"
            )
        if self.default_memory_bytes < _MEMORY_BYTES_MIN:
            raise BadOptionsError(
                f"option default_memory of provider 'qemu' is {self.default_memory!r}; a guest needs {_MEMORY_BYTES_MIN >> 20} MiB at least"
            )

    @property
    def default_memory_bytes(self) -> int:
        return parse_memory("option default_memory", self.default_memory) or 0

    def image_folder(self, home: Path) -> Path:
        """Where the image is; `home`: runner's."""
        return default_folder(home, self.image) if self.image in VARIANTS else Path(self.image)


def parse(options: Mapping[str, Any]) -> QemuOptions:
    """The options as given.

    Raises:
        BadOptionsError: an unknown option or a value that cannot work.
    """
    known = {each.name for each in fields(QemuOptions)}
    if unknown := sorted(set(options) - known):
        raise BadOptionsError(f"provider 'qemu' has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    return QemuOptions(**options)


def check_options(options: Mapping[str, Any]) -> None:
    """See runner.providers.registry."""
    parse(options)
