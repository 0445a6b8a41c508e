"""How a coordinator on a machine of its own gets its secrets: by a call into the machine, never by its configuration.

What a provider stores of a machine (environment, metadata, files) can be read by everybody who may list machines. So it boots with
settings that hold no secret, listens on a socket that only its own user reaches, and starts once the secrets came in there.
The one who booted it runs `hand_over` inside the machine (for Fly: the API's exec) and gives the secrets on standard input.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from runner.errors import AuthenticationError, BadOptionsError, CoordinatorUnreachableError
from runner.rpc.clusters import read_cluster
from runner.rpc.security import tokens_equal

SCRIPT_NAME = "hand-over.sh"
_SOCKET_NAME = "hand-over.sock"
_MESSAGE_BYTES_MAX = 1 << 20
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Secrets:
    """What only the coordinator may know."""

    token: str = field(repr=False)  # for clients
    provider_options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # such as the provider's own token

    def to_json(self) -> str:
        """One line for standard input."""
        return json.dumps({"token": self.token, "provider_options": dict(self.provider_options)})

    @classmethod
    def from_json(cls, text: str | bytes) -> Secrets:
        """The inverse of `to_json`.

        Raises:
            BadOptionsError: it is something else; the message does not show it.
        """
        try:
            packed = json.loads(text)
            return cls(str(packed["token"]), dict(packed["provider_options"]))
        except (ValueError, KeyError, TypeError):
            raise BadOptionsError("the secrets cannot be read (one JSON object; it is not shown here)") from None


def take_secrets(home: Path, cluster_id: str, timeout_s: float) -> tuple[Secrets, int]:
    """Wait until somebody hands over; returns the secrets, and the descriptor where they wait for the ready message.

    Writes the script that hands over to `home`, which is made private.

    Raises:
        CoordinatorUnreachableError: nobody came within `timeout_s`.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.chmod(0o700)
    deadline_s = time.monotonic() + timeout_s
    with _listening(home) as listener:
        _write_script(home, cluster_id)
        while (left_s := deadline_s - time.monotonic()) > 0:
            listener.settimeout(left_s)
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                break
            with connection:
                try:
                    secrets = _receive(connection, min(left_s, 10.0))
                except (OSError, BadOptionsError) as error:
                    sys.stderr.write(f"runner.coordinator: a hand-over failed: {error}\n")
                    continue
                return secrets, connection.detach()
    raise CoordinatorUnreachableError(
        f"cluster {cluster_id}: nobody handed over its secrets within {timeout_s:g} s; who booted it has given up"
    )


def hand_over(home: Path, cluster_id: str, secrets: Secrets, timeout_s: float) -> dict[str, Any]:
    """Give the secrets to the coordinator of this machine, and wait until it serves; returns what it says of itself.

    May be repeated after a lost answer: a coordinator that has started already answers those who know its token.

    Raises:
        CoordinatorUnreachableError: there is none, or it ended, or `timeout_s` is over.
        AuthenticationError: it has started with another token.
    """
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        found = _already_serving(home, cluster_id, secrets)
        if found is not None:
            return found
        answer = _ask(home, secrets, deadline_s)
        if answer is not None:
            if "error" in answer:
                raise CoordinatorUnreachableError(f"cluster {cluster_id} could not start: {answer['error']['message']}")
            return _told(answer["cluster_id"], answer["address"], answer["ca_pem"])
        time.sleep(_POLL_S)
    raise CoordinatorUnreachableError(
        f"cluster {cluster_id} did not take its secrets within {timeout_s:g} s, or ended; look at the machine's log"
    )


def script_command(home: str) -> list[str]:
    """What to run inside the machine, with the secrets on standard input. Needs no PATH and no environment."""
    return ["/bin/sh", f"{home}/{SCRIPT_NAME}"]


def _already_serving(home: Path, cluster_id: str, secrets: Secrets) -> dict[str, Any] | None:
    info = read_cluster(home / "clusters" / cluster_id)
    if info is None or not info.is_running():
        return None
    if not tokens_equal(info.read_token(), secrets.token):
        raise AuthenticationError(f"cluster {cluster_id} has started with another token")
    return _told(info.cluster_id, info.address, info.read_ca())


def _told(cluster_id: str, address: str, ca_pem: bytes) -> dict[str, Any]:
    return {"cluster_id": cluster_id, "address": address, "ca_pem": ca_pem.decode("ascii")}


def _ask(home: Path, secrets: Secrets, deadline_s: float) -> dict[str, Any] | None:
    """Its ready message; None when nobody listens, or it ended before it served."""
    try:
        with _socket_path(home) as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(max(0.01, deadline_s - time.monotonic()))
            sock.connect(path)
            sock.sendall(secrets.to_json().encode())
            sock.shutdown(socket.SHUT_WR)
            answer = _read_all(sock)
    except OSError:
        return None
    return dict(msgpack.unpackb(answer)) if answer else None


def _receive(connection: socket.socket, timeout_s: float) -> Secrets:
    connection.settimeout(timeout_s)
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid not in {os.getuid(), 0}:
        raise BadOptionsError(f"user {uid} may not hand over")
    secrets = Secrets.from_json(_read_all(connection))
    connection.settimeout(None)
    return secrets


def _read_all(sock: socket.socket) -> bytes:
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
        if len(data) > _MESSAGE_BYTES_MAX:
            raise BadOptionsError(f"a message has more than {_MESSAGE_BYTES_MAX} bytes")
    return data


@contextmanager
def _listening(home: Path) -> Iterator[socket.socket]:
    with _socket_path(home) as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        (home / _SOCKET_NAME).unlink(missing_ok=True)  # of a start that was killed
        listener.bind(path)
        listener.listen(4)
        try:
            yield listener
        finally:
            (home / _SOCKET_NAME).unlink(missing_ok=True)


@contextmanager
def _socket_path(home: Path) -> Iterator[str]:
    """A short name of the socket, however deep `home` is: the kernel takes some hundred bytes."""
    fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{_SOCKET_NAME}"
    finally:
        os.close(fd)


def _write_script(home: Path, cluster_id: str) -> None:
    """Starts `hand_over` with this very interpreter and package, whatever the caller's environment is."""
    package = str(Path(__file__).resolve().parent.parent.parent)
    command = [sys.executable, "-P", "-m", "runner.coordinator", "--hand-over", str(home), "--cluster", cluster_id]
    text = f"#!/bin/sh\nPYTHONPATH={shlex.quote(package)} exec {shlex.join(command)}\n"
    temporary = home / f"{SCRIPT_NAME}.{os.getpid()}"
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o700)
    os.replace(temporary, home / SCRIPT_NAME)
