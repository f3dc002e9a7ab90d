"""Every kind of application on a real device: deployed, changed, broken, tampered with, removed.

Real: systemd, podman, its quadlet generator, podman-compose, the registry, the service. One device
for all tests of this module; each leaves it with whatever the next one replaces.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from tests.e2e import devices, images, processes, rootfs
from tests.e2e.yard import Yard, application, condition, updated

Json = dict[str, Any]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]

REGISTRY = f"localhost:{rootfs.REGISTRY_PORT}"
WEB = f"{REGISTRY}/web"
# `serve` says what it was given, so that environment and volumes can be seen from outside.
TELL = """#!/bin/sh
trap 'exit 0' TERM INT
echo "env $SAYS" > /www/env.txt
cat /model/model.txt > /www/model.txt
httpd -f -p 80 -h /www &
wait
"""
CONTAINER = """[Unit]
Description=A page

[Container]
Image={image}
PublishPort=8082:80
Volume=model:/model:ro
Volume=data.volume:/data
Network=net.network

[Service]
Restart=on-failure
RestartSec=1

[Install]
WantedBy=default.target
"""
QUADLET = {
    "page.container": CONTAINER,
    "data.volume": "[Volume]\n",
    "net.network": "[Network]\n",
    "page.container.d/50-more.conf": "[Container]\nEnvironment=MORE=yes\n",
}
COMPOSE = """services:
  page:
    image: {image}
    ports: ["8083:80"]
    environment: {{SAYS: "${{SAYS}}"}}
    volumes: ["model:/model:ro", "data:/data"]
  side:
    image: {image}
    volumes: ["model:/model:ro"]
