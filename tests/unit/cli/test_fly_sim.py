"""Options of `runner fly-sim`, without starting it."""

from __future__ import annotations

import pytest

from runner.cli import fly_sim
from runner.flysim.settings import Delay, Region


@pytest.fixture
def started(monkeypatch):
    """What the command would have served."""
    seen = []

    def serve(settings, place):
        seen.append((settings, place))
        return 0

    monkeypatch.setattr("runner.flysim.serve.serve", serve)
    return seen


def test_options_become_settings(run, started):
    result = run(
        "fly-sim", "--port", "0", "--seed", "4", "--capacity", "iad=40", "--capacity", "fra=2", "--no-rate-limit",
        "--create-delay", "2~0.5", "--fault", "error-rate=0.1", "--fault", "retry_after=yes", "--image", "mine*",
        "--fault", "start_delay=0", "--fault", "capacity_face=mixed", "--settings", '{"org": "acme", "seed": 1}',
    )  # fmt: skip

    assert result.exit_code == 0, result.stderr
    [(settings, place)] = started
    assert settings.regions == (Region("iad", 40), Region("fra", 2))
    assert (settings.seed, settings.org, settings.rate_limit, settings.retry_after) == (4, "acme", False, True)
    assert (settings.create_delay, settings.start_delay) == (Delay(2.0, 0.5), Delay(0.0))
    assert (settings.error_rate, settings.capacity_face, settings.images) == (0.1, "mixed", ("mine*",))
    assert (place.host, place.port) == ("127.0.0.1", 0)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--capacity", "iad"], 2, "--capacity is 'iad'; expected REGION=N"),
        (["--capacity", "iad=0"], 2, "--capacity is 'iad=0'; expected REGION=N"),
        (["--create-delay", "soon"], 2, "'soon' is no delay"),
        (["--fault", "bogus=1"], 1, "the simulator has no setting bogus"),
        (["--fault", "error_rate=often"], 1, "error_rate=often: expected a number"),
        (["--settings", "{"], 1, "--settings is no JSON map"),
    ],
)
def test_bad_options_are_named(run, started, arguments, code, words):
    result = run("fly-sim", *arguments)

    assert (result.exit_code, started) == (code, [])
    assert words in result.stderr


def test_a_package_that_is_not_installed_is_named(run, monkeypatch):
    def missing(settings, place):
        raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")

    monkeypatch.setattr("runner.flysim.serve.serve", missing)
    result = run("fly-sim")

    assert result.exit_code == 1
    assert "fly-sim needs the package 'uvicorn'; install it with: pip install 'runner[fly-sim]'" in result.stderr
    assert fly_sim.command.name == "fly-sim"
