"""The gates and the benchmark harness notice what they are there to notice."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import pytest

from bench.harness import Figure, percentile
from bench.memory import pss_bytes, tree
from scripts import check_links, check_sizes, freeze, gen_protos

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_generated_code_that_was_edited_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = {"a_pb2.py": "one\n", "__init__.py": ""}
    monkeypatch.setattr(gen_protos, "_present", lambda: {"a_pb2.py": "two\n", "__init__.py": ""})

    assert gen_protos._check(wanted) == 1
    assert "stale (a_pb2.py)" in capsys.readouterr().out


def test_a_generated_file_too_many_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gen_protos, "_present", lambda: {"__init__.py": "", "old_pb2.py": "x"})

    assert gen_protos._check({"__init__.py": ""}) == 1
    assert gen_protos._check({"__init__.py": "", "old_pb2.py": "x"}) == 0


def test_generated_imports_stay_inside_the_package() -> None:
    text = "from runner.v1 import types_pb2 as x\nfrom google.protobuf import y\n"

    assert gen_protos._rewritten(text) == "from runner.rpc.gen import types_pb2 as x\nfrom google.protobuf import y\n"


def test_a_broken_link_and_a_missing_heading_are_reported(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_links, "ROOT", tmp_path)
    (tmp_path / "there.md").write_text("# One: `two` words\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md#one-two-words) [b](there.md#three) [c](gone.md) [d](https://example.org/x)\n"
        "```\n[e](not-a-link.md)\n```\n",
        encoding="utf-8",
    )

    assert check_links.broken(page) == [
        "page.md: there.md#three: no such heading",
        "page.md: gone.md: no such file",
    ]


def test_sizes_over_the_limits_are_errors(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_sizes, "ROOT", tmp_path)
    long_function = "def f():\n" + "    pass\n" * 70
    (tmp_path / "long.py").write_text(long_function + "x = 1\n" * 400, encoding="utf-8")
    (tmp_path / "aim.py").write_text("def g():\n" + "    pass\n" * 41, encoding="utf-8")
    monkeypatch.setattr(check_sizes, "python_files", lambda: [tmp_path / "aim.py", tmp_path / "long.py"])

    assert check_sizes.main() == 1
    printed = capsys.readouterr().out
    assert "aim.py:1 g: 42 lines" in printed
    assert "long.py: 471 lines, at most 400" in printed
    assert "long.py:1 f: 71 lines, at most 70" in printed


def test_pins_lose_their_local_label_and_installers(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = "torch==2.13.0+cpu\npip==1.0\nAbc-d==1.2\n-e git+x#egg=runner\n"

    def run(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, stdout=listed)

    monkeypatch.setattr(freeze, "ROOT", tmp_path)
    monkeypatch.setattr("scripts.freeze.subprocess.run", run)

    assert freeze.main() == 0
    pins = (tmp_path / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in pins if not line.startswith("#")] == ["Abc-d==1.2", "torch==2.13.0"]
    assert "2 versions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("samples", "target", "more_is_better", "met"),
    [
        ([1, 2, 9], 2, False, True),
        ([1, 3, 9], 2, False, False),
        ([1, 3, 9], 3, True, True),
        ([1, 3], None, False, None),
    ],
)
def test_a_figure_is_judged_by_its_median(
    samples: list[float], target: float | None, more_is_better: bool, met: bool | None
) -> None:
    figure = Figure("f", "s", samples, target, more_is_better)

    assert figure.is_met is met
    assert ("MISSED" in figure.line()) is (met is False)


def test_percentiles_are_samples() -> None:
    assert percentile(range(100), 50) == 50
    assert percentile(range(100), 99) == 99
    assert percentile([7.0], 95) == 7.0


def test_memory_is_counted_over_the_whole_tree() -> None:
    code = "import sys; data = bytearray(b'x') * 30_000_000; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        import os

        assert child.pid in tree(os.getpid())
        assert pss_bytes(child.pid) > 30_000_000
        child.communicate()
    assert pss_bytes(child.pid) == 0
