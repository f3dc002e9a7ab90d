"""The small formats: what is right, what is not, and that a refusal says something."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources import formats

DIGEST = "@sha256:" + "a" * 64
strict = partial(formats.image, strict=True)
templated = partial(formats.image, templated=True)
protocols = partial(formats.port_pair, protocol=True)

RIGHT: list[tuple[Callable[[str], str | None], list[str]]] = [
    (formats.subdomain, ["a", "a-b.c", "0", "a" * 253, "13d632d86373caaeda64da4052f957faa742fc70"]),
    (formats.generic_name, ["a", "a-b", "a" * 63]),
    (formats.label_key, ["a", "A_b.c", "example.com/a", "a" * 63]),
    (formats.label_value, ["", "a", "A_b.c", "a" * 63]),
    (formats.owner, ["Fleet/web", "ResourceSync/a.b", "Device/0a"]),
    (formats.env_name, ["A", "_a1"]),
    (formats.user, ["root", "0", "4294967294", "a_b-c$", "1000", "_chrony"]),
    (formats.absolute_path, ["/a", "/a/b.c", "/.a", "/a:b"]),
    (formats.target_path, ["/etc/motd", "/etc/flightctl/other", "/var/lib/flightctlx"]),
    (formats.relative_path, ["a", "./a", "a/b", ".a", "..a"]),
    (formats.revision, ["main", "v1.2", "feature/x_y", "c5ff21b9a8116bb5daf72c8f07b67449c221b596"]),
    (
        formats.image,
        [
            "nginx",
            "nginx:1",
            "quay.io/a/b",
            "localhost:5000/a",
            "quay.io/a/b:1" + DIGEST,
            "a__b/c",
            "[::1]:5000/a",
        ],
    ),
    (strict, ["quay.io/a", "localhost/a", "a:5000/b"]),
    (templated, ["quay.io/a:{{ .metadata.name }}", "a:{{x}}{{y}}" + DIGEST, "a:v{{x}}"]),
    (formats.registry, ["quay.io", "a", "10.0.0.1:5000", "[fe80::1]:443"]),
    (formats.port_pair, ["80:80", "1:65535"]),
    (protocols, ["80:80/tcp", "80:80/udp", "80:80/sctp", "80:80"]),
    (formats.percentage, ["0%", "7%", "100%"]),
    (formats.duration, ["0s", "30s", "10m", "24h"]),
    (formats.time_zone, ["Local", "UTC", "GMT", "Europe/Berlin", "America/Argentina/Salta"]),
]
WRONG: list[tuple[Callable[[str], str | None], list[str]]] = [
    (formats.subdomain, ["", "A", "-a", "a-", "a..b", "a_b", "a" * 254, "a\n", "ä"]),
    (formats.generic_name, ["", "a.b", "A", "a" * 64]),
    (formats.label_key, ["", "/a", "a/", "A_/a", "a/b/c", "-a", "a" * 64, "a b"]),
    (formats.label_value, ["-", "a-", "a b", "a" * 64, "a\n", "ä"]),
    (formats.owner, ["web", "Fleet/", "/web", "Fleet/a/b", "Fleet/A"]),
    (formats.env_name, ["", "1A", "A-B", "A" * 254]),
    (formats.user, ["", "a b", "65535", "4294967295", "a" * 33, "-a", "99999999999", "$"]),
    (formats.absolute_path, ["", "a", "/", "//a", "/a/", "/a/./b", "/a/../b", "/a\0", "/" * 4097]),
    (
        formats.target_path,
        [
            "/a:b",
            "/var/lib/flightctl",
            "/var/lib/flightctl/x",
            "/usr/lib/flightctl/a/b",
            "/etc/flightctl/certs/ca.crt",
            "/etc/flightctl/config.yaml",
            "/etc/flightctl/config.yml",
        ],
    ),
    (formats.relative_path, ["", "/a", "..", "../a", "a/../b", "a//b", "a/", "a" * 254]),
    (formats.revision, ["", "-a", "a b", "a" * 245]),
    (formats.image, ["", "A", "a b", "a:", "a@sha256:12", "https://a/b", "a" * 2049, "a:{{x}}"]),
    (strict, ["nginx", "library/nginx", "nginx:1"]),
    (templated, ["{{x}}", "quay.io/{{x}}:1", "a:{{x", "a:1@{{x}}"]),
    (formats.registry, ["", "https://quay.io", "Quay.io", "a:0", "a:70000", "a/b"]),
    (formats.port_pair, ["", "80", "80:", "0:80", "80:65536", "80:80/tcp", "٨٠:80", "1:999999999"]),
    (protocols, ["80:80/icmp", "80/tcp"]),
    (formats.percentage, ["", "101%", "1", "-1%", "07%"]),
    (formats.duration, ["", "1", "1d", "1h30m", "-1s", "1.5h", "1s\n"]),
    (formats.time_zone, ["", "CET", "Nowhere/Land", "../etc/passwd", "EST"]),
]


def _cases(table: list[tuple[Callable[[str], str | None], list[str]]]) -> list[object]:
    return [
        pytest.param(check, text, id=f"{getattr(check, '__name__', 'variant')}-{text[:24]!r}")
        for check, texts in table
        for text in texts
    ]


@pytest.mark.parametrize(("check", "text"), _cases(RIGHT))
def test_right(check: Callable[[str], str | None], text: str) -> None:
    assert check(text) is None


@pytest.mark.parametrize(("check", "text"), _cases(WRONG))
def test_wrong(check: Callable[[str], str | None], text: str) -> None:
    found = check(text)
    assert found
    # A message is a line, however long the value.
    assert len(found) < 250


@pytest.mark.parametrize(
    ("value", "right"), [(0, True), (0o7777, True), (0o10000, False), (-1, False)]
)
def test_modes_are_twelve_bits(value: int, right: bool) -> None:
    assert (formats.mode(value) is None) is right


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("10m", 600), ("2h", 7200), ("2d", None), (7, None), (None, None)],
)
def test_a_duration_has_a_length(text: object, seconds: int | None) -> None:
    assert formats.seconds(text) == seconds


class TestContent:
    def test_a_mebibyte_is_the_most(self) -> None:
        assert formats.content("x" * formats.MAX_CONTENT_BYTES, "plain") is None
        assert formats.content("x" * (formats.MAX_CONTENT_BYTES + 1), "plain")

    def test_bytes_count_and_not_characters(self) -> None:
        assert formats.content("ä" * (formats.MAX_CONTENT_BYTES // 2 + 1), "plain")

    def test_base64_may_be_wrapped(self) -> None:
        assert formats.content("aGVs\nbG8=\n", "base64") is None
        assert formats.decoded("aGVs\nbG8=\n") == b"hello"

    @pytest.mark.parametrize("text", ["a", "aGVsbG8", "aGVs bG8=", "%%%=", "ä"])
    def test_what_is_not_base64_is_refused(self, text: str) -> None:
        assert formats.decoded(text) is None
        assert formats.content(text, "base64")


PATTERNS = [
    (formats.subdomain, formats.SUBDOMAIN),
    (formats.generic_name, formats.GENERIC_NAME),
    (formats.percentage, formats.PERCENTAGE),
    (formats.duration, formats.DURATION),
]


@pytest.mark.parametrize(("check", "pattern"), PATTERNS)
@given(st.text(alphabet="a0A-./_%smh1 9", max_size=12))
def test_a_check_and_its_published_pattern_agree(
    check: Callable[[str], str | None], pattern: str, text: str
) -> None:
    assert (check(text) is None) == bool(re.fullmatch(pattern[1:-1], text))
