"""Images and artifacts on the device, and which of them a reference meant when it was fetched.

`images.json` maps each reference to the identity that it had when it was pulled. A tag that
somebody moves on the device afterwards is so seen and put right: what was released with a
specification stays what runs, until another specification comes.

A reference does not say whether it is an image or an artifact; the registry does, by refusing the
pull of an artifact as an image.

Each user whose applications run here has a store of their own, with a list of its own
(`images-UID.json`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from agent import errors, podman, specs, world
from agent.accounts import Accounts
from agent.pulling import Pulling
from agent.specs import Application, FileSpec, Volume
from resources.records import dataclass

if TYPE_CHECKING:
    from agent.resolutions import Resolutions

Json = dict[str, Any]

IMAGE, ARTIFACT = "image", "artifact"
# What tags meant, by version.
RESOLVED = "resolved.json"
PINS_MAX = 200
QUICK_S = 60.0


@dataclass(frozen=True, slots=True)
class Pin:
    kind: str
    identity: str


class Images:
    """One store: root's, or that of `user`."""

    def __init__(
        self, where: world.World, pulling: Pulling, accounts: Accounts, user: str = ""
    ) -> None:
        self._world = where
        self._accounts = accounts
        self._user = user
        account = accounts.of(user)
        # NB the name of somebody who is not here is not to be trusted with a path.
        whose = f"-{account.uid}" if account is not None else "-nobody" if user else ""
        self._path = f"{pulling.own_dir}/images{whose}.json"
        self._pulling = pulling
        # Fetched before there were pins: asked once in a life.
        self._asked: dict[str, Pin] = {}

    def pins(self) -> dict[str, Pin]:
        try:
            found = json.loads(self._world.read(self._path) or b"{}")
            return {ref: Pin(str(p["kind"]), str(p["id"])) for ref, p in found.items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            return {}

    def is_here(self, reference: str, pins: dict[str, Pin]) -> bool:
        """As an artifact also where somebody else has fetched it."""
        pin = pins.get(reference)
        kinds = (IMAGE, ARTIFACT) if pin is None else (pin.kind,)
        argvs = {
            IMAGE: podman.image_exists_argv(reference),
            ARTIFACT: podman.artifact_inspect_argv(reference),
        }
        return any(self._run(argvs[kind]).ok for kind in kinds)

    def identity(self, reference: str) -> Pin | None:
        """What `reference` meant when it was fetched; None = it is not here, and never was."""
        pin = self.pins().get(reference)
        if pin is not None and pin.identity:
            return pin
        if reference not in self._asked:
            found = self._now(reference, IMAGE) or self._now(reference, ARTIFACT)
            if found is None:
                return None
            self._asked[reference] = found
        return self._asked[reference]

    def pull(self, reference: str, app: str, *, policy: str = specs.IF_NOT_PRESENT) -> None:
        """Raises Retry, Reject."""
        if policy == specs.NEVER:
            detail = f"{reference} is not on this device, and its pullPolicy is Never"
            raise errors.Reject(errors.NOT_FOUND, detail, component=errors.PREFETCH, element=app)
        wanted = self._pulling.wanted(reference, app, self._user)
        answer = self._pulling.pull(podman.pull_argv(reference), wanted)
        kind = IMAGE
        if not answer.ok and podman.is_artifact(answer.stderr):
            kind = ARTIFACT
            answer = self._pulling.pull(podman.artifact_pull_argv(reference), wanted)
            if not answer.ok and podman.is_unknown_command(answer.stderr):
                detail = f"{reference} is an OCI artifact; pulling it needs podman 5.4 or newer"
                raise errors.Reject(
                    errors.FAILED_PRECONDITION, detail, component=errors.PREFETCH, element=app
                )
        if not answer.ok:
            raise self._pulling.failed(answer, wanted)
        self._pin(reference, kind)

    def hold(self, reference: str, app: str) -> None:
        """Puts right what `reference` means here, before something is made from it."""
        pin = self.pins().get(reference)
        if pin is None or pin.kind != IMAGE or not pin.identity:
            return
        found = self._now(reference, IMAGE)
        if found == pin:
            return
        if not self._run(podman.tag_argv(pin.identity, reference)).ok:
            self.pull(reference, app)

    def forget(self, reference: str) -> None:
        """It is not on the device any more."""
        pins = self.pins()
        self._asked.pop(reference, None)
        if pins.pop(reference, None) is not None:
            self._keep(pins)

    def _pin(self, reference: str, kind: str) -> None:
        """What `reference` is at this moment is what it means from now on."""
        found = self._now(reference, kind)
        pins = self.pins()
        pins.pop(reference, None)
        pins[reference] = found or Pin(kind, "")
        self._keep(pins)

    def _keep(self, pins: dict[str, Pin]) -> None:
        newest = list(pins.items())[-PINS_MAX:]
        document = {ref: {"kind": pin.kind, "id": pin.identity} for ref, pin in newest}
        data = json.dumps(document, separators=(",", ":")).encode()
        self._world.write(self._path, data, mode=0o600, uid=0, gid=0)

    def _now(self, reference: str, kind: str) -> Pin | None:
        if kind == IMAGE:
            answer = self._run(podman.image_id_argv(reference))
            identity = answer.stdout.strip()
        else:
            answer = self._run(podman.artifact_inspect_argv(reference))
            identity = podman.artifact_digest(answer.stdout) if answer.ok else ""
        return Pin(kind, identity) if answer.ok and identity else None

    def _run(self, argv: list[str]) -> world.Completed:
        return self._accounts.run(self._user, argv, timeout_s=QUICK_S)


class Meant:
    """`resolutions`, imported where a volume asks for it: the agent at rest does without."""

    def __init__(self, where: world.World, pulling: Pulling) -> None:
        self._world = where
        self._pulling = pulling

    def resolved(self, app: Application, user: str) -> Application:
        return self._all().resolved(app, user) if _asks(app) else app

    def lacking(self, app: Application, user: str) -> Iterable[Volume]:
        return self._all().lacking(app, user) if _asks(app) else ()

    def look_up(self, reference: str, version: str, app: str, user: str) -> None:
        """Raises Retry, Reject."""
        self._all().look_up(reference, version, app, user)

    def forget(self, keep: Iterable[Application]) -> None:
        if self._world.stat(f"{self._pulling.own_dir}/{RESOLVED}") is not None:
            self._all().forget(keep)

    def _all(self) -> Resolutions:
        from agent.resolutions import Resolutions

        return Resolutions(self._world, self._pulling)


def _asks(app: Application) -> bool:
    return any(volume.is_asked_for for volume in app.volumes)


class Stores:
    """The store of each user; `of("")` is root's. `meant`: what tags meant when a version came."""

    def __init__(self, where: world.World, pulling: Pulling, accounts: Accounts) -> None:
        self._world = where
        self._pulling = pulling
        self._accounts = accounts
        self.meant = Meant(where, pulling)
        # By account too, for a user may be removed and made anew.
        self._known: dict[tuple[str, world.Account | None], Images] = {}

    def of(self, user: str) -> Images:
        key = user, self._accounts.of(user)
        if key not in self._known:
            self._known[key] = Images(self._world, self._pulling, self._accounts, user)
        return self._known[key]

    def use(self, files: Iterable[FileSpec]) -> None:
        """The files of the specification that is being made true: credentials may be among them."""
        self._pulling.use(files)
