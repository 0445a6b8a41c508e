"""The kernel of micro-VMs: Debian's for clouds, taken out of its package without being installed anywhere."""

from __future__ import annotations

import lzma
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from runner.errors import UsageError
from runner.image import cpio
from runner.image.commands import output_of, run

_META_PACKAGE = "linux-image-cloud-amd64"
# What the first program loads; what they depend on comes before them. The rest of the kernel's drivers is not needed.
_MODULES = ("virtio_rng", "virtio_pci", "virtio_blk", "virtio_net", "overlay", "qemu_fw_cfg")
_FOLDERS = ("bin", "dev", "lower", "modules", "proc", "root", "sys", "upper")
_GZIP = b"\x1f\x8b"
# First bytes of a payload, and what writes the unpacked one to its output.
_UNPACKERS = {
    b"\x02\x21\x4c\x18": ("lz4", "-dc"),
    b"\x28\xb5\x2f\xfd": ("zstd", "-dc"),
    b"\xfd7zXZ\0": ("xz", "-dc"),
    _GZIP: ("gzip", "-dc"),
}
_DEPENDS = re.compile(rb"\0depends=([\w,-]*)\0")


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked package."""

    version: str  # as `uname -r` says
    folder: Path

    @property
    def modules(self) -> Path:
        """The folder of its drivers."""
        (found,) = [each for each in self.folder.glob("**/lib/modules/*") if each.name == self.version]
        return found


def fetch(folder: Path) -> Kernel:
    """Get the newest one that this host's apt knows, and unpack it below `folder`.

    Raises:
        UsageError: apt does not know it, or cannot get it.
    """
    about = output_of(["apt-cache", "depends", _META_PACKAGE])
    found = re.search(r"Depends: linux-image-(\S+)", about)
    if found is None:
        raise UsageError(f"apt knows no package {_META_PACKAGE}; run `apt-get update`, on Debian 12 or younger")
    version = found[1]
    unpacked = fetch_package(f"linux-image-{version}", folder)
    return Kernel(version, unpacked)


def fetch_package(name: str, folder: Path) -> Path:
    """Unpack a Debian package below `folder`; where it lies.

    Raises:
        UsageError: apt cannot get it.
    """
    downloads, unpacked = folder / f"{name}.download", folder / name
    downloads.mkdir()
    # As root apt fetches as another user where it can, and warns where it cannot: here the folder is ours alone.
    run(["apt-get", "--quiet=2", "--option=APT::Sandbox::User=root", "download", name], cwd=downloads)
    (package,) = downloads.glob("*.deb")
    run(["dpkg-deb", "--extract", str(package), str(unpacked)])
    return unpacked


def write_uncompressed(kernel: Kernel, target: Path) -> None:
    """The ELF file in the kernel's boot image. Started directly, it spares the guest its unpacking: seconds where QEMU emulates.

    Raises:
        UsageError: the image is not of a known form.
    """
    image = (kernel.folder / "boot" / f"vmlinuz-{kernel.version}").read_bytes()
    payload = payload_of(image)
    command = next((each for magic, each in _UNPACKERS.items() if payload.startswith(magic)), None)
    if command is None:
        raise UsageError(f"kernel {kernel.version} is compressed in a way that is not known: {payload[:4].hex()}")
    packed = target.with_suffix(".packed")
    packed.write_bytes(payload)
    with packed.open("rb") as source, target.open("wb") as sink:
        run(command, stdin=source, stdout=sink)
    packed.unlink()
    with target.open("rb") as unpacked:
        if unpacked.read(4) != b"\x7fELF":
            raise UsageError(f"kernel {kernel.version} did not unpack to an ELF file")


def payload_of(image: bytes) -> bytes:
    """The compressed kernel in a bzImage (Linux: Documentation/arch/x86/boot.rst).

    Raises:
        UsageError: it is none.
    """
    if image[0x202:0x206] != b"HdrS":
        raise UsageError("the kernel is no bzImage")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    # The unpacked size follows in four bytes; only gzip's form has it itself.
    return payload if payload.startswith(_GZIP) else payload[:-4]


def initial_ram_disk(kernel: Kernel, first_program: bytes, busybox: bytes) -> bytes:
    """What the kernel starts with: `first_program`, busybox, and the drivers that it loads."""
    order = load_order(kernel.modules, _MODULES)
    entries = [cpio.Entry(name) for name in _FOLDERS]
    entries += [cpio.Entry("init", first_program), cpio.Entry("bin/busybox", busybox)]
    # /bin/sh: what the first line of the first program names.
    entries += [cpio.Entry("bin/sh", link="busybox")]
    entries += [cpio.Entry(f"modules/{path_name(path)}.ko", _read_module(path), 0o644) for path in order]
    lines = "".join(f"{path_name(path)}\n" for path in order)
    return cpio.pack([*entries, cpio.Entry("modules/order", lines.encode(), 0o644)])


def load_order(modules: Path, wanted: tuple[str, ...]) -> list[Path]:
    """The files of `wanted` and of what they depend on, each after what it needs. What is built in has no file.

    Raises:
        UsageError: one is neither there nor built in.
    """
    files = {path_name(path): path for path in modules.glob("kernel/**/*.ko*")}
    built_in = {path_name(Path(line)) for line in (modules / "modules.builtin").read_text().split()}
    ordered: dict[str, Path] = {}

    def add(name: str) -> None:
        if name in ordered or name in built_in:
            return
        if name not in files:
            raise UsageError(f"the kernel in {modules} has no driver {name}")
        for needed in _depends(_read_module(files[name])):
            add(needed)
        ordered[name] = files[name]

    for name in wanted:
        add(name)
    return [*ordered.values()]


def path_name(path: Path) -> str:
    """A module's name: its file's, with underscores, as the kernel writes it."""
    return path.name.partition(".")[0].replace("-", "_")


def _read_module(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def _depends(module: bytes) -> list[str]:
    found = _DEPENDS.search(module)
    return [] if found is None else [name.replace("-", "_") for name in found[1].decode().split(",") if name]
