"""Bad options: parameters of lists, watches, writes and deletions, and options in bodies."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

from tests.contract.data.inputs.names import document
from tests.contract.data.inputs.row import (
    GROUP,
    OURS,
    PLACE,
    Ask,
    Bad,
    by_admin,
    by_device,
    typed,
)
from tests.fakes import bare_http
from tests.fakes.inputs_rig import Rig

Json = dict[str, Any]

FLEETS = f"{PLACE}/fleets"
ONE = f"{FLEETS}/one"
NEW = document("Fleet", "new")
MERGE, APPLY = typed("application/merge-patch+json"), typed("application/apply-patch+yaml")
HUGE = "9" * 30


def listed(id: str, query: str, expected: str, code: int = 400, target: str = FLEETS) -> Bad:
    return Bad(f"list-{id}", by_admin("GET", f"{target}?{query}"), code, expected)


def watched(id: str, query: str, expected: str, code: int = 400) -> Bad:
    return Bad(f"watch-{id}", by_admin("GET", f"{FLEETS}?watch=1&{query}"), code, expected)


def created(id: str, query: str, expected: str, code: int = 422) -> Bad:
    return Bad(f"create-{id}", by_admin("POST", f"{FLEETS}?{query}", NEW), code, expected)


def patched(id: str, query: str, expected: str, code: int = 422) -> Bad:
    body = {"metadata": {"labels": {"a": "b"}}}
    return Bad(f"patch-{id}", by_admin("PATCH", f"{ONE}?{query}", body, MERGE), code, expected)


def applied(id: str, query: str, expected: str, code: int = 422) -> Bad:
    row = by_admin("PATCH", f"{ONE}?{query}", document("Fleet", "one"), APPLY)
    return Bad(f"apply-{id}", row, code, expected)


def deleted(
    id: str, expected: str, code: int = 422, query: str = "", body: object = b"",
    target: str = ONE,
) -> Bad:  # fmt: skip
    return Bad(f"delete-{id}", by_admin("DELETE", f"{target}?{query}", body), code, expected)


# --- continue ------------------------------------------------------------------------------------


def continued(id: str, change: Callable[[str], str], query: str = "", target: str = FLEETS) -> Bad:
    """The token of the second page, changed."""

    def make(rig: Rig) -> Ask:
        path = f"{target}?limit=1&continue={change(rig.page)}{query}"
        return Ask(rig.admin, bare_http.request("GET", path))

    return Bad(f"continue-{id}", make, 400, "continue")


def decoded(token: str) -> bytes:
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def flipped(token: str, place: int) -> str:
    raw = bytearray(decoded(token))
    raw[place] ^= 1
    return encoded(bytes(raw))


def forged(payload: object) -> Callable[[str], str]:
    """Under the check of ours, which is no secret: what a list of all fleets would be."""
    scope = hashlib.sha256(
        json.dumps(["fleets.flightctl.io", "default", "", ""]).encode()
    ).hexdigest()[:16]
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    check = hashlib.sha256(scope.encode() + b"\0" + raw).digest()[:9]
    return lambda _: encoded(check + raw)


CONTINUE = [
    continued("a-word", lambda _: "next"),
    continued("not-base64", lambda _: "***"),
    continued("cut", lambda token: token[:-5]),
    continued("with-a-tail", lambda token: f"{token}AAAA"),
    continued("one-bit-of-the-key", lambda token: flipped(token, -1)),
    continued("one-bit-of-the-check", lambda token: flipped(token, 0)),
    continued("without-its-check", lambda token: encoded(decoded(token)[9:])),
    continued("too-long", lambda _: "A" * 5000),
    continued("not-utf-8", lambda _: "%ff"),
    continued("nul", lambda _: "%00"),
    continued("of-another-selector", lambda token: token, "&labelSelector=a"),
    continued("of-another-field", lambda token: token, "&fieldSelector=metadata.name%3Done"),
    continued("of-another-kind", lambda token: token, "", f"{PLACE}/devices"),
    continued("of-another-place", lambda token: token, "", f"{GROUP}/fleets"),
    continued("with-a-version", lambda token: token, "&resourceVersion=1"),
    continued("with-a-watch", lambda token: token, "&watch=true"),
    continued("forged-empty", forged(b"")),
    continued("forged-not-json", forged(b"{")),
    continued("forged-text", forged("x")),
    continued("forged-number", forged(1)),
    continued("forged-of-two", forged([1, "default"])),
    continued("forged-of-four", forged([1, "default", "one", "two"])),
    continued("forged-version-text", forged(["1", "default", "one"])),
    continued("forged-version-list", forged([[1], "default", "one"])),
    continued("forged-version-null", forged([None, "default", "one"])),
    continued("forged-version-true", forged([True, "default", "one"])),
    continued("forged-version-fraction", forged([1.5, "default", "one"])),
    continued("forged-version-negative", forged([-1, "default", "one"])),
    continued("forged-version-huge", forged([10**30, "default", "one"])),
    continued("forged-name-list", forged([1, "default", ["one"]])),
    continued("forged-name-object", forged([1, "default", {}])),
    continued("forged-name-number", forged([1, "default", 1])),
    continued("forged-name-null", forged([1, "default", None])),
    continued("forged-name-nul", forged([1, "default", "a\0"])),
    continued("forged-name-surrogate", forged(b'[1, "default", "\\ud800"]')),
    continued("forged-place-list", forged([1, ["default"], "one"])),
    continued("forged-place-nul", forged([1, "\0", "one"])),
    continued("forged-deep", forged(b"[" * 2500)),
]  # fmt: skip

LISTS = [
    listed("limit-negative", "limit=-1", "limit"),
    listed("limit-text", "limit=all", "limit"),
    listed("limit-fraction", "limit=1.5", "limit"),
    listed("limit-exponent", "limit=1e3", "limit"),
    listed("limit-signed", "limit=%2b1", "limit"),
    listed("limit-hexadecimal", "limit=0x10", "limit"),
    listed("limit-blank", "limit=%201", "limit"),
    listed("limit-huge", f"limit={HUGE}", "limit"),
    listed("limit-beyond-32-bits", "limit=2147483648", "limit"),
    listed("limit-of-another-script", "limit=%D9%A1", "limit"),
    listed("limit-nul", "limit=1%00", "limit"),
    listed("limit-not-utf-8", "limit=%ff", "limit"),
    listed("version-text", "resourceVersion=new", "resource version"),
    listed("version-negative", "resourceVersion=-1", "resource version"),
    listed("version-huge", f"resourceVersion={HUGE}", "resource version"),
    listed("version-nul", "resourceVersion=%00", "resource version"),
    listed("match-alone", "resourceVersionMatch=Exact", "resourceVersionMatch", 422),
    listed("match-unknown", "resourceVersion=1&resourceVersionMatch=Best", "resourceVersionMatch",
           422),
    listed("match-small", "resourceVersion=1&resourceVersionMatch=exact", "resourceVersionMatch",
           422),
    listed("exactly-nothing", "resourceVersion=0&resourceVersionMatch=Exact",
           "resourceVersionMatch", 422),
    listed("exactly-an-old-one", "resourceVersion=1&resourceVersionMatch=Exact", "older states",
           410),
    listed("initial-events", "sendInitialEvents=true", "sendInitialEvents", 422),
    listed("watch-no-boolean", "watch=perhaps", "watch"),
    listed("watch-twice-negated", "watch=!false", "watch"),
    listed("columns-unknown", "includeObject=All", "includeObject", 400),
    listed("progress-of-nothing", "", "rollout", 400, f"{ONE}/progress"),
    listed("progress-nul", "rollout=%00", "not found", 404, f"{ONE}/progress"),
    listed("contents-no-boolean", "secret=perhaps", "not a digest", 400,
           f"{OURS}/namespaces/default/contents/x"),
    watched("timeout-text", "timeoutSeconds=soon", "timeoutSeconds"),
    watched("timeout-negative", "timeoutSeconds=-1", "timeoutSeconds"),
    watched("timeout-fraction", "timeoutSeconds=0.5", "timeoutSeconds"),
    watched("timeout-huge", f"timeoutSeconds={HUGE}", "timeoutSeconds"),
    watched("version-text", "resourceVersion=now", "resource version"),
    watched("version-huge", f"resourceVersion={HUGE}", "resource version"),
    watched("bookmarks-no-boolean", "allowWatchBookmarks=2", "allowWatchBookmarks"),
    watched("initial-no-boolean", "sendInitialEvents=2", "sendInitialEvents"),
    watched("initial-without-match", "sendInitialEvents=true&allowWatchBookmarks=true",
            "resourceVersionMatch", 422),
    watched("initial-exactly",
            "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=Exact",
            "resourceVersionMatch", 422),
    watched("initial-without-bookmarks",
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan", "sendInitialEvents", 422),
    watched("match-alone", "resourceVersion=1&resourceVersionMatch=NotOlderThan",
            "resourceVersionMatch", 422),
    watched("columns-unknown", "includeObject=All", "includeObject"),
]  # fmt: skip

WRITES = [
    created("dry-run-true", "dryRun=true", "dryRun"),
    created("dry-run-small", "dryRun=all", "dryRun"),
    created("dry-run-some", "dryRun=Some", "dryRun"),
    created("dry-run-nul", "dryRun=%00", "dryRun"),
    created("manager-too-long", f"fieldManager={'m' * 129}", "fieldManager"),
    created("manager-nul", "fieldManager=a%00", "fieldManager"),
    created("manager-line-end", "fieldManager=a%0ab", "fieldManager"),
    created("manager-not-utf-8", "fieldManager=%ff%fe%01", "fieldManager"),
    created("validation-unknown", "fieldValidation=Sometimes", "fieldValidation"),
    created("validation-small", "fieldValidation=strict", "fieldValidation"),
    created("forced", "force=true", "force"),
    created("force-no-boolean", "force=perhaps", "force", 400),
    patched("dry-run-server", "dryRun=server", "dryRun"),
    patched("forced", "force=true", "force"),
    patched("validation-unknown", "fieldValidation=On", "fieldValidation"),
    patched("manager-too-long", f"fieldManager={'m' * 300}", "fieldManager"),
    applied("without-manager", "", "fieldManager"),
    applied("manager-empty", "fieldManager=", "fieldManager"),
    applied("manager-too-long", f"fieldManager={'m' * 129}", "fieldManager"),
    applied("manager-nul", "fieldManager=%00", "fieldManager"),
    applied("force-no-boolean", "fieldManager=x&force=2", "force", 400),
    applied("dry-run-none", "fieldManager=x&dryRun=None", "dryRun"),
    applied("validation-unknown", "fieldManager=x&fieldValidation=x", "fieldValidation"),
    Bad("put-dry-run-true", by_admin("PUT", f"{ONE}?dryRun=true", document("Fleet", "one")), 422,
        "dryRun"),
    Bad("put-of-another-version", by_admin("PUT", ONE, document("Fleet", "one")
        | {"metadata": {"name": "one", "resourceVersion": "999999"}}), 409, "one"),
    Bad("put-of-no-version", by_admin("PUT", ONE, document("Fleet", "one")
        | {"metadata": {"name": "one", "resourceVersion": "newest"}}), 409, "one"),
    Bad("put-of-another-uid", by_admin("PUT", ONE, document("Fleet", "one")
        | {"metadata": {"name": "one", "uid": "00000000-0000-4000-8000-000000000000"}}), 409,
        "one"),
    Bad("put-of-another-name", by_admin("PUT", ONE, document("Fleet", "two")), 400, "name"),
    Bad("approval-rehearsed", by_admin("PUT", f"{PLACE}/enrollmentrequests/x/approval?dryRun=All",
        {"approved": True}), 422, "dryRun"),
    Bad("approval-of-nobody", by_admin("PUT", f"{PLACE}/enrollmentrequests/nobody/approval",
        {"approved": True}), 404, "nobody"),
    Bad("approval-text", by_admin("PUT", f"{PLACE}/enrollmentrequests/nobody/approval",
        {"approved": "yes"}), 422, "approved"),
    Bad("approval-empty", by_admin("PUT", f"{PLACE}/enrollmentrequests/nobody/approval", {}), 422,
        "approved"),
    Bad("approval-unknown-field", by_admin("PUT", f"{PLACE}/enrollmentrequests/nobody/approval",
        {"approved": True, "name": "x"}), 422, "name"),
    Bad("approval-labels", by_admin("PUT", f"{PLACE}/enrollmentrequests/nobody/approval",
        {"approved": True, "labels": {"a b": "c"}}), 422, "labels"),
]  # fmt: skip

GONE = {"kind": "DeleteOptions", "apiVersion": "v1"}
DELETIONS = [
    deleted("policy-unknown", "propagationPolicy", query="propagationPolicy=Slowly"),
    deleted("policy-small", "propagationPolicy", query="propagationPolicy=orphan"),
    deleted("policy-nul", "propagationPolicy", query="propagationPolicy=%00"),
    deleted("dry-run-true", "dryRun", query="dryRun=true"),
    deleted("policy-unknown-in-body", "propagationPolicy", body={"propagationPolicy": "Slowly"}),
    deleted("policy-list-in-body", "propagationPolicy", body={"propagationPolicy": ["Orphan"]}),
    deleted("policy-object-in-body", "propagationPolicy", body={"propagationPolicy": {"a": 1}}),
    deleted("policy-number-in-body", "propagationPolicy", body={"propagationPolicy": 1}),
    deleted("dry-run-text-in-body", "dryRun", body={"dryRun": "All"}),
    deleted("dry-run-unknown-in-body", "dryRun", body={"dryRun": ["Some"]}),
    deleted("dry-run-half-unknown-in-body", "dryRun", body={"dryRun": ["All", "Some"]}),
    deleted("dry-run-numbers-in-body", "dryRun", body={"dryRun": [1]}),
    deleted("preconditions-text", "preconditions", body={"preconditions": "uid"}),
    deleted("preconditions-list", "preconditions", body={"preconditions": []}),
    deleted("preconditions-unknown", "preconditions", body={"preconditions": {"name": "one"}}),
    deleted("precondition-number", "preconditions", body={"preconditions": {"uid": 1}}),
    deleted("precondition-of-another-uid", "uid", 409,
            body=GONE | {"preconditions": {"uid": "00000000-0000-4000-8000-000000000000"}}),
    deleted("precondition-of-another-version", "resourceVersion", 409,
            body=GONE | {"preconditions": {"resourceVersion": "999999"}}),
    deleted("precondition-of-no-version", "resourceVersion", 409,
            body=GONE | {"preconditions": {"resourceVersion": "newest"}}),
    deleted("body-list", "must be an object", 400, body=[]),
    deleted("body-text", "must be an object", 400, body='"all"'),
    deleted("body-not-json", "not valid JSON", 400, body="{"),
    deleted("many-policy-unknown", "propagationPolicy", query="propagationPolicy=x", target=FLEETS),
    deleted("many-dry-run-unknown", "dryRun", query="dryRun=x", target=FLEETS),
    deleted("many-body-list", "must be an object", 400, body=[], target=FLEETS),
    deleted("many-everywhere", "not allow", 405, target=f"{GROUP}/fleets"),
    deleted("a-part", "not allow", 405, target=f"{ONE}/status"),
    deleted("many-organisations", "cannot be deleted", 403, target=f"{GROUP}/organizations"),
]  # fmt: skip

AGENTS = [
    Bad("agent-no-version-known", by_device("GET", "/devices/{name}/status"), 404,
        "method not allowed"),
]  # fmt: skip

ROWS = [*CONTINUE, *LISTS, *WRITES, *DELETIONS, *AGENTS]
