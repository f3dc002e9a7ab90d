"""The agent side of the service, listening; and servers that configuration comes from, of the real
kind, for the tests of what is made of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.fakes import agent_service, file_server, git_server, host_cluster
from tests.fakes.agent_service import AgentService
from tests.fakes.file_server import FileServer
from tests.fakes.git_server import GitServer
from tests.fakes.host_cluster import Cluster
from tests.fakes.sources_rig import PASSWORD


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[AgentService]:
    async with agent_service.serving(tmp_path) as running:
        yield running


@pytest.fixture
async def anywhere(tmp_path: Path, database_url: str) -> AsyncIterator[AgentService]:
    """On both stores."""
    async with agent_service.serving(tmp_path, database=database_url) as running:
        yield running


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    with git_server.running(tmp_path_factory.mktemp("git") / "server") as server:
        yield server


@pytest.fixture
def files(tmp_path: Path) -> Iterator[FileServer]:
    with file_server.running(tmp_path, password=PASSWORD) as server:
        yield server


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with host_cluster.running(tmp_path) as found:
        yield found
