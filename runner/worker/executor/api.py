"""What a running task can ask of its executor: report, checkpoints, and who it is."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import IO, Any

import cloudpickle
import msgpack

from runner.client.waiting import Waiter
from runner.core.values import UNIT
from runner.errors import ClusterError, NotScalarError, ObjectLostError, RunnerError, StoreFullError, UsageError
from runner.hooks import ResumeContext
from runner.ids import random_id
from runner.rpc.gen import fleet_pb2, types_pb2
from runner.worker.executor.channel import ExecutorSocket
from runner.worker.executor.files import AgentFiles, typed_error
from runner.worker.executor.interrupts import InterruptGate
from runner.worker.frames import Frame, Kind
from runner.worker.local_store import attempt_folder

_INT64_MAX = 2**63 - 1
VALUES_BYTES_MAX = 1 << 20


class RunningTask:
    """Implements `runner.client.context.TaskContext` for one attempt."""

    def __init__(
        self,
        sock: ExecutorSocket,
        gate: InterruptGate,
        serial: int,
        assignment: fleet_pb2.Assignment,
        spec: types_pb2.TaskSpec,
        settings: Mapping[str, Any],
        files: AgentFiles | None = None,
    ) -> None:
        """`files`: how checkpoints move where this machine shares no files with the coordinator."""
        self._sock = sock
        self._gate = gate
        self._spec = spec
        self._files = files
        self._folder = os.path.join(settings["artefact_path"], spec.task_id)
        if files is not None:
            self._folder = attempt_folder(settings["artefact_path"], (spec.task_id, assignment.key.attempt))
        self._is_own = False  # the newest checkpoint is of this attempt
        self._kept = ""  # files: the local copy of the last checkpoint of this attempt that was committed
        self._checkpoint = assignment.checkpoint if assignment.HasField("checkpoint") else None
        self._last_step = self._checkpoint.step if self._checkpoint is not None else -1
        self._lock = threading.Lock()  # one report at a time
        self._commit: Waiter | None = None  # of the checkpoint that was sent last
        self._refusal: RunnerError | None = None
        self.is_over = False
        self.serial = serial
        self.park: Callable[[int], ResumeContext | None] = lambda _serial: None  # let a suspend take place
        self.task_id: str = spec.task_id
        self.task_name: str = spec.name
        self.group_id: str = spec.group_id
        self.is_group_for_children: bool = spec.group_for_children
        self.function: object = None  # that runs, once it is loaded
        self.owner_id: str = assignment.client_id
        is_actor = spec.HasField("actor")
        self.actor_id: str = spec.task_id if is_actor else ""
        self.actor_name: str = spec.actor.name if is_actor else ""
        self.actor_meta: bytes = spec.actor.meta if is_actor else b""
        self.class_name: str = ""  # of the actor, when it is loaded
        self.attempt: int = assignment.key.attempt
        self.machine_id: str = settings["machine_id"]
        self.gpu_ids: tuple[int, ...] = tuple(assignment.gpu_ids)

    @property
    def resources(self) -> Mapping[str, float]:
        """Whole CPUs, GPUs and custom things; memory in bytes."""
        amounts = self._spec.resources.amounts
        return MappingProxyType(
            {name: amount if name == "memory" else amount / UNIT for name, amount in amounts.items()}
        )

    def is_canceled(self) -> bool:
        return self._gate.is_requested

    def report(self, values: Mapping[str, Any], *, step: int | None, checkpoint: Any) -> None:
        """Send metrics; with a checkpoint, return when a consistent copy is on disk.

        Blocks while buffers are full, and with a checkpoint until the one before it is committed.

        Raises:
            NotScalarError: a value is not a number, string, bool or None.
            StoreFullError: no room for the checkpoint; the metrics are sent all the same.
        """
        packed = pack_values(values)
        with self._lock:
            if self.is_over:
                raise UsageError(f"task {self.task_id} is over; a thread that it left behind cannot report any more")
            number = self._last_step + 1 if step is None else _step(step)
            self._last_step = number
            self._sock.send(Kind.METRICS, self.serial, number, packed)
            if checkpoint is not None:
                self._await_commit()
                self._save(number, checkpoint)

    def mark_phase(self, name: str) -> None:
        """The machine has come to this phase of its boot; the agent takes the first word on each name."""
        self._sock.send(Kind.PHASE, name, time.time())

    def ready_to_snapshot(self) -> ResumeContext | None:
        return self.park(self.serial)

    def get_checkpoint(self) -> Any:
        """What the newest checkpoint of this task holds, or None."""
        if self._checkpoint is None:
            return None
        with self._lock:
            checkpoint, path = self._checkpoint, self._checkpoint.uri
            if self._files is not None and not self._is_own:
                path = self._files.load(checkpoint)
            return _load(checkpoint, self.task_id, path)

    def committed(self, frame: Frame) -> None:
        """The coordinator's word on the checkpoint that was sent last."""
        if frame[1] == self.serial and self._commit is not None:
            uri = self._checkpoint.uri if self._checkpoint is not None else ""
            if not frame[3]:
                text = f"task {self.task_id}: the last checkpoint was refused: {frame[4] or 'no reason was given'}"
                self._refusal = typed_error(frame[5] or ClusterError.__name__, text)
                _unlink(uri)  # nobody else knows of it
            elif self._files is not None:
                _unlink(self._kept)  # the one before it: the coordinator keeps the last one only, and so do we
                self._kept = uri
            self._commit.finish()

    def finish(self) -> None:
        """User code is over; a checkpoint that is on its way is committed before the end is told, in order."""
        self.is_over = True

    def settle(self, *, is_failed: bool = False) -> None:
        """The function is over: where checkpoints must be brought to the coordinator first, wait for the last one.

        Raises:
            RunnerError: it was refused, and the function has not failed anyway.
        """
        if self._files is None:
            return
        with self._lock:
            try:
                self._await_commit()
            except RunnerError:
                if not is_failed:
                    raise

    def _await_commit(self) -> None:
        if self._commit is None:
            return
        self._sock.wait(self._commit, None)
        self._commit = None
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            raise refusal

    def _save(self, step: int, checkpoint: Any) -> None:
        folder = self._folder
        # The one before it may have the same step, and stays what counts until this one is committed.
        path = os.path.join(folder, f"{random_id(f'{self.attempt}-{step}')}.ckpt")
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            sha256, size_bytes = _write(path, checkpoint)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise StoreFullError(
                    f"task {self.task_id}: no room for the checkpoint of step {step} in {folder}; "
                    f"free space there or keep less in a checkpoint"
                ) from error
            raise
        self._checkpoint = types_pb2.Checkpoint(
            step=step, uri=path, sha256=sha256, size_bytes=size_bytes, attempt=self.attempt
        )
        self._is_own = True
        self._commit = Waiter((), 1, wake_on_failure=False)
        self._sock.send(Kind.CHECKPOINT, self.serial, step, path, sha256, size_bytes)


