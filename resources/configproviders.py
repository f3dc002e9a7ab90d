"""Where configuration files of a device come from: Git, HTTP, a Kubernetes secret, or inline.

The kind of a provider is told by which key it has, tested in the order of `SOURCES`. The
invariant: within one spec no two providers have one name, and no two inline or HTTP files one
target path; files of Git trees and secrets are known, and so checked, only when they are fetched.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from resources import formats
from resources.errors import INVALID, REQUIRED, FieldError
from resources.formats import is_parameterised
from resources.kind import Json
from resources.meta import Complaints, Model, Unique, checked, complain, items, keyed, mapping, text

SOURCES = ("gitRef", "httpRef", "inline", "secretRef")
_NAME = Field(description="Name of this source, unique in the list.")


class InlineFile(Model):
    path: str = Field(description="Absolute path of the file on the device.")
    content: str = Field(description="Content of the file, plain or in base64; 1 MiB at most.")
    content_encoding: Literal["plain", "base64"] | None = Field(
        None, description="How content is written: plain (the default) or base64."
    )
    mode: int | None = Field(
        None,
        description="Permission bits as a number; YAML takes octal such as 0644. Default 0644.",
    )
    user: str | None = Field(None, description="Owning user, by name or number. Default root.")
    group: str | None = Field(None, description="Owning group, by name or number.")


class GitRef(Model):
    repository: str = Field(description="Name of the Repository to read from.")
    target_revision: str = Field(
        max_length=1024, description="Branch, tag or commit. A branch is followed."
    )
    path: str = Field(
        max_length=2048,
        description="Directory in the repository; the tree below it lands at / on the device.",
    )


class HttpRef(Model):
    repository: str = Field(description="Name of the Repository whose URL is asked.")
    suffix: str | None = Field(None, max_length=2048, description="Appended to the URL.")
    file_path: str = Field(description="Absolute path of the file that receives the answer.")


class SecretRef(Model):
    name: str = Field(description="Name of the Secret in the host cluster.")
    namespace: str = Field(description="Namespace of the Secret.")
    mount_path: str = Field(
        description="Absolute path of a directory; each key of the Secret becomes a file in it."
    )
    user: str | None = Field(None, description="Owning user of the files. Default root.")
    group: str | None = Field(None, description="Owning group of the files.")


class GitProvider(Model):
    name: str = _NAME
    git_ref: GitRef = Field(description="Takes a tree of files from a Git repository.")


class HttpProvider(Model):
    name: str = _NAME
    http_ref: HttpRef = Field(description="Takes one file from an HTTP server.")


class InlineProvider(Model):
    name: str = _NAME
    inline: list[InlineFile] = Field(
        description="Files written out here.", json_schema_extra=keyed("path")
    )


class SecretProvider(Model):
    name: str = _NAME
    secret_ref: SecretRef = Field(description="Takes files from a Secret of the host cluster.")


def source_of(provider: Any) -> str | None:
    """Which kind of provider this is; None when it names no source."""
    if isinstance(provider, dict):
        for key in SOURCES:
            if key in provider:
                return key
    return None


def source_key(provider: Json) -> str:
    """What it reads from, as flightctl names it in events; what it takes of it is not in it."""
    match source_of(provider):
        case "gitRef":
            reference = provider["gitRef"]
            return f"git:{reference['repository']}/{reference['targetRevision']}"
        case "httpRef":
            reference = provider["httpRef"]
            return f"http:{reference['repository']}/{(reference.get('suffix') or '').lstrip('/')}"
        case "secretRef":
            reference = provider["secretRef"]
            return f"secret:{reference['namespace']}/{reference['name']}"
        case _:
            return ""


def _tag(provider: Any) -> str | None:
    source = source_of(provider)
    return f"<{source}>" if source else None


ConfigProvider = Annotated[
    Annotated[GitProvider, Tag("<gitRef>")]
    | Annotated[HttpProvider, Tag("<httpRef>")]
    | Annotated[InlineProvider, Tag("<inline>")]
    | Annotated[SecretProvider, Tag("<secretRef>")],
    Discriminator(
        _tag,
        custom_error_type="no_source",
        custom_error_message="give one source: gitRef, httpRef, inline or secretRef",
    ),
]


def check(spec: Json, path: str, *, templated: bool) -> Complaints:
    """The rules for `spec.config`; `templated` says that parameters may stand for values."""
    names, targets = Unique("name"), Unique("target path")
    for index, provider in items(spec, "config"):
        here = f"{path}.config[{index}]"
        name = text(provider, "name")
        if name is not None:
            if not name:
                yield FieldError(f"{here}.name", REQUIRED, "name the source")
            else:
                yield from complain(f"{here}.name", formats.subdomain(name))
            yield from names.check(f"{here}.name", name)
        match source_of(provider):
            case "gitRef":
                yield from _git(mapping(provider, "gitRef"), f"{here}.gitRef", templated)
            case "httpRef":
                reference = mapping(provider, "httpRef")
                yield from _http(reference, f"{here}.httpRef", targets, templated)
            case "inline":
                for place, file in items(provider, "inline"):
                    yield from _file(file, f"{here}.inline[{place}]", targets, templated)
            case "secretRef":
                yield from _secret(mapping(provider, "secretRef"), f"{here}.secretRef", templated)


def _git(reference: Json, path: str, templated: bool) -> Complaints:
    yield from checked(reference, "repository", path, formats.subdomain)
    if not (templated and is_parameterised(reference.get("targetRevision"))):
        yield from checked(reference, "targetRevision", path, _git_revision)


def _git_revision(revision: str) -> str | None:
    return None if revision.strip() else "name a branch, tag or commit"


def _http(reference: Json, path: str, targets: Unique, templated: bool) -> Complaints:
    yield from checked(reference, "repository", path, formats.subdomain)
    yield from _target(reference, "filePath", path, templated)
    target = text(reference, "filePath")
    if target is not None:
        yield from targets.check(f"{path}.filePath", target)


def _secret(reference: Json, path: str, templated: bool) -> Complaints:
    for key in ("name", "namespace"):
        if not (templated and is_parameterised(reference.get(key))):
            yield from checked(reference, key, path, _secret_name)
    yield from _target(reference, "mountPath", path, templated)
    yield from checked(reference, "user", path, formats.user)
    yield from checked(reference, "group", path, formats.user)


def _secret_name(name: str) -> str | None:
    return formats.generic_name(name, formats.MAX_NAME)


def _target(document: Json, key: str, path: str, templated: bool) -> Complaints:
    if not (templated and is_parameterised(document.get(key))):
        yield from checked(document, key, path, formats.target_path)


def _file(file: Json, path: str, targets: Unique, templated: bool) -> Complaints:
    yield from _target(file, "path", path, templated)
    target = text(file, "path")
    if target is not None:
        yield from targets.check(f"{path}.path", target)
    mode = file.get("mode")
    if isinstance(mode, int):
        yield from complain(f"{path}.mode", formats.mode(mode))
    yield from checked(file, "user", path, formats.user)
    yield from checked(file, "group", path, formats.user)
    yield from check_content(file, path)


def check_content(file: Json, path: str) -> Complaints:
    """The content of an inline file, of configuration and of applications alike."""
    content = text(file, "content")
    if content is not None:
        encoding = text(file, "contentEncoding") or "plain"
        yield from complain(f"{path}.content", formats.content(content, encoding), INVALID)
