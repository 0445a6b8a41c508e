"""The version handshake."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from runner.errors import VersionMismatchError
from runner.rpc.gen import types_pb2
from runner.rpc.version import PROTOCOL, VERSION, check_peer, host_id, local_peer


def test_a_process_can_work_with_itself():
    peer = local_peer()
    assert check_peer(peer) is None
    assert peer.host_id == host_id()
    assert len(peer.host_id) == 16


def test_another_protocol_says_what_to_install_and_where():
    newer = types_pb2.Peer(protocol=PROTOCOL + 1, runner_version="9.1.0", python_version="3.11.1")
    with pytest.raises(VersionMismatchError, match=r"pip install 'runner==9\.1\.0' here"):
        check_peer(newer, who="the coordinator")
    older = types_pb2.Peer(protocol=PROTOCOL - 1, runner_version="0.0.1", python_version="3.11.1")
    with pytest.raises(VersionMismatchError, match=rf"runner=={VERSION}' where the coordinator runs"):
        check_peer(older, who="the coordinator")


def test_an_empty_peer_is_refused():
    with pytest.raises(VersionMismatchError, match="unknown"):
        check_peer(types_pb2.Peer())


@pytest.mark.parametrize("theirs", ["3.9.1", "3.99.0", "", "2"])
def test_another_python_minor_is_refused(theirs):
    peer = local_peer()
    peer.python_version = theirs
    with pytest.raises(VersionMismatchError, match="Python"):
        check_peer(peer)


def test_another_python_patch_warns():
    peer = local_peer()
    peer.python_version = f"{sys.version_info[0]}.{sys.version_info[1]}.99"
    warning = check_peer(peer, who="the coordinator")
    assert warning is not None
    assert peer.python_version in warning


def test_version_is_the_packages():
    try:
        installed = importlib.metadata.version("runner")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("runner runs from a folder that is not installed")
    assert installed == VERSION
