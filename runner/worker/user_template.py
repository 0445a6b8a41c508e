"""The process in which the code of user templates (`@runner.template`) runs, once; then it is a template like any other.

Its parent treats it as an executor, because user code may do anything here: it has a process group of its own, is killed when the
parent ends, and the kernel takes it first when memory runs out. What it has to know comes as the frames that an executor gets.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from runner.client.task_errors import MESSAGE_BYTES_MAX, TRACEBACK_BYTES_MAX
from runner.client.template_function import enter_template_process
from runner.objects.packages import CWD, unpack
from runner.objects.serialization import deserialize
from runner.rpc.limits import cut_text
from runner.worker import fork_rules
from runner.worker.executor.spawn_support import replace_main
from runner.worker.frames import Decoder, Frame, Kind
from runner.worker.process import die_with_parent, prefer_for_oom_kill, send_packet, spare_from_oom_kill

# Of a packet, which holds a message and a traceback.
_TRACEBACK_BYTES_MAX = min(TRACEBACK_BYTES_MAX, 32 << 10)
_READ_BYTES = 1 << 20


def main(server_pid: int, control: socket.socket, frames_fd: int, serve: Callable[[socket.socket], None]) -> None:
    """Run the code that the frames bring, and `serve` as a template; or tell why not, and return."""
    os.setpgid(0, 0)
    die_with_parent(server_pid)
    prefer_for_oom_kill()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    faulthandler.enable()
    replace_main()
    enter_template_process()
    making = _Making()
    try:
        with open(frames_fd, "rb") as file:
            frames = _frames(file)
            making.prepare(next(frames))  # its variables go before the rules: they do not undo them
            with fork_rules.kept(hide_gpus=True):
                making.run(frames)
    except BaseException as error:  # sys.exit() too is no value
        _tell_failure(control, making.name, error)
        return
    reason = fork_rules.why_unfit()
    if reason:
        with contextlib.suppress(OSError):
            send_packet(control, Kind.UNFIT, f"the code of {making.name} ran, but {reason}")
        return
    making.frames_are_done()
    spare_from_oom_kill()
    serve(control)


class _Making:
    """Takes the frames: where things are, what must be importable, and the templates."""

    def __init__(self) -> None:
        self._store_path = ""
        self._kept: list[Any] = []
        self.name = "the template"  # whose code runs, for messages

    def prepare(self, setup: Frame) -> None:
        """Take the first frame."""
        self._store_path = setup[1]["store_path"]
        os.environ.update(dict(setup[1]["env_vars"]))  # noqa: TID251  the templates' own variables

    def run(self, frames: Iterable[Frame]) -> None:
        """Take the others. Raises whatever the code of a template raises."""
        for frame in frames:
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        kind = frame[0]
        if kind == Kind.PACKAGE:
            folder = unpack(self._store_path, frame[1], frame[2])
            if frame[1].startswith(CWD):
                os.chdir(folder)
            if folder not in sys.path:
                sys.path.insert(0, folder)
        elif kind == Kind.FUNCTION:
            self.name = f"template {frame[2]}"
            template = deserialize(frame[3])
            template()
            self._kept.append(template)  # with what its code refers to: executors would only let it go page by page

    def frames_are_done(self) -> None:
        """What is here now is shared by all executors: their garbage collectors are to leave its pages alone."""
        gc.collect()
        gc.freeze()


def _frames(file: BinaryIO) -> Iterator[Frame]:
    decoder = Decoder()
    while data := file.read(_READ_BYTES):
        yield from decoder.feed(data)


def _tell_failure(control: socket.socket, name: str, error: BaseException) -> None:
    trace = error.__traceback__
    for _ in range(3):  # this module's frames
        trace = trace.tb_next if trace is not None and trace.tb_next is not None else trace
    text = "".join(traceback.format_exception(error.with_traceback(trace)))
    sys.stderr.write(text)
    message = cut_text(f"{name} raised {type(error).__name__}: {error}", MESSAGE_BYTES_MAX)
    with contextlib.suppress(OSError):
        send_packet(control, Kind.RAISED, message, cut_text(text, _TRACEBACK_BYTES_MAX))
