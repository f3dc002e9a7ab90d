"""Where the API server is and who we are there, from a kubeconfig."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controllers.__main__ import main
from controllers.session import BadKubeconfig, Endpoint, from_kubeconfig


def pair() -> tuple[str, str]:
    """A self-signed certificate and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "controllers")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    return (
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(serialization.Encoding.PEM, pkcs8, plain).decode(),
    )


def written(path: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    document = {
        "current-context": "here",
        "contexts": [
            {"name": "other", "context": {"cluster": "x", "user": "y"}},
            {"name": "here", "context": {"cluster": "c", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_a_certificate_inside_the_kubeconfig_is_used(tmp_path: Path) -> None:
    certificate, key = pair()
    path = written(
        tmp_path / "config",
        {"server": "https://localhost:1/", "certificate-authority-data": encoded(certificate)},
        {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)},
    )
    endpoint = from_kubeconfig(path)
    assert endpoint == Endpoint(
        server="https://localhost:1", ca=certificate, certificate=certificate, key=key
    )
    async with endpoint.session() as session:
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(endpoint.server)


def test_files_that_it_names_lie_beside_it(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("AUTHORITY")
    path = written(
        tmp_path / "config",
        {"server": "https://h", "certificate-authority": "ca.pem"},
        {"token": "secret"},
    )
    assert from_kubeconfig(path) == Endpoint(server="https://h", ca="AUTHORITY", token="secret")


async def test_a_token_is_sent_with_every_request() -> None:
    async with Endpoint(server="http://h", token="secret").session() as session:
        assert session.headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("a: [", id="not YAML"),
        pytest.param("current-context: x\ncontexts: []", id="no such context"),
        pytest.param("- a", id="not a mapping"),
    ],
)
def test_what_is_no_kubeconfig_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(BadKubeconfig, match=str(path)):
        from_kubeconfig(path)


@pytest.mark.parametrize("how", ["exec", "auth-provider"])
def test_a_kubeconfig_that_runs_programs_is_refused(tmp_path: Path, how: str) -> None:
    path = written(tmp_path / "config", {"server": "https://h"}, {how: {"command": "x"}})
    with pytest.raises(BadKubeconfig, match=how):
        from_kubeconfig(path)


def test_the_process_says_what_is_wrong_with_its_kubeconfig(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--kubeconfig", str(tmp_path / "missing")]) == 1
    assert "missing" in capsys.readouterr().err
