"""Where the time of a boot goes: how long machines took from each phase to the next. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from runner.rpc.phases import REGISTERED, REQUESTED

READY = "ready"


class PhaseTimes(NamedTuple):
    """How long machines took for one phase: from the phase before it, whichever that was."""

    phase: str
    p50_s: float
    p95_s: float
    max_s: float
    machines: int
    seconds: tuple[float, ...]  # of each of these machines, shortest first

    @classmethod
    def of(cls, phase: str, seconds: Iterable[float]) -> PhaseTimes:
        ordered = tuple(sorted(seconds))
        return cls(phase, percentile(ordered, 0.5), percentile(ordered, 0.95), ordered[-1], len(ordered), ordered)

    def histogram(self, bins: int) -> list[int]:
        """How many machines took how long, in `bins` equal parts of 0 to `max_s`."""
        counts = [0] * bins
        for second in self.seconds:
            share = second / self.max_s if self.max_s > 0 else 0.0
            counts[min(bins - 1, int(share * bins))] += 1
        return counts


@dataclass(frozen=True, slots=True)
class Timings:
    """Phases in the order in which machines come to them."""

    boot: tuple[PhaseTimes, ...]  # from the request to the registration
    ready: PhaseTimes | None  # the whole of it; None: no machine has registered yet
    loading: tuple[PhaseTimes, ...]  # after it, beside work: templates, weights, the first task

    @property
    def all(self) -> list[PhaseTimes]:
        """One list: the boot, its sum, what comes later."""
        return [*self.boot, *([self.ready] if self.ready else []), *self.loading]

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "boot": [_as_map(each) for each in self.boot],
            "ready": None if self.ready is None else _as_map(self.ready),
            "loading": [_as_map(each) for each in self.loading],
        }


def _as_map(each: PhaseTimes) -> dict[str, Any]:
    return {**each._asdict(), "seconds": list(each.seconds)}


def timings(machines: Iterable[Mapping[str, float]]) -> Timings:
    """Of machines' phases in seconds since they were requested.

    A phase that a machine lacks is left out of it: its time counts to the phase that comes next there.
    """
    boot: dict[str, list[float]] = {}
    later: dict[str, list[float]] = {}
    reached: dict[str, list[float]] = {}
    ready = []
    for phases in machines:
        registered_s = phases.get(REGISTERED)
        if registered_s is not None:
            ready.append(registered_s)
        in_order = sorted(phases.items(), key=lambda item: item[1])
        moments = [(REQUESTED, 0.0), *((name, at_s) for name, at_s in in_order if name != REQUESTED)]
        for (_, before_s), (name, at_s) in itertools.pairwise(moments):
            is_boot = registered_s is None or at_s <= registered_s
            (boot if is_boot else later).setdefault(name, []).append(at_s - before_s)
            reached.setdefault(name, []).append(at_s)
    return Timings(_in_order(boot, reached), PhaseTimes.of(READY, ready) if ready else None, _in_order(later, reached))


def _in_order(
    durations: Mapping[str, Sequence[float]], reached: Mapping[str, Sequence[float]]
) -> tuple[PhaseTimes, ...]:
    """By the moment at which half of the machines had come to them."""
    names = sorted(durations, key=lambda name: percentile(reached[name], 0.5))
    return tuple(PhaseTimes.of(name, durations[name]) for name in names)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of `values` lie, between neighbours by straight line."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
