"""What is served here, said in the two dialects of Kubernetes discovery. Pure documents.

The classic dialect is one document for each group and version; the aggregated one (v2) says it all
in two answers. Both are made from the same catalogue, so they cannot disagree. Nothing here asks
the database: an aggregator that probes us must get an answer while the database is away.
"""

from __future__ import annotations

from collections.abc import Iterable

from apiserver.catalogue import Catalogue
from resources.kind import Json, Kind, Subresource

V2_MEDIA = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

# What clients compare with their own version; kubectl warns when minors are far apart.
MAJOR, MINOR = "1", "32"


def version(release: str) -> Json:
    """`/version`: the Kubernetes whose protocol this is, and who we are behind the plus."""
    return {
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": f"v{MAJOR}.{MINOR}.0+homeport-{release}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "cpython",
        "platform": "linux/amd64",
    }


def core_versions() -> Json:
    """`/api`."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    }


def groups(catalogue: Catalogue) -> Json:
    """`/apis`."""
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group(catalogue, name) for name in catalogue.groups],
    }


def group(catalogue: Catalogue, name: str) -> Json | None:
    """`/apis/<group>`."""
    if name not in catalogue.groups:
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(catalogue, name)}


def _group(catalogue: Catalogue, name: str) -> Json:
    versions = [
        {"groupVersion": f"{name}/{v}", "version": v}
        for g, v in catalogue.group_versions
        if g == name
    ]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def resources(catalogue: Catalogue, group_name: str, version_name: str) -> Json | None:
    """`/api/v1` and `/apis/<group>/<version>`; None where nothing of it is served."""
    kinds = catalogue.of(group_name, version_name)
    if not kinds:
        return None
    rows: list[Json] = []
    for kind in kinds:
        rows.append(_resource(kind))
        rows.extend(_subresource(kind, sub) for sub in kind.subresources)
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": kinds[0].api_version,
        "resources": rows,
    }


def _resource(kind: Kind) -> Json:
    row: Json = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": sorted(kind.verbs),
    }
    if kind.short_names:
        row["shortNames"] = list(kind.short_names)
    if kind.categories:
        row["categories"] = list(kind.categories)
    return row


def _subresource(kind: Kind, sub: Subresource) -> Json:
    return {
        "name": f"{kind.plural}/{sub.name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": sub.kind or kind.kind,
        "verbs": sorted(sub.verbs),
    }


def aggregated(catalogue: Catalogue, group_names: Iterable[str]) -> Json:
    """The v2 document: of the named groups for `/apis`, of "" for `/api`."""
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": [_group_v2(catalogue, name) for name in group_names],
    }


def _group_v2(catalogue: Catalogue, name: str) -> Json:
    versions = [
        {
            "version": v,
            "resources": [_resource_v2(kind) for kind in catalogue.of(g, v)],
            "freshness": "Current",
        }
        for g, v in catalogue.group_versions
        if g == name
    ]
    metadata = {"name": name, "creationTimestamp": None} if name else {"creationTimestamp": None}
    return {"metadata": metadata, "versions": versions}


def _resource_v2(kind: Kind) -> Json:
    row: Json = {
        "resource": kind.plural,
        "responseKind": _kind_of(kind, kind.kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": sorted(kind.verbs),
    }
    if kind.short_names:
        row["shortNames"] = list(kind.short_names)
    if kind.categories:
        row["categories"] = list(kind.categories)
    if kind.subresources:
        row["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": _kind_of(kind, sub.kind or kind.kind),
                "verbs": sorted(sub.verbs),
            }
            for sub in kind.subresources
        ]
    return row


def _kind_of(kind: Kind, name: str) -> Json:
    return {"group": kind.group, "version": kind.version, "kind": name}
