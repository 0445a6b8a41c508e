"""Other programs that building an image runs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from runner.errors import UsageError

_TAIL_LINES = 10


def need(packages: Mapping[str, str]) -> None:
    """See that programs are there; `packages`: the Debian package of each.

    Raises:
        UsageError: it names what to install.
    """
    missing = [program for program in packages if shutil.which(program) is None]
    if missing:
        wanted = " ".join(sorted({packages[program] for program in missing}))
        raise UsageError(f"{', '.join(missing)} missing on this host; install with: apt-get install {wanted}")


def run(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    stdin: IO[Any] | int = subprocess.DEVNULL,
    stdout: IO[Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a program to its end; it says nothing unless it fails.

    Raises:
        UsageError: it failed; with its last lines.
    """
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=stdin,
        stdout=stdout or subprocess.PIPE,
        stderr=subprocess.STDOUT if stdout is None else subprocess.PIPE,
        env=env,
        check=False,
    )
    if done.returncode:
        said = (done.stdout if stdout is None else done.stderr).decode(errors="replace").strip().splitlines()
        lines = "\n".join(said[-_TAIL_LINES:])
        raise UsageError(f"`{' '.join(command[:3])} ...` failed with exit code {done.returncode}:\n{lines}")


def output_of(command: Sequence[str]) -> str:
    """What a program prints.

    Raises:
        UsageError: it failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-500:]}")
    return done.stdout
