"""What proves that a webhook was sent by who knows the secret, and what is about a push."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from apiserver.wire.delivery import Delivery

# The examples that GitHub and Bitbucket publish for those who check signatures.
SECRET = "It's a Secret to Everybody"
GITHUB = b"Hello, World!", "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
BITBUCKET = b"Hello World!", "a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"


def proved(headers: dict[str, str], body: bytes = GITHUB[0], secret: str = SECRET) -> bool:
    delivery = Delivery(CIMultiDict(headers), secret)
    for number in range(0, len(body), 5):
        delivery.feed(body[number : number + 5])
    return delivery.is_proved()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param({"X-Hub-Signature-256": f"sha256={GITHUB[1]}"}, GITHUB[0], id="github"),
        pytest.param({"X-Hub-Signature": f"sha256={BITBUCKET[1]}"}, BITBUCKET[0], id="bitbucket"),
        pytest.param({"X-Gitea-Signature": GITHUB[1]}, GITHUB[0], id="gitea"),
        pytest.param({"X-Forgejo-Signature": GITHUB[1].upper()}, GITHUB[0], id="forgejo"),
        pytest.param({"X-Gitlab-Token": SECRET}, b"{}", id="gitlab"),
        pytest.param(
            {"X-Hub-Signature": "sha1=" + 40 * "0", "X-Hub-Signature-256": f"sha256={GITHUB[1]}"},
            GITHUB[0],
            id="an old signature beside a good one",
        ),
    ],
)
def test_each_forge_proves_it_in_its_own_way(headers: dict[str, str], body: bytes) -> None:
    assert proved(headers, body)
    assert not proved(headers, body + b" ") or "X-Gitlab-Token" in headers
    assert not proved(headers, body, "another secret")


def test_a_bearer_of_the_secret_is_believed_whatever_he_sends() -> None:
    assert proved({"Authorization": "Bearer a-secret-of-ours"}, b"", "a-secret-of-ours")
    assert not proved({"Authorization": "Bearer a-secret-of-our"}, b"", "a-secret-of-ours")
    assert not proved({"Authorization": "Basic a-secret-of-ours"}, b"", "a-secret-of-ours")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Hub-Signature-256": GITHUB[1]},
        {"X-Hub-Signature-256": "sha256="},
        {"X-Hub-Signature": "sha1=0f2cdb2fb4ba4e9d5d1f6bd5e4f1e8d2b0e1b2c3"},
        {"X-Gitea-Signature": ""},
        {"X-Gitlab-Token": ""},
        {"X-Gitlab-Token": "é\udcff"},
        {"Authorization": "Bearer"},
    ],
    ids=str,
)
def test_everything_else_proves_nothing(headers: dict[str, str]) -> None:
    assert not proved(headers)


@pytest.mark.parametrize(
    ("headers", "is_push"),
    [
        ({"X-GitHub-Event": "push"}, True),
        ({"X-GitHub-Event": "delete"}, True),
        ({"X-GitHub-Event": "ping"}, False),
        ({"X-GitHub-Event": "issues"}, False),
        ({"X-Gitea-Event": "push", "X-GitHub-Event": "push", "X-Gogs-Event": "push"}, True),
        ({"X-Forgejo-Event": "pull_request"}, False),
        ({"X-Gitlab-Event": "Tag Push Hook"}, True),
        ({"X-Gitlab-Event": "Pipeline Hook"}, False),
        ({"X-Event-Key": "repo:refs_changed"}, True),
        ({"X-Event-Key": "diagnostics:ping"}, False),
        ({"User-Agent": "curl/8"}, True),
    ],
    ids=str,
)
def test_what_moves_a_branch_or_a_tag_is_a_push(headers: dict[str, str], is_push: bool) -> None:
    assert Delivery(CIMultiDict(headers), "").is_push() is is_push
