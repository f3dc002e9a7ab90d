"""Asks for the certificates that `provisions` wants, and keeps them fresh; between two polls.

Level-triggered: each look reads the files, compares them with what is wanted, and does what is due:
a certificate that is missing, damaged, not that of the key beside it, of another name, or soon over
is asked for with a new key. The key is kept in memory until it is granted, so that the pair on the
disk stays one that works; a crash between the two files is seen as "not that of the key".

What was written for whom is in `provisions.json`, before it is written: what is named no more is
removed, and only if every file could be read, for a file that is damaged has not taken anything
back. What a certificate is for is told nobody: a path unit of systemd may watch it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import posixpath
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from agent import (
    certificates,
    child,
    errors,
    identity,
    provisions,
    routes,
    transport,
    world,
    yamltexts,
)
from agent.provisions import Provision
from agent.selinux import Labels
from resources.records import dataclass

log = logging.getLogger("agent.provisioning")

Json = dict[str, Any]

CERTIFICATE_MODE, KEY_MODE, FOLDER_MODE = 0o644, 0o600, 0o700
FILE_BYTES_MAX = 1 << 20
RETRY_S, RETRY_S_MAX, SPREAD = 600.0, 1800.0, 0.1
REFUSED_S = 3600.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request under way, and the key that it is about."""

    request: str
    key: str


@dataclass(slots=True)
class Standing:
    """Of one entry, in this life."""

    asked: Asked | None = None
    delay_s: float = 0.0
    not_before: float = 0.0
    trouble: str = ""


