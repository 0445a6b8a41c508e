"""Starts the coordinator process of a standing cluster, and ends it."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgpack

from runner import errors
from runner.coordinator.config import STOP_REMOTE_S_MAX, STRICT_START_S_MAX, CoordinatorConfig, CoordinatorReady
from runner.errors import InternalError, RunnerError
from runner.ids import random_id
from runner.rpc.clusters import ClusterInfo

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = STOP_REMOTE_S_MAX + 5.0
LOG_NAME = "coordinator.log"
_LOG_TAIL_LINES = 5


@dataclass(frozen=True)
class Started:
    """A coordinator that serves."""

    process: subprocess.Popen[bytes]
    ready: CoordinatorReady


def start(config: CoordinatorConfig, *, foreground: bool) -> Started:
    """Start a coordinator in a session of its own and wait until it serves.

    In the foreground its stderr is ours; else both outputs go to the log in
    the state directory.

    Raises:
        RunnerError: what kept it from starting, such as AddressInUseError.
    """
    is_new = not config.cluster_id
    cluster_id = config.cluster_id or random_id("c").removeprefix("c-")
    state_dir = Path(config.home) / "clusters" / cluster_id
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=not is_new)
    try:
        return _spawn(replace(config, cluster_id=cluster_id), state_dir, foreground=foreground)
    except InternalError:
        raise  # the log in it is wanted
    except BaseException:
        if is_new:
            shutil.rmtree(state_dir, ignore_errors=True)
        raise


def stop(info: ClusterInfo, *, force: bool) -> bool:
    """End the coordinator and with it its machines; False when it was gone already.

    Raises:
        InternalError: it still runs after the time that an orderly end may take, and `force` is not set.
    """
    if not info.send_signal(signal.SIGTERM):
        return False
    if info.wait_gone(STOP_TIMEOUT_S):
        return True
    if not force:
        raise InternalError(
            f"cluster {info.cluster_id} (pid {info.pid}) still runs {STOP_TIMEOUT_S:.0f} s after it was told to stop; "
            f"its log is {Path(info.state_dir) / LOG_NAME}; `runner down --force` kills it"
        )
    info.send_signal(signal.SIGKILL)
    info.wait_gone(STOP_TIMEOUT_S)
    return True


def _spawn(config: CoordinatorConfig, state_dir: Path, *, foreground: bool) -> Started:
    config_read, config_write = os.pipe()
    ready_read, ready_write = os.pipe()
    command = [sys.executable, "-m", "runner.coordinator"]
    command += ["--config-fd", str(config_read), "--ready-fd", str(ready_write)]
    log_path = state_dir / LOG_NAME
    log_fd = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=None if foreground else log_fd,
            pass_fds=(config_read, ready_write),
            # Ctrl-C and a closed terminal are not for it.
            start_new_session=True,
            cwd="/",
        )
    except BaseException:
        os.close(config_write)
        os.close(ready_read)
        raise
    finally:
        os.close(config_read)
        os.close(ready_write)
        os.close(log_fd)
    try:
        with suppress(BrokenPipeError), os.fdopen(config_write, "wb") as pipe:  # ended already: told below
            pipe.write(msgpack.packb(config.to_dict()))
        with os.fdopen(ready_read, "rb", buffering=0) as pipe:
            timeout_s = START_TIMEOUT_S + (STRICT_START_S_MAX if config.strict else 0.0)
            return Started(process, _await_ready(pipe.fileno(), process, log_path, timeout_s))
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()  # does nothing when it has ended
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _await_ready(fd: int, process: subprocess.Popen[bytes], log_path: Path, timeout_s: float) -> CoordinatorReady:
    message = _read_message(fd, time.monotonic() + timeout_s, log_path)
    if message is None:
        status = process.wait()
        raise InternalError(f"the coordinator ended with status {status} before it served; {_tail(log_path)}")
    if "error" in message:
        process.wait()
        error = _typed(message["error"])
        raise InternalError(f"{error}; {_tail(log_path)}") if isinstance(error, InternalError) else error
    return CoordinatorReady.from_dict(message)


def _read_message(fd: int, deadline_s: float, log_path: Path) -> dict[str, Any] | None:
    """One msgpack map, as soon as it is whole: what the coordinator forked may hold the pipe open. None at its end."""
    unpacker = msgpack.Unpacker()
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while selector.select(max(deadline_s - time.monotonic(), 0.0)):
            chunk = os.read(fd, 65536)
            if not chunk:
                return None
            unpacker.feed(chunk)
            for message in unpacker:
                return dict(message)
    raise InternalError(f"the coordinator did not start in time; {_tail(log_path)}")


def _typed(failure: Mapping[str, Any]) -> RunnerError:
    cls = getattr(errors, str(failure["type"]), None)
    if not (isinstance(cls, type) and issubclass(cls, RunnerError)):
        cls = InternalError
    return cls(failure["message"])


def _tail(log_path: Path) -> str:
    try:
        lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    shown = "".join(f"\n  {line}" for line in lines[-_LOG_TAIL_LINES:])
    return f"its log is {log_path}{shown}"
