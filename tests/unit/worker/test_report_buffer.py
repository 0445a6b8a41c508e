from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.worker.agent.report_buffer import FRAME_BYTES_MAX, FRAME_ITEMS_MAX, Entry, ReportBuffer

OPERATIONS = st.one_of(
    st.tuples(st.just("add"), st.integers(0, FRAME_BYTES_MAX)),
    st.tuples(st.just("send"), st.booleans()),  # does the frame arrive?
    st.tuples(st.just("ack"), st.integers(0, 40)),
    st.tuples(st.just("withdraw"), st.integers(0, 40)),
    st.tuples(st.just("reconnect"), st.just(0)),
)


def test_what_is_added_after_the_seal_waits_for_the_next_generation_and_comes_behind_what_was_not_acknowledged() -> (
    None
):
    buffer: ReportBuffer[str] = ReportBuffer()
    for item in ("a", "b", "prepared"):
        buffer.add(item, 1)
    buffer.seal()
    buffer.add("late", 1)
    buffer.add("later", 1)
    assert buffer.take() == (1, ["a", "b", "prepared"])
    assert not buffer.has_work
    buffer.acknowledge(1)
    assert buffer.has_owed
    buffer.begin_generation()
    assert buffer.take() == (1, ["b", "late", "later"]), "the last word of a generation is none of the next"
    buffer.acknowledge(3)
    assert (buffer.size_bytes, len(buffer), buffer.has_owed) == (0, 0, False)


def test_what_was_taken_in_without_a_word_is_not_sent_again() -> None:
    buffer: ReportBuffer[str] = ReportBuffer()
    for item in ("a", "prepared"):
        buffer.add(item, 1)
    buffer.seal()
    buffer.add("late", 1)
    buffer.take()
    buffer.settle()
    assert not buffer.has_owed
    buffer.begin_generation()
    assert buffer.take() == (1, ["late"])
    assert buffer.size_bytes == 1


def test_what_was_added_after_the_seal_can_be_withdrawn() -> None:
    buffer: ReportBuffer[str] = ReportBuffer()
    buffer.add("prepared", 1)
    buffer.seal()
    assert buffer.withdraw(buffer.add("late", 1))
    buffer.take()
    buffer.acknowledge(1)
    assert not buffer.has_owed
    buffer.begin_generation()
    assert buffer.take() == (1, [])


@given(st.lists(OPERATIONS, max_size=60))
def test_every_item_arrives_once_and_in_order(operations: list[tuple[str, int]]) -> None:
    """A receiver that takes frames in order, drops what it has, and refuses gaps, gets what was added and not withdrawn."""
    buffer: ReportBuffer[int] = ReportBuffer()
    entries: list[Entry[int]] = []
    withdrawn: set[int] = set()
    received: list[int] = []
    broken = False  # after a lost frame a stream carries nothing more

    def send(arrives: bool) -> None:
        nonlocal broken
        first, items = buffer.take()
        if not arrives:
            broken = True
        if items and not broken:
            assert first <= len(received) + 1, "gap"
            received.extend(items[len(received) + 1 - first :])

    for operation, number in operations:
        if operation == "add":
            entries.append(buffer.add(len(entries), number))
        elif operation == "send":
            send(bool(number))
        elif operation == "ack":
            buffer.acknowledge(min(number, len(received)))
        elif operation == "withdraw" and number < len(entries):
            if buffer.withdraw(entries[number]):
                withdrawn.add(number)
        elif operation == "reconnect":
            buffer.reconnected()
            broken = False
    buffer.reconnected()
    broken = False
    while buffer.has_work:
        send(arrives=True)
    assert received == [number for number in range(len(entries)) if number not in withdrawn]
    buffer.acknowledge(len(received))
    assert len(buffer) == 0
    assert buffer.size_bytes == 0


def test_frames_are_capped() -> None:
    buffer: ReportBuffer[int] = ReportBuffer()
    for number in range(2 * FRAME_ITEMS_MAX):
        buffer.add(number, 10)
    assert len(buffer.take()[1]) == FRAME_ITEMS_MAX
    for number in range(3):
        buffer.add(number, FRAME_BYTES_MAX)
    assert len(buffer.take()[1]) == FRAME_ITEMS_MAX
    assert [len(buffer.take()[1]) for _ in range(4)] == [1, 1, 1, 0]


def test_an_acknowledgement_after_a_reconnect_may_cover_what_was_not_sent_again() -> None:
    buffer: ReportBuffer[str] = ReportBuffer()
    for word in ("a", "b", "c"):
        buffer.add(word, 1)
    assert buffer.take() == (1, ["a", "b", "c"])
    buffer.reconnected()
    buffer.acknowledge(2)
    assert buffer.take() == (3, ["c"])


def test_what_was_sent_cannot_be_withdrawn() -> None:
    buffer: ReportBuffer[str] = ReportBuffer()
    first, second = buffer.add("a", 1), buffer.add("b", 1)
    assert buffer.withdraw(first)
    assert not buffer.withdraw(first)
    assert buffer.take() == (1, ["b"])
    assert not buffer.withdraw(second)
