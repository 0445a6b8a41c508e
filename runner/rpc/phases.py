"""Names of boot phases: in which order they come, and which of them mean more than a time.

A machine is requested, created, started (its entry point runs), its agent is up, it registers, its template is ready
(`template_ready+torch`: one that has imported torch), it gets its first task. Between these come phases that a provider
knows ("image pulled") and that user code marks with `runner.mark_phase` ("weights on CPU").
"""

from __future__ import annotations

# The machine was told to end: it takes nothing more, and what runs on it comes back.
DRAINING = "draining"
REQUESTED = "requested"
REGISTERED = "registered"
TEMPLATE_READY = "template_ready"
FIRST_TASK = "first_task"
# Reported by runner itself: user code cannot mark them.
RESERVED = frozenset(
    {REQUESTED, "created", "image pulled", "started", "agent_up", REGISTERED, TEMPLATE_READY, FIRST_TASK, DRAINING}
)
# Of phases that user code marks.
NAME_CHARS_MAX = 64
MARKED_MAX = 32  # on one machine
