"""A fleet whose template has parameters, on both stores: each device is given its own, rendered
once for each set of values; one that cannot have it says why and holds up nobody."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from apiserver import rollouts
from apiserver.operations import Operations
from apiserver.store import Store, devices, givens, rolling, sets
from bench.fleet import ADMIN, DEVICE, PLAIN, ROLLOUT, Service
from resources.kind import Json
from resources.selectors import parse_fields

SERIAL = "serial {{ .metadata.labels.serial }}\n"
MISSING = 'config[0].inline[0].content: line 1, column 4: the device has no label "zone"'
REFUSED = f"Device could not be updated to the fleet's latest device spec: {MISSING}"


@pytest.fixture
async def service(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Service]:
    # A dozen devices are then several transactions.
    monkeypatch.setattr(sets, "CHUNK", 10)
    operations = Operations(await Store.open(database_url, data_dir=tmp_path))
    await operations.prepare()
    started = await Service.over(operations)
    yield started
    await started.stop()


async def device(service: Service, number: int) -> Json:
    return await service.operations.get(ADMIN, DEVICE, "default", f"d{number:06}")


async def row(service: Service, number: int) -> Any:
    return await service.operations.store.read(
        lambda s: devices.row_by_name(s.connection, "default", f"d{number:06}")
    )


async def relabel(service: Service, number: int, **labels: str) -> None:
    old = await device(service, number)
    metadata = old["metadata"] | {"labels": old["metadata"]["labels"] | labels}
    await service.operations.update(
        ADMIN, DEVICE, "default", f"d{number:06}", old | {"metadata": metadata}, PLAIN
    )


async def given(service: Service, number: int) -> str:
    """What the device's agent would write to its file."""
    digest = (await row(service, number))["rendered_digest"]
    store = service.operations.store
    found = await store.read(lambda s: s.documents.fetch(s.connection, [digest]))
    body: Json = found[digest]
    (provider,) = body["config"]
    return base64.b64decode(provider["inline"][0]["content"]).decode()


async def progress(service: Service, request: Json) -> Json:
    store = service.operations.store
    return await rollouts.progress(store, "default", "web", request["rollout"])


async def contents(service: Service) -> int:
    def count(snapshot: Any) -> int:
        answer = snapshot.connection.exec_driver_sql("SELECT count(*) FROM content")
        return int(answer.scalar_one())

    return await service.operations.store.read(count)


async def test_each_device_is_given_its_own(service: Service) -> None:
    await service.fill(25)
    answer = await service.change(SERIAL)
    assert answer == {"bound": 25, "rendered": 25, "remaining": 0, "failed": 0}
    for number in (0, 9, 10, 24):
        assert await given(service, number) == f"serial {number}\n"
        spec = (await device(service, number))["spec"]
        assert spec["config"][0]["inline"][0]["content"] == f"serial {number}\n"
    annotations = (await device(service, 7))["metadata"]["annotations"]
    assert annotations[devices.TEMPLATE_VERSION] == "v2"
    assert annotations[devices.RENDERED_VERSION] == "1"


async def test_devices_that_agree_in_what_is_used_share_one_content(service: Service) -> None:
    await service.fill(25)
    request = await service.offer(
        '{{ if eq .metadata.labels.site "a" }}{{ with .metadata.labels.zone }}{{ . }}{{ end }}'
        "{{ end }}"
    )
    for number in range(25):
        await relabel(service, number, zone=f"z{number % 3}")
    before = await contents(service)
    assert (await service.bind(request))["bound"] == 25
    # The specification and what agents are given, for each of three zones.
    assert await contents(service) - before == 2 * 3
    assert [await given(service, number) for number in (0, 1, 2, 24)] == ["z0", "z1", "z2", "z0"]


async def test_three_of_thirty_say_what_they_lack_and_the_others_go_on(
    service: Service,
) -> None:
    await service.fill(30)
    await service.change("old")
    for number in range(3, 30):
        await relabel(service, number, zone=f"z{number % 2}")
    request = await service.offer("{{ .metadata.labels.zone }}")
    answer = await service.bind(request)
    assert answer == {"bound": 27, "rendered": 27, "remaining": 0, "failed": 3}
    assert await given(service, 4) == "z0"

    refused = await device(service, 1)
    assert refused["metadata"]["annotations"][devices.ROLLOUT_ERROR] == MISSING
    assert refused["metadata"]["annotations"][devices.TEMPLATE_VERSION] == "v2"
    assert refused["status"]["updated"] == {"status": "OutOfDate", "info": REFUSED}
    assert await given(service, 1) == "old"
    counts = await progress(service, request)
    assert {key: counts[key] for key in ("total", "unbound", "rendered", "failed")} == {
        "total": 30,
        "unbound": 0,
        "rendered": 27,
        "failed": 3,
    }
    assert counts["failures"] == [{"cause": MISSING, "count": 3, "example": "d000000"}]

    again = await service.bind(request)
    assert again == {"bound": 0, "rendered": 0, "remaining": 0, "failed": 0}

    await relabel(service, 1, zone="mended")
    assert (await row(service, 1))["render_needed"] == 1
    page = await service.page(fields=parse_fields("status.renderNeeded=true", DEVICE.selectable))
    assert [found["metadata"]["name"] for found in page.items] == ["d000001"]
    answer = await service.bind(request)
    assert answer == {"bound": 1, "rendered": 1, "remaining": 0, "failed": 0}
    assert await given(service, 1) == "mended"
    mended = await device(service, 1)
    assert devices.ROLLOUT_ERROR not in mended["metadata"]["annotations"]
    assert mended["metadata"]["annotations"][devices.TEMPLATE_VERSION] == "v3"
    assert REFUSED not in mended["status"]["updated"]["info"]


