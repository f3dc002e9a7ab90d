"""Too much of something: bytes, depth, items, characters. What is too large to be read is 413, what
can't be kept 400, and what a field may not hold 422."""

from __future__ import annotations

import json
from typing import Any

from tests.contract.data.inputs.names import document
from tests.contract.data.inputs.row import (
    JSON,
    OURS,
    PLACE,
    Ask,
    Bad,
    by_admin,
    by_device,
    by_factory,
    content,
    typed,
)
from tests.fakes import bare_http
from tests.fakes.inputs_rig import Rig

Json = dict[str, Any]

FLEETS = f"{PLACE}/fleets"
MIB = 1 << 20
YAML = typed("application/yaml")
MERGE, APPLY = typed("application/merge-patch+json"), typed("application/apply-patch+yaml")
CHUNKED = ("Transfer-Encoding", "chunked")
LARGER, DEEP = "larger than", "deep"


def fleet(spec: Json | None = None, **metadata: Any) -> Json:
    found = document("Fleet", "large")
    return found | {"metadata": found["metadata"] | metadata, "spec": found["spec"] | (spec or {})}


def fleets(id: str, code: int, expected: str, body: object, *headers: tuple[str, str]) -> Bad:
    return Bad(id, by_admin("POST", FLEETS, body, *(headers or (JSON,))), code, expected)


def labelled(id: str, labels: dict[str, str]) -> Bad:
    return fleets(f"label-{id}", 422, "metadata.labels", fleet(labels=labels))


def noted(id: str, annotations: dict[str, str]) -> Bad:
    return fleets(f"annotation-{id}", 422, "annotations", fleet(annotations=annotations))


def template(id: str, expected: str, spec: Json) -> Bad:
    return fleets(f"template-{id}", 422, expected, fleet({"template": {"spec": spec}}))


def nested(depth: int, opened: str = '{"a":', closed: str = "}") -> str:
    return opened * depth + "1" + closed * depth


