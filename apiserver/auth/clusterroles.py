"""The table of roles as ClusterRoles, for a cluster that judges requests before it passes them on.

RBAC only adds, and our table also takes away: an entry for a resource replaces the wildcard. So
there is no wildcard here. Each resource that is served is asked about, verb by verb, with the same
function that refuses; what the file says is what the table does. A resource that is added later is
in nobody's role until the file is made anew, and a test fails until it is.

Kubernetes' own kinds are left out: behind an aggregator those are the cluster's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from apiserver.auth import identity, roles
from apiserver.auth.identity import Caller
from resources.kind import HOMEPORT_GROUP, Json
from resources.registry import KINDS

FILE = Path("helm/homeport/files/clusterroles.yaml")
# Who is bound to a name has the role; the names of people's are those that providers report.
NAMES = {name: role for name, role in roles.GROUPS.items() if name != "system:masters"} | {
    "homeport-controllers": identity.CONTROLLER
}
_HEAD = """\
# Made by `make crds` from the table in apiserver/auth/roles.py; change that, and not this.
# A RoleBinding gives a role in one organisation, a ClusterRoleBinding in all.
"""


def served() -> Iterator[tuple[str, str, str]]:
    """Group, resource (with its subresource) and verb of all that there is to do."""
    for kind in KINDS:
        yield from ((kind.group, kind.plural, verb) for verb in kind.verbs)
        for sub in kind.subresources:
            yield from ((kind.group, f"{kind.plural}/{sub.name}", verb) for verb in sub.verbs)
    # No kind, but a route of its own: what controllers freeze.
    yield from ((HOMEPORT_GROUP, "contents", verb) for verb in ("create", "get"))


def allowed(role: str, resource: str, verb: str) -> bool:
    """Whether the table lets `role` do it."""
    plural, _, subresource = resource.partition("/")
    caller = Caller("", role=role)
    kind = next((each for each in KINDS if each.plural == plural), None)
    if kind is None:
        return roles.permits(caller, verb, plural)
    return roles.may(caller, verb, kind, subresource)


def documents() -> list[Json]:
    """A ClusterRole for each name."""
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "homeport"}},
            "rules": _rules(role),
        }
        for name, role in NAMES.items()
    ]


def _rules(role: str) -> list[Json]:
    """One for all resources of a group that have the same verbs."""
    by_resource: dict[tuple[str, str], list[str]] = {}
    for group, resource, verb in served():
        if allowed(role, resource, verb):
            by_resource.setdefault((group, resource), []).append(verb)
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (group, resource), verbs in by_resource.items():
        alike.setdefault((group, tuple(sorted(verbs))), []).append(resource)
    return [
        {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}
        for (group, verbs), resources in alike.items()
    ]


def text() -> str:
    """The file."""
    return _HEAD + yaml.safe_dump_all(documents(), sort_keys=False, explicit_start=True)


def main(root: Path) -> int:
    """Writes the file."""
    path = root / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parents[2]))
