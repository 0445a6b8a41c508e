"""One actor in a real executor, without agent and coordinator: the test plays their parts, and the callers'."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

from runner.ids import ObjectId
from runner.objects import arguments
from runner.objects.refs import ObjectRef, set_owner_lookup
from runner.objects.serialization import Serialized, deserialize, serialize
from runner.rpc import actor_frames
from runner.rpc.actor_frames import PROTOCOL, STREAMING, ActorKind
from runner.rpc.gen import client_pb2, fleet_pb2, types_pb2
from runner.rpc.version import host_id
from runner.worker.executor.interrupts import CancelPage
from runner.worker.frames import Decoder, Frame, Kind, encode
from runner.worker.process import send_packet

WAIT_S = 15.0
SERIAL = 7

_TEMPLATE = """
import socket, sys
from runner.worker.template import Template
Template(socket.socket(fileno=int(sys.argv[1]))).run()
"""


class Forker:
    """A template process: executors of many tests are forked from it."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            fd = theirs.fileno()
            self._process = subprocess.Popen([sys.executable, "-c", _TEMPLATE, str(fd)], pass_fds=[fd])
        self._ours.recv(1 << 16)  # READY
        self._numbers = itertools.count(1)
        self.folder = tempfile.TemporaryDirectory()

    def spawn(self) -> tuple[socket.socket, int, int, int]:
        """A blank executor: its socket, the pipe of its stderr, its cancel page, its pid."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        read, write = os.pipe()
        page = CancelPage.create()
        number = next(self._numbers)
        fds = [theirs.fileno(), os.dup(write), write, page]
        send_packet(self._ours, Kind.SPAWN, number, fds=tuple(fds))
        for fd in fds[1:3]:
            os.close(fd)
        theirs.close()
        while (frame := msgpack.unpackb(self._ours.recv(1 << 16)))[:2] != [Kind.SPAWNED, number]:
            pass
        return ours, read, page, frame[2]

    def close(self) -> None:
        self._ours.close()
        self._process.wait(10)
        self.folder.cleanup()


class Agent:
    """The other end of the executor's socket, in a thread; answers for the coordinator too."""

    def __init__(self, forker: Forker) -> None:
        self.sock, self._stderr, page_fd, self.pid = forker.spawn()
        self.page = CancelPage(page_fd)
        os.close(page_fd)
        self.frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self.operations: list[client_pb2.Operation] = []
        self.objects: dict[str, bytes] = {}  # serialised Values that can be asked for
        self._withheld: list[bytes] | None = None  # replies, while operations are not acknowledged
        self._changed = threading.Condition()
        self._decoder = Decoder()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        store = Path(forker.folder.name) / "store"
        store.mkdir(exist_ok=True)
        self.send(Kind.SETUP, {
            "machine_id": "m-1", "cluster_id": "test", "embedded": True, "store_path": str(store), "host_id": host_id(),
            "artefact_path": str(Path(forker.folder.name) / "artefacts"), "executor_id": "x-1", "is_apart": False,
            "env_vars": [], "threads": 1, "visible_gpus": None,
        })  # fmt: skip

    def send(self, kind: Kind, *fields: Any) -> None:
        self.sock.sendall(encode(kind, *fields))

    def create(self, cls: type, *args: Any, attempt: int = 1, name: str = "", **options: Any) -> None:
        """Run an actor's creation task."""
        self.send(Kind.FUNCTION, "f-1", cls.__qualname__, serialize(cls).to_bytes())
        spec = types_pb2.TaskSpec(
            task_id="t-1",
            function_id="f-1",
            num_returns=1,
            args=types_pb2.Value(inline=serialize((args, {})).to_bytes()),
            actor=types_pb2.ActorSpec(name=name, options=msgpack.packb(options)),
        )
        assignment = fleet_pb2.Assignment(
            key=fleet_pb2.AttemptKey(task_id="t-1", attempt=attempt), spec=spec.SerializeToString()
        )
        self.send(Kind.RUN, SERIAL, assignment.SerializeToString())

    def next(self, kind: Kind) -> Frame:
        """The next frame of this kind; others before it are dropped."""
        while (frame := self.frames.get(timeout=WAIT_S))[0] != kind:
            pass
        return frame

    def ended(self) -> fleet_pb2.AttemptEnded:
        return fleet_pb2.AttemptEnded.FromString(self.next(Kind.ENDED)[2])

    def told(self, op: str, object_id: str) -> None:
        """Wait until the executor's session has sent this about the object."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._has(op, object_id), WAIT_S), f"no {op} of {object_id}"

    def _has(self, op: str, object_id: str) -> bool:
        return any(
            object_id in (getattr(getattr(each, op), "object_ids", None) or [getattr(each, op).object_id])
            for each in self.operations
            if each.WhichOneof("op") == op
        )

    def kinds(self) -> list[str]:
        """What the executor's session has sent."""
        return [each.WhichOneof("op") or "" for each in self.operations]

    def stderr(self) -> str:
        """What it has printed so far."""
        data = b""
        while select.select([self._stderr], [], [], 0)[0] and (piece := os.read(self._stderr, 1 << 16)):
            data += piece
        return data.decode()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.sock.close()
        self.page.close()
        os.close(self._stderr)

    def _read(self) -> None:
        while True:
            try:
                data = self.sock.recv(1 << 16)
            except OSError:
                return
            if not data:
                return
            for frame in self._decoder.feed(data):
                if frame[0] == Kind.SESSION:
                    self._session(client_pb2.SessionRequest.FromString(frame[1]))
                else:
                    self.frames.put(frame)

    def _session(self, request: client_pb2.SessionRequest) -> None:
        if not request.HasField("frame"):
            return
        with self._changed:
            self.operations.extend(request.frame.operations)
            self._changed.notify_all()
        wanted = [each for op in request.frame.operations for each in op.resolve.object_ids]
        ready = [client_pb2.ObjectReady(object_id=each, value=self.objects[each]) for each in wanted]
        reply = client_pb2.SessionReply(frame=client_pb2.ServerFrame(acked_seq=request.frame.seq, ready=ready))
        with self._changed:
            if self._withheld is not None:
                self._withheld.append(reply.SerializeToString())
                return
        with contextlib.suppress(OSError):
            self.send(Kind.SESSION_REPLY, reply.SerializeToString())

    def withhold(self) -> None:
        """Acknowledge nothing until `acknowledge`."""
        self._withheld = []

    def acknowledge(self) -> None:
        with self._changed:
            replies, self._withheld = self._withheld or [], None
        for reply in replies:
            self.send(Kind.SESSION_REPLY, reply)


