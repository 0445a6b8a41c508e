"""A coordinator of another process, to connect to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CODE = """
import json, sys, runner
from runner.client import connection, embedded
start = embedded.start
embedded.start = lambda config, *rest: start({**config, **json.loads(sys.argv[1])}, *rest)
runner.init(log_to_driver=False)
ready = connection._opened.coordinator.ready
print(ready.address, ready.token, ready.state_dir, flush=True)
sys.stdin.read()
"""


@contextmanager
def serving(home: Path, **settings: Any) -> Iterator[tuple[str, str, Path]]:
    """Its address, token and CA file. `settings` are the coordinator's."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CODE, json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "RUNNER_HOME": str(home)},
    )
    assert process.stdout is not None
    try:
        address, token, state_dir = process.stdout.readline().split()
        yield address, token, Path(state_dir) / "ca.pem"
    finally:
        process.communicate("")
