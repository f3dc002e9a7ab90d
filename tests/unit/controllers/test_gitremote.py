"""From a Repository to what the git program is told; and that nothing of it shows."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from controllers import giterrors, gitprogram
from controllers.giterrors import BadRemote
from controllers.gitprogram import Git
from controllers.gitremote import Remote, remote_of

Json = dict[str, Any]
SECRET = "Tr0ub4dor&3"
GIT = Git(Path("/etc/known hosts"))


def repository(**spec: Any) -> Json:
    return {
        "metadata": {"name": "fleets", "namespace": "default"},
        "spec": {"type": "git", "url": "https://git.example.com/fleets.git", **spec},
    }


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def key_pem(passphrase: bytes = b"", *, form: str = "OpenSSH") -> str:
    key = (
        ed25519.Ed25519PrivateKey.generate()
        if form == "OpenSSH"
        else rsa.generate_private_key(65537, 2048)
    )
    locked = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    made = key.private_bytes(
        serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), locked
    )
    return base64.b64encode(made).decode()


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://git.example.com/a/b", "git.example.com"),
        ("HTTP://git.example.com:8080/a", "git.example.com:8080"),
        ("ssh://git@git.example.com:2222/a", "git.example.com:2222"),
        ("git@git.example.com:a/b.git", "git.example.com"),
        ("git://git.example.com/a", "git.example.com"),
    ],
)
def test_the_ways_that_are_spoken(url: str, host: str) -> None:
    assert remote_of(repository(url=url)).host == host


@pytest.mark.parametrize(
    "url",
    ["ext::sh -c id", "file:///etc", "/etc", "-oProxyCommand=id", "fd::7", "ftp://h/a", "a b:c",
     "https://h/a\nb"],
)  # fmt: skip
def test_other_ways_are_refused(url: str) -> None:
    with pytest.raises(BadRemote, match=r"^spec\.url: write https"):
        remote_of(repository(url=url))


def test_credentials_of_the_url_leave_it() -> None:
    remote = remote_of(repository(url=f"https://me:{SECRET}@git.example.com/a"))
    assert remote.url == "https://git.example.com/a"
    assert (remote.username, remote.password) == ("me", SECRET)
    alone = remote_of(repository(url=f"https://{SECRET}@git.example.com/a"))
    assert alone.scrub(f"x {SECRET}") == "x *****"
    with pytest.raises(BadRemote, match="SSH takes no password"):
        remote_of(repository(url=f"ssh://git:{SECRET}@git.example.com/a"))


@pytest.mark.parametrize(
    ("key", "passphrase"),
    [
        pytest.param(key_pem(), "", id="open"),
        pytest.param(key_pem(), SECRET, id="open, with a passphrase all the same"),
        pytest.param(key_pem(SECRET.encode()), SECRET, id="locked"),
        pytest.param(key_pem(SECRET.encode(), form="PKCS8"), SECRET, id="locked, of PKCS 8"),
        pytest.param(key_pem(form="TraditionalOpenSSL"), "", id="of PKCS 1"),
    ],
)
def test_private_keys_are_opened(key: str, passphrase: str) -> None:
    ssh = {"sshPrivateKey": key, "privateKeyPassphrase": passphrase}
    remote = remote_of(repository(url="git@h:a", sshConfig=ssh))
    serialization.load_ssh_private_key(remote.private_key.encode(), None)


@pytest.mark.parametrize(
    ("key", "passphrase", "says"),
    [
        pytest.param(key_pem(SECRET.encode()), "", "locked; give spec.sshConfig", id="locked"),
        pytest.param(key_pem(SECRET.encode()), "other", "does not open it", id="other passphrase"),
        pytest.param(
            encoded("-----BEGIN OPENSSH PRIVATE KEY-----\n"), "x", "not a whole", id="cut"
        ),
        pytest.param(encoded("nothing"), "", "not a whole private key", id="no key"),
        pytest.param("not base64!", "", "must be in base64", id="not encoded"),
    ],
)
def test_keys_that_are_none_name_their_field_and_show_nothing(
    key: str, passphrase: str, says: str
) -> None:
    ssh = {"sshPrivateKey": key, "privateKeyPassphrase": passphrase}
    with pytest.raises(BadRemote, match=says) as refused:
        remote_of(repository(url="git@h:a", sshConfig=ssh))
    assert str(refused.value).startswith("spec.sshConfig.sshPrivateKey: ")
    assert SECRET not in str(refused.value)
    assert key not in str(refused.value)


def test_a_remote_shows_nothing_and_what_git_is_told_is_in_memory_only() -> None:
    remote = Remote(
        "default", "https://git.example.com/a", username="me", password=SECRET,
        certificate="PEM", certificate_key=SECRET, authorities="CA",
    )  # fmt: skip
    assert SECRET not in repr(remote)
    with gitprogram._told(remote, GIT) as environment:
        assert SECRET not in repr(environment)
        config = Path(environment["GIT_CONFIG_GLOBAL"])
        assert (config.stat().st_mode & 0o777) == 0o600
        assert SECRET not in config.read_text()
        answer = next(w for w in config.read_text().split() if w.startswith("/proc/") and ";" in w)
        assert Path(answer.rstrip(";")).read_text() == f"username=me\npassword={SECRET}\n"
    assert not config.exists()


def test_one_namespace_has_nothing_of_what_another_one_fetched() -> None:
    one, other = (Remote(namespace, "https://h/a") for namespace in ("a", "b"))
    assert one.mirror != other.mirror
    assert one.mirror == Remote("a", "https://h/a", token="t").mirror


def test_what_git_says_is_quoted_without_credentials() -> None:
    remote = Remote("default", "https://h/a", username="me", password=SECRET)
    said = f"remote: {SECRET} is wrong\nfatal: unforeseen {SECRET}"
    problem = giterrors.recognised(said, host="h", url=remote.url, scrub=remote.scrub)
    assert str(problem) == "h: fatal: unforeseen *****"
