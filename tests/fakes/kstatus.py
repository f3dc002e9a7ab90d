"""How kstatus reads an object of a kind that it does not know, as its documentation has it: what
Flux waits for, and everything else that is built on it. [simulated]; the real library runs in
`tests/conformance/test_gitops.py`, where it was built."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

CURRENT, IN_PROGRESS, FAILED, TERMINATING = "Current", "InProgress", "Failed", "Terminating"


def status_of(document: Json) -> str:
    metadata, status = document["metadata"], document.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return TERMINATING
    observed = status.get("observedGeneration")
    if observed is not None and observed != metadata.get("generation"):
        return IN_PROGRESS
    said = {c["type"]: c["status"] for c in status.get("conditions") or ()}
    if said.get("Reconciling") == "True":
        return IN_PROGRESS
    if said.get("Stalled") == "True":
        return FAILED
    if "Ready" in said:
        return CURRENT if said["Ready"] == "True" else IN_PROGRESS
    return CURRENT
