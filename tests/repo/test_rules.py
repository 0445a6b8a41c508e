"""Rules about the source that no linter knows."""

from __future__ import annotations

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PURE = [
    *sorted((ROOT / "runner" / "core").glob("*.py")),
    ROOT / "runner" / "worker" / "agent_machine.py",
    ROOT / "runner" / "client" / "session_machine.py",
]
SLEEPERS = (("integration", "helpers.py"), ("leakcheck.py",), ("unit", "test_testing.py"))
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


def sleeps(tree: ast.Module) -> list[int]:
    """Lines that call time.sleep, or asyncio.sleep with anything but a literal 0."""
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        is_zero = bool(node.args) and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
        if called == "time.sleep" or (called == "asyncio.sleep" and not is_zero):
            lines.append(node.lineno)
    return lines


def _may_sleep(path: pathlib.Path) -> bool:
    parts = path.relative_to(ROOT / "tests").parts
    # The last one sleeps on FakeClock, where it takes no time.
    return parts[0] == "chaos" or parts in SLEEPERS


class _OutsideRemote(ast.NodeTransformer):
    """Drops the bodies of functions that run elsewhere: a task that takes long is the thing under test there."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        if any("remote" in ast.unparse(decorator) for decorator in node.decorator_list):
            return None
        return self.generic_visit(node)


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_do_not_sleep(path: pathlib.Path) -> None:
    if _may_sleep(path):
        return
    found = sleeps(_OutsideRemote().visit(_tree(path)))

    assert found == [], f"{path}: lines {found}: wait for the event itself, or with a deadline (integration/helpers.py)"


def test_the_rule_sees_a_sleep() -> None:
    tree = ast.parse("import time\ntime.sleep(1)\nasyncio.sleep(0)\nasyncio.sleep(0.1)\n")

    assert sleeps(tree) == [2, 4]


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.name)
def test_pure_modules_import_nothing_impure(path: pathlib.Path) -> None:
    assert _imported(_tree(path)) & BANNED_IN_PURE == set()
