"""A coordinator that was booted as a machine: its settings come from the environment, its secrets over a socket."""

from __future__ import annotations

import base64
import binascii
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack

from runner import config as settings
from runner.coordinator.config import CoordinatorConfig
from runner.coordinator.handover import Secrets, hand_over, take_secrets
from runner.errors import BadOptionsError, RunnerError

WILDCARDS = ("::", "0.0.0.0")
# For the whole of a hand-over inside the machine: importing gRPC on a small one takes seconds.
HAND_OVER_S = 45.0


def wait_for_secrets() -> tuple[CoordinatorConfig, int]:
    """The whole configuration, and the descriptor for the ready message. Blocks until the secrets have come.

    Raises:
        BadOptionsError: RUNNER_COORDINATOR is not set, or holds something else.
        CoordinatorUnreachableError: no secrets came within `client_lost_after_s`.
    """
    loaded = settings.load()
    packed = read_packed(loaded)
    # Who booted it counts as its first client: one that does not come is lost.
    patience_s = float(packed.get("client_lost_after_s", 30.0))
    secrets, ready_fd = take_secrets(Path(packed["home"]), packed["cluster_id"], patience_s)
    try:
        return with_secrets(packed, secrets, loaded), ready_fd
    except RunnerError as error:
        # Whoever handed over waits for an answer.
        with os.fdopen(ready_fd, "wb") as file:
            file.write(msgpack.packb({"error": {"type": type(error).__name__, "message": str(error)}}))
        raise


def with_secrets(packed: dict[str, Any], secrets: Secrets, loaded: settings.Settings) -> CoordinatorConfig:
    """The configuration that RUNNER_COORDINATOR and the secrets make, with this machine's own address where none is given.

    Raises:
        BadOptionsError: a value cannot work.
    """
    options = {**packed.get("provider_options", {}), **secrets.provider_options}
    config = CoordinatorConfig.from_dict({**packed, "provider_options": options, "token": secrets.token})
    if config.advertise or config.host not in WILDCARDS:
        return config
    if not loaded.private_address:
        raise BadOptionsError(
            f"machines would not find the coordinator: it listens everywhere, and neither advertise nor "
            f"{settings.PRIVATE_ADDRESS} says where that is; Fly sets the latter in each machine"
        )
    return replace(config, advertise=loaded.private_address)


def read_packed(loaded: settings.Settings) -> dict[str, Any]:
    """What RUNNER_COORDINATOR says. Without the secrets it cannot be checked: a provider may need its token."""
    if loaded.coordinator is None:
        raise BadOptionsError(
            f"no settings: {settings.COORDINATOR} is not set; `python -m runner.coordinator` is run by programs, people "
            f"use `runner up`"
        )
    try:
        packed = msgpack.unpackb(base64.b64decode(loaded.coordinator, validate=True))
    except (binascii.Error, ValueError, msgpack.UnpackException):
        packed = None
    if not isinstance(packed, dict):
        raise BadOptionsError(f"{settings.COORDINATOR} is not a base64 msgpack map")
    if not packed.get("cluster_id") or not packed.get("home") or packed.get("embedded", True):
        raise BadOptionsError(f"{settings.COORDINATOR} names no home or cluster_id, or an embedded cluster")
    return packed


def encode_config(config: CoordinatorConfig) -> str:
    """The value of RUNNER_COORDINATOR.

    Raises:
        BadOptionsError: the configuration holds a secret: whoever can list machines can read their environment.
    """
    if config.token or "token" in config.provider_options:
        raise BadOptionsError("a token is in the settings of a coordinator machine; it has to be handed over instead")
    return base64.b64encode(msgpack.packb(config.to_dict())).decode("ascii")


def hand_over_stdin(home: str, cluster_id: str) -> int:
    """Hand the secrets on standard input over; the answer goes to standard output as one JSON object. The exit status."""
    try:
        told = hand_over(Path(home), cluster_id, Secrets.from_json(sys.stdin.buffer.read()), HAND_OVER_S)
    except RunnerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(told) + "\n")
    return 0
