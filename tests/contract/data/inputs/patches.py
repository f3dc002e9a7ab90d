"""Bad patches: JSON patches, merge patches and applies, of objects, of their status, and of what a
device says of itself.

What can't be read is 400, what is no patch of ours 415, and what does not fit the object 422.
"""

from __future__ import annotations

import json
from typing import Any

from tests.contract.data.inputs.names import document
from tests.contract.data.inputs.row import PLACE, Bad, Header, by_admin, by_device, typed

Json = dict[str, Any]

JSON_PATCH = typed("application/json-patch+json")
MERGE = typed("application/merge-patch+json")
APPLY = typed("application/apply-patch+yaml")
STRATEGIC = typed("application/strategic-merge-patch+json")
ONE = f"{PLACE}/fleets/two"
STATUS = f"{ONE}/status"
MANY = "/metadata/labels/a"


def step(op: object, path: object = MANY, **more: Any) -> list[Json]:
    return [{"op": op, "path": path} | more]


def steps(id: str, code: int, expected: str, body: object, target: str = ONE) -> Bad:
    return Bad(f"json-{id}", by_admin("PATCH", target, body, JSON_PATCH), code, expected)


def merged(id: str, code: int, expected: str, body: object, target: str = ONE) -> Bad:
    return Bad(f"merge-{id}", by_admin("PATCH", target, body, MERGE), code, expected)


def applied(
    id: str, code: int, expected: str, body: object, target: str = ONE, query: str = ""
) -> Bad:
    path = f"{target}?fieldManager=tests{query}"
    return Bad(f"apply-{id}", by_admin("PATCH", path, body, APPLY), code, expected)


def media(id: str, *headers: Header, code: int = 415, expected: str = "format") -> Bad:
    row = by_admin("PATCH", ONE, {"metadata": {"labels": {"a": "b"}}}, *headers)
    return Bad(f"media-{id}", row, code, expected)


def reported(id: str, expected: str, body: object, *headers: Header) -> Bad:
    """At the agents' face a patch is of the status, and every fault is 400."""
    said = headers or (JSON_PATCH,)
    row = by_device("PATCH", "/devices/{name}/status", body, *said)
    return Bad(f"device-{id}", row, 400, expected)


def put(id: str, expected: str, status: object) -> Bad:
    """A whole status; what would spoil lists of devices for typed clients."""
    text = json.dumps({"metadata": {"name": "NAME"}, "status": status})

    def make(rig: Any) -> Any:
        body = text.replace("NAME", rig.agent.name)
        return by_device("PUT", "/devices/{name}/status", body, typed("application/json"))(rig)

    return Bad(f"device-put-{id}", make, 400, expected)


def fleet(**metadata: Any) -> Json:
    found = document("Fleet", "two")
    return found | {"metadata": found["metadata"] | metadata}


def entry(**said: Any) -> Json:
    right = {
        "manager": "tests",
        "operation": "Apply",
        "apiVersion": "flightctl.io/v1beta1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {}},
    }
    return right | said


NO_POINTER, NOWHERE = "is not a JSON pointer", "path that does not exist"
DOUBLING = [{"op": "add", "path": "/metadata/annotations", "value": {"a": "x" * 1000}}] + [
    {"op": "copy", "from": "/metadata/annotations", "path": f"/metadata/annotations/n{n}"}
    for n in range(40)
]

