"""Machines that share no files with their coordinator, when machines die and connections are slow or cut."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

import runner
from runner.coordinator.config import CoordinatorConfig, CoordinatorReady
from runner.ids import ClusterId
from runner.pools import Pool
from runner.providers.process_tag import find_tagged, send_signal
from tests.integration.helpers import wait_until

pytestmark = pytest.mark.timeout(60)

MIB = 1 << 20


@contextlib.contextmanager
def standing(home: Path, **settings: Any) -> Iterator[CoordinatorReady]:
    """A coordinator whose machines have leases; embedded ones need none."""
    config = CoordinatorConfig(home=str(home), embedded=False, provider_options={"apart": True}, **settings)
    config_fd = os.memfd_create("config")
    os.write(config_fd, msgpack.packb(config.to_dict()))
    os.lseek(config_fd, 0, os.SEEK_SET)
    read, write = os.pipe()
    command = [sys.executable, "-m", "runner.coordinator", "--config-fd", str(config_fd), "--ready-fd", str(write)]
    with subprocess.Popen(command, pass_fds=(config_fd, write), stdin=subprocess.DEVNULL) as process:
        os.close(config_fd)
        os.close(write)
        try:
            with os.fdopen(read, "rb") as ready:
                yield CoordinatorReady.from_dict(msgpack.unpackb(ready.read()))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


@pytest.mark.long
def test_large_values_cost_no_lease(tmp_path: Path) -> None:
    def pieces() -> list[Any]:
        return [runner.put(np.ones(8 * MIB)) for _ in range(3)]  # 64 MiB each, up

    def read(refs: list[Any]) -> float:
        return sum(float(runner.get(ref).sum()) for ref in refs)  # and down

    with (
        standing(tmp_path, pools=(Pool(min=2, num_cpus=1),), lost_after_s=2.0, heartbeat_s=0.4) as ready,
        runner.init(ready.address, token=ready.token, ca=Path(ready.state_dir) / "ca.pem", log_to_driver=False),
    ):
        makers = [runner.remote(pieces).options(name="pieces").remote() for _ in range(2)]
        refs = [ref for each in runner.get(makers, timeout=50) for ref in each]
        assert runner.get(runner.remote(read).options(name="read").remote(refs), timeout=50) == 6 * 8 * MIB
        assert [(each.machine_id, each.generation) for each in runner.nodes()] == [("m-1", 1), ("m-2", 1)]
        assert all(each.is_alive for each in runner.nodes())


def test_an_attempt_goes_on_from_its_checkpoint_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(folder: str) -> tuple[str, int, float, bool]:
        here = runner.get_runtime_context().machine_id
        saved = runner.get_checkpoint()
        if saved is None:
            for step in (1, 2):
                # The second one waits until the first is committed.
                runner.report({"at": step}, step=step, checkpoint={"step": step, "weights": np.full(500_000, step)})
            own = runner.get_checkpoint()["step"] == 2
            (Path(folder) / here).write_text(str(own))
            time.sleep(60)
        return here, saved["step"], float(saved["weights"].mean()), bool((saved["weights"] == saved["step"]).all())

    monkeypatch.setenv("RUNNER_HOME", str(tmp_path / "home"))
    marks = tmp_path / "marks"
    marks.mkdir()
    with runner.init(machines=2, num_cpus=1, provider_options={"apart": True}, log_to_driver=False) as session:
        run = runner.remote(train).options(name="train", max_retries=1).remote(str(marks))
        wait_until(lambda: list(marks.iterdir()), 30, "two checkpoints")
        [mark] = marks.iterdir()
        assert mark.read_text() == "True"
        agent = next(
            each
            for each in find_tagged(ClusterId(session.cluster_id))
            if each.is_agent and each.machine_id == mark.name
        )
        send_signal(agent.process, signal.SIGKILL)
        here, step, mean, is_whole = runner.get(run, timeout=40)
        assert here != mark.name
        assert (step, mean) in {(1, 1.0), (2, 2.0)}
        assert is_whole
