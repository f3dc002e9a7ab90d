"""What the service counts about itself: over HTTP, in Prometheus' own words, on both databases."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from apiserver import metrics
from apiserver.store import Store
from apiserver.store.sealing import Unopenable
from tests.contract.test_encryption import fill, key_file, opened, read
from tests.fakes import apiserver_process, ports

REFERENCE = Path(__file__).parents[2] / "docs/reference/metrics.md"
ENCRYPTION = "flightctl_encryption"


async def families(counted: metrics.Metrics) -> dict[str, Metric]:
    async with TestClient(TestServer(metrics.create_app(counted))) as client:
        async with client.get("/metrics") as answer:
            assert answer.status == 200
            assert answer.content_type == "text/plain"
            text = await answer.text()
        async with client.get("/") as answer:
            assert answer.status == 404
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(found: dict[str, Metric], name: str, **labels: str) -> float:
    """Of all samples of the series that have these labels."""
    return sum(
        sample.value
        for family in found.values()
        for sample in family.samples
        if sample.name == f"{ENCRYPTION}_{name}" and labels.items() <= sample.labels.items()
    )


async def test_what_is_encrypted_and_decrypted_is_counted_by_key(
    database_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "keys"
    async with opened(database_url, tmp_path, key_file(folder, "old")) as store:
        await fill(store)
    counted = metrics.Metrics()
    async with opened(database_url, tmp_path, key_file(folder, "new", "old")) as store:
        counted.follow(store)
        found = await families(counted)
        assert value(found, "active_key_info", key="new") == 1
        assert value(found, "active_key_info", key="old") == 0
        assert value(found, "canary_validations_total", status="success") == 1
        assert value(found, "operations_total") == 0
        await read(store)
        await fill_more(store)
        with pytest.raises(Unopenable):
            await store.read(lambda s: s.keys.open("old", b"x" * 40, "somewhere else"))
    found = await families(counted)
    assert value(found, "operations_total", operation="decrypt", key="old", status="success") >= 3
    assert value(found, "operations_total", operation="encrypt", key="new", status="success") >= 1
    assert value(found, "operations_total", operation="encrypt", key="old") == 0
    assert value(found, "errors_total", operation="decrypt", key="old") == 1
    assert value(found, "operations_total", status="error") == 1
    times = value(found, "operation_duration_seconds_count")
    assert times == value(found, "operations_total")


async def fill_more(store: Store) -> None:
    await store.write(lambda tx: tx.put_content(b"another", is_secret=True))


async def test_every_series_is_in_the_reference(tmp_path: Path) -> None:
    counted = metrics.Metrics()
    async with opened("", tmp_path, key_file(tmp_path / "keys", "one")) as store:
        counted.follow(store)
        await fill(store)
        await read(store)
    text = REFERENCE.read_text()
    for family in (await families(counted)).values():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"`{name}`" in text, name


def test_the_service_serves_them_where_it_is_told_to(tmp_path: Path) -> None:
    port = ports.free_port()
    url = f"http://127.0.0.1:{port}"
    place = ("--metrics-listen", f"127.0.0.1:{port}")
    with apiserver_process.running(tmp_path / "data", *place):
        with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
            assert f"{ENCRYPTION}_active_key_info{{".encode() in answer.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/apis", timeout=30)
