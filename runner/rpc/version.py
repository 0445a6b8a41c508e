"""What each end says about itself, and whether two ends can work together."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import socket
import sys
from typing import TYPE_CHECKING

from runner.errors import VersionMismatchError

if TYPE_CHECKING:
    from runner.rpc.gen import types_pb2

# Raised by one whenever an older peer would misread a message. 2: an agent can be told to get ready for a suspend.
PROTOCOL = 2
VERSION = "0.1.0"


def local_peer() -> types_pb2.Peer:
    """This process as a `Peer`; a fresh message each time."""
    from runner.rpc.gen import types_pb2

    return types_pb2.Peer(
        protocol=PROTOCOL,
        runner_version=VERSION,
        python_version=python_version(),
        host_id=host_id(),
    )


def python_version() -> str:
    """The running Python, such as `3.11.7`."""
    return ".".join(str(part) for part in sys.version_info[:3])


def check_peer(peer: types_pb2.Peer, *, who: str = "the other end") -> str | None:
    """Refuse a peer that cannot work with this process; `who` names it in messages.

    Returns a warning for a difference that is harmless most of the time
    (Python patch release), else None.

    Raises:
        VersionMismatchError: another protocol or another Python minor version.
    """
    check_protocol(peer, who=who)
    theirs, ours = _minor(peer.python_version), _minor(python_version())
    if theirs != ours:
        raise VersionMismatchError(
            f"{who} runs Python {peer.python_version or 'unknown'}, this process runs Python {python_version()}; "
            f"functions can only be sent between equal minor versions: use Python {theirs or 'of the cluster'} "
            f"here or start the cluster with Python {ours}"
        )
    if peer.python_version != python_version():
        return (
            f"{who} runs Python {peer.python_version}, this process runs Python {python_version()}; "
            f"a patch difference works, except for rare changes in pickled classes"
        )
    return None


def check_protocol(peer: types_pb2.Peer, *, who: str = "the other end") -> None:
    """The part of `check_peer` that matters to a caller which sends no functions.

    Raises:
        VersionMismatchError: another protocol.
    """
    if peer.protocol != PROTOCOL:
        older = "here" if peer.protocol > PROTOCOL else f"where {who} runs"
        newest = peer.runner_version if peer.protocol > PROTOCOL else VERSION
        raise VersionMismatchError(
            f"{who} speaks protocol {peer.protocol} (runner {peer.runner_version or 'unknown'}), "
            f"this process speaks protocol {PROTOCOL} (runner {VERSION}); "
            f"install the same version on both sides: pip install 'runner=={newest}' {older}"
        )


@functools.cache
def host_id() -> str:
    """Equal for two processes exactly when they can map each other's shared memory files.

    Made of the boot, the user and the /dev/shm mount, because containers share a boot id but not /dev/shm.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:  # not Linux
        boot = f"{socket.gethostname()}/{platform.system()}"
    try:
        mount = str(os.stat("/dev/shm").st_dev)
    except OSError:
        mount = "none"
    return hashlib.sha256(f"{boot}/{os.getuid()}/{mount}".encode()).hexdigest()[:16]


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
