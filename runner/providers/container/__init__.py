"""Machines as containers, through the API that Docker and Podman serve."""

from runner.providers.container.options import check_options
from runner.providers.container.provider import make

__all__ = ["check_options", "make"]
