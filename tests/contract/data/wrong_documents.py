"""Documents that must be refused, each wrong in one way, and the word that the message must hold.

The unit tests of validation use those that are objects; the contract tests send all of them, by
every verb. A document's text stands as it is where reading it is what must fail.
"""

from __future__ import annotations

import base64
import copy
from typing import Any, NamedTuple

Json = dict[str, Any]

MIB = 1 << 20
PEM = (
    "-----BEGIN CERTIFICATE REQUEST-----\n"
    + base64.b64encode(b"0" * 90).decode()
    + "\n-----END CERTIFICATE REQUEST-----\n"
)


class Wrong(NamedTuple):
    """`body` is a document, or text; `expected` a field path or another word of the message."""

    id: str
    kind: str
    body: Json | str
    expected: str


def device(spec: Json | None = None, **metadata: Any) -> Json:
    return _document("Device", {"name": "wrong", **metadata}, spec or {})


def fleet(template: Json | None = None, *, meta: Json | None = None, **spec: Any) -> Json:
    inner: Json = {"spec": template or {}}
    if meta is not None:
        inner["metadata"] = meta
    return _document("Fleet", {"name": "wrong"}, {"template": inner, **spec})


def enrollment(spec: Json | None = None, name: str = "wrong-enrollment-request") -> Json:
    return _document("EnrollmentRequest", {"name": name}, {"csr": PEM, **(spec or {})})


def csr(**spec: Any) -> Json:
    right = {
        "request": base64.b64encode(PEM.encode()).decode(),
        "signerName": "flightctl.io/enrollment",
        "usages": ["clientAuth", "CA:false"],
    }
    return _document("CertificateSigningRequest", {"name": "wrong"}, right | spec)


def rollout(target: Json | None = None, **spec: Any) -> Json:
    right = {"fleet": "web", "templateVersion": "web.v1"}
    document = _document("Rollout", {"name": "wrong"}, {"target": right | (target or {}), **spec})
    return document | {"apiVersion": "homeport.dev/v1alpha1"}


def admission(**spec: Any) -> Json:
    document = _document("EnrollmentPolicy", {"name": "wrong"}, spec)
    return document | {"apiVersion": "homeport.dev/v1alpha1"}


def revocation(**spec: Any) -> Json:
    document = _document("CertificateRevocation", {"name": "wrong"}, spec)
    return document | {"apiVersion": "homeport.dev/v1alpha1"}


def app(app_type: str = "container", **fields: Any) -> Json:
    right: Json = {"name": "web", "appType": app_type}
    if not {"inline", "image", "catalogItemRef"} & fields.keys():
        right["image"] = "quay.io/acme/web:1"
    return {"applications": [right | fields]}


def inline(path: str = "/etc/motd", content: str = "hello", **fields: Any) -> Json:
    return {"config": [{"name": "a", "inline": [{"path": path, "content": content, **fields}]}]}


def quadlet(**files: str) -> Json:
    found = [{"path": k.replace("_", "."), "content": v} for k, v in files.items()]
    return app("quadlet", inline=found)


def compose(content: str, path: str = "docker-compose.yaml") -> Json:
    return app("compose", inline=[{"path": path, "content": content}])


def monitor(**fields: Any) -> Json:
    rule = {"severity": "Warning", "duration": "10m", "percentage": 50, "description": "load"}
    return {"monitorType": "CPU", "samplingInterval": "30s", "alertRules": [rule]} | fields


def rule(**fields: Any) -> Json:
    right = {"severity": "Warning", "duration": "10m", "percentage": 50, "description": "load"}
    return {"resources": [monitor(alertRules=[right | fields])]}


def schedule(**fields: Any) -> Json:
    right = {"at": "0 2 * * *", "startGraceDuration": "1h"}
    return {"updatePolicy": {"updateSchedule": right | fields}}


def policy(**fields: Any) -> Json:
    return fleet(rolloutPolicy=fields)


def batches(*sequence: Any) -> Json:
    return policy(deviceSelection={"strategy": "BatchSequence", "sequence": list(sequence)})


def without(document: Json, *keys: str) -> Json:
    """A copy without the field under `keys`."""
    document = copy.deepcopy(document)
    node = document
    for key in keys[:-1]:
        node = node[key]
    del node[keys[-1]]
    return document


def _document(kind: str, metadata: Json, spec: Json) -> Json:
    return {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }


_GIT = {"repository": "demos", "targetRevision": "main", "path": "/x"}
_CONTAINER = "[Container]\nImage=quay.io/acme/web:1\n"
_SELECTOR = {"matchLabels": {"site": "a"}}

