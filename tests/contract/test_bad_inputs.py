"""Bad input of every sort, sent as bytes: each is refused with the code and the word of its row, in
the form that the face has for refusals; the connection is sound afterwards, nothing moved in the
store, and nothing of the inside is told.

Wrong documents, by every verb, are in test_wrong_inputs; none of its rows counts here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest

from tests.contract.data.inputs import (
    certificates,
    csrs,
    headers,
    names,
    options,
    patches,
    selectors,
    sizes,
    tokens,
)
from tests.contract.data.inputs.row import EMPTY, NOTHING, PLAIN, STATUS, Ask, Bad
from tests.fakes import bare_http, inputs_rig, sql
from tests.fakes.bare_http import Answer
from tests.fakes.inputs_rig import Rig
from tests.fakes.waiting import until_so

THEMES = {
    "tokens": tokens.ROWS,
    "certificates": certificates.ROWS,
    "certificate requests": csrs.ROWS,
    "names": names.ROWS,
    "selectors": selectors.ROWS,
    "options": options.ROWS,
    "patches": patches.ROWS,
    "headers": headers.ROWS,
    "sizes": sizes.ROWS,
}
ASKED_OF_US = 300
# The other store gets a tenth, and all that it could stumble over: the rest is one code.
EVERY_TENTH = 10
STUMBLED_OVER = ("nul", "utf-8", "surrogate", "forged", "too-many", "too-long", "version")
# Of a traceback, of the libraries below us, and of the machine.
OF_THE_INSIDE = ("traceback", ".py", "sqlalchemy", "sqlite", "psycopg", "/home/", "/tmp/")


# Two services are started, one after the other, on a machine that may have other things to do.
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def rig(
    request: pytest.FixtureRequest,
    new_database: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("inputs")
    with inputs_rig.running(folder, new_database(request.param)) as running:
        until_so(lambda: not wrong_with(running, certificates.REVOKED))
        yield running


def test_there_are_enough_and_no_two_of_one_name() -> None:
    for theme, rows in THEMES.items():
        print(f"{len(rows):4} {theme}")
    ids = [f"{theme}: {row.id}" for theme, rows in THEMES.items() for row in rows]
    print(f"{len(ids):4} in all")
    assert len(ids) == len(set(ids)) >= ASKED_OF_US


def test_what_is_right_is_taken(rig: Rig) -> None:
    """Or all that follows would be refused for another reason than its own."""
    bearer = ("Authorization", f"Bearer {rig.issuer.good()}")
    fleets = f"{inputs_rig.PLACE}/fleets"
    own = f"/api/v1/devices/{rig.agent.name}/rendered"
    for door, target, headers_, code in (
        (rig.anybody, fleets, [bearer], 200),
        (rig.admin, f"{fleets}?limit=1&continue={rig.page}", [], 200),
        (rig.device, own, [], 200),
        (rig.factory, f"/api/v1/enrollmentrequests/{rig.agent.name}", [], 200),
        (certificates.of_the_device(rig), own, [], 200),
    ):
        answer = bare_http.ask(door, bare_http.request("GET", target, headers_))
        assert answer is not None
        assert answer.code == code, answer
        assert answer.is_sound


@pytest.mark.parametrize("theme", THEMES)
def test_bad_input_is_refused_as_its_row_says(rig: Rig, theme: str) -> None:
    rows = [
        row
        for number, row in enumerate(THEMES[theme])
        if not rig.server.database
        or number % EVERY_TENTH == 0
        or any(word in row.id for word in STUMBLED_OVER)
    ]
    problems = []
    with (
        rig.server.data.with_name("data.log").open() as log,
        sql.looking(sql.place(rig.server.data, rig.server.database)) as look,
    ):
        log.seek(0, os.SEEK_END)
        after = inputs_rig.counted(look)
        for row in rows:
            before, problem = after, wrong_with(rig, row)
            if (after := inputs_rig.counted(look)) != before:
                problem += f"; the store moved from {before} to {after}"
            if "Traceback" in (said := log.read()):
                problem += f"; in the log: {said[-400:]}"
            if problem:
                problems.append(f"{row.id}: {problem}")
    assert not problems, f"{len(problems)} of {len(rows)}:\n" + "\n".join(problems)


def wrong_with(rig: Rig, row: Bad) -> str:
    """What is wrong with the answer; empty if it is as the row says."""
    ask = row.make(rig)
    try:
        answer = bare_http.ask(*ask)
    except TimeoutError:
        return "no answer"
    if answer is None:
        return "" if row.form == NOTHING else "the connection was ended"
    if row.form == NOTHING:
        return f"an answer: {answer}"
    complaints = [
        f"{answer.code}, not {row.code}" if answer.code != row.code else "",
        "" if row.expected.lower() in answer.text.lower() else f"nothing of {row.expected!r}",
        "" if answer.is_sound else "the connection is of no use afterwards",
        "" if _has_form(rig, row, ask, answer) else f"not in the form {row.form}",
        *_told(rig, ask, answer),
    ]
    found = "; ".join(filter(None, complaints))
    return f"{found}: {answer.text[:400]}" if found else ""


def _has_form(rig: Rig, row: Bad, ask: Ask, answer: Answer) -> bool:
    if row.form != STATUS:
        is_json = "application/json" in answer.headers.lower()
        return not answer.body if row.form == EMPTY else row.form == PLAIN and not is_json
    try:
        found: dict[str, Any] = json.loads(answer.body)
    except ValueError:
        return False
    if not found.get("message"):
        return False
    if ask.door.address != rig.admin.address:
        # Of another version than ours its clients know the code and the message only.
        said = {"kind": "Status", "status": "Failure", "apiVersion": "flightctl.io/v1beta1",
                "reason": HTTPStatus(answer.code).phrase}  # fmt: skip
        if answer.code == HTTPStatus.NOT_ACCEPTABLE:
            said = dict.fromkeys(said, "")
        return found == said | {"code": answer.code, "message": found["message"]}
    said = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
    return (said | {"code": answer.code}).items() <= found.items() and bool(found.get("reason"))


def _told(rig: Rig, ask: Ask, answer: Answer) -> Iterator[str]:
    """What must not be in an answer."""
    text = f"{answer.headers}{answer.text}"
    yield from (f"tells {word!r}" for word in OF_THE_INSIDE if word in text.lower())
    yield from (f"tells the secret {each!r}" for each in rig.secrets() if each in text)
    # A token's signature makes it one; the rest is only a claim.
    _, _, token = ask.raw.partition(b"Bearer ")
    signature = token.partition(b"\r")[0].rpartition(b".")[2].decode("latin-1")
    if len(signature) > 40 and signature in text:
        yield "tells the token"
