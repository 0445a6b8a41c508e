"""What a coordinator's addresses mean to a machine with a network of its own."""

from __future__ import annotations

import pytest

from runner.rpc.addresses import seen_through


@pytest.mark.parametrize(
    ("address", "found_at", "seen"),
    [
        ("127.0.0.1:7421", "10.0.2.2:7420", "10.0.2.2:7421"),
        ("localhost:7421", "10.0.2.2:7420", "10.0.2.2:7421"),
        ("[::1]:7421", "[fec0::2]:7420", "[fec0::2]:7421"),
        ("127.0.0.1:7421", "127.0.0.1:7420", "127.0.0.1:7421"),
        ("192.168.1.7:7421", "10.0.2.2:7420", "192.168.1.7:7421"),
    ],
)
def test_the_coordinators_loopback_is_where_it_was_found(address: str, found_at: str, seen: str) -> None:
    assert seen_through(address, found_at) == seen