_METADATA = [
    Wrong("no-name", "Device", without(device(), "metadata", "name"), "metadata.name"),
    Wrong("uppercase-name", "Device", device(name="Wrong"), "metadata.name"),
    Wrong("too-long-name", "Device", device(name="w" * 254), "metadata.name"),
    Wrong("name-ends-with-dash", "Device", device(name="wrong-"), "metadata.name"),
    Wrong("name-is-a-number", "Device", device(name=7), "metadata.name"),
    Wrong("bad-label-key", "Device", device(labels={"-a": "b"}), "metadata.labels"),
    Wrong("bad-label-prefix", "Device", device(labels={"A_/a": "b"}), "metadata.labels"),
    Wrong("bad-label-value", "Device", device(labels={"site": "a b"}), "metadata.labels[site]"),
    Wrong("long-label-value", "Device", device(labels={"site": "a" * 64}), "metadata.labels[site]"),
    Wrong("label-is-a-number", "Device", device(labels={"site": 7}), "metadata.labels[site]"),
    Wrong("labels-are-a-list", "Device", device(labels=["site"]), "metadata.labels"),
    Wrong("bad-annotation-key", "Device", device(annotations={"a b": "c"}), "metadata.annotations"),
    Wrong(
        "huge-annotations",
        "Device",
        device(annotations={"a": "x" * (256 * 1024)}),
        "metadata.annotations",
    ),
    Wrong("unknown-metadata", "Device", device(lables={"a": "b"}), "metadata.lables"),
    Wrong("bad-finalizer", "Device", device(finalizers=["a b"]), "metadata.finalizers[0]"),
    Wrong(
        "two-controllers",
        "Device",
        device(
            ownerReferences=[
                {"apiVersion": "v1", "kind": "A", "name": n, "uid": n, "controller": True}
                for n in "ab"
            ]
        ),
        "metadata.ownerReferences[1].controller",
    ),
    Wrong("bad-owner", "Device", device(owner="web"), "metadata.owner"),
    Wrong(
        "nameless-owner",
        "Device",
        device(ownerReferences=[{"apiVersion": "v1", "kind": "A", "name": "a", "uid": ""}]),
        "metadata.ownerReferences[0].uid",
    ),
    Wrong(
        "bad-timestamp",
        "Device",
        device(creationTimestamp="yesterday"),
        "metadata.creationTimestamp",
    ),
    Wrong("other-api-version", "Device", device() | {"apiVersion": "v2"}, "apiVersion"),
    Wrong("other-kind", "Device", device() | {"kind": "Fleet"}, "kind"),
    Wrong("no-api-version", "Device", without(device(), "apiVersion"), "apiVersion"),
    Wrong("no-metadata", "Device", without(device(), "metadata"), "metadata"),
    Wrong("spec-is-a-list", "Device", device() | {"spec": []}, "spec"),
]

