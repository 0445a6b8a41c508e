"""What micro-VMs take: boots, suspends and resumes: `python -m bench.micro_vms --image FOLDER [-n 5] [--cycles 20]`.

Needs QEMU and an image (docs/qemu.md). Boots are of whole clusters, one machine each. Suspends and resumes are one guest's
in turn, at the provider, with nobody else acting; the agent in it asks to be registered, and each answer is "ask again",
so that every time the same agent is seen to come back. What the agent does then is not in the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import runner
from bench.containers import PHASES
from runner.ids import ClusterId, MachineId, random_id
from runner.providers.qemu.options import parse
from runner.providers.qemu.provider import QemuProvider
from runner.providers.registry import Place
from tests.qemu.registrations import serving


def boots(options: dict[str, Any], count: int) -> list[dict[str, float]]:
    """Boot phases (seconds since the request) of `count` machines, one after the other."""
    found: list[dict[str, float]] = []
    for _ in range(count):
        with runner.init(provider="qemu", provider_options=options, num_cpus=1, log_to_driver=False):
            deadline_s = time.monotonic() + 120
            while not (nodes := [node for node in runner.nodes() if "template_ready" in node.phases]):
                if time.monotonic() > deadline_s:
                    raise SystemExit(f"the machine did not come up: {runner.nodes()}")
                time.sleep(0.02)
            found.append(dict(nodes[0].phases))
        runner.shutdown()
    return found


async def cycles(options: dict[str, Any], count: int, folder: Path) -> dict[str, list[float]]:
    """Seconds of `count` suspends and resumes of one guest, and the size of its snapshots in MB."""
    cluster, name = ClusterId(random_id("c")), MachineId("m-1")
    place = Place(cluster, True, options, folder / "logs", str(folder), str(folder), "this-host")
    provider = QemuProvider(parse(options), place)
    found: dict[str, list[float]] = {"suspend": [], "resume": [], "snapshot MB": []}
    async with serving() as registrations:
        await provider.create(registrations.spec(cluster, name))
        first = await registrations.next(120)
        for _ in range(count):
            begin_s = time.monotonic()
            await provider.suspend(name)
            found["suspend"].append(time.monotonic() - begin_s)
            found["snapshot MB"].append((folder / "qemu" / name / "snapshot").stat().st_size / 1e6)
            begin_s = time.monotonic()
            await provider.start(name)
            found["resume"].append(time.monotonic() - begin_s)
            request = await registrations.next()
            if request.agent_instance_id != first.agent_instance_id:
                raise SystemExit("another agent came back")
        await provider.destroy(name)
    await provider.close()
    return found


def print_rows(rows: dict[str, Sequence[float]]) -> None:
    """Median, p95 and the largest of each."""
    print(f"{'':<16}{'p50':>8}{'p95':>8}{'max':>8}")
    for name, given in rows.items():
        values = sorted(given)
        if values:
            p95 = values[min(len(values) - 1, round(0.95 * (len(values) - 1)))]
            print(f"{name:<16}{statistics.median(values):>8.2f}{p95:>8.2f}{values[-1]:>8.2f}")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", required=True)
    parser.add_argument("-n", type=int, default=5)
    parser.add_argument("--cycles", type=int, default=20)
    given = parser.parse_args()
    options = {"image": str(Path(given.image).absolute()), "default_memory": "384MiB"}
    made = boots(options, given.n)
    print(f"{given.n} boots, seconds since the request")
    print_rows({phase: [row[phase] for row in made if phase in row] for phase in PHASES})
    with tempfile.TemporaryDirectory(prefix="runner-bench-") as folder:
        took = asyncio.run(cycles(options, given.cycles, Path(folder)))
    print(f"{given.cycles} suspends and resumes of one guest, seconds")
    print_rows(dict(took))


if __name__ == "__main__":
    main()
