"""Runs Python functions on machines that it boots for the purpose.

    import runner

    @runner.remote
    def double(x: int) -> int:
        return 2 * x

    with runner.init():
        print(runner.get(double.remote(21)))

Importing this package loads neither torch nor gRPC.
"""

import typing

from runner import actor, errors, exceptions
from runner.client.actors.classes import ActorClass, method
from runner.client.actors.handle import ActorHandle
from runner.client.actors.hooks import enter, exit, exit_actor  # noqa: A004
from runner.client.api import (
    available_resources,
    cancel,
    cluster_resources,
    get,
    get_actor,
    get_gpu_ids,
    get_runtime_context,
    init,
    is_initialized,
    kill,
    map,  # noqa: A004  its name, as in every executor
    nodes,
    put,
    remote,
    shutdown,
    wait,
)
from runner.client.executor import Executor
from runner.client.generators import ObjectRefGenerator
from runner.client.remote_function import RemoteFunction
from runner.client.run_api import get_checkpoint, get_run, mark_phase, ready_to_snapshot, report, stream
from runner.client.template_function import TemplateFunction, template
from runner.hooks import ResumeContext, after_resume, before_suspend, reseed
from runner.model import Model
from runner.objects.refs import ObjectRef
from runner.options import TaskOptions
from runner.pools import Pool

__version__ = "0.1.0"

if not typing.TYPE_CHECKING:

    def __getattr__(name):  # noqa: ANN001, ANN202  for mypy every name would be there
        """`runner.util` needs no import of its own, as in Ray."""
        if name == "util":
            from importlib import import_module

            return import_module("runner.util")
        raise AttributeError(f"module 'runner' has no attribute {name!r}")


__all__ = [
    "ActorClass",
    "ActorHandle",
    "Executor",
    "Model",
    "ObjectRef",
    "ObjectRefGenerator",
    "Pool",
    "RemoteFunction",
    "ResumeContext",
    "TaskOptions",
    "TemplateFunction",
    "__version__",
    "actor",
    "after_resume",
    "available_resources",
    "before_suspend",
    "cancel",
    "cluster_resources",
    "enter",
    "errors",
    "exceptions",
    "exit",
    "exit_actor",
    "get",
    "get_actor",
    "get_checkpoint",
    "get_gpu_ids",
    "get_run",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "map",
    "mark_phase",
    "method",
    "nodes",
    "put",
    "ready_to_snapshot",
    "remote",
    "report",
    "reseed",
    "shutdown",
    "stream",
    "template",
    "wait",
]
