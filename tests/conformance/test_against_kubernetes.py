"""The same requests to a real kube-apiserver with our CRDs and to ours: the same objects, the same
owners of fields, the same verdicts.

Runs where `tests/setup/kubernetes.sh` has filled the cache; a soak fills it.
"""

from __future__ import annotations

import base64
import difflib
import json
import os
import random
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.data.wrong_documents import DOCUMENTS, RIGHT
from tests.fakes import apiserver_process, kubernetes

Json = dict[str, Any]
Ask = Callable[..., tuple[int, str]]

ROOT = Path(__file__).parents[2]
DEVICES = "/apis/flightctl.io/v1beta1/namespaces/default/devices"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
SOAK = bool(os.environ.get("HOMEPORT_SOAK"))
SEEDS = range(20 if SOAK else 5)
STEPS = 30


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    if not kubernetes.is_built():
        if not SOAK:
            pytest.skip("no kube-apiserver in the cache; tests/setup/kubernetes.sh builds it")
        subprocess.run([ROOT / "tests/setup/kubernetes.sh"], check=True)
    with kubernetes.running(tmp_path_factory.mktemp("kubernetes") / "k") as made:
        for path in sorted((ROOT / "crds").glob("*.yaml")):
            code, text = made.ask("POST", kubernetes.CRDS, path.read_bytes(), "application/yaml")
            assert code == 201, f"{path.name}: {text}"
        _until_served(made)
        yield made.ask


