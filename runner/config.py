"""The only reader of the environment: typed settings, and a clear error for a bad value."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runner.errors import BadOptionsError, UsageError

HOME = "RUNNER_HOME"  # where clusters keep their state; default ~/.runner
ADDRESS = "RUNNER_ADDRESS"  # host:port of a standing cluster; runner.init() connects there
TOKEN = "RUNNER_TOKEN"  # noqa: S105  the cluster's token itself
TOKEN_FILE = "RUNNER_TOKEN_FILE"  # noqa: S105  a file with the token; RUNNER_TOKEN wins
CA = "RUNNER_CA"  # a PEM file with the cluster's certificate authority
LOG_LEVEL = "RUNNER_LOG_LEVEL"  # debug, info, warning (default) or error
BOOT_FILE = "RUNNER_BOOT_FILE"  # a worker's boot configuration
BOOT = "RUNNER_BOOT"  # the same, base64, where no file can be placed
PRICES = "RUNNER_PRICES"  # a TOML file with prices of machines, over those that come with the package
COORDINATOR = "RUNNER_COORDINATOR"  # settings of a coordinator that was booted as a machine, base64; no secrets
ACTOR_RELAY = "RUNNER_ACTOR_RELAY"  # any value: calls of actors go through the coordinator, never straight; for tests
MEMORY_GUARD = "RUNNER_MEMORY_GUARD"  # the share of a machine's memory above which its agent ends an attempt; 0: never
SUSPEND_HOOKS_S = (
    "RUNNER_SUSPEND_HOOKS_S"  # how long the suspend hooks of one process may take, and those after a resume
)
CUDA_CHECKPOINT = "RUNNER_CUDA_CHECKPOINT"  # 1: agents use NVIDIA's cuda-checkpoint around a suspend
INSIDE = "RUNNER_INSIDE"  # set by agents: the machine whose process this is
PRIVATE_ADDRESS = "FLY_PRIVATE_IP"  # set by Fly in each machine: where others of its organisation reach it
FLY_API_TOKEN = "FLY_API_TOKEN"  # noqa: S105  for the provider `fly`; its options win
FLY_BASE_URL = "FLY_FLAPS_BASE_URL"  # where Fly's Machines API is; the name that Fly's own tools use
DOCKER_HOST = "DOCKER_HOST"  # where the container engine listens, as its own tools read it
XDG_RUNTIME_DIR = "XDG_RUNTIME_DIR"  # where an engine without root has its socket
NO_COLOR = "NO_COLOR"  # see no-color.org: any value but the empty one

_HOOKS_S_MAX = 3600.0
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Settings:
    """What the environment says. Secrets are kept out of the repr."""

    home: Path
    address: str | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    ca_file: Path | None = None
    log_level: str = "warning"
    boot_file: Path | None = None
    boot: str | None = field(default=None, repr=False)
    prices_file: Path | None = None
    coordinator: str | None = field(default=None, repr=False)
    inside: str | None = None
    private_address: str | None = None
    no_color: bool = False
    actor_relay: bool = False
    memory_guard: float = 0.95
    suspend_hooks_s: float = 10.0
    cuda_checkpoint: bool = False
    fly_token: str | None = field(default=None, repr=False)
    fly_base_url: str | None = None
    docker_host: str = ""
    runtime_dir: Path | None = None

    def read_token(self) -> str | None:
        """The token from RUNNER_TOKEN or else from RUNNER_TOKEN_FILE; None when neither is set.

        Raises:
            BadOptionsError: the file is missing, unreadable or empty: there is no falling back.
        """
        if self.token is not None:
            return self.token
        return None if self.token_file is None else read_secret(self.token_file, TOKEN_FILE)

    def read_ca(self) -> bytes | None:
        """The PEM bytes that RUNNER_CA names; None when it is not set.

        Raises:
            BadOptionsError: the file is unreadable or holds no certificate.
        """
        return None if self.ca_file is None else read_certificate(self.ca_file, CA)

    @property
    def clusters_dir(self) -> Path:
        """Where each cluster has its state directory."""
        return self.home / "clusters"


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environ` (default: this process's environment).

    An empty variable counts as not set.

    Raises:
        BadOptionsError: names the variable, what it holds (secrets aside) and what would do.
    """
    env = {key: value for key, value in (os.environ if environ is None else environ).items() if value}
    return Settings(
        home=_home(env),
        address=parse_address(env[ADDRESS], ADDRESS) if ADDRESS in env else None,
        token=_token(env[TOKEN]) if TOKEN in env else None,
        token_file=_path(env.get(TOKEN_FILE)),
        ca_file=_path(env.get(CA)),
        log_level=_log_level(env.get(LOG_LEVEL)),
        boot_file=_path(env.get(BOOT_FILE)),
        boot=env.get(BOOT),
        prices_file=_path(env.get(PRICES)),
        coordinator=env.get(COORDINATOR),
        inside=env.get(INSIDE),
        private_address=env.get(PRIVATE_ADDRESS),
        no_color=NO_COLOR in env,
        actor_relay=ACTOR_RELAY in env,
        memory_guard=_share(env.get(MEMORY_GUARD)),
        suspend_hooks_s=_hooks_s(env.get(SUSPEND_HOOKS_S)),
        cuda_checkpoint=_is_on(env.get(CUDA_CHECKPOINT), CUDA_CHECKPOINT),
        fly_token=env.get(FLY_API_TOKEN),
        fly_base_url=env.get(FLY_BASE_URL),
        docker_host=env.get(DOCKER_HOST, ""),
        runtime_dir=_path(env.get(XDG_RUNTIME_DIR)),
    )


