"""The small formats inside documents: names, labels, paths, images, sizes, periods.

Every check takes a text and returns None when it is right, or a sentence that says what to write
instead. Standard library only and pure. Patterns stay inside RE2's subset, for the same ones are
published in our schemas and must mean the same to Go.
"""

from __future__ import annotations

import base64
import binascii
import re
import zoneinfo
from functools import cache

MAX_NAME = 253
MAX_LABEL = 63
MAX_PATH = 4096
MAX_CONTENT_BYTES = 1 << 20
MAX_IMAGE = 2048

LABEL_NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
GENERIC_NAME = f"^{LABEL_NAME}$"
SUBDOMAIN = rf"^{LABEL_NAME}(\.{LABEL_NAME})*$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
GIT_REVISION = r"^[a-zA-Z0-9]([a-zA-Z0-9./_-])*$"
PERCENTAGE = r"^(100|[1-9]?[0-9])%$"
# One number and one unit, as the contract publishes it; a Go duration of that shape.
DURATION = r"^([1-9][0-9]*)?[0-9][smh]$"
ALERT_DURATION = r"^[0-9]+[smh]$"
INTERVAL = r"^[1-9][0-9]*[smh]$"
PORT_PAIR = r"^[0-9]+:[0-9]+$"
PORT_PAIR_PROTOCOL = r"^[0-9]+:[0-9]+(/(tcp|udp|sctp))?$"
MATCH_PATTERN = (
    r"^[0-9a-zA-Z:\-_.\\\[\]!\-\*\?]+(@[0-9a-zA-Z:\-_.\\\[\]!\-\*\?]+)?(\.[a-zA-Z\[\]!\-\*\?]+)?$"
)
CPU = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)$"
MEMORY = r"^[0-9]+[bkmg]?$"

_LABEL_PART = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_GENERIC = re.compile(LABEL_NAME)
_SUBDOMAIN = re.compile(rf"{LABEL_NAME}(\.{LABEL_NAME})*")
_ENV = re.compile(ENV_NAME)
_USER = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_-]*[$]?")
_REVISION = re.compile(GIT_REVISION)
_OWNER = re.compile(r"[A-Za-z]+/[^/\s]+")

_HOST_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_REPOSITORY_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE_NAME = rf"(?:{_DOMAIN}/)?{_REPOSITORY_PART}(?:/{_REPOSITORY_PART})*"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_IMAGE = re.compile(rf"{_IMAGE_NAME}(?::{_TAG})?(?:@{_DIGEST})?")
_TEMPLATED_TAG = r"(?:[A-Za-z0-9_.-]|\{\{(?:[^{}]|\{[^{]|\}[^}])*\}\})+"
_TEMPLATED_IMAGE = re.compile(rf"{_IMAGE_NAME}:{_TEMPLATED_TAG}(?:@{_DIGEST})?")
_REGISTRY = re.compile(
    rf"(?:{LABEL_NAME}(?:\.{LABEL_NAME})*|\[[a-f0-9:]+\])(?::(?P<port>[0-9]{{1,5}}))?"
)

# What to write, where a pattern alone would have to say it.
PATTERN_WORDS = {
    PERCENTAGE: "write 0% to 100%",
    DURATION: "write a whole number and s, m or h, like 30s or 2h",
    INTERVAL: "write a whole number from 1 and s, m or h, like 30s",
    ALERT_DURATION: "write a whole number and s, m or h, like 10m",
    MATCH_PATTERN: "write the name of a unit, with * and ? where it may vary",
}

# What belongs to the agent itself: a template that could write there could unseat it.
FORBIDDEN_DIRECTORIES = ("/var/lib/flightctl", "/usr/lib/flightctl", "/etc/flightctl/certs")
FORBIDDEN_FILES = ("/etc/flightctl/config.yaml", "/etc/flightctl/config.yml")

_UNIT_S = {"s": 1, "m": 60, "h": 3600}


def is_parameterised(text: object) -> bool:
    """Whether a fleet's text holds a parameter, which makes its final form unknown until bound."""
    return isinstance(text, str) and "{{" in text


