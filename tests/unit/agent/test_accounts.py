"""For whom an application may run, and how a command of root's becomes a command of theirs."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from agent import errors, quadlet, settings, walking, world
from agent.accounts import LINGERING, Accounts, argv_as
from agent.images import Stores
from agent.linux import LinuxWorld
from agent.places import Look, Places
from agent.pulling import Pulling
from agent.pulse import Pulse
from agent.quadletapps import QuadletApps
from agent.throttle import Throttle
from tests.fakes.clocked_world import ClockedWorld

PASSWD = """root:x:0:0:root:/root:/bin/sh
toor:x:0:0:root:/root:/bin/sh
web:x:1001:1002::/home/web:/bin/sh
bare:x:1003:1003::/:/bin/sh
"""


@pytest.fixture
def where(tmp_path: Path) -> ClockedWorld:
    made = ClockedWorld(tmp_path)
    made.put("/etc/passwd", PASSWD)
    made.mkdir("/root")
    made.mkdir("/home/web")
    made.put(f"{LINGERING}/web", "")
    made.put(f"{LINGERING}/gone", "")
    made.answer = lambda argv: world.Completed(argv, 0, "", "")
    return made


@pytest.mark.parametrize("user", ["", "web", "1001"])
def test_who_is_there_and_lingers_may_run_applications(where: ClockedWorld, user: str) -> None:
    assert Accounts(where).objection(user, "app") is None


@pytest.mark.parametrize(
    ("user", "cause", "words"),
    [
        ("gone", errors.NOT_FOUND, "runAs: no user 'gone' here; useradd --create-home gone"),
        ("toor", errors.INVALID_ARGUMENT, "runAs: 'toor' is root; leave it out"),
        ("bare", errors.FAILED_PRECONDITION, "has no home; mkhomedir_helper bare"),
    ],
)
def test_who_may_not_is_told_why_and_what_to_do(
    where: ClockedWorld, user: str, cause: str, words: str
) -> None:
    found = Accounts(where).objection(user, "app")
    assert found is not None
    assert (found.cause, found.element) == (cause, "app")
    assert words in found.detail


def test_who_does_not_linger_is_told_how_to(where: ClockedWorld) -> None:
    where.remove(f"{LINGERING}/web")
    found = Accounts(where).objection("web", "app")
    assert found is not None
    assert "loginctl enable-linger web" in found.detail


def test_only_people_who_are_there_linger(where: ClockedWorld) -> None:
    assert [account.name for account in Accounts(where).lingering()] == ["web"]


def test_a_command_of_a_user_wakes_their_systemd_once(where: ClockedWorld) -> None:
    accounts = Accounts(where)
    accounts.run("web", ["podman", "ps"], timeout_s=1)
    assert where.commands[0] == ("systemctl", "start", "user@1001.service")
    where.commands.clear()
    where.put("/run/user/1001/systemd/private", "")
    accounts.systemctl("web", ["systemctl", "show"], timeout_s=1)
    (argv,) = where.commands
    assert argv[:3] == ("setpriv", "--reuid=1001", "--regid=1002")
    assert argv[-3:] == ("systemctl", "--user", "show")
    assert "XDG_RUNTIME_DIR=/run/user/1001" in argv
    assert "--chdir=/home/web" in argv


def test_a_user_who_puts_links_about_breaks_what_is_theirs_alone(where: ClockedWorld) -> None:
    """Over a link that root does not follow nothing is seen, and the user is asked themselves."""
    where._walk = walking.Walk(str(where.path("/")), os.geteuid())
    places = Places(where, accounts := Accounts(where))
    apps = QuadletApps(where, accounts, places, Pulse(where, accounts))
    assert apps.users([], {}) == ()
    for folder, link in (("/run/user/1001", "systemd"), ("/home/web", ".config")):
        where.mkdir(folder)
        where.path(folder).chmod(0o777)
        where.path(f"{folder}/{link}").symlink_to("/etc")
    web = accounts.of("web")
    assert web is not None
    assert not accounts.is_up(web)
    assert accounts.objection("web", "app") is None
    assert apps.users([], {}) == ("web",)
    where.path("/home").chmod(0o777)
    where.path("/home/web").rename(where.path("/home/moved"))
    where.path("/home/web").symlink_to("moved")
    assert accounts.objection("web", "app") is None


def test_nothing_is_run_for_somebody_who_is_not_there(where: ClockedWorld) -> None:
    answer = Accounts(where).run("gone", ["rm", "-rf", "x"], timeout_s=1)
    assert (answer.status, where.commands) == (world.NOT_STARTED, [])


@pytest.mark.skipif(bool(os.geteuid()), reason="becoming somebody else needs root")
def test_a_command_is_really_run_as_the_user_with_their_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    nobody = pwd.getpwnam("nobody")
    account = world.Account("nobody", nobody.pw_uid, nobody.pw_gid, "/")
    code = "import os; print(os.getuid(), os.getgid(), os.getgroups(), dict(os.environ))"
    argv = argv_as(account, ["/usr/bin/env", "python3", "-c", code])
    answer = LinuxWorld().run(argv, timeout_s=20)
    assert answer.ok, answer
    assert answer.stdout.startswith(f"{nobody.pw_uid} {nobody.pw_gid} [{nobody.pw_gid}] ")
    assert f"'XDG_RUNTIME_DIR': '/run/user/{nobody.pw_uid}'" in answer.stdout
    assert "'HTTPS_PROXY': 'http://127.0.0.1:1'" in answer.stdout
    assert "NOTIFY_SOCKET" not in answer.stdout


def test_what_was_somebodys_who_is_gone_is_never_roots(where: ClockedWorld) -> None:
    accounts = Accounts(where)
    places, site = Places(where, accounts), quadlet.ROOT_SITE
    assert places.site("") == site
    assert places.site("gone") != site
    assert places.look("gone", [site.units]) == Look()
    content = {f"{site.units}/a.container": (b"x", 0o644)}
    with pytest.raises(errors.Retry, match="there is no user gone"):
        places.put("gone", content, folder="", app="app")
    pulls = Pulling(where, settings.LoopSettings(), Throttle(0))
    stores = Stores(where, pulls, accounts)
    assert stores.of("gone") is not stores.of("")
    assert not stores.of("gone").is_here("r/a:1", {})
    assert where.commands == []
