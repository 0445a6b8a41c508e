"""The table of what does not hold on one of the systems: exclusions.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("exclusions.toml")


@dataclass(frozen=True, slots=True)
class Exclusion:
    """One test that must fail on one system."""

    test: str  # "objects::test_name": the module without its test_, and the function
    on: str  # "ray" or "runner"
    why: str
    run: bool = True  # False: it would hang, or end the test process


def load() -> list[Exclusion]:
    """The entries in the order of the file.

    Raises:
        TypeError: an entry has an unknown field, or lacks one.
    """
    return [Exclusion(**entry) for entry in tomllib.loads(TABLE.read_text()).get("excluded", [])]
