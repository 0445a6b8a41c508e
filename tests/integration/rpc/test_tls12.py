"""A client that stays at TLS 1.2 can do nothing: every call is refused."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TOKEN = "the-right-token"
ROOT = Path(__file__).parents[3]


@contextlib.contextmanager
def serving() -> Iterator[int]:
    command = [sys.executable, "-m", "tests.integration.rpc.tls_server", TOKEN]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.stdin.close()


@contextlib.contextmanager
def connected(port: int, version: ssl.TLSVersion) -> Iterator[ssl.SSLSocket]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw, context.wrap_socket(raw) as tls:
        yield tls


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: str, value: str) -> bytes:
    """One header, HPACK literal without indexing (RFC 7541, 6.2.2), no Huffman code."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def call_get_status(tls: ssl.SSLSocket, token: str) -> bytes:
    """A whole gRPC call by hand, as Python has no gRPC client that stays at TLS 1.2; returns the raw answer."""
    headers = b"".join(
        literal(name, value)
        for name, value in (
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/runner.v1.Client/GetStatus"),
            (":authority", "runner-coordinator"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("authorization", f"Bearer {token}"),
        )
    )
    hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
    tls.sendall(hello + frame(1, 0x4, 1, headers) + frame(0, 0x1, 1, b"\0\0\0\0\0"))
    answer = b""
    while b"grpc-status" not in answer:
        data = tls.recv(65536)
        assert data, f"closed after {answer!r}"
        answer += data
    return answer


def test_a_tls12_connection_cannot_call_even_with_the_right_token():
    with serving() as port:
        with connected(port, ssl.TLSVersion.TLSv1_2) as tls:
            assert tls.version() == "TLSv1.2"
            answer = call_get_status(tls, TOKEN)
        assert b"AuthenticationError: this connection uses TLSv1.2; runner accepts TLS 1.3 only" in answer
        assert b"c-1" not in answer
        with connected(port, ssl.TLSVersion.TLSv1_3) as tls:
            assert b"c-1" in call_get_status(tls, TOKEN)
