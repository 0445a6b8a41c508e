"""The machines of a cluster at Fly, seen from a laptop: finding them, and ending them all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from runner.errors import ProviderError
from runner.providers.fly.api import FlyApi
from runner.providers.fly.connection import Connection, shared_limiter
from runner.providers.fly.errors import FlyError
from runner.providers.fly.failures import explain
from runner.providers.fly.model import Machine
from runner.providers.fly.options import FlyOptions
from runner.providers.fly.records import CLUSTER_TAG, GONE_STATES

# Not the workers' tag: the coordinator's own sweeper would take its machine for one of them.
COORDINATOR_TAG = "runner_coordinator"
GONE_S = 90.0
_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Left:
    """What `end` found."""

    destroyed: tuple[str, ...]  # machines that it had to destroy itself


def open_api(options: FlyOptions, transport: httpx.AsyncBaseTransport | None = None) -> FlyApi:
    """The API of the options' app, inside the running loop; to be closed with `api.connection.close()`."""
    limiter = shared_limiter(options.base_url, options.rates)
    connection = Connection(options.base_url, options.token, limiter, transport=transport, trust_env=options.is_real)
    return FlyApi(connection, options.app)


async def end(
    options: FlyOptions, cluster_id: str, *, patience_s: float, transport: httpx.AsyncBaseTransport | None = None
) -> Left:
    """See that no machine of the cluster is left: wait `patience_s` for the coordinator's own end, then destroy what there is.

    Raises:
        ProviderError: some could not be destroyed; it names them.
    """
    api = open_api(options, transport)
    try:
        await _gone(api, (COORDINATOR_TAG,), cluster_id, patience_s)
        # The coordinator first: it would replace its workers.
        destroyed = await _destroy(api, COORDINATOR_TAG, cluster_id)
        destroyed += await _destroy(api, CLUSTER_TAG, cluster_id)
        # What it was just creating may show up a little later.
        until_s = asyncio.get_running_loop().time() + (options.lag_s if destroyed else 0.0)
        while asyncio.get_running_loop().time() < until_s:
            await asyncio.sleep(_POLL_S)
            destroyed += await _destroy(api, CLUSTER_TAG, cluster_id)
        left = await _gone(api, (COORDINATOR_TAG, CLUSTER_TAG), cluster_id, GONE_S)
        if left:
            names = ", ".join(f"{each.id} ({each.state})" for each in left)
            raise failed("destroy", f"of cluster {cluster_id}", f"still there: {names}", "try `runner down` again")
    except FlyError as error:
        raise explain("destroy", f"of cluster {cluster_id}", error, app=options.app) from None
    finally:
        await api.connection.close()
    return Left(tuple(dict.fromkeys(destroyed)))


async def _destroy(api: FlyApi, tag: str, cluster_id: str) -> list[str]:
    """Destroy what carries the tag and is there; the machines that it hit."""
    found = await machines_of(api, (tag,), cluster_id)
    return [each.id for each in found if await api.machines.destroy(each.id, force=True)]


async def _gone(api: FlyApi, tags: Sequence[str], cluster_id: str, patience_s: float) -> list[Machine]:
    """Wait until no machine of the cluster with one of the tags is left; what is after `patience_s`."""
    until_s = asyncio.get_running_loop().time() + patience_s
    left = await machines_of(api, tags, cluster_id)
    while left and asyncio.get_running_loop().time() < until_s:
        await asyncio.sleep(_POLL_S)
        left = await machines_of(api, tags, cluster_id)
    return left


async def machines_of(api: FlyApi, tags: Sequence[str], cluster_id: str) -> list[Machine]:
    """Those of the cluster that carry one of the tags and are not gone."""
    found = [each for tag in tags for each in await api.machines.list({tag: cluster_id})]
    return [each for each in found if each.state not in GONE_STATES]


def failed(phase: str, name: str, saw: str, advice: str) -> ProviderError:
    """In the usual order: what failed, which one, what was seen, what to do next."""
    return ProviderError(f"{phase} of machine {name} failed: {saw}; {advice}", phase=phase, machine_id=name)
