"""Commands inside machines that are real processes: the API's exec."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from runner.flysim.answers import Answer, ApiError
from runner.worker.process import die_with_parent

_TIMEOUT_S = 60.0  # where the request does not say, and at most: the proxy in front of the API gives up then
_OUTPUT_BYTES_MAX = 1 << 20


async def execute(body: Mapping[str, Any], environment: Mapping[str, str]) -> Answer:
    """Run the command beside the machine's own processes. Raises ApiError (408) when its time is over. [1.2 exec]"""
    parent = os.getpid()
    command: Sequence[str] = body.get("command") or ["/bin/sh", "-c", str(body.get("cmd", ""))]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(parent),  # a simulator that is killed leaves nothing
        )
    except OSError as error:
        return Answer(200, {"exit_code": 127, "stdout": "", "stderr": f"{command[0]}: {error.strerror}\n"})
    try:
        async with asyncio.timeout(min(float(body.get("timeout") or _TIMEOUT_S), _TIMEOUT_S)):
            stdout, stderr = await process.communicate(str(body.get("stdin") or "").encode())
    except TimeoutError:
        raise ApiError(408, "exec: the command did not end in time") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    code = process.returncode if process.returncode is not None else -9
    return Answer(
        200,
        {
            "exit_code": code if code >= 0 else 128 - code,
            "stdout": stdout[:_OUTPUT_BYTES_MAX].decode(errors="replace"),
            "stderr": stderr[:_OUTPUT_BYTES_MAX].decode(errors="replace"),
        },
    )