JSON_PATCHES = [
    steps("empty", 400, "not valid JSON", " "),
    steps("not-json", 400, "not valid JSON", "[{"),
    steps("not-utf-8", 400, "not UTF-8", b'[{"op":"\xff"}]'),
    steps("an-object", 400, "must be a list", {"op": "add"}),
    steps("null", 400, "must be a list", "null"),
    steps("a-text", 400, "must be a list", '"add"'),
    steps("step-null", 400, "is not an object", [None]),
    steps("step-text", 400, "is not an object", ["add"]),
    steps("step-list", 400, "is not an object", [["add", "/a", 1]]),
    steps("step-empty", 400, "unknown op", [{}]),
    steps("op-unknown", 400, "unknown op", step("merge", value=1)),
    steps("op-in-capitals", 400, "unknown op", step("ADD", value=1)),
    steps("op-number", 400, "unknown op", step(1, value=1)),
    steps("op-list", 400, "unknown op", step(["add"], value=1)),
    steps("op-null", 400, "unknown op", step(None, value=1)),
    steps("no-path", 400, NO_POINTER, [{"op": "remove"}]),
    steps("path-number", 400, NO_POINTER, step("remove", 1)),
    steps("path-list", 400, NO_POINTER, step("remove", ["metadata"])),
    steps("path-without-a-slash", 400, NO_POINTER, step("remove", "metadata/labels")),
    steps("path-bad-escape", 400, NO_POINTER, step("remove", "/metadata/~2")),
    steps("path-escape-at-the-end", 400, NO_POINTER, step("remove", "/metadata/~")),
    steps("path-with-nul", 400, "NUL", step("remove", "/a\0")),
    steps("add-without-value", 400, "needs a value", step("add")),
    steps("replace-without-value", 400, "needs a value", step("replace")),
    steps("test-without-value", 400, "needs a value", step("test")),
    steps("move-without-from", 400, "needs a from", step("move")),
    steps("copy-without-from", 400, "needs a from", step("copy")),
    steps("move-from-number", 400, NO_POINTER, step("move", **{"from": 1})),
    steps("copy-from-no-pointer", 400, NO_POINTER, step("copy", **{"from": "spec"})),
    steps("move-into-itself", 400, "into itself", step("move", "/spec/a", **{"from": "/spec"})),
    steps("remove-of-nothing", 422, NOWHERE, step("remove", "/spec/nothing")),
    steps("replace-of-nothing", 422, NOWHERE, step("replace", "/spec/nothing", value=1)),
    steps("add-below-nothing", 422, NOWHERE, step("add", "/spec/nothing/more", value=1)),
    steps("add-below-a-text", 422, NOWHERE, step("add", "/metadata/name/first", value="x")),
    steps("copy-of-nothing", 422, NOWHERE, step("copy", **{"from": "/spec/nothing"})),
    steps("index-beyond", 422, NOWHERE, step("remove", "/metadata/managedFields/99")),
    steps("index-negative", 422, NOWHERE, step("remove", "/metadata/managedFields/-1")),
    steps("index-with-a-zero-first", 422, NOWHERE, step("remove", "/metadata/managedFields/00")),
    steps("index-after-the-last", 422, NOWHERE, step("remove", "/metadata/managedFields/-")),
    steps("index-huge", 422, NOWHERE, step("remove", f"/metadata/managedFields/{'9' * 5000}")),
    steps("index-of-another-script", 422, NOWHERE, step("remove", "/metadata/managedFields/٠")),
    steps("test-fails", 422, "failed", step("test", "/metadata/name", value="one")),
    steps("test-of-another-type", 422, "failed", step("test", "/metadata/name", value=2)),
    steps("test-of-true-for-one", 422, "failed", step("test", "/metadata/generation", value=True)),
    steps("test-of-nothing", 422, "nothing", step("test", "/spec/nothing", value=1)),
    steps(
        "test-fails-after-a-change",
        422,
        "failed",
        [
            {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}},
            {"op": "test", "path": "/metadata/name", "value": "one"},
        ],
    ),
    steps(
        "whole-replaced-by-a-list", 422, "does not leave an object", step("replace", "", value=[])
    ),
    steps("whole-replaced-by-null", 422, "does not leave an object", step("add", "", value=None)),
    steps("whole-removed", 422, "", step("remove", "")),
    steps("whole-replaced", 400, "apiVersion", step("replace", "", value={})),
    steps("kind-changed", 400, "kind", step("replace", "/kind", value="Device")),
    steps("name-changed", 400, "name", step("replace", "/metadata/name", value="three")),
    steps("metadata-removed", 422, "metadata", step("remove", "/metadata")),
    steps("spec-removed", 422, "spec", step("remove", "/spec")),
    steps(
        "label-value-number",
        422,
        "metadata.labels",
        step("add", "/metadata/labels", value={"a": 1}),
    ),
    steps("too-many", 413, "10000 operations", [{"op": "test", "path": "", "value": 1}] * 10_001),
    steps("doubling", 413, "copies more", DOUBLING),
    steps("of-nothing", 404, "nobody", step("test", "", value=1), f"{PLACE}/fleets/nobody"),
    steps("status-test-fails", 422, "failed", step("test", "/metadata/name", value="x"), STATUS),
]

