"""What becomes of objects, and who owns a device, is told in flightctl's words (contract 11.2)."""

from __future__ import annotations

from typing import Any

import pytest

from resources import event, objectnews, ownernews, registry
from resources.kind import Kind
from resources.news import News
from resources.ownernews import Claims

Json = dict[str, Any]
DEVICE, FLEET = registry.DEVICE, registry.FLEET


def document(spec: Json | None = None, *, status: Json | None = None, **metadata: Any) -> Json:
    return {"metadata": {"name": "x"} | metadata, "spec": spec or {}, "status": status or {}}


PLAIN = document({"a": 1}, labels={"site": "a"}, owner="ResourceSync/s")
WEB = document({"selector": 1, "template": 1, "rolloutPolicy": 1})


def web(**spec: Any) -> Json:
    return document(WEB["spec"] | spec)


CHANGES: dict[str, tuple[Kind, Json, Json, list[str]]] = {
    "nothing": (FLEET, PLAIN, PLAIN, []),
    "the status only": (FLEET, PLAIN, PLAIN | {"status": {"a": 1}}, []),
    "notes only": (FLEET, WEB, document(WEB["spec"], annotations={"x": "y"}), []),
    "no labels, in two ways": (FLEET, WEB, document(WEB["spec"], labels={}), []),
    "labels": (DEVICE, document(), document(labels={"a": "b"}), ["labels"]),
    "a device's specification": (DEVICE, document(), document({"os": 1}), ["spec"]),
    "both": (DEVICE, document(), document({"os": 1}, labels={"a": "b"}), ["labels", "spec"]),
    "a fleet's selector": (FLEET, WEB, web(selector=2), ["spec.selector"]),
    "its template": (FLEET, WEB, web(template=2), ["spec.template"]),
    "both of those, and more": (
        FLEET,
        WEB,
        web(selector=2, template=2, rolloutPolicy=2),
        ["spec.selector", "spec.template"],
    ),
    "its policy only": (FLEET, WEB, web(rolloutPolicy=2), ["spec"]),
    "a selector where something else has one": (DEVICE, WEB, web(selector=2), ["spec"]),
    "a fleet's owner": (FLEET, PLAIN, document({"a": 1}, labels={"site": "a"}), ["owner"]),
    "a device's owner, which is told for itself": (
        DEVICE,
        document(owner="Fleet/a"),
        document(owner="Fleet/b"),
        [],
    ),
    "a kind that flightctl has not": (registry.by_kind("Rollout"), web(), web(template=2), []),
}


@pytest.mark.parametrize("case", CHANGES.values(), ids=CHANGES)
def test_a_change_is_told_with_the_fields_that_moved(
    case: tuple[Kind, Json, Json, list[str]],
) -> None:
    kind, old, new, fields = case
    told = list(objectnews.updated(kind, old, new))
    assert [news.details["updatedFields"] for news in told if news.details] == [fields] * bool(
        fields
    )
    for news in told:
        assert news.reason == "ResourceUpdated"
        assert f"({', '.join(fields)})" in news.message
        assert checked(news)["previousOwner"] == ("ResourceSync/s" if fields == ["owner"] else None)


def checked(news: News) -> Json:
    """The details, which are as flightctl's schema has them."""
    said: Json = {
        "apiVersion": "flightctl.io/v1beta1", "kind": "Event",
        "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "Device", "name": "d"}, "reason": news.reason, "type": "Normal",
        "message": news.message, "source": {"component": "c"}, "actor": "user:none",
        "details": news.details,
    }  # fmt: skip
    event.Event.model_validate(said)
    assert news.details is not None
    return news.details


@pytest.mark.parametrize("kind", registry.KINDS, ids=lambda kind: kind.kind)
def test_that_something_came_or_went_is_told_of_flightctls_kinds(kind: Kind) -> None:
    told = [news.reason for do in (objectnews.created, objectnews.deleted) for news in do(kind)]
    is_theirs = kind.kind in objectnews.TOLD
    assert told == ["ResourceCreated", "ResourceDeleted"] * is_theirs
    # Of ours nothing is, nor what the service writes each second to itself.
    assert is_theirs == (
        kind.group == "flightctl.io" and kind.kind not in ("Organization", "EnrollmentConfig")
    ), kind.kind


@pytest.mark.parametrize(
    ("kind", "verb", "subresource", "reason"),
    [
        ("Fleet", "create", "", "ResourceCreationFailed"),
        ("Fleet", "update", "", "ResourceUpdateFailed"),
        ("Device", "patch", "", "ResourceUpdateFailed"),
        ("Repository", "delete", "", "ResourceDeletionFailed"),
        ("Device", "update", "decommission", "DeviceDecommissionFailed"),
        ("EnrollmentRequest", "update", "approval", "EnrollmentRequestApprovalFailed"),
        ("Fleet", "patch", "status", None),
        ("Fleet", "deletecollection", "", None),
        ("Rollout", "create", "", None),
        ("Event", "create", "", None),
    ],
)
def test_what_the_service_failed_at_has_a_reason_by_what_it_was(
    kind: str, verb: str, subresource: str, reason: str | None
) -> None:
    assert objectnews.failed(kind, verb, subresource) == reason
    assert reason is None or reason in event.WARNINGS


A, B, AB, BC = Claims("Fleet/a"), Claims("Fleet/b"), ("a", "b"), ("b", "c")
OWNERS: dict[str, tuple[Claims, Claims, list[tuple[str, Json]]]] = {
    "nothing": (A, A, []),
    "a first owner": (
        Claims(),
        A,
        [("ResourceUpdated", {"previousOwner": None, "newOwner": "Fleet/a"})],
    ),
    "another": (
        A,
        B,
        [("ResourceUpdated", {"previousOwner": "Fleet/a", "newOwner": "Fleet/b"})],
    ),
    "none any more": (
        A,
        Claims(),
        [("ResourceUpdated", {"previousOwner": "Fleet/a", "newOwner": None})],
    ),
    "a second fleet": (
        A,
        Claims("Fleet/a", AB),
        [("DeviceMultipleOwnersDetected", {"matchingFleets": ["a", "b"]})],
    ),
    "others of several": (Claims("Fleet/a", AB), Claims("Fleet/a", BC), []),
    "one alone, another": (
        Claims("Fleet/a", AB),
        B,
        [
            ("ResourceUpdated", {"newOwner": "Fleet/b"}),
            (
                "DeviceMultipleOwnersResolved",
                {
                    "resolutionType": "SingleMatch",
                    "assignedOwner": "Fleet/b",
                    "previousMatchingFleets": ["a", "b"],
                },
            ),
        ],
    ),
    "one alone, that has it": (
        Claims("Fleet/a", AB),
        A,
        [("DeviceMultipleOwnersResolved", {"assignedOwner": "Fleet/a"})],
    ),
    "none alone": (
        Claims(None, AB),
        Claims(),
        [("DeviceMultipleOwnersResolved", {"resolutionType": "NoMatch"})],
    ),
}


@pytest.mark.parametrize("case", OWNERS.values(), ids=OWNERS)
def test_who_owns_a_device_is_told_when_it_changes(
    case: tuple[Claims, Claims, list[tuple[str, Json]]],
) -> None:
    old, new, expected = case
    told = list(ownernews.of(old, new))
    assert [news.reason for news in told] == [reason for reason, _ in expected]
    for news, (_, details) in zip(told, expected, strict=True):
        assert details.items() <= checked(news).items()
    assert [n.reason for n in told if n.reason in event.WARNINGS] == [
        "DeviceMultipleOwnersDetected" for _ in range(bool(new.fleets and not old.fleets))
    ]
