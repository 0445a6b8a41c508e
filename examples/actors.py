"""Actors: state that outlives a call, a name, a stream, and what a crash does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import runner
from runner.errors import ActorUnavailableError
from runner.util import ActorPool


class Tally:
    """Counts words for everybody."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def add(self, text: str) -> int:
        """Returns how many different words there are."""
        for word in text.split():
            self.counts[word] = self.counts.get(word, 0) + 1
        return len(self.counts)

    def most_common(self, count: int) -> Iterator[tuple[str, int]]:
        """The words that come most often, one by one."""
        yield from sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:count]

    def crash(self) -> None:
        """What a bug in C code would do."""
        os._exit(1)


@runner.remote
def read(lines: list[str]) -> None:
    """A task that looks the actor up by its name."""
    tally = runner.get_actor("tally")
    runner.get([tally.add.remote(line) for line in lines])


def main() -> None:
    tally_class = runner.remote(Tally)
    tally: Any = tally_class.options(name="tally", max_restarts=1).remote()
    runner.get([read.remote(["to be or not", "to be"]), read.remote(["that is to say"])])
    for ref in tally.most_common.remote(2):
        word, count = runner.get(ref)
        print(f"{word}: {count}")

    pool = ActorPool([tally_class.remote() for _ in range(2)])
    print("different words:", list(pool.map(lambda actor, text: actor.add.remote(text), ["a b", "c d e"])))

    try:
        runner.get(tally.crash.remote())
    except ActorUnavailableError:
        print("after the crash:", runner.get(tally.add.remote("anew")), "word")


if __name__ == "__main__":
    with runner.init(num_cpus=2):
        main()
