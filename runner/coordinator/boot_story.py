"""Why a machine did not come up, in one text: how far it came, what the provider says, what it wrote last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runner.errors import ProviderError

LINES_MAX = 50
_LINE_CHARS_MAX = 300


def boot_story(phases: Mapping[str, float], saw: str, event: str, lines: Sequence[str]) -> str:
    """`saw` is what ended the wait, `event` the provider's newest one, `lines` what is known of the machine's log.

    `phases` are seconds since the machine was requested.
    """
    in_order = sorted(phases.items(), key=lambda item: item[1])  # of equal ones the last that was noted
    reached, reached_s = in_order[-1] if in_order else ("", 0.0)
    told = [line for line in lines if line.strip()][-LINES_MAX:]
    for line in told:
        saw = saw.replace(f"; {line}", "")  # some providers have put them there already
    parts = [saw]
    if reached:
        parts.append(f"it came as far as {reached.replace('_', ' ')!r} after {reached_s:.1f} s")
    if event:
        parts.append(f"the provider says: {event}")
    return "\n".join(["; ".join(parts), *map(_shown, told)])


def error_story(error: ProviderError) -> str:
    """What a provider's error says, with the machine's last lines."""
    text = str(error.args[0]) if error.args else type(error).__name__
    return "\n".join([text, *map(_shown, error.log_lines[-LINES_MAX:])])


def _shown(line: str) -> str:
    return f"  {line}" if len(line) <= _LINE_CHARS_MAX else f"  {line[:_LINE_CHARS_MAX]}…"


def since_requested(phases: dict[str, float]) -> dict[str, float]:
    """Unix times as seconds since "requested"."""
    start_s = phases.get("requested")
    if start_s is None:
        return {}
    return {name: max(0.0, time_s - start_s) for name, time_s in phases.items()}
