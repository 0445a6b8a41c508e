"""Beginning and end: what is printed, what is left, what the errors say."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runner
from runner.client import connection, embedded, fleet_options
from runner.errors import (
    AuthenticationError,
    BadOptionsError,
    ClusterError,
    CoordinatorUnreachableError,
    UnschedulableError,
    UsageError,
    VersionMismatchError,
)
from runner.providers.gpus import detect_gpus
from runner.rpc import security, version
from tests.integration.client.conftest import Script, finish
from tests.integration.client.serving import serving
from tests.integration.helpers import is_alive, pause, wait_gone

pytestmark = pytest.mark.timeout(90)


def test_init_twice_is_one_session_and_shutdown_ends_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNNER_HOME", str(tmp_path))
    with runner.init(log_to_driver=False) as first:
        assert runner.init() is first
        assert first.embedded
        assert connection._opened is not None
        assert connection._opened.coordinator is not None
        pid = connection._opened.coordinator.ready.pid
        ref = runner.remote(lambda: 1).remote()
        assert runner.get(ref, timeout=30) == 1
    assert not is_alive(pid)
    assert not runner.is_initialized()
    with pytest.raises(UsageError):
        runner.get(ref)
    runner.shutdown()
    with runner.init(log_to_driver=False) as second:
        assert second.cluster_id != first.cluster_id


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("provider", "no-such-provider"),
        *(("machines", value) for value in (-1, 0, 1.5, "2", True, None)),
        *(("num_cpus", value) for value in (-1, "two", float("nan"))),
        *(("num_gpus", value) for value in (-1, 0.5, "1")),
        ("memory", "much"),
        ("resources", {"CPU": 1}),
        ("address", "nowhere"),
    ],
)
def test_bad_arguments_of_init_are_named_and_start_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: Any
) -> None:
    monkeypatch.setenv("RUNNER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(embedded, "start", None)  # the client knows it by itself
    with pytest.raises(BadOptionsError, match=name):
        runner.init(**{name: value})
    assert not (tmp_path / "home").exists()


def test_options_of_an_own_cluster_are_not_for_a_standing_one() -> None:
    with pytest.raises(BadOptionsError, match="runner up"):
        runner.init("127.0.0.1:1", machines=3, token="t", ca=b"x")


def test_a_coordinator_that_cannot_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNNER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(fleet_options, "PROVIDERS", ("elsewhere",))
    monkeypatch.setattr(fleet_options, "check_provider", lambda *_: None)
    with pytest.raises(BadOptionsError, match="provider 'elsewhere' is unknown"):
        runner.init(provider="elsewhere")
    assert not (tmp_path / "home").exists()


def test_machines_with_more_gpus_than_the_host_has_fail_at_once_and_say_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RUNNER_HOME", str(tmp_path))
    has = len(detect_gpus())
    with runner.init(num_gpus=has + 1, log_to_driver=False):
        started = time.monotonic()
        with pytest.raises(UnschedulableError, match=rf"needs {has + 1} GPUs; this host has {has or 'none'}"):
            runner.get(runner.remote(num_gpus=1)(lambda: 1).remote(), timeout=30)
        # One turn of the coordinator; the bound leaves room for other load, and no replacement fits in it.
        assert time.monotonic() - started < 2


def test_a_killed_client_leaves_nothing(script: Script) -> None:
    process = script(
        """
        import os, time, runner
        runner.init(machines=2, num_cpus=1)
        @runner.remote
        def hang():
            import subprocess
            child = subprocess.Popen(["sleep", "1000"])
            runner.report({"executor": os.getpid(), "child": child.pid})
            time.sleep(1000)
        runs = [hang.options(name=str(index)).remote() for index in range(2)]
        pids = []
        for event in runner.stream(runs, kinds="metrics"):
            pids += event.values.values()
            if len(pids) == 4:
                break
        pids += [node.pid for node in runner.nodes()]
        coordinator, = open(f"/proc/self/task/{os.getpid()}/children").read().split()
        forked = open(f"/proc/{coordinator}/task/{coordinator}/children").read().split()
        print(*pids, coordinator, *forked, flush=True)
        time.sleep(1000)
        """
    )
    assert process.stdout is not None
    pids = {int(pid) for pid in process.stdout.readline().split()}
    # Two executors, their children, two agents, the coordinator and at least the zygote.
    assert len(pids) >= 8
    assert all(pid > 1 and is_alive(pid) for pid in pids)
    process.kill()
    process.wait()
    wait_gone(pids, 10)


def test_ctrl_c_while_starting_leaves_nothing(script: Script) -> None:
    process = script(
        """
        import os, threading, signal, time, runner
        from runner.client import embedded
        read = embedded._read_ready
        def interrupted(process, *args):
            print(process.pid, flush=True)
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
            return read(process, *args)
        embedded._read_ready = interrupted
        try:
            runner.init()
        except KeyboardInterrupt:
            print("interrupted", runner.is_initialized())
        """
    )
    status, out, err = finish(process)
    assert status == 0, err
    pid, _, rest = out.partition("\n")
    assert rest == "interrupted False\n"
    assert not is_alive(int(pid))


def test_ctrl_c_while_getting_leaves_the_session_usable(script: Script) -> None:
    process = script(
        """
        import time, runner
        with runner.init(log_to_driver=False):
            slow = runner.remote(lambda: time.sleep(1000)).remote()
            print("getting", flush=True)
            try:
                runner.get(slow)
            except KeyboardInterrupt:
                runner.cancel(slow)
                print(runner.get(runner.remote(lambda: "still works").remote()))
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "getting\n"
    pause(0.3, "until get blocks")
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert (status, out) == (0, "still works\n"), err


