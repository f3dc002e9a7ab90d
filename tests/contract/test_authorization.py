"""Every route there is, asked by every role, in its own organisation and in another's.

Which routes there are is read from the router and from discovery; what each role may is written
down here a second time, by hand, from contract §10. A route or a resource without a row fails.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from apiserver.auth.chain import Evidence
from apiserver.auth.identity import NOBODY, Caller
from tests.fakes import kube_face
from tests.fakes.kube_face import MERGE, Rig

OURS, THEIRS = "ours", "theirs"
# Who asks knows the name, and must not see what is behind it.
NAME, SECRET = "known-by-name", "of-theirs-alone"
READ = "get list watch"
MANAGE = f"{READ} create update patch delete"
ALL = f"{MANAGE} deletecollection"
ROLES = ("admin", "org-admin", "operator", "viewer", "installer", "nobody")


@dataclass(frozen=True)
class Row:
    """Verbs by role. `admin` is for both administrators, of all and of the organisation."""

    operator: str = ""
    viewer: str = ""
    installer: str = ""
    admin: str = ALL

    def verbs(self, role: str) -> list[str]:
        found: str = getattr(self, "admin" if role == "org-admin" else role, "")
        return found.split()


SEEN = Row("get", "get")
READABLE = Row(READ, READ)
# What the service alone writes.
KEPT = Row(READ, READ, admin=f"{READ} delete deletecollection")

RESOURCES = {
    "devices": Row(MANAGE, READ),
    "devices/status": SEEN,
    "devices/lastseen": SEEN,
    "devices/rendered": Row("get"),
    "devices/inputs": Row(),
    "devices/decommission": Row(),
    "devices/lifecycle": Row("create"),
    "fleets": Row(MANAGE, READ),
    "fleets/status": SEEN,
    "fleets/progress": SEEN,
    "fleets/bindings": Row(),
    "fleets/lifecycle": Row("create"),
    "repositories": Row(MANAGE, READ),
    "repositories/status": SEEN,
    "repositories/credentials": Row(admin=""),
    "resourcesyncs": Row(MANAGE, READ),
    "resourcesyncs/status": SEEN,
    "resourcesyncs/refresh": Row("create"),
    "enrollmentrequests": Row(READ, READ, READ),
    "enrollmentrequests/status": SEEN,
    "enrollmentrequests/approval": Row("get", "get", "update patch"),
    "certificatesigningrequests": Row(READ, READ, f"{READ} create update"),
    "certificatesigningrequests/status": SEEN,
    "certificatesigningrequests/approval": SEEN,
    "certificatesigningrequests/enrollmentconfig": Row("get", "get", "get"),
    "authproviders": READABLE,
    "templateversions": KEPT,
    "templateversions/status": SEEN,
    "templateversions/values": SEEN,
    "rollouts": Row(f"{READ} update patch", READ),
    "rollouts/status": SEEN,
    "backlogs": KEPT,
    "backlogs/status": SEEN,
    "backlogs/following": SEEN,
    "backlogs/resume": Row(),
    "certificaterevocations": READABLE,
    "enrollmentpolicies": READABLE,
    "enrollmentpolicies/status": SEEN,
    "auditevents": Row(admin=READ),
    "events": READABLE,
    "leases": READABLE,
    # In no organisation: for those whose role holds in all; others see their own (OWN). One always
    # stays, so nobody may delete them together.
    "organizations": Row(READ, READ, READ, admin=MANAGE),
    "namespaces": Row(READ, READ, READ, admin=MANAGE),
}

# Of these a role in one organisation shows that one.
OWN = ("namespaces", "organizations")

ANYBODY, WHO_IS_KNOWN, BY_ROLE = "anybody", "who is known", "by role"
ROUTES = {
    "GET /version": ANYBODY,
    "GET /{endpoint}": ANYBODY,
    "GET /{endpoint}/{check}": ANYBODY,
    "GET /api/v1/auth/config": ANYBODY,
    "POST /api/v1/auth/{provider}/token": ANYBODY,
    "POST /api/v1/auth/{provider}/device": ANYBODY,
    # Proves itself by a signature: test_webhooks.
    "POST /hooks/{namespace}/{repository}": ANYBODY,
    "GET /api": WHO_IS_KNOWN,
    "GET /apis": WHO_IS_KNOWN,
    "GET /apis/{group}": WHO_IS_KNOWN,
    "GET /api/{version}": WHO_IS_KNOWN,
    "GET /apis/{group}/{version}": WHO_IS_KNOWN,
    "GET /openapi/v3": WHO_IS_KNOWN,
    "GET /openapi/v3/api/{version}": WHO_IS_KNOWN,
    "GET /openapi/v3/apis/{group}/{version}": WHO_IS_KNOWN,
    "GET /openapi/v2": WHO_IS_KNOWN,
    "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews": WHO_IS_KNOWN,
    "POST /apis/authorization.k8s.io/v1beta1/selfsubjectaccessreviews": WHO_IS_KNOWN,
    "POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews": WHO_IS_KNOWN,
    "POST /apis/authorization.k8s.io/v1beta1/selfsubjectrulesreviews": WHO_IS_KNOWN,
    "POST /apis/authentication.k8s.io/v1/selfsubjectreviews": WHO_IS_KNOWN,
    "POST /apis/authentication.k8s.io/v1beta1/selfsubjectreviews": WHO_IS_KNOWN,
    # Of these three each is tried below.
    "POST /apis/authorization.k8s.io/v1/subjectaccessreviews": BY_ROLE,
    "POST /apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews": BY_ROLE,
    "POST /apis/homeport.dev/v1alpha1/namespaces/{namespace}/contents": BY_ROLE,
    "GET /apis/homeport.dev/v1alpha1/namespaces/{namespace}/contents/{digest}": BY_ROLE,
    # All resources that discovery tells of.
    "* /api/{version}/{rest}": BY_ROLE,
    "* /apis/{group}/{version}/{rest}": BY_ROLE,
}


async def by_role_and_place(evidence: Evidence) -> Caller | None:
    """`Bearer ROLE` has it everywhere, `Bearer ROLE@NAMESPACE` there."""
    scheme, _, said = evidence.authorization.partition(" ")
    if scheme != "Bearer":
        return None
    role, _, place = said.partition("@")
    if not place:
        return Caller(said, role=role)
    return Caller(said, role=NOBODY, further={place: frozenset([role])})


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    data = tmp_path_factory.mktemp("authorization")
    async with kube_face.running(data, authenticate=by_role_and_place) as rig:
        for name in (OURS, THEIRS):
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            await rig.json("POST", "/api/v1/namespaces", json=body, code=201)
        fleets = f"{kube_face.G}/namespaces/{THEIRS}/fleets"
        await rig.json("POST", fleets, json=kube_face.fleet(NAME, secret=SECRET), code=201)
        yield rig


@dataclass(frozen=True)
class Resource:
    prefix: str
    name: str
    is_namespaced: bool
    verbs: tuple[str, ...]

    def request(self, verb: str, namespace: str) -> tuple[str, str, dict[str, Any]]:
        """Method, path, and what else makes the request one of this verb."""
        plural, _, subresource = self.name.partition("/")
        place = f"/namespaces/{namespace}" if self.is_namespaced else ""
        path = f"{self.prefix}{place}/{plural}"
        if subresource:
            path = f"{path}/{NAME}/{subresource}"
        elif verb in ("get", "update", "patch", "delete"):
            path = f"{path}/{NAME}"
        if verb == "patch":
            return "PATCH", path, {"data": "{}", "headers": {"Content-Type": MERGE}}
        if verb == "watch":
            return "GET", path, {"params": {"watch": "true", "timeoutSeconds": "1"}}
        if verb in ("create", "update"):
            return {"create": "POST", "update": "PUT"}[verb], path, {"json": {}}
        # A dry run: what is deleted would be missed by those who ask next.
        if verb in ("delete", "deletecollection"):
            return "DELETE", path, {"params": {"dryRun": "All"}}
        return "GET", path, {}


async def resources(rig: Rig) -> list[Resource]:
    groups = (await rig.json("GET", "/apis"))["groups"]
    versions = [version["groupVersion"] for group in groups for version in group["versions"]]
    found = []
    for prefix in ("/api/v1", *(f"/apis/{version}" for version in versions)):
        for each in (await rig.json("GET", prefix))["resources"]:
            verbs = tuple(each["verbs"])
            found.append(Resource(prefix, each["name"], each["namespaced"], verbs))
    return found


async def test_every_resource_and_every_route_has_its_row(rig: Rig) -> None:
    assert {each.name for each in await resources(rig)} == set(RESOURCES)
    routes = {
        f"{route.method} {route.resource.canonical}"
        for route in rig.client.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert routes == set(ROUTES)


def cases(found: list[Resource]) -> Iterator[tuple[Resource, str]]:
    return ((each, verb) for each in found for verb in each.verbs)


@pytest.mark.parametrize("role", ROLES)
async def test_what_the_table_allows_and_nothing_else(rig: Rig, role: str) -> None:
    found = await resources(rig)
    asked = 0
    for each, verb in cases(found):
        may = verb in RESOURCES[each.name].verbs(role)
        sees = may and each.name in OWN and verb in ("list", "watch")
        for caller, namespace, expected in (
            (role, THEIRS, may),
            (f"{role}@{OURS}", OURS, (may and each.is_namespaced) or sees),
            (f"{role}@{OURS}", THEIRS, sees),
        ):
            method, path, more = each.request(verb, namespace)
            async with rig.call(method, path, role=caller, **more) as answer:
                is_refused = answer.status in (401, 403)
                text = "" if verb == "watch" and not is_refused else await answer.text()
            asked += 1
            assert is_refused is not expected, f"{caller}: {verb} {path}: {answer.status} {text}"
            assert answer.status < 500, f"{caller}: {verb} {path}: {text}"
            if not expected:
                assert SECRET not in text
    print(f"{role}: {asked} requests")


@pytest.mark.parametrize("role", ["org-admin", "viewer", "installer", "nobody"])
@pytest.mark.parametrize("path", ["/api/v1/namespaces", f"{kube_face.G}/organizations"])
async def test_of_organizations_one_sees_ones_own(rig: Rig, role: str, path: str) -> None:
    me = f"{role}@{OURS}"
    if role == "nobody":
        for asked in (path, f"{path}/{OURS}"):
            await rig.refused("GET", asked, 403, role=me)
        return
    for query, expected in (
        ("", [OURS]), ("?limit=1", [OURS]), (f"?fieldSelector=metadata.name={THEIRS}", []),
    ):  # fmt: skip
        found = await rig.json("GET", path + query, role=me)
        assert [each["metadata"]["name"] for each in found["items"]] == expected
        assert "remainingItemCount" not in found["metadata"]
    assert (await rig.json("GET", f"{path}/{OURS}", role=me))["metadata"]["name"] == OURS
    for name in (THEIRS, "nothing-is-called-this"):
        await rig.refused("GET", f"{path}/{name}", 403, role=me)

    async def watched(**params: str) -> list[str]:
        params |= {"watch": "true", "timeoutSeconds": "1"}
        async with rig.call("GET", path, role=me, params=params) as answer:
            seen = [json.loads(line)["object"] for line in (await answer.text()).splitlines()]
        return [each["metadata"]["name"] for each in seen]

    # One that comes and goes meanwhile is no business of theirs.
    before = (await rig.json("GET", path, role=me))["metadata"]["resourceVersion"]
    other = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "of-others"}}
    await rig.json("POST", "/api/v1/namespaces", json=other, code=201)
    await rig.json("DELETE", "/api/v1/namespaces/of-others")
    found = await asyncio.gather(
        watched(),
        watched(fieldSelector=f"metadata.name={THEIRS}"),
        watched(resourceVersion=before),
    )
    assert found == [[OURS], [], []]


@pytest.mark.parametrize("role", ROLES)
async def test_no_list_or_watch_over_all_organizations_with_a_role_in_one(
    rig: Rig, role: str
) -> None:
    for each in await resources(rig):
        if not each.is_namespaced or "list" not in each.verbs:
            continue
        path = f"{each.prefix}/{each.name}"
        for params in ({}, {"watch": "true", "timeoutSeconds": "1"}):
            status = await rig.refused("GET", path, 403, role=f"{role}@{OURS}", params=params)
            assert SECRET not in str(status)
    theirs = {"fieldSelector": f"metadata.namespace={THEIRS}"}
    path = f"{kube_face.G}/namespaces/{OURS}/fleets"
    async with rig.call("GET", path, role=f"{role}@{OURS}", params=theirs) as answer:
        assert SECRET not in await answer.text()


async def test_who_is_not_known_gets_what_anybody_may_have(rig: Rig) -> None:
    for route, who in ROUTES.items():
        method, _, path = route.partition(" ")
        for name, value in {
            "{endpoint}": "healthz", "{check}": "ping", "{provider}": "x", "{namespace}": OURS,
            "{repository}": "x", "{version}": "v1", "{group}": "apps", "{rest}": "namespaces",
            "{digest}": "x",
        }.items():  # fmt: skip
            path = path.replace(name, value)
        method = "GET" if method == "*" else method
        async with rig.call(method, path, role="") as answer:
            assert (answer.status == 401) is (who != ANYBODY or "hooks" in path), route
        if who == WHO_IS_KNOWN:
            async with rig.call(method, path, role="nobody@x", json={}) as answer:
                assert answer.status not in (401, 403), route


@pytest.mark.parametrize("role", ROLES)
async def test_reviews_of_others_and_contents(rig: Rig, role: str) -> None:
    may = role in ("admin", "org-admin")
    reviews = "/apis/authorization.k8s.io/v1"
    contents = f"{kube_face.H}/namespaces/{{}}/contents"
    for method, path, allowed in (
        ("POST", f"{reviews}/namespaces/{OURS}/localsubjectaccessreviews", may),
        ("POST", f"{reviews}/namespaces/{THEIRS}/localsubjectaccessreviews", False),
        ("POST", f"{reviews}/subjectaccessreviews", False),
        ("POST", contents.format(OURS), may),
        ("POST", contents.format(THEIRS), False),
        ("GET", f"{contents.format(OURS)}/nothing", may),
        ("GET", f"{contents.format(THEIRS)}/nothing", False),
    ):
        async with rig.call(method, path, role=f"{role}@{OURS}", json={}) as answer:
            assert (answer.status != 403) is allowed, f"{path}: {await answer.text()}"


@pytest.mark.parametrize("role", ROLES)
async def test_reviews_say_what_would_happen(rig: Rig, role: str) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    for each, verb in cases(await resources(rig)):
        resource, _, subresource = each.name.partition("/")
        group = each.prefix.split("/")[2] if each.prefix.startswith("/apis/") else ""
        for place in (OURS, THEIRS):
            attributes = {
                "verb": verb, "group": group, "resource": resource, "subresource": subresource,
                "namespace": place,
            }  # fmt: skip
            body = {"spec": {"resourceAttributes": attributes}}
            answer = await rig.json("POST", path, role=f"{role}@{OURS}", json=body, code=201)
            may = verb in RESOURCES[each.name].verbs(role)
            expected = may and each.is_namespaced and place == OURS
            expected |= may and each.name in OWN and verb in ("list", "watch")
            assert answer["status"]["allowed"] is expected, f"{role}: {attributes}"
