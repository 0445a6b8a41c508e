"""The command line of a micro-VM. Pure; it holds no secret: the boot configuration is in a file of the machine's folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.providers.base import BootConfig
from runner.providers.qemu.image import VmImage
from runner.rpc.addresses import is_loopback

# What a guest has beside the memory that its machine promises to tasks: the kernel, the agent and its files.
OVERHEAD_BYTES = 192 << 20
HOST_ADDRESS = "10.0.2.2"  # this host, as guests see it (QEMU's `user` back end)
_MIB = 1 << 20
_KERNEL_ARGUMENTS = "console=ttyS0 quiet panic=-1"  # -1: reboot at once, which -no-reboot makes an end


@dataclass(frozen=True, slots=True)
class Build:
    """What a guest's memory can be resumed on: the same in every respect, or not at all."""

    qemu: str  # version
    accel: str
    image_id: str
    cpus: int
    memory_mib: int

    def to_dict(self) -> dict[str, Any]:
        """A map that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Build:
        """The inverse of `to_dict`. KeyError or TypeError: it is none."""
        return cls(
            str(said["qemu"]), str(said["accel"]), str(said["image_id"]), int(said["cpus"]), int(said["memory_mib"])
        )


def build_of(boot: BootConfig, *, qemu: str, accel: str, image_id: str, memory_bytes: int) -> Build:
    """What a machine becomes; `memory_bytes`: of the guest, where the machine's own is not counted."""
    guest_bytes = boot.memory_bytes + OVERHEAD_BYTES if boot.memory_bytes else memory_bytes
    return Build(qemu, accel, image_id, max(1, math.ceil(boot.cpus)), math.ceil(guest_bytes / _MIB))


def arguments(build: Build, image: VmImage, boot_file: Path, control: str) -> list[str]:
    """Everything behind the program's name. `control`: the path of the socket for commands.

    A microvm machine type would boot faster, but stalls where QEMU emulates; q35 with a kernel that is an ELF file does not.
    """
    cpu = "host" if build.accel == "kvm" else "max"
    return [
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35", "-accel", build.accel, "-cpu", cpu),
        *("-smp", str(build.cpus), "-m", f"{build.memory_mib}M"),
        *("-kernel", str(image.kernel_path), "-initrd", str(image.ram_disk_path), "-append", _KERNEL_ARGUMENTS),
        # Read only and shared: what a machine writes is in its memory, and is saved with it.
        *("-drive", f"if=none,id=root,format=raw,readonly=on,file={_escaped(image.root_path)}"),
        *("-device", "virtio-blk-pci,drive=root"),
        *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *("-fw_cfg", f"name=opt/runner/boot,file={_escaped(boot_file)}"),
        *("-serial", "stdio"),
        *("-qmp", f"unix:{_escaped(control)},server=on,wait=off"),
        # Code in the guest is the user's: an escape into this process finds that it can start nothing.
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
    ]


def probe_arguments(image: VmImage) -> list[str]:
    """A guest with KVM that gets as far as its first program, says so and ends."""
    return [
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256M"),
        *("-kernel", str(image.kernel_path), "-initrd", str(image.ram_disk_path)),
        *("-append", f"{_KERNEL_ARGUMENTS} probe=1"),
        *("-serial", "stdio"),
    ]


def guest_view(address: str) -> str:
    """Where a guest finds what this host calls `address`: its own loopback is another."""
    return f"{HOST_ADDRESS}:{address.rpartition(':')[2]}" if is_loopback(address) else address


def _escaped(path: Path | str) -> str:
    return str(path).replace(",", ",,")  # a comma ends a value
