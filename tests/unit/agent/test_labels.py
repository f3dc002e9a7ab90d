"""Labels that a device proposes."""

from __future__ import annotations

from typing import Any

import pytest

from agent import labels


def of(info: dict[str, Any], mapping: Any = None, defaults: Any = None) -> dict[str, str]:
    return labels.proposed(info, mapping or {}, defaults or {})[0]


def test_the_alias_is_the_host_name_unless_that_says_nothing() -> None:
    assert of({"hostname": "pump-7.example"}) == {"alias": "pump-7.example"}


@pytest.mark.parametrize(
    "host", ["", "(none)", "localhost", "localhost.localdomain", "127.0.0.1", "::1", "---"]
)
def test_names_that_any_device_has_are_no_alias(host: str) -> None:
    assert of({"hostname": host}) == {}


def test_system_information_is_made_to_fit() -> None:
    info = {"productName": "_My Board (rev 2)", "customInfo": {"site": "Köln"}, "bootID": "b"}
    mapping = {
        "board": "productName",
        "site": "customInfo.site",
        "boot": "BootID",
        "none": "missing",
        "alias": "customInfo.absent",
    }
    assert of({**info, "hostname": "h"}, mapping) == {
        "board": "My-Board--rev-2",
        "site": "K-ln",
        "boot": "b",
    }


def test_long_values_are_cut_to_a_valid_end() -> None:
    value = of({"x": "a" * 62 + "-b"}, {"k": "x"})["k"]
    assert value == "a" * 62
    assert labels.is_value(value)


def test_defaults_win_and_invalid_ones_are_left_out_by_name() -> None:
    result, complaints = labels.proposed(
        {"hostname": "h"},
        {"-bad": "hostname"},
        {"alias": "mine", "a b": "x", "ok/ok": "", "v": "a b", "UP.per/x": "1"},
    )
    assert result == {"alias": "mine", "ok/ok": ""}
    assert len(complaints) == 4
