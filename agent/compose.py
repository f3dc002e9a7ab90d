"""Compose applications: what their files say, and the commands for them. Nothing is run here.

The project is called as the application's identifier and lives in a folder of its own, with an
override that makes the agent's volumes known to it. Whatever program the device has speaks Compose
(`podman compose` finds docker-compose or podman-compose; an older podman leaves podman-compose by
itself). It only ever creates: what is there is stopped, started and removed by podman, by container
id, so that no program's idea of an update comes between.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from agent import podman, quadlet, yamltexts
from agent.specs import AppFile, Application
from resources.records import dataclass, field

Json = dict[str, Any]
Invalid = quadlet.Invalid

FOLDER = "/etc/compose/manifests"
# What a system's image has brought runs in place.
EMBEDDED = "/usr/local/etc/compose/manifests"
ENV_FILE = ".env"
OVERRIDE = "99-compose-flightctl-agent.override.yaml"
PROJECT_LABEL = podman.COMPOSE_LABEL

_FAMILIES = ("docker-compose", "podman-compose")
BASES = tuple(f"{family}.{end}" for family in _FAMILIES for end in ("yaml", "yml"))
OVERRIDES = tuple(f"{family}.override.{end}" for family in _FAMILIES for end in ("yaml", "yml"))

# In this order; `None` in place of a version = it has to answer, whatever it says.
PROVIDERS: tuple[tuple[str, ...], ...] = (
    ("podman", "compose"),
    ("podman-compose",),
    ("docker-compose",),
)
WHAT_TO_INSTALL = "no Compose program on this device: install podman-compose or docker-compose"


@dataclass(frozen=True, slots=True)
class Rendered:
    """`files`: absolute path -> (content, mode). `services`: those that run by default."""

    files: Mapping[str, tuple[bytes, int]] = field(repr=False)
    names: tuple[str, ...]
    services: tuple[str, ...]
    images: tuple[str, ...]


def folder_of(app: Application) -> str:
    if app.is_embedded:
        return f"{EMBEDDED}/{app.name}"
    return f"{FOLDER}/{podman.folder_name(app.name)}"


def render(app: Application, files: Iterable[AppFile]) -> Rendered:
    """Everything that is to be on the disk for `app`. Raises Invalid, Retry."""
    named = {file.path.removeprefix("./"): file.data for file in files}
    base = next((name for name in BASES if name in named), None)
    if base is None:
        raise Invalid(f"no Compose file: add {BASES[0]} or {BASES[2]}")
    override = next((name for name in OVERRIDES if name in named), None)
    names = [base, *([override] if override else [])]
    services: dict[str, Json] = {}
    for name in names:
        for service, definition in _services(name, named[name]).items():
            services[service] = {**services.get(service, {}), **definition}
    for service, definition in services.items():
        _check(service, definition)
    folder = folder_of(app)
    written = {} if app.is_embedded else named
    placed = {f"{folder}/{name}": (data, quadlet.FILE_MODE) for name, data in written.items()}
    if app.env:
        placed[f"{folder}/{ENV_FILE}"] = (env_file(app.env), quadlet.SECRET_MODE)
    if any(volume.image for volume in app.volumes):
        placed[f"{folder}/{OVERRIDE}"] = (_override(app), quadlet.FILE_MODE)
        names.append(OVERRIDE)
    return Rendered(
        placed,
        tuple(names),
        tuple(sorted(name for name, d in services.items() if _runs_by_default(d))),
        tuple(dict.fromkeys(str(d["image"]) for d in services.values())),
    )


def _services(name: str, data: bytes) -> dict[str, Json]:
    try:
        document = yamltexts.read(data)
    except yamltexts.NotYaml as error:
        where = f" in line {error.line}" if error.line else ""
        raise Invalid(f"{name}: not YAML{where}") from error
    services = document.get("services") if isinstance(document, dict) else None
    if not isinstance(services, dict) or not services:
        raise Invalid(f"{name}: no services")
    for service, definition in services.items():
        if not isinstance(definition, dict):
            raise Invalid(f"{name}: service {service} is not an object")
    return {str(service): dict(definition) for service, definition in services.items()}


def _check(service: str, definition: Json) -> None:
    if "container_name" in definition:
        raise Invalid(f"service {service}: container_name would collide between applications")
    if "build" in definition:
        raise Invalid(f"service {service}: build is not supported on devices; name an image")
    if problem := quadlet.image_problem(str(definition.get("image") or "")):
        raise Invalid(f"service {service}: image {definition.get('image')}: {problem}")


def _runs_by_default(definition: Json) -> bool:
    deploy = definition.get("deploy")
    replicas = deploy.get("replicas") if isinstance(deploy, dict) else None
    return not definition.get("profiles") and 0 not in (definition.get("scale"), replicas)


def _override(app: Application) -> bytes:
    volumes = {
        v.name: {"external": True, "name": podman.volume_name(app.name, v.name)}
        for v in app.volumes
        if v.image
    }
    return yamltexts.written({"volumes": volumes})


_PLAIN = re.compile(r"[A-Za-z0-9_./:@,+=-]*")


def env_file(env: Iterable[tuple[str, str]]) -> bytes:
    """As the Compose programs read it: quoted where a value would be taken apart."""
    return "".join(f"{key}={_quoted(value)}\n" for key, value in env).encode()


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    if "'" not in value:
        return f"'{value}'"
    text = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


# Commands. ----------------------------------------------------------------------------------------


def up_argv(provider: tuple[str, ...], app_id: str, names: Iterable[str]) -> list[str]:
    """In the application's folder. Nothing that exists is touched; nothing is pulled."""
    argv = [*provider, "-p", app_id]
    for name in names:
        argv += ["-f", name]
    return [*argv, "up", "-d", "--no-recreate"]


def pod_of(app_id: str) -> str:
    """podman-compose puts a project into a pod of this name, without a label."""
    return f"pod_{app_id}"


# Output. ------------------------------------------------------------------------------------------


def is_known(stderr: str) -> bool:
    """Whether `podman compose` exists and has found a program to hand over to."""
    text = stderr.lower()
    return not any(
        words in text
        for words in ("unrecognized command", "unknown command", "looking up compose provider")
    )
