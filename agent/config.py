"""Settings: what the files of the configuration say, checked once, then frozen.

What may be written there is flightctl's; a file that its agent accepts is accepted here: unknown
and legacy keys are ignored, relative paths are relative to the file. What is wrong is said with its
key. How the files become the one document that is checked here: `configfiles`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from agent import fields
from agent.fields import ConfigError
from resources.records import dataclass, field, replace

__all__ = ["ConfigError", "Pem", "Service", "Settings", "built"]

Document = dict[str, Any]

CONFIG_FILE = "/etc/flightctl/config.yaml"
DATA_DIR = "/var/lib/flightctl"
DEFAULT_TPM = "/dev/tpm0"
DEFAULT_SERVER = "https://localhost:7443"
MIN_INTERVAL_S = 2.0
MAX_SYSTEM_INFO_TIMEOUT_S = 120.0
MAX_CONFIG_BYTES = 1 << 20
SYSTEM_INFO_KEYS = (
    "hostname",
    "kernel",
    "distroName",
    "distroVersion",
    "distroId",
    "productName",
    "productUuid",
    "productSerial",
    "netInterfaceDefault",
    "netIpDefault",
    "netMacDefault",
    "managementCertNotAfter",
    "managementCertSerial",
    "tpmVendorInfo",
)
METERED = "metered"
PROFILES = ("default", METERED)
MIN_CONTACT_S = 60.0
MAX_CONTACT_S = 7 * 86400.0
LOG_LEVELS = ("panic", "fatal", "error", "warn", "info", "debug", "trace")


class Files(Protocol):
    """The part of `World` that settings are read through."""

    def read(self, path: str) -> bytes | None: ...

    def listdir(self, path: str) -> Iterable[str]: ...


@dataclass(frozen=True, slots=True)
class Pem:
    """A PEM text: inside the configuration (which wins), or in a file that is read when needed.

    Reading late is what lets an enrolled device live after its enrolment credentials are gone.
    """

    data: bytes = field(default=b"", repr=False)
    path: str = ""

    def load(self, files: Files) -> bytes:
        """The PEM bytes; empty when the file is not there. Raises OSError when it is unreadable."""
        if self.data or not self.path:
            return self.data
        return files.read(self.path) or b""

    def __bool__(self) -> bool:
        return bool(self.data or self.path)


@dataclass(frozen=True, slots=True)
class Service:
    """Where a service listens, whom to trust there, and what to show it."""

    server: str
    authority: Pem
    server_name: str
    insecure: bool
    certificate: Pem
    key: Pem
    # Further addresses of the same service, in the order in which they are tried.
    fallbacks: tuple[str, ...] = ()

    def each(self) -> tuple[Service, ...]:
        """This service by each of its addresses."""
        servers = dict.fromkeys((self.server, *self.fallbacks))
        return tuple(replace(self, server=one, fallbacks=()) for one in servers)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the agent was told; durations in seconds, paths absolute inside the root."""

    config_file: str
    config_dir: str
    data_dir: str
    enrollment: Service
    enrollment_ui: str
    management: Service
    fetch_error_base_delay_s: float
    fetch_error_max_delay_s: float
    status_interval_s: float
    status_jitter_s: float
    enrollment_verify_interval_s: float
    enrollment_verify_cap_s: float
    network_profile: str
    contact_interval_s: float
    default_labels: Mapping[str, str]
    label_from_system_info: Mapping[str, str]
    system_info: tuple[str, ...]
    system_info_custom: tuple[str, ...]
    system_info_timeout_s: float
    pull_timeout_s: float
    pull_retry_steps: int
    # Ours; other agents ignore them.
    remove_after_enrollment: bool
    repair_interval_s: float
    start_grace_s: float
    stability_s: float
    drift_repair: bool
    download_rate: int
    reach_grace_s: float
    boot_reach_grace_s: float
    log_level: str
    log_prefix: str
    metrics_enabled: bool
    profiling_enabled: bool
    audit_enabled: bool
    image_pruning_enabled: bool
    tpm_enabled: bool
    tpm_auth_enabled: bool
    tpm_device: str
    tpm_storage: str
    warnings: tuple[str, ...] = ()
    # As it was merged, to be kept; it may hold keys.
    document: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def certs_dir(self) -> str:
        return f"{self.data_dir}/certs"


