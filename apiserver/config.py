"""What a server is told at its start: checked once, frozen, the same for everybody inside.

The invariant: a Settings that exists can be served. What is wrong is said before anything is
opened, with the name of the option.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from apiserver.pki import signerfile, tpmroots
from apiserver.pki.tpmroots import NO_MAKERS, Roots
from apiserver.store import KeyFile
from resources import authprovider, kubeyaml, registry, validation
from resources.kind import Json

DEFAULT_LISTEN = "127.0.0.1:3443"
DEFAULT_AGENT_LISTEN = "127.0.0.1:7443"
# In the data directory; made at the first start.
KEYS_FILE = "encryption-keys"
AUDIT_DAYS = 90
# What the kernel allows as the path of a UNIX socket, less its terminating zero.
SOCKET_PATH_BYTES_MAX = 107

Address = tuple[str, int]


class ConfigError(ValueError):
    """The server can't be started as it was told; the message says why and what to change."""


@dataclass(frozen=True)
class Limits:
    """What one may ask for in a second, by who it is; 0 for no bound."""

    writes_per_second: float = 500.0
    lists_per_second: float = 50.0
    device_requests_per_second: float = 200.0


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Settings:
    """`url` and `agent_url` are how others reach us, empty for what is listened on; `database` is a
    URL, empty for SQLite in `data`; without `controllers_socket` there is no such listener;
    `providers` are AuthProviders, beside those that are made at run time; `keys` is the file of
    encryption keys; the audit is kept for `audit_days`, and followed into `audit_log` if there is
    such a file; `signers` says who signs certificates, by purpose, where that is not the built-in
    authority; `tpm_makers` are those of TPMs whose word counts; metrics are on `metrics_listen`."""

    data: Path
    listen: Address
    agent_listen: Address
    keys: KeyFile
    audit_log: Path | None = None
    audit_days: int = AUDIT_DAYS
    limits: Limits = DEFAULT_LIMITS
    url: str = ""
    agent_url: str = ""
    database: str = ""
    controllers_socket: Path | None = None
    providers: tuple[Json, ...] = ()
    signers: Mapping[str, signerfile.Signer] = field(default_factory=dict)
    tpm_makers: Roots = NO_MAKERS
    metrics_listen: Address | None = None

    def server_names(self) -> list[str]:
        """The names and addresses that the server certificate is for."""
        names = [urlsplit(url).hostname or "" for url in (self.url, self.agent_url)]
        names += [host for host, _ in (self.listen, self.agent_listen) if host not in _ANY]
        names += ["localhost", "127.0.0.1"]
        return [name for name in dict.fromkeys(names) if name]


_ANY = ("", "0.0.0.0", "::")  # noqa: S104 - told apart, not listened on


def settings_of(
    *,
    data: Path,
    listen: str = DEFAULT_LISTEN,
    agent_listen: str = DEFAULT_AGENT_LISTEN,
    url: str = "",
    agent_url: str = "",
    database: str = "",
    auth_providers: Path | None = None,
    encryption_keys: Path | None = None,
    signers: Path | None = None,
    audit_log: Path | None = None,
    audit_days: int = AUDIT_DAYS,
    tpm_ca: Path | None = None,
    metrics_listen: str = "",
    limits: Limits = DEFAULT_LIMITS,
    with_controllers: bool = True,
) -> Settings:
    """The settings that options mean. Raises ConfigError."""
    data = data.absolute()
    socket = data / "controllers.sock" if with_controllers else None
    if socket is not None and len(str(socket).encode()) > SOCKET_PATH_BYTES_MAX:
        raise ConfigError(f"--data: the path {data} is too long for a socket in it; use a shorter")
    if database and not database.startswith(("sqlite:///", "postgresql://")):
        raise ConfigError(
            f'--database: "{database}" is neither sqlite:///PATH nor postgresql://...'
        )
    for name, rate in vars(limits).items():
        if not 0 <= rate < math.inf:
            raise ConfigError(f"--{name.replace('_', '-')}: {rate} is no number of requests")
    if audit_days < 1:
        raise ConfigError("--audit-days: the audit is kept for one day at least")
    settings = Settings(
        data=data,
        listen=address("--listen", listen),
        agent_listen=address("--agent-listen", agent_listen),
        keys=KeyFile(encryption_keys) if encryption_keys else KeyFile(data / KEYS_FILE, True),
        url=_url("--url", url),
        agent_url=_url("--agent-url", agent_url),
        database=database,
        audit_log=audit_log and audit_log.absolute(),
        audit_days=audit_days,
        limits=limits,
        controllers_socket=socket,
        providers=_providers(auth_providers) if auth_providers else (),
        signers=_signers(signers) if signers else {},
        tpm_makers=_makers(tpm_ca) if tpm_ca else NO_MAKERS,
        metrics_listen=address("--metrics-listen", metrics_listen) if metrics_listen else None,
    )
    if settings.listen == settings.agent_listen and settings.listen[1]:
        raise ConfigError("--listen and --agent-listen must differ: users and agents meet apart")
    return settings


def address(option: str, text: str) -> Address:
    """`HOST:PORT`, with IPv6 hosts in brackets; port 0 lets the kernel choose."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigError(f'{option}: "{text}" is not HOST:PORT')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"{option}: write the address as [{host}]:{port}")
    return host, int(port)


def _providers(file: Path) -> tuple[Json, ...]:
    """The AuthProviders of a file of YAML documents."""
    option = "--auth-providers"
    kind = replace(registry.AUTH_PROVIDER, model=authprovider.ConfiguredAuthProvider)
    try:
        # As the same documents would be read from kubectl.
        read = yaml.load_all(file.read_text(), kubeyaml.Loader)
        found = [document for document in read if document]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, kubeyaml.Refused) as error:
        raise ConfigError(f"{option}: {file} can't be read: {error}") from error
    names = set()
    for document in found:
        if not isinstance(document, dict) or document.get("kind") != kind.kind:
            raise ConfigError(f"{option}: {file}: every document must be of kind {kind.kind}")
        for problem in validation.validate(kind, document):
            raise ConfigError(f"{option}: {file}: {problem.path}: {problem.detail}")
        name = document["metadata"]["name"]
        if name in names:
            raise ConfigError(f"{option}: {file}: two are called {name}")
        names.add(name)
    return tuple(found)


def _signers(file: Path) -> Mapping[str, signerfile.Signer]:
    try:
        found = signerfile.read(file)
        for signer in found.values():
            if signer.trust_file is not None:
                signerfile.trust(signer.trust_file)
    except signerfile.SignerFileError as error:
        raise ConfigError(f"--signers: {error}") from error
    return found


def _makers(directory: Path) -> Roots:
    """Whom a directory of certificates names as makers of TPMs."""
    try:
        return tpmroots.load(directory)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--tpm-ca: {error}") from error


def _url(option: str, text: str) -> str:
    if not text:
        return ""
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ConfigError(f'{option}: "{text}" is not https://HOST:PORT')
    return text.rstrip("/")


def url_of(host: str, port: int) -> str:
    """How a server on this machine is reached that listens there."""
    if host in _ANY:
        host = "localhost"
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
