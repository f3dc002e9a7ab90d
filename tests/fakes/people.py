"""People at machines of their own: homeport, kubectl, and what those keep of a login."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from apiserver.auth import tokens
from tests.conformance.conftest import Kubectl, binaries
from tests.e2e import processes
from tests.fakes.apiserver_process import Process

HOMEPORT = Path(sys.executable).parent / "homeport"


class Provider(Protocol):
    """A real identity provider, whichever."""

    @property
    def issuer(self) -> str: ...
    def spec(self, **more: Any) -> dict[str, Any]: ...
    def oauth2(self, **more: Any) -> dict[str, Any]: ...
    def visit(self, url: str, user: str) -> str: ...
    def set_roles(self, user: str, roles: list[str]) -> None: ...
    def forget(self, user: str) -> None: ...
    def set_ttl(self, ttl_s: int) -> None: ...
    def rotate(self) -> None: ...
    def stop(self) -> None: ...
    def start(self) -> None: ...


@dataclass
class Person:
    home: Path
    server: Process
    name: str

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    @property
    def session(self) -> dict[str, Any]:
        """What homeport keeps of the login."""
        (path,) = (self.home / "config/homeport/sessions").glob("*.json")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def environment(self) -> dict[str, str]:
        own = {
            "XDG_CONFIG_HOME": self.home / "config",
            "KUBECONFIG": self.kubeconfig,
            "KUBECACHEDIR": self.home / "cache",
        }
        return os.environ | {key: str(value) for key, value in own.items()}

    def authority(self) -> Path:
        entry = yaml.safe_load(self.server.kubeconfig.read_text())["clusters"][0]["cluster"]
        path = self.home / "ca.crt"
        path.write_bytes(base64.b64decode(entry["certificate-authority-data"]))
        return path

    def begin(self, *more: str) -> subprocess.Popen[str]:
        argv = [str(HOMEPORT), "login", self.server.url, "--certificate-authority"]
        return subprocess.Popen(
            [*argv, str(self.authority()), *more],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment(),
        )  # fmt: skip

    def log_in(self, provider: Provider, *more: str) -> str:
        """In a browser; what homeport says in the end."""
        login = self.begin("--no-browser", *more)
        assert login.stderr is not None
        url = login.stderr.readline().removeprefix("Log in at ").strip()
        assert url.startswith("http"), url + login.stderr.read()
        assert "You are logged in" in provider.visit(url, self.name), url
        return self.end(login)

    def log_in_by_code(self, provider: Provider, *more: str) -> str:
        """At a browser elsewhere; what homeport says in the end."""
        login = self.begin("--device", *more)
        assert login.stderr is not None
        assert "enter " in login.stderr.readline()
        url = login.stderr.readline().removeprefix("or open ").strip()
        assert "success" in provider.visit(url, self.name).lower()
        return self.end(login)

    def refused_with(self, token: str) -> str:
        """What homeport says of a login with that token."""
        login = self.begin("--token", token)
        _, errors = login.communicate(timeout=60)
        assert login.returncode == 1
        assert not self.kubeconfig.exists(), "nothing is kept of a login that is not taken"
        return errors

    @staticmethod
    def end(login: subprocess.Popen[str]) -> str:
        out, errors = login.communicate(timeout=60)
        assert login.returncode == 0, errors
        return out

    def run(self, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv, input=stdin, env=self.environment(), capture_output=True, text=True, timeout=60
        )

    def kubectl(self, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return self.run(str(binaries()[-1]), *argv, stdin=stdin)


@dataclass
class Site:
    """Two organisations, an identity provider, and a name for its AuthProvider."""

    admin: Kubectl
    server: Process
    provider: Any
    ours: str
    theirs: str
    name: str
    home: Path
    is_opaque: bool = False

    @property
    def spec(self) -> dict[str, Any]:
        found: dict[str, Any] = self.provider.oauth2() if self.is_opaque else self.provider.spec()
        return found

    def apply(self, spec: dict[str, Any]) -> None:
        self.admin("apply", "-f", "-", stdin=auth_provider(self.name, "default", spec))

    def apply_and_wait(self, spec: dict[str, Any]) -> None:
        """Until the server has looked at it."""
        self.apply(spec)
        processes.until(
            lambda: self._known().get("clientId") == spec["clientId"], "it is known",
            timeout_s=tokens.LOOK_S + 5,
        )  # fmt: skip

    def _known(self) -> dict[str, Any]:
        config = json.loads(self.admin("get", "--raw", "/api/v1/auth/config"))
        found = [each for each in config["providers"] if each["metadata"]["name"] == self.name]
        return found[0]["spec"] if found else {}

    def person(self, name: str, home: str = "") -> Person:
        folder = self.home / (home or name)
        folder.mkdir(exist_ok=True)
        return Person(folder, self.server, name)

    def logged_in(self, name: str, home: str = "") -> Person:
        """In a browser, at work in our organisation."""
        person = self.person(name, home)
        person.log_in(self.provider, *self.options)
        return person

    @property
    def options(self) -> tuple[str, ...]:
        return "--provider", self.name, "-n", self.ours


def auth_provider(name: str, namespace: str, spec: dict[str, Any]) -> str:
    return json.dumps(
        {
            "apiVersion": "flightctl.io/v1beta1",
            "kind": "AuthProvider",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }
    )


def refused(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode != 0, done.stdout
    assert words in done.stderr, done.stderr
