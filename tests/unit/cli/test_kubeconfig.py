"""Which kubeconfig is read, and what one that cannot be used is answered with."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import kubeconfig
from cli.client import Client
from cli.kubeconfig import KubeconfigError
from tests.fakes.tiny_api import TinyApi


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyApi]:
    api = TinyApi({"GET /version": {"gitVersion": "v1"}})
    api.start(tmp_path_factory.mktemp("api"))
    yield api
    api.stop()


def change(path: Path, **clusters: Any) -> None:
    document = yaml.safe_load(path.read_text())
    document["clusters"][0]["cluster"] |= clusters
    path.write_text(yaml.safe_dump(document))


def test_given_goes_before_the_environment_and_that_before_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", "/first:/second")
    assert kubeconfig.path_of(tmp_path / "given") == tmp_path / "given"
    assert kubeconfig.path_of(None) == Path("/first")
    monkeypatch.delenv("KUBECONFIG")
    assert kubeconfig.path_of(None) == tmp_path / ".kube" / "config"


def test_only_the_authority_in_the_file_is_trusted(api: TinyApi, tmp_path: Path) -> None:
    path = api.kubeconfig(tmp_path / "config")
    answer = Client(kubeconfig.load(path)).ask("GET", "/version")
    assert answer == {"gitVersion": "v1"}
    other = TinyApi()
    (tmp_path / "other").mkdir()
    other.start(tmp_path / "other")
    try:
        change(path, server=other.url)
        with pytest.raises(Exception, match="certificate verify failed"):
            Client(kubeconfig.load(path)).ask("GET", "/version")
    finally:
        other.stop()


def test_files_are_looked_for_beside_the_kubeconfig(api: TinyApi, tmp_path: Path) -> None:
    path = api.kubeconfig(tmp_path / "config")
    data = yaml.safe_load(path.read_text())["clusters"][0]["cluster"]["certificate-authority-data"]
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(data))
    change(path, **{"certificate-authority-data": "", "certificate-authority": "ca.crt"})
    assert Client(kubeconfig.load(path)).ask("GET", "/version") == {"gitVersion": "v1"}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="not YAML"),
        pytest.param("- a list", id="a list"),
        pytest.param("current-context: x\ncontexts: []", id="no such context"),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(KubeconfigError, match=f"{path} is not a kubeconfig"):
        kubeconfig.load(path)


def test_a_missing_file_says_where_one_comes_from(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="homeport up --data DIR"):
        kubeconfig.load(tmp_path / "nowhere")
