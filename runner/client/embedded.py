"""A cluster of this process's own: the coordinator is a child process that ends when this process does."""

from __future__ import annotations

import os
import select
import signal
import site
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO, Any

import msgpack

import runner
from runner import config as settings
from runner import errors
from runner.client import fork_guard
from runner.coordinator.config import STOP_REMOTE_S_MAX, STOP_S_MAX, CoordinatorConfig, CoordinatorReady
from runner.errors import ClusterError, CoordinatorUnreachableError, RunnerError

_TERM_AFTER_S = 5.0
_KILL_AFTER_S = 2.0
_STDERR_SHOWN_BYTES = 2000
_READY_MAX_BYTES = 1 << 20


class EmbeddedCoordinator:
    """The child process. Its life hangs on a pipe whose other end only this process holds."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        life_fd: int,
        stderr: IO[bytes],
        ready: CoordinatorReady,
        stop_s: float = STOP_S_MAX,
    ) -> None:
        self._process = process
        self._life_fd = life_fd
        self._stderr = stderr
        self._stop_s = stop_s
        self.ready = ready

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """Let the cluster end and wait for it: at most a few seconds, then by force. Idempotent."""
        if self._life_fd >= 0:
            fork_guard.release(self._life_fd)
            os.close(self._life_fd)
            self._life_fd = -1
        _wait_gone(self._process, self._stop_s)
        self._stderr.close()


def start(config: dict[str, Any], timeout_s: float, meanwhile: Callable[[], None]) -> EmbeddedCoordinator:
    """Start a coordinator and wait until it serves. `config`: fields of CoordinatorConfig but the descriptors.

    Calls `meanwhile` while it boots.

    An exception, Ctrl-C included, leaves nothing behind.

    Raises:
        ClusterError: it ended, or did not serve within `timeout_s`; or the typed error that it reports.
    """
    ready_read, ready_write = os.pipe()
    life_read, life_write = os.pipe()
    fork_guard.close_in_children(life_write)
    stderr = os.fdopen(os.memfd_create("runner-coordinator-stderr"), "w+b")  # closed with the process
    process: subprocess.Popen[bytes] | None = None
    try:
        packed = CoordinatorConfig(**config, embedded=True, client_pid=os.getpid(), life_fd=life_read).to_dict()
        try:
            process = _spawn(msgpack.packb(packed), ready_write, life_read, stderr)
        finally:
            os.close(ready_write)
            os.close(life_read)
        meanwhile()
        ready = _read_ready(process, ready_read, stderr, timeout_s)
        stop_s = STOP_S_MAX if config.get("provider", "local") == "local" else STOP_REMOTE_S_MAX
        return EmbeddedCoordinator(process, life_write, stderr, ready, stop_s)
    except BaseException:
        fork_guard.release(life_write)
        os.close(life_write)
        if process is not None:
            _wait_gone(process, _TERM_AFTER_S)
        stderr.close()
        raise
    finally:
        os.close(ready_read)


def _spawn(config: bytes, ready_fd: int, life_fd: int, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    config_fd = os.memfd_create("runner-coordinator-config")  # read from its beginning, unlike a pipe never full
    os.write(config_fd, config)
    os.lseek(config_fd, 0, os.SEEK_SET)
    # -P: a file called runner.py in the user's folder must not be taken for this package.
    command = [
        sys.executable,
        "-P",
        "-m",
        "runner.coordinator",
        "--config-fd",
        str(config_fd),
        "--ready-fd",
        str(ready_fd),
    ]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=(config_fd, ready_fd, life_fd),
            start_new_session=True,  # Ctrl-C in the terminal is for this process alone
            env=_environment(),
        )
    finally:
        os.close(config_fd)


def _environment() -> dict[str, str] | None:
    """The environment in which the child finds this very package; None: the present one does."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(runner.__file__)))
    if folder in (*site.getsitepackages(), site.getusersitepackages()):
        return None
    return settings.child_environment(folder)


def _read_ready(
    process: subprocess.Popen[bytes], ready_fd: int, stderr: IO[bytes], timeout_s: float
) -> CoordinatorReady:
    deadline_s = time.monotonic() + timeout_s
    unpacker = msgpack.Unpacker(max_buffer_size=_READY_MAX_BYTES)
    while True:
        readable, _, _ = select.select([ready_fd], [], [], max(0.0, deadline_s - time.monotonic()))
        if not readable:
            raise CoordinatorUnreachableError(
                f"The coordinator did not start within {timeout_s:g} s. Is the machine busy? Try init(timeout_s=...)."
                + _tail(stderr)
            )
        chunk = os.read(ready_fd, 65536)
        if not chunk:
            status = process.wait()
            cause = f"signal {-status} ({signal.Signals(-status).name})" if status < 0 else f"exit status {status}"
            raise ClusterError(f"The coordinator ended with {cause} before it served." + _tail(stderr))
        unpacker.feed(chunk)
        for message in unpacker:  # whole, though others may still hold the pipe open
            if "error" in message:
                raise _reported(message["error"])
            return CoordinatorReady.from_dict(message)


def _reported(error: dict[str, str]) -> RunnerError:
    cls = getattr(errors, error["type"], ClusterError)
    if not (isinstance(cls, type) and issubclass(cls, RunnerError)):
        cls = ClusterError
    return cls(error["message"])


def _tail(stderr: IO[bytes]) -> str:
    size_bytes = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size_bytes - _STDERR_SHOWN_BYTES))
    text = stderr.read().decode(errors="replace").strip()
    return f"\nIts last words:\n{text}" if text else ""


def _wait_gone(process: subprocess.Popen[bytes], patience_s: float) -> None:
    """The life pipe is closed: it ends by itself. Help it along if it does not."""
    for signum, wait_s in ((None, patience_s), (signal.SIGTERM, _KILL_AFTER_S), (signal.SIGKILL, None)):
        if signum is not None:
            process.send_signal(signum)
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            continue
        return
