"""Who did what: an entry for each write of somebody, in the transaction that does it.

The invariant: a write that was answered has its entry, and an entry has its write; a rehearsal has
none, like its write. Nothing of a body is ever in one. What was refused changed nothing, so its
entry may come a second later, with others (`refusals`).

Not told are the service's own housekeeping, and what is only its bookkeeping: events, leases,
backlogs, the status that controllers keep. What follows from a write by itself (what an owner takes
along, devices that are bound and rendered) is told by that write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from apiserver.auth.identity import CONTROLLER, Caller
from apiserver.store import Transaction
from apiserver.store.auditlog import Entry
from apiserver.verbs import Deleted, Written
from resources.kind import Json, Kind

T = TypeVar("T")

# What a stranger may write into an entry.
TEXT_MAX = 253
AGENT_MAX = 200
GROUPS_MAX = 50
# What came of a request for a certificate, as its reason.
ISSUED, APPROVED, DENIED, FAILED = "Issued", "Approved", "Denied", "Failed"
_BOOKKEEPING = frozenset({"Event", "Lease", "Backlog"})


@dataclass(frozen=True, slots=True)
class Act:
    """What a caller is about to do."""

    caller: Caller
    verb: str
    kind: Kind
    namespace: str
    name: str = ""
    subresource: str = ""

    @property
    def is_told(self) -> bool:
        if not self.caller.source or self.kind.kind in _BOOKKEEPING:
            return False
        return self.caller.role != CONTROLLER or self.subresource != "status"

    def about(self, document: Json | None = None) -> Json:
        """The fields of an AuditedObject, with what is known of the object."""
        metadata = (document or {}).get("metadata") or {}
        return {
            "apiVersion": self.kind.api_version,
            "kind": self.kind.kind,
            "namespace": metadata.get("namespace") or self.namespace,
            "name": metadata.get("name") or self.name,
            "subresource": self.subresource,
            "uid": metadata.get("uid"),
            "resourceVersion": metadata.get("resourceVersion"),
        }


def noted(act: Act, work: Callable[[Transaction], T]) -> Callable[[Transaction], T]:
    """`work`, and the entries of what it did."""

    def run(tx: Transaction) -> T:
        result = work(tx)
        for code, document in _outcomes(result):
            note(tx, act, document, code)
        return result

    return run


def note(tx: Transaction, act: Act, document: Json, code: int = 200, reason: str = "") -> None:
    """The entry of an act that came to `document`."""
    if act.is_told:
        tx.audit([entry(act.caller, act.verb, act.about(document), code, reason)])


def authority_changed(tx: Transaction, verb: str, number: int, by: str) -> None:
    """The entry of a generation of the authority that is made or ended: by who could write into the
    directory of a server, and was called `by` there, or by the service itself."""
    service = Caller(name="system:homeport:rotation", source="service")
    caller = Caller(name=by, source="data directory") if by else service
    about = {"kind": "CertificateAuthority", "name": f"generation-{number}"}
    tx.audit([entry(caller, verb, about, 200)])


def _outcomes(result: Any) -> Iterator[tuple[int, Json]]:
    """The code of the answer, and each object that it is about."""
    match result:
        case Written():
            yield (201 if result.created else 200), result.document
        case Deleted():
            yield 200, result.document
        case list() | tuple():
            yield from ((200, document) for document in result)
        case _:
            raise AssertionError(f"what came of it is not known: {type(result)}")


def entry(caller: Caller, verb: str, about: Json, code: int, reason: str = "") -> Entry:
    """An entry; `about` are the fields of an AuditedObject."""
    about = {key: str(value)[:TEXT_MAX] for key, value in about.items() if value}
    namespace = about.get("namespace", "")
    spec: Json = {
        "user": caller.name[:TEXT_MAX],
        "groups": _some(caller.groups),
        "roles": _some(caller.roles_in(namespace)),
        "authenticatedBy": caller.source,
        "sourceAddress": caller.origin.address,
        "userAgent": caller.origin.agent[:AGENT_MAX],
        "requestId": caller.origin.request_id,
        "verb": verb,
        "object": about,
        "code": code,
        "reason": reason,
    }
    return Entry(
        namespace=namespace,
        user=spec["user"],
        verb=verb,
        kind=about.get("kind", ""),
        name=about.get("name", ""),
        spec={key: value for key, value in spec.items() if value},
    )


def _some(names: Iterable[str]) -> Sequence[str]:
    return [name[:TEXT_MAX] for name in sorted(names)[:GROUPS_MAX]]
