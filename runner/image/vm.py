"""Building the image that micro-VMs boot from: Debian's kernel, and a root file system with an agent in it."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from runner.errors import UsageError
from runner.image import vm_kernel
from runner.image.commands import need, run
from runner.image.context import Contents, make_context, vm_file
from runner.providers.qemu.image import KERNEL, RAM_DISK, ROOT, VmImage
from runner.rpc.version import PROTOCOL, VERSION

_SUITE = "bookworm"
_PYTHON = "3.11"  # of that suite
_PACKAGES = "python3,python3-venv,ca-certificates"
_PROGRAMS = {
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "mkfs.ext4": "e2fsprogs",
    "lz4": "lz4",
    "debootstrap": "debootstrap",
    "chroot": "coreutils",
}
_APT_SOURCES = Path("/etc/apt")
_MIRROR = re.compile(r"^(?:URIs:\s*|deb\s+(?:\[[^]]*\]\s+)?)(\S*debian\S*)", re.MULTILINE)
# mkfs's own tables and what it rounds up; nothing is written there after the build.
_ROOT_SPARE = 1.12
_ROOT_SPARE_BYTES = 48 << 20
_BLOCK_BYTES = 1 << 20


def build(folder: Path, contents: Contents, base: Path | None, tell: Callable[[str], object]) -> VmImage:
    """Make the image in `folder`, in place of the one that is there; machines that run keep theirs.

    `base`: a tar file with the root file system to begin with, Debian 12 with python3-venv; None: debootstrap makes it.

    Raises:
        UsageError: this is not root on a Debian, a program is missing, or one failed.
    """
    if os.getuid() != 0:
        raise UsageError("an image for micro-VMs can only be built by root: debootstrap and chroot need it")
    need({each: package for each, package in _PROGRAMS.items() if not (base and each == "debootstrap")})
    client = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if base is None and client != _PYTHON:
        raise UsageError(
            f"Debian 12 has Python {_PYTHON}, this client runs Python {client}, and functions can only be sent between "
            f"equal minor versions; run the client with Python {_PYTHON}, or name a root file system with --base"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as area:
        made = Path(area) / "image"
        made.mkdir(mode=0o755)
        image = _make(made, Path(area), contents, base, tell)
        if folder.exists():
            folder.rename(Path(area) / "before")
        made.rename(folder)
    return replace(image, folder=folder)


def _make(made: Path, area: Path, contents: Contents, base: Path | None, tell: Callable[[str], object]) -> VmImage:
    tell("fetching the kernel")
    kernel = vm_kernel.fetch(area)
    busybox = (vm_kernel.fetch_package("busybox-static", area) / "bin" / "busybox").read_bytes()
    vm_kernel.write_uncompressed(kernel, made / KERNEL)
    (made / RAM_DISK).write_bytes(vm_kernel.initial_ram_disk(kernel, vm_file("early-init"), busybox))
    root = area / "root"
    make_base(root, base, tell)
    context = root / "build"
    context.mkdir()
    make_context(context, contents, tell)
    tell("installing the worker")
    for name, data in (("busybox", busybox), ("init", vm_file("init")), ("install", vm_file("install"))):
        (context / name).write_bytes(data)
    facts = {
        "PYTHON": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "RUNNER_VERSION": VERSION,
        "RUNNER_PROTOCOL": str(PROTOCOL),
    }
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    run(["chroot", str(root), "/bin/sh", "/build/install"], env={"PATH": path, "LANG": "C.UTF-8", **facts})
    _write_root(root, made / ROOT)
    image = VmImage(made, uuid.uuid4().hex, facts["PYTHON"], PROTOCOL, VERSION, contents.variant, kernel.version)
    image.write()
    return image


def make_base(root: Path, base: Path | None, tell: Callable[[str], object]) -> None:
    """The root file system to begin with, in a new folder; from a tar file, or by debootstrap.

    Raises:
        UsageError: it failed.
    """
    root.mkdir(mode=0o755)
    if base is not None:
        run(["tar", "-C", str(root), "-xf", str(base)])
        return
    tell(f"making a root file system of Debian's {_SUITE}")
    command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _SUITE, str(root)]
    mirror = find_mirror(_APT_SOURCES)
    run([*command, mirror] if mirror else command)


def find_mirror(apt: Path) -> str:
    """The first of Debian's mirrors that this host's apt uses; empty: debootstrap's own."""
    lists = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    for path in lists:
        found = _MIRROR.search(path.read_text(encoding="utf-8")) if path.is_file() else None
        if found is not None:
            return found[1]
    return ""


def _write_root(root: Path, target: Path) -> None:
    """A file system without a journal: it is only ever read. `mkfs.ext4 -d` needs no loop device."""
    used_bytes = sum(path.lstat().st_blocks * 512 for path in root.rglob("*"))
    with target.open("wb") as file:
        file.truncate((int(used_bytes * _ROOT_SPARE) + _ROOT_SPARE_BYTES) // _BLOCK_BYTES * _BLOCK_BYTES)
    options = ["-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode", "-d", str(root)]
    run(["mkfs.ext4", *options, str(target)])
    shutil.rmtree(root)
