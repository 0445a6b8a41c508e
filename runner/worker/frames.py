"""Frames between the processes of one machine: msgpack arrays `[kind, field, ...]`, one after the other on a Unix socket.

Stream sockets carry agent <-> executor, packet sockets (one frame a packet, with descriptors) everything that forks.

| kind | fields | from -> to |
|---|---|---|
| SETUP | settings map | agent -> executor, before the first RUN: it is blank until then |
| FUNCTION | function_id, name, blob | agent -> executor, before the first RUN that needs it |
| PACKAGE | package_id, zip | agent -> executor, likewise |
| RUN | serial, Assignment | agent -> executor: run it; serials rise |
| SESSION_REPLY | SessionReply | agent -> executor |
| RESUME | serial | agent -> executor: you have your CPUs again |
| COMMITTED | serial, step, accepted, reason, error class | agent -> executor: the checkpoint is in the journal, or refused |
| TRANSFERRED | request, answer, error class, message | agent -> executor: to one of the five below |
| RECONNECTED | | agent -> executor: replies may have been lost, ask again |
| ITEMS_READ | serial, count | agent -> executor: so many items of the generator were read |
| ACTOR_IN | serial, caller_id, bytes | agent -> executor: part of a relayed actor channel, see runner/rpc/actor_frames.py; no bytes: the caller is gone |
| ACTOR_EXIT | serial | agent -> executor: the actor ends gracefully |
| EXIT | | agent -> executor: end when idle |
| QUIET | snapshot | agent -> executor: a suspend waits for a moment when nothing runs; actors begin no new call |
| GO_ON | snapshot | agent -> executor: it does not any more |
| SUSPEND | snapshot | agent -> executor: run the hooks before the suspend; only when nothing runs |
| RESUMED | snapshot, ResumeContext map | agent -> executor: run the hooks after it, and go on |
| READY | pid | executor -> agent, template -> agent |
| ENDED | serial, AttemptEnded, flags | executor -> agent |
| BLOCKED, UNBLOCKED | serial | executor -> agent |
| METRICS | serial, step, values | executor -> agent |
| CHECKPOINT | serial, step, uri, sha256, size_bytes | executor -> agent |
| SESSION | SessionRequest | executor -> agent |
| ITEMS | serial, Items | executor -> agent: what a generator has yielded |
| STAGE | serial, text | executor -> agent: what a start with a time limit is at; empty: the function runs |
| ACTOR_READY | serial, address, secret | executor -> agent: the actor takes calls |
| ACTOR_OUT | serial, caller_id, bytes | executor -> agent: part of a relayed actor channel |
| PARKED | serial, snapshot | executor -> agent: the attempt waits for the suspend, it runs nothing until RESUMED or GO_ON |
| HOOKS_RUN | snapshot, is_after, failure | executor -> agent: all hooks have run, or which one failed and why |
| PHASE | name, unix seconds | executor -> agent: user code has marked a phase of the machine's boot |
| RESERVE | request, name, size_bytes | executor -> agent: where a large value may be written; answer: path |
| UPLOAD | request, serial, object_id, path, size_bytes | executor -> agent: it is written; answer: the coordinator's segment |
| KEEP | request, serial, object_id, path, size_bytes | executor -> agent: it is written and stays on this machine; answer: the segment |
| FETCH | request, serial, object_id, source, size_bytes | executor -> agent: a large value; answer: path of a copy and its size |
| LOAD | request, serial, uri, size_bytes | executor -> agent: a checkpoint; answer: path of a copy |
| SPAWN | number | agent -> template; with socket, stdout, stderr and cancel page |
| SIGNAL | number, signal, whole_group | agent -> template: only the parent can signal without hitting a reused pid |
| RESEED | | agent -> template: its memory comes from a snapshot, its random numbers must not |
| LAYER | modules, [cluster_id, machine_id] | agent -> template or zygote; with the new template's control socket |
| MAKE | number | agent -> template: fork a user template; with its control socket and a file of SETUP, PACKAGE and FUNCTION frames |
| RAISED | message, traceback | user template -> agent: its code failed |
| UNFIT | reason | user template -> agent: its code has run, but it must not be forked |
| SPAWNED | number, pid | template -> agent |
| SPAWN_FAILED | number, text | template -> agent |
| EXITED | number, wait status | template -> agent: an executor, or a user template, that it forked |
| BOOT | boot configuration map | coordinator -> zygote |
| PRELOAD | modules | coordinator -> zygote |
| BOOTED | machine_id, pid | zygote -> coordinator |
| GONE | machine_id, pid, wait status, text | zygote -> coordinator |
"""

from __future__ import annotations

import enum
from typing import Any

import msgpack

from runner.errors import ProtocolViolationError
from runner.rpc.frame_stream import FrameDecoder, checked

