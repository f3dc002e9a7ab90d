"""Each reason of flightctl's vocabulary is written by something, or the reference says why not."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from resources import devicenews, event
from resources.devicenews import State

ROOT = Path(__file__).parents[3]
TELLERS = ("apiserver", "controllers", "resources")
OWN = {"CertificateIssued", "SigningFailed"}
_NAME = re.compile(r"`([A-Z][A-Za-z]+)`")


def page() -> tuple[set[str], set[str]]:
    """What the page says is told, and what it says is not."""
    text = (ROOT / "docs" / "reference" / "events.md").read_text()
    told, _, untold = text.partition("## Not written")
    cells = [line.split("|")[1] for line in untold.splitlines() if line.startswith("| ")]
    rows = [line for line in told.splitlines() if line.startswith("| ")]
    return set(_NAME.findall("".join(rows))), set(_NAME.findall("".join(cells)))


def written() -> set[str]:
    """Reasons that the sources spell out, and those that are composed of what a device says."""
    sources = [
        path.read_text()
        for package in TELLERS
        for path in (ROOT / package).rglob("*.py")
        if path.name != "event.py"
    ]
    spelt = set(re.findall(r'"([A-Z][A-Za-z]+)"', "".join(sources)))
    return (spelt & set(event.REASONS)) | set(composed())


def composed() -> list[str]:
    def state(level: str, applications: str) -> State:
        said = dict.fromkeys(("cpu", "memory", "disk"), level)
        return State(("Online", ""), ("UpToDate", ""), (applications, ""), monitors=said)

    steps = [
        state("Healthy", "Healthy"),
        state("Warning", "Degraded"),
        state("Critical", "Error"),
        state("Healthy", "Healthy"),
    ]
    return [news.reason for old, new in pairwise(steps) for news in devicenews.of(old, new)]


def test_each_reason_is_written_or_said_not_to_be() -> None:
    told, untold = page()
    vocabulary = set(event.REASONS)
    assert told & untold == set()
    assert vocabulary - told - untold == set()
    assert written() == vocabulary & told


def test_the_page_names_no_reason_that_there_is_not() -> None:
    told, untold = page()
    kinds_and_values = {"SingleMatch", "NoMatch"}
    assert (told | untold) - set(event.REASONS) - kinds_and_values == OWN


def test_what_is_a_warning_is_of_the_vocabulary() -> None:
    assert event.WARNINGS - set(event.REASONS) == {"SigningFailed"}
    assert "RepositoryInaccessible" not in event.WARNINGS
