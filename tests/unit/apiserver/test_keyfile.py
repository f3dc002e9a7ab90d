"""The file of encryption keys: what it may hold, and what is said of one that is wrong."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from apiserver.store.keyfile import BadKeys, KeyFile

ONE, TWO = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))


def written(folder: Path, text: str | bytes) -> KeyFile:
    path = folder / "keys"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return KeyFile(path)


def test_the_first_key_writes_and_all_read(tmp_path: Path) -> None:
    old = written(tmp_path, f"one {ONE}\n").read()
    new = written(tmp_path, f"# keys\n\ntwo {TWO}\n  one   {ONE}\n").read()
    assert old is not None
    assert new is not None
    assert (old.first, new.first) == ("one", "two")
    assert new.open("one", old.seal(b"value", "here"), "here") == b"value"
    assert not old.has("two")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no key"),
        ("# one\n", "holds no key"),
        (f"{ONE}\n", "line 1 is not a name"),
        (f"one {ONE} more\n", "line 1 is not a name"),
        (f"\n{'n' * 64} {ONE}\n", "line 2 is not a name"),
        (f"-one {ONE}\n", "line 1 is not a name"),
        ("one AAAA\n", "line 1: the key is not 32 bytes"),
        ("one $$$$\n", "line 1: the key is not 32 bytes"),
        (f"one {ONE}\none {TWO}\n", "line 2: there is another key one"),
        ("".join(f"k{n} {ONE}\n" for n in range(101)), "more than 100 keys"),
        (b"one \xff\n", "is not text"),
        ("#" * 70_000, "is larger than"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_and_no_key(tmp_path: Path, text: str | bytes, why: str) -> None:
    with pytest.raises(BadKeys, match=why) as refused:
        written(tmp_path, text).read()
    assert str(tmp_path) in str(refused.value)
    assert ONE not in str(refused.value)


def test_a_file_that_was_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(BadKeys, match="does not exist"):
        KeyFile(tmp_path / "keys").read()


def test_a_file_that_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys", may_be_made=True)
    assert file.read() is None
    made = file.make()
    again = file.read()
    assert again is not None
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert again.open(made.first, made.seal(b"value", "here"), "here") == b"value"
    assert [each.name for each in tmp_path.iterdir()] == ["keys"]


def test_no_text_made_of_a_key_holds_it(tmp_path: Path) -> None:
    ring = written(tmp_path, f"one {ONE}\n").read()
    assert ring is not None
    key = ring._keys["one"]
    assert "\\x01" not in f"{key!r} {key} {vars(ring)}"
