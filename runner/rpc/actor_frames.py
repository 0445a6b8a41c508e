"""The channel between a caller and an actor: msgpack arrays `[kind, field, ...]`, one after the other.

They travel on a Unix socket of the actor's process, or, from another host, in pieces through coordinator and agent.

| kind | fields | from -> to |
|---|---|---|
| HELLO | protocol, secret, caller_id, incarnation | caller -> actor, first |
| CALL | seq, call_id, method, args, dependencies, num_returns, backpressure | caller -> actor |
| CANCEL | seq, recursive | caller -> actor |
| READ | seq, count | caller -> actor: so many items of the generator were read |
| RELEASED | seq | caller -> actor: it holds the registered values of this call itself |
| CLOSE_STREAM | seq | caller -> actor: nobody reads the generator on |
| WELCOME | | actor -> caller |
| RESULT | seq, [Value, ...], flags | actor -> caller |
| FAILURE | seq, Failure, retryable, flags | actor -> caller |
| ITEM | seq, index, Value, flags | actor -> caller: what a generator has yielded; its end is a RESULT without values |
| REFUSED | text | actor -> caller: instead of WELCOME |

`args` is a serialised Value as in TaskSpec.args; `dependencies` are pairs of an object id and its serialised Value,
empty where the actor has to ask for it. `method` is a method's name, or `name@group` to run it in a concurrency group.
`num_returns` is STREAMING for generators; `backpressure` is how many of its items may be unread, 0: any number. `count` of
READ is all items read so far, `incarnation` of HELLO the attempt of the actor that the caller means.

Flag REGISTERED: the values of this frame are known to the coordinator, those of a RESULT under `return_id(call_id, i)`, an
ITEM's under `item_id(call_id, index)`. The actor's process holds them until RELEASED, or the end of the channel: one RELEASED
of the call's seq for each such frame, in the order of the frames. Every CALL gets one RESULT or FAILURE, also when it was
cancelled or its stream closed, unless the actor ends first.
"""

from __future__ import annotations

import enum
from typing import Any

import msgpack

from runner.rpc.frame_stream import FrameDecoder

PROTOCOL = 1
STREAMING = -1
REGISTERED = 1
FRAME_BYTES_MAX = 64 << 20


Frame = list[Any]


class ActorKind(enum.IntEnum):
    """What a frame says; see the table above."""

    HELLO = 1
    CALL = 2
    CANCEL = 3
    READ = 4
    RELEASED = 5
    CLOSE_STREAM = 6
    WELCOME = 20
    RESULT = 21
    FAILURE = 22
    ITEM = 23
    REFUSED = 24


_LENGTHS: dict[int, int] = {
    ActorKind.HELLO: 5,
    ActorKind.CALL: 8,
    ActorKind.CANCEL: 3,
    ActorKind.READ: 3,
    ActorKind.RELEASED: 2,
    ActorKind.CLOSE_STREAM: 2,
    ActorKind.WELCOME: 1,
    ActorKind.RESULT: 4,
    ActorKind.FAILURE: 5,
    ActorKind.ITEM: 5,
    ActorKind.REFUSED: 2,
}


def encode(kind: ActorKind, *fields: Any) -> bytes:
    """One frame as bytes."""
    packed: bytes = msgpack.packb((int(kind), *fields))
    return packed


class Decoder(FrameDecoder):
    """Of an actor's channel."""

    def __init__(self) -> None:
        super().__init__(_LENGTHS, FRAME_BYTES_MAX)
