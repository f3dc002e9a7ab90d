"""Applications of a device: containers, Compose, Quadlet, Helm charts, virtual machines.

`appType` tells the kind. The invariant: each application has exactly one source that its kind can
run, a name (its own or its image) that no other has, and nothing that only the service may set.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from resources import formats, inlineapps
from resources.configproviders import check_content
from resources.errors import FORBIDDEN, INVALID, NOT_SUPPORTED, REQUIRED, FieldError
from resources.formats import is_parameterised
from resources.kind import Json
from resources.meta import (
    ATOMIC,
    OPEN,
    Complaints,
    Model,
    Unique,
    checked,
    complain,
    items,
    keyed,
    mapping,
    text,
)

APP_TYPES = ("compose", "container", "helm", "quadlet", "vm")
AppType = Literal["compose", "container", "helm", "quadlet", "vm"]
SOURCES = ("image", "catalogItemRef", "inline")
_SOURCES_OF = {
    "compose": SOURCES,
    "container": ("image", "catalogItemRef"),
    "helm": ("image",),
    "quadlet": SOURCES,
    "vm": ("image", "inline"),
}
_READ_ONLY = ("annotations", "desiredState", "restartGeneration")
_WITH_ENVIRONMENT = ("compose", "container", "quadlet")


class CatalogItemRef(Model):
    catalog: str = Field(description="Name of the catalog.")
    item: str = Field(description="Name of the item in the catalog.")
    version: str = Field(description="Version of the item.")
    channel: str | None = Field(None, description="Channel that the version was taken from.")


class InlineAppFile(Model):
    path: str = Field(description="Path of the file inside the application, relative.")
    content: str | None = Field(
        None, description="Content of the file, plain or in base64; 1 MiB at most."
    )
    content_encoding: Literal["plain", "base64"] | None = Field(
        None, description="How content is written: plain (the default) or base64."
    )


class VolumeImage(Model):
    reference: str | None = Field(None, description="OCI image or artifact that fills the volume.")
    catalog_item_ref: CatalogItemRef | None = Field(
        None, description="Catalog item that fills the volume, instead of reference."
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        None, description="When the image is fetched. Default IfNotPresent."
    )


class VolumeMount(Model):
    path: str = Field(
        description="Where the volume appears: an absolute path, options after a ':' if wanted."
    )


class Volume(Model):
    name: str = Field(description="Name of the volume, unique in the application.")
    reclaim_policy: Literal["Retain"] | None = Field(
        None, description="What becomes of the data when the application goes: Retain keeps it."
    )
    image: VolumeImage | None = Field(None, description="Fills the volume from an image.")
    mount: VolumeMount | None = Field(
        None, description="Mounts the volume into the container; containers only."
    )


class ResourceLimits(Model):
    cpu: str | None = Field(
        None, pattern=formats.CPU, description="Processors as a decimal number, such as 0.5."
    )
    memory: str | None = Field(
        None, pattern=formats.MEMORY, description="Bytes, or with a unit b, k, m or g: 256m."
    )


class AppResources(Model):
    limits: ResourceLimits | None = Field(None, description="The most that it may use.")


class Application(Model):
    name: str | None = Field(
        None,
        description="Name, unique on the device. Not needed with image, which then names it.",
    )
    image: str | None = Field(
        None, description="OCI image: the container, or the package with the application's files."
    )
    desired_state: Literal["running", "stopped"] | None = Field(
        None, description="Whether it should run. Read only; set by the actions start and stop."
    )
    restart_generation: int | None = Field(
        None, description="Counts the restarts asked for. Read only; set by the action restart."
    )
    annotations: dict[str, str] | None = Field(
        None, description="Notes of the service on the application. Read only."
    )


_CATALOG = Field(None, description="Takes the application from a catalog, instead of image.")
_ENV = Field(None, description="Environment variables, by name.")
_RUN_AS = Field(None, description="User on the device that runs it. Default root.")
_VOLUMES = Field(None, description="Volumes that it uses.", json_schema_extra=keyed("name"))


class ComposeApplication(Application):
    app_type: Literal["compose"] = Field(description="Several containers in Compose files.")
    catalog_item_ref: CatalogItemRef | None = _CATALOG
    inline: list[InlineAppFile] | None = Field(
        None,
        description="The Compose file, and an override if wanted, written out here.",
        json_schema_extra=keyed("path"),
    )
    env_vars: dict[str, str] | None = _ENV
    volumes: list[Volume] | None = _VOLUMES


class QuadletApplication(Application):
    app_type: Literal["quadlet"] = Field(description="Podman units that systemd runs.")
    catalog_item_ref: CatalogItemRef | None = _CATALOG
    inline: list[InlineAppFile] | None = Field(
        None,
        description="Quadlet units and the files that they use, written out here.",
        json_schema_extra=keyed("path"),
    )
    env_vars: dict[str, str] | None = _ENV
    run_as: str | None = _RUN_AS
    volumes: list[Volume] | None = _VOLUMES


class ContainerApplication(Application):
    app_type: Literal["container"] = Field(description="One container.")
    catalog_item_ref: CatalogItemRef | None = _CATALOG
    env_vars: dict[str, str] | None = _ENV
    run_as: str | None = _RUN_AS
    volumes: list[Volume] | None = _VOLUMES
    ports: list[Annotated[str, Field(pattern=formats.PORT_PAIR)]] | None = Field(
        None,
        description="Published ports as host:container, such as 8080:80.",
        json_schema_extra=ATOMIC,
    )
    resources: AppResources | None = Field(None, description="Limits on what it uses.")


class HelmApplication(Application):
    app_type: Literal["helm"] = Field(description="A chart, installed on the device's MicroShift.")
    catalog_item_ref: CatalogItemRef | None = _CATALOG
    namespace: str | None = Field(None, description="Namespace that the chart is installed into.")
    values: dict[str, Any] | None = Field(
        None,
        description="Values for the chart, as its author defined them.",
        json_schema_extra=OPEN,
    )
    values_files: list[str] | None = Field(
        None,
        description="Files of values inside the chart, .yaml or .yml; later ones win.",
        json_schema_extra=ATOMIC,
    )


class VmApplication(Application):
    app_type: Literal["vm"] = Field(description="A virtual machine.")
    inline: list[InlineAppFile] | None = Field(
        None,
        description="One file, vm.yaml: a VirtualMachine of kubevirt.io/v1.",
        json_schema_extra=keyed("path"),
    )
    publish_ports: list[Annotated[str, Field(pattern=formats.PORT_PAIR_PROTOCOL)]] | None = Field(
        None,
        description="Published ports as host:guest, with /tcp, /udp or /sctp if wanted.",
        json_schema_extra=ATOMIC,
    )


def _tag(application: Any) -> str | None:
    found = application.get("appType") if isinstance(application, dict) else None
    return f"<{found}>" if found in APP_TYPES else None


AnyApplication = Annotated[
    Annotated[ComposeApplication, Tag("<compose>")]
    | Annotated[QuadletApplication, Tag("<quadlet>")]
    | Annotated[ContainerApplication, Tag("<container>")]
    | Annotated[HelmApplication, Tag("<helm>")]
    | Annotated[VmApplication, Tag("<vm>")],
    Discriminator(
        _tag,
        custom_error_type="appType",
        custom_error_message="write one of: " + ", ".join(APP_TYPES),
    ),
]


def check(spec: Json, path: str, *, templated: bool) -> Complaints:
    """The rules for `spec.applications`; `templated` says that parameters may stand for values."""
    names = Unique("name")
    for index, application in items(spec, "applications"):
        here = f"{path}.applications[{index}]"
        name = text(application, "name") or text(application, "image")
        if name is not None:
            key = "name" if text(application, "name") else "image"
            yield from names.check(f"{here}.{key}", name)
        app_type = text(application, "appType")
        if app_type in APP_TYPES:
            yield from _check_one(application, app_type, here, templated)


def _check_one(application: Json, app_type: str, path: str, templated: bool) -> Complaints:
    yield from checked(application, "name", path, _app_name)
    for key in _READ_ONLY:
        if application.get(key) is not None:
            yield FieldError(
                f"{path}.{key}", FORBIDDEN, "is read only: set by the service; remove it"
            )
    yield from _check_source(application, app_type, path, templated)
    if app_type in _WITH_ENVIRONMENT:
        yield from _check_environment(application, path, templated)
    if text(application, "runAs"):
        yield from checked(application, "runAs", path, formats.user)
    yield from _check_volumes(application, app_type, path, templated)
    for key, protocol in (("ports", False), ("publishPorts", True)):
        ports = application.get(key)
        for index, port in enumerate(ports if isinstance(ports, list) else ()):
            if isinstance(port, str):
                problem = formats.port_pair(port, protocol=protocol)
                yield from complain(f"{path}.{key}[{index}]", problem)
    limits = mapping(application, "resources", "limits")
    yield from checked(limits, "cpu", f"{path}.resources.limits", _cpu)
    yield from checked(limits, "memory", f"{path}.resources.limits", _memory)
    if app_type == "helm":
        yield from _check_helm(application, path)


def _app_name(name: str) -> str | None:
    return formats.generic_name(name, formats.MAX_NAME) if name else None


def _cpu(cpu: str) -> str | None:
    right = re.fullmatch(formats.CPU, cpu)
    return None if right else f"{formats.shown(cpu)} is no number of processors: write 2 or 0.5"


def _memory(memory: str) -> str | None:
    right = re.fullmatch(formats.MEMORY, memory)
    return None if right else f"{formats.shown(memory)} is no size: write bytes, or 512k, 256m, 1g"


def _check_source(application: Json, app_type: str, path: str, templated: bool) -> Complaints:
    given = [key for key in SOURCES if application.get(key) is not None]
    allowed = _SOURCES_OF[app_type]
    if not given:
        yield FieldError(path, REQUIRED, f"say where it comes from: give {' or '.join(allowed)}")
        return
    for key in given:
        if key not in allowed:
            detail = f"a {app_type} application cannot use it; give {' or '.join(allowed)}"
            yield FieldError(f"{path}.{key}", FORBIDDEN, detail)
    if len(given) > 1:
        detail = f"give only one of {', '.join(given)}"
        yield FieldError(f"{path}.{given[1]}", FORBIDDEN, detail)
    if not text(application, "name") and "image" not in given:
        detail = "name the application: only one with an image can do without"
        yield FieldError(f"{path}.name", REQUIRED, detail)
    image = text(application, "image")
    if image is not None:
        yield from complain(f"{path}.image", formats.image(image, templated=templated))
    yield from check_catalog_item(application, path)
    if "inline" in given and "inline" in allowed:
        yield from _check_inline(application, app_type, f"{path}.inline", templated)


def check_catalog_item(document: Json, path: str) -> Complaints:
    reference = mapping(document, "catalogItemRef")
    for key in ("catalog", "item", "version"):
        value = text(reference, key)
        if value is not None and (not value or value != value.strip()):
            detail = "must not be empty, and have no blanks around it"
            yield FieldError(f"{path}.catalogItemRef.{key}", INVALID, detail)


def _check_inline(application: Json, app_type: str, path: str, templated: bool) -> Complaints:
    paths = Unique("path")
    for index, file in items(application, "inline"):
        here = f"{path}[{index}]"
        name = text(file, "path")
        if name is not None:
            yield from paths.check(f"{here}.path", name)
            if not (templated and is_parameterised(name)):
                yield from complain(f"{here}.path", formats.relative_path(name))
        yield from check_content(file, here)
    files = inlineapps.readable(application.get("inline"), path, templated=templated)
    yield from inlineapps.CHECKS[app_type](files, path, text(application, "name"))


def _check_environment(application: Json, path: str, templated: bool) -> Complaints:
    for key, value in mapping(application, "envVars").items():
        here = f"{path}.envVars[{key}]"
        yield from complain(here, formats.env_name(key))
        if not isinstance(value, str) or (templated and is_parameterised(value)):
            continue
        if not 1 <= len(value) <= formats.MAX_NAME:
            detail = f"a value has 1 to {formats.MAX_NAME} characters, this one {len(value)}"
            yield FieldError(here, INVALID, detail)


def _check_volumes(application: Json, app_type: str, path: str, templated: bool) -> Complaints:
    names = Unique("name")
    for index, volume in items(application, "volumes"):
        here = f"{path}.volumes[{index}]"
        name = text(volume, "name")
        if name is not None:
            yield from complain(f"{here}.name", formats.generic_name(name, formats.MAX_NAME))
            yield from names.check(f"{here}.name", name)
        yield from _check_volume_kind(volume, app_type, here)
        image = mapping(volume, "image")
        if volume.get("image") is not None:
            sources = [k for k in ("reference", "catalogItemRef") if image.get(k) is not None]
            if len(sources) != 1:
                reason = FORBIDDEN if sources else REQUIRED
                detail = "give either reference or catalogItemRef"
                yield FieldError(f"{here}.image", reason, detail)
            reference = text(image, "reference")
            if reference is not None:
                problem = formats.image(reference, templated=templated)
                yield from complain(f"{here}.image.reference", problem)
            yield from check_catalog_item(image, f"{here}.image")
        mount = text(mapping(volume, "mount"), "path")
        if mount is not None:
            yield from complain(
                f"{here}.mount.path", formats.absolute_path(mount.partition(":")[0])
            )


def _check_volume_kind(volume: Json, app_type: str, path: str) -> Complaints:
    has_image, has_mount = (volume.get(key) is not None for key in ("image", "mount"))
    if app_type == "container":
        if not has_mount:
            detail = "say where the container sees the volume: give mount.path"
            yield FieldError(f"{path}.mount", REQUIRED, detail)
        return
    if has_mount:
        detail = f"only containers mount here; a {app_type} application mounts in its own files"
        yield FieldError(f"{path}.mount", FORBIDDEN, detail)
    if not has_image:
        yield FieldError(
            f"{path}.image", REQUIRED, "say what fills the volume: give image.reference"
        )


def _check_helm(application: Json, path: str) -> Complaints:
    if text(application, "namespace"):
        yield from checked(application, "namespace", path, formats.generic_name)
    files = application.get("valuesFiles")
    for index, name in enumerate(files if isinstance(files, list) else ()):
        if isinstance(name, str):
            here = f"{path}.valuesFiles[{index}]"
            yield from complain(here, formats.relative_path(name))
            if not name.endswith((".yaml", ".yml")):
                detail = f"{formats.shown(name)} must end with .yaml or .yml"
                yield FieldError(here, NOT_SUPPORTED, detail)
