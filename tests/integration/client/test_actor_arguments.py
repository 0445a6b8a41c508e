"""What goes into actors' calls: values, refs, what is not there yet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import runner
from runner.errors import TaskCancelledError
from tests.integration.client.plain_actor import Plain

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("cluster")]


@pytest.fixture(scope="module")
def actor_class(cluster: Any) -> Any:
    return runner.remote(Plain)


@pytest.fixture(scope="module")
def shared(actor_class: Any) -> Any:
    return actor_class.remote()


def get(ref: Any) -> Any:
    return runner.get(ref, timeout=30)


def test_refs_among_the_arguments(shared: Any) -> None:
    @runner.remote
    def double(x: Any) -> Any:
        return 2 * x

    task = double.remote(2)
    assert get(shared.echo.remote(task)) == 4
    assert get(shared.echo.remote(value=shared.add.remote(0))) >= 0
    assert get(shared.echo.remote(double.remote(np.arange(50_000))))[-1] == 99_998
    inner = get(shared.echo.remote([task, runner.put("put")]))
    assert get(inner) == [4, "put"]
    call = shared.echo.remote("of a call")
    assert get(double.remote(call)) == "of a call" * 2
    assert get(get(shared.echo.remote([call]))[0]) == "of a call"
    failed = shared.fail.remote()
    with pytest.raises(KeyError):
        get(shared.echo.remote(failed))
    with pytest.raises(KeyError):
        get(double.remote(failed))


def test_a_result_is_passed_on_before_it_is_there(actor_class: Any) -> None:
    @runner.remote
    def upper(text: str) -> str:
        return text.upper()

    slow = actor_class.options(max_concurrency=2).remote()
    ref = slow.wait_for_go.remote()
    result = upper.remote(ref)
    nested = actor_class.remote()
    get(nested.keep.remote([ref]))
    get(slow.set_go.remote())
    assert get(result) == "WENT"
    assert get(nested.echo.remote(ref)) == "went"


def test_an_argument_that_needs_the_actor_itself_is_waited_for_by_the_caller(actor_class: Any) -> None:
    """The actor must go on with other calls meanwhile, or nothing ever ends."""

    @runner.remote
    def echo_of(actor: Any) -> str:
        text: str = runner.get(actor.echo.remote("from a task"))
        return text

    actor = actor_class.remote()
    first = actor.echo.remote(echo_of.remote(actor))
    second = actor.echo.remote("after it")
    assert get([first, second]) == ["from a task", "after it"]


@pytest.mark.parametrize("options", [{"max_concurrency": 2}, {"concurrency_groups": {"more": 1}}])
def test_where_calls_run_beside_each_other_none_waits_for_the_arguments_of_another(
    actor_class: Any, options: dict[str, Any]
) -> None:
    gate = actor_class.options(max_concurrency=2).remote()
    actor = actor_class.options(**options).remote()
    late = actor.echo.remote(gate.wait_for_go.remote())
    assert get(actor.echo.remote("at once")) == "at once"
    get(gate.set_go.remote())
    assert get(late) == "went"


def test_a_call_that_waits_for_an_argument_can_be_cancelled(actor_class: Any) -> None:
    gate, actor = actor_class.options(max_concurrency=2).remote(), actor_class.remote()
    went = gate.wait_for_go.remote()
    late, behind = actor.add.remote(went), actor.add.remote()
    runner.cancel(late)
    with pytest.raises(TaskCancelledError):
        get(late)
    assert get(behind) == 1
    get(gate.set_go.remote())
    assert get(went) == "went"
    assert get(actor.add.remote()) == 2


def test_refs_that_an_actor_keeps_outlive_the_callers(shared: Any) -> None:
    ref = runner.put(np.arange(60_000))
    get(shared.keep.remote([ref]))
    del ref
    assert get(shared.read.remote())[-1] == 59_999
    value = get(shared.echo.remote([runner.put(b"y" * 200_000)]))[0]
    assert len(get(value)) == 200_000
