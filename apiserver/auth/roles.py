"""What each role may do: one table, for our own evaluator now and the chart's ClusterRoles later.

Resources are plurals or `plural/subresource`; verbs are Kubernetes'. The rule of the reference
holds: an explicit entry for a resource replaces the wildcard for that role. What is in no entry is
refused. Devices and enrolment certificates have no role here: their API is another listener.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from apiserver.auth import identity
from apiserver.auth.identity import Caller
from apiserver.errors import Forbidden
from resources.kind import Kind

READ = frozenset({"get", "list", "watch"})
WRITE = frozenset({"create", "update", "patch"})
MANAGE = READ | WRITE | {"delete"}
EVERYTHING = frozenset({"*"})
_NOTHING: frozenset[str] = frozenset()

Grants = Mapping[str, frozenset[str]]

# Secrets are for the controllers alone; an administrator may replace them and not read them.
_SECRETS: Grants = {"repositories/credentials": _NOTHING}
# A namespace is an object too, in two kinds, and in no namespace.
_PLACES = ("namespaces", "organizations")
# Who did what is for those who administer, and for auditors.
_AUDIT: Grants = {"auditevents": _NOTHING}
_EDITED = ("devices", "fleets", "resourcesyncs", "repositories")

ROLES: Mapping[str, Grants] = MappingProxyType(
    {
        identity.ADMIN: {"*": EVERYTHING, **_SECRETS},
        identity.ORG_ADMIN: {"*": EVERYTHING, **_SECRETS},
        identity.CONTROLLER: {
            "*": READ,
            "*/status": READ | {"update", "patch"},
            "fleets": READ | {"create", "patch", "update", "delete"},
            "fleets/bindings": frozenset({"create"}),
            "devices/inputs": frozenset({"create"}),
            "enrollmentrequests": READ | {"patch"},
            "certificatesigningrequests": READ | {"patch"},
            "repositories": READ | {"patch"},
            "resourcesyncs": READ | {"patch"},
            "templateversions": EVERYTHING,
            "templateversions/values": frozenset({"get", "create"}),
            "rollouts": EVERYTHING,
            "backlogs": EVERYTHING,
            "events": EVERYTHING,
            "leases": EVERYTHING,
            "contents": READ | {"create"},
            **_AUDIT,
        },
        identity.OPERATOR: {
            "*": READ,
            "contents": _NOTHING,
            **_SECRETS,
            **_AUDIT,
            **dict.fromkeys(_EDITED, MANAGE),
            "resourcesyncs/refresh": frozenset({"create"}),
            **dict.fromkeys(("devices/lifecycle", "fleets/lifecycle"), frozenset({"create"})),
            "rollouts": READ | {"update", "patch"},
        },
        identity.VIEWER: {
            "*": READ,
            **_SECRETS,
            **_AUDIT,
            "contents": _NOTHING,
            "devices/rendered": _NOTHING,
            "devices/console": _NOTHING,
        },
        identity.INSTALLER: {
            "enrollmentrequests": READ,
            "organizations": READ,
            "namespaces": READ,
            "enrollmentrequests/approval": frozenset({"update", "patch"}),
            "certificatesigningrequests": READ | {"create", "update"},
            # The reference leaves that out, and so its installers can't put a certificate to use.
            "certificatesigningrequests/enrollmentconfig": frozenset({"get"}),
        },
        identity.AUDITOR: {"auditevents": READ, "namespaces": READ, "organizations": READ},
    }
)

# Groups of certificates and tokens, to roles; the first that matches counts.
GROUPS: Mapping[str, str] = MappingProxyType(
    {
        "system:masters": identity.ADMIN,
        "flightctl-admin": identity.ADMIN,
        "flightctl-org-admin": identity.ORG_ADMIN,
        "flightctl-operator": identity.OPERATOR,
        "flightctl-installer": identity.INSTALLER,
        "flightctl-viewer": identity.VIEWER,
        "homeport-auditor": identity.AUDITOR,
    }
)


def role_of(groups: frozenset[str]) -> str:
    """The role that these groups give; `nobody` when none does."""
    return next((role for group, role in GROUPS.items() if group in groups), identity.NOBODY)


def allowed(role: str, verb: str, resource: str, subresource: str = "") -> bool:
    """Whether `role` may `verb` `resource[/subresource]`."""
    grants = ROLES.get(role, {})
    verbs = next((grants[key] for key in _keys(resource, subresource) if key in grants), _NOTHING)
    return "*" in verbs or verb in verbs


def permits(
    caller: Caller, verb: str, resource: str, subresource: str = "", namespace: str = ""
) -> bool:
    """Whether one of the roles that `caller` has in the namespace allows it; for "" one that it has
    in all."""
    return any(allowed(role, verb, resource, subresource) for role in caller.roles_in(namespace))


def _keys(resource: str, subresource: str) -> Iterator[str]:
    """The entries that may speak of a resource, the most particular first. A subresource is never
    covered by its resource's own entry: who may edit fleets may not therefore bind devices."""
    if subresource:
        yield f"{resource}/{subresource}"
        yield f"*/{subresource}"
    else:
        yield resource
    yield "*"