class Caller:
    """One caller of the actor, on its socket or through the agent."""

    def __init__(
        self, agent: Agent, ready: Frame, caller_id: str = "c-1", *, relayed: bool = False, **hello: Any
    ) -> None:
        _, _, self.address, self.secret = ready
        self._agent = agent
        self._caller_id = caller_id
        self._decoder = actor_frames.Decoder()
        self._got: list[list[Any]] = []
        self._seqs = itertools.count(1)
        self.sock: socket.socket | None = None
        if not relayed:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(WAIT_S)
            self.sock.connect(self.address)
        fields = {"protocol": PROTOCOL, "secret": self.secret, "caller_id": caller_id, "incarnation": 1} | hello
        self.send(actor_frames.encode(ActorKind.HELLO, *fields.values()))

    def send(self, data: bytes) -> None:
        if self.sock is not None:
            self.sock.sendall(data)
        else:
            self._agent.send(Kind.ACTOR_IN, SERIAL, f"relayed/{self._caller_id}", data)

    def call(self, method: str, *args: Any, num_returns: int = 1, backpressure: int = 0, **more: Any) -> int:
        """Send a call; returns its seq. The call's id is `c-1-<seq>`."""
        frame, seq = self.frame(method, *args, num_returns=num_returns, backpressure=backpressure, **more)
        self.send(frame)
        return seq

    def frame(
        self, method: str, *args: Any, num_returns: int = 1, backpressure: int = 0,
        dependencies: tuple[tuple[str, bytes], ...] = (), packed: types_pb2.Value | None = None,
    ) -> tuple[bytes, int]:  # fmt: skip
        seq = next(self._seqs)
        if packed is None:
            inline, _ = arguments.pack(args, {})
            data = inline.to_bytes() if isinstance(inline, Serialized) else inline
            packed = types_pb2.Value(inline=data)
        return actor_frames.encode(
            ActorKind.CALL, seq, f"{self._caller_id}-{seq}", method, packed.SerializeToString(), dependencies, num_returns,
            backpressure,
        ), seq  # fmt: skip

    def stream(self, method: str, *args: Any, backpressure: int = 0) -> int:
        return self.call(method, *args, num_returns=STREAMING, backpressure=backpressure)

    def tell(self, kind: ActorKind, *fields: Any) -> None:
        self.send(actor_frames.encode(kind, *fields))

    def next(self) -> list[Any]:
        """The next frame from the actor; [] when it has hung up."""
        while not self._got:
            data = self._agent.next(Kind.ACTOR_OUT)[3] if self.sock is None else self.sock.recv(1 << 16)
            if not data:
                return []
            self._got = self._decoder.feed(data)
        return self._got.pop(0)

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        assert self.sock is not None
        return not self._got and not select.select([self.sock], [], [], seconds)[0]

    def welcome(self) -> Caller:
        assert self.next() == [ActorKind.WELCOME]
        return self

    def result(self, seq: int) -> Any:
        """The one value of the next frame, which answers `seq`."""
        kind, answered, values, _ = self.expect(ActorKind.RESULT)
        assert (kind, answered) == (ActorKind.RESULT, seq)
        return decode(values[0])

    def failure(self, seq: int) -> types_pb2.Failure:
        _, answered, failure, _, _ = self.expect(ActorKind.FAILURE)
        assert answered == seq
        return types_pb2.Failure.FromString(failure)

    def item(self, seq: int) -> tuple[int, Any]:
        """Index and value of the item that is the next frame."""
        _, answered, index, value, _ = self.expect(ActorKind.ITEM)
        assert answered == seq
        return index, decode(value)

    def expect(self, kind: ActorKind) -> list[Any]:
        frame = self.next()
        assert frame, "the actor has hung up"
        if frame[0] == ActorKind.FAILURE and kind != ActorKind.FAILURE:
            raise AssertionError(str(types_pb2.Failure.FromString(frame[2])))
        assert frame[0] == kind, frame
        return frame

    def get(self, method: str, *args: Any, **options: Any) -> Any:
        """Call and wait."""
        return self.result(self.call(method, *args, **options))

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()


