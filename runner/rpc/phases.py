"""Names of phases in agents' reports that mean more than a time."""

from __future__ import annotations

# The machine was told to end: it takes nothing more, and what runs on it comes back.
DRAINING = "draining"
