"""Runs as their state directories tell them: read-only, with or without a coordinator."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from runner.errors import ClusterError, UsageError
from runner.rpc.gen import client_pb2

EVENTS_NAME = "events.db"
FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})
_PAGE_ROWS = 1000

_RUNS = "SELECT task_id, min(seq), max(seq) FROM events WHERE is_run = 1 AND task_id != '' GROUP BY task_id"
_OF_KIND = "SELECT event FROM events WHERE task_id = ? AND kind = ? ORDER BY seq {} LIMIT 1"
_OF_TASK = "SELECT seq, event FROM events WHERE task_id = ? AND seq >= ? ORDER BY seq LIMIT ?"


@dataclass(frozen=True)
class Run:
    """One run as of its newest stored event."""

    task_id: str
    name: str
    cluster_id: str
    state_dir: Path
    state: str
    attempt: int
    machine_id: str
    started_unix_s: float  # its first event
    ended_unix_s: float  # 0 while it is not final
    step: int  # of the newest metrics, -1 without any
    values: dict[str, Any] = field(default_factory=dict)
    failure: str = ""

    @property
    def is_final(self) -> bool:
        """Whether nothing more can come."""
        return self.state in FINAL_STATES

    def to_map(self) -> dict[str, Any]:
        """What --json prints."""
        return {
            "name": self.name,
            "task_id": self.task_id,
            "cluster_id": self.cluster_id,
            "state_dir": str(self.state_dir),
            "state": self.state,
            "attempt": self.attempt,
            "machine_id": self.machine_id,
            "started_s": self.started_unix_s,
            "ended_s": self.ended_unix_s or None,
            "step": self.step if self.step >= 0 else None,
            "values": self.values,
            "failure": self.failure or None,
        }


def list_runs(clusters_dir: Path) -> list[Run]:
    """All runs of all clusters in this home, the newest first."""
    try:
        state_dirs = sorted(path for path in clusters_dir.iterdir() if (path / EVENTS_NAME).is_file())
    except OSError:
        return []
    runs = [run for state_dir in state_dirs for run in _runs_of(state_dir)]
    return sorted(runs, key=lambda run: -run.started_unix_s)


def find_runs(clusters_dir: Path, name: str) -> list[Run]:
    """The runs with this name or task id, the newest first; never empty.

    Raises:
        UsageError: there is none; names the ones that there are.
    """
    runs = list_runs(clusters_dir)
    found = [run for run in runs if name in (run.name, run.task_id)]
    if found:
        return found
    names = list(dict.fromkeys(run.name for run in runs))
    known = f"the newest runs are: {', '.join(names[:5])}" if names else "there are none yet"
    raise UsageError(f"no run named {name!r} in {clusters_dir}; {known}")


def read_events(run: Run, from_seq: int = 0) -> Iterator[client_pb2.Event]:
    """The stored events of a run in order, from `from_seq` on."""
    with _open(run.state_dir) as db:
        while True:
            rows = db.execute(_OF_TASK, (run.task_id, from_seq, _PAGE_ROWS)).fetchall()
            for _, event in rows:
                yield client_pb2.Event.FromString(event)
            if len(rows) < _PAGE_ROWS:
                return
            from_seq = rows[-1][0] + 1


def unpack_values(event: client_pb2.Event) -> dict[str, Any]:
    """The metrics in an event."""
    return dict(msgpack.unpackb(event.values)) if event.values else {}


@contextmanager
def _open(state_dir: Path) -> Iterator[sqlite3.Connection]:
    path = state_dir / EVENTS_NAME
    try:
        with closing(_connect(path)) as db:
            yield db
    except sqlite3.Error as error:
        raise ClusterError(f"{path} cannot be read: {error}") from None


def _connect(path: Path) -> sqlite3.Connection:
    # A log that nobody has open may lack its shared-memory file, and a read-only folder allows to make none:
    # then it cannot change either.
    uri = path.absolute().as_uri()
    try:
        return _connected(f"{uri}?mode=ro")
    except sqlite3.OperationalError as error:
        if "unable to open" not in str(error) and "readonly" not in str(error):
            raise
    return _connected(f"{uri}?mode=ro&immutable=1")


def _connected(uri: str) -> sqlite3.Connection:
    db = sqlite3.connect(uri, uri=True, timeout=5.0)
    try:
        db.execute("SELECT count(*) FROM sqlite_master")
    except BaseException:
        db.close()
        raise
    return db


def _runs_of(state_dir: Path) -> list[Run]:
    try:
        with _open(state_dir) as db:
            return [_run(db, state_dir, task_id) for task_id, _, _ in db.execute(_RUNS).fetchall()]
    except ClusterError as error:
        # A cluster that is just being made has no table yet.
        if "no such table" in str(error):
            return []
        raise


def _run(db: sqlite3.Connection, state_dir: Path, task_id: str) -> Run:
    first = _event(db, task_id, None, "ASC")
    state = _event(db, task_id, client_pb2.EVENT_KIND_STATE, "DESC")
    metrics = _event(db, task_id, client_pb2.EVENT_KIND_METRICS, "DESC")
    is_final = state.state in FINAL_STATES
    return Run(
        task_id=task_id,
        name=first.name,
        cluster_id=state_dir.name,
        state_dir=state_dir,
        state=state.state,
        attempt=state.attempt,
        machine_id=state.machine_id,
        started_unix_s=first.time_s,
        ended_unix_s=state.time_s if is_final else 0.0,
        step=metrics.step if metrics.kind else -1,
        values=unpack_values(metrics),
        failure=state.failure.message if state.HasField("failure") else "",
    )


def _event(db: sqlite3.Connection, task_id: str, kind: int | None, order: str) -> client_pb2.Event:
    query = _OF_KIND if kind is not None else _OF_KIND.replace("AND kind = ?", "")
    row = db.execute(query.format(order), (task_id,) if kind is None else (task_id, kind)).fetchone()
    return client_pb2.Event.FromString(row[0]) if row else client_pb2.Event()
