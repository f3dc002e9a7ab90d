"""The webhooks' address over HTTP: who knows the secret leaves a note on the Repository, and nobody
else learns or does anything."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from apiserver import hooks
from apiserver.wire.delivery import BODY_BYTES_MAX
from resources import refreshing
from resources.masking import MASK
from tests.fakes import kube_face
from tests.fakes.kube_face import G, Rig

Json = dict[str, Any]
SECRET = "correct-horse-battery"
BODY = b'{"ref": "refs/heads/main"}'
URL = "https://git.example.com/a"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with kube_face.running(tmp_path_factory.mktemp("webhooks")) as rig:
        yield rig


async def repository(rig: Rig, **spec: Any) -> str:
    """A Repository `a` in a fresh namespace, which is the answer."""
    namespace = await rig.namespace()
    body = {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "Repository",
        "metadata": {"name": "a"},
        "spec": {"type": "git", "url": URL, **spec},
    }
    path = f"{G}/namespaces/{namespace}/repositories"
    await rig.json("POST", path, json=body, code=201)
    return namespace


async def noted(rig: Rig, namespace: str) -> str:
    found = await rig.json("GET", f"{G}/namespaces/{namespace}/repositories/a")
    return refreshing.note(found)


def signed(body: bytes = BODY, secret: str = SECRET, **more: str) -> dict[str, str]:
    found = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={found}", **more}


async def send(rig: Rig, place: str, headers: dict[str, str], body: Any = BODY) -> tuple[int, Json]:
    """Without any identity. The code and the answer."""
    async with rig.call("POST", f"/hooks/{place}", role="", headers=headers, data=body) as response:
        return response.status, await response.json()


async def test_each_push_is_another_note_and_changes_nothing_else(rig: Rig) -> None:
    namespace = await repository(rig, webhookSecret=SECRET)
    before = await rig.json("GET", f"{G}/namespaces/{namespace}/repositories/a")
    assert before["spec"]["webhookSecret"] == MASK
    assert (await send(rig, f"{namespace}/a", signed()))[0] == 202
    after = await rig.json("GET", f"{G}/namespaces/{namespace}/repositories/a")
    first = refreshing.note(after)
    assert first
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert (await send(rig, f"{namespace}/a", signed()))[0] == 202
    assert await noted(rig, namespace) not in ("", first)


async def test_what_is_no_push_is_understood_and_does_nothing(rig: Rig) -> None:
    namespace = await repository(rig, webhookSecret=SECRET)
    code, answer = await send(rig, f"{namespace}/a", signed(**{"X-GitHub-Event": "ping"}))
    assert code == 200
    assert "nobody has to look" in answer["message"]
    assert await noted(rig, namespace) == ""


async def test_a_stranger_cannot_tell_what_is_there(rig: Rig) -> None:
    """A wrong secret, none, a Repository without one, and one that is not: the same answer."""
    namespace = await repository(rig, webhookSecret=SECRET)
    bare = await repository(rig)
    before = rig.version
    attempts = [
        (f"{namespace}/a", signed(secret="wrong-horse-battery")),
        (f"{namespace}/a", {}),
        (f"{namespace}/a", {"Authorization": "Bearer admin"}),
        (f"{namespace}/gone", signed()),
        ("nowhere/a", signed()),
        (f"{bare}/a", signed()),
        (f"{bare}/a", signed(secret="")),
        (f"{bare}/a", {"Authorization": "Bearer ", "X-Gitlab-Token": ""}),
    ]
    answers = [await send(rig, place, headers) for place, headers in attempts]
    for code, answer in answers:
        assert (code, answer["reason"]) == (401, "Unauthorized")
        assert answer["message"].startswith("nothing was done: ")
        assert answer == answers[0][1]
    assert rig.version == before
    async with rig.call("GET", f"/hooks/{namespace}/a", role="") as response:
        assert response.status == 405


async def test_a_body_of_any_size_is_hashed_and_a_larger_one_is_refused(rig: Rig) -> None:
    namespace = await repository(rig, webhookSecret=SECRET)
    large = bytes(BODY_BYTES_MAX)
    assert (await send(rig, f"{namespace}/a", signed(large), io.BytesIO(large)))[0] == 202
    before = rig.version
    code, answer = await send(rig, f"{namespace}/a", signed(large), io.BytesIO(large + b" "))
    assert (code, answer["reason"]) == (413, "RequestEntityTooLarge")
    assert rig.version == before


async def test_deliveries_that_come_together_share_a_note_which_comes_after_the_last(
    rig: Rig,
) -> None:
    namespace = await repository(rig, webhookSecret=SECRET)
    place, before = f"{namespace}/a", rig.version
    codes = await asyncio.gather(*(send(rig, place, signed()) for _ in range(30)))
    assert {code for code, _ in codes} == {202}
    written = rig.version - before
    assert 1 <= written <= 2, "the first goes at once, the others wait together"
    note = await noted(rig, namespace)
    assert (await send(rig, place, signed()))[0] == 202
    assert await noted(rig, namespace) != note, "answered only when a later note is there"


async def test_more_than_a_forge_would_send_are_put_off(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "WAITING_MAX", 3)
    namespace = await repository(rig, webhookSecret=SECRET)
    codes = [code for code, _ in await asyncio.gather(
        *(send(rig, f"{namespace}/a", signed()) for _ in range(20))
    )]  # fmt: skip
    assert set(codes) == {202, 429}
    assert (await send(rig, f"{namespace}/a", signed()))[0] == 202


@pytest.mark.parametrize("secret", ["", "too short", "x" * 256, "with a space in it"])
async def test_a_secret_that_is_easily_guessed_or_fits_no_header_is_refused(
    rig: Rig, secret: str
) -> None:
    path = f"{G}/namespaces/{await rig.namespace()}/repositories"
    body = {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "Repository",
        "metadata": {"name": "a"},
        "spec": {"type": "git", "url": URL, "webhookSecret": secret},
    }
    status = await rig.refused("POST", path, 422, json=body)
    assert "spec.webhookSecret: Invalid value: must have 16 to 255" in status["message"]
    assert not secret or secret not in status["message"]
