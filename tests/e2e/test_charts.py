"""Helm applications against a Kubernetes API: a real kube-apiserver and etcd, a real helm and
kubectl, a real registry; not MicroShift. There are no nodes: what a kubelet and controllers would
report is written by `Kubelet` [simulated].

The agent's loop runs in this process, below a root of its own, with a PATH that has no podman.
It runs where `tests/setup/kubernetes.sh` and `helm.sh` have filled the cache; a soak fills it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import helm, loop, osimage, settings, specs, states
from agent.linux import LinuxWorld
from agent.mailbox import Mailbox
from tests.e2e import processes, rootfs, service
from tests.e2e.checkout import CHECKOUT
from tests.e2e.registry import Registry
from tests.e2e.yard import application, condition
from tests.fakes import kubernetes
from tests.fakes.kubernetes import Kubernetes
from tests.fakes.sim_device import document, file

Json = dict[str, Any]

HELMS = {major: rootfs.cache() / "helm" / f"helm-{major}" for major in ("3.19.5", "4.3.1")}
PROGRAM = CHECKOUT / ".venv/bin/homeport-agent"
IS_SOAK = bool(os.environ.get("HOMEPORT_SOAK"))
# The newer one has the words of the older one but for a few: in the long form only, or by name.
USED = tuple(HELMS) if IS_SOAK else (os.environ.get("HOMEPORT_HELM", "3.19.5"),)
WHY_NOT = ""
if not kubernetes.is_built() and not IS_SOAK:
    WHY_NOT = "no kube-apiserver in the cache: tests/setup/kubernetes.sh builds it"
elif not IS_SOAK and not HELMS[USED[0]].exists():
    WHY_NOT = "no helm in the cache: tests/setup/helm.sh builds it"
elif not (shutil.which("kubectl") or (rootfs.cache() / "kubectl" / "kubectl").exists()):
    WHY_NOT = "there is no kubectl"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(WHY_NOT), reason=f"a Kubernetes API: {WHY_NOT}"),
]

ID = "flightctl-web_web"
CHART = {
    "values.yaml": "greeting: hello\nimage: registry.invalid/web:1\nbroken: no\n",
    "more.yaml": "greeting: from a file of the chart\n",
    "templates/config.yaml": """apiVersion: v1
kind: ConfigMap
metadata: {name: greeting}
data: {greeting: "{{ .Values.greeting }}"}
""",
    "templates/set.yaml": """apiVersion: apps/v1
kind: StatefulSet
metadata: {name: set}
spec:
  replicas: 1
  serviceName: set
  updateStrategy: {type: OnDelete}
  selector: {matchLabels: {part: set}}
  template:
    metadata: {labels: {part: set}}
    spec: {containers: [{name: set, image: registry.invalid/set:1}]}
""",
    # Helm waits for its success, which never comes.
    "templates/hook.yaml": """{{- if .Values.hook }}
apiVersion: v1
kind: Pod
metadata:
  name: hook
  annotations: {helm.sh/hook: pre-upgrade}
spec: {containers: [{name: hook, image: registry.invalid/hook:1}]}
{{- end }}
""",
    "templates/pod.yaml": """apiVersion: v1
kind: Pod
metadata:
  name: web
  {{- if .Values.late }}
  annotations: {never: ready}
  {{- end }}
spec:
  containers:
    - {name: web, image: "{{ .Values.image }}"}
