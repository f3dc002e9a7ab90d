"""Applications that run for a user of the device: their own podman and systemd, and no root in it.

Real: the users, their systemd managers, rootless podman with its own storage, subordinate ids and
network (pasta), the quadlet generator for users, the registry, the service. One device for all
tests of this module; each begins with what the one before it has left.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import devices, processes
from tests.e2e.test_applications import (
    REGISTRY,
    as_another_agent_left_it,
    container,
    put_images,
    quadlet,
    volume,
)
from tests.e2e.yard import Yard, application, condition, updated

Json = dict[str, Any]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]

# What rootless podman needs beside podman, and what starts the systemd of a user.
PACKAGES = ("uidmap", "passt", "libpam-systemd", "dbus-user-session")
PAGE_FOLDER = "/home/web/.config/containers/systemd/page"
SIGN = "/home/web/.config/sign/words"


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("yard")
    with Yard(folder, packages=PACKAGES, tells_too=how_it_is_for_its_user) as yard:
        put_images(yard)
        yield yard


def as_user(yard: Yard, user: str, *argv: str, check: bool = True) -> str:
    """What a command of the user's prints."""
    uid = yard.device.exec("id", "-u", user, check=check).out.strip()
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--", "env"]
    own = [f"--chdir=/home/{user}", f"HOME=/home/{user}", f"XDG_RUNTIME_DIR=/run/user/{uid}"]
    return yard.device.exec(*become, *own, *argv, check=check).out


def running(yard: Yard, user: str) -> list[str]:
    listed = as_user(yard, user, "podman", "ps", "--format", "{{.Names}}")
    return sorted(listed.split())


def how_it_is_for_its_user(yard: Yard) -> str:
    listed = as_user(yard, "web", "podman", "ps", "--all", check=False)
    units = as_user(yard, "web", "systemctl", "--user", "--no-pager", "list-jobs", check=False)
    return f"{listed}\n{units}"


def pages(tag: str = "v1") -> list[Json]:
    """A volume of the container's own, and one that is filled."""
    model = {"name": "model", "mount": {"path": "/model"}, **volume(f"{REGISTRY}/model:{tag}")[0]}
    return [model, {"name": "logs", "mount": {"path": "/www/logs"}}]


def test_a_user_who_is_not_there_or_does_not_linger_refuses_the_version(yard: Yard) -> None:
    status = yard.declare(applications=[container(runAs="web")])
    message = condition(status)["message"]
    assert "While Preparing: applications failed for web: required resource not found" in message
    assert "runAs: no user 'web' here; useradd --create-home web" in message
    for user in ("web", "ops"):
        yard.device.exec("useradd", "--create-home", user, check=True)
    status = yard.declare(applications=[container("v2", runAs="web")])
    assert "does not linger; loginctl enable-linger web" in condition(status)["message"]
    # NB loginctl asks for a session, which a command from outside the device has not.
    for user in ("web", "ops"):
        yard.device.write(f"/var/lib/systemd/linger/{user}", "")


def test_container_and_quadlets_run_in_the_users_podman_and_systemd(yard: Yard) -> None:
    device = yard.device
    tell = container(runAs="web", image=f"{REGISTRY}/tell:v1", volumes=pages())
    of_image = volume(f"{REGISTRY}/model-image:v1")
    status = updated(yard.declare(applications=[tell, quadlet(runAs="web", volumes=of_image)]))
    yard.serves(8081, "model v1\n", "/model.txt")
    yard.serves(8082, "tell v1\n")
    yard.serves(8082, "env one 'two' %three\n", "/env.txt")
    yard.serves(8082, "model of an image\n", "/model.txt")
    for name in ("web", "page"):
        found = application(status, name)
        assert (found["status"], found["ready"], found["runAs"]) == ("Running", "1/1", "web")
    assert running(yard, "web") == [
        "systemd-page-web-406870-page",
        "systemd-web-web-308229-app",
    ]
    # Nothing of it is root's: no container, no image, no unit.
    assert device.podman("ps", "--all", "--quiet").out == ""
    assert f"{REGISTRY}/tell" not in device.podman("images").out
    assert device.exec("find", "/etc/containers/systemd", "-type", "f").out == ""
    wrong = device.exec("find", "/home/web/.config", "!", "-user", "web").out
    assert wrong == ""


def told(yard: Yard) -> list[Json]:
    """What `doctor` says of users."""
    report = json.loads(yard.device.exec("flightctl-agent", "doctor", "-o", "json").out)
    return [one for one in report["findings"] if one["check"] == "users"]


def test_the_doctor_sees_what_a_user_has_and_what_they_lack(yard: Yard) -> None:
    assert [one["level"] for one in told(yard)] == ["ok"], told(yard)
    ranges = yard.device.read("/etc/subuid")
    yard.device.write("/etc/subuid", ranges.replace("web:", "gone:"))
    (one,) = told(yard)
    assert one["level"] == "error"
    assert "web has no numbers for containers in /etc/subuid" in one["message"]
    # The hint is a command that can be run as it is, and is what mends it.
    yard.device.exec("sh", "-c", one["hint"].partition(";")[0], check=True)
    assert [one["level"] for one in told(yard)] == ["ok"]
    yard.device.write("/etc/subuid", ranges)


