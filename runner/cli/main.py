"""The entry point. Commands are imported when they run, so that `runner --help` is quick."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, NoReturn

import click

from runner.errors import RunnerError

# name -> (module, what the overview says)
COMMANDS = {
    "up": ("runner.cli.up", "Start a standing cluster on this host."),
    "down": ("runner.cli.down", "Stop a standing cluster and its machines."),
    "status": ("runner.cli.status", "What a cluster has, does, and waits for."),
    "machines": ("runner.cli.machines", "List a cluster's machines."),
    "runs": ("runner.cli.runs", "List runs, or show one: metrics, attempts, outcome."),
    "logs": ("runner.cli.logs", "Print what a run wrote."),
    "fly-sim": ("runner.cli.fly_sim", "Simulate Fly Machines on this computer, with real agents."),
    "image": ("runner.cli.image", "Build or check the image that machines boot from."),
    "worker": ("runner.cli.worker", "Be a machine: the entry point of the worker image."),
    "version": ("runner.cli.version", "Print versions."),
}

INTERRUPTED = 130


class Failure(click.ClickException):
    """One or two clear lines on stderr and exit code 1."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        """Print the message."""
        click.echo(f"error: {self.format_message()}", err=True)


class LazyGroup(click.Group):
    """Knows names and one-line helps of its commands; loads a command's module when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of a cluster's life."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; typed errors become short messages."""
        try:
            return super().invoke(ctx)
        except RunnerError as error:
            raise Failure(str(error)) from None
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run Python functions on machines that boot for the purpose.

    Commands that talk to a cluster take the one of this host, or the one that
    --address or RUNNER_ADDRESS names (with RUNNER_TOKEN and RUNNER_CA).
    """


def main() -> NoReturn:
    """The `runner` executable."""
    try:
        cli(prog_name="runner")
    except BrokenPipeError:  # `runner logs x | head`
        # Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)
