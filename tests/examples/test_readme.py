"""The tour in the README is a program that runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


def test_the_tour(tmp_path: Path) -> None:
    (tour,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in tour.splitlines() if line.strip()]) <= 34
    script = tmp_path / "tour.py"
    script.write_text(tour)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    # The tasks' own lines come whole, but may come between the text and the newline of a print() of the script.
    task_line = re.compile(r"\(lr=[\d.]+\) epoch \d: weight -?[\d.]+\n")
    assert len(task_line.findall(done.stdout)) == 9, done.stdout
    lines = task_line.sub("", done.stdout).splitlines()
    for lr in (0.001, 0.01, 0.1):
        assert len([line for line in lines if line.startswith(f"lr={lr} ")]) == 3, done.stdout
    assert "1 ready, 2 others" in lines
    assert any(line.startswith("caught: ") and "division by zero" in line for line in lines), done.stdout
    assert re.search(r"\['\w+', '\w+'\]", lines[-1]), done.stdout
