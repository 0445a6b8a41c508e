"""What machines run, and what settings and options say."""

from __future__ import annotations

import base64
import sys
from random import Random
from typing import Any

import msgpack
import pytest

from runner.errors import BadOptionsError
from runner.flysim.programs import AgentProgram, BrokenProgram, CommandProgram, process_for
from runner.flysim.settings import Delay, Dice, Region, SimSettings
from runner.ids import ClusterId, MachineId
from runner.providers.base import BootConfig

BOOT = BootConfig(
    coordinator_address="127.0.0.1:1",
    ca_pem=b"ca",
    join_token="t",
    machine_id=MachineId("m-1"),
    cluster_id=ClusterId("c"),
)
PACKED = base64.b64encode(msgpack.packb(BOOT.to_dict())).decode()
COORDINATOR = CommandProgram((sys.executable, "-m", "runner.coordinator"))


@pytest.mark.parametrize(
    ("config", "program"),
    [
        ({}, None),
        ({"env": {"RUNNER_BOOT": PACKED}}, AgentProgram(BOOT)),
        (
            {"env": {"RUNNER_BOOT_FILE": "/boot"}, "files": [{"guest_path": "/boot", "raw_value": PACKED}]},
            AgentProgram(BOOT),
        ),
        (
            {"env": {"RUNNER_BOOT_FILE": "/boot"}, "files": [{"guest_path": "/boot", "secret_name": "BOOT"}]},
            AgentProgram(BOOT),
        ),
        ({"env": {"RUNNER_COORDINATOR": "x"}}, COORDINATOR),
        ({"init": {"exec": ["/bin/sh", "-c", "rm -rf ~"]}}, None),
    ],
)
def test_the_configuration_says_what_runs(config: dict[str, Any], program: object) -> None:
    assert process_for(config, {"BOOT": PACKED}) == program


@pytest.mark.parametrize(
    "config",
    [
        {"env": {"RUNNER_BOOT": "?"}},
        {"env": {"RUNNER_BOOT": base64.b64encode(b"junk").decode()}},
        {"env": {"RUNNER_BOOT_FILE": "/boot"}},
        {"env": {"RUNNER_BOOT_FILE": "/boot"}, "files": [{"guest_path": "/boot", "secret_name": "NONE"}]},
    ],
)
def test_what_cannot_be_read_ends_with_2_and_is_not_shown(config: dict[str, Any]) -> None:
    program = process_for(config, {})

    assert isinstance(program, BrokenProgram)
    assert (program.exit_code, "not shown" in program.text) == (2, True)


def test_delays_are_drawn_around_their_median() -> None:
    draws = sorted(Delay(2.0, 0.5).draw(numbers) for numbers in [Random(1)] for _ in range(999))

    assert draws[499] == pytest.approx(2.0, rel=0.1)
    assert (draws[0] < 1.0, draws[-1] > 4.0) == (True, True)
    assert Delay.parse("0.3~0.5") == Delay(0.3, 0.5)
    assert Delay.parse("7") == Delay(7.0)


@pytest.mark.parametrize("text", ["", "x", "-1", "1~-2", "nan", "inf"])
def test_what_is_no_delay(text: str) -> None:
    with pytest.raises(BadOptionsError, match="is no delay; expected seconds, or median~spread"):
        Delay.parse(text)


def test_each_purpose_has_numbers_of_its_own() -> None:
    def draws(disturbed: bool) -> list[float]:
        dice = Dice(5)
        found = []
        for _ in range(5):
            if disturbed:
                dice.stream("other").random()
            found.append(dice.stream("one").random())
        return found

    assert draws(disturbed=False) == draws(disturbed=True)


def test_settings_survive_a_round_trip() -> None:
    settings = SimSettings(seed=3, regions=(Region("iad", 4),), start_delay=Delay(1.0, 0.1), error_rate=0.25)

    assert SimSettings.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sede": 1}, "the simulator has no setting sede"),
        ({"error_rate": 1.5}, "error_rate of the simulator is 1.5; expected 0 to 1"),
        ({"capacity_face": "500"}, "capacity_face of the simulator is '500'; expected one of: 412, 409, 403, mixed"),
    ],
)
def test_bad_settings_are_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(BadOptionsError, match=words):
        SimSettings.from_dict(values)
