from __future__ import annotations

import subprocess
import sys


def test_importing_runner_loads_nothing_heavy() -> None:
    heavy = [
        "torch",
        "numpy",
        "grpc",
        "google.protobuf",
        "cryptography",
        "msgpack",
        "cloudpickle",
        "asyncio",
        "rich",
        "click",
    ]
    code = f"import sys, runner; print([name for name in {heavy!r} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_what_ray_has_at_hand_needs_no_import_of_its_own() -> None:
    code = (
        "import runner as ray; print(ray.util.ActorPool.__name__, ray.actor.exit_actor is ray.exit_actor);"
        "print(hasattr(ray, 'nothing'))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["ActorPool", "True", "False"]


def test_an_executor_does_not_need_grpc() -> None:
    code = (
        "import sys, runner, runner.client.session, runner.client.map, runner.client.streams, runner.client.runtime_context;"
        "print('grpc' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "False"