def built(
    document: Document,
    config_file: str = CONFIG_FILE,
    *,
    data_dir: str = DATA_DIR,
    warnings: tuple[str, ...] = (),
) -> Settings:
    """The settings of a document that has been read and merged. Raises ConfigError."""
    return _settings(document, config_file, folder_of(config_file), data_dir, warnings)


def folder_of(config_file: str) -> str:
    return posixpath.dirname(posixpath.abspath(config_file))


def _settings(
    document: Document,
    config_file: str,
    config_dir: str,
    data_dir: str,
    warnings: tuple[str, ...],
) -> Settings:
    enrollment = _enrollment(document, config_dir, data_dir)
    base = fields.duration(document, "spec-fetch-error-base-delay", 5, least_s=MIN_INTERVAL_S)
    status = fields.duration(document, "status-update-interval", 60, least_s=MIN_INTERVAL_S)
    # Deprecated and without effect, but a wrong value was always an error.
    fields.duration(document, "spec-fetch-interval", 60, least_s=MIN_INTERVAL_S)
    fields.integer(document, "enrollment-verify-steps", 6, least=1)
    tpm = fields.mapping(document, "tpm")
    tpm_enabled = fields.boolean(tpm, "enabled", False, at="tpm.")
    tpm_auth_enabled = fields.boolean(tpm, "auth-enabled", False, at="tpm.")
    if tpm_auth_enabled and not tpm_enabled:
        raise ConfigError("tpm.auth-enabled", "needs tpm.enabled")
    level = fields.string(document, "log-level", "info").lower()
    return Settings(
        config_file=config_file,
        config_dir=config_dir,
        data_dir=data_dir,
        enrollment=enrollment,
        enrollment_ui=_ui(document, enrollment.server),
        management=_management(document, config_dir, data_dir, enrollment),
        fetch_error_base_delay_s=base,
        fetch_error_max_delay_s=fields.duration(
            document, "spec-fetch-error-max-delay", max(300.0, base), least_s=base
        ),
        status_interval_s=status,
        status_jitter_s=fields.duration(
            document, "status-update-jitter", status, least_s=0, most_s=status
        ),
        enrollment_verify_interval_s=fields.duration(
            document, "enrollment-verify-interval", 10, least_s=MIN_INTERVAL_S
        ),
        enrollment_verify_cap_s=fields.duration(
            document, "enrollment-verify-cap", 60, least_s=MIN_INTERVAL_S
        ),
        network_profile=fields.one_of(document, "network-profile", PROFILES),
        contact_interval_s=fields.duration(
            document, "contact-interval", 6 * 3600, least_s=MIN_CONTACT_S, most_s=MAX_CONTACT_S
        ),
        default_labels=fields.strings(document, "default-labels"),
        label_from_system_info=fields.strings(document, "label-from-systeminfo"),
        system_info=fields.names(document, "system-info", SYSTEM_INFO_KEYS),
        system_info_custom=fields.names(document, "system-info-custom", ()),
        system_info_timeout_s=fields.duration(
            document, "system-info-timeout", 120, least_s=0, most_s=MAX_SYSTEM_INFO_TIMEOUT_S
        )
        or MAX_SYSTEM_INFO_TIMEOUT_S,
        pull_timeout_s=fields.duration(document, "pull-timeout", 600, least_s=0) or 600.0,
        pull_retry_steps=fields.integer(document, "pull-retry-steps", 6, least=0),
        remove_after_enrollment=_is_removed(document),
        repair_interval_s=fields.duration(document, "repair-interval", 30, least_s=MIN_INTERVAL_S),
        start_grace_s=fields.duration(
            document, "application-start-grace", 30, least_s=MIN_INTERVAL_S
        ),
        download_rate=fields.size(document, "download-rate-limit"),
        drift_repair=fields.boolean(document, "drift-repair", True),
        stability_s=fields.duration(document, "application-stability", 3, least_s=0),
        reach_grace_s=fields.duration(document, "service-reach-grace", 60, least_s=MIN_INTERVAL_S),
        boot_reach_grace_s=fields.duration(
            document, "service-reach-grace-after-boot", 180, least_s=MIN_INTERVAL_S
        ),
        log_level=level if level in LOG_LEVELS else "info",
        log_prefix=fields.string(document, "log-prefix", ""),
        metrics_enabled=fields.boolean(document, "metrics-enabled", False),
        profiling_enabled=fields.boolean(document, "profiling-enabled", False),
        audit_enabled=fields.boolean(
            fields.mapping(document, "audit"), "enabled", True, at="audit."
        ),
        image_pruning_enabled=fields.boolean(
            fields.mapping(document, "image-pruning"), "enabled", False, at="image-pruning."
        ),
        tpm_enabled=tpm_enabled,
        tpm_auth_enabled=tpm_auth_enabled,
        tpm_device=fields.string(tpm, "device-path", DEFAULT_TPM, at="tpm."),
        tpm_storage=fields.string(tpm, "storage-file-path", "", at="tpm.")
        or f"{data_dir}/tpm-blob.yaml",
        warnings=warnings,
        document=document,
    )


