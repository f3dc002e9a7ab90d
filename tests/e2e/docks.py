"""A device at the end of a wire that counts and breaks, and a registry that asks for a password at
the other end; what it stores goes onto a small disk, for that is to be filled."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.e2e import devices, images, lockedregistry, processes, rootfs
from tests.e2e.registry import Registry
from tests.e2e.yard import Yard, condition
from tests.fakes import ports
from tests.fakes.wire import Wire

Json = dict[str, Any]

MIB = 1 << 20
# The layer of `push_heavy`, and after how much of it the wire breaks.
HEAVY_MIB, BROKEN_MIB = 32, 24
# All that comes besides: another layer, TLS, looks at the registry.
EXTRA_MIB = 3
PORT = 5443
# The loopback's own name never goes through the rate limit; this one does.
NAME = "registry.yard"
HOST = f"{NAME}:{PORT}"
AUTH_FILE = "/root/.config/containers/auth.json"
DOWNLOADS = "/var/lib/flightctl/homeport/downloads"
# Whether there are any; the command itself does not look like one.
DOWNLOADERS = "grep -ls 'agent[.]downloading' /proc/[0-9]*/cmdline"


class Dock:
    """A yard whose device knows the locked registry, at the end of the wire."""

    def __init__(self, yard: Yard, wire: Wire, store: str) -> None:
        self.yard = yard
        self.wire = wire
        self.store = store

    @property
    def device(self) -> devices.Device:
        return self.yard.device

    def said(self, words: str, timeout_s: float = 60) -> str:
        """The message of the update under way, once it has `words` in it."""

        def found() -> str:
            message = condition(self.yard.status()).get("message", "")
            return str(message) if words in message else ""

        return processes.until(
            found, f"it says {words!r}", timeout_s=timeout_s, state=self.yard.how_it_is
        )

    def has_begun(self, folder: str = DOWNLOADS) -> int:
        """Bytes of layers that are kept to go on with."""
        shown = self.device.exec("sh", "-c", f"cat {folder}/blobs/* | wc -c")
        return int(shown.out.strip() or 0)

    def broken(self, folder: str = DOWNLOADS) -> tuple[int, int]:
        """Once the wire has broken, and the agent is killed: (bytes that are kept, bytes that came
        down). How many are lost on the way depends on the machine; what is kept must not come
        again."""
        state = self.yard.how_it_is
        processes.until(lambda: self.wire.breaks == 1, "it breaks", timeout_s=90, state=state)
        processes.until(
            lambda: self.has_begun(folder), "something is kept", timeout_s=60, state=state
        )
        self.device.kill_agent()
        processes.until(
            lambda: self.device.exec("sh", "-c", DOWNLOADERS).code,
            "the download ends with the agent",
            timeout_s=60,
            state=state,
        )
        return self.has_begun(folder), self.wire.carried

    def goes_on(self, kept: int, carried: int) -> None:
        """A new agent, at a wire that is whole: `broken` has answered what was kept and what had
        come, and that much less comes now. `web:v1` serves in the end."""
        self.device.start_agent()
        self.wire.up()
        status = self.yard.settled(120)
        assert condition(status)["reason"] == "Updated", condition(status)
        self.yard.serves(8081, "web v1\n")
        came = self.wire.carried - carried
        print(f"of a layer of {HEAVY_MIB} MiB {kept / MIB:.1f} were kept: {came / MIB:.1f} came")
        assert came < HEAVY_MIB * MIB - kept + EXTRA_MIB * MIB

    def free_mib(self) -> int:
        shown = self.device.exec("df", "--output=avail", "--block-size=1M", self.store).out
        return int(shown.split()[-1])

    def stopped_for_room(self, wanted: Json, config: list[Json]) -> str:
        """Orders what is more than the store has room for. What is said of it once it was stopped;
        the store was never full."""
        lowest = [self.free_mib()]
        self.yard.order(applications=[wanted], config=config)

        def has_stopped() -> str:
            lowest.append(self.free_mib())
            message = str(condition(self.yard.status()).get("message", ""))
            return message if "no space left" in message or "filled the disk" in message else ""

        message = processes.until(
            has_stopped, "it stops", timeout_s=90, every_s=0.05, state=self.yard.how_it_is
        )
        print(f"{message}; at least {min(lowest)} MiB were free")
        assert min(lowest) > 0
        return message

    def has_room_again(self, mib: float) -> None:
        processes.until(
            lambda: self.free_mib() > mib,
            "the disk is given back",
            timeout_s=30,
            state=self.yard.how_it_is,
        )


@contextmanager
def docked(
    folder: Path, store: str, store_mib: int, packages: rootfs.Packages = ()
) -> Iterator[Dock]:
    port = ports.free_port()
    with ExitStack() as ends:
        wire = Wire(port)
        ends.callback(wire.close)
        yard = ends.enter_context(Yard(folder, ports={PORT: wire.port}, packages=packages))
        locked = ends.enter_context(
            lockedregistry.serving(yard.site.registry, yard.site.folder / "locked", port, NAME)
        )
        device = yard.device
        device.stop_agent()
        size = f"size={store_mib}m"
        device.exec("mount", "-t", "tmpfs", "-o", size, "tmpfs", store, check=True)
        device.write("/etc/hosts", f"127.0.0.1 localhost {NAME}\n")
        device.write(f"/etc/containers/certs.d/{HOST}/ca.crt", locked.authority.decode())
        device.start_agent()
        yield Dock(yard, wire, store)


def push_heavy(registry: Registry, tag: str, chunks: Iterable[bytes]) -> None:
    """A web server with another layer that is of no use."""
    web = images.build(images.web(tag))
    diff, layer = ballast(list(chunks))
    config = images.json_of(web.config)
    config["rootfs"]["diff_ids"].append(diff)
    manifest = images.json_of(web.manifest)
    described = images.to_json(config)
    manifest["config"] |= {"size": len(described), "digest": images.digest(described)}
    manifest["layers"].append(
        {"mediaType": images.LAYER, "size": len(layer), "digest": images.digest(layer)}
    )
    blobs = (described, web.layer, layer)
    registry.put("heavy", tag, images.to_json(manifest), images.MANIFEST, blobs)


def ballast(chunks: list[bytes]) -> tuple[str, bytes]:
    """(digest of the tar, the layer): one file, packed a chunk at a time."""
    info = tarfile.TarInfo("ballast")
    info.size = sum(map(len, chunks))
    packer, digest, packed = zlib.compressobj(1, wbits=31), hashlib.sha256(), []
    end = b"\0" * (2 * tarfile.BLOCKSIZE + -info.size % tarfile.BLOCKSIZE)
    for part in (info.tobuf(), *chunks, end):
        digest.update(part)
        packed.append(packer.compress(part))
    return f"sha256:{digest.hexdigest()}", b"".join([*packed, packer.flush()])


def app(tag: str, **more: Any) -> Json:
    image = f"{HOST}/heavy:{tag}"
    return {"name": "web", "appType": "container", "image": image, "ports": ["8081:80"], **more}


def secret(
    password: str = lockedregistry.PASSWORD, path: str = AUTH_FILE, **more: Any
) -> list[Json]:
    content = lockedregistry.auth(HOST, password)
    file = {"path": path, "content": content, "mode": 0o600, **more}
    return [{"name": "auth", "inline": [file]}]
