"""Rules about the source that no linter knows."""

from __future__ import annotations

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What the agent's decisions are made of.
PURE_OF_AGENT = (
    "attempt_flow",
    "events",
    "executor_pool",
    "faults",
    "lease",
    "machine",
    "report_buffer",
    "slots",
    "suspending",
    "template_flow",
    "templates",
    "timers",
)
PURE = [
    *sorted((ROOT / "runner" / "core").rglob("*.py")),
    *(ROOT / "runner" / "worker" / "agent" / f"{name}.py" for name in PURE_OF_AGENT),
    ROOT / "runner" / "client" / "session_machine.py",
]
SLEEPERS = (
    ("integration", "helpers.py"),
    ("leakcheck.py",),
    ("unit", "test_testing.py"),
    ("integration", "worker", "actor_classes.py"),  # what runs in executors may take its time
)
# There sleeping takes no time.
ON_FAKE_CLOCK = (("unit", "providers", "fly"),)
WORK_S = 30
BANNED_IN_PURE = {"asyncio", "grpc", "os", "random", "secrets", "socket", "sqlite3", "subprocess", "threading", "time"}


def _tree(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _imported(tree: ast.Module) -> set[str]:
    """Top-level names of everything that the module imports, at any depth of nesting."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def sleeps(tree: ast.AST) -> list[int]:
    """Lines that call time.sleep, or asyncio.sleep with anything but a literal 0.

    A sleep of 30 s or more is work that somebody has to stop: no test could wait for it.
    """
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        if isinstance(given, int | float) and given >= WORK_S:
            continue
        if called == "time.sleep" or (called == "asyncio.sleep" and given != 0):
            lines.append(node.lineno)
    return lines


def _may_sleep(path: pathlib.Path) -> bool:
    parts = path.relative_to(ROOT / "tests").parts
    return parts[0] == "chaos" or parts in SLEEPERS or parts[:3] in ON_FAKE_CLOCK


class _OutsideRemote(ast.NodeTransformer):
    """Drops the functions that run elsewhere, decorated or given to `remote(...)`: tasks may take their time."""

    def __init__(self, tree: ast.Module) -> None:
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and "remote" in ast.unparse(node.func))
        self._given = {each.id for call in calls for each in call.args if isinstance(each, ast.Name)}

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        if node.name in self._given or any("remote" in ast.unparse(each) for each in node.decorator_list):
            return None
        return self.generic_visit(node)


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_do_not_sleep(path: pathlib.Path) -> None:
    if _may_sleep(path):
        return
    tree = _tree(path)
    found = sleeps(_OutsideRemote(tree).visit(tree))

    assert found == [], f"{path}: lines {found}: wait for the event itself, or with a deadline (integration/helpers.py)"


def test_the_rule_sees_a_sleep() -> None:
    tree = ast.parse(
        "import time\ntime.sleep(1)\nasyncio.sleep(0)\nasyncio.sleep(0.1)\ntime.sleep(60)\ntime.sleep(x)\n"
    )

    assert sleeps(tree) == [2, 4, 6]


def test_the_rule_leaves_tasks_alone() -> None:
    tree = ast.parse("def f():\n time.sleep(1)\n@runner.remote\ndef g():\n time.sleep(1)\nremote(f)\n")

    assert sleeps(_OutsideRemote(tree).visit(tree)) == []


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.name)
def test_pure_modules_import_nothing_impure(path: pathlib.Path) -> None:
    assert _imported(_tree(path)) & BANNED_IN_PURE == set()