def test_a_script_that_fails_ends_and_leaves_nothing(script: Script) -> None:
    status, out, err = finish(
        script(
            """
            import os, runner
            runner.init()
            print(open(f"/proc/self/task/{os.getpid()}/children").read().split()[0])
            raise SystemExit(3)
            """
        )
    )
    assert status == 3, err
    assert not is_alive(int(out))


def test_forked_children_neither_use_nor_keep_the_cluster(script: Script) -> None:
    status, out, err = finish(
        script(
            """
            import multiprocessing, os, time, runner
            def child(queue):
                try:
                    runner.put(1)
                except runner.errors.UsageError as error:
                    queue.put("forked" in str(error))
                try:
                    runner.init()
                except runner.errors.UsageError as error:
                    queue.put("forked" in str(error))
            if __name__ == "__main__":
                runner.init()
                coordinator = int(open(f"/proc/self/task/{os.getpid()}/children").read().split()[0])
                context = multiprocessing.get_context("fork")
                queue = context.Queue()
                process = context.Process(target=child, args=(queue,))
                process.start()
                print(queue.get(), queue.get())
                process.join()
                lives_on = os.fork()
                if lives_on == 0:
                    os.closerange(0, 3)
                    time.sleep(30)
                    os._exit(0)
                print(runner.get(runner.remote(lambda: "parent works").remote()))
                runner.shutdown()
                print(os.path.exists(f"/proc/{coordinator}"))
                os.kill(lives_on, 9)
            """
        )
    )
    assert status == 0, err
    assert out.splitlines() == ["True True", "parent works", "False"]


def test_a_coordinator_that_dies_is_told(script: Script) -> None:
    status, out, err = finish(
        script(
            """
            import os, signal, threading, time, runner
            runner.init(log_to_driver=False)
            coordinator = int(open(f"/proc/self/task/{os.getpid()}/children").read().split()[0])
            ref = runner.remote(lambda: time.sleep(1000)).remote()
            threading.Timer(0.5, os.kill, (coordinator, signal.SIGKILL)).start()
            try:
                runner.get(ref)
            except runner.errors.CoordinatorUnreachableError as error:
                print("told:", "init" in str(error))
            print(runner.is_initialized())
            with runner.init(log_to_driver=False):
                print(runner.get(runner.remote(lambda: "again").remote()))
            """
        )
    )
    assert status == 0, err
    assert out.splitlines() == ["told: True", "False", "again"]