def subdomain(text: str) -> str | None:
    """The name of an object: DNS-1123 subdomain."""
    if len(text) > MAX_NAME:
        return f"must be no more than {MAX_NAME} characters, has {len(text)}"
    if not _SUBDOMAIN.fullmatch(text):
        return (
            f"{shown(text)} is not a name: use lower-case letters, digits, '-' and '.', "
            "with a letter or digit at both ends (like web-1)"
        )
    return None


def generic_name(text: str, limit: int = MAX_LABEL) -> str | None:
    """The name of something inside a spec: one DNS label."""
    if len(text) > limit:
        return f"must be no more than {limit} characters, has {len(text)}"
    if not _GENERIC.fullmatch(text):
        return (
            f"{shown(text)} is not a name: use lower-case letters, digits and '-', "
            "with a letter or digit at both ends (like web-1)"
        )
    return None


def label_key(key: str) -> str | None:
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > MAX_NAME or not _SUBDOMAIN.fullmatch(prefix)):
        return f"the part before '/' in {shown(key)} must be a DNS name (like example.com/zone)"
    if not 1 <= len(name) <= MAX_LABEL or not _LABEL_PART.fullmatch(name):
        return (
            f"{shown(key)} is not a key: use at most {MAX_LABEL} letters, digits, '-', '_' and "
            "'.', with a letter or digit at both ends, after an optional DNS name and '/'"
        )
    return None


def label_value(value: str) -> str | None:
    if len(value) > MAX_LABEL:
        return f"a label value has no more than {MAX_LABEL} characters, this one {len(value)}"
    if value and not _LABEL_PART.fullmatch(value):
        return (
            f"{shown(value)} is not a label value: use letters, digits, '-', '_' and '.', "
            "with a letter or digit at both ends"
        )
    return None


def owner(text: str) -> str | None:
    if _OWNER.fullmatch(text) and subdomain(text.partition("/")[2]) is None:
        return None
    return f"{shown(text)} is not an owner: write <Kind>/<name>, like Fleet/web"


def env_name(text: str) -> str | None:
    if not 1 <= len(text) <= MAX_NAME or not _ENV.fullmatch(text):
        return (
            f"{shown(text)} is not a variable name: use letters, digits and '_', not beginning "
            f"with a digit, {MAX_NAME} characters at most"
        )
    return None


def user(text: str) -> str | None:
    """A Linux user or group: a name or a number."""
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) <= 10 else 1 << 32
        if number <= 4294967294 and number != 65535:
            return None
        return f"{text} is not a usable id: 0 to 4294967294, and not 65535"
    if len(text) > 32 or not _USER.fullmatch(text):
        return f"{shown(text)} is neither a user name (32 characters at most) nor a numeric id"
    return None


def mode(value: int) -> str | None:
    if 0 <= value <= 0o7777:
        return None
    return f"{value} is not a file mode: write 0 to 4095 in decimal (420 is 0644; YAML takes 0644)"


def _is_clean(path: str) -> bool:
    return all(part not in ("", ".", "..") for part in path.split("/"))


def absolute_path(path: str) -> str | None:
    """A file on a device: absolute, nothing to resolve in it, and not the agent's own."""
    if len(path) > MAX_PATH:
        return f"must be no more than {MAX_PATH} characters, has {len(path)}"
    if not path.startswith("/"):
        return f"{shown(path)} must be absolute: begin with '/'"
    if "\0" in path:
        return "must not hold a NUL character"
    if path == "/":
        return "must name a file below /"
    if not _is_clean(path[1:]):
        return f"{shown(path)} must not hold '//', '.', '..' or end with '/'"
    return None


def target_path(path: str) -> str | None:
    """Where configuration may be written: `absolute_path`, and not what the agent lives on."""
    if problem := absolute_path(path):
        return problem
    if ":" in path:
        return f"{shown(path)} must not hold ':'"
    if path in FORBIDDEN_FILES:
        return f"{path} belongs to the agent and cannot be written by configuration"
    for directory in FORBIDDEN_DIRECTORIES:
        if path == directory or path.startswith(directory + "/"):
            return f"{directory} belongs to the agent and cannot be written by configuration"
    return None


