"""Repository: where configuration and images come from, and the credentials for it.

`type` tells the kind. The complaints of this module never show the value of a credential.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from resources import formats
from resources.errors import FORBIDDEN, INVALID, REQUIRED, FieldError
from resources.kind import Json
from resources.meta import (
    ATOMIC,
    SET,
    Complaints,
    Condition,
    Document,
    Model,
    Unique,
    checked,
    complain,
    conditions,
    items,
    mapping,
    raise_all,
    text,
)

TYPES = ("git", "http", "oci")
MAX_URL = 2048
MAX_PEM_BYTES = 20 << 20

_SECRET: Json = {"format": "password"}
_TAG = Annotated[
    str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")
]
_URL = Field(min_length=1, max_length=MAX_URL, description="Address of the repository.")


class HttpConfig(Model):
    username: str | None = Field(None, description="User name; needs password.")
    password: str | None = Field(
        None, description="Password; needs username.", json_schema_extra=_SECRET
    )
    token: str | None = Field(None, description="Bearer token, a JWT.", json_schema_extra=_SECRET)
    tls_crt: str | None = Field(
        None,
        alias="tls.crt",
        description="Client certificate, PEM in base64; needs tls.key.",
        json_schema_extra=_SECRET,
    )
    tls_key: str | None = Field(
        None,
        alias="tls.key",
        description="Key of the client certificate, PEM in base64.",
        json_schema_extra=_SECRET,
    )
    ca_crt: str | None = Field(
        None, alias="ca.crt", description="Certificates to trust the server by, PEM in base64."
    )
    skip_server_verification: bool | None = Field(
        None, description="True trusts any server. For trials only."
    )


class SshConfig(Model):
    ssh_private_key: str | None = Field(
        None, description="Private key in base64.", json_schema_extra=_SECRET
    )
    private_key_passphrase: str | None = Field(
        None, description="What the private key is locked with.", json_schema_extra=_SECRET
    )
    known_hosts: str | None = Field(
        None,
        max_length=65536,
        description="Host keys to know the server by, as lines of a known_hosts file. Without it, "
        "those that the service was given.",
    )
    skip_server_verification: bool | None = Field(
        None, description="True trusts any server. For trials only."
    )


class DockerAuth(Model):
    auth_type: Literal["docker"] = Field(description="How to log in: docker, by name and password.")
    username: str = Field(description="User name.")
    password: str = Field(description="Password or token.", json_schema_extra=_SECRET)


class BaseImage(Model):
    image_name: str = Field(
        min_length=1, max_length=255, description="Name of the image in the registry."
    )
    display_name: str | None = Field(None, description="Name for people.")
    tags: list[_TAG] = Field(
        min_length=1, description="Tags that are offered.", json_schema_extra=SET
    )


class GitRepository(Model):
    type: Literal["git"] = Field(description="A Git repository.")
    url: str = _URL
    http_config: HttpConfig | None = Field(None, description="How to reach it by HTTPS.")
    ssh_config: SshConfig | None = Field(None, description="How to reach it by SSH.")
    webhook_secret: str | None = Field(
        None,
        description="What the forge signs its webhooks with; they go to /hooks/NAMESPACE/NAME of "
        "the service. Without it none is believed.",
        json_schema_extra=_SECRET,
    )


class HttpRepository(Model):
    type: Literal["http"] = Field(description="An HTTP server that gives out files.")
    url: str = _URL
    http_config: HttpConfig | None = Field(None, description="How to reach it by HTTPS.")
    validation_suffix: str | None = Field(
        None, description="Appended to url to test whether the server answers."
    )


class OciRepository(Model):
    type: Literal["oci"] = Field(description="A registry of images.")
    registry: str = Field(description="Host of the registry, with a port if needed; no scheme.")
    scheme: Literal["http", "https"] | None = Field(
        None, description="How to speak to it: https (the default) or http."
    )
    access_mode: Literal["Read", "ReadWrite"] | None = Field(
        None, description="Whether images may be pushed: Read (the default) or ReadWrite."
    )
    oci_auth: DockerAuth | None = Field(None, description="How to log in; absent if public.")
    ca_crt: str | None = Field(
        None, alias="ca.crt", description="Certificates to trust the registry by, PEM in base64."
    )
    skip_server_verification: bool | None = Field(
        None, description="True trusts any server. For trials only."
    )
    base_images: list[BaseImage] | None = Field(
        None, description="Images that others can be built on.", json_schema_extra=ATOMIC
    )


def _tag(spec: Any) -> str | None:
    found = spec.get("type") if isinstance(spec, dict) else None
    return f"<{found}>" if found in TYPES else None


RepositorySpec = Annotated[
    Annotated[GitRepository, Tag("<git>")]
    | Annotated[HttpRepository, Tag("<http>")]
    | Annotated[OciRepository, Tag("<oci>")],
    Discriminator(
        _tag,
        custom_error_type="type",
        custom_error_message="write one of: " + ", ".join(TYPES),
    ),
]


class RepositoryStatus(Model):
    conditions: list[Condition] | None = conditions(
        "Accessible if it could be read last time; Ready, Reconciling and Stalled for programs "
        "that wait."
    )


class Repository(Document):
    """A source of configuration or images, with the credentials for it."""

    spec: RepositorySpec = Field(description="Where it is and how to reach it.")
    status: RepositoryStatus | None = Field(None, description="Whether it could be reached.")


def check(document: Json) -> None:
    """The rules for a whole Repository."""
    raise_all(_check(mapping(document, "spec")))


def _check(spec: Json) -> Complaints:
    if spec.get("type") == "oci":
        yield from _check_oci(spec)
    yield from checked(spec, "url", "spec", _no_password)
    yield from checked(spec, "webhookSecret", "spec", _hard_to_guess)
    http, ssh = spec.get("httpConfig"), spec.get("sshConfig")
    if http is not None and ssh is not None:
        yield FieldError("spec.sshConfig", FORBIDDEN, "give either httpConfig or sshConfig")
    if isinstance(http, dict):
        yield from _check_http(http, "spec.httpConfig")
    if isinstance(ssh, dict):
        if ssh.get("privateKeyPassphrase") and not ssh.get("sshPrivateKey"):
            yield FieldError("spec.sshConfig.sshPrivateKey", REQUIRED, "needed with a passphrase")
        yield from checked(ssh, "sshPrivateKey", "spec.sshConfig", _base64)


def _check_http(http: Json, path: str) -> Complaints:
    for one, other in (("username", "password"), ("tls.crt", "tls.key")):
        for given, missing in ((one, other), (other, one)):
            if http.get(given) is not None and http.get(missing) is None:
                yield FieldError(
                    f"{path}[{missing}]" if "." in missing else f"{path}.{missing}",
                    REQUIRED,
                    f"needed with {given}",
                )
    for key in ("username", "password"):
        yield from checked(http, key, path, _short)
    for key in ("ca.crt", "tls.crt", "tls.key"):
        value = text(http, key)
        if value is not None:
            yield from complain(f"{path}[{key}]", _base64(value))
    yield from checked(http, "token", path, _jwt)


def _check_oci(spec: Json) -> Complaints:
    yield from checked(spec, "registry", "spec", formats.registry)
    ca = text(spec, "ca.crt")
    if ca is not None:
        yield from complain("spec[ca.crt]", _base64(ca))
    auth = mapping(spec, "ociAuth")
    for key, limit in (("username", 256), ("password", 8192)):
        value = text(auth, key)
        if value is not None and not 1 <= len(value) <= limit:
            detail = f"must have 1 to {limit} characters"
            yield FieldError(f"spec.ociAuth.{key}", INVALID, detail)
    names = Unique("image")
    for index, image in items(spec, "baseImages"):
        here = f"spec.baseImages[{index}]"
        yield from names.check(f"{here}.imageName", image.get("imageName"))
        tags = Unique("tag")
        found = image.get("tags")
        for place, tag in enumerate(found if isinstance(found, list) else ()):
            if isinstance(tag, str):
                yield from tags.check(f"{here}.tags[{place}]", tag)


def _no_password(url: str) -> str | None:
    # A URL is shown to everybody.
    userinfo = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
    if ":" in userinfo:
        return "has a password inside, where everybody can read it; give it in spec.httpConfig"
    return None


def _hard_to_guess(value: str) -> str | None:
    # It travels in headers as it is, and whoever wants to guess it may try as often as he likes.
    if re.fullmatch(r"[!-~]{16,255}", value):
        return None
    return "must have 16 to 255 printable ASCII characters and no space"


def _short(value: str) -> str | None:
    return None if 1 <= len(value) <= 256 else "must have 1 to 256 characters"


def _base64(value: str) -> str | None:
    if len(value) > MAX_PEM_BYTES:
        return f"must be no more than {MAX_PEM_BYTES >> 20} MiB"
    return None if value and formats.decoded(value) is not None else "must be base64"


def _jwt(value: str) -> str | None:
    right = re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}", value)
    return None if right else "must be a JWT: three parts of base64url with dots between"
