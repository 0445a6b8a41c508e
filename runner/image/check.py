"""Looking into an image: whether it can serve this client, by running it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from docker.errors import APIError

from runner.errors import UsageError
from runner.providers.container.engine import ENGINE_ERRORS, Engine, in_words
from runner.providers.container.images import why_unfit

_RUN_S = 60
# Says everything on one line, whatever else the image prints.
_PROBE = """
import importlib.metadata as m, json, os
from runner.rpc.version import PROTOCOL, VERSION, python_version
try: torch = m.version("torch")
except m.PackageNotFoundError: torch = ""
import runner.worker.agent.agent
print("runner-image:" + json.dumps(dict(
    runner=VERSION, protocol=PROTOCOL, python=python_version(), torch=torch, uid=os.getuid())))
"""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found; `faults` is empty when machines of this image can serve this client."""

    image: str
    facts: dict[str, Any]
    faults: tuple[str, ...]


def check(engine: Engine, image: str) -> Report:
    """Look at the labels, and run the image once to see whether they are true. Blocks for seconds.

    Raises:
        UsageError: the engine does not have the image, or does not answer.
    """
    try:
        found: Any = engine.client
        inspected = found.inspect_image(image)
        labels = (inspected.get("Config") or {}).get("Labels") or {}
        facts: dict[str, Any] = {
            "size_mb": round(int(inspected.get("Size") or 0) / 1e6),
            "user": (inspected.get("Config") or {}).get("User") or "root",
            "variant": labels.get("runner.variant", ""),
        }
        faults = [fault] if (fault := why_unfit(image, labels)) else []
        said = _run(engine, image)
    except APIError as error:
        if error.status_code == 404 and "image" in in_words(error).lower():
            raise UsageError(
                f"image {image} is not on the engine at {engine.url}; build it with `runner image build`, or pull it"
            ) from None
        raise UsageError(f"image {image} could not be looked at: {in_words(error)}") from None
    except ENGINE_ERRORS as error:
        raise UsageError(f"the container engine at {engine.url} did not answer: {in_words(error)}") from None
    if isinstance(said, str):
        faults.append(f"image {image} cannot run an agent: {said}")
    else:
        facts |= said
        faults += _lies(image, labels, said)
    return Report(image, facts, tuple(faults))


def _lies(image: str, labels: dict[str, str], said: dict[str, Any]) -> list[str]:
    """Labels by which a client would decide wrongly."""
    true = {
        "runner.python": ".".join(str(said["python"]).split(".")[:2]),
        "runner.protocol": str(said["protocol"]),
        "runner.version": str(said["runner"]),
    }
    return [
        f"image {image} has the label {name}={labels[name]}, but in it that is {value}; build it again"
        for name, value in true.items()
        if name in labels and labels[name] != value
    ]


def _run(engine: Engine, image: str) -> dict[str, Any] | str:
    """What the image says about itself, or why it says nothing."""
    client = engine.client
    host = client.create_host_config(network_mode="none", cap_drop=["ALL"], security_opt=["no-new-privileges"])
    made = client.create_container(
        image, entrypoint=["python", "-c", _PROBE], command=[], host_config=host, stop_timeout=0
    )
    try:
        client.start(made["Id"])
        status = client.wait(made["Id"], timeout=_RUN_S)["StatusCode"]
        text = client.logs(made["Id"]).decode(errors="replace")
    except APIError as error:
        words = in_words(error)
        if "executable file not found" in words or "no such file" in words.lower():
            return "it has no `python` on its PATH"
        return words
    finally:
        engine.remove(made["Id"])
    for line in text.splitlines():
        if line.startswith("runner-image:"):
            found: dict[str, Any] = json.loads(line.partition(":")[2])
            return found
    last = ([line for line in text.splitlines() if line.strip()] or ["it printed nothing"])[-1]
    return f"exit code {status}: {last}"
