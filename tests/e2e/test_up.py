"""`homeport up` as a person meets it: first files, clear refusals, a quick end."""

from __future__ import annotations

import signal
import sqlite3
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e import processes
from tests.e2e.service import HOMEPORT, READY_S, Service

NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: harbour\n"
FLEET = """apiVersion: flightctl.io/v1beta1
kind: Fleet
metadata:
  name: harbour
spec:
  template:
    spec: {}
"""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "data")
    yield service
    service.stop()


def refusal(*argv: str | Path) -> str:
    """Standard error of a start that must be refused at once, in one line."""
    done = subprocess.run(
        [HOMEPORT, "up", *argv], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 1, done
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def test_the_first_start_makes_an_administrator_and_an_enrolment_configuration(
    service: Service,
) -> None:
    ready = service.start()
    assert ready.startswith("ready ")
    assert service.url in ready
    assert f"https://127.0.0.1:{service.agent_port}" in ready
    assert str(service.kubeconfig) in ready
    assert service.kubeconfig.stat().st_mode & 0o777 == 0o600
    enrolment = yaml.safe_load(service.agent_config())["enrollment-service"]
    assert enrolment["service"]["server"] == f"https://127.0.0.1:{service.agent_port}"
    assert "client-key-data" in enrolment["authentication"]
    assert service.homeport("get", "devices", "-o", "json").count('"items": []') == 1


def test_both_urls_are_in_the_server_certificate(tmp_path: Path) -> None:
    service = Service(tmp_path / "data")
    log = tmp_path / "log"
    argv: list[str | Path] = [
        HOMEPORT,
        "up",
        "--data",
        service.data,
        "--listen",
        f"127.0.0.1:{service.port}",
    ]
    argv += ["--agent-listen", f"127.0.0.1:{service.agent_port}"]
    argv += ["--url", "https://fleet.example:3443", "--agent-url", "https://agents.example:7443"]
    with log.open("wb") as out, subprocess.Popen(argv, stdout=out, stderr=out) as process:
        try:
            processes.until(
                lambda: "\nready " in f"\n{log.read_text()}",
                "it is ready",
                timeout_s=READY_S,
                state=log.read_text,
            )
            config = (service.data / "enrollment" / "config.yaml").read_text()
            assert "https://agents.example:7443" in config
            assert "https://fleet.example:3443" in service.kubeconfig.read_text()
            pem = ssl.get_server_certificate(("127.0.0.1", service.port))
            der = ssl.PEM_cert_to_DER_cert(pem)
            assert b"fleet.example" in der
            assert b"agents.example" in der
        finally:
            process.send_signal(signal.SIGTERM)


def test_what_was_written_is_there_after_a_kill_and_the_files_stay(service: Service) -> None:
    service.start()
    first = (service.kubeconfig.read_bytes(), service.agent_config())
    service.kubectl("apply", "-f", "-", stdin=NAMESPACE)
    service.kill()
    service.start()
    assert (service.kubeconfig.read_bytes(), service.agent_config()) == first
    assert "harbour" in service.kubectl("get", "namespaces")


def test_sigterm_ends_it_though_somebody_watches(service: Service) -> None:
    service.start()
    service.kubectl("apply", "-f", "-", stdin=FLEET)
    argv = [str(HOMEPORT), "get", "fleets", "--watch", "-o", "name"]
    watch = subprocess.Popen(argv, env=service.environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert watch.stdout is not None
        assert watch.stdout.readline().endswith("harbour\n")
        # By itself: one that does not end is killed.
        assert service.stop() == 0
        # Who watches waits for the service to come back, until told otherwise.
        assert watch.poll() is None
        watch.send_signal(signal.SIGINT)
        assert watch.wait(processes.at_most(20)) == 130
    finally:
        watch.kill()
        watch.communicate()


def test_a_port_in_use_is_named(service: Service, tmp_path: Path) -> None:
    service.start()
    taken = f"127.0.0.1:{service.port}"
    said = refusal("--data", tmp_path / "other", "--listen", taken, "--agent-listen", "127.0.0.1:0")
    assert taken in said or str(service.port) in said


def test_a_data_directory_in_use_is_named(service: Service) -> None:
    service.start()
    free = ("--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0")
    assert str(service.data) in refusal("--data", service.data, *free)


def test_a_newer_data_directory_is_left_alone(service: Service) -> None:
    service.start()
    service.stop()
    database = service.data / "homeport.db"
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    free = ("--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0")
    assert "newer" in refusal("--data", service.data, *free)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--listen", "nowhere"),
        ("--agent-url", "http://plain.example"),
        ("--database", "mysql://x"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(tmp_path: Path, option: str, value: str) -> None:
    said = refusal("--data", tmp_path / "data", option, value)
    assert option in said
    assert value in said
