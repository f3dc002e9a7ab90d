"""Typed reading of settings; every refusal names the key and says what was expected."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from agent import durations

URLS_MAX = 8


class ConfigError(ValueError):
    """A setting cannot be used: `key` says which, `why` says in words."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"{key}: {why}")
        self.key = key
        self.why = why


def mapping(section: Mapping[str, Any], key: str, *, at: str = "") -> dict[str, Any]:
    value = section.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(at + key, "must be a mapping")
    return value


def string(section: Mapping[str, Any], key: str, default: str, *, at: str = "") -> str:
    value = section.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise ConfigError(at + key, f"must be a text, not {value!r}")
    return value


def boolean(section: Mapping[str, Any], key: str, default: bool, *, at: str = "") -> bool:
    value = section.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ConfigError(at + key, f"must be true or false, not {value!r}")
    return value


def integer(section: Mapping[str, Any], key: str, default: int, *, least: int) -> int:
    value = section.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(key, f"must be a whole number, not {value!r}")
    if value < least:
        raise ConfigError(key, f"must be at least {least}, not {value}")
    return value


def duration(
    section: Mapping[str, Any],
    key: str,
    default_s: float,
    *,
    least_s: float,
    most_s: float | None = None,
) -> float:
    """Seconds of a Go duration."""
    value = section.get(key)
    if value is None:
        return float(default_s)
    if not isinstance(value, str) and value != 0:
        raise ConfigError(key, f"must be a duration such as 60s, not {value!r}")
    try:
        seconds = durations.parse(str(value))
    except ValueError as error:
        raise ConfigError(key, str(error)) from error
    if seconds < least_s:
        raise ConfigError(key, f"must be at least {durations.show(least_s)}, not {value}")
    if most_s is not None and seconds > most_s:
        raise ConfigError(key, f"must be at most {durations.show(most_s)}, not {value}")
    return seconds


def one_of(section: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> str:
    """The first choice is the default."""
    value = string(section, key, choices[0])
    if value not in choices:
        raise ConfigError(key, f"must be one of {', '.join(choices)}, not {value!r}")
    return value


_UNITS = {"": 1, "k": 1000, "M": 10**6, "Ki": 1 << 10, "Mi": 1 << 20}
_SIZE = re.compile(r"([1-9]\d{0,11})(k|M|Ki|Mi)?")


def size(section: Mapping[str, Any], key: str) -> int:
    """Bytes; 0 where there is nothing."""
    value = section.get(key)
    if value is None:
        return 0
    found = _SIZE.fullmatch(str(value)) if isinstance(value, int | str) else None
    if found is None or isinstance(value, bool):
        raise ConfigError(key, f"must be a number of bytes such as 500k or 2Mi, not {value!r}")
    return int(found.group(1)) * _UNITS[found.group(2) or ""]


def names(section: Mapping[str, Any], key: str, default: Iterable[str]) -> tuple[str, ...]:
    value = section.get(key)
    if value is None:
        return tuple(default)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(key, "must be a list of names")
    return tuple(value)


def strings(section: Mapping[str, Any], key: str) -> dict[str, str]:
    """A mapping of texts; numbers and booleans that YAML made of texts become texts again."""
    result: dict[str, str] = {}
    for name, value in mapping(section, key).items():
        if isinstance(value, bool):
            result[str(name)] = str(value).lower()
        elif isinstance(value, (str, int, float)):
            result[str(name)] = str(value)
        else:
            raise ConfigError(f"{key}.{name}", "must be a text")
    return result


def url(
    section: Mapping[str, Any], key: str, *, at: str = "", schemes: tuple[str, ...] = ()
) -> str:
    """An absolute URL without its trailing slash and without the `/api/v1` that we add."""
    value = string(section, key, "", at=at)
    if not value:
        raise ConfigError(at + key, "is required")
    return _url(value, at + key, schemes)


def urls(
    section: Mapping[str, Any], key: str, *, at: str = "", schemes: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The same, a list of them; none where the key is not there."""
    value = section.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(at + key, "must be a list of URLs")
    if len(value) > URLS_MAX:
        raise ConfigError(at + key, f"has more than {URLS_MAX} URLs")
    return tuple(_url(one, f"{at}{key}[{i}]", schemes) for i, one in enumerate(value))


def _url(value: str, where: str, schemes: tuple[str, ...]) -> str:
    try:
        parts = urlsplit(value)
        host = parts.hostname
        _ = parts.port
    except ValueError as error:
        raise ConfigError(where, f"{value!r} is not a URL: {error}") from error
    if not host or parts.scheme not in (schemes or ("http", "https")):
        wanted = " or ".join(f"{scheme}://" for scheme in schemes or ("http", "https"))
        raise ConfigError(where, f"{value!r} must be a URL beginning with {wanted}")
    return value.rstrip("/").removesuffix("/api/v1").rstrip("/")


def base64_bytes(section: Mapping[str, Any], key: str, *, at: str = "") -> bytes:
    value = section.get(key)
    if value is None or value == "":
        return b""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ConfigError(at + key, "must be base64 text")
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(at + key, f"is not base64: {error}") from error