_DEVICE = [
    Wrong("unknown-top-level", "Device", device() | {"sepc": {}}, "sepc"),
    Wrong("unknown-field", "Device", device({"os": {"imgae": "a"}}), "spec.os.imgae"),
    Wrong("bad-os-image", "Device", device({"os": {"image": "Quay.io/A B"}}), "spec.os.image"),
    Wrong(
        "os-from-two-sources",
        "Device",
        device(
            {
                "os": {
                    "image": "quay.io/a/b:1",
                    "catalogItemRef": {"catalog": "c", "item": "i", "version": "1"},
                }
            }
        ),
        "spec.os.catalogItemRef",
    ),
    Wrong("os-is-text", "Device", device({"os": "quay.io/a/b:1"}), "spec.os"),
    Wrong("consoles-set", "Device", device({"consoles": []}), "spec.consoles"),
    Wrong(
        "decommissioning-set",
        "Device",
        device({"decommissioning": {"target": "Unenroll"}}),
        "spec.decommissioning",
    ),
    Wrong("relative-path", "Device", device(inline("etc/motd")), "spec.config[0].inline[0].path"),
    Wrong("path-with-dots", "Device", device(inline("/etc/../x")), "spec.config[0].inline[0].path"),
    Wrong("path-not-clean", "Device", device(inline("/etc//x")), "spec.config[0].inline[0].path"),
    Wrong("path-of-directory", "Device", device(inline("/etc/")), "spec.config[0].inline[0].path"),
    Wrong("path-with-colon", "Device", device(inline("/etc/a:b")), "spec.config[0].inline[0].path"),
    Wrong(
        "path-too-long",
        "Device",
        device(inline("/" + "a" * 4096)),
        "spec.config[0].inline[0].path",
    ),
    Wrong("forbidden-path", "Device", device(inline("/etc/flightctl/config.yaml")), "belongs"),
    Wrong("forbidden-directory", "Device", device(inline("/var/lib/flightctl/x")), "belongs"),
    Wrong("forbidden-certificates", "Device", device(inline("/etc/flightctl/certs/a")), "belongs"),
    Wrong("forbidden-programs", "Device", device(inline("/usr/lib/flightctl/hooks")), "belongs"),
    Wrong(
        "bad-base64",
        "Device",
        device(inline(content="%%%", contentEncoding="base64")),
        "spec.config[0].inline[0].content",
    ),
    Wrong(
        "bad-encoding",
        "Device",
        device(inline(contentEncoding="gzip")),
        "spec.config[0].inline[0].contentEncoding",
    ),
    Wrong(
        "content-over-a-mebibyte",
        "Device",
        device(inline(content="x" * (MIB + 1))),
        "spec.config[0].inline[0].content",
    ),
    Wrong(
        "no-content",
        "Device",
        device({"config": [{"name": "a", "inline": [{"path": "/etc/motd"}]}]}),
        "spec.config[0].inline[0].content",
    ),
    Wrong(
        "mode-of-eight-digits",
        "Device",
        device(inline(mode=10000644)),
        "spec.config[0].inline[0].mode",
    ),
    Wrong("negative-mode", "Device", device(inline(mode=-1)), "spec.config[0].inline[0].mode"),
    Wrong("mode-is-text", "Device", device(inline(mode="0644")), "spec.config[0].inline[0].mode"),
    Wrong("bad-user", "Device", device(inline(user="a b")), "spec.config[0].inline[0].user"),
    Wrong("user-65535", "Device", device(inline(user="65535")), "spec.config[0].inline[0].user"),
    Wrong("long-group", "Device", device(inline(group="g" * 33)), "spec.config[0].inline[0].group"),
    Wrong(
        "duplicate-provider",
        "Device",
        device({"config": [{"name": "a", "inline": []}, {"name": "a", "inline": []}]}),
        "spec.config[1].name",
    ),
    Wrong(
        "duplicate-path",
        "Device",
        device(
            {
                "config": [
                    {"name": "a", "inline": [{"path": "/etc/motd", "content": "a"}]},
                    {"name": "b", "httpRef": {"repository": "r", "filePath": "/etc/motd"}},
                ]
            }
        ),
        "spec.config[1].httpRef.filePath",
    ),
    Wrong(
        "unnamed-provider", "Device", device({"config": [{"inline": []}]}), "spec.config[0].name"
    ),
    Wrong(
        "bad-provider-name",
        "Device",
        device({"config": [{"name": "A b", "inline": []}]}),
        "spec.config[0].name",
    ),
    Wrong("no-source", "Device", device({"config": [{"name": "a"}]}), "spec.config[0]"),
    Wrong(
        "two-sources",
        "Device",
        device({"config": [{"name": "a", "inline": [], "gitRef": _GIT}]}),
        "spec.config[0].inline",
    ),
    Wrong("provider-is-text", "Device", device({"config": ["a"]}), "spec.config[0]"),
    Wrong(
        "no-revision",
        "Device",
        device({"config": [{"name": "a", "gitRef": {"repository": "r", "path": "/"}}]}),
        "spec.config[0].gitRef.targetRevision",
    ),
    Wrong(
        "bad-repository",
        "Device",
        device({"config": [{"name": "a", "gitRef": _GIT | {"repository": "A/b"}}]}),
        "spec.config[0].gitRef.repository",
    ),
    Wrong(
        "relative-mount-path",
        "Device",
        device(
            {
                "config": [
                    {
                        "name": "a",
                        "secretRef": {"name": "s", "namespace": "n", "mountPath": "etc/x"},
                    }
                ]
            }
        ),
        "spec.config[0].secretRef.mountPath",
    ),
    Wrong(
        "unknown-monitor",
        "Device",
        device({"resources": [monitor(monitorType="GPU")]}),
        "spec.resources[0].monitorType",
    ),
    Wrong(
        "duplicate-monitor",
        "Device",
        device({"resources": [monitor(), monitor()]}),
        "spec.resources[1].monitorType",
    ),
    Wrong(
        "cpu-monitor-with-path",
        "Device",
        device({"resources": [monitor(path="/")]}),
        "spec.resources[0].path",
    ),
    Wrong(
        "disk-monitor-without-path",
        "Device",
        device({"resources": [monitor(monitorType="Disk")]}),
        "spec.resources[0].path",
    ),
    Wrong(
        "bad-percentage",
        "Device",
        device(rule(percentage=101)),
        "spec.resources[0].alertRules[0].percentage",
    ),
    Wrong(
        "duration-below-sampling",
        "Device",
        device(rule(duration="10s")),
        "spec.resources[0].alertRules[0].duration",
    ),
    Wrong(
        "bad-duration",
        "Device",
        device(rule(duration="ten minutes")),
        "spec.resources[0].alertRules[0].duration",
    ),
    Wrong(
        "bad-severity",
        "Device",
        device(rule(severity="Fatal")),
        "spec.resources[0].alertRules[0].severity",
    ),
    Wrong(
        "thresholds-that-fall",
        "Device",
        device(
            {
                "resources": [
                    monitor(
                        alertRules=[
                            {
                                "severity": severity,
                                "duration": "10m",
                                "percentage": percentage,
                                "description": "",
                            }
                            for severity, percentage in (("Critical", 40), ("Warning", 60))
                        ]
                    )
                ]
            }
        ),
        "spec.resources[0].alertRules[0].percentage",
    ),
    Wrong(
        "bad-match-pattern",
        "Device",
        device({"systemd": {"matchPatterns": ["a b"]}}),
        "spec.systemd.matchPatterns[0]",
    ),
    Wrong(
        "bad-cron", "Device", device(schedule(at="@daily")), "spec.updatePolicy.updateSchedule.at"
    ),
    Wrong(
        "cron-out-of-range",
        "Device",
        device(schedule(at="61 2 * * *")),
        "spec.updatePolicy.updateSchedule.at",
    ),
    Wrong(
        "cron-that-never-comes",
        "Device",
        device(schedule(at="0 0 30 2 *")),
        "spec.updatePolicy.updateSchedule.at",
    ),
    Wrong(
        "bad-time-zone",
        "Device",
        device(schedule(timeZone="CET")),
        "spec.updatePolicy.updateSchedule.timeZone",
    ),
    Wrong(
        "bad-grace",
        "Device",
        device(schedule(startGraceDuration="1 hour")),
        "spec.updatePolicy.updateSchedule.startGraceDuration",
    ),
    Wrong(
        "grace-beyond-the-next-start",
        "Device",
        device(schedule(startGraceDuration="25h")),
        "spec.updatePolicy.updateSchedule.startGraceDuration",
    ),
]

