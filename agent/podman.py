"""Podman: argument vectors to give it, and its output read. Nothing is run here.

Containers of ours are named `<application id>-app` and carry two labels: the project label that
existing tools look for, and the digest of what they were made from. Names and labels are what we
find them by; every change goes by the container's id, so that a command of an agent that was killed
meanwhile can reach only the container that it was meant for.
"""

from __future__ import annotations

import json
import posixpath
import re
import zlib
from collections.abc import Collection, Iterable
from typing import Any

from agent import errors
from agent.planner import Container
from agent.specs import Application, Volume
from resources import digest
from resources.records import dataclass

Json = dict[str, Any]

PROJECT_LABEL = "io.flightctl.quadlet.project"
SPEC_LABEL = "io.homeport.spec"
RESTART_LABEL = "io.homeport.restart-generation"
UNIT_LABEL = "PODMAN_SYSTEMD_UNIT"
COMPOSE_LABEL = "com.docker.compose.project"
COMPOSE_SERVICE_LABEL = "com.docker.compose.service"

CONTAINER, COMPOSE, QUADLET = "container", "compose", "quadlet"
# The first that makes services of pods, images and drop-ins.
QUADLET_VERSION = 5
# A chart is nothing of podman's, but what is wrong with one is said in one place.
HELM = "helm"
KINDS = (CONTAINER, COMPOSE, QUADLET, HELM)

ID_CHARS_MAX = 246
STOP_TIMEOUT_S = 10
LOG_LINES = 5
ROOT_USERS = ("", "root", "0")
# The command behind it sees the files of a user's podman as that user's containers do.
UNSHARE = ("podman", "unshare")

_PORT = re.compile(r"\d{1,5}:\d{1,5}(/(tcp|udp|sctp))?")
_ENV_NAME = re.compile(r"[^=\s#][^=\s]*")


def app_id(name: str, user: str = "") -> str:
    """The identifier that both agents derive, so that a takeover recognises what runs."""
    base = re.sub(r"[^a-z0-9_-]", "_", name.lower())
    if user not in ROOT_USERS:
        base += f"-{user}"
    base = base[:ID_CHARS_MAX]
    return f"{base}-{f'{zlib.crc32(base.encode()):06d}'[:6]}"


def is_app_id(text: str) -> bool:
    """Whether it ends with the checksum of the rest."""
    base, _, _ = text.rpartition("-")
    return bool(base) and app_id(base) == text


def folder_name(name: str) -> str:
    """The name of an application's folder: its own, unless that would be a path (an image's)."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "_"


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
            "volumes": [[v.name, v.mount, *_content_of(v)] for v in app.volumes],
            "limits": [app.cpu, app.memory] if with_limits else [],
        }
    )


def _content_of(volume: Volume) -> list[str]:
    """Nothing for a volume that is not filled, so that what ran before there were any stays."""
    return [volume.image] if volume.image else []


def objection(app: Application) -> errors.Reject | None:
    """Why this agent cannot run `app` at all; None if it can."""
    cause, detail = errors.UNIMPLEMENTED, ""
    if app.app_type not in KINDS:
        detail = f"applications of type {app.app_type!r} are not supported by this agent yet"
    elif app.run_as not in ROOT_USERS and app.app_type not in (CONTAINER, QUADLET):
        cause, detail = errors.INVALID_ARGUMENT, f"runAs is not for {app.app_type} applications"
    elif app.is_catalog_item:
        detail = "references to a catalogue are resolved by the service, this one was not"
    else:
        cause, detail = errors.INVALID_ARGUMENT, _invalid(app)
    if not detail:
        return None
    return errors.Reject(cause, detail, component=errors.APPLICATIONS, element=app.name)


def _invalid(app: Application) -> str:
    if app.app_type != CONTAINER and app.inline is not None:
        return _invalid_environment(app)
    if not app.image or app.image.startswith("-"):
        return "no image to run"
    if app.app_type != CONTAINER:
        return _invalid_environment(app)
    for port in app.ports:
        if not _PORT.fullmatch(port):
            return f"port {port!r} is not HOST:CONTAINER"
    for volume in app.volumes:
        if not volume.mount.startswith("/"):
            return f"volume {volume.name} has no absolute mount path"
    return _invalid_environment(app)


def _invalid_environment(app: Application) -> str:
    for key, value in app.env:
        if not _ENV_NAME.fullmatch(key) or "\0" in value:
            return f"{key!r} cannot be an environment variable"
    return ""


def missing_controllers(app: Application, machine: frozenset[str]) -> tuple[str, ...]:
    """Which of the limits that `app` asks for this machine cannot enforce."""
    asked = (("cpu", app.cpu), ("memory", app.memory))
    return tuple(name for name, limit in asked if limit and name not in machine)


# Commands. ----------------------------------------------------------------------------------------


def version_argv() -> list[str]:
    return ["podman", "--version"]


def major_version(stdout: str) -> int:
    """0 = not said."""
    found = re.search(r"(\d+)\.\d+", stdout)
    return int(found.group(1)) if found else 0


def list_argv() -> list[str]:
    """Everything there is; `listed` picks ours."""
    return ["podman", "ps", "--all", "--no-trunc", "--format", "json"]


def inspect_argv(ids: Iterable[str]) -> list[str]:
    return ["podman", "container", "inspect", *ids]


def image_exists_argv(image: str) -> list[str]:
    return ["podman", "image", "exists", image]


def image_id_argv(image: str) -> list[str]:
    return ["podman", "image", "inspect", "--format", "{{.Id}}", image]


def tag_argv(identity: str, image: str) -> list[str]:
    return ["podman", "tag", identity, image]


def mount_argv(image: str) -> list[str]:
    """Prints where the image's files are; `unmount_argv` afterwards."""
    return ["podman", "image", "mount", image]


