"""`runner fly-sim`: a Fly Machines API on this computer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from runner.cli.options import home_option, settings
from runner.errors import BadOptionsError
from runner.flysim.settings import Delay, Region, SimSettings

_F = TypeVar("_F", bound=Callable[..., Any])
_DELAYS = {
    "api": "Of every call.",
    "create": "Of the create call.",
    "pull-cold": "The first machine with an image on its host.",
    "pull-warm": "Every later one.",
    "start": "From starting to started.",
    "stop": "After the program's end.",
    "suspend": "Until suspended.",
    "resume": "Until started again.",
    "update": "For a new version.",
    "destroy": "Until destroyed.",
    "visible": "From create until get, wait and list know the machine.",
}


class _DelayType(click.ParamType[Delay]):
    name = "delay"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Delay:
        try:
            return value if isinstance(value, Delay) else Delay.parse(value)
        except BadOptionsError as error:
            self.fail(str(error), param, ctx)


def _delay_options(command: _F) -> _F:
    for name, text in reversed(_DELAYS.items()):
        command = click.option(f"--{name}-delay", type=_DelayType(), metavar="S[~SPREAD]", help=text)(command)
    return command


@click.command("fly-sim")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=4280, show_default=True, help="0 takes a free one.")
@click.option("--seed", type=int, help="Of all chance.  [default: 0]")
@click.option("--org", help="The token's organisation.  [default: personal]")
@click.option("--capacity", multiple=True, metavar="REGION=N", help="A region with room for N machines; repeat it.")
@click.option("--image", "images", multiple=True, metavar="PATTERN", help="An image that exists; repeat it.")
@click.option("--no-rate-limit", is_flag=True, help="Answer as many calls as come.")
@click.option("--fault", "faults", multiple=True, metavar="NAME=VALUE", help="Any setting, by its name; repeat it.")
@_delay_options
@click.option("--settings", "packed", metavar="JSON", help="All settings as one map; other options win.")
@click.option("--logs", type=click.Path(file_okay=False, path_type=Path), help="Keep what machines write here.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON in place of text.")
@click.option("--until-stdin-closes", is_flag=True, help="End with the process that started it.")
@home_option
def command(
    host: str,
    port: int,
    packed: str | None,
    logs: Path | None,
    as_json: bool,
    until_stdin_closes: bool,
    home: Path | None,
    **options: Any,
) -> None:
    """Serve a simulated Fly Machines API until Ctrl-C.

    Machines in it are real agents on this computer, and end with it. Prints
    what to export so that provider "fly" uses it. docs/fly-sim.md has every
    setting for --fault.
    """
    wanted = _settings(packed, options)
    try:
        from runner.flysim.serve import Place, serve
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    place = Place(settings(home).home, host, port, logs, as_json, until_stdin_closes)
    try:
        raise SystemExit(serve(wanted, place))
    except ModuleNotFoundError as error:
        raise _missing(error) from None


def _missing(error: ModuleNotFoundError) -> BadOptionsError:
    if (error.name or "").startswith("runner"):
        raise error
    return BadOptionsError(f"fly-sim needs the package {error.name!r}; install it with: pip install 'runner[fly-sim]'")


def _settings(packed: str | None, options: dict[str, Any]) -> SimSettings:
    values: dict[str, Any] = {}
    if packed is not None:
        try:
            values = dict(json.loads(packed))
        except (ValueError, TypeError):
            raise BadOptionsError("--settings is no JSON map") from None
    for text in options.pop("faults"):
        name, value = _pair(text, "--fault", "NAME=VALUE")
        values[name.replace("-", "_")] = _parsed(name.replace("-", "_"), value)
    if options.pop("no_rate_limit"):
        values["rate_limit"] = False
    capacity = options.pop("capacity")
    if capacity:
        values["regions"] = tuple(_region(text) for text in capacity)
    if images := options.pop("images"):
        values["images"] = images
    values |= {name: value for name, value in options.items() if value is not None}
    return SimSettings.from_dict(values)


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise click.UsageError(f"{option} is {text!r}; expected {form}")
    return name, value


def _region(text: str) -> Region:
    code, count = _pair(text, "--capacity", "REGION=N, such as iad=40")
    if not count.isdecimal() or int(count) == 0:
        raise click.UsageError(f"--capacity is {text!r}; expected REGION=N, such as iad=40")
    return Region(code, int(count))


def _parsed(name: str, value: str) -> Any:
    """The value as the setting of that name has it."""
    defaults = {each.name: each.default for each in dataclasses.fields(SimSettings)}
    default = defaults.get(name)
    if isinstance(default, Delay):
        return Delay.parse(value)
    if isinstance(default, bool):
        return value.lower() in ("1", "true", "yes", "on")
    try:
        return type(default)(value) if isinstance(default, int | float) else value
    except ValueError:
        raise BadOptionsError(f"--fault {name}={value}: expected a number") from None
