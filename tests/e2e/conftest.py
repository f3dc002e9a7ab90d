"""What tests of devices begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import harbour as harbours
from tests.e2e.service import Service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """One that runs; `test_up` has one of its own, for there it is what is tested."""
    service = Service(tmp_path / "service")
    try:
        service.start()
        yield service
    finally:
        service.stop()


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[harbours.Harbour]:
    with harbours.opened(tmp_path_factory.mktemp("harbour")) as harbour:
        yield harbour
