"""The streams of machines: what waits for each agent, and how far its reports have been taken in.

A machine that was suspended comes back with a new generation, but with the executors that it had: what the old generation has not
taken in is for them, and goes to the new one. An agent takes in nothing more once it has said that it is prepared.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from runner.coordinator.outbox import Outbox
from runner.ids import ExecutorId, MachineId
from runner.rpc.gen import client_pb2, fleet_pb2

# A report's acknowledgement waits this long for commands that it can ride with.
_ACK_DELAY_S = 0.01
_OF_ONE_GENERATION = frozenset({"suspend", "exit"})


class MachineLink:
    """One generation of one machine. A reconnect of the same agent instance goes on with the same link."""

    __slots__ = (
        "acked_sent_s",
        "acked_seq",
        "exit_reason",
        "generation",
        "is_ack_due",
        "machine_id",
        "outbox",
        "prepared",
        "prepared_s",
        "sent",
        "sent_seq",
        "stream",
        "taken_seq",
        "unconfirmed",
        "unsent",
    )

    def __init__(self, machine_id: MachineId, generation: int) -> None:
        self.machine_id = machine_id
        self.generation = generation
        self.outbox: Outbox[fleet_pb2.AgentCommand] = Outbox()
        self.stream = 0  # counts connections: only the newest Assignments stream drains the outbox
        self.taken_seq = 0  # newest report item handed to the engine
        self.acked_seq = 0  # newest one that is durable
        self.acked_sent_s = 0.0  # `sent_s` of the newest heartbeat: renews the agent's lease
        self.sent = (0, 0.0)  # what the agent was told last of the two above
        self.is_ack_due = False  # an acknowledgement has waited long enough for commands to ride with
        self.exit_reason = ""  # set: this generation is over
        self.prepared = 0  # the snapshot for which the agent has said that it is prepared, its last word
        self.prepared_s = 0.0  # when, by the loop's clock
        self.sent_seq = 0  # number of the newest frame with commands
        self.unconfirmed: deque[fleet_pb2.AgentCommands] = deque()  # written to a stream, perhaps lost in it
        self.unsent: deque[fleet_pb2.AgentCommands] = deque()  # of those, what a new stream has yet to carry again

    def push(self, command: fleet_pb2.AgentCommand) -> None:
        """Queue one command for the agent."""
        self.outbox.push(command, command.ByteSize())

    def attach(self, received_seq: int) -> int:
        """A new Assignments stream of an agent that has frames up to `received_seq`; returns the stream's number."""
        self.confirm(received_seq)
        self.unsent = deque(self.unconfirmed)
        self.is_ack_due = True
        self.stream += 1
        self.outbox.poke()  # the writer of an older stream ends
        return self.stream

    def confirm(self, received_seq: int) -> None:
        """The agent has taken in the frames up to this one."""
        while self.unconfirmed and self.unconfirmed[0].seq <= received_seq:
            self.unconfirmed.popleft()

    def left_over(self) -> list[fleet_pb2.AgentCommand]:
        """What the agent has not taken in, in order; what concerns this generation alone left out."""
        waiting = [command for frame in self.unconfirmed for command in frame.commands]
        while len(self.outbox):
            waiting += self.outbox.take()
        self.unconfirmed.clear()
        self.unsent.clear()
        return [command for command in waiting if command.WhichOneof("command") not in _OF_ONE_GENERATION]

    def take_frame(self) -> fleet_pb2.AgentCommands | None:
        """What waits, with the newest acknowledgements. None when there is nothing to say."""
        acks = (self.acked_seq, self.acked_sent_s)
        if self.unsent:
            return self.unsent.popleft()
        commands = self.outbox.take()
        if not commands and not self.is_ack_due:
            return None
        self.is_ack_due = False
        self.sent = acks
        frame = fleet_pb2.AgentCommands(acked_report_seq=acks[0], acked_sent_s=acks[1], commands=commands)
        if commands:
            self.sent_seq += 1
            frame.seq = self.sent_seq
            self.unconfirmed.append(frame)
        return frame


