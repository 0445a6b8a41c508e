"""Placement groups: resources of one or more machines that are reserved together, or not at all. Ray's names and meanings."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runner.client.context import current_session, current_task
from runner.client.remote_function import RemoteFunction
from runner.core.gangs import BUNDLES_MAX, STRATEGIES
from runner.errors import BadOptionsError, BadTypeError
from runner.options import TaskOptions, parse_amount, parse_memory, to_units
from runner.util.scheduling_strategies import PlacementGroupSchedulingStrategy

if TYPE_CHECKING:
    from runner.objects.refs import ObjectRef
    from runner.rpc.gen import client_pb2, types_pb2

_UNITS = 10_000
_LOOK_S, _LOOKS = 0.02, 50  # a group that was just made may not be in the list yet


class GroupId(str):
    """The id of a placement group."""

    __slots__ = ()

    def hex(self) -> str:
        """Itself: what Ray's ids have."""
        return str(self)


class PlacementGroup:
    """A placement group, also one that another process has made."""

    def __init__(self, group_id: str, bundles: Sequence[Mapping[str, float]] | None = None) -> None:
        self._id = GroupId(group_id)
        self._bundles = None if bundles is None else [dict(bundle) for bundle in bundles]

    @property
    def id(self) -> GroupId:
        return self._id

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """What each bundle has."""
        if self._bundles is None:
            bundles = placement_group_table(self)["bundles"]
            self._bundles = [bundles[index] for index in sorted(bundles)]
        return self._bundles

    @property
    def bundle_count(self) -> int:
        """How many bundles it has."""
        return len(self.bundle_specs)

    def ready(self) -> ObjectRef[PlacementGroup]:
        """A ref that is ready when the group stands; fails with UnschedulableError when it never will."""
        options = TaskOptions(num_cpus=0, max_retries=-1, scheduling_strategy=PlacementGroupSchedulingStrategy(self))
        ref: ObjectRef[PlacementGroup] = RemoteFunction(_same, options).remote(self)
        return ref

    def wait(self, timeout_seconds: float | None = 30) -> bool:
        """Whether the group stands, at last after so many seconds (None: however long it takes).

        Raises:
            UnschedulableError: it never will.
            PlacementGroupRemovedError: it has been removed.
        """
        session = current_session()
        ref = self.ready()
        done, _ = session.wait([ref], 1, timeout_seconds)
        if done:
            session.get(ref)
        return bool(done)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and other._id == self._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"<placement group {self._id}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return PlacementGroup, (str(self._id), self._bundles)


def _same(group: PlacementGroup) -> PlacementGroup:
    return group


def placement_group(
    bundles: Sequence[Mapping[str, float]],
    strategy: str = "PACK",
    name: str = "",
    lifetime: str | None = None,
    deadline_s: float | None = None,
) -> PlacementGroup:
    """Reserve `bundles`, such as [{"CPU": 1, "GPU": 1}, {"CPU": 2}]; all of them or none. Returns at once.

    `strategy`: PACK (few machines), SPREAD (many), STRICT_PACK (one machine) or STRICT_SPREAD (a machine each). The group
    is removed with the session that made it, unless `lifetime` is "detached". One that does not stand after `deadline_s`
    seconds fails, at first and whenever a machine of it is lost.

    Raises:
        BadOptionsError: a value cannot work.
    """
    from runner.rpc.gen import client_pb2, types_pb2

    session = current_session()
    checked = _checked(bundles)
    if strategy not in STRATEGIES:
        raise BadOptionsError(f"strategy={strategy!r} cannot work: expected one of {', '.join(STRATEGIES)}.")
    if lifetime not in {None, "detached"}:
        raise BadOptionsError(f'lifetime={lifetime!r} cannot work: expected None or "detached".')
    if lifetime == "detached" and session.info.embedded:
        raise BadOptionsError(
            'lifetime="detached" needs a cluster that outlives this process: start one with `runner up` and connect'
            " with runner.init(address)."
        )
    group = PlacementGroup(session.outgoing.new_id("g"), bundles)
    create = client_pb2.CreateGroup(
        group_id=group.id,
        name=_checked_name(name),
        bundles=[types_pb2.Resources(amounts=amounts) for amounts in checked],
        strategy=strategy,
        deadline_s=_checked_deadline(deadline_s),
        detached=lifetime == "detached",
    )
    session._operate(client_pb2.Operation(create_group=create))
    return group


def remove_placement_group(group: PlacementGroup) -> None:
    """Give its resources back, and end what runs in it."""
    from runner.rpc.gen import client_pb2

    _check(group)
    remove = client_pb2.RemoveGroup(group_id=group.id)
    current_session()._operate(client_pb2.Operation(remove_group=remove))


