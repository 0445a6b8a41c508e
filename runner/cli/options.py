"""Options that several commands share, and the settings behind them."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from runner import config
from runner.errors import BadOptionsError

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")


def home_option(command: _F) -> _F:
    """--home, default RUNNER_HOME or ~/.runner."""
    return click.option(
        "--home",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where clusters keep their state.  [default: RUNNER_HOME or ~/.runner]",
    )(command)


def address_option(command: _F) -> _F:
    """--address, default RUNNER_ADDRESS or the cluster of this host."""
    return click.option(
        "--address",
        metavar="HOST:PORT",
        help="The coordinator.  [default: RUNNER_ADDRESS, or the cluster of this host]",
    )(command)


def json_option(command: _F) -> _F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON with stable keys.")(command)


def settings(home: Path | None = None) -> config.Settings:
    """The environment's settings with `--home` over them; also sets the log level."""
    loaded = config.load()
    logging.basicConfig(level=loaded.log_level.upper(), stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    config.quiet_http_logs()
    return loaded if home is None else dataclasses.replace(loaded, home=home.absolute())


def inherited(name: str, value: _T | None) -> _T | None:
    """`value`, or what the command around this one was given for the option `name`."""
    around = click.get_current_context().parent
    return value if value is not None or around is None else around.params.get(name)


def checked_address(address: str | None) -> str | None:
    """`--address` as it was given, refused with a usage error when it is not host:port."""
    if address is None:
        return None
    try:
        return config.parse_address(address, "--address")
    except BadOptionsError as error:
        raise click.UsageError(str(error)) from None
