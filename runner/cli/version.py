"""`runner version`."""

from __future__ import annotations

import click

from runner.cli.options import json_option
from runner.cli.output import print_json


@click.command("version")
@json_option
def command(as_json: bool) -> None:
    """Print the versions of runner, its protocol and Python."""
    from runner.rpc.version import PROTOCOL, VERSION, python_version

    if as_json:
        print_json({"runner": VERSION, "protocol": PROTOCOL, "python": python_version()})
    else:
        click.echo(f"runner {VERSION} (protocol {PROTOCOL}, Python {python_version()})")