def _share(text: str | None) -> float:
    if text is None:
        return Settings.memory_guard
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise BadOptionsError(f"{MEMORY_GUARD} is {text!r}; expected a share from 0 to 1, such as 0.95, or 0 for never")
    return share


def _hooks_s(text: str | None) -> float:
    if text is None:
        return Settings.suspend_hooks_s
    try:
        limit_s = float(text)
    except ValueError:
        limit_s = 0.0
    if not 0 < limit_s <= _HOOKS_S_MAX:
        raise BadOptionsError(
            f"{SUSPEND_HOOKS_S} is {text!r}; expected seconds, more than 0 and at most {_HOOKS_S_MAX:g}"
        )
    return limit_s


def _is_on(text: str | None, name: str) -> bool:
    if text not in (None, "0", "1"):
        raise BadOptionsError(f"{name} is {text!r}; expected 1 for on, or 0 for off")
    return text == "1"


def set_grpc_defaults() -> None:
    """What gRPC reads from the environment, unless the user has set it. Has to run before grpc is imported.

    Its own log lines stay out of the terminal: what they tell comes as a typed error. Its handlers of fork are off:
    with them a forked child of a client (a DataLoader worker) is aborted every few times (grpcio 1.85).
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def quiet_http_logs() -> None:
    """Keep the HTTP library's lines, several for each request, out of logs; who asks a provider logs what matters."""
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


def variable(name: str) -> str | None:
    """What the environment says by this name, for values that somebody names instead of telling them."""
    return os.environ.get(name)


def child_environment(import_folder: str) -> dict[str, str]:
    """This process's environment, for a Python child that is to find its packages in `import_folder` first."""
    return {**os.environ, "PYTHONPATH": import_path(import_folder)}


def import_path(import_folder: str) -> str:
    """PYTHONPATH of such a child."""
    others = os.environ.get("PYTHONPATH")
    return os.pathsep.join([import_folder, others] if others else [import_folder])


def forget_boot() -> None:
    """Take the boot configuration out of the environment, which processes started later inherit."""
    os.environ.pop(BOOT, None)


def mark_inside(machine_id: str) -> None:
    """From now on this process and those that it starts know that they are a machine's."""
    os.environ[INSIDE] = machine_id


def refuse_inside() -> None:
    """Machines boot no machines: a task that starts a cluster by mistake would do so once for each of its attempts.

    Guards against accidents, not against malice: what keeps a task from booting is that machines hold no provider's token.

    Raises:
        UsageError: this process runs on a machine of a cluster.
    """
    machine_id = os.environ.get(INSIDE)
    if machine_id:
        raise UsageError(
            f"this process runs on machine {machine_id} of a cluster, and machines boot no machines of their own; "
            f"inside a task runner.init() is the session that the task has: submit to that, or ask for more machines "
            f"where the cluster is started (Pool(max=...))"
        )


def parse_address(text: str, source: str) -> str:
    """Check `host:port` (or `[v6]:port`) and return it; `source` names where it came from in messages."""
    host, colon, port = text.strip().rpartition(":")
    bare_v6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not colon or not host or bare_v6 or not port.isdecimal() or not 0 < int(port) < 65536:
        raise BadOptionsError(f"{source} is {text!r}; expected host:port, such as 127.0.0.1:7420 or [::1]:7420")
    return f"{host}:{port}"


def read_secret(path: Path, source: str) -> str:
    """The stripped text of a file that holds one secret; never part of a message.

    Raises:
        BadOptionsError: missing, unreadable or empty.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadOptionsError(f"{source} names {path}, which cannot be read: {_reason(error)}") from None
    if not text:
        raise BadOptionsError(f"{source} names {path}, which is empty")
    return text


def read_certificate(path: Path, source: str) -> bytes:
    """The bytes of a PEM file with a certificate.

    Raises:
        BadOptionsError: missing, unreadable or something else.
    """
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise BadOptionsError(f"{source} names {path}, which cannot be read: {_reason(error)}") from None
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise BadOptionsError(f"{source} names {path}, which holds no PEM certificate; use the cluster's ca.pem")
    return pem


def _home(env: Mapping[str, str]) -> Path:
    if HOME in env:
        path = Path(env[HOME]).expanduser()
        if path.exists() and not path.is_dir():
            raise BadOptionsError(f"{HOME} is {env[HOME]!r}, which is not a directory")
        return path.absolute()
    try:
        return Path.home() / ".runner"
    except RuntimeError:  # no HOME and no passwd entry, as in bare containers
        raise BadOptionsError(f"there is no home directory; set {HOME} to a directory for runner's state") from None


def _token(text: str) -> str:
    token = text.strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise BadOptionsError(f"{TOKEN} holds characters that no token has; copy it again (it is not shown here)")
    return token


def _log_level(text: str | None) -> str:
    level = (text or "warning").lower()
    if level not in LOG_LEVELS:
        raise BadOptionsError(f"{LOG_LEVEL} is {text!r}; expected one of {', '.join(LOG_LEVELS)}")
    return level


def _path(text: str | None) -> Path | None:
    return Path(text).expanduser().absolute() if text else None


def _reason(error: Exception) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "it is not text"