async def test_a_device_that_still_lacks_something_says_so_anew(service: Service) -> None:
    await service.fill(1)
    request = await service.offer("{{ .metadata.labels.zone }}{{ .metadata.labels.rack }}")
    assert (await service.bind(request))["failed"] == 1
    await relabel(service, 0, zone="z")
    assert (await service.bind(request))["failed"] == 1
    assert 'no label "rack"' in (await row(service, 0))["render_error"]
    assert (await progress(service, request))["failed"] == 1


async def test_only_a_label_that_the_template_looks_at_asks_for_a_render(service: Service) -> None:
    await service.fill(2)
    request = await service.offer('{{ getOrDefault .metadata.labels "zone" "none" }}')
    await service.bind(request)
    version = (await row(service, 0))["rendered_version"]
    await relabel(service, 0, colour="red")
    assert (await row(service, 0))["render_needed"] == 0
    await relabel(service, 0, zone="z1")
    assert (await row(service, 0))["render_needed"] == 1
    assert (await service.bind(request))["rendered"] == 1
    assert await given(service, 0) == "z1"
    # The same bytes by another way are no new version.
    await relabel(service, 0, zone="none")
    await relabel(service, 0, zone="z1")
    answer = await service.bind(request)
    assert (answer["bound"], answer["rendered"]) == (1, 0)
    assert (await row(service, 0))["rendered_version"] == version + 1
    assert await given(service, 1) == "none"


async def test_a_fleet_without_parameters_asks_for_nothing_when_labels_change(
    service: Service,
) -> None:
    await service.fill(1)
    await service.change("plain")
    await relabel(service, 0, zone="z1")
    assert (await row(service, 0))["render_needed"] == 0


async def test_a_device_that_moved_while_it_was_rendered_is_taken_by_the_next_call(
    service: Service,
) -> None:
    await service.fill(3)
    request = await service.offer(SERIAL)
    store = service.operations.store
    work = await store.read(lambda s: rollouts._work(s, "default", "web", request))
    assert work.resolver is not None
    find = partial(
        rolling.to_bind, target=work.target, choice=work.choice, limit=9, after="", held=False
    )
    chunk = await store.read(partial(work.resolver.resolve, find=find))
    await relabel(service, 1, serial="new")
    taken, left = await store.write(partial(rollouts._bind_chunk, work=work, chunk=chunk))
    assert (taken.rows, left) == (2, givens.Left(0, 0))
    assert (await row(service, 1))["template_version"] is None
    assert (await service.bind(request))["bound"] == 1
    assert await given(service, 1) == "serial new\n"


async def test_another_rollout_tries_those_again_that_could_not_be_rendered(
    service: Service,
) -> None:
    await service.fill(2)
    request = await service.offer("{{ .metadata.labels.zone }}")
    assert (await service.bind(request))["failed"] == 2
    await service.change("plain")
    assert (await row(service, 0))["render_error"] is None
    assert await given(service, 0) == "plain"


