"""The simulator's process: forks the forker before all else, then serves."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from runner.errors import BadOptionsError
from runner.flysim.settings import SimSettings


@dataclass(frozen=True, slots=True)
class Place:
    """Where it serves and writes."""

    home: Path
    host: str = "127.0.0.1"
    port: int = 4280  # 0: any free one
    log_dir: Path | None = None  # of machines; None: under `home`, and removed at the end
    as_json: bool = False  # one line for programs in place of the text for people
    until_stdin_closes: bool = False


def serve(settings: SimSettings, place: Place) -> int:
    """Run the simulator until a signal, or the end of stdin, ends it; returns the exit status.

    The process must have one thread and no event loop.

    Raises:
        BadOptionsError: the address cannot be listened on.
    """
    from runner.flysim.forker import CloudZygote

    listener = _listen(place)
    # Before any thread or event loop exists, and before the web server is loaded: machines are copies of this process.
    zygote = CloudZygote.fork_for_cloud()
    from runner.flysim.server import run

    tag = f"fs{secrets.token_hex(4)}"
    log_dir = place.log_dir or place.home / "fly-sim" / tag
    log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return run(settings, place, listener, zygote, tag, log_dir)
    finally:
        zygote.close()
        if place.log_dir is None:
            shutil.rmtree(log_dir, ignore_errors=True)
            with contextlib.suppress(OSError):
                log_dir.parent.rmdir()


def _listen(place: Place) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    # With its protocol said: asyncio sets TCP_NODELAY only then, and each answer would take 40 ms more without.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((place.host, place.port))
        listener.listen(512)
        return listener
    except OSError as error:
        listener.close()
        raise BadOptionsError(
            f"the simulator cannot listen on {place.host}:{place.port}: {error.strerror}; choose another --port"
        ) from None
