"""Real kubectl against the real server, every test in a namespace of its own.

What differs between versions of kubectl is the wire; what differs between stores is SQL. So this is
a sum and no product: the older ones meet one server on SQLite, and the newest meets PostgreSQL too,
with two servers that take its connections in turn, so that each command may land elsewhere than the
one before.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fakes import apiserver_process
from tests.fakes.postgres import Cluster

_NUMBERS = itertools.count(1)
TIMEOUT_S = 45


# What people have, by what each brought: 1.27 validates by OpenAPI v2 in protobuf, 1.30 by v3 and
# sends JSON, 1.32 sends protobuf for built-in kinds, 1.33 is the newest here.
WANTED = ("1.27", "1.30", "1.32", "1.33")


def _version(path: Path) -> list[int]:
    return [int(part) for part in path.name.split(".")[1:]]


def binaries() -> list[Path]:
    """kubectl on PATH, or what stands beside it by version when that is a dispatcher: those that
    are wanted, all of them in a soak; oldest first."""
    found = shutil.which("kubectl")
    if found is None:
        return []
    versions = sorted(Path(found).resolve().parent.glob("kubectl.[0-9]*"), key=_version)
    if not versions:
        return [Path(found)]
    if os.environ.get("HOMEPORT_SOAK"):
        return versions
    return [path for path in versions if path.name.removeprefix("kubectl.") in WANTED]


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


@dataclass(slots=True)
class Kubectl:
    """One binary with one kubeconfig, in one namespace."""

    binary: Path
    kubeconfig: Path
    cache: Path
    namespace: str
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> list[str]:
        return [
            str(self.binary),
            "--kubeconfig",
            str(self.kubeconfig),
            "--cache-dir",
            str(self.cache),
            "--namespace",
            self.namespace,
            *arguments,
        ]

    def run(self, *arguments: str, stdin: str = "") -> Ran:
        done = subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            env=os.environ | self.environment,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Standard output of a command that must succeed."""
        ran = self.run(*arguments, stdin=stdin)
        assert ran.code == 0, f"{arguments}: {ran.err}{ran.out}"
        return ran.out

    def refused(self, *arguments: str, stdin: str = "") -> str:
        """Standard error of a command that must fail."""
        ran = self.run(*arguments, stdin=stdin)
        assert ran.code != 0, f"{arguments}: {ran.out}"
        return ran.err

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apiserver_process.Process]:
    if not binaries():
        pytest.skip("no kubectl on PATH")
    with apiserver_process.running(tmp_path_factory.mktemp("server") / "data") as process:
        yield process


@pytest.fixture(scope="session")
def replicas(
    postgres: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[apiserver_process.Replicas]:
    directory = tmp_path_factory.mktemp("replicas")
    with apiserver_process.balanced(directory, postgres.create_database()) as running:
        yield running


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


Service = apiserver_process.Process | apiserver_process.Replicas


def _made(binary: Path, service: Service, caches: Path) -> Kubectl:
    namespace = f"ns-{next(_NUMBERS)}"
    cache = caches / f"{binary.name}-{type(service).__name__}"
    made = Kubectl(binary, service.kubeconfig, cache, namespace)
    made("create", "-f", "-", stdin=namespace_manifest(namespace))
    return made


@pytest.fixture(params=["server", "replicas"], ids=["sqlite", "postgresql"])
def kubectl(request: pytest.FixtureRequest, caches: Path) -> Kubectl:
    """The newest kubectl, in a fresh namespace, on each store. Every verb in every way is tried
    with it alone: what an older one sends differs in how it validates, encodes and discovers, and
    one walk through all verbs by each of them (`every_kubectl`) meets all of that."""
    return _made(binaries()[-1], request.getfixturevalue(request.param), caches)


@pytest.fixture(params=binaries(), ids=lambda path: path.name)
def every_kubectl(
    request: pytest.FixtureRequest, server: apiserver_process.Process, caches: Path
) -> Kubectl:
    """Each kubectl, in a fresh namespace."""
    return _made(request.param, server, caches)


def namespace_manifest(name: str) -> str:
    """As JSON: older kubectl takes a brace for its beginning."""
    return json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


FLEET = """
apiVersion: flightctl.io/v1beta1
kind: Fleet
metadata:
  name: {name}
  labels: {{tier: edge}}
spec:
  selector:
    matchLabels: {{fleet: {name}}}
  template:
    spec:
      os: {{image: "{image}"}}
"""


def fleet(name: str, image: str = "quay.io/acme/os:1") -> str:
    """A manifest."""
    return FLEET.format(name=name, image=image)
