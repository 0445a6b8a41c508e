"""Whether CRIU, which saves processes to files and brings them back, works on this host. It is asked, not guessed from versions."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

_CALL_S = 20.0
_VERSION = re.compile(r"Version:\s*(\S+)")
_ERROR = re.compile(r"^Error \([^)]*\):\s*(.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Criu:
    """What was found."""

    version: str  # empty: there is none
    problem: str  # why it cannot be used; empty: `criu check` has succeeded

    @property
    def works(self) -> bool:
        return not self.problem


def find_criu(program: str = "criu") -> Criu:
    """Ask it. Takes a fraction of a second; blocking."""
    try:
        told = _run(program, "--version")
    except FileNotFoundError:
        return Criu("", f"{program} is not installed")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Criu("", f"{program} --version failed: {error}")
    found = _VERSION.search(told.stdout)
    version = found[1] if found else "of an unknown version"
    try:
        check = _run(program, "check")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Criu(version, f"CRIU {version}: `criu check` failed: {error}")
    if check.returncode == 0:
        return Criu(version, "")
    said = check.stdout + check.stderr
    first = _ERROR.search(said)
    why = first[1] if first else (said.strip().splitlines() or [f"exit code {check.returncode}"])[-1]
    return Criu(version, f"CRIU {version} does not work on this kernel: `criu check` says: {why}")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=_CALL_S,
        stdin=subprocess.DEVNULL,
    )
