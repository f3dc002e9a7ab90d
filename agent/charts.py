"""Charts on the disk, and images that the cluster will ask for: fetched before anything changes.

A chart is on the device when the mark in its folder is, which is written last. A chart is some
kilobytes: one that was broken off is fetched anew. Images for the cluster go by `crictl`, which
keeps what it has of them; where there is none, the cluster fetches them itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent import appplan, errors, helm, settings, specs, world
from agent.pulling import Pulling, Wanted

QUICK_S = 60.0


class Charts:
    def __init__(self, where: world.World, bounds: settings.LoopSettings, pulling: Pulling) -> None:
        self._world = where
        self._bounds = bounds
        self._pulling = pulling

    def folder(self, app: specs.Application) -> str:
        """Relative; empty = it must be fetched first."""
        folder = helm.chart_folder(app.image)
        if self._world.stat(f"{helm.HELM_DIR}/{folder}/{helm.READY}") is None:
            return ""
        return self._untarred(folder)

    def missing(self, app: specs.Application, images: Iterable[str]) -> tuple[appplan.Step, ...]:
        """What must be downloaded: `images` are those that the cluster will ask for."""
        if not self.folder(app):
            return (appplan.FetchChart(app.name, app.image),)
        asked = tuple(images)
        answer = self._run(helm.cri_images_argv()) if asked else None
        if answer is None or answer.status == world.NOT_STARTED:
            return ()
        try:
            there = helm.cri_images(answer.stdout) if answer.ok else frozenset()
        except (ValueError, KeyError, TypeError):
            there = frozenset()
        return tuple(appplan.PullCri(app.name, one) for one in asked if not _is_in(one, there))

    def fetch(self, step: appplan.FetchChart) -> None:
        """Raises Retry, Reject."""
        folder = helm.chart_folder(step.image)
        self._world.mkdir(f"{helm.HELM_DIR}/{helm.CHARTS}")
        self._run(["rm", "-rf", "--", folder])
        wanted = Wanted(step.image, step.app, helm.AUTH_FILES[-1])
        auth = self._pulling.auth(*helm.AUTH_FILES)
        try:
            answer = self._pull(wanted, helm.pull_argv(step.image, folder, auth.path))
            is_plain = "HTTP response to HTTPS" in answer.stderr
            if not answer.ok and is_plain and helm.is_on_loopback(step.image):
                argv = helm.pull_argv(step.image, folder, auth.path, plain_http=True)
                answer = self._pull(wanted, argv)
        finally:
            self._pulling.drop(auth)
        if not answer.ok:
            raise self._pulling.failed(answer, wanted)
        chart = self._untarred(folder)
        if not chart:
            detail = f"{step.image} holds no chart"
            raise errors.Reject(
                errors.INVALID_ARGUMENT,
                detail,
                component=errors.APPLICATIONS,
                element=step.app,
            )
        self._fetch_dependencies(wanted, chart)
        mark = f"{helm.HELM_DIR}/{folder}/{helm.READY}"
        self._world.write(mark, b"", mode=0o644, uid=0, gid=0)

    def _fetch_dependencies(self, wanted: Wanted, chart: str) -> None:
        if self._world.stat(f"{helm.HELM_DIR}/{chart}/Chart.lock") is None:
            return
        answer = self._pull(wanted, helm.dependencies_argv(chart))
        if not answer.ok and not self._world.listdir(f"{helm.HELM_DIR}/{chart}/charts"):
            raise self._pulling.failed(answer, wanted)

    def pull_image(self, step: appplan.PullCri) -> None:
        """Raises Retry, Reject."""
        known = (helm.credentials(self._pulling.secret(f), step.image) for f in helm.AUTH_FILES)
        auth = next((one for one in known if one), "")
        wanted = Wanted(step.image, step.app, helm.AUTH_FILES[-1])
        secrets = {helm.CRI_AUTH: auth} if auth else {}
        answer = self._pull(wanted, helm.cri_pull_argv(step.image), secrets)
        if not answer.ok:
            raise self._pulling.failed(answer, wanted)

    def forget(self, keep: Iterable[specs.Application]) -> None:
        """Charts of applications that are gone. After a commit."""
        kept = {helm.chart_folder(app.image) for app in keep if app.app_type == helm.HELM}
        for name in self._world.listdir(f"{helm.HELM_DIR}/{helm.CHARTS}"):
            if f"{helm.CHARTS}/{name}" not in kept:
                self._run(["rm", "-rf", "--", f"{helm.CHARTS}/{name}"])

    def environment(self) -> Mapping[str, str]:
        kubeconfig = self._bounds.kubeconfig or next(
            (path for path in helm.KUBECONFIGS if self._world.stat(path) is not None), ""
        )
        env = {"HELM_PLUGINS": helm.PLUGINS}
        return env | {"KUBECONFIG": kubeconfig} if kubeconfig else env

    def _untarred(self, folder: str) -> str:
        names = self._world.listdir(f"{helm.HELM_DIR}/{folder}")
        found = (f"{folder}/{name}" for name in names)
        return next((c for c in found if self._world.stat(f"{helm.HELM_DIR}/{c}/Chart.yaml")), "")

    def _pull(
        self, wanted: Wanted, argv: list[str], secrets: Mapping[str, str] | None = None
    ) -> world.Completed:
        env = {**self.environment(), **(secrets or {})}
        self._world.mkdir(helm.HELM_DIR)
        return self._pulling.fetch(argv, wanted, helm.HELM_DIR, env)

    def _run(self, argv: list[str]) -> world.Completed:
        self._world.mkdir(helm.HELM_DIR)
        return self._world.run(argv, timeout_s=QUICK_S, cwd=helm.HELM_DIR)


def _is_in(image: str, there: frozenset[str]) -> bool:
    """The runtime calls short names by their long ones."""
    tagged = image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"
    return any(one in there for one in (image, tagged, f"docker.io/{tagged}"))