def in_chunks(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def report(id: str, status: Json) -> Bad:
    """A status of more than a device may say."""

    def make(rig: Rig) -> Ask:
        body = {"metadata": {"name": rig.agent.name}, "status": status}
        target = f"/api/v1/devices/{rig.agent.name}/status"
        return Ask(rig.device, bare_http.request("PUT", target, [JSON], content(body)), "PUT")

    return Bad(f"agent-report-{id}", make, 413, "body")


LARGE = json.dumps(fleet(annotations={"a": "x" * 3 * MIB}))
ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

BYTES = [
    fleets("body", 413, LARGER, LARGE),
    fleets("body-in-yaml", 413, LARGER, "a: " + "x" * 3 * MIB, YAML),
    fleets("body-in-chunks", 413, LARGER, in_chunks(LARGE.encode(), 65_536), JSON, CHUNKED),
    fleets("body-of-blanks", 413, LARGER, b" " * (3 * MIB + 1)),
    fleets("body-of-no-type", 413, LARGER, LARGE, typed("text/plain")),
    Bad("body-of-a-put", by_admin("PUT", f"{FLEETS}/one", LARGE), 413, LARGER),
    Bad("body-of-a-merge", by_admin("PATCH", f"{FLEETS}/one", LARGE, MERGE), 413, LARGER),
    Bad(
        "body-of-an-apply",
        by_admin("PATCH", f"{FLEETS}/one?fieldManager=x", LARGE, APPLY),
        413,
        LARGER,
    ),
    Bad("body-of-a-deletion", by_admin("DELETE", f"{FLEETS}/one", LARGE), 413, LARGER),
    Bad(
        "body-of-a-login", by_admin("POST", "/api/v1/auth/tokens/token", "x" * 70_000), 413, LARGER
    ),
    Bad(
        "body-of-a-refresh",
        by_admin("POST", f"{PLACE}/resourcesyncs/x/refresh", "x" * 5000),
        413,
        LARGER,
    ),
    Bad(
        "body-of-contents",
        by_admin("POST", f"{OURS}/namespaces/default/contents", "x" * (8 * MIB + 1)),
        413,
        LARGER,
    ),
    Bad("agent-body", by_factory("POST", "/enrollmentrequests", "x" * (MIB + 1)), 413, "body"),
    Bad(
        "agent-body-in-chunks",
        by_factory(
            "POST", "/enrollmentrequests", in_chunks(b" " * (MIB + 1), 65_536), JSON, CHUNKED
        ),
        413,
        "body",
    ),
    Bad(
        "agent-body-of-a-renewal",
        by_device("POST", "/certificatesigningrequests", "x" * (MIB + 1)),
        413,
        "body",
    ),
    Bad(
        "agent-body-of-a-patch",
        by_device(
            "PATCH", "/devices/{name}/status", "x" * (MIB + 1), typed("application/json-patch+json")
        ),
        413,
        "body",
    ),
    report("of-text", {"systemInfo": {"hostname": "h" * MIB}}),
    report(
        "of-applications",
        {
            "applications": [
                {"name": f"application-{n}", "ready": "1/1", "status": "Running", "restarts": 0}
                for n in range(15_000)
            ]
        },
    ),
]

DEPTH = [
    fleets("deep-objects", 400, DEEP, nested(2000)),
    fleets("deep-lists", 400, DEEP, nested(2000, "[", "]")),
    fleets("deep-beyond-the-stack", 400, DEEP, nested(100_000, "[", "]")),
    fleets("deep-in-yaml", 400, DEEP, nested(2000, "[", "]"), YAML),
    fleets("deep-in-blocks", 400, "body", "- " * 5000 + "x", YAML),
    fleets("deep-in-a-field", 400, DEEP, '{"spec":' + nested(1000) + "}"),
    fleets("aliases-that-multiply", 400, "body", ALIASES, YAML),
    fleets("many-nodes", 400, "body", "[" + "0," * 1_400_000 + "0]"),
    fleets("many-nodes-in-yaml", 400, "body", "[" + "0," * 1_400_000 + "]", YAML),
    Bad("deep-merge", by_admin("PATCH", f"{FLEETS}/one", nested(2000), MERGE), 400, DEEP),
    Bad(
        "deep-apply",
        by_admin("PATCH", f"{FLEETS}/one?fieldManager=x", nested(2000), APPLY),
        400,
        DEEP,
    ),
    Bad(
        "agent-deep", by_device("POST", "/certificatesigningrequests", nested(3000)), 400, "decode"
    ),
]

NUMBERS = [
    fleets("integer-beyond-64-bits", 400, "body", '{"spec": 18446744073709551616}'),
    fleets("integer-of-thousands-of-digits", 400, "body", f'{{"spec": {"9" * 5000}}}'),
    fleets("integer-of-thousands-of-digits-in-yaml", 400, "body", f"spec: {'9' * 5000}\n", YAML),
    fleets("number-of-thousands-of-digits", 400, "body", '{"spec": 1e99999}'),
    fleets("number-below-all", 400, "body", '{"spec": -1e99999}'),
    fleets("infinity-in-yaml", 400, "body", "spec: .inf\n", YAML),
    fleets("no-number-in-yaml", 400, "body", "spec: .nan\n", YAML),
    fleets("generation-beyond-64-bits", 400, "body", '{"metadata": {"generation": 1e400}}'),
]

VALUES = [
    labelled("key", {"k" * 64: "v"}),
    labelled("prefix", {"p" * 254 + "/k": "v"}),
    labelled("value", {"k": "v" * 64}),
    labelled("value-of-a-mebibyte", {"k": "v" * MIB}),
    labelled("one-of-a-thousand", {f"k{n}": "v" for n in range(1000)} | {"bad key": "v"}),
    noted("values-together", {f"k{n}": "v" * 1000 for n in range(300)}),
    noted("one-value", {"k": "v" * 262_144}),
    noted("key", {"k" * 64: "v"}),
    noted("keys-together", {f"{'p' * 200}.example/{'k' * 50}{n}": "" for n in range(1200)}),
    fleets("finalizer", 422, "finalizers", fleet(finalizers=["f" * 400])),
    fleets("generated-name", 422, "generateName", document("Fleet", None)
           | {"metadata": {"generateName": "g" * 10_000}}),
    template("image", "os.image", {"os": {"image": f"quay.io/{'x' * 3000}:1"}}),
    template("path", "path", {"config": [{"name": "a", "inline": [
        {"path": "/" + "p" * 5000, "content": ""}]}]}),
    template("provider-name", "name", {"config": [{"name": "n" * 300, "inline": [
        {"path": "/etc/a", "content": ""}]}]}),
    template("application-name", "name", {"applications": [
        {"name": "n" * 300, "appType": "container", "image": "quay.io/a/b:1"}]}),
    fleets("selector-of-too-many", 422, "selector",
           fleet({"selector": {"matchLabels": {f"k{n}": "v" for n in range(2000)}}})),
    fleets("selector-of-too-many-expressions", 422, "selector",
           fleet({"selector": {"matchExpressions": [
               {"key": f"k{n}", "operator": "Exists"} for n in range(2000)]}})),
]  # fmt: skip

ROWS = [*BYTES, *DEPTH, *NUMBERS, *VALUES]
