"""Decommissioning: the last words, and then nothing is left of this device's identity.

The service is told before anything is wiped, and is waited for, but not for ever: whoever dismissed
the device wants it gone. The wipe starts with the identity and ends with the journal, so that a
crash in the middle goes on where it was and never comes back as a device that was not dismissed.
Applications and configuration files stay, as with the agent that we replace; a factory reset takes
them first (`clearing`).
"""

from __future__ import annotations

import logging

from agent import world
from agent.mailbox import Mailbox
from agent.telling import Teller

log = logging.getLogger("agent.leaving")

DEPTH_MAX = 8


def say_farewell(
    where: world.World, mailbox: Mailbox, teller: Teller, patience_s: float, *, is_reset: bool
) -> None:
    """Twice, as the reference: that it begins, and that it is about to be done, which is an error
    where the first was not heard. Whether the second is heard changes nothing."""
    teller.decommissioning("Started", "Device started decommissioning", where.now())
    if mailbox.wait_for_push(patience_s / 2):
        what = "its applications, their data and its identity" if is_reset else "its identity"
        words = f"Device completed decommissioning and will wipe {what}"
        teller.decommissioning("Completed", words, where.now())
    else:
        log.warning("the service has not heard that the decommissioning begins")
        words = "Device could not report that it started decommissioning, and will wipe itself"
        teller.decommissioning("Error", words, where.now())
    if not mailbox.wait_for_push(patience_s / 2):
        log.warning("the service has not heard of the end of the decommissioning")


def wipe(where: world.World, data_dir: str, own_dir: str) -> None:
    """Repeatable; the agent's own directory with the journal goes last."""
    log.warning("wiping identity and data path=%s", data_dir)
    certificates = f"{data_dir}/certs"
    for name in where.listdir(certificates):
        path = f"{certificates}/{name}"
        found = where.stat(path)
        if found is not None and found.kind == world.FILE:
            where.shred(path)
    for name in where.listdir(data_dir):
        if f"{data_dir}/{name}" != own_dir:
            _remove(where, f"{data_dir}/{name}", DEPTH_MAX)
    journal = f"{own_dir}/journal.jsonl"
    for name in where.listdir(own_dir):
        if f"{own_dir}/{name}" != journal:
            _remove(where, f"{own_dir}/{name}", DEPTH_MAX)
    where.remove(journal)
    where.remove(own_dir)


def _remove(where: world.World, path: str, depth: int) -> None:
    found = where.stat(path)
    if found is not None and found.kind == world.DIRECTORY and depth:
        for name in where.listdir(path):
            _remove(where, f"{path}/{name}", depth - 1)
    where.remove(path)
