"""Write constraints.txt from the installed environment (`make freeze`).

Local version labels (`torch==2.13.0+cpu`) are cut: which build of torch is taken is the index's choice.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

HEADER = """\
# Exact versions of everything `make demo`, `make test` and `make check` install.
#
# Refresh: change the ranges in pyproject.toml or install newer versions into .venv
# (`.venv/bin/pip install -U NAME`), run `make test check`, then `make freeze`, and
# commit this file together with the reason. torch is pinned to one release on
# purpose: an open range may pull gigabytes of CUDA. grpcio-tools is pinned in
# pyproject.toml as well, because the committed generated code is its output.
"""
ROOT = pathlib.Path(__file__).resolve().parent.parent
# Installers are not dependencies; the project itself is not pinned.
SKIPPED = {"pip", "setuptools", "wheel", "runner"}


def main() -> int:
    """Rewrite constraints.txt; print how many versions it pins."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "freeze", "--exclude-editable"], check=True, capture_output=True, text=True
    )
    pins = []
    for line in done.stdout.splitlines():
        found = re.fullmatch(r"([A-Za-z0-9._-]+)==([^+\s]+)(\+\S+)?", line.strip())
        if found and found[1].lower() not in SKIPPED:
            pins.append(f"{found[1]}=={found[2]}")
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(sorted(pins, key=str.lower)) + "\n", encoding="utf-8")
    print(f"constraints.txt: {len(pins)} versions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
