"""A Git repository and how to get in, as the git program is told it.

The invariant: a Remote never shows a credential. It is not in its repr, nothing of it goes into an
argument or an environment, and `scrub` takes it out of what others say. What git and ssh must read
lies in memory files (see `gitprogram`), which have no name in any directory and end with the call.

Only https, http, ssh and git are spoken. Others, such as `ext::`, run programs or read this
machine's own files, and who may name a repository may not therefore do that.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from controllers.giterrors import BadRemote
from resources import digest

Json = dict[str, Any]

PROTOCOLS = ("https", "http", "ssh", "git")
# user@host:path, as people copy it from a forge; a path with a slash before the colon is a file.
_SCP_LIKE = re.compile(r"(?:[^@/\s:]+@)?(?:\[[0-9a-fA-F:]+\]|[^/\s:\[\]]+):(?!//|:)\S+")


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a repository is, and with what we come. Texts that are empty are not given."""

    namespace: str
    url: str
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    # PEM texts; `private_key` is open, in OpenSSH's form.
    certificate: str = field(default="", repr=False)
    certificate_key: str = field(default="", repr=False)
    authorities: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)
    # Lines of a known_hosts file. None: that of the service.
    known_hosts: str | None = field(default=None, repr=False)
    verify: bool = True

    @property
    def is_ssh(self) -> bool:
        return self.url.startswith("ssh://") or bool(_SCP_LIKE.fullmatch(self.url))

    @property
    def is_http(self) -> bool:
        return self.url.startswith(("https://", "http://"))

    @property
    def host(self) -> str:
        """Who is spoken to, for messages: with its port where one is given."""
        if "://" in self.url:
            return urlsplit(self.url).netloc.rpartition("@")[2] or self.url
        return self.url.partition(":")[0].rpartition("@")[2]

    @property
    def mirror(self) -> str:
        """The name of its mirror: one for a URL and a namespace, whatever the credentials, and no
        namespace reads what another one fetched."""
        return digest.of_bytes(f"{self.namespace}\n{self.url}".encode()).partition(":")[2][:40]

    def secrets(self) -> tuple[str, ...]:
        """Everything that must be seen nowhere."""
        basic = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        # A name that comes alone is a token: forges take those so.
        alone = "" if self.password else self.username
        given = (self.password, self.token, self.certificate_key, self.private_key, alone)
        return tuple(text for text in (*given, basic if self.password else "") if text)

    def scrub(self, text: str) -> str:
        """The text without our credentials."""
        for secret in self.secrets():
            text = text.replace(secret, "*****")
        return text


def remote_of(repository: Mapping[str, Any]) -> Remote:
    """The Remote that a Repository with its credentials (not masked) describes. Raises BadRemote,
    which names the field and shows no value."""
    metadata, spec = repository["metadata"], repository["spec"]
    if spec.get("type") != "git":
        raise BadRemote(f'Repository "{metadata["name"]}" is of type {spec.get("type")}, not git')
    remote = address_of(repository)
    if remote.is_ssh:
        return _with_ssh(remote, spec.get("sshConfig") or {})
    return _with_http(remote, spec.get("httpConfig") or {})


def address_of(repository: Mapping[str, Any]) -> Remote:
    """The Remote without the credentials, which a reader of the Repository need not have."""
    metadata, spec = repository["metadata"], repository["spec"]
    return _without_userinfo(Remote(metadata.get("namespace", ""), _url(spec["url"])))


def _url(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    known = scheme.lower() in PROTOCOLS if separator else _SCP_LIKE.fullmatch(url)
    if not known or url.startswith("-") or any(c.isspace() or not c.isprintable() for c in url):
        raise BadRemote(
            "spec.url: write https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH; other "
            "ways are not spoken"
        )
    return f"{scheme.lower()}://{url[len(scheme) + 3 :]}" if separator else url


def _without_userinfo(remote: Remote) -> Remote:
    """Credentials inside the URL go where no process list shows them. SSH needs the user there."""
    parts = urlsplit(remote.url)
    userinfo, _, host = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    if password and not remote.is_http:
        raise BadRemote("spec.url: SSH takes no password there; give spec.sshConfig.sshPrivateKey")
    if not userinfo or not remote.is_http:
        return remote
    return replace(
        remote,
        url=urlunsplit(parts._replace(netloc=host)),
        username=unquote(username),
        password=unquote(password),
    )


def _with_http(remote: Remote, config: Json) -> Remote:
    for key in ("username", "password", "token"):
        if any(c in str(config.get(key, "")) for c in "\r\n\0"):
            raise BadRemote(f"spec.httpConfig.{key}: must be one line")
    return replace(
        remote,
        username=config.get("username") or remote.username,
        password=config.get("password") or remote.password,
        token=config.get("token") or "",
        certificate=_decoded(config, "tls.crt"),
        certificate_key=_decoded(config, "tls.key"),
        authorities=_decoded(config, "ca.crt"),
        verify=not config.get("skipServerVerification"),
    )


def _decoded(config: Json, key: str) -> str:
    try:
        return base64.b64decode(config.get(key) or "", validate=True).decode()
    except (binascii.Error, ValueError):
        raise BadRemote(f"spec.httpConfig[{key}]: must be PEM in base64") from None


def _with_ssh(remote: Remote, config: Json) -> Remote:
    return replace(
        remote,
        private_key=_opened(
            config.get("sshPrivateKey") or "", config.get("privateKeyPassphrase") or ""
        ),
        known_hosts=config.get("knownHosts"),
        verify=not config.get("skipServerVerification"),
    )


def _opened(encoded: str, passphrase: str) -> str:
    """The private key without its passphrase, in memory only: ssh itself could ask for it only
    through a program that knows it."""
    if not encoded:
        return ""
    here = "spec.sshConfig.sshPrivateKey"
    try:
        raw = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise BadRemote(f"{here}: must be in base64") from None
    is_openssh = b"BEGIN OPENSSH PRIVATE KEY" in raw
    load = serialization.load_ssh_private_key if is_openssh else serialization.load_pem_private_key
    try:
        try:
            key = load(raw, None)
        except TypeError:
            if not passphrase:
                raise BadRemote(
                    f"{here}: the key is locked; give spec.sshConfig.privateKeyPassphrase"
                ) from None
            key = load(raw, passphrase.encode())
    except UnsupportedAlgorithm:
        raise BadRemote(f"{here}: a key of this type cannot be used; take ed25519") from None
    except ValueError:
        raise BadRemote(
            f"{here}: is not a whole private key in OpenSSH's or PEM form, or "
            "spec.sshConfig.privateKeyPassphrase does not open it"
        ) from None
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    ).decode()