class MachineLinks:
    """The newest link of each machine."""

    def __init__(self) -> None:
        self._links: dict[MachineId, MachineLink] = {}
        self._unacked: set[MachineLink] = set()
        self._ack_timer: asyncio.TimerHandle | None = None
        self.on_succeeded: Callable[[MachineId, int], None] = lambda _machine_id, _generation: None  # after a suspend

    def newest(self, machine_id: MachineId) -> MachineLink | None:
        """That of its newest generation; None: of none has been heard since we started."""
        return self._links.get(machine_id)

    def of(self, machine_id: MachineId, generation: int) -> MachineLink | None:
        """The link of this generation, made when it is new; None when a newer one exists."""
        link = self._links.get(machine_id)
        if link is None or link.generation < generation:
            old, link = link, MachineLink(machine_id, generation)
            self._links[machine_id] = link
            if old is not None:
                self._succeed(old, link)
        return link if link.generation == generation else None

    def send(self, machine_id: MachineId, generation: int, command: fleet_pb2.AgentCommand) -> None:
        """Queue a command for one generation; dropped when that is over."""
        link = self.of(machine_id, generation)
        if link is not None and not link.exit_reason:
            link.push(command)

    def relay(self, machine_id: MachineId, executor_id: ExecutorId, reply: client_pb2.SessionReply) -> None:
        """Queue a session reply for an executor of the machine's newest generation."""
        link = self._links.get(machine_id)
        if link is not None and not link.exit_reason:
            link.push(fleet_pb2.AgentCommand(relay=fleet_pb2.RelayToExecutor(executor_id=executor_id, reply=reply)))

    def fence(self, machine_id: MachineId, generation: int, reason: str) -> None:
        """This generation is over: tell whoever still speaks in its name to exit."""
        link = self._links.get(machine_id)
        if link is not None and link.generation == generation:
            self._end(link, reason)

    def exit_all(self, reason: str) -> None:
        """Tell every agent to exit: the cluster ends."""
        for link in self._links.values():
            self._end(link, reason)

    def forget(self, machine_id: MachineId) -> None:
        """The machine is gone for good."""
        link = self._links.pop(machine_id, None)
        if link is not None:
            self._unacked.discard(link)
            link.outbox.close()

    def acknowledge(self, link: MachineLink, seq: int, sent_s: float) -> None:
        """Everything up to `seq` is durable, and the agent spoke at its time `sent_s`."""
        link.acked_seq = max(link.acked_seq, seq)
        link.acked_sent_s = max(link.acked_sent_s, sent_s)
        self._unacked.add(link)
        if self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(_ACK_DELAY_S, self._send_acks)

    def all(self) -> list[MachineLink]:
        """The newest link of each machine."""
        return list(self._links.values())

    def close(self) -> None:
        """End all writers. Idempotent."""
        if self._ack_timer is not None:
            self._ack_timer.cancel()
        for link in self._links.values():
            link.outbox.close()

    def _succeed(self, old: MachineLink, new: MachineLink) -> None:
        if old.prepared and not old.exit_reason:
            for command in old.left_over():
                new.push(command)
            self.on_succeeded(new.machine_id, new.generation)
        self._end(old, "a newer agent has taken this machine over")

    def _end(self, link: MachineLink, reason: str) -> None:
        if not link.exit_reason:
            link.exit_reason = reason
            link.push(fleet_pb2.AgentCommand(exit=fleet_pb2.Exit(reason=reason)))

    def _send_acks(self) -> None:
        self._ack_timer = None
        links, self._unacked = self._unacked, set()
        for link in links:
            if link.sent != (link.acked_seq, link.acked_sent_s):
                link.is_ack_due = True
                link.outbox.poke()
