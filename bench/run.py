"""`make bench`: every benchmark in a process of its own, one after the other."""

from __future__ import annotations

import argparse
import subprocess
import sys

from bench.harness import ROOT

NAMES = ("startup", "machines", "fly_sim", "tasks", "stream", "generators", "executor", "overhead", "template", "core")


def main() -> int:
    """Run those named (default: all); exit 1 when one failed or, with --strict, missed a target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], default=list(NAMES))
    arguments, rest = parser.parse_known_args()
    failed = []
    for name in arguments.names:
        print(f"== {name}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"bench.bench_{name}", *rest], cwd=ROOT, check=False)
        if done.returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
