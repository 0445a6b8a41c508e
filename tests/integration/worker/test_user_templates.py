"""The processes of user templates as the agent sees them: who tells of their end, and who ends them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

import runner
from runner.objects.serialization import serialize
from runner.objects.template_code import TemplateCode, template_id
from runner.rpc.gen import types_pb2
from runner.worker.agent.template_links import TemplateLinks
from runner.worker.agent.templates import BASE, Modules
from runner.worker.frames import Frame, Kind
from runner.worker.process import receive_packet, send_packet
from tests.integration.helpers import until
from tests.integration.worker.harness import Worker, machine, wait_gone

pytestmark = pytest.mark.timeout(60)
NAMES = frozenset({"template-1"})


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    async with machine() as worker:
        yield worker


def add(worker: Worker, template: Any) -> str:
    """What the coordinator sends before a function that names the template; returns its id."""
    code = TemplateCode("the_template", serialize(template).to_bytes(), (), (), (), 30.0)
    package_id = template_id(code, template.find_key())
    worker.shell.functions.add_package(types_pb2.Package(package_id=package_id, zip=code.pack()))
    return package_id


@runner.template
def made_in() -> int:
    return os.getpid()


def use() -> tuple[int, int]:
    return made_in(), os.getppid()


async def test_an_executor_is_forked_from_the_process_that_made_the_value(worker: Worker) -> None:
    outcome = await worker.ended(worker.start(use, package_ids=[add(worker, made_in)]))
    pid, parent = outcome.value()
    assert pid == parent != worker.template_pid


async def test_it_is_killed_with_the_template_that_it_was_forked_from(worker: Worker) -> None:
    outcome = await worker.ended(worker.start(use, package_ids=[add(worker, made_in)]))
    pid, _ = outcome.value()
    os.kill(worker.template_pid, signal.SIGKILL)
    assert wait_gone(pid, 5)
    await worker.until(lambda: worker.exit_reason is not None)


async def test_its_code_reads_nothing_from_the_machines_input(worker: Worker) -> None:
    @runner.template
    def read() -> str:
        import sys

        return sys.stdin.read()

    def tell() -> str:
        return read()

    outcome = await worker.ended(worker.start(tell, package_ids=[add(worker, read)]))
    assert outcome.value() == ""


async def test_the_phase_of_a_template_has_its_name(worker: Worker) -> None:
    await worker.ended(worker.start(use, package_ids=[add(worker, made_in)]))
    phases = [each.phase.name for each in worker.others if each.WhichOneof("item") == "phase"]
    assert "template_ready+the_template" in phases


# ---- links ----
class Owner:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.frames: list[tuple[Modules, Frame]] = []
        self.ends: list[Modules] = []

    def on_template_frame(self, names: Modules, frame: Frame) -> None:
        self.frames.append((names, frame))

    def on_template_end(self, names: Modules) -> None:
        self.ends.append(names)


def asked(base: socket.socket) -> tuple[Frame, list[socket.socket]]:
    """What the base template was asked, and the sockets that came with it."""
    packet = receive_packet(base)
    assert packet is not None
    frame, fds = packet
    if frame[0] == Kind.MAKE:
        os.close(fds.pop())  # the frames
    return frame, [socket.socket(fileno=fd) for fd in fds]


async def test_a_successor_of_the_same_names_does_not_end_with_its_predecessor() -> None:
    owner = Owner()
    ours, base = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    links = TemplateLinks(asyncio.get_running_loop(), owner, ours, None)
    links.make(1, NAMES, BASE, b"")
    frame, (first,) = asked(base)
    assert frame == [Kind.MAKE, 1]
    links.make(2, NAMES, BASE, b"")
    _, (second,) = asked(base)
    first.close()
    send_packet(second, Kind.READY, 4711)
    await until(lambda: owner.frames, 5, "a frame")
    assert (owner.frames, owner.ends) == ([(NAMES, [Kind.READY, 4711])], [])
    assert NAMES in links.by_names
    # What was said before the end is told before the end is.
    send_packet(second, Kind.UNFIT, "threads")
    second.close()
    assert links.exited(2) == NAMES
    assert owner.frames[-1] == (NAMES, [Kind.UNFIT, "threads"])
    assert owner.ends == [NAMES]
    assert links.exited(2) is None
    links.close(0)
    base.close()


async def test_a_process_is_signalled_by_whoever_forked_it() -> None:
    owner = Owner()
    ours, base = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    links = TemplateLinks(asyncio.get_running_loop(), owner, ours, None)
    links.make(1, NAMES, BASE, b"")
    _, (template,) = asked(base)
    links.spawn(NAMES, 2, ())
    assert receive_packet(template) == ([Kind.SPAWN, 2], [])
    links.signal(1, 9, whole_group=True)
    links.signal(2, 15, whole_group=False)
    assert receive_packet(base) == ([Kind.SIGNAL, 1, 9, True], [])
    assert receive_packet(template) == ([Kind.SIGNAL, 2, 15, False], [])
    template.close()
    await until(lambda: owner.ends, 5, "the end")
    assert (links.can_reach(1), links.can_reach(2)) == (True, False)
    base.close()
    await until(lambda: BASE in owner.ends, 5, "the end of the base")
    assert links.out_of_reach() == [1]
    links.close(0)
