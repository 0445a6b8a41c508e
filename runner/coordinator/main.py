"""The coordinator process: forks the zygote first, then serves until its client, its signals or a call end it."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgpack

from runner import config as settings
from runner.coordinator.config import STOP_REMOTE_S_MAX, STOP_S_MAX, CoordinatorConfig, CoordinatorReady
from runner.errors import InternalError, RunnerError
from runner.providers.gpus import Gpu, detect_gpus, kind_of

if TYPE_CHECKING:
    import asyncio

    from runner.coordinator.guard import Guard
    from runner.coordinator.state_dir import StateDir
    from runner.coordinator.wiring import Coordinator
    from runner.ids import ClusterId
    from runner.pools import Pool
    from runner.providers.base import Provider
    from runner.worker.zygote import Zygote

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one coordinator; returns the exit status."""
    options = _parse(argv)
    if options.hand_over:
        from runner.coordinator import booted

        return booted.hand_over_stdin(options.hand_over, options.cluster)
    ready_fd = options.ready_fd
    try:
        settings.refuse_inside()
        if options.config_fd is None:
            from runner.coordinator import booted

            config, ready_fd = booted.wait_for_secrets()
        else:
            config = CoordinatorConfig.from_dict(msgpack.unpackb(_read_all(options.config_fd)))
        return _run(config, ready_fd, is_machine=options.config_fd is None)
    except Exception as exc:
        _report_failure(ready_fd, exc)
        log.exception("the coordinator could not start")
        return 1


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m runner.coordinator", description=__doc__)
    parser.add_argument(
        "--config-fd", type=int, help="where one msgpack map of settings is read from; without it RUNNER_COORDINATOR is"
    )
    parser.add_argument("--ready-fd", type=int, default=-1, help="where one msgpack map is written when it serves")
    parser.add_argument(
        "--hand-over", metavar="HOME", help="give the secrets on stdin to the coordinator that waits there"
    )
    parser.add_argument("--cluster", default="", help="with --hand-over: whose coordinator that is")
    return parser.parse_args(argv)


def _run(config: CoordinatorConfig, ready_fd: int, *, is_machine: bool) -> int:
    # What gRPC reads from the environment has to be there before it is imported.
    settings.set_grpc_defaults()
    import asyncio

    from runner.coordinator.state_dir import StateDir
    from runner.coordinator.wiring import Coordinator

    zygote = None
    if config.provider == "local":
        from runner.worker.zygote import Zygote

        # Before any gRPC object, thread or event loop exists: none of them survives a fork. And before the locks of
        # the state directory: machines of a standing cluster may outlive this process, and must not hold them.
        zygote = Zygote.fork()
        if config.preload:
            zygote.preload(config.preload)  # while the machines boot
    state = StateDir(config.home, config.cluster_id, config.token, embedded=config.embedded)
    state.bound_store(config.store_bytes, config.disk_reserve_bytes)
    _log_to(state, to_stderr=is_machine)  # there nobody reads the file, and the provider keeps what is written
    said, config = config, replace(config, pools=_resolved(config))

    def make_provider(cluster_id: ClusterId, state: StateDir) -> Provider:
        return _provider(config, cluster_id, state, zygote)

    async def serve() -> int:
        from runner.clock import SystemClock

        coordinator = Coordinator(config, state, make_provider, SystemClock(), said=said)
        _watch_signals(coordinator)
        if config.embedded:
            _watch_client(coordinator, config)
        guard = _guard(config, state)
        try:
            async with coordinator.serve() as ready:
                _report_ready(ready_fd, ready)
                alone = _watch_alone(coordinator, config)
                await coordinator.wait_stopped()
                alone.cancel()
                # A shutdown that hangs ends by SIGALRM: the zygote and its machines then end by themselves, and what
                # is elsewhere is the guard's, or the next start's.
                signal.alarm(STOP_S_MAX if zygote is not None else STOP_REMOTE_S_MAX)
        finally:
            if guard is not None:
                guard.release(all_gone=coordinator.is_fleet_gone)
        return 70 if coordinator.failure else 0

    return asyncio.run(serve())


