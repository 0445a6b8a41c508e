"""The scripts as a person runs them, on a small part of the real data."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--train", "48", "--held-out", "32", "--epochs", "1", "--machines", "2"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def command(script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "examples" / script), *arguments]


def run(script: str, *arguments: str, out: Path) -> subprocess.CompletedProcess[str]:
    words = command(script, *arguments, *SMALL, "--out", str(out))
    return subprocess.run(words, capture_output=True, text=True, timeout=110, check=False, cwd=out)


def curves(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_actors(tmp_path: Path) -> None:
    environment = {**os.environ, "RUNNER_HOME": str(tmp_path)}
    done = subprocess.run(
        command("actors.py"), capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    expected = ["to: 3", "be: 2", "different words: [2, 3]", "after the crash: 1 word"]
    assert done.stdout.splitlines()[:4] == expected


def test_resume_model(tmp_path: Path) -> None:
    environment = {**os.environ, "RUNNER_HOME": str(tmp_path)}
    words = command("resume_model.py", "--repeats", "2")
    done = subprocess.run(words, capture_output=True, text=True, timeout=110, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    names = ["a fresh Python process:", "a worker process, from disk:", "a worker process, from template:"]
    took_s = [float(re.split(r":\s+", line)[1].split()[0]) for line in lines[:3]]
    assert [line[: len(name)] for line, name in zip(lines, names, strict=False)] == names
    assert took_s[2] < took_s[1] < took_s[0]
    assert lines[3].startswith("the same answers, ")


def test_finetune(tmp_path: Path) -> None:
    done = run("bert_finetune.py", "--variants", "2", out=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("lr=5e-06", "lr=0.0001"):
        assert f"{name}: epoch 1/1  loss 0." in done.stdout
        assert f"{name}: done" in done.stdout
    for expected in ("TF-IDF + logistic regression", "majority", "boot phase", "2 runs in"):
        assert expected in done.stdout
    assert (tmp_path / "bert_finetune.png").read_bytes().startswith(b"\x89PNG")
    accuracies = [float(line["accuracy"]) for line in curves(tmp_path / "bert_finetune.csv") if line["accuracy"]]
    assert len(accuracies) == 2
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)


def test_sweep(tmp_path: Path) -> None:
    done = run("bert_sweep.py", "--lr", "1e-4", "--batch-size", "8", "16", "--freeze-layers", "3", out=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "best: Config(name='bs=" in done.stdout
    assert {line["run"] for line in curves(tmp_path / "bert_sweep.csv")} == {"bs=8", "bs=16"}


def test_jobs_and_their_exit_status(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (jobs / "good.toml").write_text("batch_size = 16\nfreeze_layers = 4\n")
    (jobs / "bad.json").write_text('{"model": "/nowhere/at/all"}')
    done = run("bert_jobs.py", str(jobs), out=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "good: done" in done.stdout
    assert "bad failed: " in done.stdout
    assert "/nowhere/at/all" in done.stdout


def test_a_wrong_job_file_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text("learning_rate = 1\n")
    done = run("bert_jobs.py", str(tmp_path), out=tmp_path)
    assert done.returncode == 2
    assert "ConfigError" in done.stderr
    assert "valid ones: name, lr" in done.stderr


def test_missing_data_is_told_with_the_command(tmp_path: Path) -> None:
    environment = {**os.environ, "RUNNER_EXAMPLES_DATA": str(tmp_path / "nowhere")}
    done = subprocess.run(
        command("bert_finetune.py"), capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.returncode == 2
    assert "vaderSentiment==3.3.2" in done.stderr


def test_ctrl_c_while_runs_train(tmp_path: Path) -> None:
    words = command("bert_finetune.py", "--variants", "2", "--epochs", "50", "--machines", "2", "--out", str(tmp_path))
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert child.stdout is not None
    said = []
    for line in child.stdout:
        said.append(line)
        if "running" in line:
            break
    child.send_signal(signal.SIGINT)
    rest, _ = child.communicate(timeout=60)
    said.append(rest)
    assert child.returncode == 130, "".join(said)
    assert "Ctrl-C: cancelling 2 runs" in rest
    assert "Nothing is running any more." in rest
    assert not (tmp_path / "bert_finetune.png").exists()


@pytest.mark.parametrize("script", ["bert_finetune.py", "bert_sweep.py", "bert_jobs.py", "bert_bare.py"])
def test_ctrl_c_while_a_script_imports(script: str, tmp_path: Path) -> None:
    for module in ("rich.py", "torch.py"):  # found before the real ones, and never done
        (tmp_path / module).write_text("import signal\nprint('importing', flush=True)\nsignal.pause()\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    child = subprocess.Popen(
        command(script), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "importing\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (130, "", "\nInterrupted before anything was started.\n")


def test_bare(tmp_path: Path) -> None:
    words = command("bert_bare.py", "--train", "16", "--held-out", "8", "--epochs", "1", "--threads", "1")
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
