"""A simulator for a test: a process of its own, and a check at its end that nothing of it is left."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from runner import config
from runner.flysim.settings import SimSettings
from runner.ids import ClusterId
from runner.providers.process_tag import Tagged, find_tagged

_POLL_S = 0.02
_START_S = 30.0


class FlySim:
    """`with FlySim(rate_limit=False) as sim:` serves at `sim.url` with `sim.token`; keywords are those of SimSettings.

    Raises:
        RuntimeError: it did not start; with what it wrote.
        AssertionError: at the end of the block, naming the processes that are left after `gone_within_s`, or the answers of
            the simulator that broke the API's description.
    """

    def __init__(self, settings: SimSettings | None = None, *, gone_within_s: float = 10.0, **changes: Any) -> None:
        self._settings = replace(settings or SimSettings(), **changes).to_dict()
        self._gone_within_s = gone_within_s
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self.url = ""
        self.token = ""
        self.tag = ClusterId("")  # that its machines' processes carry

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="runner-flysim-"))
        import_folder = str(Path(__file__).resolve().parents[2])
        with (self._folder / "stderr").open("wb") as errors:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "runner.cli", "fly-sim", "--port", "0", "--json", "--until-stdin-closes"),
                    *("--settings", json.dumps(self._settings), "--logs", str(self._folder / "machines")),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=config.child_environment(import_folder),
            )
        said = json.loads(self._first_line())
        self.url, self.token, self.tag = said["url"], said["token"], ClusterId(said["tag"])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        violations: list[str] = []
        try:
            if error is None and self.is_running:
                violations = self.state()["violations"]
        finally:
            self.close()
        if error is None:
            assert not violations, "; ".join(violations)
            self.assert_gone()

    # ---- what a client needs ----
    @property
    def environment(self) -> dict[str, str]:
        """What the `fly` provider reads, to set for a client."""
        return {"FLY_FLAPS_BASE_URL": self.url, "FLY_API_TOKEN": self.token}

    @property
    def headers(self) -> dict[str, str]:
        """For calls made by hand."""
        return {"Authorization": f"Bearer {self.token}"}

    # ---- a look inside, and faults ----
    def state(self) -> dict[str, Any]:
        """Apps, machines, hosts, volumes as they are; machines by id, each with `state`, `host`, `pid`, `trail`."""
        return self._ask("GET", "/_sim/state")

    def logs(self, machine_id: str) -> list[str]:
        """The last lines that this machine wrote."""
        lines: list[str] = self._ask("GET", f"/_sim/logs/{machine_id}")["lines"]
        return lines

    def inject(self, kind: str, **details: Any) -> None:
        """A fault now; kinds and details are in docs/fly-sim.md.

        Raises:
            ValueError: no such fault, or not possible now; with the simulator's words.
        """
        self._ask("POST", "/_sim/faults", {"kind": kind, **details})

    def processes(self) -> list[Tagged]:
        """Every process of every machine."""
        return find_tagged(self.tag)

    @property
    def pid(self) -> int:
        """Of the simulator itself."""
        assert self._process is not None, "the simulator has not been started: use it in a `with` block"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    # ---- its end ----
    def kill(self) -> None:
        """SIGKILL the simulator, as a crash would."""
        os.kill(self.pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def close(self) -> None:
        """End it and wait for it. Idempotent."""
        process = self._process
        if process is not None and process.stdin is not None and process.stdout is not None:
            process.stdin.close()
            try:
                process.wait(self._gone_within_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def assert_gone(self) -> None:
        """Wait until no process of a machine is left, `gone_within_s` at most."""
        deadline_s = time.monotonic() + self._gone_within_s
        while left := self.processes():
            names = "; ".join(f"process {each.process.pid} of machine {each.machine_id}" for each in left)
            assert time.monotonic() < deadline_s, f"the simulator left behind: {names}"
            time.sleep(_POLL_S)

    def _first_line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        if select.select([self._process.stdout], [], [], _START_S)[0]:
            line = self._process.stdout.readline()
            if line:
                return line
        assert self._folder is not None
        wrote = (self._folder / "stderr").read_text(errors="replace")[-2000:]
        self.close()
        raise RuntimeError(f"the simulator did not start within {_START_S:g} s; it wrote: {wrote}")

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        reply = httpx.request(method, self.url + path, json=body, headers=self.headers, timeout=30.0, trust_env=False)
        answer: dict[str, Any] = reply.json()
        if reply.status_code != 200:
            raise ValueError(answer["error"])
        return answer
