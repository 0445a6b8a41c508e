"""Volumes as caches: each machine mounts a free one of its region, or a new one."""

from __future__ import annotations

import asyncio

from runner.providers.fly.api import FlyApi
from runner.providers.fly.guest import Guest
from runner.providers.fly.model import Volume
from runner.providers.fly.options import CacheVolume


class VolumePool:
    """Hands each volume to one machine at a time. A volume is tied to one host, and so is the machine that mounts it."""

    def __init__(self, wanted: CacheVolume) -> None:
        self.wanted = wanted
        self._taken: set[str] = set()  # by boots under way: the API says `attached` only later
        self._turn = asyncio.Lock()

    async def take(self, api: FlyApi, region: str, guest: Guest, full: set[str]) -> Volume:
        """A volume for one boot in `region`, not one of `full` (those whose host had no room).

        Raises:
            FlyError: also with CAPACITY, where no host has room for a new one.
        """
        async with self._turn:
            for volume in await api.list_volumes():
                fits = volume.name == self.wanted.name and volume.region in region.split(",") and volume.is_free
                if fits and volume.id not in self._taken | full:
                    self._taken.add(volume.id)
                    return volume
        made = await api.create_volume(self.wanted.name, region=region, size_gb=self.wanted.size_gb, guest=guest)
        self._taken.add(made.id)
        return made

    def give_back(self, volume: Volume) -> None:
        """The boot is over: from here on the API tells whether a machine has it."""
        self._taken.discard(volume.id)
