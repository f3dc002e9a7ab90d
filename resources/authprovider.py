"""AuthProvider: an identity provider whose users may come, who they are here, and what they may do.

The complaints of this module never show the value of a credential.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
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

OIDC, OAUTH2, K8S = "oidc", "oauth2", "k8s"
# What people can make, and what whoever starts the server can name beside.
TYPES, TYPES_OF_FILE = (OIDC, OAUTH2), (OIDC, OAUTH2, K8S)
STATIC, DYNAMIC, PER_USER = "static", "dynamic", "perUser"
# What a provider's own service account, its console or its users would be called anyway.
USERNAME_CLAIM = ("preferred_username",)
PER_USER_PREFIX = "user-org-"
SEPARATOR = ":"

_GITHUB_API = "https://api.github.com"
# Where a cluster puts what its pods prove themselves by.
_IN_CLUSTER = "/var/run/secrets/kubernetes.io/serviceaccount"
_ADDRESSES = (
    "issuer", "authorizationUrl", "tokenUrl", "userinfoUrl", "deviceAuthorizationUrl", "apiUrl",
)  # fmt: skip
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
    url: str | None = Field(
        None, description="Whom to ask; for rfc7662, and for GitHub's API on a host of one's own."
    )
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
    device_authorization_url: str | None = Field(
        None, description="Where a login by code begins (RFC 8628); without it there is none."
    )
    introspection: Introspection | None = Field(
        None,
        description="Who tells if a token is valid; GitHub, or tokenUrl with introspect for token "
        "at its end, unless given.",
    )


class K8sProvider(Model):
    provider_type: Literal["k8s"] = Field(description="Tokens of a Kubernetes cluster.")
    api_url: str = Field(description="Address of its API server.")
    display_name: str | None = Field(None, description="Name for people.")
    enabled: bool | None = Field(None, description="False turns its users away.")
    rbac_ns: str | None = Field(None, description="Namespace whose RoleBindings give roles.")
    role_suffix: str | None = Field(None, description="Taken off the names of roles.")
    organization_name_prefix: str | None = Field(None, description="Put before default.")
    organization_assignment: OrganizationAssignment | None = Field(
        None, description="Which organization its users belong to, unless default."
    )
    role_assignment: RoleAssignment | None = Field(
        None, description="Which roles its users have, instead of those of RoleBindings."
    )
    token_file: str | None = Field(None, description="What the service proves itself by there.")
    ca_file: str | None = Field(None, description="Authority of the API server's certificate.")


def _tag(types: Collection[str]) -> Callable[[Any], str | None]:
    def tag(spec: Any) -> str | None:
        found = spec.get("providerType") if isinstance(spec, dict) else None
        return f"<{found}>" if found in types else None

    return tag


def _one_of(types: Collection[str], why_not: str) -> Discriminator:
    return Discriminator(
        _tag(types),
        custom_error_type="providerType",
        custom_error_message=f"write one of: {', '.join(types)}; {why_not}",
    )


AuthProviderSpec = Annotated[
    Annotated[OidcProvider, Tag("<oidc>")] | Annotated[OAuth2Provider, Tag("<oauth2>")],
    _one_of(TYPES, "k8s is for the file of --auth-providers; openshift and aap are not served"),
]


class AuthProvider(Document):
    """An identity provider whose users may come."""

    spec: AuthProviderSpec = Field(description="Where it is, and what its users may do here.")


class ConfiguredAuthProvider(Document):
    """One of the file that a server is started with."""

    spec: Annotated[
        Annotated[OidcProvider, Tag("<oidc>")]
        | Annotated[OAuth2Provider, Tag("<oauth2>")]
        | Annotated[K8sProvider, Tag("<k8s>")],
        _one_of(TYPES_OF_FILE, "openshift and aap are not served"),
    ] = Field(description="Where it is, and what its users may do here.")


# External names of roles, as providers report them.
ROLES = (
    "flightctl-admin",
    "flightctl-org-admin",
    "flightctl-operator",
    "flightctl-viewer",
    "flightctl-installer",
    # Ours: reads the audit.
    "homeport-auditor",
)


def check(document: Json) -> None:
    """The rules for a whole AuthProvider."""
    raise_all(_check(mapping(document, "spec")))


def _check(spec: Json) -> Complaints:
    for key in _ADDRESSES:
        yield from checked(spec, key, "spec", _address)
    yield from _path(spec, "usernameClaim", "spec")
    yield from _check_organizations(mapping(spec, "organizationAssignment"))
    yield from _check_roles(mapping(spec, "roleAssignment"))
    yield from _check_introspection(mapping(spec, "introspection"))
    if spec.get("providerType") == OAUTH2 and not introspection(spec):
        yield FieldError("spec.introspection", REQUIRED, "tokenUrl does not tell whom to ask")
    if spec.get("providerType") == K8S and not (spec.get("rbacNs") or spec.get("roleAssignment")):
        yield FieldError("spec.rbacNs", REQUIRED, "needed without roleAssignment")


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


def introspection(spec: Json) -> Json:
    """Who tells if a token of an OAuth 2 provider is valid: as it says, or as its other addresses
    tell; empty when they don't (contract §6.7)."""
    if said := spec.get("introspection"):
        return {"url": _GITHUB_API} | said if said.get("type") == "github" else dict(said)
    urls = [str(spec.get(key) or "") for key in ("authorizationUrl", "tokenUrl", "userinfoUrl")]
    if hosts := [host for host in map(_host, urls) if "github" in host]:
        own = hosts[0] not in ("github.com", "api.github.com")
        return {"type": "github", "url": f"https://{hosts[0]}/api/v3" if own else _GITHUB_API}
    stem, token, rest = urls[1].rpartition("/token")
    return {"type": "rfc7662", "url": f"{stem}/introspect"} if token and not rest else {}


def completed(spec: Json) -> Json:
    """What a provider says and what holds where it says nothing."""
    kind = spec.get("providerType")
    if kind == OAUTH2:
        # An object that was stored before it had to have one may have none.
        return spec | {
            "issuer": spec.get("issuer") or spec["authorizationUrl"],
            "introspection": introspection(spec),
        }
    if kind == K8S:
        default = f"{spec.get('organizationNamePrefix') or ''}default"
        return {
            "usernameClaim": ["username"],
            "organizationAssignment": {"type": STATIC, "organizationName": default},
            "roleAssignment": {"type": DYNAMIC, "claimPath": ["roles"]},
            "tokenFile": f"{_IN_CLUSTER}/token",
            "caFile": f"{_IN_CLUSTER}/ca.crt",
        } | {key: value for key, value in spec.items() if value is not None}
    return spec


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


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
