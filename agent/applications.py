"""Applications of files: what they should be, and what there is of them.

Changes nothing but a copy of units that podman's generator is asked about.

Compose and Quadlet applications are files; container applications are quadlets too where systemd
and podman's generator are there to run them, as with the agent that we replace, and plain
containers elsewhere. (Charts: `helmapps`.) What there is comes from the folders, from systemd and
from podman; what was applied last, and in which boot, from `applications.json`.

A folder in the agent's places counts as an application of ours, whoever wrote it: these places are
the agent's by contract. What an OS image has brought is wanted like the rest (`embedded`), and goes
when the image has it no more. (Quadlets and their users: `quadletapps`.)
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Any

from agent import (
    appplan,
    compose,
    errors,
    helm,
    planner,
    podman,
    quadlet,
    settings,
    specs,
    systemd,
    workloads,
    world,
)
from agent.accounts import Accounts
from agent.appplan import (
    COMPOSE,
    HELM,
    QUADLET,
    FoundApp,
    Mark,
    Stamp,
    WantedApp,
    WantedVolume,
    Workload,
)
from agent.bundles import Bundles
from agent.files import digest_of
from agent.helmapps import HelmApps
from agent.places import Places
from agent.pulse import Pulse
from agent.quadletapps import Containers, QuadletApps
from agent.quadletcheck import QuadletCheck
from agent.stamps import Stamps
from resources import digest
from resources.records import replace

Json = dict[str, Any]

QUICK_S = 60.0
# In place of a digest that was never computed here.
ADOPTED = "adopted"
Rendered = compose.Rendered | quadlet.Rendered


class Applications:
    def __init__(
        self,
        where: world.World,
        bounds: settings.LoopSettings,
        bundles: Bundles,
        stamps: Stamps,
        charts: HelmApps,
        pulse: Pulse,
        accounts: Accounts,
        places: Places,
    ) -> None:
        self._world = where
        self._accounts = accounts
        self._places = places
        self._quadlets = QuadletApps(where, accounts, places, pulse)
        self._bounds = bounds
        self._bundles = bundles
        self._stamps = stamps
        self._helm = charts
        self._check = QuadletCheck(where, bounds.own_dir)
        self._provider: tuple[str, ...] | None = None
        self._has_quadlet: bool | None = None
        # App -> what it was rendered from and to: rendering at each look is a waste.
        self._rendered: dict[str, tuple[Any, Rendered]] = {}

    # What this device can run. --------------------------------------------------------------------

    def kind_of(self, app: specs.Application) -> str:
        """`compose`, `quadlet`, or empty for a plain container."""
        if app.app_type == podman.COMPOSE:
            return COMPOSE
        if app.app_type == helm.HELM:
            return HELM
        if app.app_type == podman.QUADLET or self.has_quadlet() or self.user_of(app):
            return QUADLET
        return ""

    def user_of(self, app: specs.Application) -> str:
        """By name, and empty for root; as the specification has it, if nobody is called so."""
        if app.run_as in podman.ROOT_USERS:
            return ""
        account = self._accounts.of(app.run_as)
        return account.name if account is not None else app.run_as

    def has_quadlet(self) -> bool:
        """systemd runs here, and this podman makes services of all the kinds of quadlets."""
        if self._has_quadlet is None:
            generators = (self._world.stat(path) for path in systemd.GENERATORS)
            is_there = self._world.stat(systemd.RUNNING_MARK) is not None and any(generators)
            self._has_quadlet = (
                is_there
                and podman.major_version(self._run(podman.version_argv()).stdout)
                >= podman.QUADLET_VERSION
            )
        return self._has_quadlet

    def provider(self) -> tuple[str, ...] | None:
        """What speaks Compose here; None = nothing does."""
        if self._provider is None:
            for argv in compose.PROVIDERS:
                answer = self._run([*argv, "version"])
                if answer.ok:
                    self._provider = argv
                    break
        return self._provider

    def objection(self, app: specs.Application) -> errors.Reject | None:
        """Why it cannot run here, as far as is known: its files may still have to be fetched."""
        kind = self.kind_of(app)
        if not kind:
            return None
        if kind == HELM:
            return self._helm.objection(app)
        if kind == QUADLET and not self.has_quadlet():
            what = "runAs needs" if self.user_of(app) else "quadlets need"
            detail = f"{what} systemd and podman 5.0 or newer on the device"
            return _reject(app.name, errors.FAILED_PRECONDITION, detail)
        if kind == COMPOSE and self.provider() is None:
            return _reject(app.name, errors.FAILED_PRECONDITION, compose.WHAT_TO_INSTALL)
        if found := self._accounts.objection(self.user_of(app), app.name):
            return found
        try:
            rendered = self.rendered(app)
        except quadlet.Invalid as error:
            return _reject(app.name, errors.INVALID_ARGUMENT, str(error))
        words = ""
        if isinstance(rendered, quadlet.Rendered):
            folder, is_of_user = self.folder(app), bool(self.user_of(app))
            words = self._check.complaint(app.name, folder, rendered, is_of_user=is_of_user)
        return _reject(app.name, errors.INVALID_ARGUMENT, words) if words else None

    # What should be. ------------------------------------------------------------------------------

    def rendered(self, app: specs.Application) -> Rendered | None:
        """None = its files must be fetched first. Raises quadlet.Invalid."""
        kind = self.kind_of(app)
        assert kind != HELM
        if app.app_type == podman.CONTAINER:
            with_limits = not podman.missing_controllers(app, self._world.cgroup_controllers())
            unit = quadlet.container_unit(app, with_limits=with_limits)
            files: tuple[specs.AppFile, ...] | None = (specs.AppFile("app.container", unit),)
        else:
            files = self._bundles.files(app)
        if files is None:
            return None
        known = self._rendered.get(app.name)
        site = self._places.site(self.user_of(app))
        if known is not None and known[0] == (kind, site, app, files):
            return known[1]
        made = compose.render(app, files) if kind == COMPOSE else quadlet.render(app, files, site)
        self._rendered[app.name] = ((kind, site, app, files), made)
        return made

    def images(self, app: specs.Application) -> tuple[tuple[str, str], ...]:
        """Every reference that must be on the device before `app` is touched, as far as known, and
        in whose store: (user, reference). The package that an application comes in is root's."""
        return tuple(dict.fromkeys((user, image) for user, image, _ in self.needs(app)))

    def needs(self, app: specs.Application) -> Iterable[tuple[str, str, str]]:
        """(user, reference, pullPolicy) of each use of an image."""
        if self.kind_of(app) == HELM:
            return
        user = self.user_of(app)
        if app.inline is None:
            is_package = app.app_type != podman.CONTAINER
            yield "" if is_package else user, app.image, specs.IF_NOT_PRESENT
        rendered = self.rendered(app) if self.kind_of(app) else None
        for image in rendered.images if rendered is not None else ():
            yield user, image, specs.IF_NOT_PRESENT
        for volume in self._bundles.meant.resolved(app, user).volumes:
            if volume.image:
                yield user, volume.image, volume.pull_policy

    def folder(self, app: specs.Application) -> str:
        return quadlet.folder_of(app, self._places.site(self.user_of(app)))

    def wanted(self, app: specs.Application) -> WantedApp:
        """Raises Reject."""
        kind = self.kind_of(app)
        if kind == HELM:
            return self._helm.wanted(app)
        try:
            rendered = self.rendered(app)
        except quadlet.Invalid as error:
            raise _reject(app.name, errors.INVALID_ARGUMENT, str(error)) from error
        app_id = podman.app_id(app.name, app.run_as)
        user, of_spec = self.user_of(app), spec_digest(app)
        folder = compose.folder_of(app) if kind == COMPOSE else self.folder(app)
        if rendered is None:
            return WantedApp(
                app.name, app_id, kind, folder, "", app.image, spec_digest=of_spec, user=user
            )
        uid, gid = self._places.owner(user)
        files = {p: (digest_of(c), mode, uid, gid) for p, (c, mode) in rendered.files.items()}
        volumes = self.wanted_volumes(app)
        names = rendered.services if isinstance(rendered, compose.Rendered) else rendered.workloads
        content: list[Any] = [sorted([p, *m[:2]] for p, m in files.items())]
        content.append([v.stamp for v in volumes])
        if app.is_embedded:
            content.append(spec_digest(app))
        return WantedApp(
            app.name,
            app_id,
            kind,
            folder,
            digest.of(content),
            app.image,
            files,
            names,
            volumes,
            is_stopped=app.is_stopped,
            restart_generation=app.restart_generation,
            spec_digest=of_spec,
            is_embedded=app.is_embedded,
            user=user,
        )

    def wanted_volumes(self, app: specs.Application) -> tuple[WantedVolume, ...]:
        user = self.user_of(app)
        return tuple(
            WantedVolume(
                v.name,
                podman.volume_name(app.name, v.name),
                v.image,
                self._bundles.stamp_of(v.image, user),
                user,
            )
            for v in self._bundles.meant.resolved(app, user).volumes
            if v.image
        )

    def adopt(self, app: specs.Application) -> None:
        """Another agent has run it until now, by what is there. Nothing is asked of podman: what
        does not run is seen at the next look."""
        kind = self.kind_of(app)
        if not kind or podman.objection(app) is not None:
            return
        if kind == HELM:
            self._helm.adopt(app)
            return
        app_id, user = podman.app_id(app.name, app.run_as), self.user_of(app)
        if (kind, app_id) in self._stamps.read():
            # Our own journal was lost: what we know of it still holds.
            return
        if kind == COMPOSE and app.is_embedded:
            boot, known = self._world.boot_id(), self.wanted(app).digest
            self._stamps.put(kind, app_id, Stamp(known, boot, app.restart_generation))
            return
        if kind == COMPOSE:
            folder = compose.folder_of(app)
            names = {*compose.BASES, *compose.OVERRIDES, compose.ENV_FILE, compose.OVERRIDE}
            marks = self._marks(f"{folder}/{name}" for name in sorted(names))
            is_there = any(f"{folder}/{name}" in marks for name in compose.BASES)
        else:
            folder = self.folder(app)
            target = f"{self._places.site(user).targets}/{quadlet.target_of(app_id)}"
            seen = self._places.look(user, [folder]).marks
            marks = {p: m for p, m in seen.items() if p == target or p.startswith(f"{folder}/")}
            is_there = target in marks
        if is_there:
            boot = "" if app.is_stopped else self._world.boot_id()
            paths = tuple(sorted(marks))
            generation = app.restart_generation
            stamp = Stamp(ADOPTED, boot, generation, paths, spec_digest(app), marks, user)
            self._stamps.put(kind, app_id, stamp)
        volumes = {podman.volume_name(app.name, v.name): v.image for v in app.volumes if v.image}
        self._bundles.adopt(volumes, user)

    # What is. -------------------------------------------------------------------------------------

    def users(self, wanted: Iterable[WantedApp]) -> tuple[str, ...]:
        """Whose podman is to be asked too, beside root's."""
        return self._quadlets.users(wanted, self._stamps.read())

    def found(self, wanted: tuple[WantedApp, ...], containers: Containers) -> tuple[FoundApp, ...]:
        """`containers` of root, and of each of the `users`. Raises Retry."""
        stamps = self._stamps.read()
        targets = {(w.kind, w.app_id): w for w in wanted}
        return (
            *self._composes(targets, stamps, containers.get("", ())),
            *(
                app
                for user in containers
                for app in self._quadlets.found(user, wanted, stamps, containers)
            ),
            *self._helm.found(targets, stamps),
        )

    def _composes(
        self,
        targets: Mapping[tuple[str, str], WantedApp],
        stamps: Mapping[tuple[str, str], Stamp],
        containers: tuple[planner.Container, ...],
    ) -> Iterable[FoundApp]:
        folders = {app_id: w.folder for (kind, app_id), w in targets.items() if kind == COMPOSE}
        for name in self._world.listdir(compose.FOLDER):
            folder = f"{compose.FOLDER}/{name}"
            if set(self._world.listdir(folder)) & set(compose.BASES):
                folders[podman.app_id(name)] = folder
        for (kind, app_id), stamp in stamps.items():
            if kind == COMPOSE and app_id not in folders:
                # One that ran in place has left no file of ours.
                folders[app_id] = posixpath.dirname(stamp.paths[0]) if stamp.paths else ""
        for app_id, folder in sorted(folders.items()):
            last = stamps.get((COMPOSE, app_id))
            target = targets.get((COMPOSE, app_id))
            # What else is in the folder may be an application's data, and is none of ours.
            known = [*(target.files if target else ()), *(last.paths if last else ())]
            if last is None and not (target and target.is_embedded):
                known += [f"{folder}/{name}" for name in (*compose.BASES, *compose.OVERRIDES)]
            files = self._marks(known)
            own = [c for c in containers if c.project == app_id]
            if not (files or own or last):
                continue
            found = [_of_project(c) for c in own]
            yield FoundApp(
                app_id,
                COMPOSE,
                folder,
                files,
                last,
                is_of_this_boot=last is not None and last.boot == self._world.boot_id(),
                # The one that is down speaks for a service of several.
                workloads=tuple(sorted(found, key=lambda w: w.state == appplan.FAILED)),
                is_swapped=any(c.is_swapped for c in own),
            )

    def _marks(self, paths: Iterable[str]) -> dict[str, Mark]:
        found = {}
        for path in dict.fromkeys(paths):
            stat = self._world.stat(path)
            if stat is None:
                continue
            data = self._world.read(path) if stat.kind == world.FILE else None
            # A link or a folder in place of a file has no digest that anybody wants.
            found[path] = (
                digest_of(data) if data is not None else "",
                stat.mode,
                stat.uid,
                stat.gid,
            )
        return found

    def _run(self, argv: list[str]) -> world.Completed:
        return self._world.run(argv, timeout_s=QUICK_S)


def spec_digest(app: specs.Application) -> str:
    """Equal exactly if the same files and containers serve both. State and restarts are not in
    it."""
    inline = [[f.path, digest_of(f.data)] for f in app.inline or ()]
    volumes = [[v.name, v.mount, v.image] for v in app.volumes]
    return digest.of(
        [app.app_type, app.image, dict(app.env), list(app.ports), volumes, app.cpu, app.memory,
         app.run_as, inline, app.namespace, app.values, list(app.values_files)]
    )  # fmt: skip


def _of_project(container: planner.Container) -> Workload:
    workload = workloads.of_container(container, container.service or container.name)
    if workload.state == appplan.COMPLETED and not planner.is_complete(container):
        return replace(workload, state=appplan.FAILED)
    return workload


def _reject(app: str, cause: str, detail: str) -> errors.Reject:
    return errors.Reject(cause, detail, component=errors.APPLICATIONS, element=app)
