"""cluster.json: found, checked against the live process, never trusted by pid alone."""

from __future__ import annotations

import dataclasses
import os
import signal
import stat
import subprocess
import sys

import pytest

from runner.errors import BadOptionsError
from runner.rpc.clusters import ClusterInfo, find_cluster, list_clusters, read_cluster, start_ticks


def make(tmp_path, name="c-1", address="127.0.0.1:7420", **changes) -> ClusterInfo:
    state_dir = tmp_path / name
    state_dir.mkdir()
    info = ClusterInfo.of_this_process(name, str(state_dir), address, embedded=False)
    info = dataclasses.replace(info, **changes)
    info.write()
    return info


def test_what_is_written_is_read(tmp_path):
    info = make(tmp_path)
    assert read_cluster(tmp_path / "c-1") == info
    assert os.listdir(tmp_path / "c-1") == ["cluster.json"]


def test_a_moved_directory_and_unknown_keys_are_fine(tmp_path):
    make(tmp_path)
    path = tmp_path / "c-1" / "cluster.json"
    path.write_text(path.read_text().replace("{", '{"new_key": 1,', 1))
    os.rename(tmp_path / "c-1", tmp_path / "c-2")
    found = read_cluster(tmp_path / "c-2")
    assert found is not None
    assert found.state_dir == str(tmp_path / "c-2")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"pid": 1}'])
def test_a_broken_file_is_no_cluster(tmp_path, text):
    (tmp_path / "cluster.json").write_text(text)
    assert read_cluster(tmp_path) is None


def test_listing_is_newest_first_and_skips_junk(tmp_path):
    make(tmp_path, "c-old", started_unix_s=1.0)
    make(tmp_path, "c-new", started_unix_s=2.0)
    (tmp_path / "junk").write_text("")
    (tmp_path / "empty").mkdir()
    assert [info.cluster_id for info in list_clusters(tmp_path)] == ["c-new", "c-old"]
    assert list_clusters(tmp_path / "missing") == []


@pytest.mark.parametrize("address", ["127.0.0.1:7420", "localhost:7420", "[::1]:7420"])
def test_a_running_cluster_is_found_by_any_loopback_name(tmp_path, address):
    info = make(tmp_path)
    assert find_cluster(tmp_path, address) == info


def test_embedded_other_and_dead_clusters_are_not_found(tmp_path):
    make(tmp_path, "c-1", embedded=True)
    make(tmp_path, "c-2", address="127.0.0.1:7421")
    make(tmp_path, "c-3", pid_start_ticks=1)
    assert find_cluster(tmp_path, "127.0.0.1:7420") is None
    assert find_cluster(tmp_path, "10.0.0.1:7421") is None


def test_a_pid_that_now_means_another_process_is_not_signalled(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        ticks = start_ticks(child.pid)
        assert ticks is not None
        reused = make(tmp_path, pid=child.pid, pid_start_ticks=ticks - 1)
        assert not reused.is_running()
        assert not reused.send_signal(signal.SIGKILL)
        other_host = dataclasses.replace(reused, pid_start_ticks=ticks, host_id="elsewhere")
        assert not other_host.send_signal(signal.SIGKILL)
        real = dataclasses.replace(reused, pid_start_ticks=ticks)
        assert real.is_running()
        assert not real.wait_gone(0.0)
        assert real.send_signal(signal.SIGKILL)
        assert real.wait_gone(10.0)
    assert child.returncode == -signal.SIGKILL
    assert not real.is_running()
    assert start_ticks(child.pid) is None


def test_secrets_are_read_from_their_files_only(tmp_path):
    info = make(tmp_path)
    (tmp_path / "c-1" / "token").write_text("secret-token\n")
    assert info.read_token() == "secret-token"
    assert "secret-token" not in (tmp_path / "c-1" / "cluster.json").read_text()
    with pytest.raises(BadOptionsError, match=r"ca\.pem"):
        info.read_ca()
    assert stat.S_ISREG((tmp_path / "c-1" / "cluster.json").stat().st_mode)
