from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import BadOptionsError
from runner.options import NAMES, TaskOptions, from_units, parse_memory, parse_options, to_units
from runner.placing import fill_wishes
from runner.rpc.gen import types_pb2
from runner.util.scheduling_strategies import In, NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy, NotIn


def test_defaults_are_rays() -> None:
    options = parse_options({})
    assert options == TaskOptions()
    assert options.amounts() == {"CPU": 10_000}
    assert (options.max_retries, options.retry_exceptions, options.num_returns) == (3, False, None)


def test_an_unknown_option_lists_the_valid_ones() -> None:
    with pytest.raises(BadOptionsError) as caught:
        parse_options({"num_gpu": 1})
    assert "Did you mean 'num_gpus'?" in str(caught.value)
    for name in NAMES:
        assert name in str(caught.value)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(BadOptionsError, match=r"'zzz'. Valid options"):
        parse_options({"zzz": 1})


BAD: list[tuple[str, Any]] = [
    ("num_cpus", -1),
    ("num_cpus", "2"),
    ("num_cpus", True),
    ("num_cpus", float("nan")),
    ("num_cpus", 0.00001),
    ("num_gpus", 1.5),
    ("memory", -5),
    ("memory", "2 gigs"),
    ("memory", 1.5),
    ("resources", {"CPU": 1}),
    ("resources", {"memory": 1}),
    ("resources", {"disk": -1}),
    ("resources", [1]),
    ("name", ""),
    ("name", 5),
    ("name", "two\nlines"),
    ("max_retries", -2),
    ("max_retries", 1.0),
    ("retry_exceptions", "ValueError"),
    ("retry_exceptions", [ValueError, 5]),
    ("num_returns", -1),
    ("num_returns", "dynamic"),
    ("generator_backpressure_num_objects", 0),
    ("generator_backpressure_num_objects", -2),
    ("generator_backpressure_num_objects", True),
    ("max_calls", -1),
    ("timeout_s", 0),
    ("timeout_s", float("inf")),
    ("runtime_env", {"pip": ["torch"]}),
    ("runtime_env", {"env_vars": {"A": 1}}),
    ("runtime_env", 5),
    ("name", "half \ud800 a character"),
    ("runtime_env", {"env_vars": {"A": "with \0"}}),
    ("runtime_env", {"env_vars": {"A\0": "x"}}),
    ("runtime_env", {"env_vars": {"A": "\udc80"}}),
    ("runtime_env", {"env_vars": {"A": 1}}),
    ("runtime_env", {"env_vars": {1: "x"}}),
    ("runtime_env", {"env_vars": [("A", "x")]}),
    ("lifetime", "forever"),
    ("startup_timeout_s", 0),
    ("accelerator_type", ""),
    ("accelerator_type", 100),
    ("enable_task_events", 1),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_values_name_the_option(name: str, value: Any) -> None:
    with pytest.raises(BadOptionsError, match=name):
        parse_options({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_cpus", "2"),
        ("num_gpus", [1]),
        ("memory", [1]),
        ("resources", [1]),
        ("name", 5),
        ("max_retries", 1.5),
        ("retry_exceptions", "ValueError"),
        ("num_returns", 1.5),
        ("max_calls", "1"),
        ("timeout_s", "1"),
        ("runtime_env", 5),
        ("accelerator_type", 100),
    ],
)
def test_a_value_of_the_wrong_type_is_a_type_error_as_in_ray(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        parse_options({name: value})


@pytest.mark.parametrize(("name", "value"), [("num_gpus", 1.5), ("max_retries", -2), ("num_cpus", -1), ("memory", -5)])
def test_a_value_out_of_range_is_a_value_error_only(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        parse_options({name: value})
    assert not isinstance(caught.value, TypeError)


def test_max_calls_is_the_functions_and_no_calls() -> None:
    base = parse_options({"max_calls": 3})
    with pytest.raises(ValueError, match=r"cannot be changed by \.options\(\)"):
        parse_options({"max_calls": 1}, base)
    assert parse_options({"num_cpus": 2}, base).max_calls == 3


def test_a_kind_of_gpu_is_a_tiny_resource() -> None:
    assert parse_options({"accelerator_type": "A100", "num_gpus": 1}).amounts() == {
        "CPU": 10_000,
        "GPU": 10_000,
        "accelerator_type:A100": 10,
    }


def test_no_types_of_errors_to_retry_means_none() -> None:
    assert parse_options({"retry_exceptions": []}).retry_exceptions is False


def test_none_is_the_default() -> None:
    assert parse_options(dict.fromkeys(NAMES)) == TaskOptions()
    assert parse_options({"num_cpus": None}, TaskOptions(num_cpus=4)).num_cpus == 1


def test_later_options_go_over_earlier_ones() -> None:
    base = parse_options({"num_cpus": 2, "name": "a"})
    changed = parse_options({"name": "b", "num_gpus": 0.5}, base)
    assert (base.name, base.num_gpus) == ("a", 0)
    assert (changed.name, changed.num_cpus, changed.num_gpus) == ("b", 2, 0.5)


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [("2GiB", 2**31), ("500MB", 500_000_000), ("1.5 KiB", 1536), ("10", 10), (7, 7), (None, None), ("1g", 10**9)],
)
def test_memory(given_value: Any, expected: int | None) -> None:
    assert parse_memory("memory", given_value) == expected


@given(st.floats(min_value=0.0001, max_value=10_000))
def test_units_are_fixed_point(amount: float) -> None:
    units = to_units(amount)
    assert units >= 1
    assert abs(from_units({"CPU": units})["CPU"] - amount) <= 0.00005


def test_amounts_leave_out_zeros() -> None:
    options = parse_options({"num_cpus": 0, "memory": 100, "resources": {"disk": 0.5, "none": 0}})
    assert options.amounts() == {"memory": 100, "disk": 5000}


def test_generators_have_options_of_their_own() -> None:
    assert parse_options({"num_returns": "streaming"}).num_returns == "streaming"
    assert parse_options({}).num_returns is None
    assert parse_options({"generator_backpressure_num_objects": 3}).generator_backpressure_num_objects == 3
    assert parse_options({"_generator_backpressure_num_objects": -1}).generator_backpressure_num_objects == -1
    with pytest.raises(BadOptionsError, match="> 0, or -1"):
        parse_options({"_generator_backpressure_num_objects": 0})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("label_selector", {"disk": "in(a"}),
        ("label_selector", {"disk": "in()x"}),
        ("label_selector", {"": "a"}),
        ("label_selector", {"disk": 1}),
        ("label_selector", "disk"),
        ("scheduling_strategy", "PACK"),
        ("scheduling_strategy", 3),
        ("priority", 2**31),
        ("priority", True),
        ("priority", "high"),
        ("key", ""),
        ("key", 3),
        ("on_oom", "fail"),
    ],
)
def test_places_that_cannot_be(option: str, value: object) -> None:
    with pytest.raises(BadOptionsError, match=option):
        parse_options({option: value})


