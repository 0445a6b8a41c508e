"""The command as a whole: help, exit codes, where output goes, how errors look."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from runner.cli.main import COMMANDS, Failure
from runner.rpc.version import PROTOCOL, VERSION, python_version

HELP = """\
Usage: runner [OPTIONS] COMMAND [ARGS]...

  Run Python functions on machines that boot for the purpose.

  Commands that talk to a cluster take the one of this host, or the one that
  --address or RUNNER_ADDRESS names (with RUNNER_TOKEN and RUNNER_CA).

Options:
  -h, --help  Show this message and exit.

Commands:
  up        Start a standing cluster on this host.
  down      Stop a standing cluster and its machines.
  status    What a cluster has, does, and waits for.
  machines  List a cluster's machines.
  runs      List runs, or show one: metrics, attempts, outcome.
  logs      Print what a run wrote.
  fly-sim   Simulate Fly Machines on this computer, with real agents.
  image     Build or check the image that machines boot from.
  worker    Be a machine: the entry point of the worker image.
  version   Print versions.
"""


def test_help(run):
    result = run("--help")
    assert result.exit_code == 0
    assert result.stdout == HELP


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists_and_explains_itself(run, name):
    result = run(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: runner {name} ")


def test_help_and_plain_import_load_nothing_heavy():
    code = (
        "import sys; from runner.cli.main import cli; cli.main(['--help'], standalone_mode=False)\n"
        "heavy = {'grpc', 'google.protobuf', 'cryptography', 'rich', 'sqlite3', 'msgpack', 'torch', 'asyncio'}\n"
        "sys.exit(','.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_wrong_usage_ends_with_2(run):
    for args in (["nope"], ["status", "--nope"], ["up", "--port", "99999"], ["up", "--machines", "-1"], ["logs"]):
        result = run(*args)
        assert result.exit_code == 2, args
        assert result.stdout == ""
        assert "Error: " in result.stderr
    result = run("status", "--address", "nowhere")
    assert result.exit_code == 2
    assert "--address is 'nowhere'; expected host:port" in result.stderr


def test_version(run):
    assert run("version").stdout == f"runner {VERSION} (protocol {PROTOCOL}, Python {python_version()})\n"
    assert json.loads(run("version", "--json").stdout) == {
        "runner": VERSION,
        "protocol": PROTOCOL,
        "python": python_version(),
    }


@pytest.mark.parametrize("command", ["status", "machines"])
def test_no_cluster_is_one_clear_line_and_1(run, home, command):
    result = run(command)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"error: no standing cluster runs on this host (looked in {home}/clusters); "
        "start one with `runner up`, or name one with RUNNER_ADDRESS\n"
    )


def test_an_unknown_address_says_what_is_missing(run, home):
    result = run("status", "--address", "10.0.0.1:7420")
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: no cluster of this host under {home} serves at 10.0.0.1:7420, so it takes "
        "RUNNER_TOKEN_FILE and RUNNER_CA in the environment; `runner up` printed them where the cluster was started\n"
    )


def test_a_bad_environment_is_one_clear_line(run, monkeypatch):
    monkeypatch.setenv("RUNNER_LOG_LEVEL", "loud")
    result = run("runs")
    assert result.exit_code == 1
    assert result.stderr == "error: RUNNER_LOG_LEVEL is 'loud'; expected one of debug, info, warning, error\n"


def test_down_without_a_cluster_is_fine(run, home):
    result = run("down")
    assert result.exit_code == 0
    assert result.stderr == f"no standing cluster runs on this host (looked in {home}/clusters)\n"


def test_up_of_an_unknown_cluster_is_wrong_usage(run):
    result = run("up", "--cluster", "c-9")
    assert result.exit_code == 2
    assert "there is no cluster c-9" in result.stderr


def test_failures_are_plain():
    assert Failure("x").exit_code == 1
