"""Where quadlets lie, by whom they run for: in root's folders, or in a user's home.

The names are the other agent's: `/etc/containers/systemd` and `/etc/systemd/system`, or
`~/.config/containers/systemd` and `~/.config/systemd/user`, which belong to their user.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agent import compose, errors, homefiles, quadlet, world
from agent.accounts import Accounts
from agent.appplan import Mark
from agent.pulse import Pulse
from resources.records import dataclass, field

Json = dict[str, Any]

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Look:
    """`apps`: folder -> names in it; `marks`: all files of ours; `texts`: of the targets."""

    apps: Mapping[str, list[str]] = field(default_factory=dict)
    marks: Mapping[str, Mark] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


class Places:
    def __init__(
        self, where: world.World, accounts: Accounts, interpreter: str = sys.executable
    ) -> None:
        self._world = where
        self._interpreter = interpreter
        self._accounts = accounts

    def site(self, user: str) -> quadlet.Site:
        if not user:
            return quadlet.ROOT_SITE
        account = self._accounts.of(user)
        # Of somebody who is not here; nothing is ever done in their name.
        return quadlet.site_of(account.home if account is not None else f"/home/{user}")

    def owner(self, user: str) -> tuple[int, int]:
        """Whom the files belong to: (user, group)."""
        account = self._accounts.of(user)
        if account is not None:
            return account.uid, account.gid
        return self._world.uid_of("root") or 0, self._world.gid_of("root") or 0

    def look(self, user: str, folders: Iterable[str], pulse: Pulse | None = None) -> Look:
        """At all applications there, and at `folders`; by the `pulse`, a user is not asked again
        while nothing there changes. Raises Retry."""
        if user and self._accounts.of(user) is None:
            return Look()
        site = self.site(user)
        asked = list(folders)
        question = {"do": "look", "units": site.units, "targets": site.targets, "folders": asked}
        if user and pulse is not None:
            times = homefiles.times(self._world, {site.units, site.targets, *asked})
            found = pulse.look_into(user, question, times, lambda: self._ask(user, question))
        else:
            found = self._ask(user, question)
        marks = {path: _mark(mark) for path, mark in found["marks"].items()}
        return Look(found["apps"], marks, found["texts"])

    def put(
        self,
        user: str,
        files: Mapping[str, tuple[bytes, int]],
        *,
        folder: str,
        gone: Iterable[str] = (),
        app: str,
    ) -> None:
        """In place of `gone`, and of all that is in `folder` where one is given. Raises Retry."""
        encoded = {path: (base64.b64encode(d).decode(), m) for path, (d, m) in files.items()}
        uid, gid = self.owner(user)
        question = {"do": "put", "files": encoded, "gone": list(gone), "folder": folder}
        site = self.site(user)
        self._ask(user, {**question, "keep": _kept(site), "uid": uid, "gid": gid}, app)

    def take(self, user: str, paths: Iterable[str], trees: Iterable[str], app: str) -> None:
        """Raises Retry."""
        if user and self._accounts.of(user) is None:
            return
        site = self.site(user)
        question = {"do": "take", "paths": list(paths), "trees": list(trees)}
        self._ask(user, {**question, "keep": _kept(site)}, app)

    def _ask(self, user: str, question: Json, app: str = "") -> Json:
        if not user:
            try:
                return homefiles.perform(self._world, question)
            except OSError as error:
                words = f"{error.filename or ''}: {error.strerror or error}"
                raise _retry(words, app) from error
        argv = [self._interpreter, "-P", "-m", "agent.homefiles"]
        stdin = json.dumps(question).encode()
        answer = self._accounts.run(user, argv, timeout_s=TIMEOUT_S, stdin=stdin, env=_path())
        try:
            found: Json = json.loads(answer.stdout) if answer.ok else {}
        except ValueError:
            found = {}
        if not answer.ok or "trouble" in found or (question["do"] == "look" and not found):
            words = f"{found.get('path', '')}: {found.get('trouble')}" if found else answer.words
            raise _retry(f"as {user}: {errors.one_line(words)[-200:]}", app)
        return found


def _kept(site: quadlet.Site) -> list[str]:
    """Folders that stay, though nothing is in them any more."""
    return [site.units, site.targets, compose.FOLDER]


def _path() -> dict[str, str]:
    """Where a child finds the agent's modules."""
    own, known = str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{own}{os.pathsep}{known}" if known else own}


def _mark(found: Any) -> Mark:
    digest, mode, uid, gid = found
    return str(digest), int(mode), int(uid), int(gid)


def _retry(detail: str, app: str) -> errors.Retry:
    return errors.Retry(errors.INTERNAL, detail, component=errors.APPLICATIONS, element=app)