volumes: {{data: {{}}}}
"""


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with Yard(tmp_path_factory.mktemp("yard")) as yard:
        put_images(yard)
        yield yard


def put_images(yard: Yard) -> None:
    registry = yard.site.registry
    tell = images.web("tell")
    files = {**tell.files, "/bin/serve": TELL}
    for tag in ("v1", "v2"):
        pages = {**files, "/www/index.html": f"tell {tag}\n"}
        registry.push("tell", tag, images.Image(pages, labels={"version": tag}))
        registry.push_artifact("model", tag, images.artifact({"model.txt": f"model {tag}\n"}))
        units = {f"/{k}": v.format(image=f"{REGISTRY}/tell:{tag}") for k, v in QUADLET.items()}
        registry.push("units", tag, images.package(units))
        text = COMPOSE.format(image=f"{REGISTRY}/tell:{tag}")
        registry.push_artifact("project", tag, images.artifact({"podman-compose.yaml": text}))
    for tag, folder in (("v1", "a"), ("v2", "b")):
        registry.push_artifact(
            "tree", tag, images.artifact({f"{folder}/leaf.txt": f"leaf {tag}\n"})
        )
    registry.push("model-image", "v1", images.package({"/model.txt": "model of an image\n"}))
    failing = {**files, "/bin/serve": "#!/bin/sh\necho no database here\nexit 3\n"}
    registry.push("tell", "broken", images.Image(failing))


def container(tag: str = "v1", **fields: Any) -> Json:
    image = f"{WEB}:{tag}"
    return {"name": "web", "appType": "container", "image": image, "ports": ["8081:80"], **fields}


def inline(files: dict[str, str], image: str) -> list[Json]:
    return [{"path": k, "content": v.format(image=image)} for k, v in files.items()]


def volume(reference: str = f"{REGISTRY}/model:v1") -> list[Json]:
    return [{"name": "model", "image": {"reference": reference}}]


def quadlet(tag: str = "v1", **fields: Any) -> Json:
    files = inline(QUADLET, f"{REGISTRY}/tell:{tag}")
    return {
        "name": "page",
        "appType": "quadlet",
        "inline": files,
        "volumes": volume(),
        "envVars": {"SAYS": "one 'two' %three"},
        **fields,
    }


def compose(tag: str = "v1", **fields: Any) -> Json:
    files = inline({"podman-compose.yaml": COMPOSE}, f"{REGISTRY}/tell:{tag}")
    return {
        "name": "stack",
        "appType": "compose",
        "inline": files,
        "volumes": volume(),
        "envVars": {"SAYS": "hello world"},
        **fields,
    }


def test_containers_are_services_of_systemd_and_follow_the_specification(yard: Yard) -> None:
    status = updated(yard.declare(applications=[container()]))
    yard.serves(8081, "web v1\n")
    found = application(status, "web")
    assert (found["status"], found["ready"]) == ("Running", "1/1")
    unit = "web-365508-app.service"
    assert yard.device.exec("systemctl", "is-active", unit).out == "active\n"
    updated(yard.declare(applications=[container("v2")]))
    yard.serves(8081, "web v2\n")
    status = yard.declare(applications=[container("broken")])
    assert condition(status)["reason"] == "Error"
    assert "applications failed for web" in condition(status)["message"]
    assert "health check failed" in condition(status)["message"]
    yard.serves(8081, "web v2\n")


def test_what_yesterdays_agent_ran_becomes_a_service_and_keeps_its_volume(yard: Yard) -> None:
    device = yard.device
    updated(yard.declare(applications=[]))
    device.stop_agent()
    volume_name = "web-logs-308068"
    argv = ["run", "-d", "--name", "web-365508-app", "--volume", f"{volume_name}:/data"]
    argv += ["--label", "io.flightctl.quadlet.project=web-365508", "--label", "io.homeport.spec=x"]
    device.podman(
        *argv, f"{WEB}:v1", "/bin/sh", "-c", "echo kept > /data/x; sleep 1000", check=True
    )
    device.start_agent()
    logs = [{"name": "logs", "mount": {"path": "/www/logs"}}]
    updated(yard.declare(applications=[container(volumes=logs)]))
    yard.serves(8081, "kept\n", "/logs/x")
    names = device.podman("ps", "--all", "--format", "{{.Names}}").out.split()
    assert names == ["systemd-web-365508-app"]


def test_quadlets_inline_with_volumes_and_environment(yard: Yard) -> None:
    status = updated(yard.declare(applications=[quadlet()]))
    yard.serves(8082, "tell v1\n")
    yard.serves(8082, "env one 'two' %three\n", "/env.txt")
    yard.serves(8082, "model v1\n", "/model.txt")
    found = application(status, "page")
    assert (found["status"], found["ready"], found["appType"]) == ("Running", "1/1", "quadlet")
    assert found["volumes"] == [{"name": "model", "reference": f"{REGISTRY}/model:v1"}]
    # The container application is gone, with its service and its files.
    assert not yard.device.http(8081)
    assert yard.device.exec("systemctl", "cat", "web-365508-app.service").code
    assert not yard.device.path("/etc/containers/systemd/web").exists()
    change = {"volumes": volume(f"{REGISTRY}/model:v2")}
    updated(yard.declare(applications=[quadlet("v2", **change)]))
    yard.serves(8082, "tell v2\n")
    yard.serves(8082, "model v2\n", "/model.txt")


def test_a_quadlet_that_does_not_stay_up_is_rolled_back_with_its_last_words(yard: Yard) -> None:
    status = yard.declare(applications=[quadlet("broken")])
    message = condition(status)["message"]
    assert "applications failed for page" in message
    assert "no database here" in message
    yard.serves(8082, "tell v2\n")


def test_a_unit_that_podman_does_not_understand_is_refused_before_anything_is_touched(
    yard: Yard,
) -> None:
    files = {**QUADLET, "page.container": CONTAINER.replace("Network=", "Nettwork=")}
    before = yard.device.podman("ps", "--quiet").out
    status = yard.declare(applications=[quadlet(inline=inline(files, f"{REGISTRY}/tell:v1"))])
    message = condition(status)["message"]
    assert "While Preparing: applications failed for page" in message
    assert "unsupported key 'Nettwork'" in message
    assert yard.device.podman("ps", "--quiet").out == before


def test_quadlets_from_an_image(yard: Yard) -> None:
    app = quadlet()
    del app["inline"]
    updated(yard.declare(applications=[{**app, "image": f"{REGISTRY}/units:v1"}]))
    yard.serves(8082, "tell v1\n")
    wrong = {**app, "image": f"{REGISTRY}/model-image:v1"}
    message = condition(yard.declare(applications=[wrong]))["message"]
    assert "While Preparing: applications failed for page" in message
    assert "no unit that runs" in message
    yard.serves(8082, "tell v1\n")


def test_each_form_of_a_volume_is_filled_changed_and_kept(yard: Yard) -> None:
    """mount; image and mount, of an image and of an artifact with folders in it; image alone."""

    def tell(*volumes: Json) -> Json:
        return container(image=f"{REGISTRY}/tell:v1", volumes=list(volumes))

    own = {"name": "own", "mount": {"path": "/www/own"}}
    of_image = {**volume(f"{REGISTRY}/model-image:v1")[0], "mount": {"path": "/model"}}
    of_artifact = {"name": "tree", **filled(f"{REGISTRY}/tree:v1"), "mount": {"path": "/www/t:ro"}}
    alone = quadlet(volumes=volume(f"{REGISTRY}/model-image:v1"))
    updated(yard.declare(applications=[tell(own, of_image, of_artifact), alone]))
    yard.serves(8081, "model of an image\n", "/model.txt")
    yard.serves(8081, "leaf v1\n", "/t/a/leaf.txt")
    yard.serves(8082, "model of an image\n", "/model.txt")
    kept = place_of(yard, "web-own-")
    yard.device.write(f"{kept}/note", "written by it\n")
    yard.serves(8081, "written by it\n", "/own/note")

    # Another artifact takes the place of all that was in the volume; the others are left alone.
    of_artifact |= filled(f"{REGISTRY}/tree:v2")
    updated(yard.declare(applications=[tell(own, of_image, of_artifact), alone]))
    yard.serves(8081, "leaf v2\n", "/t/b/leaf.txt")
    assert not yard.device.http(8081, "/t/a/leaf.txt")
    yard.serves(8081, "written by it\n", "/own/note")

    # Taken out of the specification a volume stays, and is what it was when it comes back.
    updated(yard.declare(applications=[tell(of_image), alone]))
    yard.serves(8081, "model of an image\n", "/model.txt")
    assert not yard.device.http(8081, "/own/note")
    assert yard.device.read(f"{kept}/note") == "written by it\n"
    updated(yard.declare(applications=[tell(of_image, own), quadlet()]))
    yard.serves(8081, "written by it\n", "/own/note")
    yard.serves(8082, "model v1\n", "/model.txt")
    updated(yard.declare(applications=[quadlet()]))


def filled(reference: str) -> Json:
    return {"image": {"reference": reference}}


def place_of(yard: Yard, prefix: str) -> str:
    listed = yard.device.podman("volume", "ls", "--format", "{{.Name}}", check=True).out.split()
    (name,) = [one for one in listed if one.startswith(prefix)]
    shown = yard.device.podman("volume", "inspect", "--format", "{{.Mountpoint}}", name, check=True)
    return shown.out.strip()


def break_a_file(yard: Yard) -> None:
    path = "/etc/containers/systemd/page/page-336246-page.container"
    yard.device.write(path, yard.device.read(path).replace("8082", "8099"))
    yard.device.exec("systemctl", "daemon-reload", check=True)
    yard.device.exec("systemctl", "restart", "page-336246-page.service", check=True)


def remove_a_file(yard: Yard) -> None:
    folder = "/etc/containers/systemd/page/"
    yard.device.path(folder + "page-336246-page.container").unlink()
    yard.device.exec("systemctl", "stop", "page-336246-page.service", check=True)
    yard.device.exec("systemctl", "daemon-reload", check=True)


def stop_the_target(yard: Yard) -> None:
    target = "page-336246-flightctl-quadlet-app.target"
    yard.device.exec("systemctl", "stop", target, "page-336246-page.service", check=True)
    assert not yard.device.http(8082)


def remove_the_container(yard: Yard) -> None:
    name = "systemd-page-336246-page"
    yard.device.podman("rm", "--force", "--time", "0", name, check=True)


def swap_the_image(yard: Yard) -> None:
    """Somebody puts another image under the tag and restarts."""
    device = yard.device
    device.podman("tag", f"{REGISTRY}/tell:v2", f"{REGISTRY}/tell:v1", check=True)
    device.exec("systemctl", "restart", "page-336246-page.service", check=True)
    yard.serves(8082, "tell v2\n", timeout_s=10)


@pytest.mark.parametrize(
    "tamper",
    [break_a_file, remove_a_file, stop_the_target, remove_the_container, swap_the_image],
)
def test_what_somebody_does_to_a_quadlet_is_undone(
    yard: Yard, tamper: Callable[[Yard], None]
) -> None:
    yard.serves(8082, "tell v1\n")
    with yard.device.agent_held():
        tamper(yard)
    yard.serves(8082, "tell v1\n", timeout_s=60)
    yard.until_healthy()


def test_compose_inline_changed_stopped_and_rolled_back(yard: Yard) -> None:
    status = updated(yard.declare(applications=[compose()]))
    yard.serves(8083, "tell v1\n")
    yard.serves(8083, "env hello world\n", "/env.txt")
    yard.serves(8083, "model v1\n", "/model.txt")
    found = application(status, "stack")
    assert (found["status"], found["ready"]) == ("Running", "2/2")
    assert not yard.device.path("/etc/containers/systemd/page").exists()
    updated(yard.declare(applications=[compose("v2")]))
    yard.serves(8083, "tell v2\n")
    message = condition(yard.declare(applications=[compose("broken")]))["message"]
    assert "applications failed for stack" in message
    assert "no database here" in message
    yard.serves(8083, "tell v2\n")


def remove_one_of_two(yard: Yard) -> None:
    yard.device.podman("rm", "--force", "--time", "0", "stack-110156_side_1", check=True)


def stop_one_of_two(yard: Yard) -> None:
    yard.device.podman("stop", "--time", "1", "stack-110156_side_1", check=True)


def edit_the_compose_file(yard: Yard) -> None:
    path = "/etc/compose/manifests/stack/podman-compose.yaml"
    yard.device.write(path, yard.device.read(path).replace("8083", "8099"))


@pytest.mark.parametrize("tamper", [remove_one_of_two, stop_one_of_two, edit_the_compose_file])
def test_what_somebody_does_to_a_project_is_undone(
    yard: Yard, tamper: Callable[[Yard], None]
) -> None:
    yard.serves(8083, "tell v2\n")
    tamper(yard)
    path = "/etc/compose/manifests/stack/podman-compose.yaml"
    side = "stack-110156_side_1"
    processes.until(
        lambda: "8099" not in yard.device.read(path) and side in _running(yard),
        "it is as it should be",
        timeout_s=60,
        state=yard.how_it_is,
    )
    yard.serves(8083, "tell v2\n")


def test_compose_from_an_artifact_and_a_reboot(yard: Yard) -> None:
    app = compose()
    del app["inline"]
    app["image"] = f"{REGISTRY}/project:v1"
    updated(yard.declare(applications=[app, container("v3")]))
    yard.serves(8083, "tell v1\n")
    yard.device.cut()
    yard.device.reboot()
    # No network, no service: what was committed comes back by itself.
    yard.serves(8083, "tell v1\n")
    yard.serves(8081, "web v3\n")
    yard.device.mend()
    yard.until_healthy()


def test_an_agent_killed_in_between_goes_on_where_it_was(yard: Yard) -> None:
    begun = len(yard.device.journal(4000).split("'do': 'StopApp'"))
    yard.order(applications=[compose("v2"), quadlet("v2"), container("v2")])
    processes.until(
        lambda: len(yard.device.journal(4000).split("'do': 'StopApp'")) > begun,
        "it has begun to stop things",
        timeout_s=60,
        every_s=0.02,
        state=yard.how_it_is,
    )
    yard.device.kill_agent()
    yard.device.start_agent()
    for port, text in ((8083, "tell v2\n"), (8082, "tell v2\n"), (8081, "web v2\n")):
        yard.serves(port, text)
    updated(yard.settled())
    yard.until_healthy()


def test_applications_are_stopped_started_and_restarted_from_the_service(yard: Yard) -> None:
    """By `homeport app`: what the fleet declares stays as it is."""

    def app(action: str, where: str, name: str) -> None:
        yard.site.service.homeport("app", action, where, "--name", name)

    def is_in(name: str, state: str) -> None:
        processes.until(
            lambda: application(yard.status(), name).get("status") == state,
            f"{name} is {state}",
            timeout_s=60,
            state=yard.how_it_is,
        )

    def web() -> str:
        shown = yard.device.podman("ps", "--filter", "name=web-365508", "--format", "{{.ID}}")
        assert shown.code == 0, shown
        return shown.out

    updated(yard.declare(applications=[container(), quadlet()]))
    yard.serves(8081, "web v1\n")
    yard.serves(8082, "tell v1\n")
    device, fleet = f"device/{yard.uid}", "fleet/yard"

    app("stop", device, "web")
    is_in("web", "Stopped")
    assert web() == ""
    yard.serves(8082, "tell v1\n")
    updated(yard.settled())
    app("stop", fleet, "page")
    is_in("page", "Stopped")
    # Another version of it changes nothing of that.
    updated(yard.declare(applications=[container("v2"), quadlet("v2")]))
    assert [application(yard.status(), name)["status"] for name in ("web", "page")] == (
        ["Stopped", "Stopped"]
    )
    app("start", device, "web")
    yard.serves(8081, "web v2\n")
    app("start", fleet, "page")
    yard.serves(8082, "tell v2\n")
    yard.until_healthy()

    before = web()
    assert before
    app("restart", device, "web")
    processes.until(
        lambda: web() not in ("", before), "web is restarted", timeout_s=60, state=yard.how_it_is
    )
    yard.serves(8081, "web v2\n")
    updated(yard.settled())


def as_another_agent_left_it(
    yard: Yard,
    places: Iterable[str] = ("/etc/containers/systemd", "/etc/compose/manifests"),
    targets: str = "/etc/systemd/system",
    owner: str = "",
) -> None:
    """The data directory of flightctl's agent, and unit and Compose files that say the same as ours
    in other bytes; it has no journal, no stamps, no originals."""
    device = yard.device
    data = "/var/lib/flightctl"
    device.exec("rm", "-rf", f"{data}/homeport", check=True)
    for name in ("current.json", "desired.json"):
        document = json.loads(device.read(f"{data}/{name}"))
        device.write(f"{data}/{name}", json.dumps(document, indent=1), 0o644)
    cleared = {"metadata": {"annotations": {"device-controller/renderedVersion": ""}}}
    device.write(f"{data}/rollback.json", json.dumps({"kind": "Device", **cleared}), 0o644)
    boot = device.read("/proc/sys/kernel/random/boot_id").strip()
    times = {"bootTime": "2026-11-26T09:00:00Z", "bootID": boot}
    device.write(f"{data}/system.json", json.dumps(times), 0o644)
    references = [{"image": f"{REGISTRY}/tell:v2", "owner": owner, "type": "podman"}]
    text = json.dumps({"timestamp": "2026-11-26T09:00:00Z", "references": references}, indent=2)
    device.write(f"{data}/image-artifact-references.json", text, 0o644)
    found = device.exec("find", *places, "-type", "f", check=True).out.split()
    found += [f"{targets}/{n}" for n in device.exec("ls", targets).out.split() if "flightctl" in n]
    assert len(found) > 10
    for path in found:
        if not path.endswith(".service"):
            device.write(path, f"# by another agent\n{device.read(path)}", 0o644)
    device.exec("systemctl", "daemon-reload", check=True)


def test_a_device_of_another_agent_is_taken_over_without_a_restart(yard: Yard) -> None:
    device = yard.device
    apps = [compose("v2"), quadlet("v2"), container("v2")]
    sign = [{"name": "sign", "inline": [{"path": "/etc/sign", "content": "ours\n"}]}]
    updated(yard.declare(applications=apps, config=sign))
    yard.until_healthy()
    running = ["ps", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.StartedAt}}"]
    before = sorted(device.podman(*running, check=True).out.splitlines())
    assert len(before) == 4
    volumes = device.podman("volume", "ls", "--format", "{{.Name}}").out.split()
    (volume,) = [name for name in volumes if name.startswith("page-model-")]
    place = device.podman("volume", "inspect", "--format", "{{.Mountpoint}}", volume).out.strip()
    device.stop_agent()
    as_another_agent_left_it(yard)
    device.write(f"{place}/kept", "by the application\n")
    device.start_agent()
    # A look that mends a file has planned everything else too.
    device.write("/etc/sign", "somebody's\n")
    processes.until(
        lambda: device.read("/etc/sign") == "ours\n",
        "a look was taken",
        timeout_s=60,
        state=yard.how_it_is,
    )
    yard.until_healthy()
    assert sorted(device.podman(*running, check=True).out.splitlines()) == before
    assert device.read(f"{place}/kept") == "by the application\n"
    # What changes then is made anew, and nothing else.
    updated(yard.declare(applications=[*apps[:2], container("v3")], config=sign))
    yard.serves(8081, "web v3\n")
    after = device.podman(*running, check=True).out.splitlines()
    assert set(before) - set(after) == {one for one in before if "web-365508" in one}
    # The other agent's bytes are right until somebody changes them.
    edit_the_compose_file(yard)
    processes.until(
        lambda: "8099" not in device.read("/etc/compose/manifests/stack/podman-compose.yaml"),
        "it is ours now",
        timeout_s=60,
        state=yard.how_it_is,
    )
    yard.serves(8083, "tell v2\n")


def test_all_is_removed_and_the_volumes_stay(yard: Yard) -> None:
    updated(yard.declare(applications=[]))
    device = yard.device
    assert device.podman("ps", "--all", "--quiet").out == ""
    assert device.podman("pod", "ls", "--quiet").out == ""
    networks = device.podman("network", "ls", "--format", "{{.Name}}").out.split()
    assert networks == ["podman"]
    assert device.exec("find", "/etc/containers/systemd", "/etc/compose", "-type", "f").out == ""
    units = device.exec("systemctl", "list-units", "--all", "--plain", "--no-legend").out
    assert "flightctl-quadlet-app" not in units
    volumes = device.podman("volume", "ls", "--format", "{{.Name}}").out
    assert "systemd-page-336246-data" in volumes
    assert "web-logs-308068" in volumes


def test_what_the_system_brings_runs_and_goes_with_it(yard: Yard) -> None:
    """As an image has it below /usr/local/etc: here it is put there, and taken away, by hand."""
    device = yard.device
    project = f"services: {{page: {{image: '{WEB}:v1', ports: ['8085:80']}}}}\n"
    unit = f"[Container]\nImage={WEB}:v1\n[Install]\nWantedBy=default.target\n"
    device.stop_agent()
    device.write("/usr/local/etc/compose/manifests/brought/podman-compose.yaml", project)
    device.write("/usr/local/etc/containers/systemd/note/note.container", unit)
    device.start_agent()

    def listed() -> list[tuple[str, str, bool]]:
        found = yard.status()["applications"]
        return [(app["name"], app["status"], app["embedded"]) for app in found]

    processes.until(
        lambda: listed() == [("brought", "Running", True), ("note", "Running", True)],
        "both run",
        timeout_s=90,
        state=yard.how_it_is,
    )
    before = sorted(_running(yard))
    updated(yard.declare(config=[{"name": "x", "inline": [{"path": "/etc/x", "content": "x"}]}]))
    assert sorted(_running(yard)) == before
    assert device.exec("test", "-e", "/etc/compose/manifests/brought").code == 1
    device.stop_agent()
    device.exec("rm", "-r", "/usr/local/etc/compose", "/usr/local/etc/containers", check=True)
    device.start_agent()

    def is_gone() -> bool:
        units = device.exec("systemctl", "list-units", "--all", "--plain", "--no-legend").out
        boxes = device.podman("ps", "--all", "--quiet").out
        return not (boxes or listed() or "flightctl-quadlet-app" in units)

    processes.until(is_gone, "both are gone", timeout_s=90, state=yard.how_it_is)


def test_a_factory_reset_takes_applications_with_their_data_and_files(yard: Yard) -> None:
    motd = {"name": "motd", "inline": [{"path": "/etc/yard.conf", "content": "ours"}]}
    updated(yard.declare(config=[motd], applications=[container(), quadlet(), compose()]))
    device, service, key = yard.device, yard.site.service, "/var/lib/flightctl/certs/agent.key"
    device.podman("volume", "create", "by-hand", check=True)
    boots, identity = device.boots, device.read(key)
    service.homeport("decommission", f"device/{yard.uid}", "--target", "FactoryReset")
    processes.until(
        lambda: yard.status()["lifecycle"]["status"] == "Decommissioned",
        "the service is told",
        timeout_s=60,
        state=yard.how_it_is,
    )
    words = condition(yard.status(), "DeviceDecommissioning")
    assert words["reason"] == "Completed", words
    assert "their data" in words["message"]
    processes.until(lambda: device.boots > boots, "it reboots", timeout_s=120, state=device.journal)
    device.wait_up(60)
    assert device.podman("ps", "--all", "--quiet").out == ""
    assert device.podman("volume", "ls", "--format", "{{.Name}}").out.split() == ["by-hand"]
    # Tags that only tests before this one brought are no part of what is known here.
    images = device.podman("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").out.split()
    assert not {f"{WEB}:v1", f"{REGISTRY}/tell:v1"} & set(images)
    assert device.exec("find", "/etc/containers/systemd", "/etc/compose", "-type", "f").out == ""
    assert not device.exec("cat", "/etc/yard.conf").out
    processes.until(
        lambda: device.exec("cat", key).out not in ("", identity), "another key", timeout_s=30
    )


def _running(yard: Yard) -> list[str]:
    return yard.device.podman("ps", "--format", "{{.Names}}").out.split()
