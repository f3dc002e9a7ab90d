"""What tests of an agent that calls a service begin with."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.fakes import agent_rig
from tests.fakes.clocked_world import START


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[agent_rig.Rig]:
    """At the present time, as certificates want it, and with polls that are held for a moment."""
    with agent_rig.rigged(tmp_path) as made:
        made.world.offset_s = (datetime.now(UTC) - START).total_seconds()
        made.service.hold_s = 0.05
        yield made
