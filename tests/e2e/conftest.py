"""What a test of one device begins with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
