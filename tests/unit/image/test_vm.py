"""What the image of micro-VMs is made from: the kernel's parts, the initial RAM disk, the mirror."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest

from runner.errors import UsageError
from runner.image import cpio, vm_kernel
from runner.image.context import vm_file
from runner.image.vm import find_mirror


def test_the_archive_is_as_the_kernel_reads_it() -> None:
    packed = gzip.decompress(
        cpio.pack([cpio.Entry("bin"), cpio.Entry("bin/sh", link="busybox"), cpio.Entry("init", b"#!/bin/sh\n", 0o700)])
    )
    found = []
    offset = 0
    while True:
        fields = [int(packed[offset + at : offset + at + 8], 16) for at in range(6, 110, 8)]
        assert packed[offset : offset + 6] == b"070701"
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = packed[offset + 110 : offset + 110 + name_size - 1].decode()
        offset += -(-(110 + name_size) // 4) * 4
        data = packed[offset : offset + size]
        offset += -(-size // 4) * 4
        if name == "TRAILER!!!":
            break
        found.append((name, oct(mode), data))
    assert found == [
        ("bin", "0o40755", b""),
        ("bin/sh", "0o120755", b"busybox"),
        ("init", "0o100700", b"#!/bin/sh\n"),
    ]


def _boot_image(payload: bytes, setup_sectors: int = 2) -> bytes:
    head = bytearray((setup_sectors + 1) * 512)
    head[0x1F1] = setup_sectors
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 64, len(payload))
    return bytes(head) + bytes(64) + payload + b"more"


def test_the_kernel_is_found_in_its_boot_image() -> None:
    size = struct.pack("<I", 1000)
    assert vm_kernel.payload_of(_boot_image(b"\x02\x21\x4c\x18 packed" + size)) == b"\x02\x21\x4c\x18 packed"
    # gzip's own form ends with the size.
    assert vm_kernel.payload_of(_boot_image(b"\x1f\x8b packed" + size)) == b"\x1f\x8b packed" + size
    with pytest.raises(UsageError, match="no bzImage"):
        vm_kernel.payload_of(bytes(2048))


def test_drivers_come_after_what_they_need(tmp_path: Path) -> None:
    folder = tmp_path / "kernel"
    folder.mkdir()
    for name, needs in {"virtio-rng": "", "virtio_net": "virtio_ring,net-failover", "virtio_ring": "virtio"}.items():
        (folder / f"{name}.ko").write_bytes(b"\0license=GPL\0depends=" + needs.encode() + b"\0name=x\0")
    (folder / "net_failover.ko").write_bytes(b"\0depends=\0")
    (tmp_path / "modules.builtin").write_text("kernel/drivers/virtio/virtio.ko\n")
    order = vm_kernel.load_order(tmp_path, ("virtio_net", "virtio_rng", "virtio_ring"))
    assert [path.name for path in order] == ["virtio_ring.ko", "net_failover.ko", "virtio_net.ko", "virtio-rng.ko"]
    with pytest.raises(UsageError, match="has no driver virtio_blk"):
        vm_kernel.load_order(tmp_path, ("virtio_blk",))


@pytest.mark.parametrize(
    ("name", "text", "mirror"),
    [
        (
            "sources.list",
            "deb [signed-by=/x] http://mirror.example/debian bookworm main\n",
            "http://mirror.example/debian",
        ),
        (
            "sources.list.d/debian.sources",
            "Types: deb\nURIs: https://deb.example/debian\n",
            "https://deb.example/debian",
        ),
        ("sources.list.d/other.list", "deb https://packages.example/apt stable main\n", ""),
    ],
)
def test_the_mirror_is_the_one_of_this_host(tmp_path: Path, name: str, text: str, mirror: str) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / name).write_text(text)
    assert find_mirror(tmp_path) == mirror


@pytest.mark.parametrize("name", ["early-init", "init", "install"])
def test_the_scripts_of_guests_are_there(name: str) -> None:
    assert vm_file(name).startswith(b"#!/bin/sh\n")
