"""What an enrolled device's later requests have to show of its TPM: every case of a table."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver import attesting
from apiserver.pki import signers
from tests.fakes.agent_client import signing_request
from tests.fakes.software_tpm import Maker, SoftwareTpm, new_key

Json = dict[str, Any]

MAKER = Maker()
TPM = SoftwareTpm(MAKER)
OTHER = new_key()
NAME = f"device:{TPM.name}"


def enrolled(csr: str, status: str = "True", generation: int = 1) -> Json:
    condition = {"type": attesting.CONDITION, "status": status, "observedGeneration": 1}
    return {
        "metadata": {"generation": generation},
        "spec": {"csr": csr},
        "status": {"conditions": [condition]},
    }


PROVEN = enrolled(TPM.bundle())
PLAIN, STRANGE = signing_request(TPM.key, NAME), signing_request(OTHER, NAME)
# Another key of the same TPM, which the same attestation key certifies, and one of another TPM.
SISTER = SoftwareTpm(MAKER, TPM.endorsement, TPM.lak, OTHER).bundle()
ELSEWHERE = SoftwareTpm(MAKER, key=TPM.key).bundle()
SAME = attesting.VERIFICATION_SUCCEEDED
NOT = attesting.VERIFICATION_FAILED


@pytest.mark.parametrize(
    ("request_", "signer", "csr", "reason"),
    [
        pytest.param(PROVEN, signers.RENEWAL, PLAIN, None, id="its key"),
        pytest.param(PROVEN, signers.RENEWAL, STRANGE, NOT, id="another key"),
        pytest.param(PROVEN, signers.RENEWAL, SISTER, SAME, id="another key of its TPM"),
        pytest.param(PROVEN, signers.RENEWAL, ELSEWHERE, NOT, id="its key, by another TPM"),
        pytest.param(PROVEN, signers.SVC_CLIENT, STRANGE, None, id="a service's key"),
        pytest.param(PROVEN, signers.SVC_CLIENT, ELSEWHERE, NOT, id="a service's, by another TPM"),
        pytest.param(
            enrolled(TPM.bundle(), "False"), signers.RENEWAL, STRANGE, None, id="never proven"
        ),
        pytest.param(
            enrolled(TPM.bundle(), "False"), signers.RENEWAL, SISTER, NOT, id="never proven, by TPM"
        ),
        pytest.param(
            enrolled(TPM.bundle(), generation=2), signers.RENEWAL, STRANGE, None, id="proof is void"
        ),
        pytest.param(enrolled(PLAIN, "False"), signers.RENEWAL, STRANGE, None, id="no TPM"),
        pytest.param(None, signers.RENEWAL, STRANGE, None, id="no request"),
        pytest.param(None, signers.RENEWAL, SISTER, NOT, id="no request, by TPM"),
    ],
)
def test_what_is_shown(request_: Json | None, signer: str, csr: str, reason: str | None) -> None:
    verdict = attesting.judge_again(request_, signer, csr)
    assert (verdict and verdict.reason) == reason
    if verdict is not None:
        assert verdict.status == ("True" if reason == SAME else "False")