def test_user_modules_beside_the_script_reach_the_task(script: Script, tmp_path: Path) -> None:
    (tmp_path / "my_helpers.py").write_text("import my_more\ndef f(x):\n    return my_more.g(x)\n")
    (tmp_path / "my_more.py").write_text("def g(x):\n    return x * 3\n")
    (tmp_path / "no_init").mkdir()
    (tmp_path / "no_init" / "deep.py").write_text("def h(x):\n    return x * 5\n")
    status, out, err = finish(
        script(
            """
            import runner
            import my_helpers
            @runner.remote
            def by_global(x):
                return my_helpers.f(x)
            @runner.remote
            def in_body(x):
                from my_more import g
                return g(x)
            @runner.remote
            def without_init(x):
                from no_init import deep
                return deep.h(x)
            with runner.init():
                print(runner.get([by_global.remote(2), in_body.remote(3), without_init.remote(4)]))
            """
        )
    )
    assert (status, out) == (0, "[6, 9, 20]\n"), err


# ---- connecting ----
def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("other")) as found:
        yield found


def test_connecting_to_a_running_one(other: Any) -> None:
    address, token, ca = other
    with runner.init(address, token=token, ca=ca, log_to_driver=False) as session:
        assert session.address == address
        assert runner.get(runner.remote(lambda: 5).remote(), timeout=30) == 5
    with runner.init(address, token=token, ca=ca.read_bytes(), log_to_driver=False):
        assert len(runner.nodes()) == 1


def test_nobody_answers(other: Any) -> None:
    _, token, ca = other
    started = time.monotonic()
    with pytest.raises(CoordinatorUnreachableError, match="no coordinator answers"):
        runner.init(f"127.0.0.1:{free_port()}", token=token, ca=ca, timeout_s=1)
    assert time.monotonic() - started < 3
    assert not runner.is_initialized()


def test_somebody_else_answers(other: Any) -> None:
    _, token, ca = other
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises((ClusterError, AuthenticationError)):
            runner.init(f"127.0.0.1:{server.getsockname()[1]}", token=token, ca=ca, timeout_s=1.5)


def test_a_wrong_token(other: Any) -> None:
    address, _, ca = other
    with pytest.raises(AuthenticationError, match="token"):
        runner.init(address, token="wrong", ca=ca)


def test_a_wrong_authority(other: Any) -> None:
    address, token, _ = other
    with pytest.raises(AuthenticationError, match="certificate authority"):
        runner.init(address, token=token, ca=security.Authority.create().ca_pem)


def test_another_protocol(other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    address, token, ca = other
    monkeypatch.setattr(version, "PROTOCOL", version.PROTOCOL + 1)
    with pytest.raises(VersionMismatchError, match="pip install"):
        runner.init(address, token=token, ca=ca)


def test_another_python(other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    address, token, ca = other
    monkeypatch.setattr(version, "python_version", lambda: "3.99.0")
    with pytest.raises(VersionMismatchError, match=r"Python 3\.99\.0"):
        runner.init(address, token=token, ca=ca)


def test_machines_whose_templates_came_from_a_layer_end_as_quickly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent waits for the end of its templates: nobody else may hold the other end of their sockets."""
    monkeypatch.setenv("RUNNER_HOME", str(tmp_path / "home"))

    def total() -> float:
        return float(np.ones(3).sum())  # needs the layer of numpy

    with runner.init(machines=1, num_cpus=1, log_to_driver=False):
        assert runner.get(runner.remote(total).remote(), timeout=30) == 3.0
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 1.5, "an agent that waits in vain is killed after 2 s"
