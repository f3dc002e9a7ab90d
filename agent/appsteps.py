"""Does the steps of applications but plain containers. The caller has written down that it is about
to.

Every step may be done twice. Whether what was started lives is not asked here but seen afterwards:
a service that fails to start is an answer of systemd's, not a failure of the step.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from agent import appplan, compose, errors, podman, quadlet, settings, specs, systemd, world
from agent.accounts import Accounts
from agent.applications import Applications
from agent.appplan import COMPOSE, Stamp
from agent.bundles import Bundles
from agent.helmapps import HelmApps
from agent.images import Images, Stores
from agent.observer import Starts
from agent.places import Places
from agent.stamps import Stamps
from resources.records import replace

log = logging.getLogger("agent.appsteps")

# A service that needs longer goes on starting, and is seen to.
START_S = 60.0


class AppSteps:
    def __init__(
        self,
        where: world.World,
        bounds: settings.LoopSettings,
        applications: Applications,
        stores: Stores,
        bundles: Bundles,
        stamps: Stamps,
        starts: Starts,
        charts: HelmApps,
        accounts: Accounts,
        places: Places,
    ) -> None:
        self._world = where
        self._bounds = bounds
        self._applications = applications
        self._stores = stores
        self._accounts = accounts
        self._places = places
        self._bundles = bundles
        self._stamps = stamps
        self._starts = starts
        self._helm = charts

    def perform(self, step: appplan.Step, spec: specs.Spec) -> None:
        """Raises Retry, Reject."""
        if self._helm.perform(step, spec):
            return
        match step:
            case appplan.LookUp():
                self._stores.meant.look_up(step.image, step.version, step.app, step.user)
            case appplan.FetchBundle():
                self._bundles.fetch(step.image, step.app)
            case appplan.StopApp():
                self._stop(step)
            case appplan.ClearApp():
                self._clear(step)
            case appplan.RemoveApp():
                self._remove(step)
            case appplan.InstallApp():
                self._install(_app(spec, step.app))
            case appplan.ReloadUnits():
                self._reload(step.user)
            case appplan.FillVolume():
                self._fill(step, _app(spec, step.app))
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
        if self._is_nobody(step.user):
            return
        answer = self._systemctl(step.user, systemd.stop_argv(step.units))
        if not answer.ok and "not loaded" not in answer.stderr and "not found" not in answer.stderr:
            raise podman.run_error(answer.words, app=step.app_id)
        self._systemctl(step.user, systemd.reset_failed_argv(step.units))

    def _clear(self, step: appplan.ClearApp) -> None:
        app_id, kind, user = step.app_id, step.kind, step.user
        if self._is_nobody(user):
            return
        label = compose.PROJECT_LABEL if kind == COMPOSE else podman.PROJECT_LABEL
        for container in self._ids("ps", label, app_id, user):
            self._done(podman.remove_argv(container), app_id, user)
        pods = self._ids("pod", label, app_id, user)
        if kind == COMPOSE:
            pods.append(compose.pod_of(app_id))
        if pods:
            self._done(podman.pods_remove_argv(pods), app_id, user)
        networks = self._ids("network", label, app_id, user)
        if networks:
            self._done(podman.networks_remove_argv(networks), app_id, user)
        listed = self._done(podman.volumes_argv(), app_id, user).stdout
        for volume in podman.shadows(listed, label, app_id):
            self._done(podman.volume_remove_argv(volume), app_id, user)

    def _remove(self, step: appplan.RemoveApp) -> None:
        stamp = self._stamps.read().get((step.kind, step.app_id))
        if stamp is not None and stamp.user != step.user:
            stamp = None
        paths = list(stamp.paths) if stamp else []
        if step.kind == COMPOSE:
            names = (*compose.BASES, *compose.OVERRIDES, compose.ENV_FILE, compose.OVERRIDE)
            # What ran in place is the system's.
            if step.folder.startswith(f"{compose.FOLDER}/"):
                paths += [f"{step.folder}/{name}" for name in names]
            self._places.take("", paths, (), step.app_id)
        elif not self._is_nobody(step.user):
            targets = self._places.site(step.user).targets
            paths.append(f"{targets}/{quadlet.target_of(step.app_id)}")
            trees = [step.folder] if step.folder else []
            self._places.take(step.user, paths, trees, step.app_id)
            self._reload(step.user)
        if stamp is not None:
            self._stamps.put(step.kind, step.app_id, None)

    def _is_nobody(self, user: str) -> bool:
        """The user is not on the device any more, and so is nothing of theirs."""
        return bool(user) and self._accounts.of(user) is None

    # Coming. --------------------------------------------------------------------------------------

    def _install(self, app: specs.Application) -> None:
        wanted, rendered = self._applications.wanted(app), self._applications.rendered(app)
        assert rendered is not None
        known = self._stamps.read().get((wanted.kind, wanted.app_id))
        before = known.paths if known and known.user == wanted.user else ()
        # From here until the start it is between two contents, and says so.
        paths = tuple(sorted({*before, *rendered.files}))
        self._stamps.put(wanted.kind, wanted.app_id, Stamp("", paths=paths, user=wanted.user))
        # Whatever else is in a folder of quadlets would become a service; in one of Compose it may
        # be an application's data.
        folder = "" if wanted.kind == COMPOSE else wanted.folder
        self._places.put(wanted.user, rendered.files, folder=folder, gone=before, app=app.name)

    def _fill(self, step: appplan.FillVolume, app: specs.Application) -> None:
        volume = podman.volume_name(app.name, step.volume)
        app_id, user = podman.app_id(app.name, app.run_as), self._applications.user_of(app)
        policy = next(v.pull_policy for v in app.volumes if v.name == step.volume)
        self._bundles.fill(user, volume, step.reference, app_id, app.name, policy=policy)

    def _start(self, app: specs.Application) -> None:
        wanted = self._applications.wanted(app)
        generation = app.restart_generation
        if not app.is_stopped:
            for user, image in self._applications.images(app):
                self._have(self._stores.of(user), image, app)
        if not app.is_stopped and wanted.kind == COMPOSE:
            self._start_project(app, wanted)
        elif not app.is_stopped:
            self._start_units(app, wanted)
        self._put_stamp(wanted, "" if app.is_stopped else self._world.boot_id(), generation)

    def _have(self, store: Images, image: str, app: specs.Application) -> None:
        """Raises Retry, Reject. What a system brings has had no downloads before it."""
        if not app.is_embedded:
            store.hold(image, app.name)
        elif not store.is_here(image, store.pins()):
            store.pull(image, app.name)

    def _put_stamp(self, wanted: appplan.WantedApp, boot: str, generation: int) -> None:
        known = self._stamps.read().get((wanted.kind, wanted.app_id))
        paths = tuple(sorted(wanted.files))
        stamp = Stamp(wanted.digest, boot, generation, paths, user=wanted.user)
        if known is not None and appplan.is_adopted(wanted, known):
            # Started again as it was taken over; its files are what they were.
            stamp = replace(known, boot=boot, generation=generation)
        self._stamps.put(wanted.kind, wanted.app_id, stamp)

    def _start_units(self, app: specs.Application, wanted: appplan.WantedApp) -> None:
        units = (quadlet.target_of(wanted.app_id), *wanted.workloads)
        if wanted.user:
            self._run(systemd.ask_for_network_argv())
        self._systemctl(wanted.user, systemd.reset_failed_argv(units))
        argv = systemd.start_argv(units)
        answer = self._accounts.systemctl(wanted.user, argv, timeout_s=START_S)
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
            answer = self._systemctl(wanted.user, systemd.restart_argv(units))
            if not answer.ok:
                raise podman.run_error(answer.words, app=app.name)
        self._put_stamp(wanted, self._world.boot_id(), generation)

    # Small things. --------------------------------------------------------------------------------

    def _ids(self, what: str, label: str, value: str, user: str = "") -> list[str]:
        return podman.ids(self._done(podman.ids_argv(what, label, value), value, user).stdout)

    def _reload(self, user: str) -> None:
        answer = self._systemctl(user, systemd.reload_argv())
        if not answer.ok:
            raise podman.run_error(answer.words, app="")

    def _systemctl(self, user: str, argv: Sequence[str]) -> world.Completed:
        return self._accounts.systemctl(user, argv, timeout_s=self._bounds.command_timeout_s)

    def _run(self, argv: Sequence[str], user: str = "") -> world.Completed:
        return self._accounts.run(user, argv, timeout_s=self._bounds.command_timeout_s)

    def _done(self, argv: Sequence[str], app: str, user: str = "") -> world.Completed:
        answer = self._run(argv, user)
        if not answer.ok:
            raise podman.run_error(answer.words, app=app)
        return answer


def _app(spec: specs.Spec, name: str) -> specs.Application:
    return next(app for app in spec.applications if app.name == name)
