"""When a stream ends because of who reads it: each way in which a proof ends, by our clock."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest

from apiserver.auth.chain import Evidence
from apiserver.auth.identity import Caller
from apiserver.errors import ServiceUnavailable, Unauthorized
from apiserver.kube.standing import LOOK_S, REVIEW_S, Standing

ANN = Caller("ann", role="viewer", groups=frozenset(["a"]), source="authprovider/x")
TOKEN, CERTIFICATE = Evidence(authorization="Bearer x"), Evidence(b"der")
GONE, DOWN = Unauthorized("expired"), ServiceUnavailable("down")


@dataclass
class Door:
    """Answers as it is told; counts."""

    answer: Caller | Exception | None = ANN
    asked: int = 0
    at: float = 1000.0

    async def authenticate(self, evidence: Evidence) -> Caller | None:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def standing(self, evidence: Evidence, **caller: object) -> Standing:
        return Standing(
            self.authenticate,
            evidence,
            replace(ANN, **caller),  # type: ignore[arg-type]
            now=lambda: self.at,
            monotonic=lambda: self.at,
            jitter=lambda least, most: most,
        )


async def test_a_token_that_says_its_end_ends_it_then_and_asks_nobody() -> None:
    door = Door()
    standing = door.standing(TOKEN, expires_at=1007.0)
    assert standing.look_s() == LOOK_S
    assert not await standing.is_over()
    door.at += 5
    assert standing.look_s() == 2.0, "no later than its end"
    assert not await standing.is_over()
    door.at += 2
    assert standing.look_s() == 0.0
    assert await standing.is_over()
    assert door.asked == 0


@pytest.mark.parametrize("evidence", [TOKEN, CERTIFICATE], ids=["token", "certificate"])
@pytest.mark.parametrize(
    ("answer", "is_over"),
    [
        pytest.param(ANN, False, id="the same"),
        pytest.param(replace(ANN, expires_at=math.pi), False, id="renewed beside it"),
        pytest.param(GONE, True, id="no more"),
        pytest.param(None, True, id="nobody's"),
        pytest.param(DOWN, False, id="cannot be asked"),
        pytest.param(replace(ANN, role="operator"), True, id="another role"),
        pytest.param(replace(ANN, groups=frozenset()), True, id="out of a group"),
        pytest.param(replace(ANN, further={"b": frozenset(["v"])}), True, id="another place"),
        pytest.param(replace(ANN, name="bob"), True, id="another name"),
    ],
)
async def test_what_is_found_later_decides(
    evidence: Evidence, answer: Caller | Exception | None, is_over: bool
) -> None:
    door = Door(answer)
    standing = door.standing(evidence)
    if evidence is TOKEN:
        assert not await standing.is_over(), "judged a moment ago"
        assert door.asked == 0
    door.at += REVIEW_S[1]
    assert await standing.is_over() is is_over
    assert door.asked == 1


async def test_a_token_is_asked_about_once_in_a_while_and_a_certificate_at_each_look() -> None:
    for evidence, times in ((TOKEN, 10), (CERTIFICATE, 120)):
        door = Door()
        standing = door.standing(evidence)
        for _ in range(120):
            door.at += standing.look_s()
            assert not await standing.is_over()
        assert door.asked == times
