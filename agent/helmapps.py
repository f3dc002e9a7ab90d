"""Helm applications: releases in the cluster that this device runs.

What there is comes from `helm list` and from the pods that carry the label; what was applied last
from the stamp, as with the other kinds. A cluster that does not answer keeps nothing else from
being looked after: its applications are then unknown, and nothing is done about them; an update
that changes one waits for it.

Helm waits for what it installs and takes back what does not become ready; a release that was cut
off in between is cleared away once nobody can be working on it any more. (Downloads: `charts`.)
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Iterable, Mapping

from agent import appplan, errors, helm, settings, specs, world
from agent.appplan import HELM, FoundApp, Mark, Stamp, WantedApp
from agent.charts import Charts
from agent.files import digest_of
from agent.stamps import Stamps
from resources import digest
from resources.records import dataclass

log = logging.getLogger("agent.helmapps")

QUICK_S = 60.0
CHECK_S = 90.0
VALUES_MODE = 0o600
TOOLS = ("kubectl", "oc")


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found right, and the images that the cluster will ask for."""

    key: str
    images: tuple[str, ...]


class HelmApps:
    def __init__(
        self,
        where: world.World,
        bounds: settings.LoopSettings,
        stamps: Stamps,
        charts: Charts,
    ) -> None:
        self._world = where
        self._bounds = bounds
        self._stamps = stamps
        self._charts = charts
        self._tool = ""
        self._version = (0, 0)
        self._checked: dict[str, Checked] = {}
        # Release -> since when somebody has been working on it, as far as was seen.
        self._pending: dict[str, float] = {}
        # Why the cluster does not answer, for people.
        self.trouble = ""

    # What this device can run. --------------------------------------------------------------------

    def objection(self, app: specs.Application) -> errors.Reject | None:
        """Why it cannot run here. Raises Retry where the cluster does not answer."""
        if found := self._lacking():
            return _reject(app.name, errors.FAILED_PRECONDITION, found)
        chart = self._charts.folder(app)
        if not chart:
            return None
        key = self._digest(app)
        known = self._checked.get(app.name)
        if known is not None and known.key == key:
            return None
        # A locked release can't be rehearsed either, and an update would wait for it for ever.
        self._clear_the_way(helm.app_id(app), app.name)
        try:
            self._checked[app.name] = Checked(key, self._check(app, chart))
        except errors.Reject as error:
            return error
        return None

    def _lacking(self) -> str:
        is_new_enough = self._version_of_helm() >= helm.OLDEST
        return "" if is_new_enough and self._kube_tool() else helm.WHAT_TO_INSTALL

    def _version_of_helm(self) -> tuple[int, int]:
        """Once in a life, from when there is one: another helm comes with another system."""
        if self._version < helm.OLDEST:
            answer = self._world.run(helm.version_argv(), timeout_s=QUICK_S)
            self._version = helm.version(answer.stdout)
        return self._version

    def _kube_tool(self) -> str:
        for tool in TOOLS if not self._tool else ():
            answer = self._world.run([tool, "version", "--client"], timeout_s=QUICK_S)
            if answer.status != world.NOT_STARTED:
                self._tool = tool
                break
        return self._tool

    def _check(self, app: specs.Application, chart: str) -> tuple[str, ...]:
        """Raises Retry, Reject."""
        for name in app.values_files:
            found = self._world.stat(f"{helm.HELM_DIR}/{chart}/{name}")
            if found is None or found.kind != world.FILE:
                raise _reject(app.name, errors.NOT_FOUND, f"the chart has no file {name}")
        stdin = app.values.encode()
        values = [*_in_chart(app, chart), *(["-"] if app.values else [])]
        self._done(helm.lint_argv(chart, values), app.name, stdin=stdin)
        answer = self._done(
            helm.dry_run_argv(app, chart, values), app.name, stdin=stdin, limit_s=CHECK_S
        )
        return helm.images(answer.stdout)

    # Charts. --------------------------------------------------------------------------------------

    def missing(self, app: specs.Application) -> tuple[appplan.Step, ...]:
        """What must be downloaded, as far as is known. The cluster's images where `crictl` is."""
        known = self._checked.get(app.name)
        return self._charts.missing(app, known.images if known is not None else ())

    def images(self, spec: specs.Spec) -> tuple[str, ...] | None:
        """What the charts of `spec` need in the cluster; None = not looked at in this life."""
        found: list[str] = []
        for app in spec.applications:
            if app.app_type == helm.HELM:
                known = self._checked.get(app.name)
                if known is None or known.key != self._digest(app):
                    return None
                found += known.images
        return tuple(found)

    def forget(self, keep: Iterable[specs.Application]) -> None:
        self._charts.forget(keep)

    # What should be, and what is. -----------------------------------------------------------------

    def wanted(self, app: specs.Application) -> WantedApp:
        uid, gid = self._world.uid_of("root") or 0, self._world.gid_of("root") or 0
        folder = f"{helm.HELM_DIR}/{helm.values_folder(app)}"
        data = app.values.encode()
        mark: Mark = (digest_of(data), VALUES_MODE, uid, gid)
        return WantedApp(
            app.name,
            helm.app_id(app),
            HELM,
            folder,
            self._digest(app) if self._charts.folder(app) else "",
            app.image,
            {f"{folder}/{helm.VALUES_FILE}": mark} if data else {},
            is_stopped=app.is_stopped,
            restart_generation=app.restart_generation,
            spec_digest=self._digest(app),
        )

    def adopt(self, app: specs.Application) -> None:
        """Another agent has installed it. Whether it is there is seen at the next look."""
        if (HELM, helm.app_id(app)) in self._stamps.read():
            return
        path = f"{helm.HELM_DIR}/{helm.values_folder(app)}/{helm.VALUES_FILE}"
        marks = self._marks([path])
        boot = "" if app.is_stopped else self._world.boot_id()
        known = self._digest(app)
        stamp = Stamp(known, boot, app.restart_generation, tuple(marks), known, marks)
        self._stamps.put(HELM, helm.app_id(app), stamp)

    def _digest(self, app: specs.Application) -> str:
        return digest.of([app.image, helm.app_id(app), app.values, list(app.values_files)])

    def found(
        self,
        targets: Mapping[tuple[str, str], WantedApp],
        stamps: Mapping[tuple[str, str], Stamp],
    ) -> Iterable[FoundApp]:
        ids = {app_id for kind, app_id in (*targets, *stamps) if kind == HELM}
        if not ids:
            return
        releases, pods = self._look()
        for app_id in sorted(ids):
            target, stamp = targets.get((HELM, app_id)), stamps.get((HELM, app_id))
            release = releases.get(app_id) if releases is not None else None
            if stamp is None and release is None:
                continue
            paths = [*(target.files if target else ()), *(stamp.paths if stamp else ())]
            is_started = stamp is None or bool(stamp.boot)
            yield FoundApp(
                app_id,
                HELM,
                target.folder if target else posixpath.dirname(paths[0]) if paths else "",
                self._marks(paths),
                stamp,
                is_of_this_boot=is_started,
                workloads=pods.get(app_id, ()),
                # Of a cluster that does not answer nothing is known, so nothing is to be mended.
                is_target_up=is_started
                and (releases is None or (release is not None and release.status == "deployed")),
            )

    def _look(
        self,
    ) -> tuple[dict[str, helm.Release] | None, dict[str, tuple[appplan.Workload, ...]]]:
        """None = the cluster does not answer; `trouble` says why."""
        self.trouble = ""
        try:
            releases = self._releases("")
            answer = self._done(helm.pods_argv(self._kube_tool() or "kubectl"), "")
            return releases, helm.pods(answer.stdout)
        except (errors.Retry, errors.Reject) as error:
            self.trouble = error.detail
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.trouble = f"what the cluster says is not understood: {error}"
        log.warning("cluster not observed: %s", self.trouble)
        return None, {}

    def _marks(self, paths: Iterable[str]) -> dict[str, Mark]:
        found = {}
        for path in dict.fromkeys(paths):
            stat = self._world.stat(path)
            data = self._world.read(path) if stat and stat.kind == world.FILE else None
            if stat is not None:
                marked = digest_of(data) if data is not None else ""
                found[path] = (marked, stat.mode, stat.uid, stat.gid)
        return found

    def perform(self, step: appplan.Step, spec: specs.Spec) -> bool:
        """Whether it was a step about a chart. Raises Retry, Reject."""
        match step:
            case appplan.FetchChart():
                self._charts.fetch(step)
            case appplan.PullCri():
                self._charts.pull_image(step)
            case appplan.StopApp(app_id, kind) if kind == HELM:
                self.stop(app_id)
            case appplan.RemoveApp(app_id, kind) if kind == HELM:
                self.remove(app_id)
            case appplan.InstallApp(name) if app := _chart_of(spec, name):
                self.install(app)
            case appplan.StartApp(name) if app := _chart_of(spec, name):
                self.start(app)
            case appplan.RestartApp(name, generation) if app := _chart_of(spec, name):
                self.restart(app, generation)
            case _:
                return False
        return True

    # Doing. ---------------------------------------------------------------------------------------

    def install(self, app: specs.Application) -> None:
        """The values on the disk; from here until the start it is between two contents."""
        wanted = self.wanted(app)
        known = self._stamps.read().get((HELM, wanted.app_id))
        paths = tuple(sorted({*(known.paths if known else ()), *wanted.files}))
        self._stamps.put(HELM, wanted.app_id, Stamp("", paths=paths))
        for path in paths:
            if path not in wanted.files:
                self._world.remove(path)
        for path in wanted.files:
            self._world.mkdir(posixpath.dirname(path))
            self._world.write(path, app.values.encode(), mode=VALUES_MODE, uid=0, gid=0)

    def start(self, app: specs.Application, *, generation: int | None = None) -> None:
        """Raises Retry, Reject. An application that shall not run is not installed either."""
        wanted = self.wanted(app)
        if not app.is_stopped:
            self._clear_the_way(wanted.app_id, app.name)
            self._namespace(helm.namespace_of(app), app.name)
            chart = self._charts.folder(app)
            values = _in_chart(app, chart)
            if app.values:
                values.append(f"{helm.values_folder(app)}/{helm.VALUES_FILE}")
            argv = helm.upgrade_argv(
                app,
                chart,
                values,
                self._bounds.program,
                wait_s=self._bounds.chart_wait_s,
                major=self._plugged_in(),
            )
            self._done(argv, app.name, limit_s=self._bounds.command_timeout_s)
        boot = "" if app.is_stopped else self._world.boot_id()
        generation = app.restart_generation if generation is None else generation
        stamp = Stamp(wanted.digest, boot, generation, tuple(sorted(wanted.files)))
        self._stamps.put(HELM, wanted.app_id, stamp)

    def _plugged_in(self) -> int:
        """The version of helm, which has the plugin that it needs."""
        major = self._version_of_helm()[0]
        path, data = f"{helm.HELM_DIR}/{helm.PLUGIN_FILE}", helm.plugin(self._bounds.program)
        if major >= helm.NEW and self._world.read(path) != data:
            self._world.mkdir(posixpath.dirname(path))
            self._world.write(path, data, mode=0o644, uid=0, gid=0)
        return major

    def stop(self, app_id: str) -> None:
        known = self._stamps.read().get((HELM, app_id))
        self._done(helm.scale_argv(self._kube_tool() or "kubectl", app_id), app_id)
        if known is not None:
            stamp = Stamp(known.digest, "", known.generation, known.paths)
            self._stamps.put(HELM, app_id, stamp)

    def restart(self, app: specs.Application, generation: int) -> None:
        self.stop(helm.app_id(app))
        self.start(app, generation=generation)

    def remove(self, app_id: str) -> None:
        known = self._stamps.read().get((HELM, app_id))
        self._done(helm.uninstall_argv(app_id), app_id, limit_s=self._bounds.command_timeout_s)
        for path in known.paths if known else ():
            self._world.remove(path)
            if not self._world.listdir(posixpath.dirname(path)):
                self._world.remove(posixpath.dirname(path))
        self._stamps.put(HELM, app_id, None)

    def _clear_the_way(self, app_id: str, app: str) -> None:
        """A release that helm was cut off from is locked for ever: it says that it is at work."""
        release = self._releases(app).get(app_id)
        if release is None or release.status not in helm.PENDING:
            self._pending.pop(app_id, None)
            return
        now = self._world.monotonic()
        since = self._pending.setdefault(app_id, now)
        if now - since < self._bounds.orphan_s:
            detail = f"release {app_id} is {release.status}: waiting for who works on it"
            raise errors.Retry(errors.ABORTED, detail, component=errors.APPLICATIONS, element=app)
        log.warning("release cut off, cleared app=%s status=%s", app, release.status)
        is_first = release.revision <= 1 or release.status in ("pending-install", "uninstalling")
        argv = helm.uninstall_argv(app_id) if is_first else helm.rollback_argv(app_id)
        self._done(argv, app, limit_s=self._bounds.command_timeout_s)
        self._pending.pop(app_id, None)

    def _namespace(self, name: str, app: str) -> None:
        tool = self._kube_tool() or "kubectl"
        if self._done(helm.namespace_argv(tool, name), app).stdout.strip():
            return
        answer = self._run(helm.create_argv(tool), stdin=helm.namespace_document(name))
        if not answer.ok and "AlreadyExists" not in answer.stderr:
            raise helm.run_error(answer.words, app=app)

    def _releases(self, app: str) -> dict[str, helm.Release]:
        return helm.releases(self._done(helm.releases_argv(self._version_of_helm()[0]), app).stdout)

    # Small things. --------------------------------------------------------------------------------

    def _run(
        self, argv: list[str], *, stdin: bytes = b"", limit_s: float = QUICK_S
    ) -> world.Completed:
        env = self._charts.environment()
        self._world.mkdir(helm.HELM_DIR)
        return self._world.run(argv, timeout_s=limit_s, stdin=stdin, env=env, cwd=helm.HELM_DIR)

    def _done(
        self, argv: list[str], app: str, *, stdin: bytes = b"", limit_s: float = QUICK_S
    ) -> world.Completed:
        answer = self._run(argv, stdin=stdin, limit_s=limit_s)
        if answer.status == world.NOT_STARTED:
            raise _reject(app, errors.FAILED_PRECONDITION, helm.WHAT_TO_INSTALL)
        if not answer.ok:
            raise helm.run_error(answer.words, app=app)
        return answer


def _chart_of(spec: specs.Spec, name: str) -> specs.Application | None:
    found = (app for app in spec.applications if app.name == name)
    return next((app for app in found if app.app_type == helm.HELM), None)


def _in_chart(app: specs.Application, chart: str) -> list[str]:
    return [f"{chart}/{name}" for name in app.values_files]


def _reject(app: str, cause: str, detail: str) -> errors.Reject:
    return errors.Reject(cause, detail, component=errors.APPLICATIONS, element=app)
