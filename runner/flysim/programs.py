"""What a machine of this configuration runs, here where no image can be run."""

from __future__ import annotations

import base64
import binascii
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack

from runner.config import BOOT, BOOT_FILE, COORDINATOR
from runner.providers.base import BootConfig

_EXIT_USAGE = 2


@dataclass(frozen=True, slots=True)
class AgentProgram:
    """The agent that this configuration boots: `runner worker`, forked from a warm process."""

    boot: BootConfig


@dataclass(frozen=True, slots=True)
class CommandProgram:
    """A process of its own."""

    argv: tuple[str, ...]
    memory_folder: str = ""  # shared memory that is the machine's alone, and gone with it


@dataclass(frozen=True, slots=True)
class BrokenProgram:
    """It would end at once: what it would write, and its exit code."""

    text: str
    exit_code: int = _EXIT_USAGE


Program = AgentProgram | CommandProgram | BrokenProgram


def process_for(config: Mapping[str, Any], secrets: Mapping[str, str]) -> Program | None:
    """The program; None where it is not known how to run it: such a machine is imagined.

    `secrets`: of the app, base64; a file of the machine may name one.
    """
    env = config.get("env") or {}
    if env.get(COORDINATOR):
        return CommandProgram((sys.executable, "-m", "runner.coordinator"), _store_of(env[COORDINATOR]))
    if not env.get(BOOT) and not env.get(BOOT_FILE):
        return None
    try:
        packed = _file(config, secrets, env[BOOT_FILE]) if env.get(BOOT_FILE) else env[BOOT]
        return AgentProgram(BootConfig.from_dict(msgpack.unpackb(base64.b64decode(packed, validate=True))))
    except (KeyError, ValueError, TypeError, AttributeError, binascii.Error, msgpack.UnpackException):
        return BrokenProgram("the machine has no boot configuration that can be read (it is not shown here)")


def _store_of(packed: str) -> str:
    """Where a coordinator with these settings keeps large values."""
    try:
        cluster_id = str(msgpack.unpackb(base64.b64decode(packed, validate=True))["cluster_id"])
    except (KeyError, ValueError, TypeError, binascii.Error, msgpack.UnpackException):
        return ""  # it says itself what is wrong with them
    return f"/dev/shm/runner-{cluster_id}" if cluster_id.isalnum() else ""


def _file(config: Mapping[str, Any], secrets: Mapping[str, str], path: str) -> str:
    for each in config.get("files") or []:
        if each.get("guest_path") == path:
            return str(secrets[each["secret_name"]] if "secret_name" in each else each["raw_value"])
    raise KeyError(path)
