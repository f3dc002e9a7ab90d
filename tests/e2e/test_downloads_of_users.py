"""Downloads into the store of a user: the same registry, the same bad wire, and no root in it.

Real: the user, their rootless podman on a file system of its own, the whole agent, systemd, the
registry with TLS and htpasswd, the service.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e import devices, lockedregistry
from tests.e2e.docks import (
    BROKEN_MIB,
    HEAVY_MIB,
    HOST,
    MIB,
    Dock,
    app,
    docked,
    push_heavy,
    secret,
)
from tests.e2e.test_applications_of_users import PACKAGES, as_user
from tests.e2e.yard import condition

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]

STORE, STORE_MIB = "/home", 320
AUTH_FILE = "/home/web/.config/containers/auth.json"
BEGUN = "/home/web/.cache/homeport/downloads"
SECRET = secret(path=AUTH_FILE, user="web", group="web")


@pytest.fixture(scope="module")
def dock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dock]:
    with docked(tmp_path_factory.mktemp("dock"), STORE, STORE_MIB, PACKAGES) as dock:
        registry = dock.yard.site.registry
        push_heavy(registry, "v1", [os.urandom(HEAVY_MIB * MIB)])
        push_heavy(registry, "v2", [os.urandom(2 * MIB)])
        push_heavy(registry, "swells", [bytes(MIB)] * (STORE_MIB + 100))
        dock.device.exec("useradd", "--create-home", "web", check=True)
        dock.device.write("/var/lib/systemd/linger/web", "")
        yield dock


def test_without_a_secret_the_version_is_refused_and_the_users_file_is_named(dock: Dock) -> None:
    status = dock.yard.declare(applications=[app("v1", runAs="web")])
    message = condition(status)["message"]
    assert "While Preparing: prefetch failed for web: authentication failed" in message
    assert f"{HOST} does not let this device have it, credentials go into {AUTH_FILE}" in message


def test_a_broken_layer_goes_on_where_it_was_and_root_has_nothing_of_it(dock: Dock) -> None:
    """The secret comes with the version, and is nowhere else; the agent is killed in between."""
    dock.wire.break_after(BROKEN_MIB * MIB, stays_down=True)
    dock.yard.order(applications=[app("v1", runAs="web")], config=SECRET)
    begun, before = dock.broken(BEGUN)
    assert begun > MIB
    assert dock.has_begun() == 0
    assert dock.device.exec("find", BEGUN, "!", "-user", "web").out == ""
    dock.goes_on(begun, before)
    assert dock.device.read(AUTH_FILE) == lockedregistry.auth(HOST)
    assert dock.device.exec("ls", BEGUN).out == "", "nothing of it is left"
    left = as_user(dock.yard, "web", "find", "/run/user", "-name", "homeport-*", check=False)
    assert left == "", "the secret is in its own file only"
    assert f"{HOST}/heavy" not in dock.device.podman("images").out


def test_a_home_that_fills_up_stops_the_download_and_nothing_else(dock: Dock) -> None:
    dock.stopped_for_room(app("swells", runAs="web"), SECRET)
    dock.yard.serves(8081, "web v1\n")
    dock.has_room_again(STORE_MIB / 3)
    status = dock.yard.declare(120, applications=[app("v2", runAs="web")], config=SECRET)
    assert condition(status)["reason"] == "Updated", condition(status)
    dock.yard.serves(8081, "web v2\n")
