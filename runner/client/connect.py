"""Where a standing cluster is, and what connecting to it needs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from runner import config
from runner.rpc.clusters import Target, resolve


def find_target(address: str | None, token: str | None, ca: str | os.PathLike[str] | bytes | None) -> Target:
    """The coordinator to connect to: arguments first, then the environment, then the clusters of this host.

    `ca` is PEM bytes or the path of a PEM file.

    Raises:
        BadOptionsError: the address, the token or the CA file cannot be one.
        AuthenticationError: token or CA are not known here.
    """
    settings = config.load()
    if address is not None:
        address = config.parse_address(address, "init(address)")
    if token is not None:
        settings = replace(settings, token=token)
    if isinstance(ca, str | os.PathLike):
        settings = replace(settings, ca_file=Path(ca))
    if isinstance(ca, bytes) and token is not None and address is not None:
        return Target(address, ca, token)
    target = resolve(settings, address)
    return replace(target, ca_pem=ca) if isinstance(ca, bytes) else target
