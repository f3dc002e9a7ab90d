"""Real agents with real TPM commands: our agent as a process, swtpm for a TPM, our service over
mutual TLS. [simulated] The TPM is software; what speaks to it would speak so to one of silicon.
"""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import tpm as agent_tpm
from apiserver.agentapi.settings import AgentApiSettings
from apiserver.pki import signers, tpmbundle, tpmroots
from resources.registry import ENROLLMENT_REQUEST
from tests.contract.test_tpm_enrollment import challenge, request, verified
from tests.fakes import agent_client, software_tpm, swtpm
from tests.fakes.agent_service import AgentService, serving
from tests.fakes.swtpm import TCTI, Maker, Tpm

Json = dict[str, Any]

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
CONFIG = [{"name": "motd", "inline": [{"path": "/etc/motd", "content": "hi"}]}]
pytestmark = [
    pytest.mark.skipif(bool(swtpm.missing()), reason=swtpm.missing() or "there"),
    pytest.mark.timeout(180),
]


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    print("[simulated] TPM: swtpm")
    return Maker(tmp_path_factory.mktemp("maker"))


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory, maker: Maker) -> Iterator[Tpm]:
    with swtpm.made(tmp_path_factory.mktemp("t") / "tpm", maker) as made:
        yield made


@pytest.fixture
async def service(tmp_path: Path, maker: Maker, tpm: Tpm) -> AsyncIterator[AgentService]:
    makers = tpmroots.load(maker.certificates)
    settings = AgentApiSettings(hold_s=2, presence_flush_s=0.2, challenge_s=20)
    async with serving(tmp_path, settings, makers=makers) as running:
        yield running


class Device:
    """An agent in a directory of its own, with a TPM."""

    def __init__(self, root: Path, service: AgentService, tpm: Tpm) -> None:
        self.root = root
        self._tpm = tpm
        self._log = root.with_name(f"{root.name}.log")
        self._process: subprocess.Popen[bytes] | None = None
        pem = service.certificate_pem()
        at = pem.index(b"-----BEGIN PRIVATE")
        texts = {
            "certificate-authority-data": service.authority.server_ca_pem,
            "client-certificate-data": pem[:at],
            "client-key-data": pem[at:],
        }
        coded = {name: base64.b64encode(text).decode() for name, text in texts.items()}
        authority = coded.pop("certificate-authority-data")
        server = {"server": service.url, "certificate-authority-data": authority}
        document = {
            "enrollment-service": {"service": server, "authentication": coded},
            "enrollment-verify-interval": "2s",
            "enrollment-verify-cap": "2s",
            "status-update-interval": "2s",
            "tpm": {"enabled": True, "device-path": TCTI},
        }
        config = root / "etc/flightctl/config.yaml"
        config.parent.mkdir(parents=True)
        config.write_text(yaml.safe_dump(document))

    @property
    def data(self) -> Path:
        return self.root / "var/lib/flightctl"

    @property
    def key(self) -> str:
        return (self.data / "certs/agent.key").read_text()

    @property
    def name(self) -> str:
        return str(agent_tpm.answer({"do": "describe", "key": self.key})["name"])

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agent", "--root", str(self.root)],
                cwd="/",
                stdout=log,
                stderr=log,
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(REPOSITORY),
                    "FLIGHTCTL_DISABLE_CONSOLE_BANNER": "1",
                    **self._tpm.environ,
                },
            )

    async def stop(self) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self._process.wait, 20)

    async def until(self, what: Callable[[], Awaitable[object]], *, dies: bool = False) -> None:
        assert self._process is not None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await what():
                    assert dies or self._process.poll() is None, self.words()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(self.words())

    def words(self) -> str:
        return self._log.read_text()[-4000:]

    async def keyed(self) -> object:
        return (self.data / "certs/agent.key").exists()


@pytest.fixture
async def device(tmp_path: Path, service: AgentService, tpm: Tpm) -> AsyncIterator[Device]:
    made = Device(tmp_path / "device", service, tpm)
    yield made
    if made._process is not None:
        await made.stop()


