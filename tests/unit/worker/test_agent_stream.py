"""What an agent takes in of what its coordinator says."""

from __future__ import annotations

from runner.clock import SystemClock
from runner.ids import ClusterId, MachineId
from runner.providers.base import BootConfig
from runner.rpc.gen import fleet_pb2
from runner.worker.agent.report_buffer import ReportBuffer
from runner.worker.agent.stream import AgentStream

BOOT = BootConfig("127.0.0.1:9", b"", "token", MachineId("m-1"), ClusterId("c"))


def frame(seq: int, acked: int = 0) -> fleet_pb2.AgentCommands:
    command = fleet_pb2.AgentCommand(free_segment=fleet_pb2.FreeSegment(path=f"/{seq}"))
    return fleet_pb2.AgentCommands(seq=seq, commands=[command], acked_report_seq=acked)


async def test_after_its_last_word_an_agent_takes_in_acknowledgements_only_and_confirms_nothing_more() -> None:
    got: list[fleet_pb2.AgentCommands] = []
    buffer: ReportBuffer[fleet_pb2.ReportItem] = ReportBuffer()
    stream = AgentStream(BOOT, SystemClock(), buffer, got.append, lambda: None)
    stream._take_in(frame(1))
    buffer.add(fleet_pb2.ReportItem(), 1)
    buffer.seal()
    stream._take_in(frame(2, acked=1))
    assert [(len(each.commands), each.acked_report_seq) for each in got] == [(1, 0), (0, 1)]
    # The next generation is told what frame 2 said: it must not have been taken in.
    report = stream._next_report()
    assert report is not None and report.received_seq == 1
