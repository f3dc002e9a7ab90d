"""Whether there is room for a download, before it and while it goes on. Pure.

Before, it is an estimate from what the registry says of the layers that are not here yet. It is
kept low, for a device that never begins is stuck: that a disk does not fill up is for the look
during the download, which stops it while the rest of the device can still write.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

# Layers come packed: as they came, and twice as much unpacked beside it for a moment; the first
# byte is kept so that a broken download can go on.
TIMES = 4
# Of an artifact, which nobody unpacks: as it came, in podman's store, and in the volume.
ARTIFACT_TIMES = 3
# An operating system is written a second time when it is staged.
STAGED_TIMES = 2
# The rest of the device wants to write too.
RESERVE_BYTES = 64 << 20


def missing(layers: Mapping[str, int], known: Collection[str]) -> frozenset[str]:
    return frozenset(digest for digest in layers if digest not in known)


def needed(
    layers: Mapping[str, int],
    known: Collection[str],
    begun: Mapping[str, int],
    *,
    is_system: bool = False,
    is_artifact: bool = False,
) -> int:
    """`begun`: digest -> bytes of it that are on the disk already."""
    times = ARTIFACT_TIMES if is_artifact else TIMES + (STAGED_TIMES if is_system else 0)
    lacking = missing(layers, known)
    total = sum(layers[digest] * times - begun.get(digest, 0) for digest in lacking)
    return max(0, total)


def shortage(free: Mapping[str, int]) -> str:
    """Folder -> free bytes of its file system; empty = a download may go on."""
    for folder, count in free.items():
        if count < RESERVE_BYTES:
            return (
                f"no space left for it: {count >> 20} MiB are free in {folder},"
                f" the last {RESERVE_BYTES >> 20} MiB are for the rest of the device"
            )
    return ""


def keeps_begun(free: Collection[int]) -> bool:
    """Whether what was begun may stay on the disk after a download was stopped for want of room."""
    return all(count >= 2 * RESERVE_BYTES for count in free)