async def is_said(service: AgentService, name: str, reason: str) -> bool:
    found = await service.store.read(lambda s: s.get(ENROLLMENT_REQUEST, "default", name))
    return bool(found and found.get("status") and verified(found)[1] == reason)


async def test_an_agent_with_a_tpm_of_a_trusted_maker_is_verified_and_lives_by_its_key(
    service: AgentService, device: Device
) -> None:
    device.start()
    await device.until(device.keyed)
    name = device.name
    await device.until(lambda: is_said(service, name, "TPMChallengeSucceeded"))
    await service.approve(name)

    async def has(version: str) -> bool:
        status = (await service.device(name))["status"]
        return bool(status["config"]["renderedVersion"] == version)

    certificate = device.data / "certs/agent.crt"
    await device.until(lambda: asyncio.to_thread(certificate.exists))
    await device.until(lambda: has("1"))
    found = await service.device(name)
    assert found["status"]["integrity"]["status"] == "Verified"
    # What is on the disk is of no use to who copies it.
    kept = b"".join(path.read_bytes() for path in device.data.rglob("*") if path.is_file())
    assert b"BEGIN TSS2 PRIVATE KEY" in kept
    for plain in (b"BEGIN EC PRIVATE KEY", b"BEGIN PRIVATE KEY", b"BEGIN RSA PRIVATE KEY"):
        assert plain not in kept
    modes = {path.stat().st_mode & 0o777 for path in device.data.glob("**/agent.key")}
    assert modes == {(device.data / "tpm-blob.yaml").stat().st_mode & 0o777} == {0o600}

    assert await device.stop() == 0, device.words()
    await service.change(name, spec={"config": CONFIG})
    device.start()
    await device.until(lambda: has("2"))
    assert (device.root / "etc/motd").read_text() == "hi"
    assert device.name == name


async def test_an_agent_with_a_tpm_of_another_maker_is_not_verified(
    tmp_path: Path, service: AgentService
) -> None:
    with swtpm.made(tmp_path / "t", Maker(tmp_path / "elsewhere")) as foreign:
        device = Device(tmp_path / "device", service, foreign)
        device.start()
        try:
            await device.until(device.keyed)
            name = device.name
            await device.until(lambda: is_said(service, name, "TPMVerificationFailed"))
            assert verified(await request(service, name))[0] == "False"
            await service.approve(name)
            integrity = (await service.device(name))["status"]["integrity"]
            assert integrity["status"] == integrity["deviceIdentity"]["status"] == "Failed"
        finally:
            await device.stop()


# --- the TPM alone, since no agent of ours would do such things ----------------------------------


class Keys:
    """Keys in the TPM, made by the agent's own code."""

    def __init__(self) -> None:
        made = agent_tpm.answer({"do": "create", "tcti": TCTI, "blobs": ""})
        self.key, self.blobs = made["key"], made["blobs"]
        self.name = str(agent_tpm.answer({"do": "describe", "key": self.key})["name"])

    def bundle(self) -> str:
        question = {"do": "bundle", "tcti": TCTI, "key": self.key, "blobs": self.blobs}
        return str(agent_tpm.answer(question | {"model": "M", "serial": "S"})["csr"])

    def activate(self, credential: bytes, encrypted: bytes) -> bytes:
        with agent_tpm._tpm(TCTI) as tpm:
            attesting = agent_tpm._blob(self.blobs, agent_tpm.ATTESTATION_KEY)
            return tpm.activate(attesting, credential, encrypted)


@pytest.fixture
def keys(tpm: Tpm, monkeypatch: pytest.MonkeyPatch) -> Keys:
    for name, value in tpm.environ.items():
        monkeypatch.setenv(name, value)
    return Keys()


async def posted(service: AgentService, name: str, csr: str) -> Json:
    agent = service.agent()
    agent.name = name
    async with service.connection() as factory:
        answer = await agent.enrol(factory, csr=csr)
        assert answer.code == 201, answer
        return answer.json