def pack_values(values: Mapping[str, Any]) -> bytes:
    """Metrics as msgpack, with numpy and torch scalars converted.

    Raises:
        NotScalarError: names the entry that is something else.
    """
    if not isinstance(values, Mapping):
        raise NotScalarError(f"report() takes a dict of metrics, not a {type(values).__name__}")
    plain = {_name(name): to_scalar(name, value) for name, value in values.items()}
    try:
        packed: bytes = msgpack.packb(plain)
    except UnicodeEncodeError as error:  # surrogates, as in the names of files with bytes that are no text
        bad = next(name for name, value in plain.items() if error.object in (name, value))
        raise NotScalarError(f"report(): metric {bad!r} is not valid text: {error}") from None
    if len(packed) > VALUES_BYTES_MAX:
        raise NotScalarError(
            f"report() was given {len(packed)} bytes of metrics, the limit is {VALUES_BYTES_MAX}; keep large things in checkpoint="
        )
    return packed


def to_scalar(name: object, value: Any) -> float | int | str | bool | None:
    """A metric as plain Python.

    Raises:
        NotScalarError: it is none.
    """
    kind = type(value)
    if value is None or kind is float or kind is str or kind is bool:
        return value  # type: ignore[no-any-return]
    if isinstance(value, bool | str | float):
        return value
    if isinstance(value, int):
        return value if -_INT64_MAX <= value <= _INT64_MAX else float(value)
    item = getattr(value, "item", None)  # numpy and torch scalars, and arrays of one element
    if callable(item):
        try:
            plain = item()
        except (ValueError, RuntimeError, TypeError):
            plain = value
        if plain is None or isinstance(plain, bool | int | float | str):
            return to_scalar(name, plain)
    shape = getattr(value, "shape", None)
    seen = f"a {kind.__module__}.{kind.__qualname__}" + (f" of shape {tuple(shape)}" if shape is not None else "")
    raise NotScalarError(
        f"report(): metric {name!r} is {seen}; expected a number, string, bool or None. Use float(...) or the mean of it"
    )


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise NotScalarError(f"report(): metric names are strings; {name!r} is a {type(name).__name__}")
    return name


def _step(step: Any) -> int:
    try:
        number = int(step.item() if hasattr(step, "item") else step)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or (isinstance(step, float) and not math.isclose(step, number)) or not abs(number) <= _INT64_MAX:
        raise NotScalarError(f"report(): step is {step!r}; expected a whole number")
    return number


class _HashingFile:
    """Writes to a file and keeps the digest of what went through."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data).cast("B")
        self._file.write(view)
        self.digest.update(view)
        self.size_bytes += view.nbytes
        return view.nbytes


def _write(path: str, checkpoint: Any) -> tuple[str, int]:
    """Write under another name first, so that the path never shows half a checkpoint; returns digest and size."""
    building = f"{path}.{os.getpid()}.tmp"
    try:
        with open(building, "wb") as file:
            writer = _HashingFile(file)
            cloudpickle.dump(checkpoint, writer, protocol=5)
        # Not synced: the file has to survive the processes, not a power loss.
        os.replace(building, path)
    except BaseException:
        try:
            os.unlink(building)
        except FileNotFoundError:
            pass
        raise
    return writer.digest.hexdigest(), writer.size_bytes


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _load(checkpoint: types_pb2.Checkpoint, task_id: str, path: str) -> Any:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise ObjectLostError(
            f"task {task_id}: its checkpoint of step {checkpoint.step} is gone ({checkpoint.uri})"
        ) from None
    if checkpoint.sha256 and hashlib.sha256(data).hexdigest() != checkpoint.sha256:
        raise ObjectLostError(
            f"task {task_id}: its checkpoint of step {checkpoint.step} was changed on disk ({checkpoint.uri})"
        )
    return cloudpickle.loads(data)
