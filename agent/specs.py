"""A rendered specification, read into what the agent works with; and the three files that keep it.

The files are flightctl's: whole Device documents as they came, readable by its agent too, so that
either agent can take over from the other, in both directions.

The invariant: no content of these files can keep the agent from starting. One that is empty, torn
or nonsense is put aside and made again: `current.json` from our copy of the last committed document
(or from `desired.json`, when the journal says that this one was committed), the others from it.
Only when all of that is gone is the device on version 0: it then repairs nothing and removes
nothing until the service has said again what it should be.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Mapping
from typing import Any

from agent import audit, errors, schedule, world
from agent.states import Target
from resources.records import dataclass, field

log = logging.getLogger("agent.specs")

Json = dict[str, Any]

VERSION = "device-controller/renderedVersion"
HASH = "device-controller/renderedSpecHash"
TRIED_VERSION, TRIED_HASH = "agent/desiredVersion", "agent/desiredSpecHash"
NOTHING = "0"
FACTORY_RESET = "FactoryReset"

CURRENT, DESIRED, ROLLBACK = "current.json", "desired.json", "rollback.json"
COMMITTED = "committed.json"

CONTAINER = "container"
POLICIES = {
    "downloadSchedule": errors.DOWNLOAD_POLICY,
    "updateSchedule": errors.UPDATE_POLICY,
}
ALWAYS, IF_NOT_PRESENT, NEVER = "Always", "IfNotPresent", "Never"
MODE_DEFAULT = 0o644
MODE_MAX = 0o7777


@dataclass(frozen=True, slots=True)
class FileSpec:
    """One managed file. `content` may be secret: it is in no repr, log or journal."""

    path: str
    content: bytes = field(repr=False)
    mode: int
    user: str
    group: str


@dataclass(frozen=True, slots=True)
class Volume:
    """`version`: of the specification that asks the registry for it; empty = none does."""

    name: str
    mount: str
    image: str = ""
    pull_policy: str = IF_NOT_PRESENT
    version: str = ""

    @property
    def is_asked_for(self) -> bool:
        """Whatever is here. A digest says all."""
        return self.pull_policy == ALWAYS and "@" not in self.image


@dataclass(frozen=True, slots=True)
class AppFile:
    """One file of an application, `path` relative to its folder; it may hold secrets."""

    path: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Application:
    """`inline` None = it comes from `image`."""

    name: str
    app_type: str
    image: str = ""
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ports: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    cpu: str = ""
    memory: str = ""
    run_as: str = ""
    is_stopped: bool = False
    restart_generation: int = 0
    is_catalog_item: bool = False
    inline: tuple[AppFile, ...] | None = None
    # It came with the operating system, and not with a specification.
    is_embedded: bool = False
    # Of a chart. `values` is a JSON text, and may hold secrets.
    namespace: str = ""
    values: str = field(default="", repr=False)
    values_files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spec:
    target: Target
    files: tuple[FileSpec, ...] = ()
    applications: tuple[Application, ...] = ()
    os_image: str = ""
    is_dismissed: bool = False
    # With all that it has, not with its identity alone.
    is_reset: bool = False
    download_window: schedule.Window | None = None
    update_window: schedule.Window | None = None
    # A policy that cannot be read: nothing is to begin by it, but what is there is looked after.
    policy_objection: errors.Reject | None = None
    # What is wrong with it; a specification that cannot be read still has a version to refuse.
    objection: errors.Reject | None = None


def parse(device: Json) -> Spec:
    """Never raises for what is in the document; what is wrong is the `objection`."""
    target = target_of(device)
    raw = device.get("spec")
    spec: Json = raw if isinstance(raw, dict) else {}
    try:
        return _parse(target, spec)
    except errors.Reject as error:
        return Spec(
            target,
            objection=error,
            is_dismissed=bool(spec.get("decommissioning")),
            is_reset=_is_reset(spec),
        )


def _is_reset(spec: Json) -> bool:
    found = spec.get("decommissioning")
    return isinstance(found, dict) and found.get("target") == FACTORY_RESET


def target_of(device: Json) -> Target:
    found = annotations_of(device)
    return Target(str(found.get(VERSION, "")), str(found.get(HASH, "")))


def annotations_of(device: Json) -> Mapping[str, Any]:
    metadata = device.get("metadata")
    found = metadata.get("annotations") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def number(version: str) -> int:
    """-1 = not a version."""
    return int(version) if version.isascii() and version.isdigit() else -1


def _parse(target: Target, spec: Json) -> Spec:
    download, update, policy_objection = _policy(spec)
    os = _table(spec, "os", "spec.os", errors.OS)
    return Spec(
        target,
        files=_files(spec),
        applications=_applications(spec, target.version),
        os_image=_os_image(os),
        is_dismissed=bool(spec.get("decommissioning")),
        is_reset=_is_reset(spec),
        download_window=download,
        update_window=update,
        policy_objection=policy_objection,
    )


def _policy(
    spec: Json,
) -> tuple[schedule.Window | None, schedule.Window | None, errors.Reject | None]:
    policy = _table(spec, "updatePolicy", "spec.updatePolicy", errors.UPDATE_POLICY)
    found: list[schedule.Window | None] = []
    objection = None
    for key, component in POLICIES.items():
        entry, window = policy.get(key), None
        try:
            if entry:
                window = schedule.parse(entry if isinstance(entry, dict) else {})
        except ValueError as error:
            detail = f"spec.updatePolicy.{key}.{error}"
            objection = errors.Reject(errors.INVALID_ARGUMENT, detail, component=component)
        found.append(window)
    return found[0], found[1], objection


def _os_image(os: Json) -> str:
    image = str(os.get("image") or "")
    if not image and os.get("catalogItemRef"):
        detail = "references to a catalogue are resolved by the service, this one was not"
        raise errors.Reject(errors.FAILED_PRECONDITION, detail, component=errors.OS)
    return image


def _files(spec: Json) -> tuple[FileSpec, ...]:
    """Of the first provider only, as the contract says; of one path twice, the last."""
    providers = _list(spec, "config", "spec.config", errors.CONFIG)
    if not providers:
        return ()
    if not isinstance(providers[0], dict):
        raise _wrong(errors.CONFIG, "", "spec.config[0] is not an object")
    found: dict[str, FileSpec] = {}
    for entry in _list(providers[0], "inline", "spec.config[0].inline", errors.CONFIG):
        one = _file(entry)
        found.pop(one.path, None)
        found[one.path] = one
    return tuple(found.values())


def _file(entry: Any) -> FileSpec:
    if not isinstance(entry, dict):
        raise _wrong(errors.CONFIG, "", "an entry of spec.config[0].inline is not an object")
    path = entry.get("path")
    if not isinstance(path, str) or not _is_absolute(path):
        raise _wrong(errors.CONFIG, str(path), "not an absolute path of a file")
    mode = entry.get("mode", MODE_DEFAULT)
    if mode is None:
        mode = MODE_DEFAULT
    if not isinstance(mode, int) or isinstance(mode, bool) or not 0 <= mode <= MODE_MAX:
        raise _wrong(errors.CONFIG, path, f"{mode!r} is not a file mode")
    return FileSpec(
        path,
        _content(entry, path, errors.CONFIG),
        mode,
        str(entry.get("user") or "root"),
        str(entry.get("group") or "root"),
    )


def _is_absolute(path: str) -> bool:
    parts = path.split("/")
    return (
        path.startswith("/")
        and "\0" not in path
        and all(part not in ("", ".", "..") for part in parts[1:])
    )


def _content(entry: Json, path: str, component: str) -> bytes:
    text = entry.get("content") or ""
    if not isinstance(text, str):
        raise _wrong(component, path, "the content is not a string")
    encoding = entry.get("contentEncoding") or "plain"
    if encoding == "plain":
        return text.encode()
    if encoding != "base64":
        raise _wrong(component, path, f"content encoding {encoding!r} is unknown")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong(component, path, "the content is not base64") from error


def _applications(spec: Json, version: str) -> tuple[Application, ...]:
    found: dict[str, Application] = {}
    for entry in _list(spec, "applications", "spec.applications", errors.APPLICATIONS):
        if not isinstance(entry, dict):
            raise _wrong(errors.APPLICATIONS, "", "an entry of spec.applications is not an object")
        one = _application(entry, version)
        if one.name in found:
            raise _wrong(errors.APPLICATIONS, one.name, "two applications have this name")
        found[one.name] = one
    return tuple(found.values())


def _application(entry: Json, version: str) -> Application:
    image = str(entry.get("image") or "")
    name = str(entry.get("name") or image)
    if not name:
        raise _wrong(errors.APPLICATIONS, "", "an application has neither name nor image")
    env = _table(entry, "envVars", name, errors.APPLICATIONS)
    resources = _table(entry, "resources", name, errors.APPLICATIONS)
    limits = _table(resources, "limits", name, errors.APPLICATIONS)
    volumes = _list(entry, "volumes", name, errors.APPLICATIONS)
    return Application(
        name=name,
        app_type=str(entry.get("appType") or ""),
        image=image,
        env=tuple(sorted((str(k), str(v)) for k, v in env.items())),
        ports=tuple(str(p) for p in _list(entry, "ports", name, errors.APPLICATIONS)),
        volumes=tuple(_volume(v, name, version) for v in volumes),
        cpu=str(limits.get("cpu") or ""),
        memory=str(limits.get("memory") or ""),
        run_as=str(entry.get("runAs") or ""),
        is_stopped=entry.get("desiredState") == "stopped",
        restart_generation=_whole(entry.get("restartGeneration")),
        is_catalog_item=bool(entry.get("catalogItemRef")),
        inline=None if entry.get("inline") is None else _inline(entry, name),
        namespace=str(entry.get("namespace") or ""),
        values=_values(_table(entry, "values", name, errors.APPLICATIONS)),
        values_files=_values_files(entry, name),
    )


def _values(values: Json) -> str:
    return json.dumps(values, sort_keys=True) if values else ""


def _values_files(entry: Json, app: str) -> tuple[str, ...]:
    found = tuple(str(p) for p in _list(entry, "valuesFiles", app, errors.APPLICATIONS))
    for path in found:
        if not _is_absolute(f"/{path}") or path.startswith("-"):
            raise _wrong(errors.APPLICATIONS, app, f"valuesFiles: {path!r} is not in the chart")
    return found


def _inline(entry: Json, app: str) -> tuple[AppFile, ...]:
    found: dict[str, AppFile] = {}
    for one in _list(entry, "inline", app, errors.APPLICATIONS):
        path = one.get("path") if isinstance(one, dict) else None
        if not isinstance(path, str) or not _is_absolute(f"/{path.removeprefix('./')}"):
            raise _wrong(errors.APPLICATIONS, app, f"inline: {path!r} is not a relative path")
        data = _content(one, f"{app}: {path}", errors.APPLICATIONS)
        found[path.removeprefix("./")] = AppFile(path.removeprefix("./"), data)
    return tuple(found.values())


def _volume(entry: Any, app: str, version: str) -> Volume:
    if not isinstance(entry, dict) or not entry.get("name"):
        raise _wrong(errors.APPLICATIONS, app, "a volume has no name")
    mount = _table(entry, "mount", app, errors.APPLICATIONS)
    image = _table(entry, "image", app, errors.APPLICATIONS)
    policy = str(image.get("pullPolicy") or IF_NOT_PRESENT)
    if policy not in (ALWAYS, IF_NOT_PRESENT, NEVER):
        raise _wrong(errors.APPLICATIONS, app, f"pullPolicy {policy!r} is unknown")
    return Volume(
        str(entry["name"]),
        str(mount.get("path") or ""),
        str(image.get("reference") or ""),
        policy,
        version if policy == ALWAYS else "",
    )


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _table(document: Json, key: str, element: str, component: str) -> Json:
    found = document.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _wrong(component, element, f"{key} is not an object")
    return found


def _list(document: Json, key: str, element: str, component: str) -> list[Any]:
    found = document.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise _wrong(component, element, f"{key} is not a list")
    return found


def _wrong(component: str, element: str, detail: str) -> errors.Reject:
    return errors.Reject(errors.INVALID_ARGUMENT, detail, component=component, element=element)


# The files. ---------------------------------------------------------------------------------------


def empty(version: str = NOTHING) -> Json:
    return {
        "apiVersion": "v1beta1",
        "kind": "Device",
        "metadata": {"annotations": {VERSION: version}},
        "spec": {},
    }


class SpecFiles:
    """`current`, `desired` in memory and on disk; the disk is always written first."""

    def __init__(
        self, where: world.World, data_dir: str, own_dir: str, log_book: audit.Audit | None = None
    ) -> None:
        self._world = where
        self._data_dir = data_dir
        self._own_dir = own_dir
        self._audit = log_book or audit.Audit(where, "")
        self.current: Json = empty()
        self.desired: Json = empty()

    def load(self, committed: Target | None, refused: Target | None) -> None:
        """Reads and heals. `committed` and `refused` are what the journal is sure of."""
        is_first = all(
            self._world.stat(f"{self._data_dir}/{name}") is None
            for name in (CURRENT, DESIRED, ROLLBACK)
        )
        current = self._read(self._data_dir, CURRENT)
        desired = self._read(self._data_dir, DESIRED)
        last = self._read(self._own_dir, COMMITTED)
        if committed is not None and (current is None or target_of(current) != committed):
            # Cut off between the commit and the files that follow it; or the file rotted.
            by_journal = [d for d in (desired, last) if d is not None and target_of(d) == committed]
            if by_journal:
                current = by_journal[0]
            elif current is None and last is not None:
                current = last
        if current is None:
            current = last if last is not None else empty()
        if desired is None or (refused is not None and target_of(desired) == refused):
            desired = current
        self.current, self.desired = current, desired
        why = audit.BOOTSTRAP if is_first else audit.RECOVERY
        self._heal(CURRENT, current, why)
        self._heal(DESIRED, desired, why)
        if self._read(self._data_dir, ROLLBACK) is None:
            self._clear_rollback(audit.BOOTSTRAP if is_first else audit.INITIALIZATION)
        if target_of(current).version != NOTHING and last != current:
            self._write(self._own_dir, COMMITTED, current)

    def want(self, device: Json) -> None:
        """A new specification is to be made true."""
        before = self.desired
        self._write(self._data_dir, DESIRED, device)
        self.desired = device
        self._note(audit.DESIRED, audit.SYNC, before, device)

    def committed(self) -> None:
        """After the journal's commit record: the files follow it."""
        before = self.current
        self._write(self._data_dir, CURRENT, self.desired)
        self.current = self.desired
        self._note(audit.CURRENT, audit.UPGRADE, before, self.current)
        self._write(self._own_dir, COMMITTED, self.current)
        self._clear_rollback(audit.INITIALIZATION, before)

    def note_rollback(self, image: str) -> None:
        """Before a reboot into another system. For flightctl's agent, should it be in the old one:
        it so learns what was tried here, and that it failed."""
        document = empty(target_of(self.current).version)
        wanted = target_of(self.desired)
        document["metadata"]["annotations"] |= {
            TRIED_VERSION: wanted.version,
            TRIED_HASH: wanted.spec_hash,
        }
        document["spec"] = {"os": {"image": image}}
        if self._write_if_other(ROLLBACK, document):
            self._note(audit.ROLLBACK, audit.INITIALIZATION, empty(""), document)

    def gone_back_from(self) -> Target | None:
        """What another agent has tried here and rebooted away from, as far as it says."""
        found = annotations_of(self._read(self._data_dir, ROLLBACK) or {})
        version = str(found.get(TRIED_VERSION, ""))
        return Target(version, str(found.get(TRIED_HASH, ""))) if version else None

    def abandoned(self) -> None:
        """After the journal's refusal: what is wanted is what was."""
        before = self.desired
        self._write(self._data_dir, DESIRED, self.current)
        self.desired = self.current
        self._note(audit.DESIRED, audit.ROLLED_BACK, before, self.current)

    def _heal(self, name: str, document: Json, why: str) -> None:
        found = self._read(self._data_dir, name)
        if self._write_if_other(name, document):
            self._note(name.partition(".")[0], why, found or empty(""), document)

    def _clear_rollback(self, why: str, before: Json | None = None) -> None:
        self._write(self._data_dir, ROLLBACK, empty(""))
        self._note(audit.ROLLBACK, why, before or empty(""), empty(""))

    def _note(self, kind: str, why: str, before: Json, after: Json) -> None:
        template = str(annotations_of(after).get(audit.TEMPLATE_VERSION, ""))
        old, new = target_of(before).version, target_of(after).version
        self._audit.moved(kind, why, before=old, after=new, template=template)

    def _write_if_other(self, name: str, document: Json) -> bool:
        if self._world.read(f"{self._data_dir}/{name}") == _bytes(document):
            return False
        self._write(self._data_dir, name, document)
        return True

    def _write(self, folder: str, name: str, document: Json) -> None:
        # 0600 and not the reference's 0644: contents of secret files are in it. It runs as root.
        self._world.write(f"{folder}/{name}", _bytes(document), mode=0o600, uid=0, gid=0)

    def _read(self, folder: str, name: str) -> Json | None:
        raw = self._world.read(f"{folder}/{name}")
        if raw is None:
            return None
        try:
            document = json.loads(raw)
            if isinstance(document, dict) and isinstance(document.get("metadata"), dict):
                return document
        except ValueError:
            pass
        log.error("specification file damaged, put aside file=%s bytes=%d", name, len(raw))
        self._world.write(f"{self._own_dir}/{name}.damaged", raw, mode=0o600, uid=0, gid=0)
        self._world.remove(f"{folder}/{name}")
        return None


def _bytes(document: Json) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
