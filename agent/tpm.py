"""The device's keys in a TPM 2.0: the one module that needs `tpm2-pytss`.

It runs as a short-lived child, `python -m agent.tpm`, as `agent.keys` does for keys in files: one
JSON question on stdin, one JSON answer on stdout. So the long-lived agent keeps neither that
library nor the TPM open.

Two keys are made, both ECDSA P-256 and unable to leave the TPM: the device's own (LDevID), which
is its identity, and one that attests (LAK), which says in a form that only a TPM can give that the
first lives beside it. What of them is kept outside is encrypted by the TPM and of no use elsewhere:
`tpm-blob.yaml` has both, and the text that stands for the key, a "TSS2 PRIVATE KEY" in PEM, has the
first once more, in the form that OpenSSL's provider takes (`agent.tpmtls`).

The keys hang below the primary key of the owner hierarchy, which a TPM makes anew each time from
its own seed: clearing the TPM is the end of this device's identity, and nothing else is.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import yaml

from agent import keys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec
    from tpm2_pytss import ESAPI, TPM2B_PUBLIC, TPMT_PUBLIC
    from tpm2_pytss.constants import ESYS_TR
    from tpm2_pytss.tsskey import TSSPrivKey

Json = dict[str, Any]

KEY, ATTESTATION_KEY = "ldevid", "lak"
PEM_BEGIN = "-----BEGIN TSS2 PRIVATE KEY-----"
# The reference's nonce: nobody challenges here, the credential does.
_NONCE = bytes(8)
_EK_KINDS = ("EK-RSA2048", "EK-ECC256")
_MAGIC, _CONTENT = 0x01000100, 0x00000100
_SHA256 = 0x0B
_PRODUCT_BYTES_MAX = 256


def answer(question: Json) -> Json:
    """The answer to one question; `{"error": text}` where it can't be had."""
    try:
        match question["do"]:
            case "create":
                return _create(question["tcti"], question["blobs"])
            case "describe":
                return {"name": keys.name_of(_public(_key(question["key"])))}
            case "request":
                with _tpm(question["tcti"]) as tpm:
                    handle = tpm.load(_key(question["key"]))
                    return {"csr": tpm.request(handle, question["commonName"])}
            case "bundle":
                with _tpm(question["tcti"]) as tpm:
                    return {"csr": _bundle(tpm, question)}
            case "certificate":
                public = _public(_key(question["key"]))
                return keys.certificate(question["certificate"], public)
            case "prove":
                return _prove(question)
            case "clear":
                with _tpm(question["tcti"]) as tpm:
                    tpm.clear()
                return {}
            case unknown:
                return {"error": f"unknown question {unknown!r}"}
    except Exception as error:  # the child's outermost border: whatever the libraries throw
        return {"error": f"TPM: {error}" if str(error) else f"TPM: {type(error).__name__}"}


