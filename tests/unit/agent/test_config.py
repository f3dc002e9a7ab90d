"""Settings: what the file may say, what is fatal, and what drop-ins can never do."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import config, configfiles, starting
from tests.fakes.clocked_world import ClockedWorld

MAIN = {"enrollment-service": {"service": {"server": "https://api.example.com:7443/"}}}


@pytest.fixture
def device(tmp_path: Path) -> ClockedWorld:
    return ClockedWorld(tmp_path)


def load(device: ClockedWorld, main: Any, **drop_ins: Any) -> config.Settings:
    text = main if isinstance(main, str) else yaml.safe_dump(main)
    device.put("/etc/flightctl/config.yaml", text)
    for name, document in drop_ins.items():
        text = document if isinstance(document, str) else yaml.safe_dump(document)
        device.put(f"/etc/flightctl/conf.d/{name}.yaml", text)
    return configfiles.load(device)


def test_an_empty_file_means_the_documented_defaults(device: ClockedWorld) -> None:
    settings = load(device, "")
    assert settings.enrollment.server == "https://localhost:7443"
    assert settings.enrollment.authority == config.Pem(path="/etc/flightctl/certs/ca.crt")
    assert settings.enrollment.key.path == "/var/lib/flightctl/certs/client-enrollment.key"
    assert settings.management.server == "https://localhost:7443"
    assert settings.management.certificate.path == "/var/lib/flightctl/certs/agent.crt"
    assert settings.management.key.path == "/var/lib/flightctl/certs/agent.key"
    assert settings.enrollment_ui == "https://localhost:7443"
    assert (settings.fetch_error_base_delay_s, settings.fetch_error_max_delay_s) == (5, 300)
    assert (settings.status_interval_s, settings.status_jitter_s) == (60, 60)
    assert (settings.enrollment_verify_interval_s, settings.enrollment_verify_cap_s) == (10, 60)
    assert settings.system_info == config.SYSTEM_INFO_KEYS
    assert (settings.pull_timeout_s, settings.pull_retry_steps) == (600, 6)
    assert (settings.repair_interval_s, settings.start_grace_s) == (30, 30)
    assert (settings.reach_grace_s, settings.boot_reach_grace_s) == (60, 180)
    assert settings.system_info_timeout_s == 120
    assert settings.log_level == "info"
    assert settings.audit_enabled
    assert not settings.image_pruning_enabled
    assert settings.warnings == ()


def test_every_key_is_read(device: ClockedWorld) -> None:
    settings = load(
        device,
        MAIN
        | {
            "spec-fetch-error-base-delay": "3s",
            "spec-fetch-error-max-delay": "1h30m",
            "status-update-interval": "2m",
            "status-update-jitter": 0,
            "enrollment-verify-interval": "2s",
            "enrollment-verify-cap": "1.5m",
            "default-labels": {"site": "x", "slot": 4},
            "label-from-systeminfo": {"arch": "Architecture"},
            "system-info": [],
            "system-info-custom": ["siteName"],
            "system-info-timeout": "30s",
            "pull-timeout": "1m",
            "pull-retry-steps": 0,
            "repair-interval": "4s",
            "application-start-grace": "2m",
            "application-stability": "7s",
            "service-reach-grace": "20s",
            "service-reach-grace-after-boot": "40s",
            "log-level": "DEBUG",
            "log-prefix": "d1",
            "metrics-enabled": True,
            "profiling-enabled": True,
            "audit": {"enabled": False},
            "image-pruning": {"enabled": True},
            "tpm": {"enabled": True, "auth-enabled": True},
        },
    )
    assert settings.enrollment.server == "https://api.example.com:7443"
    assert (settings.fetch_error_base_delay_s, settings.fetch_error_max_delay_s) == (3, 5400)
    assert (settings.status_interval_s, settings.status_jitter_s) == (120, 0)
    assert (settings.enrollment_verify_interval_s, settings.enrollment_verify_cap_s) == (2, 90)
    assert settings.default_labels == {"site": "x", "slot": "4"}
    assert settings.label_from_system_info == {"arch": "Architecture"}
    assert settings.system_info == ()
    assert settings.system_info_custom == ("siteName",)
    assert settings.system_info_timeout_s == 30
    assert (settings.pull_timeout_s, settings.pull_retry_steps) == (60, 0)
    assert (settings.repair_interval_s, settings.start_grace_s) == (4, 120)
    assert settings.stability_s == 7
    assert (settings.reach_grace_s, settings.boot_reach_grace_s) == (20, 40)
    assert (settings.log_level, settings.log_prefix) == ("debug", "d1")
    assert settings.metrics_enabled
    assert settings.profiling_enabled
    assert not settings.audit_enabled
    assert settings.image_pruning_enabled
    assert settings.tpm_enabled


def test_unknown_and_legacy_keys_are_ignored_and_unknown_levels_mean_info(
    device: ClockedWorld,
) -> None:
    settings = load(device, MAIN | {"tomorrow": {"a": 1}, "grpc-x": 3, "log-level": "loud"})
    assert settings.log_level == "info"


def test_inline_data_wins_and_relative_paths_are_relative_to_the_file(
    device: ClockedWorld,
) -> None:
    section = {
        "service": {
            "server": "https://h",
            "certificate-authority": "certs/other.crt",
            "tls-server-name": "n",
            "insecureSkipVerify": True,
        },
        "authentication": {
            "client-certificate": "e.crt",
            "client-certificate-data": base64.b64encode(b"PEM").decode(),
            "client-key": "/abs/e.key",
        },
        "enrollment-ui-endpoint": "http://ui:8080/",
    }
    settings = load(device, {"enrollment-service": section})
    device.put("/etc/flightctl/certs/other.crt", "CA")
    service = settings.enrollment
    assert service.authority.load(device) == b"CA"
    assert service.certificate.load(device) == b"PEM"
    assert service.key.path == "/abs/e.key"
    assert service.key.load(device) == b""
    assert (service.server_name, service.insecure) == ("n", True)
    assert settings.enrollment_ui == "http://ui:8080"
    # The management service is a copy, without the enrolment credentials.
    assert settings.management.server == "https://h"
    assert settings.management.authority == service.authority
    assert settings.management.certificate.path == "/var/lib/flightctl/certs/agent.crt"


def test_the_management_service_can_be_another(device: ClockedWorld) -> None:
    other = {"service": {"server": "https://m:1/prefix/api/v1"}}
    settings = load(device, MAIN | {"management-service": other})
    assert settings.management.server == "https://m:1/prefix"
    assert not settings.management.authority
    assert settings.enrollment.server == "https://api.example.com:7443"


WRONG: dict[str, tuple[Any, str, str]] = {
    "not yaml": ("a: [", "config.yaml", "not YAML"),
    "not a mapping": ("- 1", "config.yaml", "mapping"),
    "no server": (
        {"enrollment-service": {"x": 1}},
        "enrollment-service.service.server",
        "required",
    ),
    "plain http": (
        {"enrollment-service": {"service": {"server": "http://h"}}},
        "enrollment-service.service.server",
        "https://",
    ),
    "bad port": (
        {"enrollment-service": {"service": {"server": "https://h:99999"}}},
        "enrollment-service.service.server",
        "URL",
    ),
    "bad base64": (
        {
            "enrollment-service": {
                "service": {"server": "https://h", "certificate-authority-data": "%%%"}
            }
        },
        "enrollment-service.service.certificate-authority-data",
        "base64",
    ),
    "service is a text": (
        {"enrollment-service": {"service": "https://h"}},
        "enrollment-service.service",
        "mapping",
    ),
    "not a duration": (
        MAIN | {"status-update-interval": "soon"},
        "status-update-interval",
        "not a duration",
    ),
    "number without unit": (MAIN | {"pull-timeout": 60}, "pull-timeout", "duration"),
    "too short": (MAIN | {"status-update-interval": "1s"}, "status-update-interval", "at least 2s"),
    "deprecated and too short": (
        MAIN | {"spec-fetch-interval": "1s"},
        "spec-fetch-interval",
        "at least 2s",
    ),
    "jitter beyond interval": (
        MAIN | {"status-update-jitter": "61s"},
        "status-update-jitter",
        "at most 1m",
    ),
    "max below base": (
        MAIN | {"spec-fetch-error-base-delay": "10s", "spec-fetch-error-max-delay": "9s"},
        "spec-fetch-error-max-delay",
        "at least 10s",
    ),
    "verify too short": (
        MAIN | {"enrollment-verify-interval": "1s"},
        "enrollment-verify-interval",
        "at least 2s",
    ),
    "steps": (MAIN | {"enrollment-verify-steps": 0}, "enrollment-verify-steps", "at least 1"),
    "timeout too long": (
        MAIN | {"system-info-timeout": "3m"},
        "system-info-timeout",
        "at most 2m",
    ),
    "auth without tpm": (MAIN | {"tpm": {"auth-enabled": True}}, "tpm.auth-enabled", "tpm.enabled"),
    "bool as text": (MAIN | {"audit": {"enabled": "yes"}}, "audit.enabled", "true or false"),
    "list as text": (MAIN | {"system-info": "hostname"}, "system-info", "list"),
    "label is a list": (MAIN | {"default-labels": {"a": []}}, "default-labels.a", "text"),
    "retry is a text": (MAIN | {"pull-retry-steps": "6"}, "pull-retry-steps", "whole number"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_fatal_and_named(device: ClockedWorld, case: tuple[Any, str, str]) -> None:
    document, key, word = case
    with pytest.raises(config.ConfigError) as caught:
        load(device, document)
    assert "/etc/flightctl/config.yaml" in str(caught.value)
    assert key in str(caught.value)
    assert word in str(caught.value)


def test_a_missing_file_is_fatal(device: ClockedWorld) -> None:
    with pytest.raises(config.ConfigError, match="does not exist"):
        configfiles.load(device)


def test_drop_ins_are_merged_in_order_and_only_the_keys_that_they_may_set(
    device: ClockedWorld,
) -> None:
    device.put("/etc/flightctl/conf.d/30-ignored.txt", "log-level: error")
    settings = load(
        device,
        MAIN | {"default-labels": {"a": "1", "b": "1"}, "profiling-enabled": True},
        **{
            "10": {"log-level": "warn", "default-labels": {"b": "2"}, "status-update-jitter": 0},
            "20": {
                "log-level": "debug",
                "profiling-enabled": False,
                "audit": {"enabled": False},
                "status-update-interval": "5s",
                "enrollment-service": {"service": {"server": "https://evil"}},
                "system-info": [],
            },
        },
    )
    assert settings.log_level == "debug"
    assert settings.default_labels == {"a": "1", "b": "2"}
    assert settings.status_jitter_s == 0
    assert not settings.profiling_enabled
    assert not settings.audit_enabled
    assert settings.status_interval_s == 5
    assert settings.enrollment.server == "https://api.example.com:7443"
    assert settings.system_info == ()
    assert settings.warnings == ()


@pytest.mark.parametrize(
    "bad",
    ["a: [", "- 1", "system-info: 3", "spec-fetch-error-base-delay: 1s", "tpm: yes", "\x00"],
)
def test_a_bad_drop_in_is_skipped_and_remembered(device: ClockedWorld, bad: str) -> None:
    """A drop-in comes with an update; an agent that does not start could not undo it."""
    settings = load(device, MAIN, **{"10": bad, "20": {"log-level": "warn"}})
    assert settings.log_level == "warn"
    (warning,) = settings.warnings
    assert "/etc/flightctl/conf.d/10.yaml" in warning


def test_an_unreadable_drop_in_is_skipped(device: ClockedWorld) -> None:
    device.path("/etc/flightctl/conf.d/10.yaml").mkdir(parents=True)
    settings = load(device, MAIN)
    assert len(settings.warnings) == 1


def test_secrets_stay_out_of_representations(device: ClockedWorld) -> None:
    section = {
        "service": {"server": "https://h"},
        "authentication": {"client-key-data": base64.b64encode(b"SECRET").decode()},
    }
    assert "SECRET" not in repr(load(device, {"enrollment-service": section}))


def test_a_service_may_have_further_addresses(device: ClockedWorld) -> None:
    place = {
        "server": "https://a",
        "fallback-servers": ["https://b/", "https://a", "https://c:9/x"],
    }
    settings = load(device, {"enrollment-service": {"service": place}})
    assert [one.server for one in settings.management.each()] == [
        "https://a",
        "https://b",
        "https://c:9/x",
    ]


@pytest.mark.parametrize(
    ("servers", "words"),
    [
        ("https://b", "list of URLs"),
        (["https://b", "http://c"], r"fallback-servers\[1\].*https://"),
        (["https://b"] * 9, "more than 8"),
    ],
)
def test_wrong_further_addresses_are_named(
    device: ClockedWorld, servers: object, words: str
) -> None:
    place = {"server": "https://a", "fallback-servers": servers}
    with pytest.raises(config.ConfigError, match=words):
        load(device, {"enrollment-service": {"service": place}})


def test_every_key_is_in_the_reference() -> None:
    source = Path(config.__file__).read_text()
    known = set(re.findall(r'fields\.\w+\(\s*[a-z]+,\s*"([a-zA-Z-]+)"', source))
    assert len(known) > 30
    page = (Path(__file__).parents[3] / "docs/reference/agent-configuration.md").read_text()
    assert {key for key in known if f"{key}`" not in page and f"`{key}." not in page} == set()


def aliases() -> str:
    """3 to the power of 40 values in a kilobyte."""
    rows = ["x0: &x0 {a: 1}"]
    rows += [f"x{i}: &x{i} [*x{i - 1}, *x{i - 1}, *x{i - 1}]" for i in range(1, 40)]
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("text", "words"),
    [(aliases(), "holds more than"), ("a: &a [*a]", "nested too deeply")],
    ids=["aliases upon aliases", "an alias in itself"],
)
def test_what_a_few_bytes_blow_up_is_refused_and_passed_over_in_a_drop_in(
    device: ClockedWorld, text: str, words: str
) -> None:
    assert words in load(device, MAIN, **{"10": text}).warnings[0]
    with pytest.raises(config.ConfigError, match=words):
        load(device, text)


EVERYTHING = """
enrollment-service: {service: {server: https://a.example, certificate-authority-data: QQ==}}
default-labels: {true: yes, since: 2026-01-31, 7: 1.5, text: "a"}
log-prefix: 2026-01-31
management-service:
  service: {server: https://m.example, certificate-authority-data: !!binary QQ==}
unknown: {at: 2026-01-31T12:00:00Z, bytes: !!binary aGVsbG8=, none: ~, big: 1.0e+400}
"""


def test_settings_are_the_same_from_a_process_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "etc/flightctl"
    (folder / "conf.d").mkdir(parents=True)
    (folder / "config.yaml").write_text(EVERYTHING)
    (folder / "conf.d/10.yaml").write_text("default-labels: {more: x}")
    (folder / "conf.d/20.yaml").write_text("a: [")
    here = configfiles.read(config.CONFIG_FILE, str(tmp_path))
    assert starting.settings_of(config.CONFIG_FILE, str(tmp_path)) == here
    assert here.management.authority.data == b"A"
    assert here.default_labels == {
        "True": "true",
        "since": "2026-01-31",
        "7": "1.5",
        "text": "a",
        "more": "x",
    }
    assert "20.yaml" in here.warnings[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not YAML"),
        ("audit: {enabled: maybe}", "audit.enabled: must be true or false"),
        (None, "Is a directory"),
    ],
    ids=["no YAML", "a setting that is wrong", "no file"],
)
def test_what_is_wrong_is_said_by_a_process_of_its_own(
    tmp_path: Path, text: str | None, words: str
) -> None:
    folder = tmp_path / "etc/flightctl"
    folder.mkdir(parents=True)
    if text is None:
        (folder / "config.yaml").mkdir()
    else:
        (folder / "config.yaml").write_text(text)
    with pytest.raises(config.ConfigError, match=words) as caught:
        starting.settings_of(config.CONFIG_FILE, str(tmp_path))
    assert config.CONFIG_FILE in str(caught.value)
