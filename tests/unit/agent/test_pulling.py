"""What surrounds a download: whose credentials, whether there is room, who carries it out.
Commands are scripted; the files are real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent import downloads, errors, pullerrors, pulling, settings, specs, world
from agent.throttle import Throttle
from tests.fakes.clocked_world import ClockedWorld

OWN = "/var/lib/flightctl/homeport"
ROOT = "/var/lib/containers/storage"
MIB = 1 << 20
WANTED = pulling.Wanted("q.io/a:1", "web")
SYSTEM = pulling.Wanted("q.io/os:1", "q.io/os:1", "/etc/ostree/auth.json", is_system=True)


ARTIFACT_WORDS = (
    'level=fatal msg="unsupported image-specific operation on artifact with type \\"x\\""'
)


def plain(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Without what makes it a command of a user's."""
    if argv[0] != "setpriv":
        return argv
    end = next(at for at, word in enumerate(argv) if word.startswith("DBUS_SESSION_BUS"))
    return argv[end + 1 :]


def somebody(where: ClockedWorld) -> None:
    where.put("/etc/passwd", "root:x:0:0:r:/root:/s\nweb:x:1001:1002:w:/home/web:/s\n")
    where.put("/run/user/1001/systemd/private", "")


class Podman:
    """Answers to the commands around a pull."""

    def __init__(self, where: ClockedWorld) -> None:
        self.where = where
        self.layers = [{"Digest": "sha256:a", "Size": 100 * MIB}, {"Digest": "sha256:b", "Size": 5}]
        self.free = 10_000 * MIB
        self.free_after: int | None = None
        self.pull = 0
        self.words = ""
        self.seen = ""
        self.begun = ""
        # Its bytes, where it is one.
        self.artifact = 0
        where.answer = self.answer
        where.mkdir(OWN)
        where.mkdir(ROOT)
        self.know("sha256:c")

    def know(self, *digests: str) -> None:
        listed = [{"id": d, "compressed-diff-digest": d} for d in digests]
        self.where.put(f"{ROOT}/overlay-layers/layers.json", json.dumps(listed))

    def answer(self, argv: tuple[str, ...]) -> world.Completed:
        argv = plain(argv)
        match argv[:2]:
            case ("skopeo", _) if self.artifact and "--raw" in argv:
                layers = [{"digest": "sha256:a", "size": self.artifact}]
                return world.Completed(argv, 0, json.dumps({"layers": layers}), "")
            case ("skopeo", _) if self.artifact:
                return world.Completed(argv, 1, "", ARTIFACT_WORDS)
            case ("skopeo", _):
                return world.Completed(argv, 0, json.dumps(self.layers), "")
            case ("podman", "info"):
                return world.Completed(argv, 0, f"{ROOT}\n", "")
            case ("cat", _):
                return world.Completed(argv, 0, (self.where.read(argv[-1]) or b"").decode(), "")
            case ("find", _):
                return world.Completed(argv, 0, self.begun, "")
            case ("df", _):
                return world.Completed(argv, 0, f"Avail\n{self.free}\n", "")
            case ("podman", "pull"):
                own = self.where.read(f"{OWN}/{downloads.AUTH}")
                self.seen = (own or b"").decode()
                if self.free_after is not None:
                    self.free = self.free_after
                return world.Completed(argv, self.pull, "", self.words)
        return world.Completed(argv, 0, "", "")


@pytest.fixture
def where(tmp_path: Path) -> ClockedWorld:
    return ClockedWorld(tmp_path)


def made(where: ClockedWorld, **bounds: Any) -> pulling.Pulling:
    return pulling.Pulling(where, settings.LoopSettings(**bounds), Throttle(0))


def pull(
    subject: pulling.Pulling, *files: specs.FileSpec, wanted: pulling.Wanted = WANTED
) -> world.Completed:
    subject.use(files)
    return subject.pull(["podman", "pull", "--quiet", wanted.reference], wanted)


def pulls(where: ClockedWorld) -> list[tuple[str, ...]]:
    return [argv for argv in where.commands if argv[:2] == ("podman", "pull")]