class Tpm:
    """An open TPM, and what of it is loaded: given back when it is closed."""

    def __init__(self, esapi: ESAPI) -> None:
        self._esapi = esapi
        self._loaded: list[ESYS_TR] = []

    def close(self) -> None:
        # A TPM without a resource manager has room for three.
        for handle in self._loaded:
            self._esapi.flush_context(handle)

    def create(self, *, restricted: bool) -> TSSPrivKey:
        """A new key that signs; a restricted one signs only what the TPM itself has made."""
        from tpm2_pytss.tsskey import TSSPrivKey

        return TSSPrivKey.create(self._esapi, _template(restricted=restricted))

    def load(self, key: TSSPrivKey) -> ESYS_TR:
        return self._keep(key.load(self._esapi))

    def request(self, handle: ESYS_TR, common_name: str = "") -> str:
        """A PKCS#10 request, PEM, signed in the TPM; as `keys.request`."""
        return keys.request(self._signer(handle), common_name)

    def sign(self, handle: ESYS_TR, data: bytes) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        return bytes(self._signer(handle).sign(data, ec.ECDSA(hashes.SHA256())))

    def certify(self, handle: ESYS_TR, by: ESYS_TR) -> tuple[bytes, bytes]:
        """TPM2B_ATTEST and TPMT_SIGNATURE: `by` has seen the key in its own TPM."""
        from tpm2_pytss import TPM2_ALG, TPMT_SIG_SCHEME

        scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
        attest, signature = self._esapi.certify(handle, by, _NONCE, scheme)
        return bytes(attest.marshal()), bytes(signature.marshal())

    def endorsement(self) -> tuple[bytes, TPM2B_PUBLIC]:
        """The maker's certificate and the template of its key; RSA before ECC, as the reference
        has it. The certificate is empty where the TPM has none."""
        from tpm2_pytss.utils import NVReadEK, create_ek_template

        found = [create_ek_template(kind, NVReadEK(self._esapi)) for kind in _EK_KINDS]
        certificate, template = next((each for each in found if each[0]), found[0])
        return bytes(certificate or b""), template

    def activate(self, key: TSSPrivKey, credential: bytes, encrypted: bytes) -> bytes:
        """The secret in a credential that was made for this TPM and this key of it."""
        from tpm2_pytss import ESYS_TR, TPM2_ALG, TPM2_SE, TPM2B_ENCRYPTED_SECRET, TPM2B_ID_OBJECT

        handle = self.load(key)
        _, template = self.endorsement()
        endorsement = self._keep(
            self._esapi.create_primary(None, template, ESYS_TR.RH_ENDORSEMENT)[0]
        )
        none = ESYS_TR.NONE
        session = self._esapi.start_auth_session(
            none, none, TPM2_SE.POLICY, "aes128cfb", TPM2_ALG.SHA256
        )
        self._keep(session)
        self._esapi.policy_secret(ESYS_TR.RH_ENDORSEMENT, session)
        secret = self._esapi.activate_credential(
            handle,
            endorsement,
            TPM2B_ID_OBJECT(credential),
            TPM2B_ENCRYPTED_SECRET(encrypted),
            session2=session,
        )
        # The session ended with the command that it allowed.
        self._loaded.remove(session)
        return bytes(secret)

    def clear(self) -> None:
        """By whichever of the two that may do it lets us."""
        from tpm2_pytss import ESYS_TR, TSS2_Exception

        try:
            self._esapi.clear(ESYS_TR.LOCKOUT)
        except TSS2_Exception:
            self._esapi.clear(ESYS_TR.PLATFORM)

    def _signer(self, handle: ESYS_TR) -> ec.EllipticCurvePrivateKey:
        from tpm2_pytss.cryptography import tpm_ecc_private_key

        made: ec.EllipticCurvePrivateKey = tpm_ecc_private_key(self._esapi, handle)
        return made

    def _keep(self, handle: ESYS_TR) -> ESYS_TR:
        self._loaded.append(handle)
        return handle


@contextmanager
def _tpm(tcti: str) -> Iterator[Tpm]:
    from tpm2_pytss import ESAPI

    with ESAPI(tcti) as esapi:
        tpm = Tpm(esapi)
        try:
            yield tpm
        finally:
            tpm.close()


def _template(*, restricted: bool) -> TPMT_PUBLIC:
    from tpm2_pytss import TPM2B_PUBLIC, TPMA_OBJECT

    attributes = (
        TPMA_OBJECT.FIXEDTPM
        | TPMA_OBJECT.FIXEDPARENT
        | TPMA_OBJECT.SENSITIVEDATAORIGIN
        | TPMA_OBJECT.USERWITHAUTH
        | TPMA_OBJECT.NODA
        | TPMA_OBJECT.SIGN_ENCRYPT
    )
    if restricted:
        attributes |= TPMA_OBJECT.RESTRICTED
    template = TPM2B_PUBLIC.parse("ecc256:ecdsa-sha256:null", objectAttributes=attributes)
    return template.publicArea


