"""Does the steps of applications but plain containers. The caller has written down that it is about
to.

Every step may be done twice. Whether what was started lives is not asked here but seen afterwards:
a service that fails to start is an answer of systemd's, not a failure of the step.
"""

from __future__ import annotations

import logging
import posixpath
from dataclasses import replace

from agent import appplan, compose, errors, podman, quadlet, settings, specs, systemd, world
from agent.applications import Applications
from agent.appplan import COMPOSE, Stamp
from agent.bundles import Bundles
from agent.helmapps import HelmApps
from agent.images import Images
from agent.observer import Starts
from agent.stamps import Stamps

log = logging.getLogger("agent.appsteps")

FOLDER_MODE = 0o755
# A service that needs longer goes on starting, and is seen to.
START_S = 60.0
DEPTH_MAX = 4


class AppSteps:
    def __init__(
        self,
        where: world.World,
        bounds: settings.LoopSettings,
        applications: Applications,
        images: Images,
        bundles: Bundles,
        stamps: Stamps,
        starts: Starts,
        charts: HelmApps,
    ) -> None:
        self._world = where
        self._bounds = bounds
        self._applications = applications
        self._images = images
        self._bundles = bundles
        self._stamps = stamps
        self._starts = starts
        self._helm = charts

    def perform(self, step: appplan.Step, spec: specs.Spec) -> None:
        """Raises Retry, Reject."""
        if self._helm.perform(step, spec):
            return
        match step:
            case appplan.FetchBundle():
                self._bundles.fetch(step.image, step.app)
            case appplan.StopApp():
                self._stop(step)
            case appplan.ClearApp():
                self._clear(step.app_id, step.kind)
            case appplan.RemoveApp():
                self._remove(step)
            case appplan.InstallApp():
                self._install(_app(spec, step.app))
            case appplan.ReloadUnits():
                self._done(systemd.reload_argv(), "")
            case appplan.FillVolume():
                app = _app(spec, step.app)
                volume = podman.volume_name(app.name, step.volume)
                app_id = podman.app_id(app.name, app.run_as)
                self._bundles.fill(volume, step.reference, app_id, app.name)
            case appplan.StartApp():
                self._start(_app(spec, step.app))
            case appplan.RestartApp():
                self._restart(_app(spec, step.app), step.generation)

    # Going. ---------------------------------------------------------------------------------------

    def _stop(self, step: appplan.StopApp) -> None:
        if step.kind == COMPOSE:
            for container in self._ids("ps", compose.PROJECT_LABEL, step.app_id):
                self._done(podman.stop_argv(container), step.app_id)
            return
        answer = self._run(systemd.stop_argv(step.units))
        if not answer.ok and "not loaded" not in answer.stderr and "not found" not in answer.stderr:
            raise podman.run_error(answer.words, app=step.app_id)
        self._run(systemd.reset_failed_argv(step.units))

    def _clear(self, app_id: str, kind: str) -> None:
        label = compose.PROJECT_LABEL if kind == COMPOSE else podman.PROJECT_LABEL
        for container in self._ids("ps", label, app_id):
            self._done(podman.remove_argv(container), app_id)
        pods = self._ids("pod", label, app_id)
        if kind == COMPOSE:
            pods.append(compose.pod_of(app_id))
        if pods:
            self._done(podman.pods_remove_argv(pods), app_id)
        networks = self._ids("network", label, app_id)
        if networks:
            self._done(podman.networks_remove_argv(networks), app_id)
        listed = self._done(podman.volumes_argv(), app_id).stdout
        for volume in podman.shadows(listed, label, app_id):
            self._done(podman.volume_remove_argv(volume), app_id)

    def _remove(self, step: appplan.RemoveApp) -> None:
        stamp = self._stamps.read().get((step.kind, step.app_id))
        paths = list(stamp.paths) if stamp else []
        if step.kind == COMPOSE:
            names = (*compose.BASES, *compose.OVERRIDES, compose.ENV_FILE, compose.OVERRIDE)
            # What ran in place is the system's.
            if step.folder.startswith(f"{compose.FOLDER}/"):
                paths += [f"{step.folder}/{name}" for name in names]
            self._take_away(paths)
        else:
            target = f"{quadlet.UNIT_DIR}/{quadlet.target_of(step.app_id)}"
            self._take_away([*paths, target])
            if step.folder:
                self._remove_tree(step.folder)
            self._done(systemd.reload_argv(), step.app_id)
        self._stamps.put(step.kind, step.app_id, None)

    # Coming. --------------------------------------------------------------------------------------

    def _install(self, app: specs.Application) -> None:
        wanted, rendered = self._applications.wanted(app), self._applications.rendered(app)
        assert rendered is not None
        known = self._stamps.read().get((wanted.kind, wanted.app_id))
        before = known.paths if known else ()
        # From here until the start it is between two contents, and says so.
        paths = tuple(sorted({*before, *rendered.files}))
        self._stamps.put(wanted.kind, wanted.app_id, Stamp("", paths=paths))
        try:
            there = set(before)
            if wanted.kind != COMPOSE:
                # Whatever else is in a folder of quadlets would become a service.
                there.update(self._applications.tree(wanted.folder))
            self._take_away(sorted(there - set(rendered.files)))
            for path, (data, mode) in sorted(rendered.files.items()):
                self._put(path, data, mode)
        except OSError as error:
            detail = f"{error.filename or wanted.folder}: {error.strerror or error}"
            raise errors.Retry(
                errors.INTERNAL, detail, component=errors.APPLICATIONS, element=app.name
            ) from error

    def _put(self, path: str, data: bytes, mode: int) -> None:
        found = self._world.stat(path)
        if found is not None and found.kind == world.DIRECTORY:
            self._remove_tree(path)
        self._world.mkdir(posixpath.dirname(path), mode=FOLDER_MODE)
        uid, gid = self._world.uid_of("root") or 0, self._world.gid_of("root") or 0
        self._world.write(path, data, mode=mode, uid=uid, gid=gid)

    def _start(self, app: specs.Application) -> None:
        wanted = self._applications.wanted(app)
        generation = app.restart_generation
        if not app.is_stopped:
            for image in self._applications.images(app):
                self._have(image, app)
        if not app.is_stopped and wanted.kind == COMPOSE:
            self._start_project(app, wanted)
        elif not app.is_stopped:
            self._start_units(app, wanted)
        self._put_stamp(wanted, "" if app.is_stopped else self._world.boot_id(), generation)

    def _have(self, image: str, app: specs.Application) -> None:
        """Raises Retry, Reject. What a system brings has had no downloads before it."""
        if not app.is_embedded:
            self._images.hold(image, app.name)
        elif not self._images.is_here(image, self._images.pins()):
            self._images.pull(image, app.name)

    def _put_stamp(self, wanted: appplan.WantedApp, boot: str, generation: int) -> None:
        known = self._stamps.read().get((wanted.kind, wanted.app_id))
        stamp = Stamp(wanted.digest, boot, generation, tuple(sorted(wanted.files)))
        if known is not None and appplan.is_adopted(wanted, known):
            # Started again as it was taken over; its files are what they were.
            stamp = replace(known, boot=boot, generation=generation)
        self._stamps.put(wanted.kind, wanted.app_id, stamp)

    def _start_units(self, app: specs.Application, wanted: appplan.WantedApp) -> None:
        units = (quadlet.target_of(wanted.app_id), *wanted.workloads)
        self._run(systemd.reset_failed_argv(units))
        answer = self._world.run(systemd.start_argv(units), timeout_s=START_S)
        if not answer.ok and "not found" in answer.stderr:
            # The generator has made no service of a unit: it will not tomorrow either.
            detail = errors.one_line(answer.stderr)
            raise errors.Reject(
                errors.INVALID_ARGUMENT, detail, component=errors.APPLICATIONS, element=app.name
            )
        if not answer.ok:
            log.warning("not all has started app=%s: %s", app.name, errors.one_line(answer.words))

    def _start_project(self, app: specs.Application, wanted: appplan.WantedApp) -> None:
        provider, rendered = self._applications.provider(), self._applications.rendered(app)
        if provider is None:
            raise errors.Reject(
                errors.FAILED_PRECONDITION,
                compose.WHAT_TO_INSTALL,
                component=errors.APPLICATIONS,
                element=app.name,
            )
        assert isinstance(rendered, compose.Rendered)
        argv = compose.up_argv(provider, wanted.app_id, rendered.names)
        answer = self._world.run(argv, timeout_s=self._bounds.command_timeout_s, cwd=wanted.folder)
        ids = self._ids("ps", compose.PROJECT_LABEL, wanted.app_id)
        if not ids and not answer.ok:
            raise podman.run_error(answer.words, app=app.name)
        for container in ids:
            self._run(podman.start_argv(container))
            self._starts.started(container, generation=app.restart_generation)

    def _restart(self, app: specs.Application, generation: int) -> None:
        wanted = self._applications.wanted(app)
        if wanted.kind == COMPOSE:
            for container in self._ids("ps", compose.PROJECT_LABEL, wanted.app_id):
                self._done(podman.restart_argv(container), app.name)
                self._starts.started(container, generation=generation)
        else:
            units = (quadlet.target_of(wanted.app_id), *wanted.workloads)
            self._done(systemd.restart_argv(units), app.name)
        self._put_stamp(wanted, self._world.boot_id(), generation)

    # Small things. --------------------------------------------------------------------------------

    def _take_away(self, paths: list[str]) -> None:
        """Files, and the folders that have nothing else in them."""
        for path in paths:
            found = self._world.stat(path)
            if found is not None and found.kind != world.DIRECTORY:
                self._world.remove(path)
        for folder in sorted({posixpath.dirname(p) for p in paths}, key=len, reverse=True):
            depth = DEPTH_MAX
            while depth and folder not in (quadlet.UNIT_DIR, quadlet.FOLDER, compose.FOLDER):
                if self._world.stat(folder) is None or self._world.listdir(folder):
                    break
                self._world.remove(folder)
                folder, depth = posixpath.dirname(folder), depth - 1

    def _remove_tree(self, path: str) -> None:
        found = self._world.stat(path)
        if found is not None and found.kind == world.DIRECTORY:
            for name in self._world.listdir(path):
                self._remove_tree(f"{path}/{name}")
        self._world.remove(path)

    def _ids(self, what: str, label: str, value: str) -> list[str]:
        return podman.ids(self._done(podman.ids_argv(what, label, value), value).stdout)

    def _run(self, argv: list[str]) -> world.Completed:
        return self._world.run(argv, timeout_s=self._bounds.command_timeout_s)

    def _done(self, argv: list[str], app: str) -> world.Completed:
        answer = self._run(argv)
        if not answer.ok:
            raise podman.run_error(answer.words, app=app)
        return answer


def _app(spec: specs.Spec, name: str) -> specs.Application:
    return next(app for app in spec.applications if app.name == name)
