"""The file that says who signs: for each purpose the built-in authority, or one outside.

Read once at the start, and complained about by path and field before anything is opened. The files
that it names are only looked at for being there: tokens and certificates are read when they are
used, since they are renewed in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from apiserver.pki import issued, signers
from apiserver.pki.issued import Trust, Unfit
from resources import kubeyaml

SERVER = "server"
# What certificates are for, and whose signer names belong to it.
PURPOSES: Mapping[str, frozenset[str]] = {
    "enrollment": frozenset({signers.ENROLLMENT}),
    "management": signers.MANAGEMENT | {signers.SVC_CLIENT},
    SERVER: frozenset({signers.SERVER_SVC}),
}
# Of Kubernetes' API: it refuses less.
EXPIRATION_S_MIN = 600


class SignerFileError(ValueError):
    """The file can't be followed; the message says where and why."""


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, strict=True, populate_by_name=True
    )


_File = Annotated[Path, Field(strict=False)]


class BuiltIn(_Model):
    """Our own authority. `trust_file`: authorities outside that signed earlier, and whose
    certificates are still good."""

    type: Literal["built-in"]
    trust_file: _File | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return () if self.trust_file is None else (self.trust_file,)


class _Outside(_Model):
    """`trust_file`: the authorities that sign the leaves; `ca_file`: by whom its own server is
    trusted, the system's authorities if it is left out."""

    url: str
    trust_file: _File
    ca_file: _File | None = None
    token_file: _File | None = None
    client_certificate_file: _File | None = None
    client_key_file: _File | None = None
    timeout_seconds: float = Field(10.0, ge=1, le=60, strict=False)

    @model_validator(mode="after")
    def _fits(self) -> _Outside:
        parts = urlsplit(self.url)
        if parts.scheme != "https" or not parts.hostname or parts.username or parts.fragment:
            raise ValueError("url must be https://HOST[:PORT][/PATH]")
        if (self.client_certificate_file is None) != (self.client_key_file is None):
            raise ValueError("clientCertificateFile and clientKeyFile come together")
        if self.token_file is None and self.client_certificate_file is None:
            raise ValueError("give tokenFile, or clientCertificateFile and clientKeyFile")
        return self

    @property
    def files(self) -> tuple[Path, ...]:
        named = (
            self.trust_file,
            self.ca_file,
            self.token_file,
            self.client_certificate_file,
            self.client_key_file,
        )
        return tuple(file for file in named if file is not None)


class Http(_Outside):
    """A server that follows docs/reference/http-signer.md."""

    type: Literal["http"]


class Kubernetes(_Outside):
    """The certificates API of a cluster; `signer_name` is who signs there."""

    type: Literal["kubernetes"]
    signer_name: str = Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9:._-]+$", max_length=571)
    expiration_seconds: int | None = Field(None, ge=EXPIRATION_S_MIN, le=3650 * 86_400)


Outside = Http | Kubernetes
Signer = BuiltIn | Http | Kubernetes
_READER: TypeAdapter[Signer] = TypeAdapter(Annotated[Signer, Field(discriminator="type")])


def read(file: Path) -> dict[str, Signer]:
    """Who signs, by purpose; a purpose that is not there is the built-in authority's. Raises
    SignerFileError."""
    try:
        document = yaml.load(file.read_text(), kubeyaml.Loader)  # noqa: S506 - a safe loader
    except (OSError, UnicodeDecodeError, yaml.YAMLError, kubeyaml.Refused) as error:
        raise SignerFileError(f"{file} can't be read: {error}") from error
    if not isinstance(document, dict):
        raise SignerFileError(f"{file} must be an object with {' and '.join(PURPOSES)}")
    if unknown := sorted(str(each) for each in set(document) - set(PURPOSES)):
        raise SignerFileError(
            f"{file}: {unknown[0]} is no purpose; known are {', '.join(PURPOSES)}"
        )
    found = {}
    for purpose, said in document.items():
        try:
            signer = _READER.validate_python(said)
        except ValidationError as problem:
            raise SignerFileError(f"{file}: {purpose}{_first(problem)}") from problem
        for named in signer.files:
            if not named.is_absolute() or not named.is_file():
                why = "there is no such file" if named.is_absolute() else "give a whole path"
                raise SignerFileError(f"{file}: {purpose}: {named}: {why}")
        found[purpose] = signer
    return found


def trust(file: Path) -> Trust:
    """The authorities in a trust file. Raises SignerFileError."""
    try:
        return issued.trust_of(file.read_bytes())
    except (OSError, Unfit) as error:
        raise SignerFileError(f"{file}: {error}") from error


def _first(problem: ValidationError) -> str:
    """The first complaint, with its place; of the union's choice nobody wants to hear."""
    error = problem.errors(include_url=False, include_context=False, include_input=False)[0]
    path = [str(part) for part in error["loc"] if part not in ("built-in", "http", "kubernetes")]
    return "".join(f".{part}" for part in path) + f": {error['msg']}"
