"""Helm and Kubernetes for applications: argument vectors, and output read. Nothing is run here.

Identifiers, folders, the label and the namespace are those of the agent that we replace, so that a
release that it has installed is ours to go on with. Commands are run in the agent's folder for Helm
and name files relative to it.

Every object of an application, and every pod template in it, is labelled by a post-renderer, which
is this program once more (`helm-render`); selectors are left alone, for they can never change.
Helm 4 takes no program for that but a plugin, which is a file that names the program.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from agent import appplan, errors, podman
from agent.appplan import Workload
from agent.specs import Application
from resources.records import dataclass

Json = dict[str, Any]

HELM = "helm"
HELM_DIR = "/var/lib/flightctl/helm"
CHARTS, VALUES = "charts", "values"
VALUES_FILE = "flightctl-values.yaml"
READY = ".flightctl-chart-ready"
CRI_AUTH = "CRICTL_AUTH"
APP_LABEL = "agent.flightctl.io/app"
MANAGED_LABEL = {"flightctl.io/managed-by": "flightctl"}

KUBECONFIGS = (
    "/var/lib/microshift/resources/kubeadmin/kubeconfig",
    "/root/.kube/config",
)
AUTH_FILES = ("/root/.config/helm/registry/config.json", "/root/.config/containers/auth.json")
RELEASE_CHARS_MAX = 53
# 3.8 is the first that pulls from registries without an experiment.
OLDEST = (3, 8)
NEW = 4
# Relative to the agent's folder for Helm, where commands are run.
PLUGINS, PLUGIN = "plugins", "flightctl-labels"
PLUGIN_FILE = f"{PLUGINS}/{PLUGIN}/plugin.yaml"
PENDING = ("pending-install", "pending-upgrade", "pending-rollback", "uninstalling")
WHAT_TO_INSTALL = "charts need helm 3.8 or newer and kubectl (or oc) on the device"


def namespace_of(app: Application) -> str:
    return app.namespace or f"flightctl-{_dns(app.name)}"


def release_of(app: Application) -> str:
    return _dns(app.name)[:RELEASE_CHARS_MAX].rstrip("-")


def app_id(app: Application) -> str:
    return f"{namespace_of(app)}_{release_of(app)}"


def parts_of(identifier: str) -> tuple[str, str]:
    """(namespace, release): neither can have an underscore."""
    namespace, _, release = identifier.partition("_")
    return namespace, release


def _dns(name: str) -> str:
    return re.sub(r"[^a-z0-9-]", "-", name.lower()).strip("-") or "app"


def chart_folder(reference: str) -> str:
    return f"{CHARTS}/{re.sub('[/:@]', '_', reference.removeprefix('oci://'))}"


def values_folder(app: Application) -> str:
    return f"{VALUES}/{podman.folder_name(app.name)}"


# Commands. ----------------------------------------------------------------------------------------


def version_argv() -> list[str]:
    return ["helm", "version", "--short"]


def version(stdout: str) -> tuple[int, int]:
    """(0, 0) = not said."""
    found = re.search(r"v(\d+)\.(\d+)", stdout)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def pull_argv(reference: str, into: str, auth_file: str, *, plain_http: bool = False) -> list[str]:
    name, tag = _named(reference.removeprefix("oci://"))
    argv = ["helm", "pull", f"oci://{name}", "--untar", "--destination", into]
    if tag:
        argv += ["--version", tag]
    if auth_file:
        argv += ["--registry-config", auth_file]
    return [*argv, *(["--plain-http"] if plain_http else [])]


def _named(reference: str) -> tuple[str, str]:
    """A tag is an option of the command; a digest stays where it is."""
    name, at, digest = reference.partition("@")
    folder, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return f"{folder}{slash}{last}{at}{digest}", "" if digest else tag


def is_on_loopback(reference: str) -> bool:
    host = reference.removeprefix("oci://").partition("/")[0].partition(":")[0]
    return host in ("localhost", "127.0.0.1")


def dependencies_argv(chart: str) -> list[str]:
    return ["helm", "dependency", "update", chart]


def lint_argv(chart: str, values: Iterable[str]) -> list[str]:
    return ["helm", "lint", "--quiet", chart, *_values(values)]


def upgrade_argv(
    app: Application,
    chart: str,
    values: Iterable[str],
    program: str,
    *,
    wait_s: float,
    major: int = 3,
) -> list[str]:
    """Installs what is not there; what does not become ready is taken back by helm itself."""
    argv = ["helm", "upgrade", release_of(app), chart, "--install"]
    argv += ["--namespace", namespace_of(app), *_values(values)]
    argv += ["--rollback-on-failure" if major >= NEW else "--atomic"]
    argv += ["--timeout", f"{wait_s:.0f}s"]
    argv += ["--post-renderer", PLUGIN if major >= NEW else program]
    for word in ("helm-render", "--app", app_id(app)):
        argv += ["--post-renderer-args", word]
    return argv


def plugin(program: str) -> bytes:
    """`PLUGIN_FILE`."""
    document = {
        "apiVersion": "v1",
        "type": "postrenderer/v1",
        "name": PLUGIN,
        "version": "1.0.0",
        "runtime": "subprocess",
        "runtimeConfig": {"platformCommand": [{"command": program.replace("$", "$$")}]},
    }
    return json.dumps(document).encode()


def dry_run_argv(app: Application, chart: str, values: Iterable[str]) -> list[str]:
    """The server says what it thinks of it; nothing is changed."""
    argv = ["helm", "upgrade", release_of(app), chart, "--install", "--dry-run=server"]
    return [*argv, "--create-namespace", "--namespace", namespace_of(app), *_values(values)]


def _values(files: Iterable[str]) -> list[str]:
    return [word for file in files for word in ("--values", file)]


def uninstall_argv(identifier: str) -> list[str]:
    namespace, release = parts_of(identifier)
    return ["helm", "uninstall", release, "--namespace", namespace, "--ignore-not-found"]


def rollback_argv(identifier: str) -> list[str]:
    """To the last revision that was deployed."""
    namespace, release = parts_of(identifier)
    return ["helm", "rollback", release, "--namespace", namespace]


def releases_argv(major: int = 3) -> list[str]:
    """In any state, which from helm 4 on needs no saying, and must not be said."""
    every = [] if major >= NEW else ["--all"]
    return ["helm", "list", "--all-namespaces", *every, "--max", "0", "--output", "json"]


def pods_argv(tool: str) -> list[str]:
    return [tool, "get", "pods", "--all-namespaces", "-l", APP_LABEL, "-o", "json"]


def scale_argv(tool: str, identifier: str) -> list[str]:
    """To nothing. What has no replicas (DaemonSets, Jobs, single pods) goes on."""
    argv = [tool, "scale", "deployment,statefulset", "-l", f"{APP_LABEL}={identifier}"]
    return [*argv, "--replicas=0", "-n", parts_of(identifier)[0]]


def namespace_argv(tool: str, namespace: str) -> list[str]:
    return [tool, "get", "namespace", namespace, "--ignore-not-found", "-o", "name"]


def create_argv(tool: str) -> list[str]:
    """`namespace_document` on standard input."""
    return [tool, "create", "-f", "-"]


def namespace_document(namespace: str) -> bytes:
    metadata = {"name": namespace, "labels": MANAGED_LABEL}
    return json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}).encode()


def cri_images_argv() -> list[str]:
    return ["crictl", "images", "--output", "json"]


def cri_pull_argv(image: str) -> list[str]:
    """Credentials are in the environment, `CRI_AUTH`."""
    return ["crictl", "pull", image]


def credentials(auth_file: bytes, image: str) -> str:
    """Base64 of `user:password` for `image`, of the longest entry that is meant for it; empty =
    none, or the file is none."""
    try:
        known = json.loads(auth_file).get("auths") or {}
        found = {str(place).rstrip("/"): str(entry["auth"]) for place, entry in known.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return ""
    name = image.partition("@")[0]
    place = name if "." in name.partition("/")[0] or ":" in name.partition("/")[0] else ""
    while place:
        if place in found:
            return found[place]
        place = place.rpartition("/")[0]
    return ""


# Output. ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Release:
    """`status`: deployed, failed, pending-..."""

    identifier: str
    status: str
    revision: int


def releases(stdout: str) -> dict[str, Release]:
    """Raises ValueError."""
    found = json.loads(stdout.strip() or "[]") or []
    listed = (
        Release(
            f"{one['namespace']}_{one['name']}",
            str(one.get("status") or ""),
            int(one.get("revision") or 0),
        )
        for one in found
    )
    return {one.identifier: one for one in listed}


def images(manifests: str) -> tuple[str, ...]:
    """All that containers are made from, as they stand in the manifests of a dry run."""
    found = re.findall(r"""^\s*(?:-\s+)?image:\s*["']?([^\s"'#]+)""", manifests, re.MULTILINE)
    return tuple(dict.fromkeys(found))


def cri_images(stdout: str) -> frozenset[str]:
    """Tags and digests. Raises ValueError."""
    listed = json.loads(stdout or "{}").get("images") or []
    names = (name for one in listed for key in ("repoTags", "repoDigests") for name in one[key])
    return frozenset(map(str, names))


_DEAD = (
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "InvalidImageName",
    "OOMKilled",
)


def pods(stdout: str) -> dict[str, tuple[Workload, ...]]:
    """Application -> its pods, by the contract's table. Raises ValueError."""
    found: dict[str, list[Workload]] = {}
    for pod in json.loads(stdout or "{}").get("items") or []:
        metadata = pod.get("metadata") or {}
        name = (metadata.get("labels") or {}).get(APP_LABEL)
        if name:
            found.setdefault(str(name), []).append(_pod(metadata, pod.get("status") or {}))
    return {name: tuple(sorted(all_of, key=lambda w: w.name)) for name, all_of in found.items()}


def _pod(metadata: Json, status: Json) -> Workload:
    boxes = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    reasons = [reason for box in boxes for reason in _reasons(box)]
    phase = str(status.get("phase") or "")
    why = next((reason for reason in reasons if reason in _DEAD), "")
    main = status.get("containerStatuses") or ()
    if metadata.get("deletionTimestamp"):
        state = appplan.STOPPING
    elif why or phase == "Failed":
        state = appplan.FAILED
    elif phase == "Succeeded":
        state = appplan.COMPLETED
    elif phase == "Running" and main and all(box.get("ready") for box in main):
        state = appplan.RUNNING
    else:
        state = appplan.STARTING
    return Workload(
        str(metadata.get("name") or ""),
        state,
        restarts=sum(int(box.get("restartCount") or 0) for box in boxes),
        began=str(status.get("startTime") or ""),
        why=f"{why or phase}" if state == appplan.FAILED else "",
    )


def _reasons(box: Json) -> Iterable[str]:
    """NB a container that waits for its next start has its last end beside it."""
    for key in ("waiting", "terminated"):
        found = (box.get("state") or {}).get(key) or {}
        if found.get("reason"):
            yield str(found["reason"])


# Words. -------------------------------------------------------------------------------------------

_RETRIED = (
    "cluster unreachable",
    "connection refused",
    "connection reset",
    "no such host",
    "i/o timeout",
    "tls handshake timeout",
    "unexpected eof",
    "network is unreachable",
    "another operation (install/upgrade/rollback) is in progress",
    "the object has been modified",
    "etcdserver:",
    "too many requests",
    "server is currently unable",
    "not ready to serve",
)
_DENIED = ("is forbidden: ", "unauthorized")


def run_error(words: str, *, app: str) -> errors.Retry | errors.Reject:
    """A cluster that does not answer may come; a chart that it refuses will not get better."""
    text = words.lower()
    detail = podman.last_words(words)
    if any(known in text for known in _RETRIED):
        return errors.Retry(errors.UNAVAILABLE, detail, component=errors.APPLICATIONS, element=app)
    denied = any(known in text for known in _DENIED)
    cause = errors.PERMISSION_DENIED if denied else errors.INVALID_ARGUMENT
    if "timed out waiting" in text or "context deadline exceeded" in text:
        cause = errors.DEADLINE_EXCEEDED
    return errors.Reject(cause, detail, component=errors.APPLICATIONS, element=app)


# The post-renderer. -------------------------------------------------------------------------------


def kustomization(identifier: str) -> bytes:
    """For `kubectl kustomize`: the label on everything and in pod templates, never in selectors."""
    label = {"pairs": {APP_LABEL: identifier}, "includeSelectors": False, "includeTemplates": True}
    return json.dumps({"resources": ["all.yaml"], "labels": [label]}).encode()