# gRPC carries 4 MiB at most, so nothing legitimate comes near this.
FRAME_BYTES_MAX = 64 << 20
# One packet of a control socket: well above a boot configuration, below any socket buffer.
PACKET_BYTES_MAX = 128 << 10
PACKET_FDS_MAX = 8


Frame = list[Any]


class Kind(enum.IntEnum):
    """What a frame says; see the table above."""

    SETUP = 1
    FUNCTION = 2
    PACKAGE = 3
    RUN = 4
    SESSION_REPLY = 5
    RESUME = 6
    COMMITTED = 7
    RECONNECTED = 8
    EXIT = 9
    TRANSFERRED = 10
    ITEMS_READ = 11
    ACTOR_IN = 12
    ACTOR_EXIT = 13
    QUIET = 14
    GO_ON = 15
    SUSPEND = 16
    RESUMED = 17
    READY = 20
    ENDED = 21
    BLOCKED = 22
    UNBLOCKED = 23
    METRICS = 24
    CHECKPOINT = 25
    SESSION = 26
    PHASE = 27
    RESERVE = 28
    UPLOAD = 29
    FETCH = 30
    LOAD = 31
    ITEMS = 32
    ACTOR_READY = 33
    ACTOR_OUT = 34
    STAGE = 35
    KEEP = 36
    PARKED = 37
    HOOKS_RUN = 38
    SPAWN = 40
    SIGNAL = 41
    LAYER = 42
    SPAWNED = 43
    SPAWN_FAILED = 44
    EXITED = 45
    MAKE = 46
    RAISED = 47
    UNFIT = 48
    RESEED = 49
    BOOT = 60
    PRELOAD = 62
    BOOTED = 63
    GONE = 64


# Flags of ENDED.
INTERRUPTED = 1  # it was asked to end before it did, whatever its code made of that
LEFT_CHILDREN = 2  # processes are still alive: the whole group has to go

# Number of elements of each kind's array.
_LENGTHS: dict[int, int] = {
    Kind.SETUP: 2,
    Kind.FUNCTION: 4,
    Kind.PACKAGE: 3,
    Kind.RUN: 3,
    Kind.SESSION_REPLY: 2,
    Kind.RESUME: 2,
    Kind.COMMITTED: 6,
    Kind.TRANSFERRED: 5,
    Kind.RECONNECTED: 1,
    Kind.ITEMS_READ: 3,
    Kind.ACTOR_IN: 4,
    Kind.ACTOR_EXIT: 2,
    Kind.EXIT: 1,
    Kind.QUIET: 2,
    Kind.GO_ON: 2,
    Kind.SUSPEND: 2,
    Kind.RESUMED: 3,
    Kind.READY: 2,
    Kind.ENDED: 4,
    Kind.BLOCKED: 2,
    Kind.UNBLOCKED: 2,
    Kind.METRICS: 4,
    Kind.CHECKPOINT: 6,
    Kind.SESSION: 2,
    Kind.PHASE: 3,
    Kind.RESERVE: 4,
    Kind.UPLOAD: 6,
    Kind.KEEP: 6,
    Kind.FETCH: 6,
    Kind.LOAD: 5,
    Kind.ITEMS: 3,
    Kind.ACTOR_READY: 4,
    Kind.ACTOR_OUT: 4,
    Kind.STAGE: 3,
    Kind.PARKED: 3,
    Kind.HOOKS_RUN: 4,
    Kind.SPAWN: 2,
    Kind.SIGNAL: 4,
    Kind.LAYER: 3,
    Kind.SPAWNED: 3,
    Kind.SPAWN_FAILED: 3,
    Kind.EXITED: 3,
    Kind.MAKE: 2,
    Kind.RAISED: 3,
    Kind.UNFIT: 2,
    Kind.RESEED: 1,
    Kind.BOOT: 2,
    Kind.PRELOAD: 2,
    Kind.BOOTED: 3,
    Kind.GONE: 5,
}


def encode(kind: Kind, *fields: Any) -> bytes:
    """One frame as bytes."""
    packed: bytes = msgpack.packb((int(kind), *fields))
    return packed


def decode_packet(data: bytes) -> Frame:
    """The one frame in a packet.

    Raises:
        ProtocolViolationError: it holds anything else.
    """
    try:
        frame = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:  # TypeError: a list as a map's key
        raise ProtocolViolationError(f"a packet of {len(data)} bytes holds no frame: {error}") from None
    return checked(frame, _LENGTHS)


class Decoder(FrameDecoder):
    """Of the sockets of one machine."""

    def __init__(self, limit_bytes: int = FRAME_BYTES_MAX) -> None:
        super().__init__(_LENGTHS, limit_bytes)