async def test_a_replayed_answer_is_refused_and_the_tpm_then_passes(
    service: AgentService, keys: Keys
) -> None:
    await posted(service, keys.name, keys.bundle())
    earlier: list[bytes] = []

    def lose(credential: bytes, encrypted: bytes) -> bytes:
        earlier.append(keys.activate(credential, encrypted))
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await challenge(service, keys.name, lose)
    assert await challenge(service, keys.name, lambda *_: earlier[0]) == "error"
    assert verified(await request(service, keys.name)) == ("False", "TPMChallengeFailed")
    assert await challenge(service, keys.name, keys.activate) == "success"
    assert verified(await request(service, keys.name)) == ("True", "TPMChallengeSucceeded")


async def test_a_swapped_key_is_refused(service: AgentService, keys: Keys) -> None:
    """The bundle of a real TPM, with the request of a key that anybody may have in its place."""
    thief = software_tpm.new_key()
    name = agent_client.fingerprint(thief)
    good = keys.bundle()
    inner = tpmbundle.read(good).request
    other = agent_client.signing_request(thief, name).encode()
    raw = base64.b64decode(good)
    at = raw.index(inner)
    sizes = bytearray(raw[:at])
    # The third size of thirteen, and that of all contents.
    sizes[32:36] = len(other).to_bytes(4, "big")
    whole = int.from_bytes(raw[4:8], "big") + len(other) - len(inner)
    sizes[4:8] = whole.to_bytes(4, "big")
    swapped = bytes(sizes) + other + raw[at + len(inner) :]
    document = await posted(service, name, base64.b64encode(swapped).decode())
    assert verified(document) == ("False", "TPMVerificationFailed")
    assert "another key" in document["status"]["conditions"][0]["message"]


async def test_a_device_of_a_tpm_renews_with_the_key_in_it_alone(
    service: AgentService, keys: Keys
) -> None:
    await posted(service, keys.name, keys.bundle())
    assert await challenge(service, keys.name, keys.activate) == "success"
    await service.approve(keys.name)
    common_name = f"device:{keys.name}"
    question = {"do": "request", "tcti": TCTI, "key": keys.key, "commonName": common_name}
    from_tpm = str(agent_tpm.answer(question)["csr"])
    from_file = agent_client.signing_request(software_tpm.new_key(), common_name)
    # Whoever holds a certificate of the device, whatever its key.
    grant = {"signer": signers.DEVICE_ENROLLMENT, "fingerprint": common_name}
    async with service.connection(common_name, **grant) as connection:
        for number, (pem, is_signed) in enumerate(((from_file, False), (from_tpm, True))):
            body = service.agent().renewal_body(request=base64.b64encode(pem.encode()).decode())
            body["metadata"]["name"] = f"{keys.name}-{number}"
            answer = await connection.send("POST", "/certificatesigningrequests", json=body)
            assert answer.code == 201, answer
            assert bool(answer.json["status"].get("certificate")) is is_signed


async def test_what_is_copied_to_another_machine_is_of_no_use_there(
    tmp_path: Path, service: AgentService, keys: Keys, maker: Maker
) -> None:
    with swtpm.made(tmp_path / "t", maker) as other:
        device = Device(tmp_path / "device", service, other)
        (device.data / "certs").mkdir(parents=True)
        (device.data / "certs/agent.key").write_text(keys.key)
        (device.data / "tpm-blob.yaml").write_text(keys.blobs)
        device.start()

        async def is_told() -> bool:
            return "TPM" in device.words()

        try:
            await device.until(is_told, dies=True)
            await asyncio.sleep(2)
            assert not await is_said(service, keys.name, "TPMChallengeRequired")
            assert device.key == keys.key, "and it is not replaced"
        finally:
            await device.stop()


def test_a_cleared_tpm_has_no_keys_any_more(
    tmp_path: Path, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with swtpm.made(tmp_path / "t", maker) as own:
        for name, value in own.environ.items():
            monkeypatch.setenv(name, value)
        keys = Keys()
        again = {"do": "create", "tcti": TCTI, "blobs": keys.blobs}
        assert agent_tpm.answer(again)["key"] == keys.key
        assert agent_tpm.answer({"do": "clear", "tcti": TCTI}) == {}
        assert "TPM: " in agent_tpm.answer(again)["error"]
        assert Keys().name != keys.name
