"""The boot loader of a device that has deployments: which of them boots. [simulated]

Real: the entries, in the Boot Loader Specification's form, as ostree wrote them. Simulated: who
reads them, by GRUB's rule with greenboot's countdown. A system that was staged has so many boots;
each one that does not end in `boot_success` counts; then the entry after the default is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# boot_counter says so when its boots were used up and the older system was taken.
FELL_BACK = "-1"


@dataclass(frozen=True, slots=True)
class Entry:
    """One that could be booted. `link` leads from the disk's root to its deployment."""

    version: int
    options: str

    @property
    def link(self) -> str:
        words = dict(word.partition("=")[::2] for word in self.options.split())
        return words["ostree"]


def boot(disk: Path) -> Entry:
    """What boots from this disk now; a counted boot is counted before it begins."""
    found = entries(disk)
    environment = disk / "boot/grub2/grubenv"
    chosen, variables = choose(found, _read(environment))
    if environment.exists():
        _write(environment, variables)
    return chosen


def entries(disk: Path) -> list[Entry]:
    """In the order of the menu: the highest version first, which is the default."""
    read = [_entry(file.read_text()) for file in (disk / "boot/loader/entries").glob("*.conf")]
    if not read:
        raise RuntimeError(f"nothing to boot on {disk}")
    return sorted(read, key=lambda entry: entry.version, reverse=True)


def choose(found: list[Entry], variables: dict[str, str]) -> tuple[Entry, dict[str, str]]:
    """The entry, and the variables as they are while it boots. Pure."""
    counter = variables.get("boot_counter")
    if counter is None or variables.get("boot_success") != "0":
        return found[0], variables
    if counter in ("0", FELL_BACK) and len(found) > 1:
        return found[1], variables | {"boot_counter": FELL_BACK}
    return found[0], variables | {"boot_counter": str(int(counter) - 1)}


def _entry(text: str) -> Entry:
    fields = dict(line.partition(" ")[::2] for line in text.splitlines())
    return Entry(int(fields["version"]), fields["options"])


def _read(environment: Path) -> dict[str, str]:
    if not environment.exists():
        return {}
    lines = environment.read_text().splitlines()
    return dict(line.partition("=")[::2] for line in lines if "=" in line)


def _write(environment: Path, variables: dict[str, str]) -> None:
    new = environment.with_suffix(".new")
    new.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    new.rename(environment)
