"""What `homeport-agent doctor` looks at, a function for each; see `doctor` for the frame.

None changes anything. The only thing that goes out to the network is one request to the service,
with the credentials that the agent would use.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from agent import (
    authorities,
    config,
    errors,
    health,
    hooks,
    journal,
    osimage,
    podman,
    rootless,
    specs,
    system,
    transport,
    version,
    world,
)
from agent.findings import ERROR, OK, WARNING, Finding, Patient

Json = dict[str, Any]

QUICK_S = 20.0
REACH_S = 15.0
DAY_S = 86_400.0
# Of the life of a certificate: the agent renews after two thirds, so this is long overdue.
LATE_SHARE = 0.1
DISK_LOW, DISK_FULL = 10.0, 5.0
DISK_BYTES_LEAST = 64 << 20
PODMAN_LEAST = 5
OTHERS_WRITE, OTHERS_READ = 0o022, 0o077

Check = Callable[[Patient], Iterable[Finding]]


def configuration(patient: Patient) -> Iterator[Finding]:
    settings = patient.settings
    if settings is None:
        return
    for words in settings.warnings:
        hint = "mend or remove the file, then: systemctl reload flightctl-agent"
        yield Finding(WARNING, "configuration", words, hint)
    found = patient.world.stat(settings.config_file)
    if found is not None and found.mode & OTHERS_READ and settings.enrollment.key.data:
        words = f"{settings.config_file} holds a private key and others may read it"
        yield Finding(WARNING, "configuration", words, f"chmod 600 {settings.config_file}")
    if not settings.warnings:
        yield Finding(OK, "configuration", f"{settings.config_file} and its drop-ins are valid")


def clock(patient: Patient) -> Iterator[Finding]:
    now = patient.world.now()
    year, month = (int(part) for part in version.VERSION.split(".")[:2])
    if now < datetime(year, month, 1, tzinfo=UTC):
        words = f"it is {now:%Y-%m-%d %H:%M} UTC by the clock, before this agent was made"
        yield Finding(ERROR, "clock", words, "set the clock: certificates are not valid yet by it")
        return
    argv = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    if patient.world.run(argv, timeout_s=QUICK_S).stdout.strip() == "no":
        hint = "enable a time service, as systemd-timesyncd or chrony"
        yield Finding(WARNING, "clock", "nothing keeps the clock right", hint)
    else:
        yield Finding(OK, "clock", f"{now:%Y-%m-%d %H:%M} UTC")


def data_directory(patient: Patient) -> Iterator[Finding]:
    folder = patient.data_dir
    found = patient.world.stat(folder)
    if found is None:
        yield Finding(OK, "data directory", f"{folder} is not there yet: the agent never ran")
        return
    if found.kind != world.DIRECTORY:
        yield Finding(ERROR, "data directory", f"{folder} is no directory")
        return
    troubles = 0
    root = patient.world.uid_of("root")
    for path, forbidden, words in (
        (folder, OTHERS_WRITE, "others may write to it"),
        (f"{folder}/homeport", OTHERS_READ, "others may read it"),
        (f"{folder}/certs/agent.key", OTHERS_READ, "others may read it"),
        (f"{folder}/current.json", OTHERS_WRITE, "others may write to it"),
        (f"{folder}/desired.json", OTHERS_WRITE, "others may write to it"),
    ):
        one = patient.world.stat(path)
        if one is not None and (one.mode & forbidden or one.uid != root):
            troubles += 1
            who = words if one.mode & forbidden else "it does not belong to root"
            hint = f"chown root: {path} && chmod go-rwx {path}"
            yield Finding(ERROR, "data directory", f"{path}: {who} (mode {one.mode:04o})", hint)
    for words in _damaged(patient):
        troubles += 1
        hint = "nothing to do if the device is well; look for a failing disk"
        yield Finding(WARNING, "data directory", words, hint)
    if not troubles:
        yield Finding(OK, "data directory", f"{folder}: owner, modes and files are as they should")


def _damaged(patient: Patient) -> Iterator[str]:
    where, folder = patient.world, patient.data_dir
    for name in (specs.CURRENT, specs.DESIRED):
        raw = where.read(f"{folder}/{name}")
        try:
            json.loads(raw or b"{}")
        except ValueError:
            yield f"{name} is damaged; the agent makes it anew when it starts"
    _, is_damaged = journal.parse(where.read(f"{folder}/homeport/journal.jsonl") or b"")
    if is_damaged:
        yield "the journal has a damaged line, from a power cut or a failing disk"
    for name in where.listdir(f"{folder}/homeport"):
        if name.endswith(".damaged"):
            yield f"{folder}/homeport/{name} was put aside"


def certificates(patient: Patient) -> Iterator[Finding]:
    settings = patient.settings
    if settings is None:
        return
    if settings.tpm_enabled:
        yield Finding(OK, "certificate", "the key is in the TPM; see `status` for its certificate")
        return
    held, key = _pair(patient, settings.management)
    if held and not key:
        hint = "restore agent.key, or remove agent.crt to enrol as a new device"
        yield Finding(ERROR, "certificate", "there is a certificate and no key to it", hint)
    elif held:
        hint = "is the service reached? It renews; an expired one enrols again by the same key"
        yield from _certificate(patient, "management certificate", held, key, hint)
    else:
        given, key = _pair(patient, settings.enrollment)
        if not given or not key:
            hint = "the configuration must name a certificate and a key to enrol with"
            yield Finding(ERROR, "certificate", "not enrolled, and nothing to enrol with", hint)
            return
        hint = "get a configuration with a new one: homeport enrollment config"
        yield from _certificate(patient, "enrolment certificate", given, key, hint)


def _pair(patient: Patient, service: config.Service) -> tuple[bytes, bytes]:
    return service.certificate.load(patient.world), service.key.load(patient.world)


def _certificate(
    patient: Patient, name: str, pem: bytes, key: bytes, hint: str
) -> Iterator[Finding]:
    question = {"do": "certificate", "certificate": pem.decode(), "key": key.decode()}
    answer = patient.ask(question)
    if "error" in answer or not answer.get("fitsKey"):
        why = answer.get("error", "it belongs to another key")
        yield Finding(ERROR, "certificate", f"the {name} cannot be used: {why}", hint)
        return
    now = patient.world.now().timestamp()
    begin, end = float(answer["notBefore"]), float(answer["notAfter"])
    until = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if now < begin:
        words = f"the {name} is not valid yet by this clock"
        yield Finding(ERROR, "certificate", words, "set the clock")
    elif now >= end:
        yield Finding(ERROR, "certificate", f"the {name} ended at {until}", hint)
    elif end - now < min((end - begin) * LATE_SHARE, 30 * DAY_S):
        yield Finding(WARNING, "certificate", f"the {name} ends at {until}", hint)
    else:
        yield Finding(OK, "certificate", f"the {name} is valid until {until}")


def service(patient: Patient) -> Iterator[Finding]:
    """One request to each address, as the agent would make it."""
    settings = patient.settings
    if settings is None or settings.tpm_enabled:
        return
    held, key = _pair(patient, settings.management)
    is_enrolled = bool(held and key)
    which = settings.management if is_enrolled else settings.enrollment
    certificate, key = _pair(patient, which)
    trusted = authorities.Authorities(patient.world, f"{settings.certs_dir}/authorities.json")
    path = _path(patient, is_enrolled=is_enrolled)
    for one in which.each():
        try:
            shown = transport.Credentials(
                trusted.of(one), certificate, key, one.server_name, one.insecure
            )
        except transport.Unreachable as error:
            hint = "put the authority's certificate there"
            yield Finding(ERROR, "service", str(error), hint)
            continue
        yield from _reached(one.server, shown, path, is_enrolled=is_enrolled)
    if which.insecure:
        hint = "remove insecureSkipVerify and give a certificate-authority"
        yield Finding(WARNING, "service", "its certificate is not verified", hint)


def _reached(
    server: str, shown: transport.Credentials, path: str, *, is_enrolled: bool
) -> Iterator[Finding]:
    client = transport.Client(server, lambda: shown)
    try:
        client.request("GET", path, timeout_s=REACH_S, want_body=False)
    except transport.Untrusted as error:
        words = f"{server} is not trusted: {error}"
        hint = "compare certificate-authority with the service's; is the clock right?"
        yield Finding(ERROR, "service", words, hint)
    except transport.Unreachable as error:
        words = f"{server} is out of reach: {error}"
        hint = "the device goes on with what it has; check network, name server and proxy"
        yield Finding(ERROR, "service", words, hint)
    except transport.Throttled as error:
        words = f"{server} is busy: {error}"
        yield Finding(WARNING, "service", words, "it is tried again by itself")
    except transport.Rejected as error:
        yield from _rejected(f"{server} is", error, is_enrolled=is_enrolled)
    else:
        yield Finding(OK, "service", f"{server} is reached")
    finally:
        client.close()


def _rejected(name: str, error: transport.Rejected, *, is_enrolled: bool) -> Iterator[Finding]:
    if error.status in (401, 403):
        hint = "revoked, expired, or another service's; see the service's audit"
        yield Finding(ERROR, "service", f"{name} refusing this device: {error}", hint)
    elif error.status >= 500:
        yield Finding(WARNING, "service", f"{name} ill: {error}", "it is tried again by itself")
    elif is_enrolled and error.status == 404:
        hint = "it was deleted there; the agent enrols again, which somebody must approve"
        yield Finding(WARNING, "service", f"{name} without this device: {error}", hint)
    else:
        yield Finding(OK, "service", f"{name} reached")


def _path(patient: Patient, *, is_enrolled: bool) -> str:
    own = patient.settings.management.key.load(patient.world) if patient.settings else b""
    answer = patient.ask({"do": "describe", "key": own.decode()}) if own else {}
    name = answer.get("name", "none")
    return f"/devices/{name}/rendered" if is_enrolled else f"/enrollmentrequests/{name}"


def agent(patient: Patient) -> Iterator[Finding]:
    answer = patient.world.run(health.show_argv(), timeout_s=QUICK_S)
    if not answer.ok:
        words = "systemd does not answer; the agent runs as a service of systemd"
        yield Finding(WARNING, "agent", words)
        return
    unit = health.properties(answer.stdout)
    enabled, active = unit.get("UnitFileState", ""), unit.get("ActiveState", "")
    logs = f"journalctl --unit {health.UNIT} --lines 50"
    if enabled != "enabled":
        words = f"{health.UNIT} does not start at boot: {enabled or 'no such unit'}"
        yield Finding(ERROR, "agent", words, f"systemctl enable {health.UNIT}")
    if active not in health.UP:
        yield Finding(ERROR, "agent", f"{health.UNIT} is {active or 'not there'}", logs)
    elif unit.get("NRestarts", "0") not in ("", "0"):
        words = f"it was restarted {unit['NRestarts']} times since it was started"
        yield Finding(WARNING, "agent", words, logs)
    else:
        yield Finding(OK, "agent", unit.get("StatusText") or "running")


def tools(patient: Patient) -> Iterator[Finding]:
    where = patient.world
    answer = where.run(podman.version_argv(), timeout_s=QUICK_S)
    if answer.status == world.NOT_STARTED:
        words = "podman is not installed: applications cannot run"
        yield Finding(WARNING, "tools", words, "install podman 5 or newer")
    elif (major := podman.major_version(answer.stdout)) < PODMAN_LEAST:
        words = f"podman {major or '?'} is too old for applications of quadlets"
        yield Finding(WARNING, "tools", words, f"install podman {PODMAN_LEAST} or newer")
    else:
        yield Finding(OK, "tools", f"podman {answer.stdout.strip().splitlines()[-1].split()[-1]}")
    if where.run(["skopeo", "--version"], timeout_s=QUICK_S).status == world.NOT_STARTED:
        words = "skopeo is not installed: tags of images are not looked up"
        yield Finding(WARNING, "tools", words, "install skopeo")
    mode = system.mode_of(where)
    if mode == osimage.PACKAGE:
        words = "neither bootc nor rpm-ostree: the operating system is not managed"
        yield Finding(OK, "tools", words)
    else:
        yield Finding(OK, "tools", f"{mode} manages the operating system")
    try:
        patient.ask({"do": "create"})
    except errors.Fatal as error:
        yield Finding(ERROR, "tools", error.detail, "install python3-cryptography")


def disk(patient: Patient) -> Iterator[Finding]:
    seen: set[tuple[int, ...]] = set()
    for folder in (patient.data_dir, "/var/lib/containers", "/var/log", "/sysroot", "/etc", "/tmp"):  # noqa: S108 - looked at, not used
        try:
            found = os.statvfs(patient.real_path(folder))
            place = (os.stat(patient.real_path(folder)).st_dev,)  # noqa: PTH116 - a text
        except OSError:
            continue
        if place in seen or not found.f_blocks:
            continue
        seen.add(place)
        yield from _space(folder, found, is_needed=folder != "/sysroot")


def _space(folder: str, found: os.statvfs_result, *, is_needed: bool) -> Iterator[Finding]:
    free_bytes = found.f_bavail * found.f_frsize
    free = 100 * found.f_bavail / found.f_blocks
    inodes = 100 * found.f_favail / found.f_files if found.f_files else 100.0
    words = f"{folder}: {free:.0f} % free, {free_bytes >> 20} MiB"
    hint = "remove what is not needed; unused images: podman image prune"
    if found.f_flag & os.ST_RDONLY and is_needed:
        hint = "is the file system damaged? See the kernel's log: journalctl -k"
        yield Finding(ERROR, "disk", f"{folder} is read-only", hint)
    elif free < DISK_FULL or free_bytes < DISK_BYTES_LEAST or inodes < DISK_FULL:
        more = f", {inodes:.0f} % of its inodes" if inodes < DISK_FULL else ""
        yield Finding(ERROR, "disk", f"{words}{more}", hint)
    elif free < DISK_LOW or inodes < DISK_LOW:
        yield Finding(WARNING, "disk", words, hint)
    else:
        yield Finding(OK, "disk", words)


def hook_files(patient: Patient) -> Iterator[Finding]:
    """A file that is wrong refuses the next update; better to know before."""
    number = 0
    for folder in hooks.FOLDERS:
        for point in HOOK_POINTS:
            for name in patient.world.listdir(f"{folder}/{point}"):
                if not name.endswith(hooks.ENDS):
                    continue
                path = f"{folder}/{point}/{name}"
                number += 1
                try:
                    hooks.parse(patient.world.read(path) or b"")
                except hooks.Invalid as error:
                    hint = "mend it: as it is, the next update is refused"
                    yield Finding(ERROR, "hooks", f"{path}: {error}", hint)
    if number:
        yield Finding(OK, "hooks", f"{number} files read")


HOOK_POINTS = (
    hooks.BEFORE_UPDATING,
    hooks.AFTER_UPDATING,
    hooks.BEFORE_REBOOTING,
    hooks.AFTER_REBOOTING,
)
CHECKS: tuple[Check, ...] = (
    configuration,
    clock,
    agent,
    data_directory,
    certificates,
    service,
    disk,
    tools,
    rootless.users,
    hook_files,
)