@pytest.mark.parametrize("wanted", [WANTED, SYSTEM])
def test_credentials_of_the_specification_count_before_those_on_the_disk(
    where: ClockedWorld, wanted: pulling.Wanted
) -> None:
    podman = Podman(where)
    where.put(wanted.auth_file, "old")
    brought = specs.FileSpec(wanted.auth_file, b"brought", 0o600, "root", "root")
    pull(made(where), brought, wanted=wanted)
    assert pulls(where)[0][2:] == ("--quiet", "--authfile", downloads.AUTH, wanted.reference)
    assert podman.seen == "brought"
    assert where.stat(f"{OWN}/{downloads.AUTH}") is None
    looked = next(argv for argv in where.commands if argv[0] == "skopeo")
    assert looked[-3:-1] == ("--authfile", downloads.AUTH)


def test_else_those_on_the_disk_and_else_none(where: ClockedWorld) -> None:
    Podman(where)
    pull(made(where))
    assert "--authfile" not in pulls(where)[0]
    where.put(pulling.AUTH_FILE, "old")
    pull(made(where))
    assert pulls(where)[1][3:5] == ("--authfile", "auth.json")


def test_of_several_places_the_first_counts(where: ClockedWorld) -> None:
    Podman(where)
    subject = made(where)
    where.put("/second.json", "x")
    assert subject.auth("/first.json", "/second.json").path == "/second.json"
    subject.use([specs.FileSpec("/first.json", b"y", 0o600, "root", "root")])
    auth = subject.auth("/first.json", "/second.json")
    assert where.read(auth.path) == b"y"
    subject.drop(auth)
    assert where.stat(auth.path) is None


@pytest.mark.parametrize(
    ("free", "known", "wanted", "is_room"),
    [
        (1000 * MIB, ["sha256:c"], WANTED, True),
        (400 * MIB, ["sha256:c"], WANTED, False),
        # What is here already needs no room.
        (400 * MIB, ["sha256:a"], WANTED, True),
        # An operating system is written twice.
        (500 * MIB, ["sha256:c"], WANTED, True),
        (500 * MIB, ["sha256:c"], SYSTEM, False),
    ],
)
def test_room_is_looked_for_before(
    where: ClockedWorld, free: int, known: list[str], wanted: pulling.Wanted, is_room: bool
) -> None:
    podman = Podman(where)
    podman.free = free
    podman.know(*known)
    if is_room:
        assert pull(made(where), wanted=wanted).ok
        return
    words = f"no room for {wanted.reference}: it needs about [46]00 MiB, {free // MIB} MiB are free"
    with pytest.raises(errors.Retry, match=words) as one:
        pull(made(where), wanted=wanted)
    assert one.value.cause == errors.RESOURCE_EXHAUSTED
    assert one.value.element == wanted.element
    assert not pulls(where)


def test_room_for_an_artifact_is_looked_for_too(where: ClockedWorld) -> None:
    podman, subject = Podman(where), made(where)
    podman.artifact = 100 * MIB
    where.put(pulling.AUTH_FILE, "secret")
    podman.free = 363 * MIB
    with pytest.raises(errors.Retry, match="it needs about 300 MiB, 363 MiB are free"):
        pull(subject)
    podman.free = 365 * MIB
    assert pull(subject).ok
    asked = [argv for argv in where.commands if argv[0] == "skopeo"]
    assert asked[1] == (
        *("skopeo", "inspect", "--raw", "--authfile", "auth.json"),
        "docker://q.io/a:1",
    )


def test_what_was_begun_is_here_already(where: ClockedWorld) -> None:
    podman = Podman(where)
    podman.free = 440 * MIB
    with pytest.raises(errors.Retry):
        pull(made(where))
    where.put(f"{OWN}/downloads/blobs/a", b"x" * (30 * MIB))
    assert pull(made(where)).ok


@pytest.mark.parametrize("damage", ["none", "text"])
def test_where_nobody_can_say_it_is_tried(where: ClockedWorld, damage: str) -> None:
    podman = Podman(where)
    podman.free = 0
    place = where.path(f"{ROOT}/overlay-layers/layers.json")
    place.unlink() if damage == "none" else place.write_text("{")
    podman.layers = [] if damage == "none" else podman.layers
    assert pull(made(where)).ok


