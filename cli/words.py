"""Options as kubectl's users write them, said in the words of the parser. Pure.

kubectl takes `-o=yaml`, `--wait=false`, `--server-side=true` and options before the verb; the
parser under typer takes none of these. They are rewritten before it reads them, and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

# Verbs that are followed by another one.
GROUPS = ("rollout", "certificate", "app")
# With a value, and possibly before the verb.
ANYWHERE = ("--kubeconfig", "--data", "--context", "--namespace", "-n")

_TRUE, _FALSE = ("true", "1", "t"), ("false", "0", "f")


def verb_first(argv: Sequence[str]) -> list[str]:
    """Options before the verb, moved behind it."""
    moved: list[str] = []
    rest = list(argv)
    while rest and rest[0].startswith("-"):
        name = rest[0].partition("=")[0]
        known = name if name in ANYWHERE else rest[0][:2]
        if known not in ANYWHERE:
            return list(argv)
        takes_next = rest[0] == known
        moved += rest[: 2 if takes_next else 1]
        rest = rest[2 if takes_next else 1 :]
    if rest[:1] and rest[0] in GROUPS:
        return [rest[0], *verb_first([*moved, *rest[1:]])]
    return [*rest[:1], *moved, *rest[1:]]


def rewritten(
    args: Sequence[str], *, flags: Mapping[str, str | None], valued: Collection[str]
) -> list[str]:
    """`flags` are options without a value, each with its opposite where it has one; `valued` those
    that take one. Everything after `--` is left alone."""
    found: list[str] = []
    for place, word in enumerate(args):
        if word == "--":
            return found + list(args[place:])
        found += _word(word, flags, valued)
    return found


def _word(word: str, flags: Mapping[str, str | None], valued: Collection[str]) -> list[str]:
    name, equals, value = word.partition("=")
    if not equals:
        return [word]
    if name in flags:
        if value.lower() in _TRUE:
            return [name]
        if value.lower() in _FALSE:
            opposite = flags[name]
            return [opposite] if opposite else []
    # A long option takes its value so already.
    if name in valued and not name.startswith("--"):
        return [name + value] if value else [name, ""]
    return [word]
