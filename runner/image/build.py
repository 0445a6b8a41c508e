"""Building the worker image with an engine's own command line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from runner.errors import UsageError
from runner.rpc.version import PROTOCOL, VERSION

ENGINES = ("docker", "podman")


def find_engine(name: str = "") -> str:
    """The command to build with.

    Raises:
        UsageError: it is not installed.
    """
    for each in (name,) if name else ENGINES:
        if shutil.which(each):
            return each
    raise UsageError(
        f"{name or 'neither docker nor podman'} is {'not ' if name else ''}installed; install one, or write the build "
        f"context with --context and build it elsewhere"
    )


def build_arguments(variant: str, base: str, more: Sequence[str]) -> list[str]:
    """Flags of `docker build` and `podman build` alike; `more`: NAME=VALUE."""
    arguments = {
        "PYTHON": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "RUNNER_VERSION": VERSION,
        "RUNNER_PROTOCOL": str(PROTOCOL),
        "VARIANT": variant,
    }
    if base:
        arguments["BASE"] = base
    pairs = [f"{name}={value}" for name, value in arguments.items()] + list(more)
    return [word for pair in pairs for word in ("--build-arg", pair)]


def build(command: Sequence[str], folder: Path, tag: str, arguments: Sequence[str]) -> None:
    """Build the context in `folder`; the engine's words go to this process's output.

    Raises:
        UsageError: it failed.
    """
    # The context holds all that is needed: what a build fetched on its own would not be locked.
    line = [*command, "build", "--network=none", "--tag", tag, *arguments, str(folder)]
    done = subprocess.run(line, check=False)
    if done.returncode:
        raise UsageError(f"{command[0]} build of {tag} failed with exit code {done.returncode}; its words are above")
