"""`python -m runner.coordinator`: the coordinator process."""

from __future__ import annotations

import sys

from runner.coordinator.main import main

if __name__ == "__main__":
    sys.exit(main())
