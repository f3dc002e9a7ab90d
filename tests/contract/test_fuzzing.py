"""Anything at all, sent by an administrator to every operation that the OpenAPI documents name.

What must hold of every answer: it comes in time, is no 5xx (but 504 where a version is asked for
that does not exist yet), is JSON of its kind or a Status, and leaves no traceback in the log. Half
of the requests are right but for one thing, the others are noise. Seeds are fixed, so a failure
comes again; its requests are printed.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import functools
import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from apiserver.bindings import BACKLOG
from tests.conformance.test_process import administrator
from tests.contract.data.wrong_documents import RIGHT
from tests.fakes import apiserver_process
from tests.fakes.apiserver_process import Process

Json = dict[str, Any]

SOAK = bool(os.environ.get("HOMEPORT_SOAK"))
SECONDS = 600.0 if SOAK else 30.0
ANSWER_S = 20.0
WORKERS = 6
SEED = 20261126
NAMESPACES = ("default", "fuzz")
# An EnrollmentRequest has no shorter one.
NAMES = ("aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb")
METHODS = ("get", "put", "post", "delete", "patch")
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
TYPES = ("application/json", "application/yaml", MERGE, APPLY, JSON_PATCH, "text/plain", "",
         "application/vnd.kubernetes.protobuf", "application/json; charset=utf-8")  # fmt: skip
ACCEPTS = ("application/json", "*/*", "", "application/yaml", "text/html",
           "application/json;as=Table;v=v1;g=meta.k8s.io",
           "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
           "a;q=x,b;;=")  # fmt: skip
NOISE: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 2**63 - 1, "", "a", "A b", "\u0000", "\ud7ff", "é" * 200, [], {},
    [None], {"": {}}, {"a": [1, {"b": None}]}, [["x"]], "../..", "9" * 400,
    {"$ref": "#"}, "2026-01-01",
)  # fmt: skip
PARAMETERS: dict[str, tuple[str, ...]] = {
    "limit": ("1", "0", "-1", "x", "99999999999999999999"),
    "continue": ("abc", "=", "e30"),
    "labelSelector": ("a=b", "a in (b,c)", "a", "!a", "a=b=c", "in in in", ","),
    "fieldSelector": ("metadata.name=a", "metadata.name!=a", "spec=1", "=", "a"),
    "resourceVersion": ("0", "1", "", "x", "999999999999"),
    "resourceVersionMatch": ("Exact", "NotOlderThan", "x"),
    "dryRun": ("All", "x", ""),
    "fieldManager": ("fuzz", "é", "x" * 200, "\u0001"),
    "fieldValidation": ("Strict", "Warn", "Ignore", "x"),
    "force": ("true", "false", "x"),
    "propagationPolicy": ("Orphan", "Background", "Foreground", "x"),
    "includeObject": ("None", "Object", "x"),
    "timeoutSeconds": ("1", "x"),
    "watch": ("0", "false"),
    "rollout": ("a", ""),
    "after": ("a",),
}


@dataclass(frozen=True, slots=True)
class Operation:
    path: str
    method: str
    kind: str
    version: str


@dataclass(slots=True)
class Found:
    """`hit`: operations that came to their kind's own rules, and did what was asked or said why
    not; an object that is not there, or a body that can't be read, is no hit."""

    hit: set[Operation] = field(default_factory=set)
    requests: int = 0
    problems: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with apiserver_process.running(tmp_path_factory.mktemp("fuzzed") / "data") as running:
        yield running


async def operations(session: aiohttp.ClientSession) -> list[Operation]:
    async with session.get("/openapi/v3") as response:
        index = await response.json()
    found = []
    for each in index["paths"].values():
        async with session.get(each["serverRelativeURL"]) as response:
            document = await response.json()
        for path, item in document["paths"].items():
            for method in METHODS:
                if method in item:
                    gvk = item[method]["x-kubernetes-group-version-kind"]
                    version = f"{gvk['group']}/{gvk['version']}".lstrip("/")
                    found.append(Operation(path, method, gvk["kind"], version))
    return found


