"""`@runner.template` on real machines: its code runs once, executors are forked from it, and nothing that it does hangs anybody."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.errors import TaskSetupError, UsageError
from tests.integration.client.conftest import finish
from tests.integration.helpers import wait_gone, wait_until

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(60)]


def noted(path: Path) -> Any:
    """A template whose value is the pid that made it, and which leaves a line each time it is made."""

    @runner.template
    def value() -> int:
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return os.getpid()

    return value


def using(template: Any, **options: Any) -> Any:
    """A task that tells the template's value, its process and its machine."""

    @runner.remote(**options)
    def use() -> tuple[Any, int, str | None]:
        return template(), os.getppid(), runner.get_runtime_context().get_node_id()

    return use


def test_its_code_runs_once_per_machine_for_tasks_and_actors(tmp_path: Path) -> None:
    value = noted(tmp_path / "made")
    use = using(value)

    class Holder:
        def __init__(self) -> None:
            self.seen = value(), os.getppid()

        def tell(self) -> tuple[int, int]:
            return self.seen

    found = runner.get([use.remote() for _ in range(12)], timeout=30)
    holders = [runner.remote(Holder).remote() for _ in range(4)]
    found += [(*pair, "") for pair in runner.get([each.tell.remote() for each in holders], timeout=30)]
    assert all(made_in == parent for made_in, parent, _ in found)
    made = (tmp_path / "made").read_text().split()
    assert {str(pid) for pid, _, _ in found} == set(made)
    assert len(made) == len({machine for _, _, machine in found if machine})


def test_a_template_that_the_code_does_not_name_is_given_by_option(tmp_path: Path) -> None:
    value = noted(tmp_path / "made")

    @runner.remote
    def parent() -> int:
        return os.getppid()

    pid = runner.get(parent.options(template=value).remote(), timeout=30)
    assert (tmp_path / "made").read_text().split() == [str(pid)]


def test_two_templates_of_one_function_are_made_in_one_process(tmp_path: Path) -> None:
    first, second = noted(tmp_path / "first"), noted(tmp_path / "second")

    @runner.remote
    def both() -> tuple[int, int, int]:
        return first(), second(), os.getppid()

    assert len(set(runner.get(both.remote(), timeout=30))) == 1


def test_a_task_of_a_task_has_the_same_template(tmp_path: Path) -> None:
    use = using(noted(tmp_path / "made"))

    @runner.remote
    def outer() -> Any:
        return runner.get(use.remote())

    found = runner.get([outer.remote() for _ in range(3)] + [use.remote() for _ in range(3)], timeout=30)
    machines = {machine for _, _, machine in found}
    assert len((tmp_path / "made").read_text().split()) == len(machines)


def test_where_there_is_no_template_the_first_call_makes_the_value() -> None:
    made = []

    @runner.template
    def value() -> list[int]:
        made.append(os.getpid())
        return made

    assert value() is value()
    assert made == [os.getpid()]


def test_the_runtime_env_is_that_of_its_code() -> None:
    @runner.template
    def name() -> str:
        return os.environ["NAME_OF_THIS_TEST"]

    use = using(name)
    for wanted in ("one", "two"):
        found = runner.get(use.options(runtime_env={"env_vars": {"NAME_OF_THIS_TEST": wanted}}).remote(), timeout=30)
        assert found[0] == wanted


