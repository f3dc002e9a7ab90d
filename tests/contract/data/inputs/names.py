"""Bad names: of objects of every kind, in bodies and in paths, of namespaces, of resources, of
parts of objects, and of devices at the agents' face.

Names in bodies that Devices are refused for are wrong documents and stand there; here are the other
kinds, and what only a path can hold.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from resources import registry
from tests.contract.data.inputs.row import (
    GROUP,
    OURS,
    PLACE,
    PLAIN,
    Ask,
    Bad,
    by_admin,
    by_device,
    by_factory,
    typed,
)
from tests.contract.data.wrong_documents import RIGHT
from tests.fakes import bare_http
from tests.fakes.inputs_rig import Rig

Json = dict[str, Any]

V1 = "/api/v1"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
OIDC: Json = {
    "providerType": "oidc",
    "issuer": "https://id.example.com",
    "clientId": "x",
    "organizationAssignment": {"type": "static", "organizationName": "default"},
    "roleAssignment": {"type": "static", "roles": ["flightctl-viewer"]},
}
SPECS: dict[str, Json] = {
    "Repository": {"type": "git", "url": "https://example.com/x.git"},
    "ResourceSync": {"repository": "files", "path": "/fleets", "targetRevision": "main"},
    "AuthProvider": OIDC,
    "Organization": {},
}


def document(kind: str, name: object) -> Json:
    """One that is right but for its name."""
    found: Json = next((copy.deepcopy(body) for of, body in RIGHT if of == kind), {})
    if not found:
        shape = registry.by_kind(kind)
        found = {"apiVersion": shape.api_version, "kind": kind, "spec": SPECS[kind]}
    return found | {"metadata": {"name": name}}


def collection(kind: str) -> str:
    found = registry.by_kind(kind)
    place = "/namespaces/default" if found.namespaced else ""
    return f"/apis/{found.api_version}{place}/{found.plural}"


BODIES: dict[str, object] = {
    "in-capitals": "Web-One-With-Capitals",
    "with-a-slash": "default/web-one-or-two",
    "with-dots-up": "../../../../etc/passwd",
    "with-a-nul": "web-one\0-and-a-half",
    "with-a-blank": "web one and a half",
    "with-a-line-end": "web-one-and-a-half\n",
    "unicode": "wébsite-numéro-une",
    "of-digits-in-another-script": "web-one-or-١٢٣-so",
    "with-an-underscore": "web_one_and_a_half",
    "with-a-percent": "web%2fone-and-a-half",
    "two-dots-together": "web..one-and-a-half",
    "dot-first": ".web-one-and-a-half",
    "dash-last": "web-one-and-a-half-",
    "too-long": "w" * 254,
    "list": ["web-one-and-a-half"],
    "object": {"$ne": ""},
}
# An EnrollmentRequest is asked about its name when it has proved its key: `csrs`.
KINDS = (
    "Fleet", "Repository", "ResourceSync", "AuthProvider", "CertificateSigningRequest",
    "CertificateRevocation", "Rollout", "Organization",
)  # fmt: skip


def in_bodies() -> Iterator[Bad]:
    """Each kind with every fourth name, and each name with some kind."""
    for number, (id, name) in enumerate(BODIES.items()):
        for place, kind in enumerate(KINDS):
            if (number + place) % 4:
                continue
            row = by_admin("POST", collection(kind), document(kind, name))
            # NUL is no text that could be stored, which is found when the body is read.
            code, expected = (400, "NUL") if "\0" in str(name) else (422, "metadata.name")
            yield Bad(f"{kind}-{id}", row, code, expected)


def namespaced(id: str, name: object, code: int = 422, expected: str = "metadata.name") -> Bad:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    return Bad(f"Namespace-{id}", by_admin("POST", f"{V1}/namespaces", body), code, expected)


def lease(id: str, name: object, code: int = 422, expected: str = "metadata.name") -> Bad:
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
    return Bad(f"Lease-{id}", by_admin("POST", LEASES, body), code, expected)


def path(id: str, target: str, code: int = 404, expected: str = "not found", **more: str) -> Bad:
    return Bad(f"path-{id}", by_admin(more.get("method", "GET"), target), code, expected)


def raw_path(id: str, target: bytes, code: int, expected: str, form: str = "status") -> Bad:
    """Bytes that no client library would send."""
    raw = bare_http.request("GET", "TARGET").replace(b"TARGET", target)
    return Bad(f"path-{id}", lambda rig: Ask(rig.admin, raw), code, expected, form)


def applied(id: str, name: str) -> Bad:
    """An object that would be made, if its name could be had."""
    body = document("Fleet", None)
    target = f"{PLACE}/fleets/{name}?fieldManager=x"
    row = by_admin("PATCH", target, body, typed("application/apply-patch+yaml"))
    return Bad(f"applied-{id}", row, 422, "metadata.name")


def another_device(rig: Rig) -> Ask:
    return Ask(rig.device, bare_http.request("GET", "/api/v1/devices/another/rendered"))


NOWHERE = "could not find the requested resource"

PATHS = [
    path("in-capitals", f"{PLACE}/fleets/ONE"),
    path("too-long", f"{PLACE}/fleets/{'w' * 300}"),
    path("endless", f"{PLACE}/fleets/{'w' * 8000}"),
    path("with-an-encoded-slash", f"{PLACE}/fleets/x%2Fone"),
    path("with-encoded-dots-up", f"{PLACE}/fleets/..%2F..%2Fone"),
    path("dots-up", f"{PLACE}/fleets/../devices", 404, NOWHERE),
    path("dots-up-twice", f"{PLACE}/fleets/%2e%2e/devices", 404, NOWHERE),
    path("encoded-twice", f"{PLACE}/fleets/%252e%252e"),
    path("a-dot", f"{PLACE}/fleets/./one", 404, NOWHERE),
    path("nul", f"{PLACE}/fleets/one%00"),
    path("nul-alone", f"{PLACE}/fleets/%00"),
    path("nul-of-a-device", f"{PLACE}/devices/%00"),
    path("nul-deleted", f"{PLACE}/fleets/one%00", method="DELETE"),
    path("line-end", f"{PLACE}/fleets/one%0d%0aX-Bad:%201", 404, NOWHERE),
    path("tab", f"{PLACE}/fleets/one%09"),
    path("blank", f"{PLACE}/fleets/%20one"),
    path("not-utf-8", f"{PLACE}/fleets/%ff%fe"),
    path("utf-8-too-long", f"{PLACE}/fleets/%c0%ae%c0%ae"),
    path("half-a-surrogate", f"{PLACE}/fleets/%ed%a0%80"),
    path("bad-escape", f"{PLACE}/fleets/%zz"),
    path("cut-escape", f"{PLACE}/fleets/one%2"),
    path("unicode", f"{PLACE}/fleets/%C3%A9l%C3%A8ve"),
    path("wildcard", f"{PLACE}/fleets/*"),
    path("like", f"{PLACE}/fleets/%25"),
    path("quote", f"{PLACE}/fleets/'%20OR%20'1'='1"),
    path("semicolon", f"{PLACE}/fleets/one;x=1"),
    path("slash-at-the-end", f"{PLACE}/fleets/one/", 404, NOWHERE),
    path("slashes-together", f"{PLACE}//fleets/one", 404, NOWHERE),
    path("too-many-parts", f"{PLACE}/fleets/one/status/more", 404, NOWHERE),
    path("unknown-part", f"{PLACE}/fleets/one/scale", 404, NOWHERE),
    path("part-of-another-kind", f"{PLACE}/fleets/one/lastseen", 404, NOWHERE),
    path("part-in-capitals", f"{PLACE}/fleets/one/Status", 404, NOWHERE),
    path("part-nul", f"{PLACE}/fleets/one/%00", 404, NOWHERE),
    path("kind-in-capitals", f"{PLACE}/Fleets", 404, NOWHERE),
    path("kind-singular", f"{PLACE}/fleet", 404, NOWHERE),
    path("kind-short", f"{PLACE}/tv", 404, NOWHERE),
    path("kind-unknown", f"{PLACE}/pods", 404, NOWHERE),
    path("kind-nul", f"{PLACE}/%00", 404, NOWHERE),
    path("kind-of-another-group", f"{OURS}/namespaces/default/fleets", 404, NOWHERE),
    path("version-unknown", "/apis/flightctl.io/v1/namespaces/default/fleets", 404, NOWHERE),
    path("group-unknown", "/apis/apps/v1/namespaces/default/deployments", 404, NOWHERE),
    path("group-with-dots", "/apis/..%2f/v1/namespaces/default/fleets", 404, NOWHERE),
    path("object-of-no-namespace", f"{GROUP}/fleets/one", 404, NOWHERE),
    path("namespace-of-what-has-none", f"{PLACE}/organizations/default", 404, NOWHERE),
    path("namespace-unknown", f"{GROUP}/namespaces/nowhere/fleets/one"),
    path("namespace-in-capitals", f"{GROUP}/namespaces/DEFAULT/fleets/one"),
    path("namespace-nul", f"{GROUP}/namespaces/default%00/fleets/one"),
    path("namespace-with-a-slash", f"{GROUP}/namespaces/default%2f/fleets/one"),
    path("namespace-dots", f"{GROUP}/namespaces/..%2fdefault/fleets/one"),
    path("namespace-empty", f"{GROUP}/namespaces//fleets/one", 404, NOWHERE),
    path("core-kind-unknown", f"{V1}/namespaces/default/secrets", 404, NOWHERE),
    path("core-version-unknown", "/api/v2/namespaces", 404, NOWHERE),
    path("nowhere", "/nothing", 404, NOWHERE),
    path("nowhere-nul", "/%00", 404, NOWHERE),
    path("backslashes", "/..%5c..%5cetc%5cpasswd", 404, NOWHERE),
    path("digest-short", f"{OURS}/namespaces/default/contents/sha256:00", 400, "not a digest"),
    path("digest-nul", f"{OURS}/namespaces/default/contents/%00", 400, "not a digest"),
    path(
        "digest-in-capitals",
        f"{OURS}/namespaces/default/contents/SHA256:{'A' * 64}",
        400,
        "not a digest",
    ),
    path("provider-nul", f"{V1}/auth/%00/token", 400, "TokenRequest", method="POST"),
    path("openapi-group-unknown", "/openapi/v3/apis/..%2f/v1", 404, NOWHERE),
    path("health-check-unknown", "/livez/%00", 404, NOWHERE),
    raw_path("bytes-above-ascii", f"{PLACE}/fleets/".encode() + b"\xff\xfe", 400, "", PLAIN),
    raw_path("raw-nul", f"{PLACE}/fleets/".encode() + b"a\0b", 400, "", PLAIN),
    raw_path("raw-blank", f"{PLACE}/fleets/a b".encode(), 400, "", PLAIN),
    applied("in-capitals", "ONE"),
    applied("too-long", "w" * 254),
    applied("nul", "a%00"),
    applied("unicode", "%C3%A9"),
    applied("with-a-slash", "a%2fb"),
    applied("dots", "%2e%2e%2f"),
    applied("not-utf-8", "%ff"),
]

AT_AGENTS = [
    Bad("agent-device-of-another", another_device, 401, "another device's"),
    Bad("agent-device-with-a-tail", by_device("GET", "/devices/{name}X/rendered"), 401, "another"),
    Bad("agent-device-nul", by_device("GET", "/devices/{name}%00/rendered"), 401, "another"),
    Bad("agent-device-with-a-slash", by_device("GET", "/devices/x%2f{name}/rendered"), 401,
        "another"),
    Bad("agent-device-dots", by_device("GET", "/devices/../devices/x/rendered"), 404,
        "no matching operation"),
    Bad("agent-device-none", by_device("GET", "/devices//rendered"), 404, "no matching operation"),
    Bad("agent-device-alone", by_device("GET", "/devices/{name}"), 404, "no matching operation"),
    Bad("agent-part-unknown", by_device("GET", "/devices/{name}/console"), 404,
        "no matching operation"),
    Bad("agent-list", by_device("GET", "/devices"), 404, "no matching operation"),
    Bad("agent-kind-unknown", by_device("GET", "/fleets/one"), 404, "no matching operation"),
    Bad("agent-request-nul", by_factory("GET", "/enrollmentrequests/%00"), 404, "not found"),
    Bad("agent-request-in-capitals", by_factory("GET", "/enrollmentrequests/ABCDEFGHIJKLMNOP"),
        404, "not found"),
    Bad("agent-request-endless", by_factory("GET", f"/enrollmentrequests/{'w' * 8000}"), 404,
        "not found"),
    Bad("agent-request-not-utf-8", by_factory("GET", "/enrollmentrequests/%ff%fe"), 404,
        "not found"),
    Bad("agent-request-with-a-slash", by_factory("GET", "/enrollmentrequests/a%2f..%2fb"), 404,
        "not found"),
    Bad("agent-csr-nul", by_device("GET", "/certificatesigningrequests/a%00"), 404, "not found"),
    Bad("agent-status-of-another",
        by_device("PUT", "/devices/{name}/status", {"metadata": {"name": "another"}, "status": {}}),
        400, "metadata.name"),
    Bad("agent-status-of-nobody", by_device("PUT", "/devices/{name}/status", {"status": {}}), 400,
        "metadata.name"),
]  # fmt: skip

OTHERS = [
    namespaced("in-capitals", "Acme"),
    namespaced("with-dots-together", "acme..example"),
    namespaced("too-long", "a" * 254),
    namespaced("unicode", "büro"),
    namespaced("list", ["acme"]),
    namespaced("with-a-slash", "acme/x"),
    lease("in-capitals", "Leader"),
    lease("with-a-slash", "a/b"),
    lease("number", 1),
    lease("too-long", "a" * 254),
    Bad("generated-in-capitals", by_admin("POST", collection("Fleet"),
        document("Fleet", None) | {"metadata": {"generateName": "Web-"}}), 422,
        "metadata.generateName"),
    Bad("generated-too-long", by_admin("POST", collection("Fleet"),
        document("Fleet", None) | {"metadata": {"generateName": "w" * 60}}), 422,
        "metadata.generateName"),
    Bad("generated-with-a-slash", by_admin("POST", collection("Fleet"),
        document("Fleet", None) | {"metadata": {"generateName": "a/"}}), 422,
        "metadata.generateName"),
    Bad("generated-list", by_admin("POST", collection("Fleet"),
        document("Fleet", None) | {"metadata": {"generateName": ["a"]}}), 422,
        "metadata.generateName"),
    Bad("in-another-namespace", by_admin("POST", collection("Fleet"),
        document("Fleet", "x") | {"metadata": {"name": "x", "namespace": "kube-system"}}), 400,
        "namespace"),
    Bad("in-no-namespace-that-is", by_admin("POST", f"{GROUP}/namespaces/nowhere/fleets",
        document("Fleet", "x")), 404, "nowhere"),
    Bad("in-a-namespace-with-nul", by_admin("POST", f"{GROUP}/namespaces/a%00/fleets",
        document("Fleet", "x")), 404, "not found"),
]  # fmt: skip

ROWS = [*in_bodies(), *PATHS, *AT_AGENTS, *OTHERS]
