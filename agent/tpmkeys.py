"""The device's key in a TPM, as `identity` sees it: the same questions as for a key in a file,
answered by `agent.tpm`.

`certs/agent.key` then has no key but the text that stands for one; `tpm-blob.yaml` has both keys of
the TPM, encrypted by it. The blob is written first, and made again from nothing only if it is not
there: a crash between the two files costs no identity.

A TPM that does not answer, or does not know its key any more, never costs the identity either: it
is said, and for a person to mend. A new key would be a new device.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from agent import child, config, errors, transport, world

log = logging.getLogger("agent.tpmkeys")

Json = dict[str, Any]
Ask = Callable[[Json, str], Json]

MODULE = "agent.tpm"
COMPONENT = "tpm"
MODEL, SERIAL = "/sys/class/dmi/id/product_name", "/sys/class/dmi/id/product_serial"
# Where OpenSSL's provider looks for the TPM (`tpmtls`).
PROVIDER_VARIABLE = "TPM2OPENSSL_TCTI"


class TpmKeys:
    """Raises errors.Fatal where the TPM can't be used as it is configured."""

    def __init__(self, where: world.World, settings: config.Settings, ask: Ask = child.ask) -> None:
        if settings.tpm_auth_enabled:
            raise _fatal("tpm.auth-enabled: a password of the owner hierarchy is not supported")
        self._world = where
        self._ask = ask
        self._storage = settings.tpm_storage
        self._tcti = tcti_of(where, settings.tpm_device)
        os.environ[PROVIDER_VARIABLE] = self._tcti

    def __call__(self, question: Json) -> Json:
        """An answer, as `child.ask` gives it; where the key itself is concerned, an error is for a
        person."""
        blobs = self._blobs()
        answer = self._asked(question, blobs)
        if question["do"] in ("create", "describe") and "error" in answer:
            why = (
                f"{answer['error']}; the key stays as it is: put back the TPM, {self._storage} and"
            )
            raise _fatal(f"{why} the key in certs/, or move both away to enrol as a new device")
        if question["do"] == "create" and answer["blobs"] != blobs:
            uid, gid = self._world.uid_of("root") or 0, self._world.gid_of("root") or 0
            blob = answer["blobs"].encode()
            self._world.write(self._storage, blob, mode=0o600, uid=uid, gid=gid)
        return answer

    def bundle(self, key: bytes) -> str:
        """The request for enrolment, with what the TPM says of the key. Raises Unreachable."""
        question = {
            "do": "bundle",
            "key": key.decode(),
            "model": self._fact(MODEL),
            "serial": self._fact(SERIAL),
        }
        return str(self._tried(question)["csr"])

    def prove(self, server: str, shown: transport.Credentials, name: str) -> Json:
        """The service challenges the TPM: `outcome` and `message`, as `proving`. Raises
        Unreachable."""
        return self._tried(
            {
                "do": "prove",
                "name": name,
                "server": server,
                "authority": shown.authority.decode(),
                "certificate": shown.certificate.decode(),
                "enrollmentKey": shown.key.decode(),
                "serverName": shown.server_name,
                "insecure": shown.insecure,
            }
        )

    def forget(self) -> None:
        """Clears the TPM, as the reference does when a device is dismissed, and with it whatever
        anybody else has kept there; and what of the keys is outside. Never raises."""
        try:
            answer = self._asked({"do": "clear"}, "")
        except errors.Fatal as error:
            answer = {"error": str(error)}
        if "error" in answer:
            log.error("TPM not cleared: %s", answer["error"])
        else:
            log.warning("TPM cleared")
        try:
            self._world.shred(self._storage)
        except OSError as error:
            log.error("not wiped path=%s: %s", self._storage, error)

    def _tried(self, question: Json) -> Json:
        try:
            answer = self._asked(question, self._blobs())
        except errors.Fatal as error:
            raise transport.Unreachable(str(error)) from error
        if "error" in answer:
            raise transport.Unreachable(str(answer["error"]))
        return answer

    def _asked(self, question: Json, blobs: str) -> Json:
        return self._ask({**question, "tcti": self._tcti, "blobs": blobs}, MODULE)

    def _blobs(self) -> str:
        try:
            return (self._world.read(self._storage) or b"").decode()
        except (OSError, UnicodeDecodeError) as error:
            raise _fatal(f"{self._storage} cannot be read: {error}") from error

    def _fact(self, path: str) -> str:
        try:
            return (self._world.read(path) or b"").decode(errors="replace").strip()
        except OSError:
            return ""


def tcti_of(where: world.World, device: str) -> str:
    """How the TPM's library names a device: by its resource manager, which lets several processes
    use it, if it has one. Empty is the first that there is. What is no path is taken as a name of
    the library's own, as `swtpm:host=127.0.0.1,port=2321`."""
    if device and not device.startswith("/"):
        return device
    if not device:
        found = sorted(name for name in where.listdir("/dev") if name.startswith("tpmrm"))
        if not found:
            raise _fatal("tpm.device-path: this machine has no TPM with a resource manager")
        return f"device:/dev/{found[0]}"
    managed = device.replace("/dev/tpm", "/dev/tpmrm", 1)
    is_plain = device.removeprefix("/dev/tpm").isdigit()
    return f"device:{managed if is_plain and where.stat(managed) is not None else device}"


def _fatal(why: str) -> errors.Fatal:
    return errors.Fatal(errors.FAILED_PRECONDITION, why, component=COMPONENT)