_APPLICATIONS = [
    Wrong("unknown-app-type", "Device", device(app("flatpak")), "spec.applications[0].appType"),
    Wrong(
        "no-app-type",
        "Device",
        device({"applications": [{"name": "a", "image": "quay.io/a/b:1"}]}),
        "spec.applications[0].appType",
    ),
    Wrong(
        "duplicate-app",
        "Device",
        device({"applications": app()["applications"] * 2}),
        "spec.applications[1].name",
    ),
    Wrong("bad-app-name", "Device", device(app(name="Web")), "spec.applications[0].name"),
    Wrong("bad-app-image", "Device", device(app(image="a b")), "spec.applications[0].image"),
    Wrong(
        "app-without-source",
        "Device",
        device({"applications": [{"name": "a", "appType": "container"}]}),
        "spec.applications[0]",
    ),
    Wrong(
        "app-from-two-sources",
        "Device",
        device(app("compose", image="quay.io/a/b:1", inline=[])),
        "spec.applications[0].inline",
    ),
    Wrong(
        "inline-container",
        "Device",
        device(app(inline=[{"path": "a", "content": ""}])),
        "spec.applications[0].inline",
    ),
    Wrong(
        "inline-without-name",
        "Device",
        device(
            {
                "applications": [
                    {
                        "appType": "quadlet",
                        "inline": [{"path": "a.container", "content": _CONTAINER}],
                    }
                ]
            }
        ),
        "spec.applications[0].name",
    ),
    Wrong(
        "blank-catalog-item",
        "Device",
        device(app(catalogItemRef={"catalog": "c", "item": " i", "version": "1"})),
        "spec.applications[0].catalogItemRef.item",
    ),
    Wrong(
        "annotations-of-an-app",
        "Device",
        device(app(annotations={"a": "b"})),
        "spec.applications[0].annotations",
    ),
    Wrong(
        "desired-state-set",
        "Device",
        device(app(desiredState="stopped")),
        "spec.applications[0].desiredState",
    ),
    Wrong(
        "restart-generation-set",
        "Device",
        device(app(restartGeneration=2)),
        "spec.applications[0].restartGeneration",
    ),
    Wrong("bad-port", "Device", device(app(ports=["80"])), "spec.applications[0].ports[0]"),
    Wrong(
        "port-out-of-range",
        "Device",
        device(app(ports=["70000:80"])),
        "spec.applications[0].ports[0]",
    ),
    Wrong(
        "ports-of-another-type",
        "Device",
        device(app("helm", ports=["80:80"])),
        "spec.applications[0].ports",
    ),
    Wrong(
        "bad-cpu",
        "Device",
        device(app(resources={"limits": {"cpu": "500m"}})),
        "spec.applications[0].resources.limits.cpu",
    ),
    Wrong(
        "cpu-is-a-number",
        "Device",
        device(app(resources={"limits": {"cpu": 2}})),
        "spec.applications[0].resources.limits.cpu",
    ),
    Wrong(
        "bad-memory",
        "Device",
        device(app(resources={"limits": {"memory": "256Mi"}})),
        "spec.applications[0].resources.limits.memory",
    ),
    Wrong(
        "bad-variable-name",
        "Device",
        device(app(envVars={"1A": "b"})),
        "spec.applications[0].envVars[1A]",
    ),
    Wrong(
        "empty-variable",
        "Device",
        device(app(envVars={"A": ""})),
        "spec.applications[0].envVars[A]",
    ),
    Wrong(
        "variable-is-a-number",
        "Device",
        device(app(envVars={"A": 1})),
        "spec.applications[0].envVars[A]",
    ),
    Wrong("bad-run-as", "Device", device(app(runAs="a:b")), "spec.applications[0].runAs"),
    Wrong(
        "volume-reclaim-policy",
        "Device",
        device(app(volumes=[{"name": "v", "mount": {"path": "/v"}, "reclaimPolicy": "Delete"}])),
        "spec.applications[0].volumes[0].reclaimPolicy",
    ),
    Wrong(
        "duplicate-volume",
        "Device",
        device(app(volumes=[{"name": "v", "mount": {"path": p}} for p in ("/a", "/b")])),
        "spec.applications[0].volumes[1].name",
    ),
    Wrong(
        "container-volume-without-mount",
        "Device",
        device(app(volumes=[{"name": "v", "image": {"reference": "quay.io/a/b:1"}}])),
        "spec.applications[0].volumes[0].mount",
    ),
    Wrong(
        "quadlet-volume-with-mount",
        "Device",
        device(app("quadlet", volumes=[{"name": "v", "mount": {"path": "/a"}}])),
        "spec.applications[0].volumes[0].mount",
    ),
    Wrong(
        "relative-volume-mount",
        "Device",
        device(app(volumes=[{"name": "v", "mount": {"path": "a:ro"}}])),
        "spec.applications[0].volumes[0].mount.path",
    ),
    Wrong(
        "volume-image-without-reference",
        "Device",
        device(app(volumes=[{"name": "v", "mount": {"path": "/a"}, "image": {}}])),
        "spec.applications[0].volumes[0].image",
    ),
    Wrong(
        "helm-values-files",
        "Device",
        device(app("helm", valuesFiles=["values.json"])),
        "spec.applications[0].valuesFiles[0]",
    ),
    Wrong(
        "helm-namespace",
        "Device",
        device(app("helm", namespace="A")),
        "spec.applications[0].namespace",
    ),
    Wrong(
        "compose-with-container-name",
        "Device",
        device(compose("services: {a: {image: quay.io/a/b:1, container_name: a}}")),
        "container_name",
    ),
    Wrong("compose-without-services", "Device", device(compose("version: '3'")), "services"),
    Wrong("compose-not-yaml", "Device", device(compose("services: [")), "YAML"),
    Wrong(
        "compose-image-without-registry",
        "Device",
        device(compose("services: {a: {image: nginx}}")),
        "registry",
    ),
    Wrong(
        "compose-file-name",
        "Device",
        device(compose("services: {a: {image: quay.io/a/b:1}}", "compose.yaml")),
        "spec.applications[0].inline[0].path",
    ),
    Wrong(
        "app-file-outside",
        "Device",
        device(
            app(
                "quadlet",
                inline=[
                    {"path": "a.container", "content": _CONTAINER},
                    {"path": "../b", "content": ""},
                ],
            )
        ),
        "spec.applications[0].inline[1].path",
    ),
    Wrong(
        "duplicate-app-file",
        "Device",
        device(app("quadlet", inline=[{"path": "a.container", "content": _CONTAINER}] * 2)),
        "spec.applications[0].inline[1].path",
    ),
    Wrong(
        "quadlet-with-unknown-section",
        "Device",
        device(quadlet(a_container="[Contaner]\nImage=quay.io/a/b:1\n")),
        "[Container]",
    ),
    Wrong(
        "quadlet-with-foreign-section",
        "Device",
        device(quadlet(a_container=_CONTAINER + "[Pod]\n")),
        "[Pod]",
    ),
    Wrong(
        "quadlet-without-image", "Device", device(quadlet(a_container="[Container]\n")), "Image="
    ),
    Wrong(
        "quadlet-image-without-registry",
        "Device",
        device(quadlet(a_container="[Container]\nImage=nginx\n")),
        "registry",
    ),
    Wrong(
        "quadlet-missing-volume-unit",
        "Device",
        device(quadlet(a_container=_CONTAINER + "Volume=data.volume:/data\n")),
        "data.volume",
    ),
    Wrong(
        "quadlet-missing-pod-unit",
        "Device",
        device(quadlet(a_container=_CONTAINER + "Pod=b.pod\n")),
        "b.pod",
    ),
    Wrong(
        "quadlet-build-unit",
        "Device",
        device(quadlet(a_container=_CONTAINER, b_build="[Build]\n")),
        ".build",
    ),
    Wrong(
        "quadlet-without-workload",
        "Device",
        device(quadlet(a_volume="[Volume]\n")),
        "spec.applications[0].inline",
    ),
    Wrong(
        "quadlet-names-collide",
        "Device",
        device(
            quadlet(
                a_container=_CONTAINER + "ContainerName=x\n",
                b_container=_CONTAINER + "ContainerName=x\n",
            )
        ),
        "spec.applications[0].inline[1].content",
    ),
    Wrong(
        "quadlet-kube-without-manifest",
        "Device",
        device(quadlet(a_kube="[Kube]\nYaml=pod.yaml\n")),
        "pod.yaml",
    ),
    Wrong(
        "vm-of-another-name",
        "Device",
        device(
            app(
                "vm",
                inline=[
                    {
                        "path": "vm.yaml",
                        "content": "{apiVersion: kubevirt.io/v1, kind: VirtualMachine, "
                        "metadata: {name: other}}",
                    }
                ],
            )
        ),
        "metadata.name",
    ),
    Wrong(
        "vm-with-two-files",
        "Device",
        device(app("vm", inline=[{"path": "vm.yaml"}, {"path": "b.yaml"}])),
        "vm.yaml",
    ),
]

