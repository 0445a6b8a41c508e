"""Every rule of the simulator names the row of the facts that it keeps."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

import runner.flysim
from runner.flysim.openapi import Description
from runner.flysim.states import State
from runner.flysim.world import OPERATIONS, WAIT

ROOT = pathlib.Path(runner.flysim.__file__).parent  # also where the package is installed
RULES = (
    "answers", "app_calls", "config_rules", "detail_calls", "extra_calls", "gate", "leases", "lifecycle", "machine_calls",
    "moves", "placing", "records", "states", "views", "volumes", "waiting",
)  # fmt: skip
# Of the facts: section 0 has seven points, section 1 eight parts.
CITATION = re.compile(r"\[(?:0\.[1-7]|1\.[1-8](?![0-9]))[^\]]*\]")
# What the simulator is made of, which no fact speaks of.
OF_OUR_OWN = {
    "answers.Answer",
    "gate.CutError.__init__",
    "gate.Limits.__init__",
    "records.IllegalMoveError",
    "records.Command",
}
COMMANDS = {"records.Boot", "records.Signal", "records.Kill", "records.Freeze", "records.Thaw"}


def rules() -> list[tuple[str, str]]:
    """Names and docstrings of all public functions, methods and classes of the rule modules."""
    found: list[tuple[str, str]] = []
    for module in RULES:
        tree = ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8"))
        public = (
            each for each in tree.body if isinstance(each, ast.FunctionDef | ast.ClassDef) and each.name[0] != "_"
        )
        found += [(f"{module}.{node.name}", ast.get_docstring(node) or "") for node in public]
    return [(name, text) for name, text in found if name not in OF_OUR_OWN | COMMANDS]


@pytest.mark.parametrize(("name", "text"), rules(), ids=[name for name, _ in rules()])
def test_every_rule_cites_its_row(name: str, text: str) -> None:
    assert CITATION.search(text), f"{name} does not say which row of the facts it keeps: {text!r}"


def test_there_are_rules_and_the_test_sees_a_missing_one() -> None:
    assert len(rules()) > 90
    assert not CITATION.search("Waits. [1.9 wait]")
    assert CITATION.search("Waits. [1.2 wait, 0.5]")


def test_every_operation_of_the_description_is_served() -> None:
    assert set(OPERATIONS) | {WAIT} == set(Description.load().operations)


def test_the_states_are_those_of_the_description() -> None:
    known = Description.load()._document["components"]["schemas"]["KnownState"]["enum"]

    assert sorted(known) == sorted(state.value for state in State)