def _until_served(made: kubernetes.Kubernetes) -> None:
    """CRDs are served and published some time after they are stored; and none has a structural
    complaint."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        items = json.loads(made.ask("GET", kubernetes.CRDS)[1])["items"]
        conditions = [
            {c["type"]: c["status"] for c in item["status"]["conditions"] or ()} for item in items
        ]
        assert not any(c.get("NonStructuralSchema") == "True" for c in conditions), items
        published = json.loads(made.ask("GET", "/openapi/v3")[1])["paths"]
        served = {"apis/flightctl.io/v1beta1", "apis/homeport.dev/v1alpha1"} <= published.keys()
        if served and all(c.get("Established") == "True" for c in conditions):
            return
        time.sleep(0.3)
    raise AssertionError("the CRDs were not established")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    data = tmp_path_factory.mktemp("ours") / "data"
    with apiserver_process.running(data) as server:
        config = yaml.safe_load(server.kubeconfig.read_text())
        tls = _administrator(config, data)

        def ask(
            method: str, path: str, data: bytes | None = None, media: str = "application/json"
        ) -> tuple[int, str]:
            headers = {"Content-Type": media}
            return apiserver_process.ask(server.url, tls, method, path, data, headers)

        yield ask


def _administrator(config: Json, data: Path) -> ssl.SSLContext:
    decoded = {
        key: base64.b64decode(value)
        for part in (config["clusters"][0]["cluster"], config["users"][0]["user"])
        for key, value in part.items()
        if key.endswith("-data")
    }
    tls = ssl.create_default_context(cadata=decoded["certificate-authority-data"].decode())
    for key in ("client-certificate-data", "client-key-data"):
        (data.parent / key).write_bytes(decoded[key])
    tls.load_cert_chain(data.parent / "client-certificate-data", data.parent / "client-key-data")
    return tls


# --- server-side apply ---------------------------------------------------------------------------


def device(random_: random.Random, name: str) -> Json:
    """A configuration with some of everything that is owned in a way of its own."""

    def some(*values: Any) -> list[Any]:
        return [value for value in values if random_.random() < 0.5]

    def text() -> str:
        return random_.choice("12")

    metadata: Json = {"name": name}
    labels = {key: text() for key in some("a", "b", "c")}
    annotations = {f"acme.io/{key}": text() for key in some("x", "y")}
    finalizers = [f"acme.io/{key}" for key in some("f", "g")]
    for key, value in (
        ("labels", labels), ("annotations", annotations), ("finalizers", finalizers),
    ):  # fmt: skip
        if value:
            metadata[key] = value
    spec: Json = {}
    if random_.random() < 0.6:
        spec["os"] = {"image": f"quay.io/acme/os:{text()}"}
    config = [
        {
            "name": key,
            "inline": [{"path": f"/etc/{key}{n}", "content": text()} for n in some(1, 2, 3) or [1]],
        }
        for key in some("motd", "sshd", "tuned")
    ]
    if config:
        random_.shuffle(config)
        spec["config"] = config
    if random_.random() < 0.4:
        spec["systemd"] = {"matchPatterns": [f"{key}.service" for key in some("a", "b") or ["c"]]}
    if random_.random() < 0.4:
        monitors = some("CPU", "Memory", "Disk") or ["CPU"]
        spec["resources"] = [
            {"monitorType": kind, "samplingInterval": f"{text()}m", "alertRules": []}
            | ({"path": "/var"} if kind == "Disk" else {})
            for kind in monitors
        ]
    return {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "Device",
        "metadata": metadata,
        "spec": spec,
    }


def steps(seed: int) -> Iterator[tuple[str, str, Json | list[Json], str]]:
    """Method, query, body and media type of one request after the other, on one object."""
    random_ = random.Random(seed)
    for _ in range(STEPS):
        config = device(random_, f"d{seed}")
        manager = random_.choice(("kubectl", "argo", "flux"))
        match random_.randrange(10):
            case 0 | 1 | 2 | 3:
                yield "PATCH", f"?fieldManager={manager}", config, APPLY
            case 4 | 5 | 6:
                yield "PATCH", f"?fieldManager={manager}&force=true", config, APPLY
            case 7:
                part = {"metadata": {"labels": {"a": "3", "b": None}}, "spec": config["spec"]}
                yield "PATCH", f"?fieldManager=ed-{manager}", part, MERGE
            case 8:
                name = random_.choice("ab")
                operation = {"op": "add", "path": "/metadata/labels", "value": {name: "4"}}
                yield "PATCH", f"?fieldManager=ed-{manager}", [operation], JSON_PATCH
            case _:
                yield "PUT", f"?fieldManager=put-{manager}", config, "application/json"


def essence(document: Json) -> Json:
    """What must be equal: all but identity, times and versions. Ours is kept without empty maps."""
    metadata = document["metadata"]
    owners = [
        {key: value for key, value in entry.items() if key != "time"}
        for entry in metadata.get("managedFields", ())
        # How the object was summarised at birth is status, and not the same kind of fact.
        if entry.get("subresource") != "status"
    ]
    kept = {
        key: metadata[key]
        for key in ("labels", "annotations", "finalizers", "generation")
        if metadata.get(key)
    }
    kept["annotations"] = {
        key: value
        for key, value in kept.get("annotations", {}).items()
        if key.startswith("acme.io/")
    }
    return {
        "metadata": kept,
        "spec": document.get("spec") or {},
        "owners": sorted(owners, key=lambda e: json.dumps(e, sort_keys=True)),
    }


def difference(our: Json, their: Json) -> str:
    """What to look at, line by line."""
    texts = [json.dumps(each, indent=1, sort_keys=True).splitlines() for each in (their, our)]
    return "\n".join(difflib.unified_diff(*texts, "theirs", "ours", lineterm="", n=6))


def causes(status: Json) -> list[tuple[str, str]]:
    found = status.get("details", {}).get("causes", ())
    return sorted((cause.get("field", ""), cause["message"]) for cause in found)


def send(
    ask: Ask, path: str, method: str, query: str, body: Json | list[Json], media: str
) -> tuple[int, Json]:
    if method == "PUT":
        assert isinstance(body, dict)
        code, text = ask("GET", path)
        if code == 404:
            return code, {}
        version = json.loads(text)["metadata"]["resourceVersion"]
        body = body | {"metadata": body["metadata"] | {"resourceVersion": version}}
    code, text = ask(method, path + query, json.dumps(body).encode(), media)
    return code, json.loads(text)


# Kubernetes leaves a null where an apply took the last item of a container that somebody else has,
# and then refuses it; here the container stays, empty. Such a request is sent to neither.
DEFECT = 'in body must be of type array: "null"', 'in body must be of type object: "null"'


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_requests_give_the_same_objects_and_owners(
    theirs: Ask, ours: Ask, seed: int
) -> None:
    path = f"{DEVICES}/d{seed}"
    conflicts = left_out = 0
    for number, (method, query, body, media) in enumerate(steps(seed)):
        their_code, their = send(theirs, path, method, query, body, media)
        if their_code == 422 and their["message"].endswith(DEFECT):
            left_out += 1
            continue
        our_code, our = send(ours, path, method, query, body, media)
        where = f"seed {seed}, step {number}: {method} {query} {json.dumps(body)}"
        assert our_code == their_code, f"{where}\ntheirs: {their}\nours: {our}"
        if their_code in (200, 201):
            ours_is, theirs_is = essence(our), essence(their)
            assert ours_is == theirs_is, f"{where}\n{difference(ours_is, theirs_is)}"
        elif their_code == 409:
            conflicts += 1
            assert causes(our) == causes(their), where
            assert our["message"] == their["message"], where
    print(f"{STEPS} requests, {conflicts} conflicts, {left_out} left out for a defect of theirs")


# --- verdicts ------------------------------------------------------------------------------------


def plural(document: Json) -> str:
    kind = document["kind"].lower()
    return kind[:-1] + "ies" if kind.endswith("y") else kind + "s"


def verdict(ask: Ask, document: Json) -> tuple[int, str]:
    version = document["apiVersion"]
    place = "" if document["kind"] == "Organization" else "/namespaces/default"
    path = f"/apis/{version}{place}/{plural(document)}?dryRun=All&fieldValidation=Strict"
    return ask("POST", path, json.dumps(document).encode())


def test_what_is_right_is_right_there_too(theirs: Ask, ours: Ask) -> None:
    for name, document in RIGHT:
        if document.get("apiVersion") not in ("flightctl.io/v1beta1", "homeport.dev/v1alpha1"):
            continue
        code, text = verdict(theirs, document)
        if code == 404:
            continue
        assert code == 201, f"{name}: {text}"


@pytest.mark.timeout(180)
def test_what_the_schemas_refuse_there_is_refused_here(theirs: Ask, ours: Ask) -> None:
    """The other way does not hold: a CRD can't say all our rules."""
    refused = agreed = 0
    for wrong in DOCUMENTS:
        assert isinstance(wrong.body, dict)
        if wrong.body.get("apiVersion") not in ("flightctl.io/v1beta1", "homeport.dev/v1alpha1"):
            continue
        code, text = verdict(theirs, wrong.body)
        if code == 404:
            continue
        if code not in (200, 201):
            our_code, our_text = verdict(ours, wrong.body)
            assert 400 <= our_code < 500, f"{wrong.id}: theirs {text}; ours {our_text}"
            refused += 1
        agreed += 1
    print(f"{refused} of {agreed} wrong documents are refused by the published schemas alone")
    assert refused > 50