def test_a_version_that_fails_is_taken_back_with_its_last_words(yard: Yard) -> None:
    message = condition(yard.declare(applications=[quadlet("broken", runAs="web")]))["message"]
    assert "applications failed for page" in message
    assert "no database here" in message
    yard.serves(8082, "tell v1\n")
    yard.serves(8082, "model of an image\n", "/model.txt")
    yard.serves(8081, "model v1\n", "/model.txt")


def test_what_somebody_does_to_it_is_undone(yard: Yard) -> None:
    as_user(yard, "web", "podman", "rm", "--force", "--time", "0", "systemd-page-web-406870-page")
    path = "/home/web/.config/containers/systemd/web/web-web-308229-app.container"
    yard.device.write(path, yard.device.read(path).replace("8081", "8099"))
    processes.until(
        lambda: "8099" not in yard.device.read(path),
        "the file is as it should be",
        timeout_s=60,
        state=yard.how_it_is,
    )
    yard.serves(8082, "tell v1\n")
    yard.serves(8081, "model v1\n", "/model.txt")
    assert yard.device.path(path).stat().st_uid != 0


def test_a_link_in_a_home_leads_root_nowhere(yard: Yard) -> None:
    device = yard.device
    device.write("/etc/victim/keep.container", "not yours\n")
    as_user(yard, "web", "mv", PAGE_FOLDER, "/home/web/mine")
    as_user(yard, "web", "ln", "-s", "/etc/victim", PAGE_FOLDER)
    processes.until(
        lambda: "as web:" in device.journal(60),
        "the agent has met the link",
        timeout_s=60,
        state=yard.how_it_is,
    )
    assert device.exec("ls", "/etc/victim").out == "keep.container\n"
    as_user(yard, "web", "rm", PAGE_FOLDER)
    processes.until(
        lambda: device.path(PAGE_FOLDER).is_dir(),
        "the folder is there again",
        timeout_s=60,
        state=yard.how_it_is,
    )
    yard.serves(8082, "tell v1\n")


def signed(words: str) -> list[Json]:
    file = {"path": SIGN, "content": f"{words}\n", "user": "web", "group": "web"}
    return [{"name": "sign", "inline": [file]}]


def test_a_configuration_file_in_a_home_is_kept_and_no_link_leads_root_out(yard: Yard) -> None:
    device = yard.device
    tell = container(runAs="web", image=f"{REGISTRY}/tell:v1", volumes=pages())
    of_image = volume(f"{REGISTRY}/model-image:v1")
    apps = [tell, quadlet(runAs="web", volumes=of_image)]
    updated(yard.declare(applications=apps, config=signed("one")))
    owner = device.exec("stat", "--format", "%U %a", SIGN, check=True).out
    assert (device.read(SIGN), owner) == ("one\n", "web 644\n")
    folder = SIGN.rpartition("/")[0]
    as_user(yard, "web", "mv", folder, f"{folder}-mine")
    as_user(yard, "web", "ln", "-s", "/etc/victim", folder)
    processes.until(
        lambda: "is a link that root does not follow" in device.journal(60),
        "the agent has met the link",
        timeout_s=60,
        state=yard.how_it_is,
    )
    message = condition(yard.declare(applications=apps, config=signed("two")))["message"]
    assert f"config failed for {SIGN}: permission denied: {folder} is a link" in message
    assert device.exec("ls", "/etc/victim").out == "keep.container\n"
    as_user(yard, "web", "rm", folder)
    processes.until(
        lambda: device.path(SIGN).is_file() and device.read(SIGN) == "one\n",
        "the file is there again",
        timeout_s=60,
        state=yard.how_it_is,
    )
    updated(yard.declare(applications=apps))
    assert not device.path(SIGN).exists()


def test_an_agent_killed_in_between_goes_on_and_all_comes_back_after_a_reboot(yard: Yard) -> None:
    device = yard.device
    begun = len(device.journal(4000).split("'do': 'StopApp'"))
    tell = container(runAs="web", image=f"{REGISTRY}/tell:v2", volumes=pages("v2"))
    yard.order(applications=[tell, quadlet("v2", runAs="web")])
    processes.until(
        lambda: len(device.journal(4000).split("'do': 'StopApp'")) > begun,
        "it has begun to stop things",
        timeout_s=60,
        every_s=0.02,
        state=yard.how_it_is,
    )
    device.kill_agent()
    device.start_agent()
    yard.serves(8082, "tell v2\n")
    yard.serves(8082, "model v1\n", "/model.txt")
    yard.serves(8081, "model v2\n", "/model.txt")
    updated(yard.settled())
    device.cut()
    device.reboot()
    yard.serves(8082, "tell v2\n")
    yard.serves(8081, "model v2\n", "/model.txt")
    device.mend()
    yard.until_healthy()


