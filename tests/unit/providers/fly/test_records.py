"""What others may write into a machine's tags, and options that contradict each other."""

from __future__ import annotations

import pytest

from runner.config import load
from runner.errors import BadOptionsError
from runner.providers.fly.model import Machine
from runner.providers.fly.options import parse_options
from runner.providers.fly.records import to_record

NOBODY = load({})
NEEDED = {"app": "a", "image": "registry.fly.io/a:b", "token": "fm2_x"}


@pytest.mark.parametrize(("tag", "name"), [("m-1", "m-1"), ("../../etc/passwd", "odd_name_"), ("", "odd_name_")])
def test_a_tag_that_is_no_name_is_not_taken_for_one(tag: str, name: str) -> None:
    data = {"id": "148ed193", "name": "odd/name ", "state": "started", "config": {"metadata": {"runner_machine": tag}}}
    assert to_record(Machine(data)).name == name


def test_a_volume_has_one_region_at_a_time() -> None:
    volume = {"name": "cache", "path": "/cache", "size_gb": 1}
    assert parse_options({**NEEDED, "volume": volume, "regions": ["iad", "us"]}, NOBODY).volume is not None
    with pytest.raises(BadOptionsError, match="'iad,us' names several"):
        parse_options({**NEEDED, "volume": volume, "regions": ["iad,us"]}, NOBODY)


def test_where_machines_are_can_be_said() -> None:
    proxy = {**NEEDED, "base_url": "http://127.0.0.1:4280"}
    assert not parse_options(proxy, NOBODY).is_real
    assert parse_options({**proxy, "simulator": False}, NOBODY).is_real
    assert not parse_options({**NEEDED, "simulator": True}, NOBODY).is_real
    with pytest.raises(BadOptionsError, match="simulator is 'no'"):
        parse_options({**NEEDED, "simulator": "no"}, NOBODY)
