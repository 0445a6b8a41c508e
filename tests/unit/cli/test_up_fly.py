"""`runner up` with a coordinator at Fly: which options go together, and what is remembered of the cluster."""

from __future__ import annotations

import socket
import stat
from pathlib import Path
from typing import Any

import click
import pytest

from runner import config
from runner.cli import up_fly
from runner.cli.fly_cluster import Booted, Wanted
from runner.errors import CoordinatorUnreachableError
from runner.rpc.clusters import Target, find_cluster, read_cluster, resolve, running_clusters
from runner.rpc.security import Authority

NONE: dict[str, Any] = dict.fromkeys(up_fly.COORDINATOR_OPTIONS)
BOOTED = Booted(
    cluster_id="c0ffee",
    address="[2a09:8280:1::5]:24130",
    ca_pem=b"-----BEGIN CERTIFICATE-----\n",
    token="the-token",
    app="my-app",
    machine_id="148ed193b95948",
    base_url="https://api.machines.dev",
    reach="public",
)


def wanted(provider: str, *, cluster: str = "", foreground: bool = False, **options: Any) -> Wanted | None:
    return up_fly.wanted(provider, {**NONE, **options}, cluster=cluster, foreground=foreground)


def test_where_the_coordinator_runs() -> None:
    assert wanted("local") is None
    assert wanted("fly") == Wanted()
    assert wanted("fly", on="here") is None
    assert wanted("fly", reach="proxy", coordinator_size="shared-cpu-1x", client_lost_after_s=30.0) == Wanted(
        reach="proxy", size="shared-cpu-1x", client_lost_after_s=30.0
    )


@pytest.mark.parametrize(
    ("provider", "options", "words"),
    [
        ("local", {"on": "fly"}, "needs --provider fly"),
        ("local", {"reach": "proxy"}, "--reach is of a coordinator at Fly"),
        ("fly", {"on": "here", "coordinator_size": "shared-cpu-1x"}, "--coordinator-size"),
        ("fly", {"cluster": "abc"}, "--cluster"),
        ("fly", {"foreground": True}, "--foreground"),
        ("fly", {"coordinator_size": "l40s"}, "l40s"),
    ],
)
def test_options_that_contradict_each_other(provider: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(click.UsageError, match=words):
        wanted(provider, **options)


def test_the_cluster_is_found_and_its_secrets_are_private(tmp_path: Path) -> None:
    loaded = config.load({"RUNNER_HOME": str(tmp_path)})

    info = up_fly.remember(loaded, BOOTED)

    folder = Path(info.state_dir)
    assert read_cluster(folder) == info
    assert find_cluster(loaded.clusters_dir, BOOTED.address) == info
    assert running_clusters(loaded.clusters_dir) == [info]
    target = resolve(loaded)
    assert (target.address, target.ca_pem, target.token) == (BOOTED.address, BOOTED.ca_pem, BOOTED.token)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(stat.S_IMODE((folder / name).stat().st_mode) == 0o600 for name in ("token", "ca.pem"))
    assert BOOTED.token not in (folder / "cluster.json").read_text()
    assert info.machine == {
        "provider": "fly",
        "app": "my-app",
        "machine_id": "148ed193b95948",
        "base_url": "https://api.machines.dev",
    }


def test_an_address_that_leads_nowhere_names_the_other_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up_fly, "_REACHABLE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    authority = Authority.create()

    with pytest.raises(CoordinatorUnreachableError, match=rf"{address}.*--reach private.*--reach proxy"):
        up_fly._await_reachable(Target(address, authority.ca_pem, "a-token"))


def test_a_machine_is_no_process_of_this_host(tmp_path: Path) -> None:
    info = up_fly.remember(config.load({"RUNNER_HOME": str(tmp_path)}), BOOTED)

    assert info.pid == 0
    assert info.is_running()  # as far as this host knows: until `runner down`