""",
}


class Kubelet(threading.Thread):
    """[simulated] Says of each pod that it runs, unless it is never to; of each set, that it was
    seen."""

    def __init__(self, cluster: Kubernetes) -> None:
        super().__init__(daemon=True)
        self.cluster = cluster
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.2):
            for pod in self._items("/api/v1/pods"):
                is_never = "never" in (pod["metadata"].get("annotations") or {})
                if not is_never and pod["status"].get("phase") != "Running":
                    self._say(pod, "/api/v1", "pods", _running(pod))
            for one in self._items("/apis/apps/v1/statefulsets"):
                generation = one["metadata"]["generation"]
                if one["status"].get("observedGeneration") != generation:
                    status = {"observedGeneration": generation, "replicas": 0}
                    self._say(one, "/apis/apps/v1", "statefulsets", status)

    def _items(self, path: str) -> list[Json]:
        code, text = self.cluster.ask("GET", path)
        return json.loads(text)["items"] if code == 200 else []

    def _say(self, one: Json, api: str, plural: str, status: Json) -> None:
        meta = one["metadata"]
        path = f"{api}/namespaces/{meta['namespace']}/{plural}/{meta['name']}/status"
        data = json.dumps({"status": status}).encode()
        self.cluster.ask("PATCH", path, data, "application/merge-patch+json")


def _running(pod: Json) -> Json:
    box = pod["spec"]["containers"][0]
    return {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [
            {
                "name": box["name"],
                "image": box["image"],
                "imageID": "x",
                "ready": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": "2026-11-26T00:00:00Z"}},
            }
        ],
    }


class Box:
    """One device: its root, and one life of its agent after the other."""

    def __init__(self, folder: Path, registry: Registry, kubeconfig: Path) -> None:
        self.root = folder / "device"
        self.root.mkdir()
        self.registry = registry
        self.kubeconfig = kubeconfig
        self.versions = 0
        self.start()

    def start(self, **times: Any) -> None:
        bounds = {
            "repair_interval_s": 1.0,
            "retry_base_s": 0.2,
            "retry_max_s": 1.0,
            "stability_s": 0.0,
            "chart_wait_s": 5.0,
            "orphan_s": 0.5,
            "kubeconfig": str(self.kubeconfig),
            "program": str(PROGRAM),
            **times,
        }
        self.mailbox = Mailbox()
        self.where = LinuxWorld(str(self.root))
        self.loop = loop.Reconciler(
            self.where,
            settings.LoopSettings(**bounds),
            self.mailbox,
            lambda: None,
            osimage.PACKAGE,
        )
        self.loop.run_once()

    def order(self, *applications: Json, files: list[Json] | None = None) -> None:
        self.versions += 1
        self.mailbox.offer_spec(document(self.versions, files or [], list(applications)))

    def declare(self, *applications: Json, files: list[Json] | None = None) -> Json:
        self.order(*applications, files=files)
        return self.settle()

    def settle(self) -> Json:
        version = str(self.versions)

        def is_over() -> bool:
            heard = self.mailbox.known_version() == version
            return heard and isinstance(self.loop.state, states.Idle | states.Refused)

        self.until(is_over)
        self.until(lambda: True)
        return self.mailbox.status()

    def until(self, claim: Callable[[], bool], *, passes: int = 200) -> None:
        deadline = time.monotonic() + 90
        for _ in range(passes):
            rest_s = self.loop.run_once()
            if claim() and rest_s:
                return
            assert time.monotonic() < deadline, self.mailbox.status()
            time.sleep(min(rest_s, 0.3))
        raise AssertionError(self.mailbox.status())

    def chart(self, version: str = "1.0.0", **fields: Any) -> Json:
        image = f"{self.registry.host}/charts/web:{version}"
        return {"name": "web", "appType": "helm", "image": image, **fields}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    if IS_SOAK:
        for script in (["kubernetes.sh"], ["helm.sh", "3"], ["helm.sh", "4"]):
            subprocess.run([CHECKOUT / "tests/setup" / script[0], *script[1:]], check=True)
    print("a Kubernetes API, not MicroShift; no nodes [simulated kubelet]")
    with kubernetes.running(tmp_path_factory.mktemp("kube") / "kube") as running:
        kubelet = Kubelet(running)
        kubelet.start()
        yield running
        kubelet.over.set()
        kubelet.join(10)


@pytest.fixture(scope="module", params=USED)
def tools(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, cluster: Kubernetes
) -> Iterator[None]:
    """A PATH with what charts need, and without podman: the machine's containers are not ours."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "helm").symlink_to(HELMS[request.param])
    (folder / "kubectl").symlink_to(Path(service.kubectl()).resolve())
    for name in ("rm", "sh", "uname", "dirname", "readlink", "basename", "cat"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(Path(found).resolve())
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATH", str(folder))
        patched.setenv("HELM_CACHE_HOME", str(folder / "cache"))
        yield


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def box(
    tmp_path_factory: pytest.TempPathFactory, cluster: Kubernetes, registry: Registry, tools: None
) -> Box:
    folder = tmp_path_factory.mktemp("box")
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(_kubeconfig(cluster.url)))
    broken = {"templates/x.yaml": '{{ fail "no greeting for you" }}'}
    refused = {"templates/pod.yaml": CHART["templates/pod.yaml"].replace("containers:", "boxes:")}
    for version, changes in (("1.0.0", {}), ("2.0.0", {}), ("3.0.0", broken), ("4.0.0", refused)):
        push(folder, registry, version, CHART | changes)
    return Box(folder, registry, kubeconfig)