class Provisioning:
    """`step` is called by the thread that polls, with the connection that it has."""

    def __init__(
        self,
        where: world.World,
        who: identity.Identity,
        client: routes.Caller,
        *,
        config_dir: str,
        own_dir: str,
        ask: identity.Ask = child.ask,
    ) -> None:
        self._world = where
        self._identity = who
        self._client = client
        self._config_dir = config_dir
        self._record_path = f"{own_dir}/provisions.json"
        self._ask = ask
        self._labels = Labels(where)
        self._standing: dict[str, Standing] = {}
        self._complaints: tuple[str, ...] = ()
        # Digest of a pair of files -> what they are: a look into one is a child process.
        self._known: dict[bytes, Json] = {}
        # Digest of a text -> what it says, or why it says nothing.
        self._read: dict[bytes, Any] = {}
        # The same share of every certificate's life, in this process.
        self._chance = where.random()

    def troubles(self) -> tuple[str, ...]:
        """For the summary; any thread."""
        standing = list(self._standing.items())
        found = [f"certificate {name}: {one.trouble}" for name, one in standing if one.trouble]
        return (*self._complaints, *found)

    def step(self) -> None:
        """Does what is due. Raises ServiceError where the service is out of reach."""
        wanted, is_complete = self._wanted()
        record = self._record()
        if is_complete:
            self._forget({one.name: one for one in wanted}, record)
        for one in wanted:
            standing = self._standing.setdefault(one.name, Standing())
            try:
                self._look_after(one, standing, record)
            except transport.Rejected as error:
                self._later(standing, f"the service refuses it: {error}", REFUSED_S)
            except transport.Throttled as error:
                self._later(standing, str(error), max(RETRY_S, error.after_s))
            except OSError as error:
                self._later(standing, f"{error.filename or one.certificate}: {error.strerror}")

    # What should be. ------------------------------------------------------------------------------

    def _wanted(self) -> tuple[list[Provision], bool]:
        """And whether all files could be read."""
        documents: list[tuple[str, Any]] = []
        complaints: list[str] = []
        for path in self._paths():
            try:
                raw = self._world.read(path)
                if raw is None:
                    continue
                if len(raw) > FILE_BYTES_MAX:
                    raise ValueError(f"larger than {FILE_BYTES_MAX} bytes")
                documents.append((path, self._parsed(raw)))
            except (OSError, ValueError, errors.Retry) as error:
                complaints.append(f"{path}: cannot be read: {error}")
        wanted, left_out = provisions.read(documents, self._identity.name)
        for words in {*complaints, *left_out} - set(self._complaints):
            log.error("certificate not provisioned: %s", words)
        self._complaints = (*complaints, *left_out)
        return wanted, not self._complaints

    def _parsed(self, raw: bytes) -> Any:
        """Read once for as long as it is the same: this is asked at every step. Raises NotYaml,
        Retry."""
        mark = hashlib.sha256(raw).digest()
        if mark not in self._read:
            if len(self._read) >= provisions.ENTRIES_MAX:
                self._read.clear()
            try:
                self._read[mark] = yamltexts.read(raw)
            except yamltexts.NotYaml as error:
                self._read[mark] = error
        if isinstance(found := self._read[mark], yamltexts.NotYaml):
            raise found
        return found

    def _paths(self) -> list[str]:
        folder = f"{self._config_dir}/{provisions.FOLDER}"
        names = [n for n in self._world.listdir(folder) if n.endswith(provisions.ENDS)]
        return [f"{self._config_dir}/{provisions.FILE}", *(f"{folder}/{n}" for n in names)]

    # What is. -------------------------------------------------------------------------------------

    def _is_due(self, one: Provision) -> bool:
        certificate, key = self._world.read(one.certificate), self._world.read(one.key)
        if not certificate or not key:
            return True
        facts = self._inspected(certificate, key)
        if not facts.get("fitsKey") or facts.get("commonName") != one.common_name:
            return True
        now = self._world.now().timestamp()
        begin, end = facts["notBefore"], facts["notAfter"]
        return one.is_due(begin=begin, end=end, now=now, chance=self._chance)

    def _inspected(self, certificate: bytes, key: bytes) -> Json:
        """Empty where one of them is none."""
        mark = hashlib.sha256(certificate + b"\0" + key).digest()
        if mark not in self._known:
            if len(self._known) > provisions.ENTRIES_MAX:
                self._known.clear()
            question = {
                "do": "certificate",
                "certificate": certificate.decode("ascii", "replace"),
                "key": key.decode("ascii", "replace"),
            }
            self._known[mark] = self._ask(question)
        return self._known[mark]

    # Doing. ---------------------------------------------------------------------------------------

    def _look_after(self, one: Provision, standing: Standing, record: dict[str, Json]) -> None:
        """Raises ServiceError, OSError."""
        if not self._is_due(one):
            self._keep(one, record)
            standing.asked, standing.trouble, standing.delay_s = None, "", 0.0
            return
        if self._world.monotonic() < standing.not_before:
            return
        try:
            document = self._look(standing) if standing.asked else self._request(one, standing)
            pem = certificates.judged(document)
        except (certificates.Denied, identity.Unusable) as error:
            standing.asked = None
            self._later(standing, str(error), REFUSED_S)
            return
        assert standing.asked is not None
        if pem is None:
            self._later(standing, "not signed yet")
            return
        key = standing.asked.key
        if not self._inspected(pem.encode(), key.encode()).get("fitsKey"):
            standing.asked = None
            self._later(standing, "what was granted is not for the key", REFUSED_S)
            return
        self._keep(one, record)
        self._put(one.key, key.encode(), KEY_MODE)
        self._put(one.certificate, pem.encode(), CERTIFICATE_MODE)
        self._standing[one.name] = Standing()
        log.info("certificate provisioned name=%s path=%s", one.name, one.certificate)

    def _request(self, one: Provision, standing: Standing) -> Any:
        key = self._answered({"do": "create"}, "key")
        question = {"do": "request", "key": key, "commonName": one.common_name}
        csr = self._answered(question, "csr")
        name = f"{one.common_name}-{int(self._world.random() * 2**32):08x}"
        spec: Json = {
            "request": base64.b64encode(csr.encode()).decode(),
            "signerName": one.signer,
            "usages": list(one.usages),
        }
        if one.lifetime_s:
            spec["expirationSeconds"] = one.lifetime_s
        document = {
            "apiVersion": transport.API_VERSION,
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": spec,
        }
        answer = self._client.request("POST", "/certificatesigningrequests", body=document)
        standing.asked = Asked(name, key)
        is_signed = certificates.judged(answer.document) is not None
        return answer.document if is_signed else self._look(standing)

    def _look(self, standing: Standing) -> Any:
        assert standing.asked is not None
        path = f"/certificatesigningrequests/{quote(standing.asked.request, safe='')}"
        try:
            return self._client.get(path).document
        except transport.Rejected:
            # It is not there any more, or never was ours: asked anew after the pause.
            standing.asked = None
            raise

    def _answered(self, question: Json, key: str) -> str:
        answer = self._ask(question)
        if "error" in answer:
            raise identity.Unusable(answer["error"])
        return str(answer[key])

    def _later(self, standing: Standing, why: str, pause_s: float = 0.0) -> None:
        if why != standing.trouble:
            log.warning("certificate not provisioned: %s", why)
        standing.trouble = why
        standing.delay_s = min(max(RETRY_S, standing.delay_s * 2), RETRY_S_MAX)
        pause_s = (pause_s or standing.delay_s) * (1 + SPREAD * (2 * self._world.random() - 1))
        standing.not_before = self._world.monotonic() + pause_s

    # The record, and the files. -------------------------------------------------------------------

    def _put(self, path: str, data: bytes, mode: int) -> None:
        self._world.mkdir(posixpath.dirname(path), mode=FOLDER_MODE)
        uid, gid = self._world.uid_of("root"), self._world.gid_of("root")
        self._world.write(path, data, mode=mode, uid=uid or 0, gid=gid or 0)
        self._labels.restore(path)

    def _keep(self, one: Provision, record: dict[str, Json]) -> None:
        place = {"certificate": one.certificate, "key": one.key}
        if record.get(one.name) == place:
            return
        before = record.get(one.name, {})
        record[one.name] = place
        self._remove(before, record)
        self._write(record)

    def _forget(self, wanted: Mapping[str, Provision], record: dict[str, Json]) -> None:
        for name in [name for name in record if name not in wanted]:
            place = record.pop(name)
            self._remove(place, record)
            self._write(record)
            log.info("certificate removed name=%s path=%s", name, place.get("certificate"))
        for name in self._standing.keys() - wanted.keys():
            del self._standing[name]

    def _remove(self, place: Json, record: Mapping[str, Json]) -> None:
        """But what another entry has taken over."""
        taken = {path for other in record.values() for path in other.values()}
        for path in {place.get("key"), place.get("certificate")} - taken - {None}:
            if self._world.stat(str(path)) is not None:
                self._world.shred(str(path))

    def _record(self) -> dict[str, Json]:
        try:
            found = json.loads(self._world.read(self._record_path) or b"{}")
        except ValueError:
            return {}
        if not isinstance(found, dict):
            return {}
        return {str(k): v for k, v in found.items() if isinstance(v, dict)}

    def _write(self, record: Mapping[str, Json]) -> None:
        data = json.dumps(record, separators=(",", ":")).encode()
        self._world.mkdir(posixpath.dirname(self._record_path), mode=FOLDER_MODE)
        self._world.write(self._record_path, data, mode=0o600, uid=0, gid=0)
