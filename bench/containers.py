"""What a container's boot takes, phase by phase: `python -m bench.containers --image runner-worker:slim [-n 16] [--at-once 1]`.

Needs an engine with the image (docs/container.md). Machines boot one after the other unless `--at-once` says more: the
figure that users see for one machine, and what sharing the processors makes of it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

import runner

# From the request to each: what came before is in it.
PHASES = ("created", "started", "agent_up", "registered", "template_ready")


def measure(options: dict[str, Any], count: int, at_once: int) -> list[dict[str, float]]:
    """Boot phases (seconds since the request) of `count` machines."""
    found: list[dict[str, float]] = []
    while len(found) < count:
        with runner.init(
            provider="container", provider_options=options, machines=at_once, num_cpus=1, log_to_driver=False
        ):
            deadline_s = time.monotonic() + 60
            while True:
                nodes = [node for node in runner.nodes() if node.is_alive and "template_ready" in node.phases]
                if len(nodes) == at_once:
                    break
                if time.monotonic() > deadline_s:
                    raise SystemExit(f"only {len(nodes)} of {at_once} machines came up: {runner.nodes()}")
                time.sleep(0.02)
            found += [dict(node.phases) for node in nodes]
        runner.shutdown()
    return found[:count]


def main() -> None:
    """Print p50, p95 and the largest of each phase."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", default="runner-worker:slim")
    parser.add_argument("--socket", default=os.environ.get("RUNNER_TEST_ENGINE", ""))
    parser.add_argument("-n", type=int, default=16)
    parser.add_argument("--at-once", type=int, default=1)
    given = parser.parse_args()
    options = {"image": given.image} | ({"socket": given.socket} if given.socket else {})
    rows = measure(options, given.n, given.at_once)
    print(
        f"{given.n} boots of {given.image}, {given.at_once} at once; load {os.getloadavg()[0]:.1f}; seconds since the request"
    )
    print(f"{'phase':<16}{'p50':>8}{'p95':>8}{'max':>8}")
    for phase in PHASES:
        values = sorted(row[phase] for row in rows if phase in row)
        if values:
            p95 = values[min(len(values) - 1, round(0.95 * (len(values) - 1)))]
            print(f"{phase:<16}{statistics.median(values):>8.2f}{p95:>8.2f}{values[-1]:>8.2f}")


if __name__ == "__main__":
    main()