@functools.cache
def request_of(name: str) -> str:
    """A certificate request that is one."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def right(operation: Operation, name: str, namespace: str) -> Json:
    """A document that the kind allows, under another name."""
    fitting = [document for _, document in RIGHT if document.get("kind") == operation.kind]
    extra: dict[str, Json] = {
        "Event": {
            "involvedObject": {"kind": "Fleet"}, "regarding": {"kind": "Fleet"}, "reason": "X",
        },
        "Lease": {"spec": {"holderIdentity": "a", "renewTime": "2026-01-01T00:00:00.000000Z"}},
        "Organization": {"spec": {"displayName": "x"}},
        "Backlog": {"spec": {}},
        "Rollout": {"spec": {"target": {"fleet": name, "templateVersion": name}}},
        "TemplateVersion": {"spec": {"fleet": name}, "status": {}},
        "Repository": {"spec": {"type": "http", "url": "https://example.com"}},
        "ResourceSync": {"spec": {"repository": "a", "path": "/x", "targetRevision": "main"}},
        "EnrollmentRequest": {"spec": {"csr": request_of(name)}},
        "CertificateSigningRequest": {
            "spec": {
                "request": base64.b64encode(request_of(name).encode()).decode(),
                "signerName": "flightctl.io/enrollment", "usages": ["clientAuth", "CA:false"],
            },
        },
    }  # fmt: skip
    body = extra.get(operation.kind) or (copy.deepcopy(fitting[0]) if fitting else {})
    if operation.kind == "Event":
        wrong = "regarding" if operation.version == "v1" else "involvedObject"
        body = {key: value for key, value in body.items() if key != wrong}
    metadata = dict(body.get("metadata") or {}) | {"name": name}
    if "{namespace}" in operation.path:
        metadata["namespace"] = namespace
    return body | {"apiVersion": operation.version, "kind": operation.kind, "metadata": metadata}


def spoiled(random_: random.Random, value: Any) -> Any:
    """The value with something in it put wrong."""
    if not isinstance(value, dict | list) or not value or random_.random() < 0.2:
        return random_.choice(NOISE)
    changed = copy.copy(value)
    key = random_.choice(list(value)) if isinstance(value, dict) else random_.randrange(len(value))
    match random_.randrange(4):
        case 0 if isinstance(changed, dict):
            changed[random_.choice(("x", "", "a.b/c", str(key)))] = random_.choice(NOISE)
        case 1:
            del changed[key]
        case _:
            changed[key] = spoiled(random_, value[key])
    return changed


def body_of(random_: random.Random, operation: Operation, name: str, namespace: str) -> bytes:
    if operation.method == "get":
        return b""
    chance = random_.random()
    if chance < 0.1:
        return random_.randbytes(random_.randrange(60))
    document: Any = right(operation, name, namespace)
    if operation.method == "delete":
        document = {"propagationPolicy": random_.choice(PARAMETERS["propagationPolicy"])}
        document = {} if chance < 0.6 else document
    elif operation.path.endswith(("/approval", "/bindings", "/inputs", "/refresh", "/contents")):
        document = random_.choice(
            (document, {"approved": True, "labels": {"a": "b"}}, {"templateVersion": "web.v1"},
             {"approved": False}, {"rollout": "a", "stage": "both", "limit": 1})
        )  # fmt: skip
    if operation.method == "patch" and chance < 0.4:
        operations_ = ("add", "remove", "replace", "test", "copy", "move", "x")
        pointer = random_.choice(("/metadata/labels", "/spec", "/x", "", "/spec/-", "/status"))
        document = [
            {"op": random_.choice(operations_), "path": pointer, "from": "/metadata",
             "value": random_.choice(NOISE)}
        ]  # fmt: skip
    if chance > 0.6:
        document = spoiled(random_, document)
    return json.dumps(document).encode(errors="surrogatepass")


def headers_of(random_: random.Random, operation: Operation) -> dict[str, str]:
    if random_.random() < 0.2:
        return {"Content-Type": random_.choice(TYPES), "Accept": random_.choice(ACCEPTS)}
    usual = random_.choice((MERGE, APPLY, JSON_PATCH)) if operation.method == "patch" else TYPES[0]
    return {"Content-Type": usual}


async def one(session: aiohttp.ClientSession, random_: random.Random, operation: Operation,
              found: Found) -> None:  # fmt: skip
    name, namespace = random_.choice(NAMES), random_.choice(NAMESPACES)
    if operation.kind == "AuditEvent" and random_.random() < 0.8:
        # One of the first that are written; they are named by their numbers.
        name = f"{random_.randrange(1, 40):012d}"
    if operation.kind == "Backlog" and random_.random() < 0.8:
        name = BACKLOG
    path = operation.path.replace("{namespace}", namespace).replace("{name}", name)
    query = {
        key: random_.choice(values)
        for key, values in PARAMETERS.items()
        if random_.random() < (0.1 if random_.random() < 0.5 else 0.0)
    }
    headers = headers_of(random_, operation)
    if operation.path.endswith("/progress"):
        query.setdefault("rollout", name)
    if headers["Content-Type"] == APPLY:
        query.setdefault("fieldManager", "fuzz")
    body = body_of(random_, operation, name, namespace)
    what = f"{operation.method.upper()} {path} {query} {headers} {body[:400]!r}"
    found.requests += 1
    try:
        async with (
            asyncio.timeout(ANSWER_S),
            session.request(
                operation.method, path, params=query, data=body or None, headers=headers
            ) as response,
        ):
            text = await response.text()
    except TimeoutError:
        found.problems.append(f"no answer: {what}")
        return
    if response.status < 300 or response.status in (403, 409, 422):
        found.hit.add(operation)
    if response.status < 300:
        return
    if response.status == 504 and "resourceVersion" in query:
        return
    if response.status >= 500:
        found.problems.append(f"{response.status}: {what}\n{text[:500]}")
    else:
        status = json.loads(text)
        if status.get("kind") != "Status" or not status.get("message") or not status.get("reason"):
            found.problems.append(f"no Status: {what}\n{text[:500]}")


async def versions(server: Process) -> None:
    """Template versions, which only the controllers make."""
    path = "/apis/flightctl.io/v1beta1/namespaces/{namespace}/templateversions"
    made = Operation(path, "post", "TemplateVersion", "flightctl.io/v1beta1")
    connector = aiohttp.UnixConnector(str(server.data / "controllers.sock"))
    async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
        for name in NAMES:
            body = right(made, name, "default")
            async with session.post(path.format(namespace="default"), json=body) as response:
                assert response.status == 201, await response.text()


async def worker(session: aiohttp.ClientSession, number: int, all_: list[Operation],
                 found: Found, until: float) -> None:  # fmt: skip
    random_ = random.Random(SEED + number)
    queue: list[Operation] = []
    while time.monotonic() < until and len(found.problems) < 5:
        if not queue:
            queue = [each for each in all_ if each.method != "delete" or random_.random() < 0.3]
            random_.shuffle(queue)
            # What makes things comes twice as often as what takes them away.
            queue += [each for each in all_ if each.method == "post"]
            for namespace in NAMESPACES[1:]:
                body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
                async with session.post("/api/v1/namespaces", json=body) as response:
                    await response.read()
        await one(session, random_, queue.pop(), found)


@pytest.mark.timeout(SECONDS + 60)
async def test_nothing_that_is_sent_makes_the_server_fail(server: Process) -> None:
    found = Found()
    connector = aiohttp.TCPConnector(ssl=administrator(server), limit=WORKERS + 2)
    async with aiohttp.ClientSession(server.url, connector=connector) as session:
        all_ = await operations(session)
        await versions(server)
        until = time.monotonic() + SECONDS
        async with asyncio.TaskGroup() as group:
            for number in range(WORKERS):
                group.create_task(worker(session, number, all_, found, until))
        async with session.get("/readyz") as response:
            assert response.status == 200
    done = len(found.hit) / len(all_)
    never = sorted(f"{o.method} {o.path}" for o in set(all_) - found.hit)
    print(f"seed {SEED}: {found.requests} requests, {len(all_)} operations, {done:.0%} hit")
    print("not hit:", *never, sep="\n  ")
    log = server.data.with_name("data.log").read_text()
    assert not found.problems, "\n".join(found.problems)
    assert "Traceback" not in log, log[-3000:]
    assert done >= 0.95