def _enrollment(document: Document, config_dir: str, data_dir: str) -> Service:
    section = fields.mapping(document, "enrollment-service")
    certificate = Pem(path=f"{data_dir}/certs/client-enrollment.crt")
    key = Pem(path=f"{data_dir}/certs/client-enrollment.key")
    if not section:
        authority = Pem(path=f"{config_dir}/certs/ca.crt")
        return Service(DEFAULT_SERVER, authority, "", False, certificate, key)
    where = "enrollment-service"
    shown = fields.mapping(section, "authentication", at=f"{where}.")
    at = f"{where}.authentication."
    certificate = _pem(shown, "client-certificate", at, config_dir) or certificate
    key = _pem(shown, "client-key", at, config_dir) or key
    return _service(section, where, config_dir, certificate, key)


def _is_removed(document: Document) -> bool:
    where = "enrollment-service"
    shown = fields.mapping(fields.mapping(document, where), "authentication", at=f"{where}.")
    at = f"{where}.authentication."
    return fields.boolean(shown, "remove-after-enrollment", False, at=at)


def _management(document: Document, config_dir: str, data_dir: str, enrollment: Service) -> Service:
    """The device's own credentials stay in the data directory, whatever the file says of them:
    there the certificate is renewed, and an inline copy could not be.
    """
    certificate, key = (
        Pem(path=f"{data_dir}/certs/agent.crt"),
        Pem(path=f"{data_dir}/certs/agent.key"),
    )
    section = fields.mapping(document, "management-service")
    if not section:
        return replace(enrollment, certificate=certificate, key=key)
    return _service(section, "management-service", config_dir, certificate, key)


def _service(section: Document, where: str, config_dir: str, certificate: Pem, key: Pem) -> Service:
    service = fields.mapping(section, "service", at=f"{where}.")
    at = f"{where}.service."
    return Service(
        fields.url(service, "server", at=at, schemes=("https",)),
        _pem(service, "certificate-authority", at, config_dir),
        fields.string(service, "tls-server-name", "", at=at),
        fields.boolean(service, "insecureSkipVerify", False, at=at),
        certificate,
        key,
        fields.urls(service, "fallback-servers", at=at, schemes=("https",)),
    )


def _pem(section: Document, key: str, at: str, config_dir: str) -> Pem:
    data = fields.base64_bytes(section, f"{key}-data", at=at)
    if data:
        return Pem(data=data)
    path = fields.string(section, key, "", at=at)
    return Pem(path=posixpath.join(config_dir, path)) if path else Pem()


def _ui(document: Document, server: str) -> str:
    section = fields.mapping(document, "enrollment-service")
    if not section.get("enrollment-ui-endpoint"):
        return server
    return fields.url(section, "enrollment-ui-endpoint", at="enrollment-service.")
