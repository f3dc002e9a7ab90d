"""What is secret in a document is hidden, and what is hidden finds back."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from resources import masking, registry
from resources.errors import Invalid
from resources.masking import LAST_APPLIED, MASK

Json = dict[str, Any]
REPOSITORY = registry.by_kind("Repository")


def repository(**spec: Any) -> Json:
    return {"metadata": {"name": "a"}, "spec": {"type": "git", "url": "https://a", **spec}}


STORED = repository(
    httpConfig={"username": "me", "password": "p1", "token": "t1", "tls.crt": "c1", "tls.key": "k1",
                "ca.crt": "public"},
)  # fmt: skip


def test_every_secret_of_the_contract_is_one_and_ours_is() -> None:
    written = {masking._written(path) for path in masking.secret_paths(REPOSITORY.model)}
    assert written == {
        "spec.httpConfig.password", "spec.httpConfig.token", "spec.httpConfig[tls.crt]",
        "spec.httpConfig[tls.key]", "spec.sshConfig.sshPrivateKey",
        "spec.sshConfig.privateKeyPassphrase", "spec.ociAuth.password",
        "spec.webhookSecret",
    }  # fmt: skip


def test_the_mask_hides_and_the_original_is_not_touched() -> None:
    before = copy.deepcopy(STORED)
    shown = masking.masked(REPOSITORY, STORED)
    assert shown["spec"]["httpConfig"] == {
        "username": "me", "password": MASK, "token": MASK, "tls.crt": MASK, "tls.key": MASK,
        "ca.crt": "public",
    }  # fmt: skip
    assert before == STORED


def test_what_is_shown_and_sent_back_is_what_was_stored() -> None:
    shown = masking.masked(REPOSITORY, STORED)
    assert masking.restored(REPOSITORY, shown, STORED) == STORED


def test_a_new_value_and_an_absent_one_are_what_the_writer_says() -> None:
    sent = repository(httpConfig={"username": "me", "password": "p2", "tls.key": MASK})
    kept = masking.restored(REPOSITORY, sent, STORED)["spec"]["httpConfig"]
    assert kept == {"username": "me", "password": "p2", "tls.key": "k1"}


@pytest.mark.parametrize(
    ("sent", "old"),
    [
        pytest.param(repository(httpConfig={"password": MASK}), None, id="nothing is stored"),
        pytest.param(repository(httpConfig={"password": MASK}), repository(), id="not this"),
        pytest.param(
            repository(type="http", httpConfig={"password": MASK}), STORED, id="another type"
        ),
    ],
)
def test_a_mask_of_nothing_is_refused_by_field(sent: Json, old: Json | None) -> None:
    with pytest.raises(Invalid, match=r"^spec\.httpConfig\.password: .*write the value"):
        masking.restored(REPOSITORY, sent, old)


@pytest.mark.parametrize("document", [{}, {"spec": 7}, {"spec": {"httpConfig": [1]}}])
def test_any_json_is_survived(document: Json) -> None:
    assert masking.masked(REPOSITORY, document) == document
    assert masking.restored(REPOSITORY, document, None) == document
    assert masking.without_copies(REPOSITORY, document) == document


def test_the_note_of_kubectl_is_masked_too() -> None:
    noted = json.dumps(STORED)
    document = {"metadata": {"name": "a", "annotations": {LAST_APPLIED: noted, "b": "c"}}}
    annotations = masking.without_copies(REPOSITORY, document)["metadata"]["annotations"]
    assert json.loads(annotations[LAST_APPLIED]) == masking.masked(REPOSITORY, STORED)
    assert annotations["b"] == "c"
    document["metadata"]["annotations"] = {LAST_APPLIED: "p1, as somebody wrote it"}
    assert "p1" not in str(masking.without_copies(REPOSITORY, document))


def test_kinds_without_secrets_are_left_alone() -> None:
    fleet = {"metadata": {"name": "a", "annotations": {LAST_APPLIED: "{}"}}, "spec": {}}
    assert masking.masked(registry.by_kind("Fleet"), fleet) is fleet
    assert masking.without_copies(registry.by_kind("Fleet"), fleet) is fleet
