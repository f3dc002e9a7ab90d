"""The registry: every kind once, with facts that fit its model."""

from __future__ import annotations

import pytest

from resources import registry, schema
from resources.kind import Kind

kinds = pytest.mark.parametrize("kind", registry.KINDS, ids=lambda kind: kind.kind)
# Selectable, though no part of the document.
STORED_ONLY = {"metadata.alias", "status.renderNeeded", "status.connected"}


@kinds
def test_a_kind_is_found_by_path_and_by_name(kind: Kind) -> None:
    assert registry.by_path(kind.group, kind.version, kind.plural) is kind
    assert registry.by_kind(kind.kind) is kind


def test_what_is_not_served_is_not_found() -> None:
    assert registry.by_path("flightctl.io", "v1beta1", "catalogs") is None
    with pytest.raises(KeyError):
        registry.by_kind("Catalog")


def test_no_word_that_kubectl_takes_means_two_things() -> None:
    words: list[str] = []
    for kind in registry.KINDS:
        words += {kind.plural, kind.singular, kind.kind.lower(), *kind.short_names}
    assert len(words) == len(set(words))
    # kubectl expands categories before it looks for a kind.
    assert not set(words) & {c for kind in registry.KINDS for c in kind.categories}


@kinds
def test_selectable_and_immutable_fields_and_columns_exist(kind: Kind) -> None:
    root = schema.structural(kind.model)
    paths = {*kind.selectable, *kind.immutable} - STORED_ONLY
    for path in (*paths, *(column.path.lstrip(".") for column in kind.columns)):
        node = root
        for name in path.replace("[", ".[").split("."):
            if name.startswith("["):
                node = node["items"]
                continue
            assert name in node.get("properties", {}) or "additionalProperties" in node, path
            node = node.get("properties", {}).get(name) or node["additionalProperties"]


@kinds
def test_columns_have_names_of_their_own_and_words(kind: Kind) -> None:
    names = [column.name for column in kind.columns]
    assert len(names) == len(set(names))
    assert "Age" in names
    assert all(column.description for column in kind.columns)


@kinds
def test_a_status_in_the_model_has_its_subresource(kind: Kind) -> None:
    assert kind.has_status == ("status" in kind.model.model_fields)
