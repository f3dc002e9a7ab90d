"""Does one step of a plan. The caller has written down that it is about to.

Steps of the operating system are not done here but by `system`.

Every step may be done twice, or be done while a child of a killed agent still does it: writes
replace, removals do not mind that nothing is there, containers are named by id. A step that fails
raises Retry or Reject with the file or application at fault; it never leaves a path half written.
"""

from __future__ import annotations

import logging

from agent import errors, planner, podman, settings, specs, world
from agent.appsteps import AppSteps
from agent.files import Files, error_of
from agent.hookruns import HookRuns
from agent.images import Stores
from agent.observer import Observer, Starts

log = logging.getLogger("agent.executor")


class Executor:
    def __init__(
        self,
        where: world.World,
        bounds: settings.LoopSettings,
        files: Files,
        starts: Starts,
        observer: Observer,
        stores: Stores,
        apps: AppSteps,
        hooks: HookRuns,
    ) -> None:
        self._world = where
        self._bounds = bounds
        self._files = files
        self._starts = starts
        self._observer = observer
        self._stores = stores
        self._images = stores.of("")
        self._apps = apps
        self._hooks = hooks
        self._made: dict[str, str] = {}

    def perform(self, step: planner.LocalStep, spec: specs.Spec) -> None:
        """Raises Retry, Reject. `spec` is what the plan was made for."""
        self._stores.use(spec.files)
        match step:
            case planner.BackUp() | planner.WriteFile() | planner.Restore():
                self._file(step, spec)
            case planner.RunHooks():
                self._hooks.run(step)
            case planner.PullImage():
                self._stores.of(step.user).pull(step.image, step.app, policy=step.policy)
            case planner.CreateContainer():
                self._create(_app(spec, step.app))
            case planner.StartContainer():
                self._start(step)
            case planner.StopContainer():
                self._podman(podman.stop_argv(step.container), step.app)
            case planner.RemoveContainer():
                self._podman(podman.remove_argv(step.container), step.app)
            case planner.RestartContainer():
                self._podman(podman.restart_argv(step.container), step.app)
                self._starts.started(step.container, generation=step.generation)
            case _:
                self._apps.perform(step, spec)

    def _file(
        self, step: planner.BackUp | planner.WriteFile | planner.Restore, spec: specs.Spec
    ) -> None:
        try:
            match step:
                case planner.BackUp():
                    self._files.back_up(step.path)
                case planner.WriteFile():
                    self._files.write(next(f for f in spec.files if f.path == step.path))
                case planner.Restore():
                    self._files.restore(step.path, is_kept=step.is_kept)
        except OSError as error:
            raise error_of(step.path, error) from error

    def _create(self, app: specs.Application) -> None:
        with_limits = self._observer.enforces_limits(app)
        meant = self._stores.meant.resolved(app, "")
        spec = podman.spec_digest(meant, with_limits=with_limits)
        self._images.hold(app.image, app.name)
        argv, stdin = podman.create_argv(app, spec, with_limits=with_limits)
        answer = self._world.run(argv, timeout_s=self._bounds.command_timeout_s, stdin=stdin)
        if not answer.ok and podman.is_image_missing(answer.stderr):
            # It was here when the update began; somebody has cleaned up. On the way back and in
            # repair this is the only chance, on the way forward it does no harm.
            self._images.pull(app.image, app.name)
            answer = self._world.run(argv, timeout_s=self._bounds.command_timeout_s, stdin=stdin)
        if not answer.ok:
            raise podman.run_error(answer.words, app=app.name)
        made = podman.ids(answer.stdout)
        self._made[app.name] = made[-1] if made else podman.container_name(app)

    def _start(self, step: planner.StartContainer) -> None:
        container = step.container or self._made.pop(step.app, "")
        if not container:
            detail = "the container that was just made is not known"
            raise errors.Retry(
                errors.INTERNAL, detail, component=errors.APPLICATIONS, element=step.app
            )
        self._podman(podman.start_argv(container), step.app)
        self._starts.started(container)

    def _podman(self, argv: list[str], app: str) -> None:
        answer = self._world.run(argv, timeout_s=self._bounds.command_timeout_s)
        if not answer.ok:
            raise podman.run_error(answer.words, app=app)


def _app(spec: specs.Spec, name: str) -> specs.Application:
    return next(app for app in spec.applications if app.name == name)
