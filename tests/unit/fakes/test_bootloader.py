"""The boot loader of the tests' devices: GRUB's choice, with greenboot's countdown. [simulated]"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import bootloader
from tests.e2e.bootloader import Entry, choose

NEW, OLD = Entry(2, "root=x ostree=/new"), Entry(1, "root=x ostree=/old")


@pytest.mark.parametrize(
    ("variables", "chosen", "counter"),
    [
        ({}, NEW, None),
        ({"boot_success": "1"}, NEW, None),
        ({"boot_counter": "3", "boot_success": "0"}, NEW, "2"),
        ({"boot_counter": "1", "boot_success": "0"}, NEW, "0"),
        ({"boot_counter": "0", "boot_success": "0"}, OLD, "-1"),
        ({"boot_counter": "-1", "boot_success": "0"}, OLD, "-1"),
        ({"boot_counter": "0", "boot_success": "1"}, NEW, "0"),
    ],
    ids=["no greenboot", "good", "counted", "last", "used up", "still used up", "good in time"],
)
def test_a_boot_counts_until_one_was_good(
    variables: dict[str, str], chosen: Entry, counter: str | None
) -> None:
    entry, after = choose([NEW, OLD], variables)
    assert entry is chosen
    assert after.get("boot_counter") == counter


def test_three_boots_of_the_new_system_and_then_the_old_one() -> None:
    variables = {"boot_counter": "3", "boot_success": "0"}
    booted = []
    for _ in range(5):
        entry, variables = choose([NEW, OLD], variables)
        booted.append(entry)
    assert booted == [NEW, NEW, NEW, OLD, OLD]


def test_the_highest_version_is_the_default_and_names_its_deployment(tmp_path: Path) -> None:
    folder = tmp_path / "boot/loader/entries"
    folder.mkdir(parents=True)
    for version in (9, 10):
        text = f"title t\nversion {version}\noptions rw ostree=/ostree/boot.1/d/{version}\n"
        (folder / f"ostree-{version}.conf").write_text(text)
    assert bootloader.boot(tmp_path).link == "/ostree/boot.1/d/10"