# --- what is kept outside ------------------------------------------------------------------------


def _create(tcti: str, blobs: str) -> Json:
    """Both keys: those of `blobs` if there are any, which must be this TPM's, else new ones."""
    with _tpm(tcti) as tpm:
        if blobs.strip():
            key, attesting = _blob(blobs, KEY), _blob(blobs, ATTESTATION_KEY)
            for each in (key, attesting):
                tpm.load(each)
        else:
            key, attesting = tpm.create(restricted=False), tpm.create(restricted=True)
            kept = {KEY: _kept(key), ATTESTATION_KEY: _kept(attesting)}
            blobs = yaml.safe_dump(kept, sort_keys=False)
    return {"key": bytes(key.to_pem()).decode(), "blobs": blobs}


def _kept(key: TSSPrivKey) -> Json:
    return {
        "public_blob": base64.b64encode(key.public.marshal()).decode(),
        "private_blob": base64.b64encode(key.private.marshal()).decode(),
    }


def _blob(blobs: str, name: str) -> TSSPrivKey:
    from tpm2_pytss import TPM2B_PRIVATE, TPM2B_PUBLIC
    from tpm2_pytss.tsskey import TSSPrivKey

    found = (yaml.safe_load(blobs) or {})[name]
    public, _ = TPM2B_PUBLIC.unmarshal(base64.b64decode(found["public_blob"]))
    private, _ = TPM2B_PRIVATE.unmarshal(base64.b64decode(found["private_blob"]))
    return TSSPrivKey(private, public)


def _key(pem: str) -> TSSPrivKey:
    from tpm2_pytss.tsskey import TSSPrivKey

    if PEM_BEGIN not in pem:
        raise ValueError("the key is not one of a TPM")
    return TSSPrivKey.from_pem(pem.encode())


def _public(key: TSSPrivKey) -> ec.EllipticCurvePublicKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    found = serialization.load_pem_public_key(key.public.to_pem())
    assert isinstance(found, ec.EllipticCurvePublicKey), "it is made as one"
    return found


# --- asking to be let in -------------------------------------------------------------------------


def _bundle(tpm: Tpm, question: Json) -> str:
    """The TCG-CSR-IDevID for the key, in base64; `apiserver.pki.tpmbundle` says what it shows."""
    key, attesting = _key(question["key"]), _blob(question["blobs"], ATTESTATION_KEY)
    certificate, _ = tpm.endorsement()
    handle, by = tpm.load(key), tpm.load(attesting)
    certified, signature = tpm.certify(handle, by)
    parts = (
        question["model"].encode()[:_PRODUCT_BYTES_MAX],
        question["serial"].encode()[:_PRODUCT_BYTES_MAX],
        tpm.request(handle).encode(),
        b"",
        certificate,
        bytes(attesting.public.marshal()),
        *(b"", b"", b""),
        bytes(key.public.marshal()),
        certified,
        signature,
        b"",
    )
    numbers = (_CONTENT, _SHA256, hashlib.sha256().digest_size, *map(len, parts))
    content = b"".join(map(_u32, numbers)) + b"".join(parts)
    proof = tpm.sign(handle, content)
    whole = b"".join(map(_u32, (_MAGIC, len(content), len(proof)))) + content + proof
    return base64.b64encode(whole).decode()


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def _prove(question: Json) -> Json:
    from agent import proving

    attesting = _blob(question["blobs"], ATTESTATION_KEY)

    def activate(credential: bytes, encrypted: bytes) -> bytes:
        with _tpm(question["tcti"]) as tpm:
            return tpm.activate(attesting, credential, encrypted)

    return proving.prove(question, activate)


def main() -> int:
    raw = sys.stdin.buffer.read(keys.QUESTION_BYTES_MAX)
    sys.stdout.write(json.dumps(answer(json.loads(raw))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
