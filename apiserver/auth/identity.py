"""Who is calling, as every face and the operations see it, however it was proved.

The invariant: a `Caller` is made by an authenticator and by nobody else, after the proof was
checked; the operations and the roles trust it without looking at headers or certificates again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

# Roles are strings, since identity providers name them; these are the ones that we give out.
ADMIN = "admin"
CONTROLLER = "controller"
OPERATOR = "operator"
VIEWER = "viewer"
INSTALLER = "installer"
AUDITOR = "auditor"
DEVICE = "device"
ENROLLMENT = "enrollment"
# Authenticated, but no role was given: may ask who it is and what it may do, nothing else.
NOBODY = "nobody"
ORG_ADMIN = "org-admin"
# The group of whoever is known.
AUTHENTICATED = "system:authenticated"
# The key of `Caller.further` for roles that hold in every namespace.
EVERYWHERE = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from and what its client says it is, for the audit."""

    address: str = ""
    agent: str = ""
    request_id: str = ""


NOWHERE = Origin()


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated user, device or part of the service.

    `role` holds in every namespace, each of `further` in the one that is its key (or EVERYWHERE).
    `namespace` is the organisation that a device or an enrolment certificate belongs to, `device`
    the device's name; both are empty for people. `source` says how it was proved, and is empty for
    the service itself; `origin` is of the one request that this caller came with. `expires_at`
    (Unix seconds) is when the proof ends, as far as it says so itself.
    """

    name: str
    groups: frozenset[str] = frozenset()
    role: str = VIEWER
    namespace: str = ""
    device: str = ""
    source: str = ""
    further: Mapping[str, frozenset[str]] = field(default_factory=dict)
    origin: Origin = NOWHERE
    expires_at: float = math.inf

    def roles_in(self, namespace: str) -> frozenset[str]:
        """All that it has there; for "" those that hold in every namespace."""
        here = self.further.get(EVERYWHERE, frozenset()) | self.further.get(namespace, frozenset())
        return here | {self.role} if self.role != NOBODY or not here else here

    @property
    def identity(self) -> str:
        """Who it is among all: two identity providers may each have an ada."""
        return f"{self.source}: {self.name}"

    @property
    def is_super_admin(self) -> bool:
        """Whether it may say who belongs to which organisation."""
        return ADMIN in self.roles_in(EVERYWHERE)
