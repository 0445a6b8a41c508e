"""One connection to an actor, and what is read from it."""

from __future__ import annotations

import socket

from runner.client.actors.channel import ActorChannel
from runner.rpc.actor_frames import Decoder

RETRY_FIRST_S = 0.02
_READ_BYTES = 256 << 10


class Link:
    """One connection of one channel: a socket, or without one the way through the server."""

    def __init__(self, channel: ActorChannel, sock: socket.socket | None = None) -> None:
        self.channel = channel
        self.sock = sock
        self.decoder = Decoder()
        self.unsent = memoryview(b"")  # what did not fit into the socket
        self.is_stuck = False  # the poll tells when more can be sent
        self.is_flush_wanted = False
        self.is_open = True
        self.interrupt: BaseException | None = None  # came while frames were handled: to be raised when they are
        self.retry_s = RETRY_FIRST_S  # to wait before the next one, if this one comes to nothing


def receive(sock: socket.socket) -> bytes | None:
    """What has come: None for nothing, no bytes for the end."""
    try:
        return sock.recv(_READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def raise_late(link: Link) -> None:
    """Raise the interrupt that came while its frames were handled."""
    if link.interrupt is not None:
        error, link.interrupt = link.interrupt, None
        raise error