def test_it_is_stopped_started_and_restarted_from_the_service(yard: Yard) -> None:
    def ask(action: str) -> None:
        yard.site.service.homeport("app", action, f"device/{yard.uid}", "--name", "page")

    def identity() -> str:
        name = "name=page-web-406870"
        return as_user(yard, "web", "podman", "ps", "--filter", name, "--format", "{{.ID}}")

    ask("stop")
    processes.until(
        lambda: application(yard.status(), "page").get("status") == "Stopped" and not identity(),
        "page is stopped",
        timeout_s=60,
        state=yard.how_it_is,
    )
    ask("start")
    yard.serves(8082, "tell v2\n")
    before = identity()
    ask("restart")
    processes.until(
        lambda: identity() not in ("", before),
        "page is restarted",
        timeout_s=60,
        state=yard.how_it_is,
    )
    updated(yard.settled())


def test_what_another_agent_ran_for_a_user_is_taken_over_without_a_restart(yard: Yard) -> None:
    device = yard.device
    tell = container(runAs="web", image=f"{REGISTRY}/tell:v2", volumes=pages("v2"))
    apps = [tell, quadlet("v2", runAs="web")]
    updated(yard.declare(applications=apps, config=signed("ours")))
    yard.until_healthy()

    def containers() -> list[str]:
        form = "{{.ID}} {{.Names}} {{.StartedAt}}"
        return sorted(
            as_user(yard, "web", "podman", "ps", "--no-trunc", "--format", form).splitlines()
        )

    before = containers()
    assert len(before) == 2
    form = "{{.Mountpoint}}"
    volume = as_user(
        yard, "web", "podman", "volume", "inspect", "--format", form, "web-logs-308068"
    )
    device.stop_agent()
    home = "/home/web/.config"
    as_another_agent_left_it(yard, [f"{home}/containers"], f"{home}/systemd/user", owner="web")
    as_user(yard, "web", "systemctl", "--user", "daemon-reload")
    as_user(yard, "web", "sh", "-c", f"echo by the application >{volume.strip()}/kept")
    device.start_agent()
    # A look that mends a file has planned everything else too.
    as_user(yard, "web", "sh", "-c", f"echo theirs >{SIGN}")
    processes.until(
        lambda: device.read(SIGN) == "ours\n",
        "a look was taken",
        timeout_s=60,
        state=yard.how_it_is,
    )
    yard.until_healthy()
    assert containers() == before
    # What changes then is made anew, with its volumes, and nothing else.
    updated(yard.declare(applications=[tell, quadlet("v1", runAs="web")], config=signed("ours")))
    yard.serves(8082, "tell v1\n")
    assert set(before) - set(containers()) == {one for one in before if "page-web-406870" in one}
    assert device.read(f"{volume.strip()}/kept") == "by the application\n"
    # The other agent's bytes are right until somebody changes them.
    path = f"{home}/containers/systemd/web/web-web-308229-app.container"
    assert device.read(path).startswith("# by another agent")
    device.write(path, device.read(path).replace("8081", "8099"))
    processes.until(
        lambda: "8099" not in device.read(path) and "another" not in device.read(path),
        "it is ours now",
        timeout_s=60,
        state=yard.how_it_is,
    )
    yard.serves(8081, "model v2\n", "/model.txt")
    owners = device.exec("find", f"{home}/containers", f"{home}/systemd", "!", "-user", "web").out
    assert owners == ""
    updated(yard.declare(applications=apps))


def test_for_another_user_it_is_gone_there_and_made_here(yard: Yard) -> None:
    status = updated(yard.declare(applications=[container("v3", runAs="ops"), quadlet("v2")]))
    yard.serves(8081, "web v3\n")
    yard.serves(8082, "tell v2\n")
    assert application(status, "web")["runAs"] == "ops"
    assert running(yard, "web") == []
    assert [name.startswith("systemd-web-ops-") for name in running(yard, "ops")] == [True]
    assert "systemd-page-336246-page" in yard.device.podman("ps", "--format", "{{.Names}}").out
    left = yard.device.exec("find", "/home/web/.config/containers/systemd", "-type", "f").out
    assert left == ""


def test_all_is_removed_and_the_volumes_stay(yard: Yard) -> None:
    updated(yard.declare(applications=[]))
    for user in ("web", "ops"):
        assert as_user(yard, user, "podman", "ps", "--all", "--quiet") == ""
        units = as_user(yard, user, "systemctl", "--user", "list-units", "--all", "--no-legend")
        assert "flightctl-quadlet-app" not in units
        places = [f"/home/{user}/.config/containers/systemd", f"/home/{user}/.config/systemd/user"]
        assert yard.device.exec("find", *places, "-type", "f").out == ""
    networks = as_user(yard, "web", "podman", "network", "ls", "--format", "{{.Name}}")
    assert networks.split() == ["podman"]
    volumes = as_user(yard, "web", "podman", "volume", "ls", "--format", "{{.Name}}")
    assert "systemd-page-web-406870-data" in volumes
    assert "web-logs-308068" in volumes