_FLEET = [
    Wrong("no-template", "Fleet", without(fleet(), "spec", "template"), "spec.template"),
    Wrong(
        "no-template-spec",
        "Fleet",
        without(fleet(), "spec", "template", "spec"),
        "spec.template.spec",
    ),
    Wrong(
        "unknown-template-field",
        "Fleet",
        fleet({"aplications": []}),
        "spec.template.spec.aplications",
    ),
    Wrong(
        "path-in-template",
        "Fleet",
        fleet(inline("motd")),
        "spec.template.spec.config[0].inline[0].path",
    ),
    Wrong(
        "bad-owner-in-template",
        "Fleet",
        fleet(meta={"owner": "web"}),
        "spec.template.metadata.owner",
    ),
    Wrong(
        "bad-label-in-template",
        "Fleet",
        fleet(meta={"labels": {"a": "b c"}}),
        "spec.template.metadata.labels[a]",
    ),
    Wrong(
        "parameter-in-image-name",
        "Fleet",
        fleet({"os": {"image": "quay.io/{{ .metadata.name }}:1"}}),
        "spec.template.spec.os.image",
    ),
    Wrong("empty-selector", "Fleet", fleet(selector={}), "spec.selector"),
    Wrong(
        "bad-selector-value",
        "Fleet",
        fleet(selector={"matchLabels": {"a": "b c"}}),
        "spec.selector.matchLabels[a]",
    ),
    Wrong(
        "empty-expressions",
        "Fleet",
        fleet(selector=_SELECTOR | {"matchExpressions": []}),
        "spec.selector.matchExpressions",
    ),
    Wrong(
        "expression-operator",
        "Fleet",
        fleet(selector={"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}),
        "spec.selector.matchExpressions[0].operator",
    ),
    Wrong(
        "expression-without-values",
        "Fleet",
        fleet(selector={"matchExpressions": [{"key": "a", "operator": "In"}]}),
        "spec.selector.matchExpressions[0].values",
    ),
    Wrong(
        "expression-with-values",
        "Fleet",
        fleet(selector={"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
        "spec.selector.matchExpressions[0].values",
    ),
    Wrong("empty-policy", "Fleet", policy(), "spec.rolloutPolicy"),
    Wrong(
        "no-strategy",
        "Fleet",
        policy(deviceSelection={"sequence": [{"limit": 1}]}),
        "spec.rolloutPolicy.deviceSelection.strategy",
    ),
    Wrong("empty-sequence", "Fleet", batches(), "spec.rolloutPolicy.deviceSelection.sequence"),
    Wrong(
        "batch-is-null", "Fleet", batches(None), "spec.rolloutPolicy.deviceSelection.sequence[0]"
    ),
    Wrong(
        "limit-0",
        "Fleet",
        batches({"limit": 0}),
        "spec.rolloutPolicy.deviceSelection.sequence[0].limit",
    ),
    Wrong(
        "limit-120-percent",
        "Fleet",
        batches({"limit": "120%"}),
        "spec.rolloutPolicy.deviceSelection.sequence[0].limit",
    ),
    Wrong(
        "limit-is-true",
        "Fleet",
        batches({"limit": True}),
        "spec.rolloutPolicy.deviceSelection.sequence[0].limit",
    ),
    Wrong(
        "bad-threshold",
        "Fleet",
        batches({"limit": 1, "successThreshold": "most"}),
        "spec.rolloutPolicy.deviceSelection.sequence[0].successThreshold",
    ),
    Wrong(
        "empty-batch-selector",
        "Fleet",
        batches({"selector": {}}),
        "spec.rolloutPolicy.deviceSelection.sequence[0].selector",
    ),
    Wrong(
        "empty-budget", "Fleet", policy(disruptionBudget={}), "spec.rolloutPolicy.disruptionBudget"
    ),
    Wrong(
        "budget-0",
        "Fleet",
        policy(disruptionBudget={"maxUnavailable": 0}),
        "spec.rolloutPolicy.disruptionBudget.maxUnavailable",
    ),
    Wrong(
        "duplicate-group",
        "Fleet",
        policy(disruptionBudget={"maxUnavailable": 1, "groupBy": ["site", "site"]}),
        "spec.rolloutPolicy.disruptionBudget.groupBy[1]",
    ),
    Wrong(
        "bad-update-timeout",
        "Fleet",
        policy(disruptionBudget={"maxUnavailable": 1}, defaultUpdateTimeout="1 day"),
        "spec.rolloutPolicy.defaultUpdateTimeout",
    ),
]

_OTHERS = [
    Wrong(
        "template-version-of-no-fleet",
        "TemplateVersion",
        _document("TemplateVersion", {"name": "web.v1"}, {"fleet": "Web"}),
        "spec.fleet",
    ),
    Wrong(
        "organization-name-is-a-number",
        "Organization",
        _document("Organization", {"name": "acme"}, {"displayName": 7}),
        "spec.displayName",
    ),
    Wrong("er-short-name", "EnrollmentRequest", enrollment(name="short"), "metadata.name"),
    Wrong(
        "er-without-csr",
        "EnrollmentRequest",
        without(enrollment(), "spec", "csr"),
        "spec.csr",
    ),
    Wrong("er-csr-not-pem", "EnrollmentRequest", enrollment({"csr": "hello"}), "spec.csr"),
    Wrong("er-csr-with-a-tail", "EnrollmentRequest", enrollment({"csr": PEM + "more"}), "spec.csr"),
    Wrong(
        "er-bad-label",
        "EnrollmentRequest",
        enrollment({"labels": {"a": "b c"}}),
        "spec.labels[a]",
    ),
    Wrong("er-os-mode", "EnrollmentRequest", enrollment({"osMode": "tree"}), "spec.osMode"),
    Wrong(
        "er-known-version",
        "EnrollmentRequest",
        enrollment({"knownRenderedVersion": "v3"}),
        "spec.knownRenderedVersion",
    ),
    Wrong(
        "er-device-status",
        "EnrollmentRequest",
        enrollment({"deviceStatus": {"summary": {"status": 7}}}),
        "spec.deviceStatus.summary.status",
    ),
    Wrong("csr-not-base64", "CertificateSigningRequest", csr(request="%%%"), "spec.request"),
    Wrong("csr-not-pem", "CertificateSigningRequest", csr(request="aGVsbG8="), "spec.request"),
    Wrong(
        "csr-unknown-signer",
        "CertificateSigningRequest",
        csr(signerName="example.com/mine"),
        "spec.signerName",
    ),
    Wrong("csr-old-signer", "CertificateSigningRequest", csr(signerName="ca"), "spec.signerName"),
    Wrong(
        "csr-device-signer",
        "CertificateSigningRequest",
        csr(signerName="flightctl.io/device-enrollment"),
        "EnrollmentRequest",
    ),
    Wrong("csr-usages", "CertificateSigningRequest", csr(usages=["clientAuth"]), "spec.usages"),
    Wrong(
        "csr-expiration",
        "CertificateSigningRequest",
        csr(expirationSeconds=0),
        "spec.expirationSeconds",
    ),
    Wrong("rollout-without-target", "Rollout", without(rollout(), "spec", "target"), "spec.target"),
    Wrong("rollout-bad-fleet", "Rollout", rollout({"fleet": "Web"}), "spec.target.fleet"),
    Wrong(
        "rollout-control",
        "Rollout",
        rollout(control={"paused": "yes"}),
        "spec.control.paused",
    ),
    Wrong("rollout-retry", "Rollout", rollout(control={"retry": -1}), "spec.control.retry"),
    Wrong(
        "rollout-policy",
        "Rollout",
        rollout({"policy": {"successThreshold": "101%"}}),
        "spec.target.policy.successThreshold",
    ),
    Wrong("policy-without-demand", "EnrollmentPolicy", admission(labels={"a": "b"}), "spec"),
    Wrong("policy-no-tpm", "EnrollmentPolicy", admission(tpmVerified=False), "spec"),
    Wrong("policy-tpm-key", "EnrollmentPolicy", admission(tpmKeys=["ab"]), "spec.tpmKeys[0]"),
    Wrong("policy-no-serials", "EnrollmentPolicy", admission(serialNumbers=[]), "serialNumbers"),
    Wrong("policy-limit", "EnrollmentPolicy", admission(devices=["a"], limit=0), "spec.limit"),
    Wrong("policy-labels", "EnrollmentPolicy", admission(devices=["a"], labels={"": ""}), "labels"),
    Wrong(
        "policy-selector",
        "EnrollmentPolicy",
        admission(selector={"matchLabels": {"a": "b c"}}),
        "spec.selector.matchLabels",
    ),
    Wrong(
        "policy-fingerprint",
        "EnrollmentPolicy",
        admission(certificateFingerprints=["ab:cd"]),
        "spec.certificateFingerprints[0]",
    ),
    Wrong(
        "policy-authority",
        "EnrollmentPolicy",
        admission(certificateAuthorities=["0x12"]),
        "spec.certificateAuthorities[0]",
    ),
    Wrong("policy-system-info", "EnrollmentPolicy", admission(systemInfo={"a": 1}), "systemInfo"),
    Wrong("revocation-of-nothing", "CertificateRevocation", revocation(), "spec"),
    Wrong(
        "revocation-of-both", "CertificateRevocation", revocation(device="a", serial="1"), "either"
    ),
    Wrong("revocation-device", "CertificateRevocation", revocation(device="A b"), "spec.device"),
    Wrong("revocation-serial", "CertificateRevocation", revocation(serial="0x1"), "spec.serial"),
    Wrong(
        "revocation-until",
        "CertificateRevocation",
        revocation(serial="1", until="2026-13-01T00:00:00Z"),
        "spec.until",
    ),
]

_TEXTS = [
    Wrong("empty-body", "Device", "", "body"),
    Wrong("not-yaml", "Device", "kind: [", "body"),
    Wrong("not-an-object", "Device", "- 1\n- 2\n", "body"),
    Wrong("a-number", "Device", "7", "body"),
    Wrong("endless-alias", "Device", "a: &a\n  b: *a\n", "alias"),
    Wrong("too-big", "Device", '{"kind": "Device", "x": "' + "x" * (4 * MIB) + '"}', "large"),
]

WRONG: list[Wrong] = [
    *_METADATA,
    *_DEVICE,
    *_APPLICATIONS,
    *_FLEET,
    *_OTHERS,
    *_TEXTS,
]
# Those that can be read and are wrong as documents.
DOCUMENTS = [wrong for wrong in WRONG if isinstance(wrong.body, dict)]
TEXTS = [wrong for wrong in WRONG if isinstance(wrong.body, str)]
# Each builder's document with nothing wrong in it: what the others differ from.
RIGHT: list[tuple[str, Json]] = [
    ("Device", device()),
    ("Device", device(inline())),
    ("Device", device(app())),
    ("Device", device(app("helm", values={"a": {"b": None}}, valuesFiles=["v.yaml"]))),
    ("Device", device(compose("services: {a: {image: quay.io/a/b:1}}"))),
    ("Device", device(quadlet(a_container=_CONTAINER))),
    ("Device", device({"resources": [monitor()]})),
    ("Device", device(schedule(timeZone="Europe/Berlin"))),
    ("Fleet", fleet(selector=_SELECTOR)),
    ("Fleet", batches({"limit": 1}, {"limit": "50%", "selector": _SELECTOR}, {})),
    ("Fleet", policy(disruptionBudget={"maxUnavailable": 1, "groupBy": ["site"]})),
    ("EnrollmentRequest", enrollment()),
    ("CertificateSigningRequest", csr()),
    ("Rollout", rollout(control={"paused": True, "retry": 1})),
    ("CertificateRevocation", revocation(device="a")),
    ("EnrollmentPolicy", admission(selector={})),
    (
        "EnrollmentPolicy",
        admission(
            selector=_SELECTOR,
            serialNumbers=["a"],
            systemInfo={"customInfo.line": "4"},
            devices=["a"],
            certificateRequests=["factory"],
            certificateFingerprints=["ab:" * 31 + "CD"],
            certificateAuthorities=["abcd"],
            tpmVerified=True,
            tpmKeys=["ab" * 32],
            labels={"site": "a"},
            replaceLabels=True,
            limit=1,
        ),
    ),
    ("CertificateRevocation", revocation(serial="0A:ff", until="2036-01-01T00:00:00.5+02:00")),
]