def unmount_argv(image: str) -> list[str]:
    return ["podman", "image", "unmount", image]


def artifact_pull_argv(reference: str) -> list[str]:
    return ["podman", "artifact", "pull", "--quiet", reference]


def artifact_remove_argv(reference: str) -> list[str]:
    return ["podman", "artifact", "rm", reference]


def image_remove_argv(image: str) -> list[str]:
    """Not by force: what a container is made from stays."""
    return ["podman", "image", "rm", image]


def layers_argv(reference: str, options: Iterable[str] = ()) -> list[str]:
    """What its registry says of the layers of an image; nothing is downloaded."""
    argv = ["skopeo", "inspect", "--no-tags", "--format", "{{json .LayersData}}"]
    return [*argv, *options, f"docker://{reference}"]


def artifact_inspect_argv(reference: str) -> list[str]:
    return ["podman", "artifact", "inspect", reference]


def storage_argv() -> list[str]:
    return ["podman", "info", "--format", "{{.Store.GraphRoot}}"]


def volume_create_argv(volume: str, app_id: str) -> list[str]:
    return ["podman", "volume", "create", "--label", f"{PROJECT_LABEL}={app_id}", volume]


def volume_path_argv(volume: str) -> list[str]:
    return ["podman", "volume", "inspect", "--format", "{{.Mountpoint}}", volume]


def pull_argv(image: str) -> list[str]:
    return ["podman", "pull", "--quiet", image]


def image_inspect_argv(image: str) -> list[str]:
    return ["podman", "image", "inspect", image]


def look_up_argv(image: str) -> list[str]:
    """The digest that the registry has for `image` now; nothing is downloaded."""
    argv = ["skopeo", "inspect", "--no-tags", "--format", "{{.Digest}}"]
    return [*argv, f"docker://{image}"]


def raw_manifest_argv(reference: str, options: Iterable[str] = ()) -> list[str]:
    """As the registry has it now; nothing else is downloaded."""
    return ["skopeo", "inspect", "--raw", *options, f"docker://{reference}"]


def without_tag(reference: str) -> str:
    """And without a digest."""
    head, slash, last = reference.removeprefix("oci://").partition("@")[0].rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


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


def ids_argv(what: str, label: str, value: str) -> list[str]:
    """Ids of containers (`ps`), pods or networks with a label."""
    argv = ["podman", "ps", "--all"] if what == "ps" else ["podman", what, "ls"]
    return [*argv, "--quiet", "--no-trunc", "--filter", f"label={label}={value}"]


def pods_remove_argv(pods: Iterable[str]) -> list[str]:
    return ["podman", "pod", "rm", "--ignore", "--force", "--time", "1", *pods]


def networks_remove_argv(networks: Iterable[str]) -> list[str]:
    return ["podman", "network", "rm", "--force", *networks]


def volumes_argv() -> list[str]:
    return ["podman", "volume", "ls", "--format", "json"]


def volume_remove_argv(volume: str) -> list[str]:
    return ["podman", "volume", "rm", volume]


# Output. ------------------------------------------------------------------------------------------


