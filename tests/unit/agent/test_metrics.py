"""What the agent counts, read by Prometheus' own parser; and the pages that show it."""

from __future__ import annotations

import urllib.error
import urllib.request
from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent import instruments, loopback, metrics


def parsed(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    return {
        sample.name: {
            tuple(sorted(one.labels.items())): one.value
            for one in family.samples
            if one.name == sample.name
        }
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("GET", "/devices/abc/rendered", "get_rendered_device_spec"),
        ("PUT", "/devices/abc/status", "update_device_status"),
        ("PATCH", "/devices/abc/status", "patch_device_status"),
        ("POST", "/enrollmentrequests", "create_enrollmentrequest"),
        ("GET", "/enrollmentrequests/abc", "get_enrollmentrequest"),
        ("POST", "/certificatesigningrequests", "create_certificate_signing_request"),
        ("GET", "/certificatesigningrequests/abc-1", "get_certificate_signing_request"),
        ("GET", "/devices/abc/other", ""),
        ("DELETE", "/devices/abc/status", ""),
        ("GET", "/enrollmentrequests", ""),
    ],
)
def test_requests_are_counted_under_flightctls_names(
    method: str, path: str, operation: str
) -> None:
    assert metrics.operation_of(method, path) == operation


def test_requests_and_renewals_come_out_as_prometheus_reads_them() -> None:
    gauges = metrics.Metrics()
    gauges.requested("GET", "/devices/a/rendered", 0.02, True)
    gauges.requested("GET", "/devices/a/rendered", 119.0, True)
    gauges.requested("GET", "/devices/a/rendered", 300.0, False)
    gauges.requested("GET", "/nowhere", 1.0, True)
    gauges.renewed(metrics.PENDING, 0.5)
    gauges.renewed(metrics.SUCCESS, 1.5)
    found = parsed(gauges.text())
    name = "get_rendered_device_spec_duration_seconds"
    well, ill = (("result", "success"),), (("result", "error"),)
    assert found[f"{name}_count"] == {well: 2, ill: 1}
    assert found[f"{name}_sum"][well] == 119.02
    buckets = found[f"{name}_bucket"]
    assert buckets[("le", "0.025"), ("result", "success")] == 1
    assert buckets[("le", "60"), ("result", "success")] == 1
    assert buckets[("le", "120"), ("result", "success")] == 2
    assert buckets[("le", "240"), ("result", "error")] == 0
    assert buckets[("le", "+Inf"), ("result", "error")] == 1
    attempts = found["flightctl_device_mgmt_cert_renewal_attempts_total"]
    assert {labels[0][1]: value for labels, value in attempts.items()} == {
        "success": 1,
        "failure": 0,
        "pending": 1,
    }
    assert found["flightctl_device_mgmt_cert_renewal_duration_seconds_sum"] == {(): 2}


def test_the_certificate_and_the_status_are_shown_as_they_are() -> None:
    end = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    status = {
        "config": {"renderedVersion": "12"},
        "conditions": [{"type": "Updating", "status": "False", "reason": "Updated"}],
        "applications": [{"status": "Running"}, {"status": "Running"}, {"status": 'odd "\\\n'}],
    }
    found = parsed(metrics.exposition([*metrics.of_certificate(end), *metrics.of_status(status)]))
    assert found["flightctl_device_mgmt_cert_loaded"] == {(): 1}
    assert found["flightctl_device_mgmt_cert_not_after_timestamp_seconds"] == {(): end}
    assert found["homeport_agent_rendered_version"] == {(): 12}
    assert found["homeport_agent_condition"] == {(("reason", "Updated"), ("type", "Updating")): 0}
    assert found["homeport_agent_applications"] == {
        (("status", "Running"),): 2,
        (("status", 'odd "\\\n'),): 1,
    }
    none = parsed(metrics.exposition([*metrics.of_certificate(None), *metrics.of_status({})]))
    assert none["flightctl_device_mgmt_cert_loaded"] == {(): 0}
    assert "homeport_agent_rendered_version" not in none


def test_the_process_says_what_it_takes() -> None:
    found = parsed(metrics.exposition(instruments.of_process()))
    assert found["process_resident_memory_bytes"][()] > 1 << 20
    assert found["process_open_fds"][()] > 2
    now = datetime.now(UTC).timestamp()
    assert now - 7200 < found["process_start_time_seconds"][()] <= now + 1


def test_every_series_that_is_made_is_one_that_is_explained() -> None:
    made = {
        *(name for name, _, _ in metrics.of_certificate(1.0)),
        *(name for name, _, _ in instruments.of_process()),
        *(name for name, _, _ in metrics.of_status({"applications": [{}], "conditions": []})),
    }
    assert made <= set(metrics.MEANINGS)


def get(port: int, path: str) -> tuple[str, str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_pages_are_on_the_loopback_and_only_those_that_there_are() -> None:
    page = {"/metrics": (loopback.METRICS_TYPE, lambda options: metrics.Metrics().text())}
    port = loopback.serve(0, page)
    kind, text = get(port, "/metrics")
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    assert parsed(text)
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(port, "/")
    with caught.value as error:
        assert error.code == 404


def test_a_port_that_is_taken_costs_the_page_only(caplog: pytest.LogCaptureFixture) -> None:
    port = loopback.serve(0, {})
    assert loopback.serve(port, {}) == 0
    assert f"pages not served port={port}" in caplog.text


def test_profiling_shows_threads_and_samples_of_them() -> None:
    port = loopback.serve(0, loopback.profiling_pages())
    assert "threads" in get(port, "/debug/pprof/")[1]
    assert "thread MainThread" in get(port, "/debug/pprof/threads")[1]
    _, samples = get(port, "/debug/pprof/profile?seconds=0.05")
    stack, _, count = samples.splitlines()[0].rpartition(" ")
    assert int(count) >= 1
    assert ";" in stack
    assert any("test_profiling_shows" in line for line in samples.splitlines())