def _kubeconfig(url: str) -> Json:
    cluster = {"server": url, "insecure-skip-tls-verify": True}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": kubernetes.TOKEN}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }


def push(folder: Path, registry: Registry, version: str, files: dict[str, str]) -> None:
    chart = folder / f"chart-{version}" / "web"
    manifest = f"apiVersion: v2\nname: web\nversion: {version}\n"
    for name, text in {**files, "Chart.yaml": manifest}.items():
        path = chart / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    run("helm", "package", str(chart), "--destination", str(folder))
    run("helm", "push", str(folder / f"web-{version}.tgz"), f"oci://{registry.host}/charts",
        "--plain-http")  # fmt: skip


def run(*argv: str, kubeconfig: Path | None = None) -> str:
    env = {**os.environ, **({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


def get(cluster: Kubernetes, path: str) -> Json:
    code, text = cluster.ask("GET", path)
    return json.loads(text) if code == 200 else {}


def greeting(cluster: Kubernetes, namespace: str = "flightctl-web") -> str:
    found = get(cluster, f"/api/v1/namespaces/{namespace}/configmaps/greeting")
    return str(found.get("data", {}).get("greeting", ""))


def pod_of(cluster: Kubernetes) -> Json:
    return get(cluster, "/api/v1/namespaces/flightctl-web/pods/web")


def release(box: Box) -> helm.Release:
    major = helm.version(run(*helm.version_argv()))[0]
    return helm.releases(run(*helm.releases_argv(major), kubeconfig=box.kubeconfig))[ID]


def revision(box: Box) -> int:
    return release(box).revision


def test_a_chart_is_installed_and_all_of_it_is_labelled(box: Box, cluster: Kubernetes) -> None:
    app = box.chart(valuesFiles=["more.yaml"])
    status = box.declare(app)
    assert condition(status)["reason"] == "Updated", status
    assert greeting(cluster) == "from a file of the chart"
    found = application(status, "web")
    assert (found["status"], found["ready"], found["appType"]) == ("Running", "1/1", "helm")
    assert pod_of(cluster)["metadata"]["labels"][helm.APP_LABEL] == ID
    made = get(cluster, "/apis/apps/v1/namespaces/flightctl-web/statefulsets/set")["spec"]
    assert made["template"]["metadata"]["labels"] == {"part": "set", helm.APP_LABEL: ID}
    assert made["selector"]["matchLabels"] == {"part": "set"}
    namespace = get(cluster, "/api/v1/namespaces/flightctl-web")
    assert namespace["metadata"]["labels"]["flightctl.io/managed-by"] == "flightctl"
    chart = box.root / helm.HELM_DIR[1:] / helm.chart_folder(app["image"])
    assert (chart / helm.READY).exists()


def test_other_values_are_an_upgrade_in_place(box: Box, cluster: Kubernetes) -> None:
    before = pod_of(cluster)["metadata"]["uid"]
    values = {"greeting": "inline wins", "image": "registry.invalid/web:2"}
    status = box.declare(box.chart(valuesFiles=["more.yaml"], values=values))
    assert condition(status)["reason"] == "Updated", status
    assert greeting(cluster) == "inline wins"
    assert pod_of(cluster)["metadata"]["uid"] == before
    assert pod_of(cluster)["spec"]["containers"][0]["image"] == "registry.invalid/web:2"
    path = box.root / helm.HELM_DIR[1:] / "values/web" / helm.VALUES_FILE
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_rendered_or_fetched_is_refused_before_anything_is_touched(
    box: Box,
) -> None:
    before = revision(box)
    message = condition(box.declare(box.chart("3.0.0")))["message"]
    assert "While Preparing: applications failed for web" in message
    assert "no greeting for you" in message
    message = condition(box.declare(box.chart(valuesFiles=["none.yaml"])))["message"]
    assert "the chart has no file none.yaml" in message
    message = condition(box.declare(box.chart("9.9.9")))["message"]
    assert "While Preparing: prefetch failed for web" in message
    assert revision(box) == before


def test_what_the_cluster_refuses_is_taken_back(box: Box, cluster: Kubernetes) -> None:
    message = condition(box.declare(box.chart("4.0.0")))["message"]
    assert "While ApplyingUpdate: applications failed for web: invalid configuration" in message
    assert "rolled back" in message
    assert greeting(cluster) == "inline wins"
    assert pod_of(cluster)["spec"]["containers"][0]["image"] == "registry.invalid/web:2"


def test_what_does_not_become_ready_is_taken_back(box: Box, cluster: Kubernetes) -> None:
    web = box.chart(values={"greeting": "inline wins", "image": "registry.invalid/web:2"})
    late = {**box.chart("2.0.0", values={"late": True}), "name": "late"}
    message = condition(box.declare(web, late))["message"]
    assert "While ApplyingUpdate: applications failed for late: request timed out" in message
    assert not get(cluster, "/api/v1/namespaces/flightctl-late/pods/web")
    assert greeting(cluster) == "inline wins"


def test_what_somebody_uninstalls_comes_back(box: Box, cluster: Kubernetes) -> None:
    box.declare(box.chart(values={"greeting": "here"}))
    run("helm", "uninstall", "web", "-n", "flightctl-web", kubeconfig=box.kubeconfig)
    assert not greeting(cluster)
    box.until(lambda: greeting(cluster) == "here")


def test_stopped_and_started(box: Box, cluster: Kubernetes) -> None:
    path = "/apis/apps/v1/namespaces/flightctl-web/statefulsets/set"
    box.declare(box.chart(values={"greeting": "here"}, desiredState="stopped"))
    box.until(lambda: get(cluster, path)["spec"]["replicas"] == 0)
    box.declare(box.chart(values={"greeting": "here"}))
    assert get(cluster, path)["spec"]["replicas"] == 1


def test_a_release_that_an_agent_was_killed_over_is_cleared(box: Box, cluster: Kubernetes) -> None:
    """helm is killed with it, as by a power cut: the release then is locked for ever."""
    argv = ["helm", "upgrade", "web", "-n", "flightctl-web", "--reuse-values", "--set", "hook=true"]
    chart = str(box.root / helm.HELM_DIR[1:] / helm.chart_folder(box.chart()["image"]) / "web")
    env = {**os.environ, "KUBECONFIG": str(box.kubeconfig)}
    child = subprocess.Popen([*argv[:3], chart, *argv[3:]], env=env)
    try:
        processes.until(lambda: _status(box).startswith("pending"), "helm is at work", timeout_s=30)
    finally:
        child.kill()
        child.wait(10)
    status = box.declare(box.chart("2.0.0", values={"greeting": "after the cut"}))
    assert condition(status)["reason"] == "Updated", status
    assert greeting(cluster) == "after the cut"


def _status(box: Box) -> str:
    return release(box).status


def test_without_its_cluster_the_rest_of_the_device_is_looked_after(box: Box) -> None:
    motd = file("/etc/motd", "mine")
    chart = box.chart("2.0.0", values={"greeting": "after the cut"})
    box.declare(chart, files=[motd])
    away = box.root.parent / "away"
    away.write_text(yaml.safe_dump(_kubeconfig("https://127.0.0.1:9")))
    box.start(kubeconfig=str(away))
    path = box.root / "etc/motd"
    path.write_text("somebody's")
    box.until(lambda: path.read_text() == "mine")
    status = box.mailbox.status()
    assert "127.0.0.1:9" in status["summary"]["info"]
    assert application(status, "web")["status"] == "Unknown"
    box.start()
    box.until(lambda: application(box.mailbox.status(), "web").get("status") == "Running")


def test_removed_it_is_uninstalled_and_its_namespace_stays(box: Box, cluster: Kubernetes) -> None:
    status = box.declare()
    assert condition(status)["reason"] == "Updated", status
    assert not pod_of(cluster)
    assert get(cluster, "/api/v1/namespaces/flightctl-web")
    assert not (box.root / helm.HELM_DIR[1:] / "values/web").exists()
    charts = box.root / helm.HELM_DIR[1:] / "charts"
    assert not list(charts.iterdir())
    assert specs.number(box.mailbox.known_version()) == box.versions
