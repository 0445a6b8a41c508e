from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.client import context
from runner.client.session import Session
from tests.unit.client.memory import MemoryTransport, open_session


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[Session, MemoryTransport]]:
    session, transport = open_session(str(tmp_path))
    yield session, transport
    session.close(0.0)
    context.set_session(None)


@pytest.fixture
def session(opened: tuple[Session, MemoryTransport]) -> Session:
    return opened[0]


@pytest.fixture
def transport(opened: tuple[Session, MemoryTransport]) -> MemoryTransport:
    return opened[1]
