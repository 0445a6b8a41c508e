"""Who is at the other end of a Unix socket. Names of abstract sockets can be read, and taken, by every user of a host."""

from __future__ import annotations

import os
import socket
import struct

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def user_of(sock: socket.socket) -> int:
    """The user who has connected, or who listens where we have."""
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)


def is_own(sock: socket.socket) -> bool:
    """Whether that is our own user. What others say must not be unpickled, nor be told a secret."""
    return user_of(sock) == os.geteuid()
