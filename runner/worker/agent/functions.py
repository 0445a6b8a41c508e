"""Assignments as the agent decides by them, and the functions that they need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgpack

from runner.core.values import CPU, MEMORY, UNIT
from runner.objects.template_code import TemplateCode, is_template
from runner.rpc.gen import fleet_pb2, types_pb2
from runner.worker.agent.events import Attempt, Environment
from runner.worker.frames import Kind, encode
from runner.worker.layers import layer_of

ACTOR_GRACE_S = 10.0


class Functions:
    """What the coordinator has sent for executors, as the frames that they will get.

    All of it is kept for the machine's life: the coordinator sends each once, and any attempt may come to need it.
    """

    def __init__(self, gpus: Sequence[str]) -> None:
        self._gpus = gpus
        self.frames: dict[str, bytes] = {}
        self.packages: dict[str, bytes] = {}
        self.templates: dict[str, TemplateCode] = {}
        self._functions: dict[str, types_pb2.Function] = {}
        self._layers: dict[str, frozenset[str]] = {}
        self._environments: dict[tuple[str, int], Environment] = {}  # of attempts without anything special

    def add(self, function: types_pb2.Function) -> None:
        """Before the first attempt that needs it."""
        function_id = function.function_id
        self.frames[function_id] = encode(Kind.FUNCTION, function_id, function.name, function.blob)
        function.ClearField("blob")
        self._functions[function_id] = function
        templates = [each for each in function.package_ids if each in self.templates]
        # A function with templates has their layers and not its own: else each function would need a copy of its own.
        modules = [name for each in templates for name in self.templates[each].modules]
        self._layers[function_id] = layer_of(modules if templates else function.modules) | frozenset(templates)

    def add_package(self, package: types_pb2.Package) -> None:
        """Before the first function that needs it."""
        if is_template(package.package_id):
            self.templates[package.package_id] = TemplateCode.unpack(package.zip)
            return
        self.packages[package.package_id] = encode(Kind.PACKAGE, package.package_id, package.zip)

    def attempt(self, assignment: fleet_pb2.Assignment) -> Attempt:
        """What the agent decides by."""
        spec = types_pb2.TaskSpec.FromString(assignment.spec)
        key = (assignment.key.task_id, assignment.key.attempt)
        function = self._functions.get(spec.function_id)
        name = spec.name or (function.name if function is not None else "")
        is_gpu = len(assignment.gpu_ids) > 0
        is_actor = spec.HasField("actor")
        return Attempt(
            key,
            assignment.slot,
            self._environment(assignment, spec),
            spec.function_id,
            f"task {key[0]} ({name}) attempt {key[1]}",
            spec.timeout_s,
            1 if is_actor else spec.max_calls or (1 if is_gpu and not spec.reuse_gpu_worker else 0),
            assignment.memory_bytes or spec.resources.amounts.get(MEMORY, 0),
            spec.is_run,
            assignment,
            actor_grace_s(spec.actor) if is_actor else 0.0,
            spec.startup_timeout_s,
            spec.max_retries < 0 or key[1] <= spec.max_retries,
        )

    def _environment(self, assignment: fleet_pb2.Assignment, spec: types_pb2.TaskSpec) -> Environment:
        threads = max(1, spec.resources.amounts.get(CPU, 0) // UNIT)
        if spec.env_vars or assignment.gpu_ids:
            return self._make(spec, threads, assignment.gpu_ids)
        cache_key = (spec.function_id, threads)
        environment = self._environments.get(cache_key)
        if environment is None:
            environment = self._environments[cache_key] = self._make(spec, threads, ())
        return environment

    def _make(self, spec: types_pb2.TaskSpec, threads: int, gpu_ids: Sequence[int]) -> Environment:
        function = self._functions.get(spec.function_id)
        return Environment(
            env_vars=tuple(sorted(spec.env_vars.items())),
            package_ids=tuple(function.package_ids) if function is not None else (),
            layer=self._layers.get(spec.function_id, frozenset()),
            threads=threads,
            visible_gpus=visible_gpus(self._gpus, gpu_ids),
            template_s=sum(each.timeout_s for each in self._templates_of(self._layers.get(spec.function_id, ()))),
        )

    # ---- user templates ----
    def making(self, names: Iterable[str], store_path: str) -> bytes:
        """The frames from which the process of these user templates is made."""
        templates = self._templates_of(names)
        env_vars = [pair for each in templates for pair in each.env_vars]
        package_ids = dict.fromkeys(package_id for each in templates for package_id in each.package_ids)
        frames = [encode(Kind.SETUP, {"store_path": store_path, "env_vars": env_vars})]
        frames += [self.packages[each] for each in package_ids if each in self.packages]
        frames += [encode(Kind.FUNCTION, "", each.name, each.blob) for each in templates]
        return b"".join(frames)

    def template_label(self, names: Iterable[str]) -> str:
        """The user templates among `names`, for people."""
        return f"template {', '.join(each.name for each in self._templates_of(names))}"

    def _templates_of(self, names: Iterable[str]) -> list[TemplateCode]:
        return [self.templates[each] for each in sorted(names) if each in self.templates]


def actor_grace_s(actor: types_pb2.ActorSpec) -> float:
    """How long the actor's exit hooks may take before it is told by SIGTERM."""
    options = msgpack.unpackb(actor.options) if actor.options else {}
    return float(options.get("grace_s", ACTOR_GRACE_S))


def visible_gpus(gpus: Sequence[str], gpu_ids: Sequence[int]) -> str | None:
    """CUDA_VISIBLE_DEVICES for a task with these of the machine's GPUs: those and no others. None on a machine without."""
    if not gpus:
        return None
    return ",".join(gpus[index] for index in sorted(gpu_ids))
