"""What `provider_options` of the container provider may say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from runner.errors import BadOptionsError
from runner.options import parse_memory

DEFAULT_IMAGE = "runner-worker:cpu"
PULLS = ("missing", "always", "never")
_SCHEMES = ("unix://", "tcp://")


@dataclass(frozen=True, slots=True)
class ContainerOptions:
    """How machines of one cluster are made.

    Raises:
        BadOptionsError: an unknown option or a value that cannot work.
    """

    image: str = DEFAULT_IMAGE
    pull: str = "missing"  # missing, always, never
    socket: str = ""  # unix:///path or tcp://host:port; empty: DOCKER_HOST, else where engines usually listen
    tls_dir: str = ""  # for tcp: the folder with ca.pem, cert.pem and key.pem
    network: str = "host"  # "host": machines reach a coordinator on this host's loopback address
    share_host: bool | None = (
        None  # mount this host's object store and artefacts; None: where the engine is on this host
    )
    user: str = ""  # uid or uid:gid; empty: this process's where the host is shared, else the image's
    shm_size: int | str | None = None  # of /dev/shm; None: half of the machine's memory
    pids_limit: int = 4096
    ulimits: Mapping[str, int] = field(default_factory=dict)  # soft and hard: {"nofile": 65536}; the engine's otherwise
    env: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)  # host path or volume name: path inside, with :ro to read
    gpus: tuple[str, ...] = ()  # device ids to hand out; empty: all of this host's

    def __post_init__(self) -> None:
        for name in ("image", "socket", "tls_dir", "network", "user"):
            _check(name, getattr(self, name), lambda value: isinstance(value, str), "a string")
        _check("image", self.image, bool, "an image's name")
        _check("pull", self.pull, lambda value: value in PULLS, f"one of {', '.join(PULLS)}")
        if self.socket and not self.socket.startswith(_SCHEMES):
            raise BadOptionsError(f"option socket is {self.socket!r}; expected unix:///path/to.sock or tcp://host:port")
        _check("pids_limit", self.pids_limit, _is_positive, "a whole number > 0")
        _check("share_host", self.share_host, lambda value: value is None or isinstance(value, bool), "True or False")
        parse_memory("option shm_size", self.shm_size)
        for name in ("env", "volumes"):
            _check(name, getattr(self, name), _is_text_map, "a map of strings to strings")
        _check("ulimits", self.ulimits, _is_limit_map, 'a map of names to whole numbers, as {"nofile": 65536}')
        _check("gpus", self.gpus, lambda value: all(isinstance(each, str) and each for each in value), "device ids")

    @property
    def shm_bytes(self) -> int | None:
        """None: not said."""
        return parse_memory("option shm_size", self.shm_size)


def parse(options: Mapping[str, Any]) -> ContainerOptions:
    """The options as given.

    Raises:
        BadOptionsError: an unknown option or a value that cannot work.
    """
    known = {each.name for each in fields(ContainerOptions)}
    if unknown := sorted(set(options) - known):
        raise BadOptionsError(
            f"provider 'container' has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    given = dict(options)
    if "gpus" in given:
        _check("gpus", given["gpus"], lambda value: isinstance(value, list | tuple), "a list of device ids")
        given["gpus"] = tuple(given["gpus"])
    return ContainerOptions(**given)


def check_options(options: Mapping[str, Any]) -> None:
    """See runner.providers.registry."""
    parse(options)


def _check(name: str, value: Any, is_good: Callable[[Any], object], expected: str) -> None:
    if not is_good(value):
        raise BadOptionsError(f"option {name} of provider 'container' is {value!r}; expected {expected}")


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_text_map(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(each, str) for pair in value.items() for each in pair)


def _is_limit_map(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) and _is_positive(value[key]) for key in value)
