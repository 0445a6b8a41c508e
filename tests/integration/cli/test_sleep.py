"""Machines of a standing cluster that sleep and wake by the command line."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.cli.conftest import Run


def states(run: Run) -> list[str]:
    listed = run("machines", "--json")
    assert listed.returncode == 0, listed.stderr
    return [machine["state"] for machine in json.loads(listed.stdout)]


def test_machines_are_put_to_sleep_and_woken(run: Run, cluster: dict[str, Any]) -> None:
    for name in ("m-1", "m-2"):
        assert run("machines", "wait", name, "--state", "ready", "--timeout", "30").returncode == 0
    slept = run("machines", "suspend", "m-1", "--timeout", "30")
    assert (slept.returncode, slept.stdout.splitlines()) == (0, ["m-1 is suspended (asked for)"]), slept.stderr
    assert states(run) == ["suspended", "ready"]
    listed = run("machines").stdout.splitlines()
    assert listed[1].startswith("m-1      suspended ")
    assert "machines  1 ready, 1 suspended" in run("status").stdout
    assert run("machines", "suspend", "--all", "--timeout", "30").returncode == 0
    assert states(run) == ["suspended", "suspended"]
    woken = run("machines", "resume", "--all", "--config", "TOKEN=fresh", "--timeout", "30")
    assert woken.returncode == 0, woken.stderr
    assert [line.partition(",")[0] for line in sorted(woken.stdout.splitlines())] == ["m-1 is ready", "m-2 is ready"]
    assert "resumed after" in run("machines").stdout
    again = run("machines", "resume", "--all")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "no machine sleeps\n")


def test_what_cannot_be_is_said_in_a_line_and_by_the_exit_code(run: Run, cluster: dict[str, Any]) -> None:
    unknown = run("machines", "suspend", "m-9")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr == "error: there is no machine 'm-9'; `runner machines` lists them\n"
    late = run("machines", "wait", "m-1", "--state", "suspended", "--timeout", "0.1")
    assert late.returncode == 1
    assert "error: machine m-1 not suspended after 0.1 s: m-1 is " in late.stderr
    never = run("machines", "wait", "m-1", "--state", "requested")
    assert never.returncode == 1
    assert "machine m-1 will not be requested" in never.stderr
