"""Machines as micro-VMs of QEMU on this host, whose memory can be saved and resumed."""

from runner.providers.qemu.options import check_options
from runner.providers.qemu.provider import make

__all__ = ["check_options", "make"]
