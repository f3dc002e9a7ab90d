"""Folders of quadlets, looked at and changed: in this process where they are root's, in a child
that has become the user where they are in a home (`python -m agent.homefiles`: JSON in, JSON out).

Root never reads or writes below a home: its owner may put a link in place of any folder at any
moment. Every question may be asked twice; a `put` that is cut off leaves each file old or new.
"""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
import sys
from collections.abc import Iterable
from typing import Any

from agent import world

Json = dict[str, Any]

FOLDER_MODE = 0o755
DEPTH_MAX = 4
FILES_MAX = 5000
TARGET_SUFFIX = "-flightctl-quadlet-app.target"


def perform(where: world.World, question: Json) -> Json:
    """Raises OSError."""
    match question["do"]:
        case "look":
            return look(where, question["units"], question["targets"], question["folders"])
        case "put":
            put(where, question)
        case "take":
            take(where, question["paths"], question["trees"], question["keep"])
    return {}


def look(where: world.World, units: str, targets: str, folders: Iterable[str]) -> Json:
    """`apps`: folder -> names in it; of those that hold a target, and of `folders`. `marks`: each
    file's digest, mode, owner and group. `texts`: the targets that can be read."""
    apps = {}
    paths = [f"{targets}/{n}" for n in where.listdir(targets) if n.endswith(TARGET_SUFFIX)]
    found = {path: where.stat(path) for path in paths[:FILES_MAX]}
    for folder in dict.fromkeys([*(f"{units}/{n}" for n in where.listdir(units)), *folders]):
        names = where.listdir(folder)
        is_ours = any(name.endswith(TARGET_SUFFIX) for name in names)
        if folder in folders or is_ours:
            apps[folder] = names
            found.update(tree(where, folder, names))
    marks, texts = {}, {}
    for path, stat in list(found.items())[:FILES_MAX]:
        if stat is None:
            continue
        data = where.read(path) if stat.kind == world.FILE else None
        # A link or a folder in place of a file has no digest that anybody wants.
        digest = hashlib.sha256(data).hexdigest() if data is not None else ""
        marks[path] = [digest, stat.mode, stat.uid, stat.gid]
        if data is not None and path.endswith(TARGET_SUFFIX):
            texts[path] = data.decode(errors="replace")
    return {"apps": apps, "marks": marks, "texts": texts}


def times(where: world.World, places: Iterable[str]) -> dict[str, int] | None:
    """When each thing at and below `places` changed last. Nothing is read, so root may do it for
    others; None = they are too many, or not to be seen: no right to, or a link on the way."""
    found: dict[str, int] = {}
    waiting = [(place, 0) for place in places]
    try:
        while waiting:
            place, depth = waiting.pop()
            if len(found) >= FILES_MAX or depth > DEPTH_MAX + 1:
                return None
            found[place] = where.touched_ns(place)
            stat = where.stat(place)
            if stat is not None and stat.kind == world.DIRECTORY:
                waiting += [(f"{place}/{name}", depth + 1) for name in where.listdir(place)]
    except OSError:
        return None
    return found


def tree(where: world.World, folder: str, names: Iterable[str]) -> dict[str, world.Stat]:
    """Everything in it that is no folder. `names` are those that are right in it."""
    found: dict[str, world.Stat] = {}
    waiting = [(folder, names, 0)]
    while waiting and len(found) < FILES_MAX:
        place, names, depth = waiting.pop()
        for path in (f"{place}/{name}" for name in names):
            stat = where.stat(path)
            if stat is not None and stat.kind == world.DIRECTORY and depth < DEPTH_MAX:
                waiting.append((path, where.listdir(path), depth + 1))
            elif stat is not None:
                found[path] = stat
    return found


def put(where: world.World, question: Json) -> None:
    """`files`: path -> (base64, mode). Of `gone`, and of what else is in `folder`, nothing stays:
    it would become a service."""
    files = question["files"]
    folder = question["folder"]
    inside = tree(where, folder, where.listdir(folder)) if folder else {}
    there = {*question["gone"], *inside}
    take(where, sorted(there - set(files)), (), question["keep"])
    for path, (data, mode) in sorted(files.items()):
        found = where.stat(path)
        if found is not None and found.kind == world.DIRECTORY:
            remove_tree(where, path)
        where.mkdir(posixpath.dirname(path), mode=FOLDER_MODE)
        content, uid, gid = base64.b64decode(data), question["uid"], question["gid"]
        where.write(path, content, mode=mode, uid=uid, gid=gid)


def take(
    where: world.World, paths: Iterable[str], trees: Iterable[str], keep: Iterable[str]
) -> None:
    """Files, the folders that have nothing else in them (but `keep`), and whole trees."""
    paths = list(paths)
    for path in paths:
        found = where.stat(path)
        if found is not None and found.kind != world.DIRECTORY:
            where.remove(path)
    for folder in sorted({posixpath.dirname(p) for p in paths}, key=len, reverse=True):
        depth = DEPTH_MAX
        while depth and folder not in keep:
            if where.stat(folder) is None or where.listdir(folder):
                break
            where.remove(folder)
            folder, depth = posixpath.dirname(folder), depth - 1
    for folder in trees:
        remove_tree(where, folder)


def remove_tree(where: world.World, path: str) -> None:
    found = where.stat(path)
    if found is not None and found.kind == world.DIRECTORY:
        for name in where.listdir(path):
            remove_tree(where, f"{path}/{name}")
    where.remove(path)


def main() -> int:
    from agent.linux import LinuxWorld

    try:
        answer = perform(LinuxWorld(), json.load(sys.stdin))
    except OSError as error:
        answer = {"path": error.filename or "", "trouble": error.strerror or str(error)}
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