MERGES = [
    merged("not-json", 400, "not valid JSON", "{"),
    merged("trailing", 400, "not valid JSON", "{}{}"),
    merged("yaml", 400, "not valid JSON", "metadata:\n  labels: {a: b}\n"),
    merged("single-quotes", 400, "not valid JSON", "{'metadata': {}}"),
    merged("a-list", 400, "must be an object", []),
    merged("null", 400, "must be an object", "null"),
    merged("a-number", 400, "must be an object", "1"),
    merged("nan", 400, "not valid JSON", '{"spec": NaN}'),
    merged("infinity", 400, "not valid JSON", '{"spec": -Infinity}'),
    merged("number-too-large", 400, "too large", '{"spec": 1e999}'),
    merged("surrogate", 400, "can't be stored", '{"metadata": {"labels": {"a": "\\ud800"}}}'),
    merged("nul", 400, "NUL", '{"metadata": {"annotations": {"a": "\\u0000"}}}'),
    merged("nul-in-a-key", 400, "NUL", '{"metadata": {"annotations": {"\\u0000": "a"}}}'),
    merged("byte-order-mark", 400, "not valid JSON", b"\xef\xbb\xbf{}"),
    merged("utf-16", 400, "body", '{"metadata": {}}'.encode("utf-16")),
    merged("metadata-null", 422, "metadata", {"metadata": None}),
    merged("metadata-list", 422, "metadata", {"metadata": []}),
    merged("spec-null", 422, "spec", {"spec": None}),
    merged("template-null", 422, "spec.template", {"spec": {"template": None}}),
    merged("kind-null", 400, "kind", {"kind": None}),
    merged("name-changed", 400, "name", {"metadata": {"name": "three"}}),
    merged("namespace-changed", 400, "namespace", {"metadata": {"namespace": "elsewhere"}}),
    merged("version-of-another-time", 409, "two", {"metadata": {"resourceVersion": "1"}}),
    merged("version-no-number", 409, "two", {"metadata": {"resourceVersion": "x"}}),
    merged("version-number", 422, "resourceVersion", {"metadata": {"resourceVersion": 1}}),
    merged("uid-changed", 409, "two", {"metadata": {"uid": "00000000-0000-4000-8000-0"}}),
    merged("labels-list", 422, "metadata.labels", {"metadata": {"labels": ["a"]}}),
    merged("finalizers-text", 422, "metadata.finalizers", {"metadata": {"finalizers": "x"}}),
    merged("owners-object", 422, "metadata.ownerReferences", {"metadata": {"ownerReferences": {}}}),
    merged("managed-text", 422, "metadata.managedFields", {"metadata": {"managedFields": "x"}}),
    merged("managed-texts", 422, "metadata.managedFields", {"metadata": {"managedFields": ["x"]}}),
    merged("of-nothing", 404, "nobody", {}, f"{PLACE}/fleets/nobody"),
    merged("status-not-json", 400, "not valid JSON", "{", STATUS),
    merged("status-text", 422, "status", {"status": "fine"}, STATUS),
    merged(
        "status-conditions-object", 422, "status.conditions", {"status": {"conditions": {}}}, STATUS
    ),
]

TEMPLATE = {"template": {"spec": {}}}
APPLIES = [
    applied("not-yaml", 400, "not valid YAML", "a: [\n"),
    applied("tabs", 400, "not valid YAML", "metadata:\n\tname: two\n"),
    applied("two-documents", 400, "not valid YAML", "a: 1\n---\nb: 2\n"),
    applied("a-python-object", 400, "body", "!!python/object/apply:os.getcwd []\n"),
    applied("unknown-tag", 400, "body", "!secret x\n"),
    applied("alias-of-nothing", 400, "not valid YAML", "a: *b\n"),
    applied("alias-of-itself", 400, "body", "a: &a [*a]\n"),
    applied("key-that-is-a-list", 400, "body", "? [a]\n: b\n"),
    applied("a-list", 400, "is an object", "- a\n"),
    applied("a-text", 400, "is an object", "two\n"),
    applied("empty", 400, "is an object", "---\n"),
    applied("nul", 400, "body", 'a: "\\0"\n'),
    applied("not-utf-8", 400, "body", b"a: \xff\xfe\n"),
    applied("no-kind", 400, "kind", {"apiVersion": "flightctl.io/v1beta1", "spec": TEMPLATE}),
    applied("no-api-version", 400, "apiVersion", {"kind": "Fleet", "spec": TEMPLATE}),
    applied("another-kind", 400, "kind", fleet() | {"kind": "Device"}),
    applied("another-version", 400, "apiVersion", fleet() | {"apiVersion": "flightctl.io/v2"}),
    applied("another-name", 400, "name", document("Fleet", "three")),
    applied("another-namespace", 400, "namespace", fleet(namespace="elsewhere")),
    applied("metadata-null", 422, "metadata", fleet() | {"metadata": None}),
    applied("managed-fields", 400, "managedFields", fleet(managedFields=[entry()])),
    applied(
        "managed-fields-of-another",
        400,
        "managedFields",
        fleet(managedFields=[entry(manager="kubectl")]),
    ),
    applied("managed-fields-nonsense", 400, "managedFields", fleet(managedFields=[{"a": 1}])),
    applied("managed-fields-text", 400, "managedFields", fleet(managedFields="x")),
    applied("version-of-another-time", 409, "two", fleet(resourceVersion="1")),
    applied(
        "unknown-field",
        400,
        "spec.nothing",
        fleet() | {"spec": TEMPLATE | {"nothing": 1}},
        query="&fieldValidation=Strict",
    ),
    applied(
        "twice", 400, "duplicate", "kind: Fleet\nkind: Fleet\n", query="&fieldValidation=Strict"
    ),
    applied("spec-text", 422, "spec", fleet() | {"spec": "all"}, query="&force=true"),
    applied("labels-list", 422, "metadata.labels", fleet(labels=["a"])),
    applied("what-others-own", 409, "conflict", fleet() | {"spec": "all"}),
    applied("status-text", 422, "status", fleet() | {"status": "fine"}, STATUS),
]

