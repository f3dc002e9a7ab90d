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
    assert kubeconfig.paths_of(tmp_path / "given") == [tmp_path / "given"]
    assert kubeconfig.paths_of(None) == [Path("/first"), Path("/second")]
    monkeypatch.delenv("KUBECONFIG")
    assert kubeconfig.paths_of(None) == [tmp_path / ".kube" / "config"]


def test_only_the_authority_in_the_file_is_trusted(api: TinyApi, tmp_path: Path) -> None:
    path = api.kubeconfig(tmp_path / "config")
    answer = Client(kubeconfig.load(path)).ask("GET", "/version")
    assert answer == {"gitVersion": "v1"}
    other = TinyApi()
    (tmp_path / "other").mkdir()
    other.start(tmp_path / "other")
    try:
        change(path, server=other.url)
        with pytest.raises(Exception, match="cannot be verified"):
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
    ],
)
def test_a_file_that_is_no_kubeconfig_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(KubeconfigError, match=f"{path} is not a kubeconfig"):
        kubeconfig.load(path)


def test_a_missing_file_says_where_one_comes_from(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError) as missing:
        kubeconfig.load(tmp_path / "nowhere")
    assert "homeport up --data DIR" in missing.value.hint


def test_another_context_of_the_file_is_chosen_by_name(api: TinyApi, tmp_path: Path) -> None:
    path = api.kubeconfig(tmp_path / "config")
    document = yaml.safe_load(path.read_text())
    other = {"cluster": "tiny", "user": "me", "namespace": "berlin"}
    document["contexts"].append({"name": "other", "context": other})
    path.write_text(yaml.safe_dump(document))
    assert kubeconfig.load(path).namespace == "default"
    assert kubeconfig.load(path, "other").namespace == "berlin"
    assert kubeconfig.contexts([path, tmp_path / "nowhere"]) == ["x", "other"]
    with pytest.raises(KubeconfigError, match=r'no "third" among the contexts .*: x, other'):
        kubeconfig.load(path, "third")


def test_of_several_files_each_says_its_part(api: TinyApi, tmp_path: Path) -> None:
    whole = yaml.safe_load(api.kubeconfig(tmp_path / "whole").read_text())
    user = whole.pop("users")
    (tmp_path / "a").write_text(yaml.safe_dump(whole))
    (tmp_path / "b").write_text(yaml.safe_dump({"users": user, "current-context": "ignored"}))
    access = kubeconfig.load_all([tmp_path / "nowhere", tmp_path / "a", tmp_path / "b"])
    assert access.server == api.url


def test_a_program_that_logs_in_is_asked_for_the_token(api: TinyApi, tmp_path: Path) -> None:
    path = api.kubeconfig(tmp_path / "config")
    document = yaml.safe_load(path.read_text())
    login = {"command": "echo", "args": ['{"status": {"token": "from-a-program"}}']}
    document["users"][0]["user"] = {"exec": login}
    path.write_text(yaml.safe_dump(document))
    assert kubeconfig.load(path).token == "from-a-program"
    login["command"] = "no-such-program"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(KubeconfigError, match=r"no-such-program, by which .* logs in, failed"):
        kubeconfig.load(path)