def volumes_of(stdout: str) -> list[str]:
    """Volumes that applications of ours were given, by now or ever: by our label, or by the
    checksum in their name or in the name of their Compose project. Raises ValueError."""
    found = json.loads(stdout.strip() or "[]") or []
    if not isinstance(found, list):
        raise ValueError("not a list of volumes")
    return [
        str(one["Name"])
        for one in found
        if PROJECT_LABEL in (labels := one.get("Labels") or {})
        or is_app_id(str(one["Name"]))
        or is_app_id(str(labels.get(COMPOSE_LABEL) or ""))
    ]


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

    What carries the label of an application, and whatever stands in the way of `names`. Raises
    ValueError.
    """
    found = json.loads(stdout.strip() or "[]") or []
    if not isinstance(found, list):
        raise ValueError("not a list of containers")
    marks = {}
    for one in found:
        labels = one.get("Labels") or {}
        is_marked = PROJECT_LABEL in labels or COMPOSE_LABEL in labels
        if not is_marked and not set(one.get("Names") or ()) & set(names):
            continue
        # The text of Status holds an age, and in brackets the health.
        health = str(one.get("Status") or "").partition("(")[2]
        fields = [one.get(k) for k in ("State", "StartedAt", "Pid", "ExitCode", "Restarts")]
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
        unit=str(labels.get(UNIT_LABEL) or ""),
        project=str(labels.get(COMPOSE_LABEL) or ""),
        service=str(labels.get(COMPOSE_SERVICE_LABEL) or ""),
        image=str(document.get("ImageName") or ""),
        image_id=str(document.get("Image") or ""),
        pid=int(state.get("Pid") or 0),
        health_log=_health_log(document),
    )


def _health_log(document: Json) -> str:
    """Beside the folder that the file with the process's number is in."""
    file = str(document.get("PidFile") or "")
    return f"{posixpath.dirname(posixpath.dirname(file))}/healthcheck.log" if file else ""


def _health_output(health: Json) -> str:
    log = health.get("Log") or []
    last = log[-1] if isinstance(log, list) and log else {}
    return errors.one_line(str(last.get("Output") or "")) if isinstance(last, dict) else ""


def shadows(stdout: str, label: str, value: str) -> list[str]:
    """Volumes that hold nothing but show an image; those of another image are made anew.

    NB podman's own filters are no help: of two different ones, either is enough for it, and a
    volume with data would be in the list.
    """
    found = json.loads(stdout.strip() or "[]") or []
    return [
        str(one["Name"])
        for one in found
        if one.get("Driver") == "image" and (one.get("Labels") or {}).get(label) == value
    ]


@dataclass(frozen=True, slots=True)
class Layer:
    """A file of an artifact; `title` may be a path, and is not to be trusted."""

    digest: str
    media_type: str
    title: str


def artifact_layers(stdout: str) -> tuple[Layer, ...]:
    """`podman artifact inspect`. Raises ValueError for what is not that."""
    found = json.loads(stdout)
    manifest = found.get("Manifest") if isinstance(found, dict) else None
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    if not isinstance(layers, list):
        raise ValueError("not an artifact")
    return tuple(
        Layer(
            str(layer.get("digest") or ""),
            str(layer.get("mediaType") or ""),
            str((layer.get("annotations") or {}).get("org.opencontainers.image.title") or ""),
        )
        for layer in layers
    )


def layer_sizes(stdout: str) -> dict[str, int]:
    """Digest -> bytes, packed. Raises ValueError, KeyError, TypeError."""
    return {str(one["Digest"]): int(one["Size"]) for one in json.loads(stdout) or []}


def artifact_sizes(manifest: str) -> dict[str, int]:
    """The same of an artifact. Raises ValueError, KeyError, TypeError."""
    return {str(one["digest"]): int(one["size"]) for one in json.loads(manifest)["layers"]}


def artifact_digest(stdout: str) -> str:
    """Its identity; of its manifest where this podman does not name one."""
    try:
        found = json.loads(stdout)
    except ValueError:
        return ""
    if not isinstance(found, dict):
        return ""
    return str(found.get("Digest") or digest.of(found.get("Manifest")))


# Words. -------------------------------------------------------------------------------------------

# (words that must all occur, cause, whether a retry may help); the first row that fits counts.
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


def is_artifact(stderr: str) -> bool:
    """Whether a pull failed because the reference is no image but an OCI artifact."""
    text = stderr.lower()
    return "artifact" in text or "unsupported media type" in text or "unknown config" in text


def is_unknown_command(stderr: str) -> bool:
    text = stderr.lower()
    return "unrecognized command" in text or "unknown command" in text


def is_image_missing(stderr: str) -> bool:
    text = stderr.lower()
    return "image not known" in text or "no such image" in text


def run_error(stderr: str, *, app: str) -> errors.Retry | errors.Reject:
    """As for downloads (`pullerrors`): what the table does not know is tried again."""
    text = stderr.lower()
    detail, component = last_words(stderr), errors.APPLICATIONS
    for words, cause, may_help in _RUN_WORDS:
        if all(word in text for word in words):
            kind = errors.Retry if may_help else errors.Reject
            return kind(cause, detail, component=component, element=app)
    return errors.Retry(errors.INTERNAL, detail, component=component, element=app)


def last_words(stderr: str) -> str:
    """The last complaint: tools put the cause at the end, after progress and warnings."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    for line in reversed(lines):
        if line.lower().startswith("error"):
            return errors.one_line(line)
    return errors.one_line(lines[-1]) if lines else "no output"
