"""Machines at Fly, through its Machines REST API; `openapi.yaml` is the description that client and simulator are held to.

See runner.providers.registry for what a provider's module has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.providers.fly.options import parse_options
from runner.providers.fly.provider import FlyProvider
from runner.providers.registry import Place

__all__ = ["FlyProvider", "check_options", "make"]


def check_options(options: Mapping[str, Any]) -> None:
    """See runner.providers.registry; the options are the fields of runner.providers.fly.options.FlyOptions.

    Raises:
        BadOptionsError: an unknown option or a value that cannot work.
    """
    parse_options(options)


def make(place: Place) -> FlyProvider:
    """See runner.providers.registry."""
    return FlyProvider(parse_options(place.options), place)
