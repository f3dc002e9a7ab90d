"""Who is calling, as every face and the operations see it, however it was proved.

The invariant: a `Caller` is made by an authenticator and by nobody else, after the proof was
checked; the operations and the roles trust it without looking at headers or certificates again.
"""

from __future__ import annotations

from dataclasses import dataclass

# Roles are strings, since identity providers name them; these are the ones that we give out.
ADMIN = "admin"
CONTROLLER = "controller"
OPERATOR = "operator"
VIEWER = "viewer"
INSTALLER = "installer"
DEVICE = "device"
ENROLLMENT = "enrollment"
# Authenticated, but no role was given: may ask who it is and what it may do, nothing else.
NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated user, device or part of the service.

    `namespace` is the organisation that a device or an enrolment certificate belongs to, `device`
    the device's name; both are empty for people. `source` says how it was proved, for the audit.
    """

    name: str
    groups: frozenset[str] = frozenset()
    role: str = VIEWER
    namespace: str = ""
    device: str = ""
    source: str = ""
