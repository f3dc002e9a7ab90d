"""Applications that the operating system's image has brought with it: found, checked, joined.

Compose projects run in place, from `/usr/local/etc/compose/manifests/NAME`; quadlets are installed
from `/usr/local/etc/containers/systemd/NAME` like those of a specification. Both belong to every
specification that this system runs, the empty one too: a device that nobody has spoken to yet has
its applications. They are looked for once in a life, since another image means another boot.

They decide about an update only at the first look at the system that it has booted: there one that
cannot run speaks against that system. Any other time what is wrong with them is told and repaired,
and holds up no specification, for one may be what brings a better system. Where a specification has
an application of the same name, the specification's is meant.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Callable, Iterable

from agent import compose, errors, podman, quadlet, specs, world
from resources.records import dataclass, replace

log = logging.getLogger("agent.embedded")

QUADLETS = "/usr/local/etc/containers/systemd"
Objection = Callable[[specs.Application], errors.Reject | None]

APPS_MAX = 50
BYTES_MAX = 4 << 20
DEPTH_MAX = 4


@dataclass(frozen=True, slots=True)
class Found:
    """`broken`: those that cannot run, in order of name."""

    apps: tuple[specs.Application, ...] = ()
    broken: tuple[errors.Reject, ...] = ()

    def joined(self, spec: specs.Spec) -> specs.Spec:
        """`spec` with all that it does not name itself."""
        named = {podman.app_id(app.name, app.run_as) for app in spec.applications}
        more = tuple(a for a in self.apps if podman.app_id(a.name) not in named)
        return replace(spec, applications=(*spec.applications, *more)) if more else spec

    def trouble(self, spec: specs.Spec) -> str:
        """For people; empty = none."""
        words = [f"{one.element} of this system cannot run: {one.detail}" for one in self.broken]
        ids = {podman.app_id(app.name): app.name for app in self.apps}
        for app in spec.applications:
            name = ids.get(podman.app_id(app.name, app.run_as))
            if name is not None and not app.is_embedded:
                words.append(f"the specification's {app.name} takes the place of this system's")
        return "; ".join(words)


def without(spec: specs.Spec) -> specs.Spec:
    """What is the specification's own."""
    return replace(spec, applications=tuple(a for a in spec.applications if not a.is_embedded))


def look(where: world.World, objection: Objection) -> Found:
    """`objection`: why an application cannot run on this device."""
    apps: list[specs.Application] = []
    broken: list[errors.Reject] = []
    for kind, folder in ((podman.COMPOSE, compose.EMBEDDED), (podman.QUADLET, QUADLETS)):
        for name in where.listdir(folder):
            try:
                app = _application(where, kind, folder, name)
                if app is None:
                    continue
                if len(apps) == APPS_MAX:
                    raise quadlet.Invalid(f"a system may bring {APPS_MAX} applications")
                if any(podman.app_id(one.name) == podman.app_id(name) for one in apps):
                    raise quadlet.Invalid("there is another of this name")
                if found := objection(app):
                    raise found
                apps.append(app)
            except (errors.AgentError, quadlet.Invalid, OSError) as error:
                log.error("application of this system passed over name=%s: %s", name, error)
                broken.append(_reject(name, error))
    return Found(tuple(apps), tuple(broken))


def _reject(name: str, error: Exception) -> errors.Reject:
    if isinstance(error, errors.Reject):
        return error
    detail = error.detail if isinstance(error, errors.AgentError) else str(error)
    return errors.Reject(
        errors.INVALID_ARGUMENT, detail, component=errors.APPLICATIONS, element=name
    )


def _application(where: world.World, kind: str, folder: str, name: str) -> specs.Application | None:
    """None = this is no application."""
    place = f"{folder}/{name}"
    if kind == podman.COMPOSE:
        known = {*compose.BASES, *compose.OVERRIDES}
        paths = [one for one in where.listdir(place) if one in known]
        is_one = any(one in compose.BASES for one in paths)
    else:
        paths = list(_tree(where, place))
        is_one = any(quadlet.is_unit(one) for one in paths)
    if not is_one:
        return None
    files = tuple(specs.AppFile(path, _content(where, folder, f"{place}/{path}")) for path in paths)
    if sum(len(one.data) for one in files) > BYTES_MAX:
        raise quadlet.Invalid(f"its files have more than {BYTES_MAX} bytes")
    return specs.Application(name, kind, inline=files, is_embedded=True)


def _tree(where: world.World, top: str) -> Iterable[str]:
    waiting = [("", 0)]
    while waiting:
        within, depth = waiting.pop()
        for name in where.listdir(posixpath.join(top, within) if within else top):
            path = posixpath.join(within, name)
            found = where.stat(f"{top}/{path}")
            if found is not None and found.kind == world.DIRECTORY:
                if depth < DEPTH_MAX:
                    waiting.append((path, depth + 1))
            elif found is not None and found.kind in (world.FILE, world.LINK):
                yield path


def _content(where: world.World, folder: str, path: str) -> bytes:
    """A link is followed as long as it stays in the folder of such applications."""
    found = where.stat(path)
    if found is not None and found.kind == world.LINK:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), where.read_link(path)))
        found = where.stat(target)
        if not target.startswith(f"{folder}/") or found is None or found.kind != world.FILE:
            raise quadlet.Invalid(f"{path} leads out of {folder}")
        path = target
    if found is not None and found.size > BYTES_MAX:
        raise quadlet.Invalid(f"{path} has more than {BYTES_MAX} bytes")
    return where.read(path) or b""
