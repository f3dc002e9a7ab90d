"""Whom a policy lets in: everything that it demands must hold, and what is not there never does."""

from __future__ import annotations

from typing import Any

import pytest

from resources import enrollmentpolicy

Json = dict[str, Any]
FINGERPRINT = "ab" * 32
AUTHORITY = "0123cd"


def request(**changes: Any) -> Json:
    spec = {
        "labels": {"site": "a"},
        "deviceStatus": {
            "systemInfo": {"productSerial": "S1", "productName": "P", "customInfo": {"line": "4"}}
        },
    }
    shown = {
        "commonName": "client-enrollment-factory-1",
        "fingerprint": FINGERPRINT,
        "authority": AUTHORITY,
    }
    document = {
        "metadata": {"name": "devicename"},
        "spec": spec,
        "status": {"enrollmentCertificate": shown},
    }
    return document | changes


def policy(admitted: int = 0, **spec: Any) -> Json:
    return {"metadata": {"name": "p"}, "spec": spec, "status": {"admitted": admitted}}


HOLDING: list[Json] = [
    {"selector": {"matchLabels": {"site": "a"}}},
    {"selector": {"matchExpressions": [{"key": "site", "operator": "In", "values": ["a", "b"]}]}},
    {"selector": {}},
    {"serialNumbers": ["S0", "S1"]},
    {"systemInfo": {"productName": "P", "customInfo.line": "4"}},
    {"devices": ["devicename"]},
    {"certificateRequests": ["factory-1"]},
    {"certificateRequests": ["client-enrollment-factory-1"]},
    {"certificateFingerprints": [":".join(["AB"] * 32)]},
    {"certificateAuthorities": ["01:23:CD"]},
]
FAILING: list[Json] = [
    {"selector": {"matchLabels": {"site": "b"}}},
    {"serialNumbers": ["S0"]},
    {"systemInfo": {"productName": "Q"}},
    {"systemInfo": {"customInfo.line": "5"}},
    {"systemInfo": {"other.line": "4"}},
    {"devices": ["device"]},
    {"certificateRequests": ["factory"]},
    {"certificateFingerprints": ["cd" * 32]},
    {"certificateAuthorities": ["0123"]},
]


@pytest.mark.parametrize("spec", HOLDING, ids=str)
def test_a_demand_that_holds(spec: Json) -> None:
    assert enrollmentpolicy.admits(policy(**spec), request())


@pytest.mark.parametrize("spec", FAILING, ids=str)
def test_one_demand_that_does_not_hold_is_enough(spec: Json) -> None:
    assert not enrollmentpolicy.admits(policy(**spec), request())
    others = {k: v for each in HOLDING for k, v in each.items() if k not in spec}
    assert enrollmentpolicy.admits(policy(**others), request())
    assert not enrollmentpolicy.admits(policy(**others, **spec), request())


@pytest.mark.parametrize("spec", [s for s in HOLDING if s != {"selector": {}}], ids=str)
def test_a_machine_that_says_and_shows_nothing_is_let_in_by_no_demand(spec: Json) -> None:
    bare = {"metadata": {"name": "x"}, "spec": {}}
    assert not enrollmentpolicy.admits(policy(**spec), bare)


@pytest.mark.parametrize("spec", [{"tpmVerified": True}, {"tpmKeys": ["AB" * 32]}], ids=str)
def test_a_tpm_counts_if_it_was_shown(spec: Json) -> None:
    assert enrollmentpolicy.admits(policy(**spec), request(), lambda: "ab" * 32)
    assert not enrollmentpolicy.admits(policy(**spec), request())
    assert not enrollmentpolicy.admits(policy(tpmKeys=["cd" * 32]), request(), lambda: "ab" * 32)


def test_a_policy_lets_in_no_more_than_its_limit() -> None:
    assert enrollmentpolicy.admits(policy(1, selector={}, limit=2), request())
    assert not enrollmentpolicy.admits(policy(2, selector={}, limit=2), request())
    assert enrollmentpolicy.admits(policy(2, selector={}), request())
