"""Argument vectors for podman, and what its output means."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import errors, podman
from agent.specs import Application, Volume
from resources.records import replace

WEB = Application(
    "web",
    "container",
    "quay.io/web:1",
    env=(("A", "1 2 #3"), ("LINES", "a\nb")),
    ports=("8080:80",),
    volumes=(Volume("data", "/data"),),
    cpu="0.5",
    memory="64m",
    restart_generation=2,
)


@pytest.mark.parametrize(
    ("name", "user", "found"),
    [
        ("web", "", "web-365508"),
        ("web", "root", "web-365508"),
        ("web", "flightctl", "web-flightctl-162962"),
        ("My App", "", "my_app-141213"),
    ],
)
def test_identifiers_are_those_that_existing_workloads_have(
    name: str, user: str, found: str
) -> None:
    assert podman.app_id(name, user) == found


def test_a_volume_is_named_as_it_always_was() -> None:
    assert podman.volume_name("web", "data") == "web-data-394076"


@given(st.text())
def test_an_identifier_is_a_name_that_podman_takes(name: str) -> None:
    found = podman.app_id(name)
    assert len(found) <= 253
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert len(found.rsplit("-", 1)[1]) == 6


def test_a_container_is_created_with_everything_and_pulls_nothing() -> None:
    argv, stdin = podman.create_argv(WEB, "sha256:d")
    assert argv == [
        *("podman", "create", "--pull", "never", "--name", "web-365508-app"),
        *("--label", "io.flightctl.quadlet.project=web-365508"),
        *("--label", "io.homeport.spec=sha256:d"),
        *("--label", "io.homeport.restart-generation=2"),
        *("--restart", "on-failure"),
        *("--env", "LINES=a\nb", "--env-file", "/dev/stdin"),
        *("--publish", "8080:80", "--volume", "web-data-394076:/data"),
        *("--cpus", "0.5", "--memory", "64m", "quay.io/web:1"),
    ]
    assert stdin == b"A=1 2 #3\n"


def test_an_environment_of_one_line_values_is_in_no_argument() -> None:
    argv, _ = podman.create_argv(replace(WEB, env=(("PASSWORD", "hunter2"),)), "d")
    assert "hunter2" not in " ".join(argv)


def test_limits_are_left_out_only_when_told_so() -> None:
    argv, _ = podman.create_argv(WEB, "d", with_limits=False)
    assert "--cpus" not in argv
    assert "--memory" not in argv


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        ({"image": "quay.io/web:2"}, False),
        ({"env": ()}, False),
        ({"ports": ()}, False),
        ({"volumes": ()}, False),
        ({"cpu": ""}, False),
        ({"memory": "65m"}, False),
        ({"is_stopped": True}, True),
        ({"restart_generation": 9}, True),
    ],
)
def test_a_digest_changes_with_what_makes_another_container(
    change: dict[str, object], is_same: bool
) -> None:
    other = replace(WEB, **change)  # type: ignore[arg-type]
    assert (podman.spec_digest(other) == podman.spec_digest(WEB)) is is_same


@pytest.mark.parametrize(
    ("change", "cause", "words"),
    [
        ({"app_type": "vm"}, errors.UNIMPLEMENTED, "type 'vm'"),
        ({"run_as": "web", "app_type": "compose"}, errors.INVALID_ARGUMENT, "runAs is not for"),
        ({"is_catalog_item": True}, errors.UNIMPLEMENTED, "catalogue"),
        ({"image": ""}, errors.INVALID_ARGUMENT, "no image"),
        ({"image": "--privileged"}, errors.INVALID_ARGUMENT, "no image"),
        ({"app_type": "quadlet", "image": ""}, errors.INVALID_ARGUMENT, "no image"),
        ({"ports": ("80:80/icmp",)}, errors.INVALID_ARGUMENT, "port '80:80/icmp'"),
        ({"ports": ("80",)}, errors.INVALID_ARGUMENT, "port '80'"),
        ({"ports": ("127.0.0.1:80:80",)}, errors.INVALID_ARGUMENT, "is not HOST:CONTAINER"),
        ({"volumes": (Volume("d", "d"),)}, errors.INVALID_ARGUMENT, "mount path"),
        ({"env": (("A B", "1"),)}, errors.INVALID_ARGUMENT, "environment variable"),
        ({"env": (("", "1"),)}, errors.INVALID_ARGUMENT, "environment variable"),
    ],
)
def test_what_cannot_be_run_is_refused_with_a_reason(
    change: dict[str, object], cause: str, words: str
) -> None:
    found = podman.objection(replace(WEB, **change))  # type: ignore[arg-type]
    assert found is not None
    assert found.cause == cause
    assert found.element == "web"
    assert words in found.detail


def test_what_can_be_run_is_not_objected_to() -> None:
    assert podman.objection(WEB) is None
    assert podman.objection(replace(WEB, run_as="root")) is None
    assert podman.objection(replace(WEB, run_as="web")) is None


@pytest.mark.parametrize(
    ("machine", "missing"),
    [
        ({"cpu", "memory"}, ()),
        ({"cpu"}, ("memory",)),
        (set(), ("cpu", "memory")),
    ],
)
def test_controllers_that_are_missing(machine: set[str], missing: tuple[str, ...]) -> None:
    assert podman.missing_controllers(WEB, frozenset(machine)) == missing
    assert podman.missing_controllers(replace(WEB, cpu="", memory=""), frozenset()) == ()


# As podman 4.3.1 and 5.4 print it, cut to what is read.
INSPECTED = {
    "Id": "abc",
    "Name": "web-365508-app",
    "RestartCount": 2,
    "PidFile": "/run/containers/storage/overlay-containers/abc/userdata/pidfile",
    "State": {
        "Status": "running",
        "Pid": 343,
        "ExitCode": 0,
        "StartedAt": "2026-11-23T11:28:47Z",
        "Error": "",
        "Health": {"Status": "unhealthy", "Log": [{"Output": "old"}, {"Output": "broken\nnow"}]},
    },
    "Config": {
        "Labels": {
            "io.flightctl.quadlet.project": "web-365508",
            "io.homeport.spec": "sha256:d",
            "io.homeport.restart-generation": "2",
        },
        "Healthcheck": {"Test": ["CMD-SHELL", "true"]},
    },
}


def test_an_inspected_container_is_read() -> None:
    (found,) = podman.containers(json.dumps([INSPECTED]), started={"abc": "b1"}, boot_id="b1")
    assert (found.container, found.app_id, found.digest) == ("abc", "web-365508", "sha256:d")
    assert (found.state, found.restarts, found.restart_generation) == ("running", 2, 2)
    assert (found.has_healthcheck, found.health) == (True, "unhealthy")
    assert found.health_output == "broken now"
    assert found.pid == 343
    assert found.health_log == "/run/containers/storage/overlay-containers/abc/healthcheck.log"
    assert found.is_ours
    assert found.is_of_this_boot
    (later,) = podman.containers(json.dumps([INSPECTED]), started={"abc": "b1"}, boot_id="b2")
    assert not later.is_of_this_boot


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "null and more"])
def test_what_is_no_list_of_containers_is_not_taken_for_an_empty_one(text: str) -> None:
    with pytest.raises(ValueError):
        podman.containers(text, started={}, boot_id="")


def test_a_container_without_anything_is_a_stranger() -> None:
    (found,) = podman.containers('[{"Id": "x"}]', started={}, boot_id="b")
    assert not found.is_ours
    assert found.state == "unknown"
    assert (found.pid, found.health_log) == (0, "")


def test_the_listing_picks_ours_and_what_has_our_names() -> None:
    ours = {"Id": "1", "Names": ["x"], "Labels": {podman.PROJECT_LABEL: "p"}, "State": "running"}
    named = {"Id": "2", "Names": ["web-1-app"], "Labels": None, "State": "exited"}
    other = {"Id": "3", "Names": ["other"], "Labels": {}}
    text = json.dumps([ours, named, other])
    assert set(podman.listed(text, {"web-1-app"})) == {"1", "2"}
    assert podman.listed("", ()) == {}
    assert podman.listed("null", ()) == {}


def test_the_mark_of_a_container_changes_with_it_and_not_with_time() -> None:
    def mark(**changes: object) -> str:
        one = {"Id": "1", "Labels": {podman.PROJECT_LABEL: "p"}, "Status": "Up 2 hours", **changes}
        return podman.listed(json.dumps([one]), ())["1"]

    assert mark() == mark(Status="Up 3 hours")
    assert mark() != mark(State="exited")
    assert mark() != mark(StartedAt=5)
    assert mark(Status="Up 2 hours (healthy)") != mark(Status="Up 2 hours (unhealthy)")


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Error: executable file `x` not found in $PATH", errors.Reject),
        ("Error: rootlessport listen tcp: bind: address already in use", errors.Retry),
        ("Error: the name is already in use", errors.Retry),
    ],
)
def test_commands_that_fail(words: str, kind: type) -> None:
    assert type(podman.run_error(words, app="web")) is kind


def test_the_last_error_is_the_cause() -> None:
    text = "Trying to pull...\nError: first\nError: the cause\ntime=x level=error msg=cleanup\n"
    assert podman.last_words(text) == "Error: the cause"
    assert podman.last_words("just\nwords\n") == "words"
    assert podman.last_words("") == "no output"
    assert podman.is_image_missing("Error: localhost/x: image not known")


def test_volumes_of_ours_are_known_by_label_and_by_checksum() -> None:
    def volume(name: str, **labels: str) -> dict[str, object]:
        return {"Name": name, "Labels": {k.replace("_", "."): v for k, v in labels.items()}}

    there = [
        volume("filled", io_flightctl_quadlet_project="any-1"),
        volume("web-data-394076"),
        volume("stack_db", com_docker_compose_project="stack-110156"),
        volume("own_db", com_docker_compose_project="somebodys"),
        volume("by-hand"),
        volume("web-data-394077"),
        {"Name": "bare", "Labels": None},
    ]
    found = podman.volumes_of(json.dumps(there))
    assert found == ["filled", "web-data-394076", "stack_db"]
    assert podman.volumes_of("") == []
    assert podman.volumes_of("null") == []
    with pytest.raises(ValueError, match="list"):
        podman.volumes_of('{"a": 1}')


def test_only_volumes_that_show_an_image_are_shadows() -> None:
    listed = [
        {"Name": "data", "Driver": "local", "Labels": {"l": "v"}},
        {"Name": "image", "Driver": "image", "Labels": {"l": "v"}},
        {"Name": "other", "Driver": "image", "Labels": {"l": "w"}},
        {"Name": "bare", "Driver": "image", "Labels": None},
    ]
    assert podman.shadows(json.dumps(listed), "l", "v") == ["image"]
    assert podman.shadows("", "l", "v") == []


def test_the_files_of_an_artifact_are_read_from_its_manifest() -> None:
    title = {"org.opencontainers.image.title": "model.txt"}
    layer = {"mediaType": "text/plain", "digest": "sha256:1", "annotations": title}
    listed = json.dumps({"Manifest": {"layers": [layer, {"digest": "sha256:2"}]}, "Digest": "d"})
    assert podman.artifact_layers(listed) == (
        podman.Layer("sha256:1", "text/plain", "model.txt"),
        podman.Layer("sha256:2", "", ""),
    )
    assert podman.artifact_digest(listed) == "d"
    with pytest.raises(ValueError, match="not an artifact"):
        podman.artifact_layers("{}")