def decode(value: bytes) -> Any:
    """An inline value."""
    return deserialize(types_pb2.Value.FromString(value).inline)


@contextlib.contextmanager
def actor(forker: Forker, cls: type, *args: Any, **options: Any) -> Iterator[tuple[Agent, Frame]]:
    """A live actor; gives its agent and what ACTOR_READY said."""
    agent = Agent(forker)
    try:
        agent.create(cls, *args, **options)
        frame = agent.frames.get(timeout=WAIT_S)
        while frame[0] == Kind.READY:
            frame = agent.frames.get(timeout=WAIT_S)
        assert frame[0] == Kind.ACTOR_READY, agent.stderr() + str(frame)
        yield agent, frame
    finally:
        agent.close()


@contextlib.contextmanager
def called(forker: Forker, cls: type, *args: Any, **options: Any) -> Iterator[tuple[Agent, Caller]]:
    """A live actor with one caller."""
    with actor(forker, cls, *args, **options) as (agent, ready):
        caller = Caller(agent, ready).welcome()
        try:
            yield agent, caller
        finally:
            caller.close()


class _Nobody:
    """Owner of refs in arguments that a test packs."""

    dropped: list[str] = []

    def share(self, object_id: str) -> None: ...


def packed(*ids: str) -> types_pb2.Value:
    """The arguments of a call with a list of refs."""
    owner: Any = _Nobody()
    refs: list[ObjectRef[Any]] = [ObjectRef(ObjectId(each), owner) for each in ids]
    set_owner_lookup(lambda: owner)
    try:
        return types_pb2.Value(inline=serialize(((refs,), {})).to_bytes(), contained_refs=ids)
    finally:
        set_owner_lookup(lambda: None)
