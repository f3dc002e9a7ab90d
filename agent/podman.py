"""Podman: argument vectors to give it, and its output read. Nothing is run here.

Containers of ours are named `<application id>-app` and carry two labels: the project label that
existing tools look for, and the digest of what they were made from. Names and labels are what we
find them by; every change goes by the container's id, so that a command of an agent that was killed
meanwhile can reach only the container that it was meant for.

Whether a failed pull may be tried again is one ordered table of words, most specific first: the
tools say it in no other way. What the table does not know is tried again, for a device that gives
up because of an unknown word helps nobody; what says that the image or the right to it is not there
is final.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Collection, Iterable
from typing import Any

from agent import errors
from agent.planner import Container
from agent.specs import Application
from resources import digest

Json = dict[str, Any]

PROJECT_LABEL = "io.flightctl.quadlet.project"
SPEC_LABEL = "io.homeport.spec"
RESTART_LABEL = "io.homeport.restart-generation"

ID_CHARS_MAX = 246
STOP_TIMEOUT_S = 10
LOG_LINES = 5
ROOT_USERS = ("", "root", "0")

_PORT = re.compile(r"\d{1,5}:\d{1,5}")
_ENV_NAME = re.compile(r"[^=\s#][^=\s]*")


def app_id(name: str, user: str = "") -> str:
    """The identifier that both agents derive, so that a takeover recognises what runs."""
    base = re.sub(r"[^a-z0-9_-]", "_", name.lower())
    if user not in ROOT_USERS:
        base += f"-{user}"
    base = base[:ID_CHARS_MAX]
    return f"{base}-{f'{zlib.crc32(base.encode()):06d}'[:6]}"


def container_name(app: Application) -> str:
    return f"{app_id(app.name, app.run_as)}-app"


def volume_name(app: str, volume: str) -> str:
    return app_id(f"{app}-{volume}")


def spec_digest(app: Application, *, with_limits: bool = True) -> str:
    """Equal exactly if the same container serves both. State and restarts are not in it."""
    return digest.of(
        {
            "image": app.image,
            "env": dict(app.env),
            "ports": list(app.ports),
            "volumes": [[v.name, v.mount] for v in app.volumes],
            "limits": [app.cpu, app.memory] if with_limits else [],
        }
    )


def objection(app: Application) -> errors.Reject | None:
    """Why this agent cannot run `app` at all; None if it can."""
    cause, detail = errors.UNIMPLEMENTED, ""
    if app.app_type != "container":
        detail = f"applications of type {app.app_type!r} are not supported by this agent yet"
    elif app.run_as not in ROOT_USERS:
        detail = f"runAs {app.run_as!r} is not supported by this agent yet"
    elif any(volume.image for volume in app.volumes):
        detail = "image volumes are not supported by this agent yet"
    elif app.is_catalog_item:
        detail = "references to a catalogue are resolved by the service, this one was not"
    else:
        cause, detail = errors.INVALID_ARGUMENT, _invalid(app)
    if not detail:
        return None
    return errors.Reject(cause, detail, component=errors.APPLICATIONS, element=app.name)


def _invalid(app: Application) -> str:
    if not app.image or app.image.startswith("-"):
        return "no image to run"
    for port in app.ports:
        if not _PORT.fullmatch(port):
            return f"port {port!r} is not HOST:CONTAINER"
    for volume in app.volumes:
        if not volume.mount.startswith("/"):
            return f"volume {volume.name} has no absolute mount path"
    for key, value in app.env:
        if not _ENV_NAME.fullmatch(key) or "\0" in value:
            return f"{key!r} cannot be an environment variable"
    return ""


def missing_controllers(app: Application, machine: frozenset[str]) -> tuple[str, ...]:
    """Which of the limits that `app` asks for this machine cannot enforce."""
    asked = (("cpu", app.cpu), ("memory", app.memory))
    return tuple(name for name, limit in asked if limit and name not in machine)


# Commands. ----------------------------------------------------------------------------------------


def list_argv() -> list[str]:
    """Everything there is; `listed` picks ours."""
    return ["podman", "ps", "--all", "--no-trunc", "--format", "json"]


def inspect_argv(ids: Iterable[str]) -> list[str]:
    return ["podman", "container", "inspect", *ids]


def image_exists_argv(image: str) -> list[str]:
    return ["podman", "image", "exists", image]


def pull_argv(image: str, auth_file: str = "") -> list[str]:
    return ["podman", "pull", "--quiet", *(["--authfile", auth_file] if auth_file else []), image]


def image_inspect_argv(image: str) -> list[str]:
    return ["podman", "image", "inspect", image]


def look_up_argv(image: str, auth_file: str = "") -> list[str]:
    """The digest that the registry has for `image` now; nothing is downloaded."""
    options = ["--authfile", auth_file] if auth_file else []
    return [
        "skopeo",
        "inspect",
        "--no-tags",
        "--format",
        "{{.Digest}}",
        *options,
        f"docker://{image}",
    ]


def create_argv(
    app: Application, spec: str, *, with_limits: bool = True
) -> tuple[list[str], bytes]:
    """(argument vector, standard input). `spec` is the digest that the container is known by.

    The environment goes in by standard input: an argument vector can be read by every user of the
    machine. Values of more than one line cannot be written that way and stay arguments.
    """
    argv = ["podman", "create", "--pull", "never", "--name", container_name(app)]
    argv += ["--label", f"{PROJECT_LABEL}={app_id(app.name, app.run_as)}"]
    argv += ["--label", f"{SPEC_LABEL}={spec}"]
    argv += ["--label", f"{RESTART_LABEL}={app.restart_generation}"]
    argv += ["--restart", "on-failure"]
    lines = []
    for key, value in app.env:
        if "\n" in value or "\r" in value:
            argv += ["--env", f"{key}={value}"]
        else:
            lines.append(f"{key}={value}\n")
    if lines:
        argv += ["--env-file", "/dev/stdin"]
    for port in app.ports:
        argv += ["--publish", port]
    for volume in app.volumes:
        argv += ["--volume", f"{volume_name(app.name, volume.name)}:{volume.mount}"]
    if with_limits and app.cpu:
        argv += ["--cpus", app.cpu]
    if with_limits and app.memory:
        argv += ["--memory", app.memory]
    return [*argv, app.image], "".join(lines).encode()


def start_argv(container: str) -> list[str]:
    return ["podman", "start", container]


def stop_argv(container: str) -> list[str]:
    return ["podman", "stop", "--ignore", "--time", str(STOP_TIMEOUT_S), container]


def restart_argv(container: str) -> list[str]:
    return ["podman", "restart", "--time", str(STOP_TIMEOUT_S), container]


def remove_argv(container: str) -> list[str]:
    """Volumes with names stay; those without go with their container."""
    return ["podman", "rm", "--ignore", "--force", "--time", "1", "--volumes", container]


def healthcheck_argv(container: str) -> list[str]:
    return ["podman", "healthcheck", "run", container]


def logs_argv(container: str) -> list[str]:
    return ["podman", "logs", "--tail", str(LOG_LINES), container]


# Output. ------------------------------------------------------------------------------------------


def ids(stdout: str) -> list[str]:
    return [line.strip() for line in stdout.splitlines() if line.strip()]


def image_digests(stdout: str) -> tuple[str, ...]:
    """All that an image is known by, its own digest first; of an index there may be another."""
    try:
        found = json.loads(stdout)
        image = found[0]
        names = [str(image["Digest"]), *map(str, image.get("RepoDigests") or ())]
    except (ValueError, LookupError, TypeError):
        return ()
    return tuple(dict.fromkeys(name.rpartition("@")[2] for name in names if name))


def listed(stdout: str, names: Collection[str]) -> dict[str, str]:
    """Container id -> all of the listing that changes when the container does.

    Ours by their label, and whatever stands in the way of `names`. Raises ValueError.
    """
    found = json.loads(stdout.strip() or "[]") or []
    if not isinstance(found, list):
        raise ValueError("not a list of containers")
    marks = {}
    for one in found:
        is_ours = PROJECT_LABEL in (one.get("Labels") or {})
        if not is_ours and not set(one.get("Names") or ()) & set(names):
            continue
        # The text of Status holds an age, and in brackets the health.
        health = str(one.get("Status") or "").partition("(")[2]
        fields = [one.get(k) for k in ("State", "StartedAt", "ExitCode", "Restarts")]
        marks[str(one["Id"])] = json.dumps([*fields, health])
    return marks


def containers(stdout: str, *, started: dict[str, str], boot_id: str) -> tuple[Container, ...]:
    """`podman container inspect`; `started` = container id -> boot in which we started it.

    Raises ValueError for what is not that. An inspect of several ids of which one has just gone
    prints the others.
    """
    found = json.loads(stdout or "[]")
    if not isinstance(found, list):
        raise ValueError("not a list of containers")
    return tuple(_container(one, started, boot_id) for one in found)


def _container(document: Json, started: dict[str, str], boot_id: str) -> Container:
    config = document.get("Config") or {}
    state = document.get("State") or {}
    labels = config.get("Labels") or {}
    health = state.get("Health") or state.get("Healthcheck") or {}
    container = str(document.get("Id") or "")
    name = str(document.get("Name") or "").lstrip("/")
    project = str(labels.get(PROJECT_LABEL) or name.removesuffix("-app"))
    generation = str(labels.get(RESTART_LABEL) or "0")
    test = (config.get("Healthcheck") or {}).get("Test") or []
    return Container(
        container=container,
        name=name,
        app_id=project,
        digest=str(labels.get(SPEC_LABEL) or ""),
        state=str(state.get("Status") or "unknown"),
        is_ours=SPEC_LABEL in labels,
        exit_code=int(state.get("ExitCode") or 0),
        is_of_this_boot=started.get(container) == boot_id,
        stopped_by_hand=bool(state.get("StoppedByUser")),
        restart_generation=int(generation) if generation.isdigit() else 0,
        restarts=int(document.get("RestartCount") or 0),
        started_at=str(state.get("StartedAt") or ""),
        health=str(health.get("Status") or ""),
        has_healthcheck=bool(test) and test[0] != "NONE",
        health_output=_health_output(health),
        trouble=str(state.get("Error") or ""),
    )


def _health_output(health: Json) -> str:
    log = health.get("Log") or []
    last = log[-1] if isinstance(log, list) and log else {}
    return errors.one_line(str(last.get("Output") or "")) if isinstance(last, dict) else ""


# Words. -------------------------------------------------------------------------------------------

# (words that must all occur, cause, whether a retry may help); the first row that fits counts.
_PULL_WORDS: tuple[tuple[tuple[str, ...], str, bool], ...] = (
    (("short-name",), errors.INVALID_ARGUMENT, False),
    (("toomanyrequests",), errors.UNAVAILABLE, True),
    (("too many requests",), errors.UNAVAILABLE, True),
    (("no space left",), errors.RESOURCE_EXHAUSTED, True),
    (("context deadline exceeded",), errors.DEADLINE_EXCEEDED, True),
    (("tls handshake timeout",), errors.UNAVAILABLE, True),
    (("i/o timeout",), errors.UNAVAILABLE, True),
    (("timeout",), errors.UNAVAILABLE, True),
    (("no such host",), errors.UNAVAILABLE, True),
    (("name resolution",), errors.UNAVAILABLE, True),
    (("unable to resolve host",), errors.UNAVAILABLE, True),
    (("connection refused",), errors.UNAVAILABLE, True),
    (("connection reset",), errors.UNAVAILABLE, True),
    (("network is unreachable",), errors.UNAVAILABLE, True),
    (("no route to host",), errors.UNAVAILABLE, True),
    (("unexpected eof",), errors.UNAVAILABLE, True),
    (("signal: killed",), errors.ABORTED, True),
    (("received unexpected http status: 5",), errors.UNAVAILABLE, True),
    (("status code 5",), errors.UNAVAILABLE, True),
    (("manifest unknown",), errors.NOT_FOUND, False),
    (("name unknown",), errors.NOT_FOUND, False),
    (("repository name not known",), errors.NOT_FOUND, False),
    (("authentication required",), errors.UNAUTHENTICATED, False),
    (("unauthorized",), errors.PERMISSION_DENIED, False),
    (("access", "denied"), errors.UNAUTHENTICATED, False),
    (("status code 403",), errors.PERMISSION_DENIED, False),
    (("invalid reference format",), errors.INVALID_ARGUMENT, False),
    (("no image found in", "for architecture"), errors.FAILED_PRECONDITION, False),
    (("x509",), errors.UNAUTHENTICATED, True),
)

_RUN_WORDS: tuple[tuple[tuple[str, ...], str, bool], ...] = (
    (("no space left",), errors.RESOURCE_EXHAUSTED, True),
    (("address already in use",), errors.RESOURCE_EXHAUSTED, True),
    (("port is already allocated",), errors.RESOURCE_EXHAUSTED, True),
    (("context deadline exceeded",), errors.DEADLINE_EXCEEDED, True),
    (("executable file", "not found"), errors.NOT_FOUND, False),
    (("no such file or directory",), errors.NOT_FOUND, True),
    (("permission denied",), errors.PERMISSION_DENIED, False),
    (("invalid argument",), errors.INVALID_ARGUMENT, False),
    (("unknown flag",), errors.FAILED_PRECONDITION, False),
)


def is_image_missing(stderr: str) -> bool:
    text = stderr.lower()
    return "image not known" in text or "no such image" in text


def pull_error(stderr: str, *, app: str) -> errors.Retry | errors.Reject:
    return _classified(_PULL_WORDS, stderr, app, errors.PREFETCH, errors.UNAVAILABLE)


def run_error(stderr: str, *, app: str) -> errors.Retry | errors.Reject:
    return _classified(_RUN_WORDS, stderr, app, errors.APPLICATIONS, errors.INTERNAL)


def _classified(
    table: tuple[tuple[tuple[str, ...], str, bool], ...],
    stderr: str,
    app: str,
    component: str,
    default: str,
) -> errors.Retry | errors.Reject:
    text = stderr.lower()
    detail = last_words(stderr)
    for words, cause, may_help in table:
        if all(word in text for word in words):
            kind = errors.Retry if may_help else errors.Reject
            return kind(cause, detail, component=component, element=app)
    return errors.Retry(default, detail, component=component, element=app)


def last_words(stderr: str) -> str:
    """The last complaint: tools put the cause at the end, after progress and warnings."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    for line in reversed(lines):
        if line.lower().startswith("error"):
            return errors.one_line(line)
    return errors.one_line(lines[-1]) if lines else "no output"