def test_what_has_filled_the_disk_is_begun_again_when_there_is_more_room_or_less_to_fetch(
    where: ClockedWorld,
) -> None:
    podman, subject = Podman(where), made(where)
    podman.free, podman.free_after, podman.pull = 600 * MIB, 40 * MIB, 1
    podman.words = "Error: no space left for it: 40 MiB are free"
    assert not pull(subject).ok
    # What it had unpacked goes a little later, and is no reason to begin again.
    for free, more in ((600, 64), (560, 104), (663, 1)):
        podman.free = free * MIB
        with pytest.raises(errors.Retry, match=f"filled the disk; tried again when {more} MiB mor"):
            pull(subject)
    assert len(pulls(where)) == 1
    podman.free = 664 * MIB
    assert not pull(subject).ok
    podman.free = 664 * MIB
    with pytest.raises(errors.Retry, match="filled the disk"):
        pull(subject)
    # A layer has been kept: the rest may fit.
    podman.know("sha256:b")
    podman.pull, podman.free_after = 0, None
    assert pull(subject).ok
    assert pull(subject).ok


def test_of_another_user_it_may_fit(where: ClockedWorld) -> None:
    podman, subject = Podman(where), made(where)
    somebody(where)
    podman.free, podman.pull, podman.words = 600 * MIB, 1, "Error: no space left for it"
    assert not pull(subject, wanted=subject.wanted("q.io/a:1", "web", "web")).ok
    assert not pull(subject).ok
    with pytest.raises(errors.Retry, match="filled the disk"):
        pull(subject)


def test_a_download_is_carried_out_by_who_watches_it(where: ClockedWorld) -> None:
    """And nothing of a secret is an argument."""
    Podman(where)
    ordered: list[tuple[tuple[str, ...], bytes]] = []
    run = where.run

    def watched(argv: Any, **more: Any) -> world.Completed:
        ordered.append((tuple(argv), more.get("stdin", b"")))
        return run(argv, **more)

    where.run = watched  # type: ignore[method-assign]
    brought = specs.FileSpec(pulling.AUTH_FILE, b"secret", 0o600, "root", "root")
    pull(made(where, downloader=("watch", "it")), brought)
    argv, stdin = ordered[-1]
    assert argv == ("watch", "it")
    assert downloads.decode(stdin) == downloads.Order(
        ("podman", "pull", "--quiet", "--authfile", downloads.AUTH, "q.io/a:1"),
        f"{OWN}/downloads",
        (ROOT, OWN),
        "q.io/a:1",
        f"{OWN}/{downloads.AUTH}",
    )
    assert b"secret" not in stdin


def test_other_tools_are_watched_where_they_write_and_begin_only_where_there_is_room(
    where: ClockedWorld,
) -> None:
    podman = Podman(where)
    subject = made(where)
    where.mkdir("/charts")
    assert subject.fetch(["helm", "pull"], WANTED, "/charts", {}).ok
    podman.free = 5 * MIB
    with pytest.raises(errors.Retry, match="5 MiB are free in /charts"):
        subject.fetch(["helm", "pull"], WANTED, "/charts", {})


def test_when_nothing_is_to_be_downloaded_any_more_what_was_begun_goes(where: ClockedWorld) -> None:
    Podman(where)
    subject = made(where)
    subject.forget()
    assert where.commands == []
    where.put(f"{OWN}/downloads/blobs/a", b"x")
    subject.forget()
    assert where.commands == [("rm", "-rf", "--", "downloads")]


def of_user(where: ClockedWorld) -> list[tuple[str, ...]]:
    return [plain(argv) for argv in where.commands if argv[0] == "setpriv"]


def test_for_a_user_all_of_it_is_asked_and_done_as_that_user(where: ClockedWorld) -> None:
    """Credentials, the look at the registry, at what is here and at the disk, the download."""
    podman, subject = Podman(where), made(where)
    somebody(where)
    wanted = subject.wanted("q.io/a:1", "web", "web")
    assert wanted.auth_file == "/home/web/.config/containers/auth.json"
    brought = specs.FileSpec(wanted.auth_file, b"secret", 0o600, "web", "web")
    assert pull(subject, brought, wanted=wanted).ok
    place = "/run/user/1001/homeport-pull-auth.json"
    done = of_user(where)
    assert done[0] == ("sh", "-c", 'umask 077 && cat > "$0"', place)
    assert ("podman", "pull", "--quiet", "--authfile", place, "q.io/a:1") in done
    assert done[-1] == ("rm", "-f", "--", place)
    assert {argv[0] for argv in done} == {"sh", "skopeo", "podman", "cat", "df", "find", "rm"}
    assert {argv[0] for argv in where.commands} == {"setpriv"}, "nothing is root's"
    assert where.stat("/home/web") is None
    assert podman.seen == ""