async def test_the_limit_holds_and_a_chunk_stores_no_more_than_its_bytes(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apiserver.resolving.CHUNK_BYTES", 2_000)
    await service.fill(20)
    request = await service.offer(SERIAL)
    assert (await service.bind(request | {"limit": 7})) == {
        "bound": 7,
        "rendered": 7,
        "remaining": 13,
        "failed": 0,
    }
    assert (await service.bind(request))["bound"] == 13
    assert await given(service, 19) == "serial 19\n"


async def test_devices_that_fail_do_not_use_up_the_limit(service: Service) -> None:
    await service.fill(sets.CHUNK + 10)
    await relabel(service, sets.CHUNK + 5, zone="z")
    request = await service.offer("{{ .metadata.labels.zone }}")
    answer = await service.bind(request | {"limit": 5})
    assert (answer["bound"], answer["failed"], answer["remaining"]) == (1, sets.CHUNK + 9, 0)


# --- batches and budgets --------------------------------------------------------------------


async def offer(service: Service, content: str, policy: Json) -> Json:
    """A fleet change under a policy. The request for it, by the attempt that has the policy."""
    request = await service.offer(content)
    version = request["templateVersion"]
    target = {"fleet": "web", "templateVersion": version, "policy": policy}
    rollout = {"metadata": {"name": f"{version}-2"}, "spec": {"target": target}}
    await service.operations.create(ADMIN, ROLLOUT, "default", rollout, PLAIN)
    return request | {"rollout": f"{version}-2"}


async def come_to_rest(service: Service) -> None:
    """All devices are here and run what they were given."""
    rest = "UPDATE device SET connected = 1, seen = 1, reported_version = rendered_version"
    await service.operations.store.write(lambda tx: tx.connection.exec_driver_sql(rest))


async def test_a_budget_gives_each_its_own_and_no_more_at_a_time_than_it_allows(
    service: Service,
) -> None:
    await service.fill(6)
    await service.change("old")
    for number in range(1, 6):
        await relabel(service, number, zone=f"z{number}")
    await come_to_rest(service)
    policy = {"disruptionBudget": {"maxUnavailable": 2}}
    request = await offer(service, "{{ .metadata.labels.zone }}", policy)
    answer = await service.bind(request)
    assert answer == {"bound": 5, "rendered": 2, "remaining": 0, "failed": 1}
    names = ("unbound", "held", "rendered", "failed")
    counts = await progress(service, request)
    assert [counts[name] for name in names] == [0, 3, 2, 1]
    assert [await given(service, number) for number in range(6)] == [
        *("old", "z1", "z2", "old", "old", "old"),
    ]
    spec = (await device(service, 5))["spec"]
    assert spec["config"][0]["inline"][0]["content"] == "z5", "bound, and held"

    again = await service.bind(request)
    assert again == {"bound": 0, "rendered": 0, "remaining": 0, "failed": 0}
    # A label that changes while the device is held is the one that counts.
    await relabel(service, 3, zone="moved")
    await come_to_rest(service)
    assert (await service.bind(request))["rendered"] == 2
    assert [await given(service, number) for number in (3, 4, 5)] == ["moved", "z4", "old"]
    spec = (await device(service, 3))["spec"]
    assert spec["config"][0]["inline"][0]["content"] == "moved"

    await come_to_rest(service)
    await relabel(service, 0, zone="mended")
    answer = await service.bind(request)
    assert (answer["bound"], answer["rendered"], answer["failed"]) == (1, 2, 0)
    await come_to_rest(service)
    assert [await given(service, number) for number in (0, 5)] == ["mended", "z5"]
    counts = await progress(service, request)
    assert [counts[name] for name in (*names, "done")] == [0, 0, 6, 0, 6]


async def test_a_device_that_loses_its_label_while_it_is_held_says_so(service: Service) -> None:
    await service.fill(2)
    await relabel(service, 0, zone="z0")
    await relabel(service, 1, zone="z1")
    await come_to_rest(service)
    policy = {"disruptionBudget": {"maxUnavailable": 1}}
    request = await offer(service, "{{ .metadata.labels.zone }}", policy)
    assert (await service.bind(request))["rendered"] == 1
    old = await device(service, 1)
    labels = {key: value for key, value in old["metadata"]["labels"].items() if key != "zone"}
    new = old | {"metadata": old["metadata"] | {"labels": labels}}
    await service.operations.update(ADMIN, DEVICE, "default", "d000001", new, PLAIN)
    await come_to_rest(service)
    answer = await service.bind(request)
    assert (answer["rendered"], answer["failed"]) == (0, 1)
    assert (await row(service, 1))["render_error"] == MISSING
    assert (await service.bind(request))["failed"] == 0
    counts = await progress(service, request)
    assert [counts[name] for name in ("unbound", "held", "done", "failed")] == [0, 0, 1, 1]


async def test_a_batch_counts_those_that_it_could_not_render_for(service: Service) -> None:
    await service.fill(4)
    for number in (1, 2, 3):
        await relabel(service, number, zone=f"z{number}")
    await come_to_rest(service)
    policy = {"deviceSelection": {"strategy": "BatchSequence", "sequence": [{"limit": 2}]}}
    request = await offer(service, "{{ .metadata.labels.zone }}", policy)
    first = request | {"batch": 0}
    answer = await service.bind(first)
    assert (answer["bound"], answer["failed"]) == (1, 1)
    assert (await service.bind(first))["bound"] == 0
    (batch,) = (await progress(service, request))["batches"]
    assert [batch[name] for name in ("number", "total", "unbound", "failed")] == [0, 2, 0, 1]

    await relabel(service, 0, zone="mended")
    answer = await service.bind(first | {"select": False})
    assert (answer["bound"], answer["failed"]) == (1, 0)
    assert (await row(service, 0))["rollout_batch"] == 0
    assert (await service.bind(request))["bound"] == 2
