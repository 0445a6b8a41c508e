"""The simulator as its users meet it: over HTTP, as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from runner.flysim import FlySim
from tests.integration.flysim.conftest import AT_ONCE, client_of
from tests.integration.helpers import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.long]
MACHINE = {"name": "m", "config": {"image": "runner-worker:1"}}


def create(api: httpx.Client, **body: object) -> str:
    reply = api.post("/apps/app/machines", json={**MACHINE, **body})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["id"])


def test_a_machines_whole_life(sim: FlySim, api: httpx.Client) -> None:
    machine_id = create(api)
    path = f"/apps/app/machines/{machine_id}"
    assert api.get(f"{path}/wait", params={"state": "started", "timeout": 10}).json() == {"ok": True}
    shown = api.get(path)
    assert (shown.json()["state"], shown.headers["fly-request-id"][:4]) == ("started", "sim-")
    assert api.post(f"{path}/suspend").json() == {"ok": True}
    assert api.get(f"{path}/wait", params={"state": "suspended"}).status_code == 200
    assert api.post(f"{path}/start").json()["previous_state"] == "suspended"
    assert api.delete(path, params={"force": "true"}).json() == {"ok": True}
    assert api.get(f"{path}/wait", params={"state": "destroyed"}).status_code == 200

    assert sim.state()["machines"][machine_id]["trail"][-1] == "destroyed"


def test_a_wait_comes_back_when_the_state_comes(sim: FlySim, api: httpx.Client) -> None:
    machine_id = create(api, skip_launch=True)
    timer = threading.Timer(0.3, lambda: api.post(f"/apps/app/machines/{machine_id}/start"))
    begin_s = time.monotonic()
    timer.start()
    reply = api.get(f"/apps/app/machines/{machine_id}/wait", params={"timeout": 20})
    timer.join()

    assert reply.status_code == 200
    assert 0.2 < time.monotonic() - begin_s < 10


def test_a_wait_ends_with_408_at_its_time(sim: FlySim, api: httpx.Client) -> None:
    machine_id = create(api, skip_launch=True)
    begin_s = time.monotonic()
    reply = api.get(f"/apps/app/machines/{machine_id}/wait", params={"timeout": 1})

    assert reply.status_code == 408
    assert reply.json()["error"] == "machine failed to reach desired state, started, currently created"
    assert time.monotonic() - begin_s >= 1.0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"confg": {}}, "'config' is a required property"),
        ({**MACHINE, "regoin": "iad"}, "'regoin' was unexpected"),
        ({"config": {"image": 7}}, "7 is not of type 'string'"),
    ],
)
def test_a_request_that_breaks_the_description_is_a_400(api: httpx.Client, body: object, words: str) -> None:
    reply = api.post("/apps/app/machines", json=body)

    assert (reply.status_code, words in reply.json()["error"]) == (400, True), reply.text


def test_what_is_no_json_or_no_endpoint(api: httpx.Client) -> None:
    assert api.post("/apps/app/machines", content=b"{").status_code == 400
    assert api.get("/nowhere").status_code == 404
    assert api.get("/apps/app/machines", params={"metdata.x": "y"}).status_code == 400


def test_a_lost_reply_leaves_a_machine_that_its_name_finds(sim: FlySim, api: httpx.Client) -> None:
    sim.inject("drop_reply")
    with pytest.raises(httpx.TransportError):
        api.post("/apps/app/machines", json=MACHINE)
    again = api.post("/apps/app/machines", json=MACHINE)
    assert again.status_code == 409
    machine_id = re.search(r"[0-9a-f]{14}", again.json()["error"])
    assert machine_id is not None and machine_id[0] in sim.state()["machines"]
    sim.inject("drop_reply", how="408")

    assert api.post("/apps/app/machines", json={**MACHINE, "name": "n"}).status_code == 408
    assert len(sim.state()["machines"]) == 2


def test_the_provider_goes_down_for_a_while(sim: FlySim, api: httpx.Client) -> None:
    sim.inject("down", seconds=0.5)
    with pytest.raises(httpx.TransportError):
        api.get("/apps/app")

    def answers() -> bool:
        try:
            return api.get("/apps/app").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(answers, 5.0, "the provider to come back")


def test_faults_on_demand(sim: FlySim, api: httpx.Client) -> None:
    machine_id = create(api)
    api.get(f"/apps/app/machines/{machine_id}/wait").raise_for_status()
    sim.inject("fail_host", machine="m")
    assert api.get(f"/apps/app/machines/{machine_id}").json()["host_status"] == "unreachable"
    sim.inject("restore_host", machine=machine_id)
    sim.inject("capacity", region="iad", capacity=0)
    sim.inject("settings", settings={"error_rate": 1.0})
    assert api.get("/apps/app").status_code >= 500
    sim.inject("settings", settings={"error_rate": 0.0})
    assert api.post("/apps/app/machines", json={"region": "iad", **MACHINE, "name": "n"}).status_code == 412
    sim.inject("expire_token")
    assert api.get("/apps/app").status_code == 403
    with pytest.raises(ValueError, match="no fault 'nonsense'; known are: add_token, capacity"):
        sim.inject("nonsense")
    with pytest.raises(ValueError, match="cannot change while it runs"):
        sim.inject("settings", settings={"seed": 2})


def test_the_inside_needs_the_token(sim: FlySim) -> None:
    assert httpx.get(sim.url + "/_sim/state", trust_env=False).status_code == 401
    assert httpx.post(sim.url + "/_sim/faults", json={"kind": "down", "seconds": 9}, trust_env=False).status_code == 401


def test_rates_are_limited_by_default() -> None:
    with FlySim(**AT_ONCE) as sim, client_of(sim) as api:
        api.post("/apps", json={"app_name": "app", "org_slug": "personal"})
        codes = [api.post("/apps/app/machines", json={**MACHINE, "name": f"m{n}"}).status_code for n in range(5)]

    assert codes[:3] == [200] * 3
    assert 429 in codes[3:]


def test_the_command_prints_what_to_export_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "runner.cli", "fly-sim", "--port", "0", "--capacity", "iad=40", "--seed", "7"]
    command += ["--create-delay", "0.5~0.1", "--no-rate-limit", "--fault", "error-rate=0", "--home", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    lines = [process.stdout.readline() for _ in range(4)]
    url = re.fullmatch(r"export FLY_FLAPS_BASE_URL=(http://127.0.0.1:\d+)\n", lines[2])
    token = re.fullmatch(r"export FLY_API_TOKEN=(\S+)\n", lines[3])
    assert url is not None and token is not None, lines
    reply = httpx.post(
        url[1] + "/v1/platform/placements", json={"count": 64, "region": "any"},
        headers={"Authorization": f"Bearer {token[1]}"}, trust_env=False,
    )  # fmt: skip
    assert [each["Count"] for each in reply.json()["Regions"]] == [40]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)

    assert (process.returncode, errors) == (0, "")
    assert os.listdir(tmp_path) == []


def test_a_port_that_is_taken_is_named(sim: FlySim) -> None:
    port = sim.url.rpartition(":")[2]
    command = [sys.executable, "-m", "runner.cli", "fly-sim", "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another --port" in done.stderr


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import json, os\nfrom runner.flysim import FlySim\nsim = FlySim()\nsim.__enter__()\n"
        "print(json.dumps(sim.pid), flush=True)\nos._exit(0)\n"
    )
    env = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    pid = json.loads(done.stdout)

    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 10.0, "the simulator's end")
