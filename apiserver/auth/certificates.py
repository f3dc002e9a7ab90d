"""Users by client certificate: CN is the name, O are the groups.

The authority that signs users' certificates signs devices' too, so the chain alone proves nothing
here. A certificate counts exactly if the signer that is written into it is the one for users; a
device's or an enrolment certificate is nobody on this face, whatever its subject says.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Protocol, TypeVar

from apiserver.auth import roles
from apiserver.auth.chain import Authenticator, Evidence
from apiserver.auth.identity import AUTHENTICATED, Caller
from apiserver.errors import Unauthorized

USER_SIGNER = "homeport.dev/user"


Said = TypeVar("Said", bound="Claims")


class Claims(Protocol):
    """What a certificate says of its holder."""

    @property
    def signer(self) -> str: ...
    @property
    def common_name(self) -> str: ...
    @property
    def groups(self) -> tuple[str, ...]: ...


def by_certificate(
    claims_of: Callable[[bytes], Said], check: Callable[[Said], None]
) -> Authenticator:
    """`claims_of` reads a certificate in DER, and raises ValueError for one that it can't read;
    `check` raises Unauthorized for one that counts no more."""

    # Connections are kept open and certificates are few: reading each once is enough.
    @functools.lru_cache(maxsize=1024)
    def known(certificate: bytes) -> tuple[Said, Caller] | None:
        try:
            claims = claims_of(certificate)
        except ValueError:
            return None
        if claims.signer != USER_SIGNER or not claims.common_name:
            return None
        groups = frozenset((*claims.groups, AUTHENTICATED))
        caller = Caller(
            name=claims.common_name,
            groups=groups,
            role=roles.role_of(groups),
            source="certificate",
        )
        return claims, caller

    async def authenticate(evidence: Evidence) -> Caller | None:
        if evidence.certificate is None:
            return None
        found = known(evidence.certificate)
        if found is None:
            raise Unauthorized("this client certificate is not one for users")
        claims, caller = found
        check(claims)
        return caller

    return authenticate
