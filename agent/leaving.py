"""Decommissioning: the last words, and then nothing is left of this device's identity.

The service is told before anything is wiped, and is waited for, but not for ever: whoever dismissed
the device wants it gone. The wipe starts with the identity and ends with the journal, so that a
crash in the middle goes on where it was and never comes back as a device that was not dismissed.
Applications and configuration files stay, as with the agent that we replace.
"""

from __future__ import annotations

import logging

from agent import world
from agent.mailbox import Mailbox
from agent.telling import Teller

log = logging.getLogger("agent.leaving")

DEPTH_MAX = 8


def say_farewell(where: world.World, mailbox: Mailbox, teller: Teller, patience_s: float) -> None:
    for reason, words in (
        ("Started", "Device started decommissioning"),
        ("Completed", "Device completed decommissioning and will wipe its identity"),
    ):
        teller.decommissioning(reason, words, where.now())
        if not mailbox.wait_for_push(patience_s / 2):
            log.warning("the service has not heard of the decommissioning reason=%s", reason)


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
