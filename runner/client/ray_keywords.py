"""Keywords of `ray.init` that mean nothing here: taken, so that programs need not be changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# There is no dashboard and no log configuration to set, and a second `init` returns the session that there is.
WITHOUT_MEANING = frozenset(
    {
        "configure_logging",
        "dashboard_host",
        "dashboard_port",
        "ignore_reinit_error",
        "include_dashboard",
        "logging_format",
        "logging_level",
    }
)


def check_ray_keywords(given: Mapping[str, Any]) -> None:
    """Refuse all others.

    Raises:
        TypeError: an unknown keyword; as Python says it.
    """
    for name in given:
        if name == "namespace":
            raise TypeError(
                "init() takes no namespace=: names of actors are the whole cluster's. Give namespace= with the actor's name:"
                " Actor.options(name=..., namespace=...), runner.get_actor(name, namespace)."
            )
        if name not in WITHOUT_MEANING:
            raise TypeError(f"init() got an unexpected keyword argument {name!r}")
