"""Which operating system this device should boot, and what is left to do for it. Pure.

Theory of operation. An image-based system has slots: the one that is *booted*, the one that is
*staged* for the next boot, and the one to *roll back* to. All of them are observed; nothing about
them is remembered. What to do follows from three questions: is the wanted image booted, would the
next boot start it, and is a slot that would start there wanted by nobody?

"The same image" is decided here and nowhere else. A digest, where both sides know one, decides
alone. Otherwise references are compared as they mean, not as they are spelt: a tag beside a digest
says nothing, and no tag is the tag `latest`. A tag is resolved once for each version, when its
image is fetched; `Wanted.digests` holds what it meant then, so a tag that moves later starts
nothing by itself.
"""

from __future__ import annotations

import re

from resources.records import dataclass

BOOTC = "bootc"
RPM_OSTREE = "rpm-ostree"
PACKAGE = "package"

# Twice more than needed: a power cut before the shutdown was through takes a staged image with it.
REBOOTS_MAX = 3
# The way back, and drift: the old system that two boots do not bring back will not come at all.
REBOOTS_BACK_MAX = 2

_NAME = re.compile(r"[a-zA-Z0-9\[][a-zA-Z0-9._:\[\]-]*(/[a-zA-Z0-9._-]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"[a-z0-9]+:[0-9a-fA-F]{32,}")


@dataclass(frozen=True, slots=True)
class Reference:
    """`tag` is empty where `digest` is not: it then decides nothing."""

    name: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


def reference(text: str) -> Reference:
    """Raises ValueError with a sentence for a person."""
    rest, _, digest = text.partition("@")
    folder, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    name = f"{folder}{slash}{last}"
    is_well = _NAME.fullmatch(name) and (not colon or _TAG.fullmatch(tag))
    if not is_well or ("@" in text and not _DIGEST.fullmatch(digest)):
        raise ValueError(f"{text!r} is not an image reference")
    return Reference(name, "" if digest else tag or "latest", digest)


@dataclass(frozen=True, slots=True)
class Slot:
    """One bootable system. `deployment` tells it from another one made of the same image."""

    image: str
    digest: str = ""
    deployment: str = ""


@dataclass(frozen=True, slots=True)
class Slots:
    booted: Slot | None = None
    staged: Slot | None = None
    rollback: Slot | None = None
    is_rollback_queued: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """`may_roll_back`: on the way back the slot that is there serves; forward it never does,
    since it would come with configuration of its own time. `may_reboot` False: what the next boot
    starts is put right, but what is booted stays."""

    image: str
    digests: tuple[str, ...] = ()
    may_roll_back: bool = False
    may_reboot: bool = True


def is_same(wanted: Wanted, slot: Slot | None) -> bool:
    if slot is None:
        return False
    target, found = _read(wanted.image), _read(slot.image)
    wants = {*wanted.digests, target.digest} - {""}
    has = {slot.digest, found.digest} - {""}
    # NB an index of several architectures has a digest beside that of the image in it: a tool may
    # know the slot by either, and by the one that we have named.
    return bool(wants & has) if wants and has else target == found


def _read(image: str) -> Reference:
    """What is no reference (a slot that was filled from a folder) is a name that equals itself."""
    try:
        return reference(image)
    except ValueError:
        return Reference(image)


def stage_name(wanted: Wanted, slots: Slots) -> str:
    """What to call the image for the tool that stages it.

    The tool takes the name that is booted already for no change at all; a tag that has moved is
    therefore named by its digest.
    """
    target = _read(wanted.image)
    named = {_read(slot.image) for slot in (slots.booted, slots.staged) if slot is not None}
    if wanted.digests and not target.digest and target in named:
        return f"{target.name}@{wanted.digests[0]}"
    return str(target) if target.digest else wanted.image


# Steps. -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PullOs:
    image: str


@dataclass(frozen=True, slots=True)
class StageOs:
    """Makes `image` what the next boot starts."""

    image: str
    name: str


@dataclass(frozen=True, slots=True)
class DiscardStaged:
    """What is staged is never started; `image` is what runs and shall go on."""

    image: str
    staged: str


@dataclass(frozen=True, slots=True)
class QueueRollback:
    """The next boot starts the rollback slot."""

    image: str


@dataclass(frozen=True, slots=True)
class DequeueRollback:
    """The next boot starts what is booted now."""

    image: str


@dataclass(frozen=True, slots=True)
class Reboot:
    """`rollback_deployment` is the one that could be gone back to when this was planned: another
    one there after the boot is the system that we have just come back from."""

    image: str
    rollback_deployment: str = ""


Step = PullOs | StageOs | DiscardStaged | QueueRollback | DequeueRollback | Reboot


@dataclass(frozen=True, slots=True)
class Plan:
    """`reboot` is due after `steps`. Files are written before it on the way forward, since the new
    system takes them over; on the way back they wait, for they would be left behind."""

    steps: tuple[Step, ...] = ()
    reboot: Reboot | None = None
    is_back: bool = False


def plan(wanted: Wanted | None, slots: Slots | None) -> Plan:
    """Without a word to the contrary in `wanted`, empty exactly if the wanted image is booted and
    the next boot starts it again."""
    if wanted is None or slots is None:
        return Plan()
    if is_same(wanted, slots.booted):
        return Plan(_kept(wanted, slots))
    if not wanted.may_reboot:
        return Plan()
    reboot = Reboot(wanted.image, slots.rollback.deployment if slots.rollback else "")
    if wanted.may_roll_back and is_same(wanted, slots.rollback):
        is_queued = slots.is_rollback_queued and slots.staged is None
        steps = () if is_queued else (QueueRollback(wanted.image),)
        return Plan(steps, reboot, is_back=True)
    if is_same(wanted, slots.staged):
        return Plan((), reboot)
    return Plan((StageOs(wanted.image, stage_name(wanted, slots)),), reboot)


def _kept(wanted: Wanted, slots: Slots) -> tuple[Step, ...]:
    if slots.staged is not None and not is_same(wanted, slots.staged):
        return (DiscardStaged(wanted.image, slots.staged.image),)
    if slots.is_rollback_queued and slots.staged is None:
        return (DequeueRollback(wanted.image),)
    return ()


def has_fallen_back(wanted: Wanted, slots: Slots, rollback_deployment: str) -> bool:
    """Whether the wanted system was made bootable and is not what runs.

    Asked after a reboot that should have started it. If it is in no slot, the power went before the
    shutdown was through, and nothing is known against it.
    """
    if is_same(wanted, slots.booted) or not is_same(wanted, slots.rollback):
        return False
    assert slots.rollback is not None
    return slots.rollback.deployment != rollback_deployment


def name_of(slot: Slot | None) -> str:
    return slot.image if slot is not None and slot.image else "another system"
