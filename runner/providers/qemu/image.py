"""What micro-VMs boot from: a folder with a kernel, its initial RAM disk and a root file system, made by `runner image build`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from runner.errors import ProviderError
from runner.rpc.version import PROTOCOL, VERSION

KERNEL, RAM_DISK, ROOT, MANIFEST = "vmlinux", "initrd", "root.ext4", "image.json"
_BUILD = "build it with `runner image build --engine qemu`"


@dataclass(frozen=True, slots=True)
class VmImage:
    """An image that was built; `manifest` in its folder says the rest."""

    folder: Path
    image_id: str  # of one build: memory that was saved belongs to exactly these files
    python: str  # minor version
    protocol: int
    version: str  # of runner
    variant: str
    kernel: str

    @property
    def kernel_path(self) -> Path:
        return self.folder / KERNEL

    @property
    def ram_disk_path(self) -> Path:
        return self.folder / RAM_DISK

    @property
    def root_path(self) -> Path:
        return self.folder / ROOT

    def write(self) -> None:
        """Say in the folder what it holds; the last step of building it."""
        said = {name: value for name, value in asdict(self).items() if name != "folder"}
        (self.folder / MANIFEST).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def default_folder(home: Path, variant: str) -> Path:
    """Where an image of a variant is, unless somebody says another place."""
    return home / "images" / variant


def load(folder: Path) -> VmImage:
    """The image in `folder`, when machines of it can work for this client.

    Raises:
        ProviderError: a permanent one that says what to do: there is none, or it is for another Python or protocol.
    """
    try:
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        image = VmImage(folder, **{each.name: said[each.name] for each in fields(VmImage) if each.name != "folder"})
    except FileNotFoundError:
        raise _refusal(f"there is no image for micro-VMs in {folder}; {_BUILD}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _refusal(f"the image for micro-VMs in {folder} cannot be read ({error}); {_BUILD}") from None
    missing = [each.name for each in (image.kernel_path, image.ram_disk_path, image.root_path) if not each.is_file()]
    if missing:
        raise _refusal(f"the image for micro-VMs in {folder} lacks {', '.join(missing)}; {_BUILD}")
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if image.python != python:
        raise _refusal(
            f"the image in {folder} has Python {image.python}, this client runs Python {python}, and functions can only "
            f"be sent between equal minor versions; {_BUILD}, or run the client with Python {image.python}"
        )
    if image.protocol != PROTOCOL:
        raise _refusal(
            f"the image in {folder} has runner {image.version} with protocol {image.protocol}, this client has runner "
            f"{VERSION} with protocol {PROTOCOL}; {_BUILD}"
        )
    return image


def _refusal(message: str) -> ProviderError:
    error = ProviderError(message, phase="image")
    error.is_permanent = True
    return error
