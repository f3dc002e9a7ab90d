"""Quadlets: namespaces, drop-ins, targets, and what is refused before anything is touched."""

from __future__ import annotations

import pytest

from agent import quadlet
from agent.specs import AppFile, Application, Volume
from resources import unitfile

IMAGE = "quay.io/org/app:1"
ID = "page-336246"
FOLDER = "/etc/containers/systemd/page"


def app(**fields: object) -> Application:
    return Application("page", "quadlet", inline=(), **fields)  # type: ignore[arg-type]


def render(files: dict[str, str], **fields: object) -> quadlet.Rendered:
    return quadlet.render(app(**fields), [AppFile(k, v.encode()) for k, v in files.items()])


def unit(rendered: quadlet.Rendered, name: str) -> unitfile.Sections:
    return unitfile.parse(rendered.files[f"{FOLDER}/{name}"][0].decode())


RICH = {
    "web.container": f"""[Unit]
After=db.service data-volume.service network-online.target
[Container]
Image=app.image
ContainerName=web
Pod=all.pod
Network=net.network:ip=10.0.0.2
Volume=data.volume:/data:ro
Volume=model:/model
Volume=/etc/hosts:/etc/hosts
Mount=type=volume,source=data.volume,target=/more
Environment=data.volume={IMAGE}
[Install]
WantedBy=default.target all-pod.service
""",
    "db.container": f"[Container]\nImage={IMAGE}\n",
    "app.image": "[Image]\nImage=quay.io/org/other@sha256:0\n",
    "all.pod": "[Pod]\nPodName=all\nServiceName=together\n",
    "net.network": "[Network]\n",
    "data.volume": "[Volume]\nVolumeName=data\n",
    "web.container.d/10-more.conf": "[Container]\nVolume=data.volume:/again\n",
    "container.d/all.conf": "[Service]\nRestart=always\n",
    "config/app.toml": "[nothing]\n= of ours",
}


def test_names_and_references_inside_follow_the_namespace_and_others_stay() -> None:
    rendered = render(RICH, volumes=(Volume("model", "", "quay.io/org/model:1"),))
    web = unit(rendered, f"{ID}-web.container")
    assert web["Container"] == [
        ("Image", f"{ID}-app.image"),
        ("ContainerName", f"{ID}-web"),
        ("Pod", f"{ID}-all.pod"),
        ("Network", f"{ID}-net.network:ip=10.0.0.2"),
        ("Volume", f"{ID}-data.volume:/data:ro"),
        ("Volume", "page-model-416062:/model"),
        ("Volume", "/etc/hosts:/etc/hosts"),
        ("Mount", f"type=volume,source={ID}-data.volume,target=/more"),
        ("Environment", f"data.volume={IMAGE}"),
    ]
    after = f"{ID}-db.service {ID}-data-volume.service network-online.target"
    assert web["Unit"] == [("After", after)]
    # `all.pod` calls its service by another name, so `all-pod.service` is a stranger.
    assert web["Install"] == [("WantedBy", "default.target all-pod.service")]
    assert unit(rendered, f"{ID}-all.pod")["Pod"][1] == ("ServiceName", f"{ID}-together")
    assert unit(rendered, f"{ID}-data.volume")["Volume"] == [("VolumeName", f"{ID}-data")]
    more = unit(rendered, f"{ID}-web.container.d/10-more.conf")
    assert more["Container"] == [("Volume", f"{ID}-data.volume:/again")]
    assert f"{FOLDER}/{ID}-.container.d/all.conf" in rendered.files
    assert rendered.files[f"{FOLDER}/config/app.toml"][0] == b"[nothing]\n= of ours"


def test_every_service_is_wanted_by_the_target_and_workloads_are_those_that_run_on() -> None:
    rendered = render(RICH)
    target = f"{ID}-flightctl-quadlet-app.target"
    assert rendered.target == target
    services = {"web", "db", "app-image", "together", "net-network", "data-volume"}
    assert set(rendered.services) == {f"{ID}-{name}.service" for name in services}
    assert rendered.workloads == (f"{ID}-db.service", f"{ID}-web.service")
    data = rendered.files[f"/etc/systemd/system/{target}"][0]
    assert rendered.files[f"{FOLDER}/{target}"][0] == data
    assert quadlet.services_in(data.decode()) == list(rendered.services)
    assert "Install" not in unitfile.parse(data.decode())
    assert rendered.images == (IMAGE, "quay.io/org/other@sha256:0")


