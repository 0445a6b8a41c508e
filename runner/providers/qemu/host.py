"""What this host has to run micro-VMs with: QEMU's version, and whether KVM works."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.errors import ProviderError
from runner.providers.qemu import command
from runner.providers.qemu import image as vm_image
from runner.providers.qemu.image import VmImage
from runner.providers.qemu.options import QemuOptions

_VERSION = re.compile(rb"QEMU emulator version (\d\S*)")
_ASK_S = 20.0
# A guest that runs is there in about a second; under KVM that does not really work it never gets there.
_PROBE_S = 8.0
_KVM = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Host:
    """All that is the same for the machines of one cluster."""

    qemu: str  # the program
    version: str
    accel: str
    image_folder: Path
    why_emulated: str = ""  # empty: it is not

    def image(self) -> VmImage:
        """The image that is there now: it may have been built anew since the last machine was started.

        Raises:
            ProviderError: see `image.load`.
        """
        return vm_image.load(self.image_folder)

    @property
    def takes_file_addresses(self) -> bool:
        """Whether memory is saved to `file:` addresses: from 8.2 on, where plain files as `fd:` are on their way out."""
        numbers = tuple(int(each) for each in re.findall(r"\d+", self.version)[:2])
        return numbers >= (8, 2)


def program(options: QemuOptions) -> str:
    """The path of QEMU; empty where it is not installed."""
    return shutil.which(options.qemu) or ""


async def look(options: QemuOptions, home: Path) -> Host:
    """Find everything that machines need.

    Raises:
        ProviderError: a permanent one that says what is missing and how to get it.
    """
    path = program(options)
    if not path:
        raise _refusal(
            f"{options.qemu} is not installed on this host; install it with: apt-get install qemu-system-x86"
        )
    image = await asyncio.to_thread(vm_image.load, options.image_folder(home))
    version = await _version(path)
    if options.accel == "tcg":
        return Host(path, version, "tcg", image.folder, "the option accel says so")
    why = _why_no_device() or await _why_no_guest(path, version, image)
    if why and options.accel == "kvm":
        raise _refusal(f"machines are to run with KVM (option accel), but {why}")
    return Host(path, version, "tcg" if why else "kvm", image.folder, why)


async def _version(path: str) -> str:
    said = await _run([path, "--version"], _ASK_S)
    found = _VERSION.search(said or b"")
    if found is None:
        raise _refusal(f"{path} does not tell its version; is it QEMU?")
    return found[1].decode()


def _why_no_device() -> str:
    if not _KVM.exists():
        return "this host has no /dev/kvm"
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return "this user may not use /dev/kvm (on Debian: members of the group kvm may)"
    return ""


async def _why_no_guest(path: str, version: str, image: VmImage) -> str:
    """Why a guest does not run with KVM; empty when it does."""
    # That the device is there says little: where this host is a guest itself, one that it starts may never run.
    known = _Known(image, version)
    if (why := known.read()) is not None:
        return why
    said = await _run([path, *command.probe_arguments(image)], _PROBE_S)
    why = ""
    if said is None:
        why = f"a guest that was tried with KVM did not start within {_PROBE_S:g} s"
    elif b"the guest runs" not in said:
        lines = said.decode(errors="replace").strip().splitlines() or ["it ended without a word"]
        why = f"a guest that was tried with KVM did not start: {lines[-1]}"
    known.write(why)
    return why


class _Known:
    """What a probe has found, kept beside the image: it stays true until this host boots again."""

    def __init__(self, image: VmImage, version: str) -> None:
        self._path = image.folder / "kvm.json"
        self._key = [_BOOT_ID.read_text(encoding="ascii").strip(), version, image.image_id]

    def read(self) -> str | None:
        """Why guests do not run with KVM; empty when they do; None when it is not known."""
        try:
            said = json.loads(self._path.read_text(encoding="utf-8"))
            return str(said["why"]) if said["key"] == self._key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, why: str) -> None:
        with contextlib.suppress(OSError):  # another user's image: the next cluster tries it again
            self._path.write_text(json.dumps({"key": self._key, "why": why}), encoding="utf-8")


async def _run(arguments: Sequence[str], limit_s: float) -> bytes | None:
    """What a program prints; None where it did not end in time."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(limit_s):
            return (await process.communicate())[0]
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _refusal(message: str) -> ProviderError:
    error = ProviderError(message, phase="prepare")
    error.is_permanent = True
    return error
