"""Wrong documents by every verb: each a 4xx that names the field, and nothing moves."""

from __future__ import annotations

import base64
import copy
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import kubeconfig
from resources import registry
from tests.contract.data.wrong_documents import RIGHT, WRONG, Wrong
from tests.fakes import apiserver_process, sql

Json = dict[str, Any]
# Refused before it is read, for people may not write it at all: told so by the unit tests.
POSTED = [wrong for wrong in WRONG if wrong.kind != "TemplateVersion"]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest,
    new_database: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[apiserver_process.Process]:
    data, url = tmp_path_factory.mktemp("wrong") / "data", new_database(request.param)
    with apiserver_process.running(data, database=url) as process:
        yield process


def version_of(server: apiserver_process.Process) -> tuple[int, int]:
    """The store's version, and how many objects and devices there are."""
    url = sql.place(server.data, server.database)
    numbers = "(SELECT count(*) FROM object) + (SELECT count(*) FROM device)"
    version, number = sql.rows(url, f"SELECT version, {numbers} FROM store_meta")[0]
    return version, number


def path_of(kind: str) -> str:
    found = registry.by_kind(kind)
    namespace = "/namespaces/default" if found.namespaced else ""
    return f"/apis/{found.api_version}{namespace}/{found.plural}"


def refused(
    server: apiserver_process.Process, method: str, path: str, data: bytes, content_type: str
) -> tuple[int, str]:
    access = kubeconfig.load(server.kubeconfig)
    path += "?fieldValidation=Strict"
    return apiserver_process.ask(
        server.url, access.context, method, path, data, {"Content-Type": content_type}
    )


def body_of(wrong: Wrong) -> tuple[bytes, str]:
    if isinstance(wrong.body, str):
        return wrong.body.encode(), "application/yaml"
    return json.dumps(wrong.body).encode(), "application/json"


@pytest.mark.parametrize("wrong", POSTED, ids=lambda wrong: wrong.id)
def test_a_wrong_document_is_refused_by_post(
    server: apiserver_process.Process, wrong: Wrong
) -> None:
    before = version_of(server)
    data, content_type = body_of(wrong)
    status, text = refused(server, "POST", path_of(wrong.kind), data, content_type)
    assert 400 <= status < 500, text
    assert wrong.expected.lower() in text.lower()
    assert version_of(server) == before


def right_of(kind: str) -> Json:
    return next(document for name, document in RIGHT if name == kind)


# What these lack or leave empty, a merge patch does not take away.
RIGHT_WHEN_MERGED = (
    "no-api-version",
    "no-kind",
    "no-metadata",
    "empty-selector",
    "no-template",
    "no-template-spec",
)
PATCHABLE = [
    wrong
    for wrong in WRONG
    if isinstance(wrong.body, dict)
    and wrong.kind in ("Device", "Fleet")
    and isinstance(wrong.body.get("spec"), dict)
    and (wrong.body.get("metadata") or {}).get("name") == "wrong"
]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_wrong_documents_are_refused_by_put_and_patch(
    server: apiserver_process.Process, method: str
) -> None:
    for kind in ("Device", "Fleet"):
        document = copy.deepcopy(right_of(kind))
        document["metadata"]["name"] = "wrong"
        data = json.dumps(document).encode()
        refused(server, "POST", path_of(kind), data, "application/json")
    before = version_of(server)
    assert len(PATCHABLE) >= 60
    sent = [w for w in PATCHABLE if method == "PUT" or w.id not in RIGHT_WHEN_MERGED]
    for wrong in sent:
        assert isinstance(wrong.body, dict)
        content_type = "application/json"
        document = wrong.body
        if method == "PATCH":
            content_type = "application/merge-patch+json"
        path = f"{path_of(wrong.kind)}/wrong"
        status, text = refused(server, method, path, json.dumps(document).encode(), content_type)
        assert 400 <= status < 500, f"{wrong.id}: {text}"
        assert wrong.expected.lower() in text.lower(), f"{wrong.id}: {text}"
        assert version_of(server) == before, wrong.id
    print(f"{method}: {len(sent)} wrong documents refused")


@pytest.mark.timeout(180)
def test_wrong_documents_are_refused_by_kubectl_apply(
    server: apiserver_process.Process, tmp_path: Path
) -> None:
    kubectl = shutil.which("kubectl")
    assert kubectl is not None, "make setup brings a kubectl"
    chosen = [wrong for wrong in PATCHABLE if len(json.dumps(wrong.body)) < 100_000][:60]
    for number, wrong in enumerate(chosen):
        assert isinstance(wrong.body, dict)
        document = wrong.body | {"metadata": wrong.body["metadata"] | {"name": f"apply-{number}"}}
        (tmp_path / f"{number:03}.yaml").write_text(yaml.safe_dump(document))
    before = version_of(server)
    done = subprocess.run(
        [kubectl, "--kubeconfig", str(server.kubeconfig), "apply", "-f", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 1
    named = [n for n in range(len(chosen)) if f"{n:03}.yaml" in done.stderr]
    assert len(named) == len(chosen), done.stderr[-2000:]
    assert version_of(server) == before
    print(f"apply: {len(named)} wrong documents refused")


@pytest.mark.parametrize(
    ("data", "content_type", "code"),
    [
        pytest.param(b"{", "application/json", 400, id="not JSON"),
        pytest.param(b"a: [", "application/yaml", 400, id="not YAML"),
        pytest.param(b"[]", "application/json", 400, id="not an object"),
        pytest.param(b"{}", "text/plain", 415, id="unknown media type"),
        pytest.param(b" " * (4 << 20), "application/json", 413, id="too big"),
        pytest.param(base64.b64decode("//79"), "application/json", 400, id="not UTF-8"),
    ],
)
def test_a_body_that_is_no_document_is_refused(
    server: apiserver_process.Process, data: bytes, content_type: str, code: int
) -> None:
    before = version_of(server)
    status, text = refused(server, "POST", path_of("Fleet"), data, content_type)
    assert status == code, text
    assert json.loads(text)["kind"] == "Status"
    assert version_of(server) == before
