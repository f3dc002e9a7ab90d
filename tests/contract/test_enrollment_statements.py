"""What an enrolment asks of PostgreSQL, as it logs it: each statement is a round trip, and the CPU
time of two processes."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from apiserver import approvals
from apiserver.app import create_operations
from apiserver.pki.authority import Authority
from apiserver.pki.issuing import Issuing
from apiserver.store import Store, reports
from apiserver.store.reports import Report
from bench.fleet import ADMIN, FLEET, PLAIN
from tests.fakes.agent_client import device_status, fingerprint, signing_request
from tests.fakes.postgres import Cluster

NUMBER = 10
_STATEMENT = re.compile(r"LOG:  (?:statement|execute [^:]*): (.*)")


async def test_statements_of_an_enrolment_into_a_fleet(
    postgres: Cluster, migrated: str, tmp_path: Path
) -> None:
    url = postgres.copy_database(migrated)
    postgres.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET log_statement = 'all'")
    operations = create_operations(await Store.open(url, data_dir=tmp_path))
    await operations.prepare()
    issuing = Issuing(Authority.load_or_create(tmp_path / "pki", now=lambda: datetime.now(UTC)))
    spec = {"selector": {"matchLabels": {"site": "a"}}, "template": {"spec": {}}}
    await operations.create(
        ADMIN, FLEET, "default", {"metadata": {"name": "web"}, "spec": spec}, PLAIN
    )

    async def enrol() -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = fingerprint(key)
        document = {"metadata": {"name": name}, "spec": {"csr": signing_request(key, name)}}
        kind = approvals.ENROLLMENT_REQUEST
        await operations.create(ADMIN, kind, "default", document, PLAIN)
        approval = {"approved": True, "labels": {"site": "a"}}
        await approvals.approve_enrollment(operations, issuing, ADMIN, "default", name, approval)
        await operations.get(ADMIN, kind, "default", name)
        status = device_status("0")
        await operations.store.write(lambda tx: reports.put(tx, Report("default", name, status)))

    log = postgres.directory / "log"
    await enrol()
    before = log.stat().st_size
    for _ in range(NUMBER):
        await enrol()
    said = log.read_bytes()[before:].decode()
    await operations.store.close()
    found = _STATEMENT.findall(said)
    owned = [each for each in found if each.startswith(("INSERT INTO device ", "UPDATE device "))]
    print(f"{len(found) / NUMBER} statements a device, of which {len(owned) / NUMBER} write it")
    # Once when it is born, with its owner, and once when it reports.
    assert len(owned) == 2 * NUMBER
    # Three transactions of their own, and two reads: those that wait together share their frames.
    # Four are of events: that the request and the device were made, and what the report tells.
    assert len(found) <= 49 * NUMBER
