"""kubectl watches: get -w as a table and as JSON, wait for conditions and for deletion."""

from __future__ import annotations

import queue
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.conformance.conftest import Kubectl, fleet
from tests.fakes.waiting import PATIENCE_S


class Lines:
    """The lines of a running command, as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def next(self) -> str:
        return self._lines.get(timeout=PATIENCE_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def web(kubectl: Kubectl) -> Kubectl:
    kubectl("apply", "-f", "-", stdin=fleet("web"))
    return kubectl


@pytest.fixture
def watching(web: Kubectl) -> Iterator[Lines]:
    lines = Lines(web.start("get", "fleets", "-w", "-o", "wide"))
    yield lines
    lines.close()


def test_a_watch_prints_rows_with_all_columns(web: Kubectl, watching: Lines) -> None:
    assert watching.next().split()[0] == "NAME"
    assert watching.next().split()[0] == "web"
    web("apply", "-f", "-", stdin=fleet("web", "quay.io/acme/os:2"))
    row = watching.next()
    assert row.split()[:2] == ["web", "fleet=web"]
    assert "quay.io/acme/os:2" in row
    web("create", "-f", "-", stdin=fleet("new"))
    assert watching.next().split()[0] == "new"


def test_a_watch_of_one_object_sees_its_deletion(web: Kubectl) -> None:
    command = ("get", "fleet", "web", "-w", "--output-watch-events")
    lines = Lines(web.start(*command))
    try:
        assert lines.next().split()[:2] == ["EVENT", "NAME"]
        assert lines.next().split()[:2] == ["ADDED", "web"]
        web("delete", "fleet", "web", "--wait=false")
        assert lines.next().split()[:2] == ["DELETED", "web"]
    finally:
        lines.close()


def waiting(web: Kubectl, what: str) -> subprocess.Popen[str]:
    """It has found the fleet, and watches it: what is done now happens while it waits."""
    process = web.start("wait", "fleet/web", what, "--timeout=60s", "-v=6")
    assert process.stdout is not None
    assert any("watch=true" in line for line in iter(process.stdout.readline, ""))
    return process


def ending(process: subprocess.Popen[str]) -> str:
    with process:
        assert process.stdout is not None
        return process.stdout.read()


def test_wait_ends_when_the_condition_is_there(web: Kubectl) -> None:
    process = waiting(web, "--for=condition=Valid")
    condition = (
        '{"status":{"observedGeneration":1,'
        '"conditions":[{"type":"Valid","status":"True","reason":"Valid",'
        '"message":"","lastTransitionTime":"2026-11-23T10:00:00Z"}]}}'
    )
    web("patch", "fleet", "web", "--subresource=status", "--type=merge", "-p", condition)
    assert "condition met" in ending(process)


def test_wait_ends_at_a_value(web: Kubectl) -> None:
    path = "--for=jsonpath={.spec.template.spec.os.image}=quay.io/acme/os:1"
    assert "condition met" in web("wait", "fleet/web", path, "--timeout=40s")


def test_wait_ends_at_the_deletion(web: Kubectl) -> None:
    process = waiting(web, "--for=delete")
    web("delete", "fleet", "web", "--wait=false")
    assert "condition met" in ending(process)


def test_a_finalizer_holds_a_deletion_until_it_is_taken_away(web: Kubectl) -> None:
    held = '{"metadata":{"finalizers":["acme.io/clean"]}}'
    web("patch", "fleet", "web", "--type=merge", "-p", held)
    web("delete", "fleet", "web", "--wait=false")
    assert web("get", "fleet", "web", "-o", "jsonpath={.metadata.deletionTimestamp}")
    web("patch", "fleet", "web", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    web.refused("get", "fleet", "web")
