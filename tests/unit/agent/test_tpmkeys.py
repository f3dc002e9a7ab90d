"""A key in a TPM as the rest of the agent sees it, without one. The TPM itself is in
`tests/contract/test_tpm_agents.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent import config, configfiles, enrolling, errors, identity, proving, tpmkeys, transport
from tests.fakes.clocked_world import ClockedWorld

Json = dict[str, Any]
TPM = {"tpm": {"enabled": True, "device-path": "swtpm:port=1"}}
BASIC = {"enrollment-service": {"service": {"server": "https://localhost:7443"}}}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the agent tells OpenSSL's provider is for its own process."""
    monkeypatch.setenv(tpmkeys.PROVIDER_VARIABLE, "")


@pytest.fixture
def world(tmp_path: Path) -> ClockedWorld:
    return ClockedWorld(tmp_path)


@pytest.mark.parametrize(
    ("there", "device", "tcti"),
    [
        (("tpm0", "tpmrm0"), "/dev/tpm0", "device:/dev/tpmrm0"),
        (("tpm1",), "/dev/tpm1", "device:/dev/tpm1"),
        (("tpm0", "tpmrm0"), "/dev/tpmrm0", "device:/dev/tpmrm0"),
        (("tpm0", "tpm1", "tpmrm1", "tpmrm0"), "", "device:/dev/tpmrm0"),
        ((), "swtpm:host=127.0.0.1,port=1", "swtpm:host=127.0.0.1,port=1"),
    ],
)
def test_a_tpm_is_used_by_its_resource_manager(
    world: ClockedWorld, there: tuple[str, ...], device: str, tcti: str
) -> None:
    world.put("/dev/null", "")
    for name in there:
        world.put(f"/dev/{name}", "")
    assert tpmkeys.tcti_of(world, device) == tcti


def test_a_machine_without_a_tpm_is_told(world: ClockedWorld) -> None:
    world.put("/dev/tpm0", "")
    with pytest.raises(errors.Fatal, match="no TPM with a resource manager"):
        tpmkeys.tcti_of(world, "")


def settings(world: ClockedWorld, **changes: Any) -> config.Settings:
    import yaml

    world.put(config.CONFIG_FILE, yaml.safe_dump({**BASIC, **TPM, **changes}))
    return configfiles.load(world)


def asked_by(ask: tpmkeys.Ask, world: ClockedWorld) -> identity.Identity:
    """An identity whose TPM answers so."""
    found = settings(world)
    keys = tpmkeys.TpmKeys(world, found, ask)
    return identity.Identity(world, found, keys, tpm=keys)


def test_the_configuration_names_the_tpm_as_the_reference_does(world: ClockedWorld) -> None:
    found = settings(world, tpm={"enabled": True})
    assert found.tpm_device == "/dev/tpm0"
    assert found.tpm_storage == "/var/lib/flightctl/tpm-blob.yaml"
    named = {"enabled": True, "device-path": "", "storage-file-path": "/x"}
    found = settings(world, tpm=named)
    assert (found.tpm_device, found.tpm_storage) == ("", "/x")


def test_a_password_of_the_owner_is_refused_and_not_passed_over(world: ClockedWorld) -> None:
    tpm = {"enabled": True, "auth-enabled": True}
    with pytest.raises(errors.Fatal, match="auth-enabled"):
        identity.Identity(world, settings(world, tpm=tpm))


def test_a_tpm_that_fails_costs_no_identity(world: ClockedWorld) -> None:
    """Neither a key in a file nor a blob is replaced."""
    world.put("/var/lib/flightctl/certs/agent.key", "-----BEGIN EC PRIVATE KEY-----")
    world.put("/var/lib/flightctl/tpm-blob.yaml", "lak: {}")
    asked: list[Json] = []

    def ask(question: Json, module: str) -> Json:
        asked.append(question)
        return {"error": "TPM: it is silent"}

    who = asked_by(ask, world)
    with pytest.raises(errors.Fatal, match="it is silent"):
        who.open()
    assert [each["do"] for each in asked] == ["describe"]
    assert world.read("/var/lib/flightctl/certs/agent.key") == b"-----BEGIN EC PRIVATE KEY-----"
    assert world.read("/var/lib/flightctl/tpm-blob.yaml") == b"lak: {}"
    assert who.tpm is not None
    with pytest.raises(transport.Unreachable, match="silent"):
        who.tpm.bundle(b"key")


def test_both_keys_are_written_before_the_one_that_is_a_name(world: ClockedWorld) -> None:
    def ask(question: Json, module: str) -> Json:
        assert module == "agent.tpm"
        if question["do"] == "create":
            assert question["blobs"] == ""
            return {"key": "KEY", "blobs": "BLOBS"}
        assert world.read("/var/lib/flightctl/tpm-blob.yaml") == b"BLOBS"
        return {"name": "n" * 52}

    who = asked_by(ask, world)
    who.open()
    assert who.name == "n" * 52
    assert world.read("/var/lib/flightctl/certs/agent.key") == b"KEY"
    kept = world.stat("/var/lib/flightctl/tpm-blob.yaml")
    assert kept is not None
    assert kept.mode & 0o777 == 0o600


def condition(status: str, reason: str) -> Json:
    return {"status": {"conditions": [{"type": "TPMVerified", "status": status, "reason": reason}]}}


@pytest.mark.parametrize(
    ("document", "is_unproven"),
    [
        (condition("False", "TPMChallengeRequired"), True),
        (condition("False", "TPMChallengeFailed"), True),
        (condition("False", "TPMVerificationFailed"), False),
        (condition("True", "TPMChallengeSucceeded"), False),
        ({"status": {"conditions": []}}, False),
        ({"status": {"conditions": [None]}}, False),
        (None, False),
    ],
)
def test_a_proof_is_given_where_one_is_missing(document: Any, is_unproven: bool) -> None:
    assert enrolling.is_unproven(document) is is_unproven


def test_what_answers_no_grpc_is_asked_again_later() -> None:
    """Nobody listens there."""
    question = {
        "server": "https://127.0.0.1:1",
        "name": "n",
        "authority": "",
        "certificate": "",
        "enrollmentKey": "",
        "serverName": "",
        "insecure": True,
    }
    answer = proving.prove(question, lambda *_: b"")
    assert answer["outcome"] == proving.LATER
    assert answer["message"]


@pytest.mark.parametrize("raw", [b"\x0a", b"\x0a\x05abc", b"\x08\x01", b"\xff" * 12])
def test_messages_that_are_none_are_told(raw: bytes) -> None:
    with pytest.raises(Exception, match="can't be read"):
        list(proving._fields(raw))


@pytest.mark.parametrize("answer", [{}, {"error": "TPM: locked out"}])
def test_a_device_that_leaves_clears_its_tpm_as_far_as_that_goes(
    world: ClockedWorld, answer: Json
) -> None:
    world.put("/var/lib/elsewhere.yaml", "ldevid: x")
    asked: list[str] = []

    def ask(question: Json, module: str) -> Json:
        asked.append(question["do"])
        return answer

    named = {**TPM["tpm"], "storage-file-path": "/var/lib/elsewhere.yaml"}
    tpmkeys.TpmKeys(world, settings(world, tpm=named), ask).forget()
    assert asked == ["clear"]
    assert world.read("/var/lib/elsewhere.yaml") is None
