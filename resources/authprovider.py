"""AuthProvider: an identity provider whose users may come, who they are here, and what they may do.

The complaints of this module never show the value of a credential.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag

from resources.errors import FORBIDDEN, INVALID, REQUIRED, FieldError
from resources.kind import Json
from resources.meta import (
    ATOMIC,
    Complaints,
    Document,
    Model,
    checked,
    complain,
    mapping,
    raise_all,
)

OIDC, OAUTH2 = "oidc", "oauth2"
TYPES = (OIDC, OAUTH2)
STATIC, DYNAMIC, PER_USER = "static", "dynamic", "perUser"
# What a provider's own service account, its console or its users would be called anyway.
USERNAME_CLAIM = ("preferred_username",)
PER_USER_PREFIX = "user-org-"
SEPARATOR = ":"

_SECRET: Json = {"format": "password"}
_PATH = "Where in the claims, from the outermost name inwards."


class OrganizationAssignment(Model):
    type: Literal["static", "dynamic", "perUser"] = Field(
        description="static: all users belong to organizationName; dynamic: to those that a claim "
        "names; perUser: each to one of its own."
    )
    organization_name: str | None = Field(None, description="Of all users; for static.")
    claim_path: list[str] | None = Field(
        None, description=f"{_PATH} For dynamic.", json_schema_extra=ATOMIC
    )
    organization_name_prefix: str | None = Field(
        None, description="Put before the name; with perUser user-org- unless given."
    )
    organization_name_suffix: str | None = Field(None, description="Put behind the name.")


class RoleAssignment(Model):
    type: Literal["static", "dynamic"] = Field(
        description="static: all users have roles; dynamic: those that a claim names."
    )
    roles: list[str] | None = Field(
        None, description="Of all users; for static.", json_schema_extra=ATOMIC
    )
    claim_path: list[str] | None = Field(
        None,
        description=f"{_PATH} There stands role, or organization:role. For dynamic.",
        json_schema_extra=ATOMIC,
    )
    separator: str | None = Field(
        None, min_length=1, description="Between organization and role; a colon unless given."
    )


class Introspection(Model):
    type: Literal["rfc7662", "github", "jwt"] = Field(description="How a token is checked.")
    url: str | None = Field(None, description="Whom to ask; for rfc7662 and github.")
    jwks_url: str | None = Field(None, description="Keys that tokens are signed with; for jwt.")
    issuer: str | None = Field(None, description="Whose tokens they must be; for jwt.")
    audience: list[str] | None = Field(
        None, description="For whom they must be; for jwt.", json_schema_extra=ATOMIC
    )


class _Provider(Model):
    client_id: str = Field(min_length=1, description="What this service is called there.")
    client_secret: str = Field(description="What it proves that by.", json_schema_extra=_SECRET)
    display_name: str | None = Field(None, description="Name for people.")
    enabled: bool | None = Field(None, description="False turns its users away; true unless given.")
    scopes: list[str] | None = Field(
        None, description="What a login asks for.", json_schema_extra=ATOMIC
    )
    username_claim: list[str] | None = Field(
        None,
        description="Where in the claims the user's name stands; preferred_username unless given.",
        json_schema_extra=ATOMIC,
    )
    organization_assignment: OrganizationAssignment = Field(
        description="Which organizations its users belong to."
    )
    role_assignment: RoleAssignment = Field(description="Which roles its users have.")


class OidcProvider(_Provider):
    provider_type: Literal["oidc"] = Field(description="OpenID Connect.")
    issuer: str = Field(description="Address that the provider is found at, and signs as.")


class OAuth2Provider(_Provider):
    provider_type: Literal["oauth2"] = Field(description="OAuth 2, without identity tokens.")
    issuer: str | None = Field(
        None, description="Name of the provider; the first URL unless given."
    )
    authorization_url: str = Field(description="Where users log in.")
    token_url: str = Field(description="Where codes are exchanged for tokens.")
    userinfo_url: str = Field(description="Who tells the claims of a token.")
    introspection: Introspection | None = Field(None, description="Who tells if a token is valid.")


def _tag(spec: Any) -> str | None:
    found = spec.get("providerType") if isinstance(spec, dict) else None
    return f"<{found}>" if found in TYPES else None


AuthProviderSpec = Annotated[
    Annotated[OidcProvider, Tag("<oidc>")] | Annotated[OAuth2Provider, Tag("<oauth2>")],
    Discriminator(
        _tag,
        custom_error_type="providerType",
        custom_error_message="write one of: " + ", ".join(TYPES),
    ),
]


class AuthProvider(Document):
    """An identity provider whose users may come."""

    spec: AuthProviderSpec = Field(description="Where it is, and what its users may do here.")


# External names of roles, as providers report them.
ROLES = (
    "flightctl-admin",
    "flightctl-org-admin",
    "flightctl-operator",
    "flightctl-viewer",
    "flightctl-installer",
)


def check(document: Json) -> None:
    """The rules for a whole AuthProvider."""
    raise_all(_check(mapping(document, "spec")))


def _check(spec: Json) -> Complaints:
    for key in ("issuer", "authorizationUrl", "tokenUrl", "userinfoUrl"):
        yield from checked(spec, key, "spec", _address)
    yield from _path(spec, "usernameClaim", "spec")
    yield from _check_organizations(mapping(spec, "organizationAssignment"))
    yield from _check_roles(mapping(spec, "roleAssignment"))
    yield from _check_introspection(mapping(spec, "introspection"))


def _check_organizations(assignment: Json) -> Complaints:
    here, kind = "spec.organizationAssignment", assignment.get("type")
    yield from _belongs(assignment, here, "organizationName", kind == STATIC)
    yield from _belongs(assignment, here, "claimPath", kind == DYNAMIC)
    yield from _path(assignment, "claimPath", here)


def _check_roles(assignment: Json) -> Complaints:
    here, kind = "spec.roleAssignment", assignment.get("type")
    yield from _belongs(assignment, here, "roles", kind == STATIC)
    yield from _belongs(assignment, here, "claimPath", kind == DYNAMIC)
    yield from _path(assignment, "claimPath", here)
    roles = assignment.get("roles")
    for index, role in enumerate(roles if isinstance(roles, list) else ()):
        if role not in ROLES:
            yield FieldError(f"{here}.roles[{index}]", INVALID, "one of: " + ", ".join(ROLES))


def _check_introspection(introspection: Json) -> Complaints:
    here, kind = "spec.introspection", introspection.get("type")
    for key in ("url", "jwksUrl"):
        yield from checked(introspection, key, here, _address)
    if kind == "rfc7662" and not introspection.get("url"):
        yield FieldError(f"{here}.url", REQUIRED, "needed for rfc7662")
    if kind == "jwt" and not introspection.get("jwksUrl"):
        yield FieldError(f"{here}.jwksUrl", REQUIRED, "needed for jwt")


def _belongs(assignment: Json, here: str, key: str, is_wanted: bool) -> Complaints:
    """A field that its type needs, and that no other type has."""
    kind = assignment.get("type")
    if is_wanted and not assignment.get(key):
        yield FieldError(f"{here}.{key}", REQUIRED, f"needed with type {kind}")
    if not is_wanted and kind is not None and assignment.get(key) is not None:
        yield FieldError(f"{here}.{key}", FORBIDDEN, f"has no meaning with type {kind}")


def _path(document: Json, key: str, here: str) -> Complaints:
    path = document.get(key)
    for index, name in enumerate(path if isinstance(path, list) else ()):
        yield from complain(f"{here}.{key}[{index}]", None if name else "must not be empty")


def _address(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("https", "http") or not parts.hostname:
        return "must be an absolute URL: https://..."
    if parts.username or parts.password:
        return "has a user or a password inside, where everybody can read it"
    return None
