"""`runner worker`: what a booted machine runs."""

from __future__ import annotations

import base64
import binascii
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from runner.cli.options import settings
from runner.config import BOOT, BOOT_FILE, Settings, forget_boot
from runner.errors import BadOptionsError
from runner.placing import parse_labels

if TYPE_CHECKING:
    from runner.providers.base import BootConfig


@click.command("worker")
@click.option("--labels", metavar="NAME=VALUE,...", default="", help="Of this machine, beside those of its pool.")
def command(labels: str) -> None:
    """Join the cluster that booted this machine, and work until told to stop.

    The boot configuration comes from the provider: base64 in RUNNER_BOOT, or in
    the file that RUNNER_BOOT_FILE names, which is removed once it is read.
    """
    loaded = settings()
    boot = read_boot(loaded)
    boot = replace(boot, labels={**boot.labels, **parse_labels("--labels", read_labels(labels))})
    # It holds the join token, and user code sees the environment and the files.
    forget_boot()
    if loaded.boot_file is not None:
        with contextlib.suppress(OSError):  # another user's, or mounted to be read only
            loaded.boot_file.unlink()
    from runner.worker.agent.agent import run_agent

    raise SystemExit(run_agent(boot))


def read_labels(text: str) -> dict[str, str]:
    """From `name=value,name=value`."""
    pairs = [part.partition("=") for part in text.split(",") if part]
    if bad := [name for name, equals, _ in pairs if not equals]:
        raise BadOptionsError(f"--labels {text!r}: {bad[0]!r} is not NAME=VALUE")
    return {name.strip(): value.strip() for name, _, value in pairs}


def read_boot(loaded: Settings) -> BootConfig:
    """The boot configuration of this machine.

    Raises:
        click.UsageError: there is none.
        BadOptionsError: it cannot be read; the message does not show it.
    """
    import msgpack

    from runner.providers.base import BootConfig

    packed, source = _packed(loaded)
    try:
        return BootConfig.from_dict(msgpack.unpackb(packed))
    except (ValueError, TypeError, AttributeError, KeyError, msgpack.UnpackException):
        raise BadOptionsError(f"{source} holds no boot configuration (a msgpack map; it is not shown here)") from None


def _packed(loaded: Settings) -> tuple[bytes, str]:
    if loaded.boot_file is not None:
        try:
            return loaded.boot_file.read_bytes(), f"{BOOT_FILE} ({loaded.boot_file})"
        except OSError as error:
            raise BadOptionsError(
                f"{BOOT_FILE} names {loaded.boot_file}, which cannot be read: {error.strerror}"
            ) from None
    if loaded.boot is not None:
        try:
            return base64.b64decode(loaded.boot, validate=True), BOOT
        except (binascii.Error, ValueError):
            raise BadOptionsError(f"{BOOT} is not base64 (it is not shown here)") from None
    raise click.UsageError(
        f"no boot configuration: set {BOOT} or {BOOT_FILE}; this command is run by machines, not by people"
    )