def authorize(
    caller: Caller,
    verb: str,
    kind: Kind,
    subresource: str = "",
    namespace: str = "",
    name: str = "",
) -> None:
    """Raise Forbidden unless `caller` may do it; the message is worded as kubectl users know it."""
    if may(caller, verb, kind, subresource, namespace, name):
        return
    raise refusal(caller, verb, kind.plural, kind.group, subresource, namespace, kind, name)


def may(
    caller: Caller,
    verb: str,
    kind: Kind,
    subresource: str = "",
    namespace: str = "",
    name: str = "",
) -> bool:
    """Whether `caller` may `verb` the kind in that namespace; for "" in all and outside."""
    place = namespace if kind.namespaced else ""
    if _reserved(caller, verb, kind, subresource):
        return False
    if permits(caller, verb, kind.plural, subresource, place):
        return True
    own = () if subresource else _own(caller, verb, kind)
    return name in own if name or verb == "get" else bool(own)


def confined_to(caller: Caller, verb: str, kind: Kind) -> tuple[str, ...] | None:
    """The names that a list or a watch is confined to; None for no such bound."""
    if kind.plural not in _PLACES or permits(caller, verb, kind.plural):
        return None
    return _own(caller, verb, kind)


def _own(caller: Caller, verb: str, kind: Kind) -> tuple[str, ...]:
    """Who has a role in a namespace sees the namespace itself, and those of others no more than if
    they were not there."""
    if kind.plural not in _PLACES or verb not in READ:
        return ()
    places = sorted(place for place in caller.further if place != identity.EVERYWHERE)
    return tuple(place for place in places if permits(caller, verb, kind.plural, "", place))


def _reserved(caller: Caller, verb: str, kind: Kind, subresource: str) -> bool:
    """Kinds that only the service writes stay so for administrators too; they may still delete."""
    if not kind.internal or subresource or verb not in WRITE:
        return False
    return caller.role != identity.CONTROLLER


def refusal(
    caller: Caller,
    verb: str,
    resource: str,
    group: str,
    subresource: str = "",
    namespace: str = "",
    kind: Kind | None = None,
    name: str = "",
) -> Forbidden:
    """The 403 that says who may not do what, and where."""
    whole = f"{resource}/{subresource}" if subresource else resource
    place = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    what = f"{resource}.{group}" if group else resource
    target = f' "{name}"' if name else ""
    message = (
        f'{what}{target} is forbidden: User "{caller.name}" cannot {verb} resource "{whole}" '
        f'in API group "{group}" {place}'
    )
    return Forbidden(message, kind=kind, name=name)


def rules(roles: Iterable[str]) -> list[dict[str, list[str]]]:
    """The table of these roles as Kubernetes' ResourceRules, for `kubectl auth can-i --list`."""
    return [
        {"verbs": sorted(verbs), "apiGroups": ["*"], "resources": [resource]}
        for role in sorted(roles)
        for resource, verbs in ROLES.get(role, {}).items()
        if verbs
    ]
