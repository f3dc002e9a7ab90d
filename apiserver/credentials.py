"""The two files that make a fresh server usable: a kubeconfig and an agent's configuration.

Written at the first start, mode 0600, with keys that are nowhere else. At later starts addresses
and the authority are brought up to date and certificates near their end are renewed; what people
added to the files stays. The enrolment certificate is for early binding: it is built into OS images
and must outlive them.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import structlog
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from apiserver import provisioning
from apiserver.auth.certificates import USER_SIGNER
from apiserver.operations import DEFAULT_ORGANIZATION
from apiserver.pki import requests, signers
from apiserver.pki.authority import Authority
from apiserver.provisioning import Addresses
from apiserver.storing import DEFAULT_NAMESPACE
from resources.kind import Json

ADMIN_NAME = "admin"
ADMIN_GROUP = "system:masters"
ADMIN_LIFETIME = timedelta(days=365)
ENROLLMENT_LIFETIME = timedelta(days=3650)
# Renewed at a start this long before the end.
RENEWAL = timedelta(days=60)

KUBECONFIG = "admin.kubeconfig"
AGENT_CONFIG = Path("enrollment") / "config.yaml"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes


def ensure(
    data: Path, authority: Authority, addresses: Addresses, *, now: Callable[[], datetime]
) -> None:
    """Both files under `data`, as they should be now."""
    _ensure_kubeconfig(data / KUBECONFIG, authority, addresses.url, now())
    _ensure_agent_config(data / AGENT_CONFIG, authority, addresses, now())


def _ensure_kubeconfig(path: Path, authority: Authority, url: str, now: datetime) -> None:
    document = _read(path)
    user = _entry(document, "users", "user")
    credential = _kept(user, authority, now) or _issue(
        authority, ADMIN_NAME, USER_SIGNER, ADMIN_LIFETIME, groups=(ADMIN_GROUP,)
    )
    user |= {
        "client-certificate-data": _base64(credential.certificate),
        "client-key-data": _base64(credential.key),
    }
    cluster = _entry(document, "clusters", "cluster")
    cluster |= {"server": url, "certificate-authority-data": _base64(authority.server_ca_pem)}
    context = _entry(document, "contexts", "context")
    for key, value in (
        ("cluster", "homeport"), ("user", ADMIN_NAME), ("namespace", DEFAULT_NAMESPACE)
    ):  # fmt: skip
        context.setdefault(key, value)
    _write(path, {"apiVersion": "v1", "kind": "Config", "current-context": "homeport"} | document)


_NAMES = {"users": ADMIN_NAME, "clusters": "homeport", "contexts": "homeport"}


def _entry(document: Json, part: str, key: str) -> Json:
    """The entry of ours in a list of the kubeconfig; made if it is not there."""
    entries = document.setdefault(part, [])
    for entry in entries:
        if entry.get("name") == _NAMES[part]:
            found: Json = entry.setdefault(key, {})
            return found
    made: Json = {}
    entries.append({"name": _NAMES[part], key: made})
    return made


def _ensure_agent_config(
    path: Path, authority: Authority, addresses: Addresses, now: datetime
) -> None:
    document = _read(path)
    section: Json = document.setdefault("enrollment-service", {})
    shown: Json = section.setdefault("authentication", {})
    credential = _kept(shown, authority, now) or _issue(
        authority,
        f"{signers.ENROLLMENT_PREFIX}early-binding",
        signers.ENROLLMENT,
        ENROLLMENT_LIFETIME,
    )
    made = provisioning.service(authority, addresses, credential.certificate, credential.key)
    shown |= made["authentication"]
    service: Json = section.setdefault("service", {})
    service |= made["service"]
    section["enrollment-ui-endpoint"] = made["enrollment-ui-endpoint"]
    path.parent.mkdir(mode=0o700, exist_ok=True)
    _write(path, document)


def _issue(
    authority: Authority,
    common_name: str,
    signer: str,
    lifetime: timedelta,
    groups: tuple[str, ...] = (),
) -> Credential:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(key, hashes.SHA256())
    )
    certificate = authority.issue_client(
        requests.parse(csr.public_bytes(serialization.Encoding.PEM)),
        common_name=common_name,
        signer=signer,
        organization=UUID(DEFAULT_ORGANIZATION),
        fingerprint=None,
        lifetime=lifetime,
        groups=groups,
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Credential(certificate, pem)


def _kept(holder: Json, authority: Authority, now: datetime) -> Credential | None:
    """The credential in the file if it is of this authority and has time left."""
    try:
        certificate = base64.b64decode(holder["client-certificate-data"])
        key = base64.b64decode(holder["client-key-data"])
        found = x509.load_pem_x509_certificate(certificate)
        if not authority.has_issued(found) or found.not_valid_after_utc - now < RENEWAL:
            return None
    except Exception:  # absent, cut or another authority's: in each case a new one is due
        return None
    return Credential(certificate, key)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _read(path: Path) -> Json:
    """The document in the file; an empty one where there is none that can be read."""
    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        log.warning("file replaced", path=str(path), why=str(error))
        return {}
    return document if isinstance(document, dict) else {}


def _write(path: Path, document: Json) -> None:
    """At once, for the owner's eyes only; not at all if nothing changed."""
    text = yaml.safe_dump(document, sort_keys=False)
    if path.exists() and path.read_text() == text:
        path.chmod(0o600)
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
