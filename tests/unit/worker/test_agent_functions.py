from __future__ import annotations

import pytest

from runner.core.values import CPU, GPU, MEMORY, UNIT
from runner.objects.template_code import TemplateCode
from runner.rpc.gen import fleet_pb2, types_pb2
from runner.worker.agent.functions import Functions, visible_gpus
from runner.worker.frames import Decoder, Kind
from runner.worker.layers import closure, layer_of


def assignment(gpu_ids: tuple[int, ...] = (), **spec: object) -> fleet_pb2.Assignment:
    amounts = spec.pop("amounts", {CPU: UNIT})
    message = types_pb2.TaskSpec(
        task_id="t-1",
        function_id="f-1",
        resources=types_pb2.Resources(amounts=amounts),  # type: ignore[arg-type]
        **spec,  # type: ignore[arg-type]
    )
    key = fleet_pb2.AttemptKey(task_id="t-1", attempt=2)
    return fleet_pb2.Assignment(key=key, slot=9, spec=message.SerializeToString(), gpu_ids=gpu_ids)


def functions(gpus: tuple[str, ...] = ()) -> Functions:
    it = Functions(gpus)
    it.add(
        types_pb2.Function(function_id="f-1", name="m.train", blob=b"x", package_ids=["p-1"], modules=["os", "numpy"])
    )
    return it


def test_what_an_attempt_needs() -> None:
    it = functions().attempt(assignment(amounts={CPU: 2 * UNIT, MEMORY: 123}, timeout_s=4.0, is_run=True))
    assert (it.key, it.slot, it.timeout_s, it.memory_bytes, it.is_run) == (("t-1", 2), 9, 4.0, 123, True)
    assert it.label == "task t-1 (m.train) attempt 2"
    assert (it.environment.threads, it.environment.package_ids) == (2, ("p-1",))
    assert it.environment.layer == layer_of(["numpy"])


def test_a_run_goes_by_its_own_name() -> None:
    assert functions().attempt(assignment(name="lr=0.1")).label == "task t-1 (lr=0.1) attempt 2"


def test_attempts_of_one_function_share_an_environment() -> None:
    it = functions()
    assert it.attempt(assignment()).environment is it.attempt(assignment()).environment
    special = it.attempt(assignment(env_vars={"B": "2", "A": "1"})).environment
    assert special.env_vars == (("A", "1"), ("B", "2"))


@pytest.mark.parametrize(("reuse", "max_calls", "expected"), [(False, 0, 1), (True, 0, 0), (False, 5, 5)])
def test_gpu_tasks_get_fresh_processes(reuse: bool, max_calls: int, expected: int) -> None:
    it = functions(("a", "b", "c"))
    spec = assignment((2, 0), amounts={CPU: UNIT, GPU: 2 * UNIT}, reuse_gpu_worker=reuse, max_calls=max_calls)
    attempt = it.attempt(spec)
    assert attempt.max_calls == expected
    assert attempt.environment.visible_gpus == "a,c"


def test_tasks_without_gpus_see_none() -> None:
    assert visible_gpus((), ()) is None
    assert visible_gpus(("0",), ()) == ""


def test_layers() -> None:
    pytest.importorskip("numpy")
    assert layer_of(["os", "json", "no_such_module"]) == frozenset()
    assert layer_of(["numpy"]) == {"numpy"}
    assert closure(["numpy"])[0] == "numpy"
    assert closure(["mine"]) == ["mine"]


def with_template(**code: object) -> Functions:
    fields: dict[str, object] = {
        "name": "m.weights",
        "blob": b"code",
        "modules": ("numpy",),
        "package_ids": ("own-1", "gone"),
        "env_vars": (("A", "1"),),
        "timeout_s": 30.0,
    }
    packed = TemplateCode(**(fields | code)).pack()  # type: ignore[arg-type]
    it = Functions(())
    it.add_package(types_pb2.Package(package_id="own-1", zip=b"zip"))
    it.add_package(types_pb2.Package(package_id="template-1", zip=packed))
    ids = ["own-1", "template-1"]
    it.add(types_pb2.Function(function_id="f-1", name="m.use", blob=b"x", package_ids=ids, modules=["torch"]))
    return it


def test_a_function_with_a_template_has_the_layer_of_that() -> None:
    environment = with_template().attempt(assignment()).environment
    assert environment.layer == layer_of(["numpy"]) | {"template-1"}
    assert environment.template_s == 30.0
    assert "template-1" in environment.package_ids


def test_a_template_is_no_package_of_executors() -> None:
    assert list(with_template().packages) == ["own-1"]


def test_what_the_process_of_a_template_gets() -> None:
    it = with_template()
    frames = Decoder().feed(it.making({"numpy", "template-1"}, "/store"))
    assert frames == [
        [Kind.SETUP, {"store_path": "/store", "env_vars": [["A", "1"]]}],
        [Kind.PACKAGE, "own-1", b"zip"],
        [Kind.FUNCTION, "", "m.weights", b"code"],
    ]
    assert it.template_label({"numpy", "template-1"}) == "template m.weights"
