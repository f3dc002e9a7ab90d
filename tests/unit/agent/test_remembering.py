"""The last configuration with which the service was reached."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import config, configfiles, remembering
from tests.fakes.clocked_world import ClockedWorld

PATH = "/var/lib/flightctl/homeport/manageable.json"
CA = "/etc/flightctl/certs/ca.crt"


@pytest.fixture
def device(tmp_path: Path) -> ClockedWorld:
    made = ClockedWorld(tmp_path)
    made.put(CA, "the authority")
    return made


def configured(device: ClockedWorld, server: str, **more: Any) -> config.Settings:
    place = {"server": server, "certificate-authority": "certs/ca.crt", **more}
    document = {"enrollment-service": {"service": place}, "log-level": "warn"}
    device.put(config.CONFIG_FILE, yaml.safe_dump(document))
    return configfiles.load(device)


def reached(device: ClockedWorld, server: str = "https://a") -> None:
    settings = configured(device, server)
    remembering.Memory(device, settings).keep(settings.management.each()[0])


def test_what_was_reached_is_kept_for_root_alone_and_written_once(device: ClockedWorld) -> None:
    reached(device)
    place = device.path(PATH)
    before = place.stat()
    assert before.st_mode & 0o777 == 0o600
    reached(device)
    assert place.stat().st_ino == before.st_ino


def test_a_configuration_that_leads_to_the_same_place_needs_no_other(device: ClockedWorld) -> None:
    reached(device)
    assert remembering.Memory(device, configured(device, "https://a")).service() is None


def test_another_address_and_another_authority_leave_the_old_way_known(
    device: ClockedWorld,
) -> None:
    reached(device)
    old = remembering.Memory(device, configured(device, "https://b")).service()
    assert old is not None
    assert (old.server, old.authority.load(device)) == ("https://a", b"the authority")
    assert old.certificate.path == "/var/lib/flightctl/certs/agent.crt"
    device.put(CA, "a wrong one")
    old = remembering.Memory(device, configured(device, "https://a")).service()
    assert old is not None
    assert old.authority.load(device) == b"the authority"


def test_the_address_that_answered_is_the_one_that_is_kept(device: ClockedWorld) -> None:
    settings = configured(device, "https://a", **{"fallback-servers": ["https://a2"]})
    remembering.Memory(device, settings).keep(settings.management.each()[1])
    old = remembering.Memory(device, configured(device, "https://b")).service()
    assert old is not None
    assert (old.server, old.fallbacks) == ("https://a2", ())


def test_in_the_place_of_a_configuration_that_is_none(device: ClockedWorld) -> None:
    reached(device)
    settings = remembering.instead(
        device, config.CONFIG_FILE, config.DATA_DIR, config.ConfigError("x", "not YAML")
    )
    assert settings is not None
    assert (settings.management.server, settings.log_level) == ("https://a", "warn")
    assert "x: not YAML; the last one with which the service was reached" in settings.warnings[0]


@pytest.mark.parametrize(
    "raw",
    [b"", b"a: [", b"\xff", b"- 1", b"document: {}", b"{document: 1, server: a, authority: ''}"],
)
def test_a_damaged_memory_is_none(device: ClockedWorld, raw: bytes) -> None:
    device.put(PATH, raw)
    trouble = config.ConfigError("x", "y")
    assert remembering.instead(device, config.CONFIG_FILE, config.DATA_DIR, trouble) is None
    assert remembering.Memory(device, configured(device, "https://b")).service() is None


def test_inline_credentials_are_kept_and_are_in_no_representation(device: ClockedWorld) -> None:
    secret = base64.b64encode(b"hunter2").decode()
    document = {
        "enrollment-service": {
            "service": {"server": "https://a"},
            "authentication": {"client-key-data": secret},
        }
    }
    device.put(config.CONFIG_FILE, yaml.safe_dump(document))
    settings = configfiles.load(device)
    remembering.Memory(device, settings).keep(settings.management)
    again = remembering.instead(device, config.CONFIG_FILE, config.DATA_DIR, OSError("gone"))
    assert again is not None
    assert again.enrollment.key.load(device) == b"hunter2"
    assert secret not in repr(settings)
    assert "hunter2" not in repr(settings)
