"""Who may register as a machine: join tokens, and the key that has used one."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from dataclasses import dataclass, field

from runner.core.values import Shape
from runner.errors import AuthenticationError
from runner.ids import MachineId
from runner.rpc.gen import fleet_pb2
from runner.rpc.security import tokens_equal

# A machine in one of these may present its join token with a new key.
_EXPECTED = frozenset({"requested", "creating", "booting", "suspending", "suspended", "resuming"})


@dataclass(slots=True)
class Boot:
    """One machine that was asked for: its secret, and who has used it."""

    machine_id: MachineId
    shape: Shape
    pool: str
    join_token: str
    phases: dict[str, float] = field(default_factory=dict)  # unix seconds
    key_hash: str = ""  # of the agent that registered
    host_id: str = ""
    pid: int = 0  # of the agent
    generation: int = 0
    reply: fleet_pb2.RegisterReply | None = None
    clock_ahead_s: float = 0.0  # the machine's wall clock, where it is wrong
    overdue: asyncio.TimerHandle | None = None
    size: str = ""  # what the provider has booted, and where; known once it is created
    region: str = ""
    asked_s: float = 0.0  # by the loop's clock: when it was told last that it is being suspended, and may ask again
    is_story_told: bool = False  # why it did not come up


class JoinKey:
    """Derives the join tokens of a cluster's machines. A machine that sleeps through a restart of the coordinator keeps its own."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: the cluster's, the same after each restart."""
        self._secret = secret

    def token_for(self, machine_id: MachineId) -> str:
        """Of one machine, and of no other."""
        return hmac.new(self._secret, f"join {machine_id}".encode(), hashlib.sha256).hexdigest()


def admit(machine_id: MachineId, boot: Boot | None, state: str, join_token: str, key_pem: bytes) -> Boot:
    """Check a join token and bind it to the agent's key. `state`: the machine's, empty for none.

    Raises:
        AuthenticationError: the token is another machine's, used up by another key, or no longer expected.
    """
    if boot is None or not tokens_equal(join_token, boot.join_token):
        raise AuthenticationError(
            f"the join token is not valid for machine {machine_id!r}; nothing is booting by that name with it"
        )
    key_hash = hashlib.sha256(key_pem).hexdigest()
    if boot.key_hash and boot.key_hash != key_hash:
        if state not in _EXPECTED:
            raise AuthenticationError(
                f"the join token of machine {machine_id} was used by another key already, and no boot of it is expected"
            )
        boot.reply = None
    boot.key_hash = key_hash
    return boot
