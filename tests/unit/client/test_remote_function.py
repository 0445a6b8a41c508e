from __future__ import annotations

from typing import Any

import pytest

import runner
from runner.client import context
from runner.errors import BadOptionsError, DirectCallError, NotInitializedError, UsageError
from runner.objects.serialization import deserialize, serialize
from tests.unit.client.memory import MemoryTransport, open_session


def test_the_decorator_with_and_without_options() -> None:
    @runner.remote
    def plain(x: int) -> int:
        """Doc."""
        return x

    @runner.remote(num_cpus=2, name="n")
    def with_options(x: int) -> int:
        return x

    assert plain.__name__ == "plain"  # type: ignore[attr-defined]
    assert plain.__doc__ == "Doc."
    assert plain.__wrapped__(3) == 3  # type: ignore[attr-defined]
    assert with_options.task_name == "n"
    assert plain.task_name == "plain"
    assert "with_options" in repr(with_options)


def test_a_coroutine_function_is_refused_where_it_is_decorated() -> None:
    async def train() -> None: ...

    with pytest.raises(ValueError, match=r"train is an 'async def'.*asyncio\.run\(\)"):
        runner.remote(train)


def test_a_direct_call_says_remote() -> None:
    @runner.remote
    def train(x: int) -> int:
        return x

    with pytest.raises(DirectCallError, match=r"train\.remote\(\.\.\.\)"):
        train(1)
    with pytest.raises(TypeError):
        train()


def test_wrong_uses_of_the_decorator() -> None:
    with pytest.raises(BadOptionsError, match="takes a function or a class, not a int"):
        runner.remote(5)  # type: ignore[call-overload]
    with pytest.raises(BadOptionsError, match="remote already"):
        runner.remote(runner.remote(print))
    with pytest.raises(BadOptionsError, match="Did you mean 'max_retries'"):
        runner.remote(max_retrys=1)  # type: ignore[call-overload]


def test_without_a_session() -> None:
    context.set_session(None)
    with pytest.raises(NotInitializedError, match=r"runner.init\(\)"):
        runner.remote(print).remote()
    for call in (lambda: runner.get([]), runner.nodes, lambda: runner.put(1), runner.get_runtime_context):
        with pytest.raises(NotInitializedError):
            call()
    assert not runner.is_initialized()
    runner.shutdown()


def test_outside_a_task_report_says_where_it_works() -> None:
    with pytest.raises(UsageError, match="inside a remote function"):
        runner.report({"a": 1})
    with pytest.raises(UsageError, match="inside a remote function"):
        runner.get_checkpoint()


def test_options_do_not_change_the_original(transport: MemoryTransport) -> None:
    @runner.remote
    def train() -> None: ...

    other = train.options(num_cpus=3)
    refs = [train.remote(), other.remote()]
    assert [spec.resources.amounts["CPU"] for spec in transport.submits()] == [10_000, 30_000]
    assert len(refs) == 2


def test_detached_needs_a_standing_cluster(transport: MemoryTransport) -> None:
    function = runner.remote(lifetime="detached", name="n")(lambda: 1)
    with pytest.raises(BadOptionsError, match="runner up"):
        function.remote()
    _, standing = open_session("", embedded=False)
    assert function.remote() is not None
    assert standing.submits()[0].detached


def test_a_remote_function_inside_another_is_remote_there(transport: MemoryTransport) -> None:
    inner = runner.remote(num_cpus=2)(lambda: 5)
    back: Any = deserialize(serialize({"f": inner}).to_bytes())["f"]
    assert back.__wrapped__() == 5
    assert back.remote() is not None
    assert transport.submits()[0].resources.amounts["CPU"] == 20_000


def test_one_function_serves_sessions_one_after_the_other(transport: MemoryTransport) -> None:
    function = runner.remote(lambda: 1)
    assert function.remote() is not None
    second_session, second = open_session("")
    assert function.remote() is not None
    assert second.kinds()[0] == "register_function"
    second_session.close(0)


def test_the_public_functions_reach_the_session(transport: MemoryTransport) -> None:
    ref = runner.put({"a": 1})
    assert runner.get(ref) == {"a": 1}
    assert runner.get([ref, ref]) == [{"a": 1}] * 2
    assert runner.wait([ref]) == ([ref], [])
    task = runner.remote(lambda: 1).remote()
    runner.cancel(task)
    assert transport.kinds()[-1] == "cancel"
    assert runner.is_initialized()
    here = runner.get_runtime_context()
    assert (here.cluster_id, here.get_task_id(), here.get_accelerator_ids()) == ("k-1", None, {"GPU": []})
    assert not here.is_canceled()