def test_a_users_disk_is_looked_at_before_with_what_was_begun(where: ClockedWorld) -> None:
    podman, subject = Podman(where), made(where)
    somebody(where)
    wanted = subject.wanted("q.io/a:1", "web", "web")
    podman.free = 440 * MIB
    with pytest.raises(errors.Retry, match=r"no room for q\.io/a:1: it needs about 400 MiB, 440"):
        pull(subject, wanted=wanted)
    podman.begun = f"a {30 * MIB}\n"
    assert pull(subject, wanted=wanted).ok


def test_a_users_download_is_watched_as_the_user_where_their_home_and_store_are(
    where: ClockedWorld,
) -> None:
    Podman(where)
    somebody(where)
    ordered: list[tuple[tuple[str, ...], bytes]] = []
    run = where.run

    def watched(argv: Any, **more: Any) -> world.Completed:
        ordered.append((tuple(argv), more.get("stdin", b"")))
        return run(argv, **more)

    where.run = watched  # type: ignore[method-assign]
    subject = made(where, downloader=("watch", "it"))
    pull(subject, wanted=subject.wanted("q.io/a:1", "web", "web"))
    argv, stdin = ordered[-1]
    assert (argv[0], plain(argv)) == ("setpriv", ("watch", "it"))
    assert downloads.decode(stdin) == downloads.Order(
        ("podman", "pull", "--quiet", "q.io/a:1"),
        "/home/web/.cache/homeport/downloads",
        (ROOT, "/home/web"),
        "q.io/a:1",
        "",
    )


def test_what_was_begun_for_users_goes_too_also_by_another_life(where: ClockedWorld) -> None:
    Podman(where)
    somebody(where)
    subject = made(where)
    pull(subject, wanted=subject.wanted("q.io/a:1", "web", "web"))
    where.commands.clear()
    made(where).forget()
    assert [plain(argv) for argv in where.commands] == [
        ("rm", "-rf", "--", "/home/web/.cache/homeport/downloads"),
        ("rm", "-rf", "--", "downloads"),
    ]
    assert where.commands[0][0] == "setpriv"


def test_for_who_is_gone_nothing_is_downloaded(where: ClockedWorld) -> None:
    Podman(where)
    subject = made(where)
    answer = pull(subject, wanted=subject.wanted("q.io/a:1", "web", "gone"))
    assert (answer.status, answer.stderr) == (world.NOT_STARTED, "there is no user gone")
    assert where.commands == []


def test_wrong_content_is_asked_for_again_a_few_times_and_then_refused(where: ClockedWorld) -> None:
    podman, subject = Podman(where), made(where)
    podman.pull = 125
    digests = [f"sha256:{letter * 64}" for letter in "ac"]
    wrong = f"Error: x: Digest did not match, expected {digests[0]}, got {digests[1]}"
    other = pulling.Wanted("q.io/b:1", "b")

    def kind(words: str, wanted: pulling.Wanted = WANTED) -> type:
        podman.words = words
        return type(subject.failed(pull(subject, wanted=wanted), wanted))

    assert [kind(wrong) for _ in range(pulling.WRONG_MAX - 1)] == [pullerrors.Wrong] * 4
    # A network that is away meanwhile makes it no better, another image has a count of its own.
    assert kind("Error: connection refused") is errors.Retry
    assert kind(wrong, other) is pullerrors.Wrong
    assert kind(wrong) is errors.Reject
    # Who orders it anew has it tried anew.
    assert kind(wrong) is pullerrors.Wrong


def test_what_was_well_in_between_begins_to_count_anew(where: ClockedWorld) -> None:
    podman, subject = Podman(where), made(where)
    podman.words = "Error: Digest did not match"
    for _ in range(3):
        for _ in range(pulling.WRONG_MAX - 1):
            podman.pull = 125
            assert isinstance(subject.failed(pull(subject), WANTED), pullerrors.Wrong)
        podman.pull = 0
        assert pull(subject).ok
