"""`make bench-peers`: runner beside Ray (and Dask), in turn within the same minutes; figures and their ratios.

Each round runs every system once, in a fresh process of its own interpreter.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys

from bench.harness import RESULTS, ROOT, Figure, commit, machine, versions
from bench.peers.scenes import SCENES, Samples

PEERS = ROOT / ".cache" / "peers"
SYSTEMS = ("runner", "ray", "dask")
# Figure: unit, more is better, and the ratio to Ray (or where it says so the value itself) that is wanted.
FIGURES: dict[str, tuple[str, bool, float | None]] = {
    "import + init -> first no-op result": ("s", False, None),
    "idle PSS of everything": ("MB", False, None),
    "round trip p50": ("ms", False, 0.5),
    "10,000 no-ops": ("/s", True, 3.0),
    "actor call p50": ("ms", False, 0.8),
    "10,000 actor calls": ("/s", True, 2.0),
    "10,000 streamed items": ("/s", True, 5.0),
    "tree reduce of 1,000 refs": ("s", False, 0.4),
    "first put+get of 200 MB": ("s", False, None),
    "later put+get of 200 MB": ("s", False, 1.0),
    "get of a mapped array": ("ms", False, None),
    "kill -9 -> result": ("s", False, None),
}
# Wanted of our own value, not of a ratio.
VALUES = {"get of a mapped array": 1.0, "kill -9 -> result": 0.3}
_ROUND_S_MAX = 900.0


def one_round(system: str, names: list[str]) -> Samples:
    """One process's samples; none when it failed."""
    python = sys.executable if system == "runner" else str(PEERS / system / "bin" / "python")
    done = subprocess.run(
        [python, "-m", "bench.peers.measure", system, *names],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=_ROUND_S_MAX,
        check=False,
    )
    if done.returncode:
        print(f"{system} failed with status {done.returncode}", file=sys.stderr)
        return {}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def line(name: str, found: dict[str, Figure]) -> str:
    """One figure on all systems, and whether ours is what is wanted."""
    unit, more_is_better, ratio_wanted = FIGURES[name]
    parts = [f"{name:<36}"]
    for system in SYSTEMS:
        if (figure := found.get(system)) is not None:
            spread = f"({min(figure.samples):.3g} .. {max(figure.samples):.3g})"
            parts.append(f"{system} {figure.median:8.4g} {unit:<3}{spread:<18}")
    ours, rays = found.get("runner"), found.get("ray")
    if ours is not None and rays is not None:
        ratio = ours.median / rays.median
        verdict = ""
        if ratio_wanted is not None:
            is_met = ratio >= ratio_wanted if more_is_better else ratio <= ratio_wanted
            verdict = f"{'>=' if more_is_better else '<='} {ratio_wanted:g} {'ok' if is_met else 'MISSED'}"
        elif name in VALUES:
            verdict = f"value <= {VALUES[name]:g} {'ok' if ours.median <= VALUES[name] else 'MISSED'}"
        parts.append(f"ours/Ray {ratio:.2f} {verdict}")
    return "  ".join(parts)


def main() -> int:
    """Measure, print, and write `bench/results/peers.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=["start", *SCENES, []], default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--no-file", action="store_true", help="print only")
    arguments = parser.parse_args()
    where = machine()
    found: dict[str, dict[str, Figure]] = {name: {} for name in FIGURES}
    loads = []
    for _ in range(arguments.rounds):
        for system in arguments.systems.split(","):
            loads.append(os.getloadavg()[0])
            for name, samples in one_round(system, arguments.names).items():
                unit, more_is_better, _wanted = FIGURES[name]
                figure = found[name].setdefault(system, Figure(name, unit, more_is_better=more_is_better))
                figure.samples += samples
    for name, figures in found.items():
        if figures:
            print(line(name, figures), flush=True)
    print(f"load before each process: {statistics.median(loads):.1f} ({min(loads):.1f} .. {max(loads):.1f})")
    if not arguments.no_file:
        result = {
            "benchmark": "peers",
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "machine": where,
            "loads": loads,
            "versions": versions(),
            "figures": {
                name: {system: figure.to_dict() for system, figure in figures.items()}
                for name, figures in found.items()
                if figures
            },
        }
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "peers.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