def test_places_on_the_wire() -> None:
    spec = types_pb2.TaskSpec()
    selector = {"disk": "in(fast, local)", "zone": "!a"}
    fill_wishes(spec, parse_options({"label_selector": selector, "priority": -2, "key": "bert", "on_oom": "grow"}))
    assert dict(spec.label_selector) == selector
    assert (spec.priority, spec.affinity_key, spec.grow_on_oom, spec.bundle) == (-2, "bert", True, -1)
    named = types_pb2.TaskSpec()
    fill_wishes(named, parse_options({"scheduling_strategy": NodeAffinitySchedulingStrategy("m-1", soft=True)}))
    assert (named.machine.machine_id, named.machine.soft) == ("m-1", True)
    spread = types_pb2.TaskSpec()
    fill_wishes(spread, parse_options({"scheduling_strategy": "SPREAD"}))
    assert spread.spread
    labelled = types_pb2.TaskSpec()
    strategy = NodeLabelSchedulingStrategy({"disk": In("fast", "local"), "zone": NotIn("a"), "pool": "gpu"})
    fill_wishes(labelled, parse_options({"scheduling_strategy": strategy}))
    assert dict(labelled.label_selector) == {"disk": "in(fast,local)", "zone": "!in(a)", "pool": "gpu"}