MEDIA = [
    media("strategic", STRATEGIC),
    media("json", typed("application/json")),
    media("none", ("X-Nothing", "x")),
    media("empty", typed("")),
    media("text", typed("text/plain")),
    media("form", typed("application/x-www-form-urlencoded")),
    media("cbor", typed("application/apply-patch+cbor")),
    media("protobuf", typed("application/vnd.kubernetes.protobuf")),
    media("wildcard", typed("*/*")),
    media("two-in-one", typed("application/json, application/merge-patch+json")),
    media("not-utf-8", typed("application/\xff\xfe")),
    media("of-the-other-patch", JSON_PATCH, code=400, expected="must be a list"),
]

REPORTS = [
    reported("media-merge", "Content-Type", {}, MERGE),
    reported("media-json", "Content-Type", [], typed("application/json")),
    reported("media-not-utf-8", "Content-Type", [], typed("\xff\xfe")),
    reported("not-json", "decode", "["),
    reported("not-utf-8", "decode", b'[{"op": "\xff"}]'),
    reported("an-object", "is a list", {"op": "add"}),
    reported("step-text", "operation 0", ["add"]),
    reported("op-move", "op must be", step("move", "/status/x", **{"from": "/status"})),
    reported("op-copy", "op must be", step("copy", "/status/x", **{"from": "/status"})),
    reported("op-number", "op must be", step(1)),
    reported("op-list", "op must be", step(["add"])),
    reported("more-members", "members must be", step("add", value=1, comment="x")),
    reported("path-number", "JSON pointer", step("remove", 1)),
    reported("path-nowhere", NOWHERE, step("remove", "/status/nothing")),
    reported("test-fails", "failed", step("test", "/metadata/name", value="x")),
    reported("name", "only status", step("replace", "/metadata/name", value="x")),
    reported("labels", "only status", step("add", "/metadata/labels", value={"a": "b"})),
    reported("spec", "only status", step("add", "/spec", value={"os": {"image": "x:1"}})),
    reported("more-at-the-top", "only status", step("add", "/more", value=1)),
    reported("status-removed", "status is required", step("remove", "/status")),
    reported("status-text", "status is required", step("replace", "/status", value="x")),
    reported("conditions-text", "status.conditions", step("add", "/status/conditions", value="x")),
    reported("conditions-of-texts", "status.conditions",
             step("add", "/status/conditions", value=["x"])),
    reported("conditions-of-null", "status.conditions",
             step("add", "/status/conditions", value=[None])),
    reported("applications-object", "status.applications",
             step("add", "/status/applications", value={})),
    reported("nul", "Unicode", step("add", "/status/x", value="\0")),
    reported("surrogate", "decode", '[{"op":"add","path":"/status/x","value":"\\ud800"}]'),
    put("null", "status is required", None),
    put("list", "status must be an object", []),
    put("text", "status must be an object", "fine"),
    put("conditions-text", "status.conditions", {"conditions": "x"}),
    put("conditions-of-null", "status.conditions", {"conditions": [None]}),
    put("conditions-of-numbers", "status.conditions", {"conditions": [1]}),
    put("system-list", "status.systemInfo", {"systemInfo": []}),
    put("config-number", "status.config", {"config": 1}),
    put("version-number", "status.config.renderedVersion", {"config": {"renderedVersion": 1}}),
    put("applications-of-null", "status.applications", {"applications": [None]}),
    put("time-that-is-none", "status.lastSeen", {"lastSeen": "yesterday"}),
    put("nul", "Unicode", {"x": "\0"}),
]  # fmt: skip

ROWS = [*JSON_PATCHES, *MERGES, *APPLIES, *MEDIA, *REPORTS]