def _resolved(config: CoordinatorConfig) -> tuple[Pool, ...]:
    """The pools, with what their machines have where nobody has said it.

    On this computer an even share of its CPUs and GPUs, and of the memory that is not the object store's; elsewhere one
    CPU and no GPU, and memory is not counted.
    """
    most = max(1, sum(pool.most for pool in config.pools))
    if config.provider != "local":
        return tuple(pool.with_machine(num_cpus=1.0, num_gpus=0) for pool in config.pools)
    cpus = float(max(1, len(os.sched_getaffinity(0)) // most))
    found = _gpus() if any(pool.num_gpus != 0 for pool in config.pools) else ()
    kinds = {kind_of(gpu.name) for gpu in found}
    kind = kinds.pop() if len(kinds) == 1 else None  # where they differ, who gets which is not known here
    gpus = len(found) // most
    from runner.objects.spill import MEMORY_SHARE
    from runner.worker.process import memory_total

    memory = int(memory_total() * (1 - MEMORY_SHARE)) // most
    return tuple(
        pool.with_machine(num_cpus=cpus, num_gpus=gpus, memory=memory, accelerator_type=kind) for pool in config.pools
    )


def _gpus() -> tuple[Gpu, ...]:
    # Asking the driver takes long enough to be noticed at every start; most hosts have no such device.
    if not any(os.path.exists(path) for path in ("/dev/nvidiactl", "/dev/dxg")):
        return ()
    return detect_gpus()


def _guard(config: CoordinatorConfig, state: StateDir) -> Guard | None:
    """Machines that are no processes of ours need somebody who ends them when we are killed. A standing cluster is
    started again, and takes care of them then.
    """
    if config.provider == "local" or not config.embedded:
        return None
    from runner.coordinator.guard import Charge, Guard
    from runner.rpc.version import host_id

    charge = Charge(
        provider=config.provider,
        cluster_id=state.cluster_id,
        log_dir=str(state.machine_logs),
        store_path=str(state.store),
        artefact_path=str(state.artefacts),
        host_id=host_id(),
        options=config.provider_options,
    )
    return Guard.start(charge)


def _provider(config: CoordinatorConfig, cluster_id: ClusterId, state: StateDir, zygote: Zygote | None) -> Provider:
    from runner.providers.registry import Place, make_provider
    from runner.rpc.version import host_id

    place = Place(
        cluster_id=cluster_id,
        embedded=config.embedded,
        options=config.provider_options,
        log_dir=state.machine_logs,
        store_path=str(state.store),
        artefact_path=str(state.artefacts),
        host_id=host_id(),
        coordinator_host=config.advertise or config.host,
        zygote=zygote,
    )
    return make_provider(config.provider, place)


def _watch_alone(coordinator: Coordinator, config: CoordinatorConfig) -> asyncio.Future[None]:
    """A coordinator that was booted for a client ends when nobody has been there for a while."""
    import asyncio

    from runner.coordinator.alone import end_when_alone

    if not config.ends_alone:
        return asyncio.get_running_loop().create_future()
    is_wanted, now_s = coordinator.cluster.is_wanted, asyncio.get_running_loop().time
    return asyncio.ensure_future(end_when_alone(config.client_lost_after_s, is_wanted, now_s, coordinator.stop))


def _watch_signals(coordinator: Coordinator) -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, coordinator.stop, f"signal {signum.name}")


def _watch_client(coordinator: Coordinator, config: CoordinatorConfig) -> None:
    """An embedded coordinator ends with its client: by the end of the pipe, or by the end of the process."""
    import asyncio

    loop = asyncio.get_running_loop()

    def pipe_readable() -> None:
        if not os.read(config.life_fd, 4096):
            loop.remove_reader(config.life_fd)
            coordinator.stop("the client has closed its pipe")

    def process_ended(pidfd: int) -> None:
        loop.remove_reader(pidfd)
        coordinator.stop("the client process has ended")

    if config.life_fd >= 0:
        loop.add_reader(config.life_fd, pipe_readable)
    if config.client_pid:
        # The pipe may live on in children of the client; the process may not.
        try:
            pidfd = os.pidfd_open(config.client_pid)
        except ProcessLookupError:
            coordinator.stop("the client process has ended")
        else:
            loop.add_reader(pidfd, process_ended, pidfd)


def _log_to(state: StateDir, *, to_stderr: bool) -> None:
    level = settings.load().log_level.upper()
    state.log.touch(mode=0o600)
    # Opened now: what is logged after a failed start must not fail because its folder is gone.
    handlers: list[logging.Handler] = [logging.FileHandler(state.log)]
    if to_stderr:
        handlers.append(logging.StreamHandler())
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", handlers=handlers)
    settings.quiet_http_logs()


def _report_ready(ready_fd: int, ready: CoordinatorReady) -> None:
    _report(ready_fd, ready.to_dict())


def _report_failure(ready_fd: int, exc: Exception) -> None:
    if not isinstance(exc, RunnerError):
        exc = InternalError(f"the coordinator could not start: {type(exc).__name__}: {exc}")
    _report(ready_fd, {"error": {"type": type(exc).__name__, "message": str(exc)}})
    sys.stderr.write(f"runner.coordinator: {exc}\n")


def _report(ready_fd: int, message: dict[str, Any]) -> None:
    if ready_fd < 0:
        return
    try:
        with os.fdopen(ready_fd, "wb") as file:
            file.write(msgpack.packb(message))
    except OSError:
        log.warning("nobody waits for this coordinator to be ready")


def _read_all(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as file:
        return file.read()
