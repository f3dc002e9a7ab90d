"""Quadlets: units that podman's generator turns into services. Rendered and checked, nothing run.

Each application gets a namespace: its files, services, pods, networks and volumes begin with its
identifier, so that two applications may both have an `app.container`, and so that either agent
finds what the other one has left. References between the units of one application follow; names of
things outside are left as they are. Drop-ins beside the units, and a target that wants all of their
services, are the agent's own; the names of both are part of the contract.

A container application is a quadlet application of one unit, written here.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping

from agent import homefiles, podman, yamltexts
from agent.specs import AppFile, Application
from resources import unitfile
from resources.records import dataclass, field

UNIT_DIR = "/etc/systemd/system"
FOLDER = "/etc/containers/systemd"
ENV_FILE = ".env"
DROP_IN = "99-flightctl.conf"
TARGET_SUFFIX = homefiles.TARGET_SUFFIX
# By this flightctl's agent tells folders of the system's applications; its text is for people.
EMBEDDED = ".flightctl-embedded"
EMBEDDED_TEXT = b"brought by the operating system\n"
FILE_MODE, SECRET_MODE = 0o644, 0o600

SECTIONS: Mapping[str, str] = {
    ".container": "Container",
    ".volume": "Volume",
    ".network": "Network",
    ".image": "Image",
    ".pod": "Pod",
    ".kube": "Kube",
}
WORKLOADS = (".container", ".kube")
REFUSED = (".build", ".artifact")
# Keys whose value, or whose part before the colon, may be another unit of the application.
_REFERENCES = ("Image", "Pod", "Network", "Volume")
_NAMES = ("ContainerName", "PodName", "NetworkName", "VolumeName", "ServiceName")
# Keys of [Unit] and [Install] that list units.
_DEPENDENCIES = re.compile(
    r"(After|Before|Requires|Requisite|Wants|BindsTo|PartOf|Upholds|Conflicts|OnSuccess|OnFailure"
    r"|PropagatesReloadTo|ReloadPropagatedFrom|JoinsNamespaceOf|WantedBy|RequiredBy|UpheldBy|Also)"
)
_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*(:\d+)?")


@dataclass(frozen=True, slots=True)
class Site:
    """Where applications have their folders, and where systemd looks for their targets."""

    units: str
    targets: str


ROOT_SITE = Site(FOLDER, UNIT_DIR)


def site_of(home: str) -> Site:
    """Those of a user, whose podman and systemd look there."""
    return Site(f"{home}/.config/containers/systemd", f"{home}/.config/systemd/user")


@dataclass(frozen=True, slots=True)
class Rendered:
    """`files`: absolute path -> (content, mode). `services` start; `workloads` of them last."""

    files: Mapping[str, tuple[bytes, int]] = field(repr=False)
    target: str
    services: tuple[str, ...]
    workloads: tuple[str, ...]
    images: tuple[str, ...]


class Invalid(ValueError):
    """What is wrong with an application's files, for people."""


def folder_of(app: Application, site: Site = ROOT_SITE) -> str:
    return f"{site.units}/{podman.folder_name(app.name)}"


def target_of(app_id: str) -> str:
    return f"{app_id}{TARGET_SUFFIX}"


def id_of_target(name: str) -> str:
    """The application whose target is called so; empty for other units."""
    return name.removesuffix(TARGET_SUFFIX) if name.endswith(TARGET_SUFFIX) else ""


def services_in(target: str) -> list[str]:
    """Which services a target of ours wants; nothing where it is no unit file."""
    try:
        sections = unitfile.parse(target)
    except ValueError:
        return []
    return _values(sections, "Unit", "Wants")


# A container application as a unit. ---------------------------------------------------------------


def container_unit(app: Application, *, with_limits: bool) -> bytes:
    """`app.container`. A stopped one is not started at boot either, so it has no [Install]."""
    keys = [("Image", app.image)]
    keys += [("PublishPort", port) for port in app.ports]
    for volume in app.volumes:
        source = podman.volume_name(app.name, volume.name)
        keys.append(("Volume", f"{source}:{volume.mount}"))
    limits = []
    if with_limits and app.cpu:
        limits += ["--cpus", app.cpu]
    if with_limits and app.memory:
        limits += ["--memory", app.memory]
    if limits:
        keys.append(("PodmanArgs", " ".join(limits)))
    sections = {
        "Unit": [("Description", _escaped(f"Application {app.name}"))],
        "Container": [(key, _escaped(value)) for key, value in keys],
        "Service": [("Restart", "on-failure"), ("RestartSec", "5")],
    }
    if not app.is_stopped:
        sections["Install"] = [("WantedBy", "default.target")]
    return unitfile.written(sections).encode()


def _escaped(value: str) -> str:
    """For systemd a per cent sign begins a specifier, and a line ends a value."""
    return value.replace("%", "%%").replace("\n", " ")


# Any quadlet application. -------------------------------------------------------------------------


def render(app: Application, files: Iterable[AppFile], site: Site = ROOT_SITE) -> Rendered:
    """Everything that is to be on the disk for `app`. Raises Invalid, Retry."""
    return _Renderer(app, {file.path.removeprefix("./"): file for file in files}, site).rendered()