def test_code_in_a_module_is_found_by_name_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights_of_this_test.py").write_text(
        textwrap.dedent("""
            import os
            import runner

            @runner.template
            def weights():
                return os.getpid()

            def helper():
                return weights()
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import weights_of_this_test as module  # type: ignore[import-not-found]

    @runner.remote(template=module.weights)
    def use() -> tuple[int, int]:
        return module.helper(), os.getppid()

    made_in, parent = runner.get(use.remote(), timeout=30)
    assert made_in == parent
    del sys.modules["weights_of_this_test"]


def test_a_ref_in_a_template_is_refused() -> None:
    ref = runner.put(1)
    with pytest.raises(UsageError, match="refers to an ObjectRef, and a template runs without a task"):
        using(runner.template(lambda: ref)).remote()


# ---- code that fails ----
def test_what_it_raises_is_the_error_of_the_task_with_its_traceback(tmp_path: Path) -> None:
    marker = tmp_path / "there"

    @runner.template
    def weights() -> str:
        return marker.read_text()

    use = using(weights)
    with pytest.raises(TaskSetupError, match=r"template .*weights raised FileNotFoundError") as caught:
        runner.get(use.remote(), timeout=30)
    assert "return marker.read_text()" in caught.value.remote_traceback
    assert "return marker.read_text()" in str(caught.value)
    marker.write_text("weights")
    assert runner.get(use.remote(), timeout=30)[0] == "weights"


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", r"was killed by signal 11 \(SIGSEGV\)"),
        ("os._exit(7)", "ended its process with exit code 7"),
        ("sys.exit(7)", "raised SystemExit: 7"),
        ("signal.pause()", "it was not done after its timeout_s=0.5"),
        ("runner.get(runner.put(1))", "raised NotInitializedError"),
    ],
)
def test_code_that_ends_in_other_ways_fails_the_task_too(code: str, seen: str) -> None:
    def broken() -> None:
        exec(code, {"os": os, "sys": sys, "signal": signal, "runner": runner})

    use = using(runner.template(timeout_s=0.5 if "pause" in code else 30.0)(broken))
    with pytest.raises(TaskSetupError, match=seen):
        runner.get(use.remote(), timeout=30)


def test_a_template_that_dies_later_is_made_again(tmp_path: Path) -> None:
    use = using(noted(tmp_path / "made"))
    pid, _, _ = runner.get(use.remote(), timeout=30)
    os.kill(pid, signal.SIGKILL)
    wait_gone([pid], 5)
    again = [runner.get(use.remote(), timeout=30) for _ in range(4)]
    assert all(made_in == parent != pid for made_in, parent, _ in again)


def test_a_task_whose_template_dies_is_tried_again_though_others_have_the_template_made_anew(tmp_path: Path) -> None:
    value = noted(tmp_path / "made")
    started = tmp_path / "started"

    @runner.remote(max_retries=1)
    def first_waits() -> int:
        pid = value()
        if not started.exists():
            started.write_text(str(pid))
            signal.pause()
        return pid

    waiting = first_waits.remote()
    wait_until(lambda: started.exists() and started.read_text(), 30, "the first attempt")
    old = int(started.read_text())
    os.kill(old, signal.SIGKILL)
    others = runner.get([using(value).remote() for _ in range(6)], timeout=30)
    assert runner.get(waiting, timeout=30) != old
    assert old not in {made_in for made_in, _, _ in others}


# ---- code that leaves what no fork survives ----
def test_threads_that_live_on_have_each_process_make_the_value_and_are_told(script: Any) -> None:
    process = script(
        """
        import os, threading, runner

        @runner.template
        def value():
            stay = threading.Event()
            threading.Thread(target=stay.wait, name="reads-ahead", daemon=True).start()
            return os.getpid()

        @runner.remote
        def use():
            return value() == os.getpid()

        with runner.init(machines=1, num_cpus=2):
            print(runner.get([use.remote() for _ in range(4)]))
        """
    )
    status, out, err = finish(process)
    assert (status, out.strip()) == (0, "[True, True, True, True]"), err
    warnings = [line for line in (out + err).splitlines() if "is not used on machine" in line]
    assert len(warnings) == 1
    assert "template value" in warnings[0]
    assert "reads-ahead" in warnings[0]


def test_a_process_that_has_used_cuda_is_not_forked() -> None:
    @runner.template
    def value() -> int:
        import torch

        torch.cuda.is_initialized = lambda: True  # as after a first use: there is no GPU here
        return os.getpid()

    @runner.remote
    def use() -> tuple[int, int, int]:
        return value(), os.getpid(), os.getppid()

    made_in, pid, _ = runner.get(use.remote(), timeout=60)
    assert made_in == pid


# ---- torch ----
def test_torch_works_in_the_template_and_with_more_threads_in_the_processes() -> None:
    pytest.importorskip("torch")

    @runner.template
    def product() -> Any:
        import torch

        assert torch.get_num_threads() == 1
        assert not torch.cuda.is_available()
        wide = torch.ones(700, 700)
        return wide @ wide

    @runner.remote(num_cpus=2)
    def use() -> tuple[int, float, float, bool]:
        import torch

        mine = product() @ product()
        return torch.get_num_threads(), float(product()[0, 0]), float(mine[3, 3]), "CUDA_VISIBLE_DEVICES" in os.environ

    expected = [(2, 700.0, 700.0**3, False)] * 3
    assert runner.get([use.remote() for _ in range(3)], timeout=60) == expected
    # A number of threads that the user sets is for the processes: in the template it would make them hang.
    several = use.options(runtime_env={"env_vars": {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}})
    assert runner.get([several.remote() for _ in range(3)], timeout=60) == expected


def test_a_model_is_loaded_in_the_template_and_moved_in_the_task() -> None:
    @runner.template
    def weights() -> runner.Model[dict[str, int]]:
        return runner.Model(lambda: {"made": os.getpid()}, to_device=lambda value: {**value, "moved": os.getpid()})

    @runner.remote
    def use() -> tuple[dict[str, int], int, int]:
        return weights().get(), os.getppid(), os.getpid()

    value, parent, own = runner.get(use.remote(), timeout=30)
    assert value == {"made": parent, "moved": own}


def test_a_model_made_by_the_program_loads_from_a_template(tmp_path: Path) -> None:
    model = runner.Model(noted(tmp_path / "made"))

    @runner.remote
    def use() -> tuple[int, int]:
        return model.get(), os.getppid()

    made_in, parent = runner.get(use.remote(), timeout=30)
    assert made_in == parent


def test_a_model_must_not_be_moved_in_a_template() -> None:
    @runner.template
    def weights() -> int:
        return runner.Model(lambda: 1).get()

    with pytest.raises(TaskSetupError, match=r"Model.get\(\) was called in the code of a template"):
        runner.get(using(weights).remote(), timeout=30)


def test_templates_end_with_the_cluster_whatever_they_do(script: Any, tmp_path: Path) -> None:
    process = script(
        f"""
        import os, signal, time, runner

        def note():
            with open({str(tmp_path / "pids")!r}, "a") as file:
                file.write(f"{{os.getpid()}}\\n")

        @runner.template
        def ready():
            note()

        @runner.template
        def hanging():
            note()
            signal.pause()

        @runner.remote
        def use_ready():
            return ready()

        @runner.remote
        def use_hanging():
            return hanging()

        with runner.init(machines=1, num_cpus=2):
            runner.get(use_ready.remote())
            kept = use_hanging.remote()
            while len(open({str(tmp_path / "pids")!r}).readlines()) < 2:
                time.sleep(0.02)
        """
    )
    status, _, err = finish(process)
    assert status == 0, err
    wait_gone(map(int, (tmp_path / "pids").read_text().split()), 5)
