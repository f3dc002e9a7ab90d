"""Further certificates: what `certs.yaml` and `certs.d` may say."""

from __future__ import annotations

from typing import Any

import pytest

from agent import provisions

Json = dict[str, Any]

DEVICE = "0" * 52
DAY_S = 86400.0


def entry(name: str = "otel", **changes: Any) -> Json:
    config = {
        "signer": "flightctl.io/device-svc-client",
        "common-name": "svc-otel-{{.DEVICE_ID}}",
        **changes.pop("config", {}),
    }
    stored = {
        "cert-path": f"/etc/{name}/certs/one.crt",
        "key-path": f"/etc/{name}/certs/one.key",
        **changes.pop("stored", {}),
    }
    return {
        "name": name,
        "provisioner": {"type": "csr", "config": config},
        "storage": {"type": "filesystem", "config": stored},
        **changes,
    }


def read(*documents: Any) -> tuple[list[provisions.Provision], list[str]]:
    return provisions.read([(f"{i}.yaml", d) for i, d in enumerate(documents)], DEVICE)


def test_an_entry_of_flightctl_is_read() -> None:
    config = {"usages": ["serverAuth", "clientAuth"], "expiration-seconds": 604800}
    (found,), complaints = read(entry(config={**config, "identity-type": "software"}))
    assert complaints == []
    assert found == provisions.Provision(
        "otel",
        "flightctl.io/device-svc-client",
        f"svc-otel-{DEVICE}",
        "/etc/otel/certs/one.crt",
        "/etc/otel/certs/one.key",
        ("clientAuth", "CA:false", "serverAuth"),
        604800,
    )


def test_a_list_a_document_and_an_empty_file_are_all_read_in_order() -> None:
    found, complaints = read(None, [entry("a"), entry("b")], entry("c", config={"common-name": ""}))
    assert [one.name for one in found] == ["a", "b", "c"]
    assert found[-1].common_name == "c"
    assert complaints == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("text", "0.yaml[0]: not an object"),
        ({}, "0.yaml[0]: name is missing"),
        (entry(provisioner=None), "0.yaml[0]: provisioner is missing"),
        (entry(storage={"type": "tpm"}), "0.yaml[0]: storage.type: 'tpm' is not known"),
        (entry(config={"signer": None}), "provisioner.config.signer is missing"),
        (entry(config={"identity-type": "tpm"}), "identity-type: tpm is not supported"),
        (entry(config={"common-name": "{{.HOST}}"}), "there is {{.DEVICE_ID}} and nothing else"),
        (entry(config={"common-name": "x" * 250}), "common-name is too long"),
        (entry(config={"usages": "clientAuth"}), "usages: not a list"),
        (entry(config={"expiration-seconds": "1h"}), "expiration-seconds: not a number"),
        (entry(stored={"cert-path": "one.crt"}), "storage.config.cert-path: 'one.crt' is no"),
        (entry(stored={"key-path": "/a/../b"}), "storage.config.key-path: '/a/../b' is no"),
        (entry(stored={"key-path": "/etc/otel/certs/one.crt"}), "is no place of its own"),
        (entry(renewBefore="soon"), "renewBefore: 'soon' is not a duration"),
        (entry(renewBefore="-1h"), "renewBefore: must be more than nothing"),
        (entry(renewBeforePercentage=100), "renewBeforePercentage: must be from 1 to 99"),
    ],
)
def test_what_is_wrong_is_named_and_costs_the_others_nothing(wrong: Any, words: str) -> None:
    found, (complaint,) = read([wrong, entry("good")])
    assert [one.name for one in found] == ["good"]
    assert words in complaint


def test_names_and_places_are_of_one_entry_only() -> None:
    same = {"cert-path": "/etc/a/certs/one.crt"}
    found, complaints = read(entry("a"), entry("a"), entry("b", stored=same))
    assert [one.name for one in found] == ["a"]
    assert complaints == [
        "1.yaml[0]: name: there is a a before",
        "2.yaml[0]: storage: /etc/a/certs/one.crt is that of a",
    ]


def test_there_is_an_end_to_how_many() -> None:
    found, complaints = read([entry(f"n{i}") for i in range(provisions.ENTRIES_MAX + 1)])
    assert len(found) == provisions.ENTRIES_MAX
    assert complaints == [f"0.yaml[{provisions.ENTRIES_MAX}]: there are more than 50"]


@pytest.mark.parametrize(
    ("changes", "days"),
    [
        ({}, 60.0),
        ({"renewBefore": "48h"}, 88.0),
        ({"renewBeforePercentage": 10}, 81.0),
        ({"renewBefore": "24h", "renewBeforePercentage": 10}, 89.0),
    ],
)
def test_when_it_is_due_of_ninety_days(changes: Json, days: float) -> None:
    (one,), _ = read(entry(**changes))
    span = {"begin": 0.0, "end": 90 * DAY_S}
    assert not one.is_due(**span, now=days * DAY_S - 1, chance=0.0)
    assert one.is_due(**span, now=days * DAY_S, chance=0.0)
    assert not one.is_due(**span, now=days * DAY_S, chance=0.9), "a fleet is spread"
    assert one.is_due(**span, now=span["end"], chance=0.99)