class _Renderer:
    def __init__(self, app: Application, files: Mapping[str, AppFile], site: Site) -> None:
        self._app = app
        self._site = site
        self._id = podman.app_id(app.name, app.run_as)
        self._files = files
        self._folder = folder_of(app, site)
        self._units = {name: _parsed(name, f.data) for name, f in files.items() if is_unit(name)}
        self._volumes = {
            v.name: podman.volume_name(app.name, v.name) for v in app.volumes if v.image
        }
        # Services as the author of the files knows them -> as they are called here.
        self._services = {_service(name, u): self._service(name) for name, u in self._units.items()}

    def rendered(self) -> Rendered:
        self._check()
        placed: dict[str, tuple[bytes, int]] = {}
        for name, file in self._files.items():
            path, data = self._placed(name, file.data)
            placed[f"{self._folder}/{path}"] = (data, FILE_MODE)
        for extension in sorted({_extension(name) for name in self._units}):
            path = f"{self._folder}/{self._id}-{extension}.d/{DROP_IN}"
            placed[path] = (self._drop_in(extension), FILE_MODE)
        if self._app.is_embedded:
            placed[f"{self._folder}/{EMBEDDED}"] = (EMBEDDED_TEXT, FILE_MODE)
        if self._app.env:
            placed[f"{self._folder}/{ENV_FILE}"] = (env_file(self._app.env), SECRET_MODE)
        services = tuple(sorted(self._services.values()))
        target = target_of(self._id)
        for place in (f"{self._folder}/{target}", f"{self._site.targets}/{target}"):
            placed[place] = (self._target(services), FILE_MODE)
        names = [name for name in self._units if _extension(name) in WORKLOADS]
        workloads = tuple(sorted(self._service(name) for name in names))
        return Rendered(placed, target, services, workloads, tuple(dict.fromkeys(self._images())))

    def _check(self) -> None:
        for name in self._files:
            if _is_top(name) and _extension(name) in REFUSED:
                raise Invalid(f"{name}: {_extension(name)} units are not supported on devices")
        if not any(_extension(name) in (*WORKLOADS, ".pod") for name in self._units):
            raise Invalid("no unit that runs: add a .container, .pod or .kube file at the top")
        for name, sections in self._units.items():
            own = SECTIONS[_extension(name)]
            if own not in sections:
                raise Invalid(f"{name}: no section [{own}]")
            for key, value in sections[own]:
                self._check_key(name, key, value)
            if _extension(name) in (".container", ".image") and not _values(sections, own, "Image"):
                raise Invalid(f"{name}: no Image= in [{own}]")

    def _check_key(self, name: str, key: str, value: str) -> None:
        if key == "Image" and _extension(value) not in SECTIONS:
            # What a container application names may be known to this device alone.
            is_free = self._app.app_type == podman.CONTAINER
            if not is_free and (problem := image_problem(value)):
                raise Invalid(f"{name}: Image={value}: {problem}")
        elif key in _REFERENCES:
            source = value.partition(":")[0]
            is_unit = "/" not in source and _extension(source) in SECTIONS
            if is_unit and source not in self._units:
                raise Invalid(f"{name}: {key}={value}: there is no {source} in this application")
        elif key == "Yaml" and value not in self._files:
            raise Invalid(f"{name}: Yaml={value}: there is no {value} in this application")

    def _images(self) -> Iterator[str]:
        for name, sections in self._units.items():
            for image in _values(sections, SECTIONS[_extension(name)], "Image"):
                if _extension(image) not in SECTIONS:
                    yield image
            for manifest in _values(sections, "Kube", "Yaml"):
                yield from _images_of_pod(manifest, self._files[manifest].data)

    # Where a file goes, and what is in it.

    def _placed(self, name: str, data: bytes) -> tuple[str, bytes]:
        folder, _, rest = name.partition("/")
        if name in self._units:
            return f"{self._id}-{name}", self._rewritten(self._units[name])
        kind = folder.removesuffix(".d")
        if folder.endswith(".d") and rest and kind in [e[1:] for e in SECTIONS]:
            return f"{self._id}-.{kind}.d/{rest}", self._rewritten(_parsed(name, data))
        if folder.endswith(".d") and rest and kind in self._units:
            return f"{self._id}-{folder}/{rest}", self._rewritten(_parsed(name, data))
        if any(name in _values(u, "Kube", "Yaml") for u in self._units.values()):
            return name, self._namespaced_pod(name, data)
        return name, data

    def _rewritten(self, sections: unitfile.Sections) -> bytes:
        own = {}
        for section, keys in sections.items():
            own[section] = [(key, self._value(section, key, value)) for key, value in keys]
        return unitfile.written(own).encode()

    def _value(self, section: str, key: str, value: str) -> str:
        if section in ("Unit", "Install"):
            if not _DEPENDENCIES.fullmatch(key):
                return value
            return " ".join(self._unit_name(word) for word in value.split())
        if section not in SECTIONS.values():
            return value
        if key in _NAMES and value:
            return f"{self._id}-{value}"
        if key == "Mount":
            return ",".join(self._mount_part(part) for part in value.split(","))
        if key in _REFERENCES:
            source, colon, rest = value.partition(":")
            if key == "Image":
                source, colon, rest = value, "", ""
            return f"{self._source(source)}{colon}{rest}"
        return value

    def _mount_part(self, part: str) -> str:
        key, equals, value = part.partition("=")
        if key.strip() in ("source", "src") and equals:
            return f"{key}={self._source(value.strip())}"
        return part

    def _source(self, name: str) -> str:
        return f"{self._id}-{name}" if name in self._units else self._volumes.get(name, name)

    def _unit_name(self, name: str) -> str:
        return f"{self._id}-{name}" if name in self._units else self._services.get(name, name)

    def _service(self, name: str) -> str:
        return f"{self._id}-{_service(name, self._units[name])}"

    def _namespaced_pod(self, name: str, data: bytes) -> bytes:
        _pods(name, data)
        return yamltexts.with_names_behind(data, f"{self._id}-")

    # The agent's own files.

    def _drop_in(self, extension: str) -> bytes:
        label = f"{podman.PROJECT_LABEL}={self._id}"
        sections: dict[str, list[tuple[str, str]]] = {
            "Unit": [("PartOf", target_of(self._id))],
        }
        match extension:
            case ".container":
                sections["Container"] = [("Label", label)]
                if self._app.env:
                    path = f"{self._folder}/{ENV_FILE}".replace("%", "%%")
                    sections["Container"].append(("EnvironmentFile", path))
                    sections["Container"] += _long_values(self._app.env)
            case ".volume" | ".network":
                sections[SECTIONS[extension]] = [("Label", label)]
            case ".pod":
                sections["Pod"] = [("PodmanArgs", f"--label {label}")]
            case ".kube":
                sections["Service"] = [("Restart", "on-failure"), ("RestartSec", "5")]
                sections["Install"] = [("WantedBy", "default.target")]
        return unitfile.written(sections).encode()

    def _target(self, services: tuple[str, ...]) -> bytes:
        keys = [("Description", _escaped(f"Application {self._app.name}"))]
        for service in services:
            keys += [("Wants", service), ("After", service)]
        return unitfile.written({"Unit": keys}).encode()


