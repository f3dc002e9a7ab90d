"""A copy shares nothing that can change."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from resources.copying import copied
from resources.kind import Json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def changeable(value: object) -> list[int]:
    """The identities of all dicts and lists in `value`."""
    if isinstance(value, dict):
        return [id(value), *(i for inner in value.values() for i in changeable(inner))]
    if isinstance(value, list):
        return [id(value), *(i for inner in value for i in changeable(inner))]
    return []


@given(JSON)
def test_a_copy_is_equal_and_shares_nothing_that_can_change(value: Json) -> None:
    copy = copied(value)
    assert copy == value
    assert not set(changeable(copy)) & set(changeable(value))
