"""Failures by cause: what is one device's own does not tell two causes apart."""

from __future__ import annotations

import pytest

from resources import causes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("update to renderedVersion: 3 failed", "update to renderedVersion: 12 failed"),
        ("at 2026-11-26T10:00:00Z: no", "at 2026-11-27 11:22:33.5+01:00: no"),
        ("pulling sha256:" + "a" * 64, "pulling sha256:" + "b" * 64),
        ("dial 10.0.0.1:443: refused", "dial 192.168.7.9:8443: refused"),
        ("timed out after 1m30s", "timed out after 2.5s"),
        ("unit x: exit status 1", "unit x: exit status 127"),
        ("d1: disk is full", "d2: disk is full"),
    ],
)
def test_particulars_do_not_count(one: str, other: str) -> None:
    assert causes.cause_of(one, "d1") == causes.cause_of(other, "d2")


def test_other_words_are_other_causes() -> None:
    assert causes.cause_of("app a: unhealthy") != causes.cause_of("app b: unhealthy")
    assert causes.cause_of("d1-x is not d1", "d1") == "d1-x is not DEVICE"


def test_the_most_frequent_comes_first_with_somebody_who_said_it() -> None:
    said = [
        {"cause": "d9: full", "count": 1, "example": "d9"},
        {"cause": "no route", "count": 2, "example": "d3"},
        {"cause": "d2: full", "count": 2, "example": "d2"},
        {"cause": "rare", "count": 1, "example": "d4"},
    ]
    assert causes.grouped(said, 2) == [
        {"cause": "DEVICE: full", "count": 3, "example": "d2"},
        {"cause": "no route", "count": 2, "example": "d3"},
    ]