def env_file(env: Iterable[tuple[str, str]]) -> bytes:
    """As podman reads it: the whole rest of the line is the value, quotes too."""
    lines = [f"{key}={value}\n" for key, value in env if not _is_long(value)]
    return "".join(lines).encode()


def _is_long(value: str) -> bool:
    return "\n" in value or "\r" in value


def _long_values(env: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Values of several lines, which no environment file can hold, with systemd's escapes."""
    found = []
    for key, value in env:
        if _is_long(value):
            text = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
            text = text.replace("\n", "\\n").replace("\r", "\\r")
            found.append(("Environment", f'"{key}={text}"'))
    return found


def image_problem(reference: str) -> str:
    """Why no device can pull this without guessing; empty if it can."""
    if not reference or reference.startswith("-"):
        return "no image"
    host, slash, _ = reference.partition("/")
    is_host = _HOST.fullmatch(host) and ("." in host or ":" in host or host == "localhost")
    if not slash or not is_host:
        return "not fully qualified: name its registry, as in quay.io/org/image:tag"
    return ""


def _is_top(name: str) -> bool:
    return "/" not in name


def is_unit(name: str) -> bool:
    return _is_top(name) and _extension(name) in SECTIONS


def _extension(name: str) -> str:
    return posixpath.splitext(name)[1]


def _service(name: str, sections: unitfile.Sections) -> str:
    """The service that the generator makes of the file `name`."""
    stem, extension = posixpath.splitext(name)
    if extension in WORKLOADS:
        return f"{stem}.service"
    if extension == ".pod" and (own := _values(sections, "Pod", "ServiceName")):
        return f"{own[-1]}.service"
    return f"{stem}-{extension[1:]}.service"


def _parsed(name: str, data: bytes) -> unitfile.Sections:
    try:
        return unitfile.parse(data.decode())
    except ValueError as error:
        raise Invalid(f"{name}: {error}") from error


def _values(sections: unitfile.Sections, section: str, key: str) -> list[str]:
    return [value for name, value in sections.get(section, ()) if name == key and value]


def _pods(name: str, data: bytes) -> list[dict[str, object]]:
    try:
        documents = yamltexts.read_all(data)
    except yamltexts.NotYaml as error:
        raise Invalid(f"{name}: not YAML") from error
    if not documents or not all(isinstance(d, dict) for d in documents):
        raise Invalid(f"{name}: not a Kubernetes manifest")
    return documents


def _images_of_pod(name: str, data: bytes) -> Iterator[str]:
    for document in _pods(name, data):
        spec = document.get("spec")
        if not isinstance(spec, dict):
            continue
        for key in ("initContainers", "containers"):
            for container in spec.get(key) or ():
                image = container.get("image") if isinstance(container, dict) else None
                if not isinstance(image, str):
                    raise Invalid(f"{name}: a container without an image")
                if problem := image_problem(image):
                    raise Invalid(f"{name}: image {image}: {problem}")
                yield image
