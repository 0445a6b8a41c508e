"""The guard of a cluster whose machines are no processes of this computer: they go when their coordinator is killed.

A coordinator of a script or notebook (embedded) must leave nothing behind, also after `kill -9` of it and of its client.
Agents end their machines when nobody has answered for `destroy_after_s`; a machine whose agent never started has no such
switch, and minutes of 64 machines cost money. So a small process in a session of its own waits for the end of a pipe that
only the coordinator holds, asks the provider what still carries the cluster's tag, and destroys it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack

from runner.config import quiet_http_logs

if TYPE_CHECKING:
    from runner.ids import ClusterId
    from runner.providers.base import Provider

log = logging.getLogger(__name__)

_DONE = b"done"
# A create that was on its way when the coordinator died may show up this late.
_LATE_S = 20.0
_LOOK_EVERY_S = 2.0
_GIVE_UP_S = 600.0
_WAIT_GONE_S = 2.0


@dataclass(frozen=True, slots=True)
class Charge:
    """What the guard needs to know. Travels as one msgpack map."""

    provider: str
    cluster_id: str
    log_dir: str
    store_path: str
    artefact_path: str
    host_id: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """A map that msgpack can pack."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"options": dict(self.options)}

    def make_provider(self) -> Provider:
        """The provider, as the coordinator had it. To be called in an event loop."""
        from runner.ids import ClusterId
        from runner.providers import registry

        place = registry.Place(
            cluster_id=ClusterId(self.cluster_id),
            embedded=True,
            options=self.options,
            log_dir=Path(self.log_dir),
            store_path=self.store_path,
            artefact_path=self.artefact_path,
            host_id=self.host_id,
        )
        return registry.make_provider(self.provider, place)


class Guard:
    """The coordinator's handle."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self._process = process
        self._fd = fd

    @classmethod
    def start(cls, charge: Charge) -> Guard:
        """Start it; does not wait until it runs."""
        read_fd, write_fd = os.pipe()
        charge_fd = os.memfd_create("runner-guard")
        os.write(charge_fd, msgpack.packb(charge.to_dict()))
        os.lseek(charge_fd, 0, os.SEEK_SET)
        command = [sys.executable, "-P", "-m", "runner.coordinator.guard"]
        command += ["--charge-fd", str(charge_fd), "--life-fd", str(read_fd)]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(charge_fd, read_fd),
                start_new_session=True,  # what kills the coordinator's group is not for it
                cwd="/",
            )
        finally:
            os.close(charge_fd)
            os.close(read_fd)
        return cls(process, write_fd)

    def release(self, *, all_gone: bool) -> None:
        """Nothing is left to guard, or else it begins its work. Idempotent."""
        if self._fd < 0:
            return
        if all_gone:
            with contextlib.suppress(BrokenPipeError):  # it was killed
                os.write(self._fd, _DONE)
        os.close(self._fd)
        self._fd = -1
        if all_gone:
            try:
                self._process.wait(_WAIT_GONE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


async def destroy_all(provider: Provider, cluster_id: ClusterId) -> None:
    """Destroy what carries the cluster's tag until nothing has been seen for a while.

    Raises:
        TimeoutError: something is still there after ten minutes.
    """
    from runner.providers.base import MachineState

    loop = asyncio.get_running_loop()
    seen_s = loop.time()
    async with asyncio.timeout(_GIVE_UP_S):
        while loop.time() < seen_s + _LATE_S:
            try:
                machines = await provider.list(cluster_id)
                left = [machine.name for machine in machines if machine.state is not MachineState.DESTROYED]
                for end in await asyncio.gather(*map(provider.destroy, left), return_exceptions=True):
                    if isinstance(end, BaseException):
                        log.warning("a machine could not be destroyed, it is tried again: %s", end)
                if left:
                    seen_s = loop.time()
                    log.warning("destroyed %s, left by a coordinator that is dead", ", ".join(left))
            except Exception as error:
                seen_s = loop.time()
                log.warning("the provider cannot be asked, it is tried again: %s", error)
            await asyncio.sleep(_LOOK_EVERY_S)


def main() -> int:
    """Wait for the end of the coordinator; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m runner.coordinator.guard", description=__doc__)
    parser.add_argument("--charge-fd", type=int, required=True)
    parser.add_argument("--life-fd", type=int, required=True)
    options = parser.parse_args()
    with os.fdopen(options.charge_fd, "rb") as file:
        charge = Charge(**msgpack.unpackb(file.read()))
    if _await_end(options.life_fd):
        return 0
    Path(charge.log_dir).mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=Path(charge.log_dir) / "guard.log", format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO
    )
    quiet_http_logs()
    try:
        return asyncio.run(_do(charge))
    except Exception:  # it has no stderr
        log.exception("machines of cluster %s may be left", charge.cluster_id)
        return 1


def _await_end(life_fd: int) -> bool:
    """Whether the coordinator ended in order. Returns when it has ended."""
    said = b""
    while chunk := os.read(life_fd, 64):
        said += chunk
    return said == _DONE


async def _do(charge: Charge) -> int:
    from runner.ids import ClusterId

    provider = charge.make_provider()
    try:
        await destroy_all(provider, ClusterId(charge.cluster_id))
    finally:
        await provider.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