def placement_group_table(group: PlacementGroup | None = None) -> dict[str, Any]:
    """What is known of all groups by their ids, or of this one: bundles, machines, strategy and state.

    `attempt` rises whenever the group comes to stand, so also after it has lost a machine.

    Raises:
        BadOptionsError: this cluster does not know the group.
    """
    if group is None:
        return {info.group_id: _row(info) for info in _list("")}
    _check(group)
    for _ in range(_LOOKS):
        for info in _list(group.id):
            return _row(info)
        time.sleep(_LOOK_S)
    raise BadOptionsError(f"{group!r} is not known in this cluster: it was removed long ago, or is another one's.")


def get_placement_group(name: str) -> PlacementGroup:
    """The group of this name that is not over.

    Raises:
        BadOptionsError: there is none.
    """
    for info in _list(""):
        if info.name == name and info.state not in {"removed", "failed"} and name:
            return PlacementGroup(info.group_id, [_amounts(bundle) for bundle in info.bundles])
    raise BadOptionsError(f"Failed to look up placement group {name!r}: there is none of this name.")


def get_current_placement_group() -> PlacementGroup | None:
    """The group that the calling task or actor runs in; None in none, and in clients."""
    task = current_task()
    return PlacementGroup(task.group_id) if task is not None and task.group_id else None


def _list(group_id: str) -> list[client_pb2.GroupInfo]:
    from runner.client.requests import ask
    from runner.rpc.gen import client_pb2

    request = client_pb2.ListGroupsRequest(group_id=group_id)
    return list(ask(current_session(), "ListGroups", request, client_pb2.ListGroupsReply).groups)


def _row(info: client_pb2.GroupInfo) -> dict[str, Any]:
    return {
        "placement_group_id": info.group_id,
        "name": info.name,
        "bundles": {index: _amounts(bundle) for index, bundle in enumerate(info.bundles)},
        "bundles_to_node_id": dict(enumerate(info.machine_ids)),
        "strategy": info.strategy,
        "state": info.state.upper(),
        "attempt": info.attempt,
        "reason": info.reason,
    }


def _amounts(bundle: types_pb2.Resources) -> dict[str, float]:
    from runner.options import from_units

    return from_units(bundle.amounts)


def _check(group: PlacementGroup) -> None:
    given: object = group
    if not isinstance(given, PlacementGroup):
        raise BadTypeError(f"{given!r} is no placement group.")


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise BadTypeError(f"name={name!r} cannot work: expected a text.")
    return name


def _checked_deadline(deadline_s: object) -> float:
    if deadline_s is None:
        return 0.0
    if not isinstance(deadline_s, int | float) or isinstance(deadline_s, bool) or not 0 < deadline_s < 1e9:
        raise BadOptionsError(f"deadline_s={deadline_s!r} cannot work: expected seconds > 0, or None.")
    return float(deadline_s)


def _checked(bundles: object) -> list[dict[str, int]]:
    """In wire units.

    Raises:
        BadOptionsError: a bundle holds nothing, or what cannot be.
    """
    if not isinstance(bundles, Sequence) or isinstance(bundles, str | bytes):
        raise BadTypeError(f'bundles={bundles!r} cannot work: expected a list such as [{{"CPU": 1}}].')
    if not 0 < len(bundles) <= BUNDLES_MAX:
        raise BadOptionsError(f"bundles has {len(bundles)} entries; expected 1 to {BUNDLES_MAX}.")
    return [_checked_bundle(f"bundles[{index}]", bundle) for index, bundle in enumerate(bundles)]


def _checked_bundle(name: str, bundle: object) -> dict[str, int]:
    if not isinstance(bundle, Mapping) or not all(isinstance(key, str) and key for key in bundle):
        raise BadTypeError(f'{name}={bundle!r} cannot work: expected a dict such as {{"CPU": 1}}.')
    amounts = {}
    for key, value in bundle.items():
        what = f"{name}[{key!r}]"
        amounts[key] = (parse_memory(what, value) or 0) if key == "memory" else to_units(parse_amount(what, value))
    amounts = {key: amount for key, amount in amounts.items() if amount}
    if not amounts:
        raise BadOptionsError(f"{name}={bundle!r} cannot work: it reserves nothing.")
    gpus = amounts.get("GPU", 0)
    if gpus > _UNITS and gpus % _UNITS:
        raise BadOptionsError(f"{name}: GPU is a fraction above 1; use a whole number or less than 1.")
    return amounts
