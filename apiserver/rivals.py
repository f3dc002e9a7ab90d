"""One AuthProvider for the tokens of one client at one issuer.

Of two the first alone would ever be asked, and which one that is would hang on their order; so the
second is refused, in whichever organisation it is (contract: duplicates are 409). Judged inside the
transaction that writes, so of two at once one comes too late.

One that a super administrator vouches for is not kept out by one of another organisation that
nobody vouches for: it is asked first anyway, and the other could have been put there to be in the
way. What is said of another organisation's is that it exists, not how it is called.
"""

from __future__ import annotations

from apiserver import errors, vouching
from apiserver.auth.claims import normalised
from apiserver.store import Snapshot
from resources.authprovider import OAUTH2
from resources.kind import Json, Kind
from resources.registry import AUTH_PROVIDER

Who = tuple[str, str, str]  # the field that tells issuers apart, its value, the client


def guard(snapshot: Snapshot, kind: Kind, old: Json | None, new: Json) -> None:
    """Raises Conflict where another AuthProvider has the tokens that `new` wants."""
    if kind is not AUTH_PROVIDER:
        return
    who = identity_of(new)
    if old is not None and identity_of(old) == who:
        return
    for other in snapshot.list(AUTH_PROVIDER, None):
        if _place(other) == _place(new) or identity_of(other) != who:
            continue
        is_here = _place(other)[0] == _place(new)[0]
        if is_here or vouching.is_marked(other) or not vouching.is_marked(new):
            field, url, client = who
            whose = f'AuthProvider "{_place(other)[1]}"' if is_here else "another AuthProvider"
            why = f"{whose} has spec.{field} {url} with spec.clientId {client} already; change that"
            raise errors.conflict(kind, new["metadata"]["name"], why)


def identity_of(document: Json) -> Who:
    """What no two may have together."""
    spec = document["spec"]
    field = "userinfoUrl" if spec.get("providerType") == OAUTH2 else "issuer"
    return field, normalised(str(spec.get(field) or "")), str(spec.get("clientId") or "")


def _place(document: Json) -> tuple[str, str]:
    metadata = document["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
