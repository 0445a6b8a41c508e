"""Addresses as `host:port`, and what they mean to a machine with a network of its own. Pure."""

from __future__ import annotations


def is_loopback(address: str) -> bool:
    """Whether it is reached on the same host only."""
    host = address.rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")


def seen_through(address: str, found_at: str) -> str:
    """Where a machine that has found its coordinator at `found_at` finds what the coordinator calls `address`.

    The coordinator's loopback is not the machine's own: a guest of a hypervisor, say, sees it under another host.
    """
    if not is_loopback(address) or is_loopback(found_at):
        return address
    return f"{found_at.rpartition(':')[0]}:{address.rpartition(':')[2]}"
