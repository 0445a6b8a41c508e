"""Which machines the options of `runner up` mean."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.core import ParameterSource

from runner.cli.fleet_options import POOL_OPTIONS, chosen_pools, fleet_options, parse_pool, parse_provider_options
from runner.errors import BadOptionsError
from runner.pools import Pool


def pools_of(*args: str, kept: tuple[Pool, ...] = ()) -> list[Pool]:
    """What the command line means, over what an earlier start has kept."""
    found: list[Pool] = []

    @click.command()
    @fleet_options
    @click.pass_context
    def command(context: click.Context, /, **options: Any) -> None:
        said = {name for name in options if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
        assert set(options) == set(POOL_OPTIONS)
        found.extend(chosen_pools(options, said, [pool.to_dict() for pool in kept]))

    command.main(args, standalone_mode=False)
    return found


@pytest.mark.parametrize(
    ("args", "pool"),
    [
        ("", Pool(min=1, max=1, num_gpus=0)),
        ("--machines 4 --cpus 2 --gpus 1", Pool(min=4, max=4, num_cpus=2.0, num_gpus=1)),
        ("--machines 0", Pool(min=0, max=0, num_gpus=0)),
        ("--max 8", Pool(min=0, max=8, num_gpus=0)),
        ("--min 2 --max 8", Pool(min=2, max=8, num_gpus=0)),
        ("--machines 4 --max 8", Pool(min=4, start=4, max=8, num_gpus=0)),
        ("--machines 4 --min 1 --max 8", Pool(min=1, start=4, max=8, num_gpus=0)),
        ("--min 3", Pool(min=3, max=3, num_gpus=0)),
        (
            "--max 8 --buffer 2 --idle-shutdown-s 5 --single-use --memory 2GiB --size large",
            Pool(max=8, buffer=2, idle_shutdown_s=5.0, single_use=True, memory="2GiB", size="large", num_gpus=0),
        ),
        ("--idle suspend --max-suspended-s 60", Pool(min=1, max=1, idle="suspend", max_suspended_s=60.0, num_gpus=0)),
    ],
)
def test_flat_options_are_one_pool(args: str, pool: Pool) -> None:
    assert pools_of(*args.split()) == [pool]


def test_several_pools_are_said_one_by_one() -> None:
    assert pools_of("--pool", "name=cpu,min=1,cpus=2", "--pool", "name=gpu,max=8,gpus=1,memory=16GiB") == [
        Pool("cpu", min=1, num_cpus=2.0),
        Pool("gpu", max=8, num_gpus=1, memory="16GiB"),
    ]


def test_what_an_earlier_start_said_stands_where_nothing_else_is_said() -> None:
    kept = Pool(min=2, max=2, start=2, num_cpus=3.0, num_gpus=0, buffer=1)
    assert pools_of(kept=(kept,)) == [kept]
    (other,) = pools_of("--machines", "4", kept=(kept,))
    assert (other.min, other.most, other.num_cpus, other.buffer) == (4, 4, 3.0, 1)
    (other,) = pools_of("--cpus", "1", kept=(kept,))
    assert (other.min, other.most, other.num_cpus, other.buffer) == (2, 2, 1.0, 1)
    two = (Pool("a"), Pool("b"))
    assert pools_of(kept=two) == list(two)
    assert pools_of("--pool", "name=c", kept=two) == [Pool("c")]


@pytest.mark.parametrize(
    ("args", "kept", "says"),
    [
        (["--pool", "name=a", "--machines", "2", "--min", "1"], (), "say --machines, --min in it"),
        (["--pool", "name=a", "--pool", "name=a"], (), "more than one pool is named a"),
        (["--cpus", "2"], (Pool("a"), Pool("b")), "has the pools a, b: --cpus could mean each"),
        (["--min", "3", "--max", "2"], (), "min <= start <= max"),
    ],
)
def test_options_that_contradict_each_other_are_refused(args: list[str], kept: tuple[Pool, ...], says: str) -> None:
    with pytest.raises(BadOptionsError, match=says):
        pools_of(*args, kept=kept)


def test_a_pool_as_text() -> None:
    text = "name=gpu, min=0,max=8,start=2,buffer=1,idle-shutdown-s=2.5,single-use=yes,cpus=0.5,gpus=1,size=l,resources.disk=2"
    assert parse_pool(text) == Pool(
        "gpu", 0, 8, 2, 1, 2.5, single_use=True, num_cpus=0.5, num_gpus=1, size="l", resources={"disk": 2.0}
    )
    assert parse_pool("max=3") == Pool(max=3)
    assert parse_pool("idle=suspend,max-suspended-s=3600") == Pool(idle="suspend", max_suspended_s=3600)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gpu", "'gpu' is not NAME=VALUE"),
        ("max=", "'max=' is not NAME=VALUE"),
        ("maximum=3", "'maximum' is unknown; known are accelerator_type, buffer, .*resources.NAME"),
        ("max=many", "'max=many' is no number"),
        ("max=1.5", "max is 1.5"),
        ("single_use=maybe", "'single_use=maybe' is neither true nor false"),
        ("memory=much", "memory"),
        ("idle=sleep", "idle is 'sleep'"),
        ("idle=suspend,single_use=yes", "contradict each other"),
    ],
)
def test_a_pool_that_cannot_be_read_says_why(text: str, says: str) -> None:
    with pytest.raises(BadOptionsError, match=says):
        parse_pool(text)


def test_options_of_a_provider() -> None:
    texts = ["app=mine", "count=3", 'tags={"a": 1}', "url=http://x/?a=b", "on=true"]
    assert parse_provider_options(texts) == {
        "app": "mine",
        "count": 3,
        "tags": {"a": 1},
        "url": "http://x/?a=b",
        "on": True,
    }
    with pytest.raises(BadOptionsError, match="app is there twice"):
        parse_provider_options(["app=1", "app=2"])
    with pytest.raises(BadOptionsError) as caught:
        parse_provider_options(["FlyV1-secret"])
    assert "secret" not in str(caught.value)