def relative_path(path: str) -> str | None:
    """A file inside an application."""
    if not 1 <= len(path) <= MAX_NAME:
        return f"must have 1 to {MAX_NAME} characters, has {len(path)}"
    if path.startswith("/"):
        return f"{shown(path)} must be relative: no '/' at the beginning"
    if not _is_clean(path.removeprefix("./")):
        return f"{shown(path)} must not hold '..', '//', '.' or end with '/'"
    return None


def revision(text: str) -> str | None:
    if 1 <= len(text) <= 244 and _REVISION.fullmatch(text):
        return None
    return f"{shown(text)} is not a branch, tag or commit"


def image(text: str, *, strict: bool = False, templated: bool = False) -> str | None:
    """A reference to an OCI image. `strict` demands a registry; `templated` allows a parameter
    in the tag and nowhere else, since a name that can change cannot be checked at all."""
    if not 1 <= len(text) <= MAX_IMAGE:
        return f"must have 1 to {MAX_IMAGE} characters, has {len(text)}"
    if is_parameterised(text):
        if templated and _TEMPLATED_IMAGE.fullmatch(text):
            return None
        if templated:
            return f"{shown(text)}: only the tag of an image can hold a parameter (name:{{{{…}}}})"
        return f"{shown(text)}: an image cannot hold a parameter here"
    if not _IMAGE.fullmatch(text):
        return f"{shown(text)} is not an image reference (like quay.io/acme/web:1.2)"
    first, slash, _ = text.partition("/")
    if strict and not (slash and ("." in first or ":" in first or first == "localhost")):
        return f"{shown(text)} must name its registry (like quay.io/acme/web:1.2)"
    return None


def registry(text: str) -> str | None:
    found = _REGISTRY.fullmatch(text)
    if found and (found["port"] is None or 1 <= int(found["port"]) <= 65535):
        return None
    return f"{shown(text)} is not a registry: write host or host:port, without a scheme"


def port_pair(text: str, *, protocol: bool = False) -> str | None:
    pattern = PORT_PAIR_PROTOCOL if protocol else PORT_PAIR
    shape = "host:guest[/tcp|udp|sctp]" if protocol else "host:guest"
    if not re.fullmatch(pattern, text, re.ASCII):
        return f"{shown(text)} is not a port mapping: write {shape}, like 8080:80"
    numbers = text.partition("/")[0].split(":")
    if not all(len(n) <= 5 and 1 <= int(n) <= 65535 for n in numbers):
        return f"{shown(text)}: ports go from 1 to 65535"
    return None


def percentage(text: str) -> str | None:
    if re.fullmatch(PERCENTAGE, text):
        return None
    return f"{shown(text)} is not a percentage: write 0% to 100%"


def duration(text: str) -> str | None:
    if re.fullmatch(DURATION, text):
        return None
    return f"{shown(text)} is not a duration: write a whole number and s, m or h, like 30s or 2h"


def seconds(text: object) -> int | None:
    """The length of a duration; None when it is none."""
    if isinstance(text, str) and re.fullmatch(DURATION, text):
        return int(text[:-1]) * _UNIT_S[text[-1]]
    return None


@cache
def _zones() -> frozenset[str]:
    # A table of the platform, read once. A box without zone data accepts every well-formed name:
    # refusing all of them would be worse.
    return frozenset(zoneinfo.available_timezones())


def time_zone(text: str) -> str | None:
    right = text in ("Local", "GMT", "UTC")
    if not right and len(text) != 3 and re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", text):
        right = text in _zones() or not _zones()
    return None if right else f"{shown(text)} is not a time zone: write Local or like Europe/Berlin"


def decoded(text: str) -> bytes | None:
    """The bytes of standard base64 (line breaks allowed), or None."""
    try:
        return base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        return None


def content(text: str, encoding: str) -> str | None:
    """The content of an inline file."""
    if len(text) * 4 > MAX_CONTENT_BYTES and len(text.encode()) > MAX_CONTENT_BYTES:
        return f"must be no more than 1 MiB, has {len(text.encode())} bytes"
    if encoding == "base64" and decoded(text) is None:
        return "is not base64, as contentEncoding says; encode it or write contentEncoding: plain"
    return None


def shown(text: object, limit: int = 64) -> str:
    """A value as a message shows it: quoted, and never a page long."""
    words = str(text)
    return '"' + (words if len(words) <= limit else words[: limit - 1] + "…") + '"'
