"""Hold the sizes: files <= 400 lines, functions <= 70 (a word about those over 40)."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE_LINES = 400
FUNCTION_LINES = 70
FUNCTION_AIM = 40


def python_files() -> list[pathlib.Path]:
    """Every Python file of the work tree that git does not ignore, generated code aside."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    paths = [ROOT / name for name in listed.stdout.splitlines() if "/gen/" not in name]
    return sorted(path for path in paths if path.exists())


def main() -> int:
    """Print what is too large; exit 1 when a limit, not only an aim, is passed."""
    errors, aims = [], []
    for path in python_files():
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT)
        lines = text.count("\n")
        if lines > FILE_LINES:
            errors.append(f"{name}: {lines} lines, at most {FILE_LINES}")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            if size > FUNCTION_LINES:
                errors.append(f"{name}:{node.lineno} {node.name}: {size} lines, at most {FUNCTION_LINES}")
            elif size > FUNCTION_AIM:
                aims.append(f"{name}:{node.lineno} {node.name}: {size} lines")
    if aims:
        print(f"functions over the aim of {FUNCTION_AIM} lines, no error:")
        print("\n".join(f"  {line}" for line in aims))
    print("\n".join(errors), end="\n" if errors else "")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
