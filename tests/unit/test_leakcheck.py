"""The leak check itself: it sees each kind of thing that can be left behind, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading

import pytest

from tests.leakcheck import SHM, Snapshot, _ancestors, _other_sessions_run, clean_up, leaks, wait_for_none


@pytest.fixture
def before() -> Snapshot:
    return Snapshot.take()


def test_nothing_is_found_where_nothing_is_left(before: Snapshot) -> None:
    assert leaks(before) == []


def test_a_thread_is_named(before: Snapshot) -> None:
    go = threading.Event()
    thread = threading.Thread(target=go.wait, name="left-alone")
    thread.start()
    found = leaks(before)
    go.set()
    thread.join()

    assert found == ["thread 'left-alone' (daemon=False)"]
    assert leaks(before) == []


def test_an_open_file_is_named(before: Snapshot, tmp_path: os.PathLike[str]) -> None:
    with open(os.path.join(tmp_path, "open.txt"), "w") as file:
        found = leaks(before)

        assert found == [f"file descriptor {file.fileno()} -> {file.name}"]


def test_a_temporary_file_is_named(before: Snapshot) -> None:
    fd, path = tempfile.mkstemp(prefix="left-")
    os.close(fd)
    found = leaks(before)
    os.unlink(path)

    assert found == [f"temporary file {path}"]


def test_an_orphan_in_its_own_session_is_found_and_killed(before: Snapshot) -> None:
    code = (
        "import subprocess as s;"
        "print(s.Popen(['sleep', '60'], stdout=s.DEVNULL, stderr=s.DEVNULL, start_new_session=True).pid)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pid = int(done.stdout)

    assert any(f"pid {pid}:" in line for line in leaks(before))

    clean_up(before)

    assert wait_for_none(before, 5) == []


def test_a_child_that_nobody_waited_for_is_found(before: Snapshot) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    found = leaks(before)
    os.waitpid(pid, 0)

    assert found == [f"child process {pid} ended, but nobody waited for it"]


def test_a_segment_folder_is_found(before: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.leakcheck._other_sessions_run", lambda: False)
    folder = tempfile.mkdtemp(prefix="runner-leakcheck-", dir=SHM)
    found = [line for line in leaks(before) if "leakcheck" in line]
    os.rmdir(folder)

    assert found == [f"shared memory {folder}"]


def test_this_session_is_no_other_session(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {str(pid) for pid in _ancestors()}
    everything = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: sorted(mine) if path == "/proc" else everything(path))

    assert str(os.getpid()) in mine
    assert not _other_sessions_run()