def test_drop_ins_label_what_podman_makes_and_tie_it_to_the_target() -> None:
    rendered = render(RICH, env=(("A", 'x "y" %z'), ("LINES", "a\nb")))
    drop_in = unit(rendered, f"{ID}-.container.d/99-flightctl.conf")
    assert drop_in["Unit"] == [("PartOf", f"{ID}-flightctl-quadlet-app.target")]
    assert drop_in["Container"] == [
        ("Label", f"io.flightctl.quadlet.project={ID}"),
        ("EnvironmentFile", f"{FOLDER}/.env"),
        ("Environment", '"LINES=a\\nb"'),
    ]
    pod = unit(rendered, f"{ID}-.pod.d/99-flightctl.conf")
    assert pod["Pod"] == [("PodmanArgs", f"--label io.flightctl.quadlet.project={ID}")]
    assert rendered.files[f"{FOLDER}/.env"] == (b'A=x "y" %z\n', 0o600)


def test_a_pod_manifest_gets_a_name_of_its_own_and_its_images_are_known() -> None:
    manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n"
    manifest += f"  - {{name: a, image: {IMAGE}}}\n"
    rendered = render({"p.kube": "[Kube]\nYaml=p.yaml\n", "p.yaml": manifest})
    assert f"name: {ID}-p".encode() in rendered.files[f"{FOLDER}/p.yaml"][0]
    assert rendered.images == (IMAGE,)
    assert rendered.workloads == (f"{ID}-p.service",)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no unit that runs"),
        ({"a.volume": "[Volume]\n"}, "no unit that runs"),
        ({"a.build": "[Build]\n"}, ".build units are not supported"),
        ({"a.container": "[Pod]\n"}, "no section [Container]"),
        ({"a.container": "[Container]\n"}, "no Image="),
        ({"a.container": "what is this"}, "line 1"),
        ({"a.container": "[Container]\nImage=nginx\n"}, "not fully qualified"),
        ({"a.container": "[Container]\nImage=org/app:1\n"}, "not fully qualified"),
        ({"a.container": f"[Container]\nImage={IMAGE}\nPod=b.pod\n"}, "there is no b.pod"),
        ({"a.kube": "[Kube]\nYaml=b.yaml\n"}, "there is no b.yaml"),
        ({"a.kube": "[Kube]\nYaml=b.yaml\n", "b.yaml": "- a"}, "not a Kubernetes manifest"),
        ({"sub/a.container": f"[Container]\nImage={IMAGE}\n"}, "no unit that runs"),
    ],
)
def test_what_cannot_become_services_is_refused(files: dict[str, str], words: str) -> None:
    with pytest.raises(quadlet.Invalid) as caught:
        render(files)
    assert words in str(caught.value)


def container(**fields: object) -> unitfile.Sections:
    one = Application("web", "container", "nginx:100%", **fields)  # type: ignore[arg-type]
    return unitfile.parse(quadlet.container_unit(one, with_limits=True).decode())


def test_a_container_application_is_a_quadlet_of_one_unit() -> None:
    found = container(
        ports=("8080:80", "53:53/udp"),
        volumes=(Volume("data", "/data"), Volume("html", "/www", "quay.io/org/html:1")),
        cpu="0.5",
        memory="256m",
    )
    assert found["Container"] == [
        ("Image", "nginx:100%%"),
        ("PublishPort", "8080:80"),
        ("PublishPort", "53:53/udp"),
        ("Volume", "web-data-394076:/data"),
        ("Volume", "web-html-160073:/www"),
        ("PodmanArgs", "--cpus 0.5 --memory 256m"),
    ]
    assert found["Service"] == [("Restart", "on-failure"), ("RestartSec", "5")]
    assert found["Install"] == [("WantedBy", "default.target")]


def test_a_stopped_container_does_not_start_at_boot() -> None:
    assert "Install" not in container(is_stopped=True)
