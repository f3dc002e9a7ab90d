"""Every kind that the service keeps, declared once.

Namespaces and events belong to standalone mode, and live with the API server.
"""

from __future__ import annotations

from resources import (
    auditevent,
    authprovider,
    backlog,
    certificates,
    device,
    enrollment,
    enrollmentpolicy,
    fleet,
    organization,
    repository,
    resourcesync,
    revocation,
    rollout,
    templateversion,
)
from resources.kind import FLIGHTCTL_GROUP, HOMEPORT_GROUP, Column, Kind, Subresource

V1BETA1 = "v1beta1"
V1ALPHA1 = "v1alpha1"

# A category may not share a name with a kind: kubectl expands categories first, and so
# `kubectl get fleet web` would ask every kind of a category `fleet`.
_CATEGORIES = ("homeport",)
_AGE = Column("Age", ".metadata.creationTimestamp", "date", "Time since it was created.")
_STATUS = Subresource("status", ("get", "patch", "update"))

DEVICE = Kind(
    group=FLIGHTCTL_GROUP,
    version=V1BETA1,
    kind="Device",
    plural="devices",
    singular="device",
    model=device.Device,
    description="A machine under management: what it should run, and what it says it runs.",
    short_names=("dev",),
    categories=_CATEGORIES,
    subresources=(
        _STATUS,
        Subresource("rendered", ("get",)),
        Subresource("lastseen", ("get",), "DeviceLastSeen"),
        Subresource("inputs", ("create",), "DeviceInputs"),
        Subresource("decommission", ("update",), "DeviceDecommission"),
        Subresource("lifecycle", ("create",), "ApplicationAction"),
    ),
    columns=(
        Column("Alias", ".metadata.labels.alias", description="The label alias."),
        Column("Owner", ".metadata.owner", description="Fleet that writes its spec."),
        Column("System", ".status.summary.status", description="The device as a whole."),
        Column("Updated", ".status.updated.status", description="Whether it runs what it should."),
        Column(
            "Applications", ".status.applicationsSummary.status", description="Its applications."
        ),
        _AGE,
        Column(
            "Version", ".status.config.renderedVersion", description="Version it runs.", priority=1
        ),
        Column("OS image", ".status.os.image", description="Image that is booted.", priority=1),
        Column("Info", ".status.updated.info", description="More on Updated.", priority=1),
        Column(
            "Agent", ".status.systemInfo.agentVersion", description="Agent's version.", priority=1
        ),
    ),
    selectable=(
        "metadata.owner",
        "metadata.alias",
        "status.summary.status",
        "status.updated.status",
        "status.applicationsSummary.status",
        "status.lifecycle.status",
        "status.capabilities.osMode",
        # These two are kept by the store and no part of the document.
        "status.renderNeeded",
        "status.connected",
    ),
    validate=device.check,
)

FLEET = Kind(
    group=FLIGHTCTL_GROUP,
    version=V1BETA1,
    kind="Fleet",
    plural="fleets",
    singular="fleet",
    model=fleet.Fleet,
    description="Devices chosen by labels, and the template that they share.",
    categories=_CATEGORIES,
    subresources=(
        _STATUS,
        Subresource("bindings", ("create",), "FleetBinding"),
        Subresource("progress", ("get",), "FleetProgress"),
        Subresource("lifecycle", ("create",), "ApplicationAction"),
    ),
    columns=(
        Column("Owner", ".metadata.owner", description="ResourceSync that keeps it."),
        Column("Selector", ".spec.selector.matchLabels", description="Labels of its devices."),
        Column("Valid", ".status.conditions[type=Valid].status", description="Template is usable."),
        Column("Devices", ".status.devicesSummary.total", "integer", "Devices that it owns."),
        Column(
            "Updated",
            ".status.devicesSummary.updateStatus.UpToDate",
            "integer",
            "Devices that run what they should.",
        ),
        Column(
            "Rollout",
            ".status.conditions[type=RolloutInProgress].reason",
            description="Whether a change is on its way.",
        ),
        _AGE,
        Column("OS image", ".spec.template.spec.os.image", description="Wanted image.", priority=1),
        Column(
            "Message",
            ".status.conditions[type=RolloutInProgress].message",
            description="More on Rollout.",
            priority=1,
        ),
    ),
    selectable=("metadata.owner", "spec.template.spec.os.image"),
    validate=fleet.check,
)

TEMPLATE_VERSION = Kind(
    group=FLIGHTCTL_GROUP,
    version=V1BETA1,
    kind="TemplateVersion",
    plural="templateversions",
    singular="templateversion",
    model=templateversion.TemplateVersion,
    description="A fleet's template as it was at one moment, everything outside it frozen.",
    short_names=("tv",),
    categories=_CATEGORIES,
    subresources=(_STATUS, Subresource("values", ("get", "create"), "FrozenValues")),
    columns=(Column("Fleet", ".spec.fleet", description="Whose template it is."), _AGE),
    selectable=("metadata.owner", "spec.fleet"),
    validate=templateversion.check,
    immutable=("spec",),
    internal=True,
)

ENROLLMENT_REQUEST = Kind(
    group=FLIGHTCTL_GROUP,
    version=V1BETA1,
    kind="EnrollmentRequest",
    plural="enrollmentrequests",
    singular="enrollmentrequest",
    model=enrollment.EnrollmentRequest,
    description="A machine that asks to become a device.",
    short_names=("er",),
    categories=_CATEGORIES,
    subresources=(
        _STATUS,
        Subresource("approval", ("get", "patch", "update"), "EnrollmentRequestApproval"),
    ),
    columns=(
        Column("Approved", ".status.approval.approved", "boolean", "Empty while it is pending."),
        Column("Approver", ".status.approval.approvedBy", description="Who decided."),
        Column("Labels", ".status.approval.labels", description="Labels that it was given."),
        _AGE,
        Column("OS mode", ".spec.osMode", description="Image or package.", priority=1),
    ),
    selectable=("metadata.owner", "status.approval.approved", "status.certificate"),
    validate=enrollment.check,
)

CERTIFICATE_SIGNING_REQUEST = Kind(
    group=FLIGHTCTL_GROUP,
    version=V1BETA1,
    kind="CertificateSigningRequest",
    plural="certificatesigningrequests",
    singular="certificatesigningrequest",
    model=certificates.CertificateSigningRequest,
    description="A certificate that is asked for.",
    # Not csr: that is the short name of Kubernetes' own kind of this name.
    short_names=("fcsr",),
    categories=_CATEGORIES,
    subresources=(
        _STATUS,
        Subresource("approval", ("get", "patch", "update")),
        Subresource("enrollmentconfig", ("get",), "EnrollmentConfig"),
    ),
    columns=(
        Column("Signer", ".spec.signerName", description="Who is asked to sign."),
        Column("Requestor", ".spec.username", description="Who asked."),
        Column("Duration", ".spec.expirationSeconds", "integer", "Wanted lifetime in seconds."),
        Column("Approved", ".status.conditions[type=Approved].status", description="Approved."),
        Column("Denied", ".status.conditions[type=Denied].status", description="Denied."),
        Column("Failed", ".status.conditions[type=Failed].reason", description="Why it failed."),
        _AGE,
    ),
    selectable=("status.certificate",),
    validate=certificates.check,
)

REPOSITORY = Kind(
    group=FLIGHTCTL_GROUP,
    version=V1BETA1,
    kind="Repository",
    plural="repositories",
    singular="repository",
    model=repository.Repository,
    description="A source of configuration or images, and the credentials for it.",
    short_names=("repo",),
    categories=_CATEGORIES,
    # The secrets that reads mask; for the controllers alone.
    subresources=(_STATUS, Subresource("credentials", ("get",))),
    columns=(
        Column("Type", ".spec.type", description="git, http or oci."),
        Column("URL", ".spec.url", description="Address of a Git repository or HTTP server."),
        Column("Registry", ".spec.registry", description="Host of a registry."),
        Column(
            "Accessible",
            ".status.conditions[type=Accessible].status",
            description="Whether it could be read last time.",
        ),
        _AGE,
        Column(
            "Message",
            ".status.conditions[type=Accessible].message",
            description="More on Accessible.",
            priority=1,
        ),
    ),
    selectable=("metadata.owner", "spec.type", "spec.url", "spec.registry", "spec.accessMode"),
    validate=repository.check,
)

RESOURCE_SYNC = Kind(
    group=FLIGHTCTL_GROUP,
    version=V1BETA1,
    kind="ResourceSync",
    plural="resourcesyncs",
    singular="resourcesync",
    model=resourcesync.ResourceSync,
    description="Fleets that are kept as a Git repository describes them.",
    # Not rs: those are Kubernetes' ReplicaSets.
    categories=_CATEGORIES,
    subresources=(_STATUS, Subresource("refresh", ("create",))),
    columns=(
        Column("Repository", ".spec.repository", description="Where it reads."),
        Column("Path", ".spec.path", description="File or directory of the manifests."),
        Column("Revision", ".spec.targetRevision", description="Branch, tag or commit."),
        Column(
            "Accessible",
            ".status.conditions[type=Accessible].status",
            description="Whether the repository could be read last time.",
        ),
        Column(
            "Synced",
            ".status.conditions[type=Synced].status",
            description="Whether everything is as it describes.",
        ),
        Column(
            "Last sync",
            ".status.conditions[type=Synced].lastTransitionTime",
            "date",
            "When Synced last changed.",
        ),
        _AGE,
        Column("Commit", ".status.observedCommit", description="Commit applied.", priority=1),
        Column(
            "Message",
            ".status.conditions[type=Synced].message",
            description="More on Synced.",
            priority=1,
        ),
    ),
    selectable=("metadata.owner", "spec.repository", "spec.type"),
    validate=resourcesync.check,
    immutable=("spec.type",),
    defaults={"spec.type": "fleet"},
)

AUTH_PROVIDER = Kind(
    group=FLIGHTCTL_GROUP,
    version=V1BETA1,
    kind="AuthProvider",
    plural="authproviders",
    singular="authprovider",
    model=authprovider.AuthProvider,
    description="An identity provider whose users may come, and what they may do.",
    short_names=("ap",),
    columns=(
        Column("Type", ".spec.providerType", description="oidc or oauth2."),
        Column("Issuer", ".spec.issuer", description="Address of the provider."),
        Column("Client", ".spec.clientId", description="What the service is called there."),
        Column("Enabled", ".spec.enabled", "boolean", "Empty means true."),
        _AGE,
    ),
    validate=authprovider.check,
)

ORGANIZATION = Kind(
    group=FLIGHTCTL_GROUP,
    version=V1BETA1,
    kind="Organization",
    plural="organizations",
    singular="organization",
    model=organization.Organization,
    description="A tenant; its objects live in the namespace that it is paired with.",
    namespaced=False,
    short_names=("org",),
    columns=(
        Column("Display name", ".spec.displayName", description="Name for people."),
        Column("External ID", ".spec.externalId", description="Name at the identity provider."),
        _AGE,
    ),
)

ROLLOUT = Kind(
    group=HOMEPORT_GROUP,
    version=V1ALPHA1,
    kind="Rollout",
    plural="rollouts",
    singular="rollout",
    model=rollout.Rollout,
    description="One attempt to bring a template version to a fleet's devices.",
    categories=_CATEGORIES,
    subresources=(_STATUS,),
    columns=(
        Column("Fleet", ".spec.target.fleet", description="Fleet that it is for."),
        Column("Template", ".spec.target.templateVersion", description="What goes out."),
        Column("Phase", ".status.phase", description="What it is doing, or how it ended."),
        Column("Devices", ".status.counts.selected", "integer", "Devices whose batch has come."),
        Column("Done", ".status.counts.done", "integer", "Devices that run it."),
        Column("Failed", ".status.counts.failed", "integer", "Devices that went back."),
        _AGE,
        Column("Batch", ".status.currentBatch", "integer", "Batch under way.", priority=1),
        Column(
            "Cause", ".status.failures[0].cause", description="Most frequent failure.", priority=1
        ),
    ),
    selectable=("spec.target.fleet", "status.phase"),
    validate=rollout.check,
    immutable=("spec.target",),
)

BACKLOG = Kind(
    group=HOMEPORT_GROUP,
    version=V1ALPHA1,
    kind="Backlog",
    plural="backlogs",
    singular="backlog",
    model=backlog.Backlog,
    description="Work on devices that is waiting in a namespace.",
    subresources=(
        _STATUS,
        Subresource("following", ("get",), "FollowingDevices"),
        Subresource("resume", ("create",), "DevicesResume"),
    ),
    columns=(
        Column("To render", ".status.renderNeeded", "integer", "Devices to be rendered."),
        _AGE,
    ),
    internal=True,
)

CERTIFICATE_REVOCATION = Kind(
    group=HOMEPORT_GROUP,
    version=V1ALPHA1,
    kind="CertificateRevocation",
    plural="certificaterevocations",
    singular="certificaterevocation",
    model=revocation.CertificateRevocation,
    description="Certificates that count no more: a device's, or the one of a serial number.",
    short_names=("revoked",),
    columns=(
        Column("Device", ".spec.device", description="Whose certificates are refused."),
        Column("Serial", ".spec.serial", description="Which one is refused."),
        Column("Reason", ".spec.reason", description="Why."),
        _AGE,
        Column("Until", ".spec.until", "date", "When it would have expired.", priority=1),
    ),
    selectable=("spec.device", "spec.serial"),
    validate=revocation.check,
    immutable=("spec.device", "spec.serial"),
)

ENROLLMENT_POLICY = Kind(
    group=HOMEPORT_GROUP,
    version=V1ALPHA1,
    kind="EnrollmentPolicy",
    plural="enrollmentpolicies",
    singular="enrollmentpolicy",
    model=enrollmentpolicy.EnrollmentPolicy,
    description="Machines that are let in without a person, and as what.",
    short_names=("enrolpol",),
    categories=_CATEGORIES,
    subresources=(_STATUS,),
    columns=(
        Column("Admitted", ".status.admitted", "integer", "How many it has let in."),
        Column("Limit", ".spec.limit", "integer", "How many it may let in."),
        Column("Labels", ".spec.labels", description="Labels that these get."),
        Column("Last", ".status.lastAdmittedAt", "date", "When it let one in last."),
        _AGE,
        Column("Device", ".status.lastAdmitted", description="The last one.", priority=1),
    ),
    validate=enrollmentpolicy.check,
)

AUDIT_EVENT = Kind(
    group=HOMEPORT_GROUP,
    version=V1ALPHA1,
    kind="AuditEvent",
    plural="auditevents",
    singular="auditevent",
    model=auditevent.AuditEvent,
    description="A write that was done, or something that was refused: who, what, from where.",
    short_names=("audit",),
    verbs=("get", "list", "watch"),
    columns=(
        Column("User", ".spec.user", description="Who asked."),
        Column("Verb", ".spec.verb", description="What was asked."),
        Column("Kind", ".spec.object.kind", description="Of which kind of object."),
        Column("Object", ".spec.object.name", description="Of which object."),
        Column("Code", ".spec.code", "integer", "HTTP status of the answer."),
        _AGE,
        Column("Part", ".spec.object.subresource", description="Of which part.", priority=1),
        Column("From", ".spec.sourceAddress", description="Address of the client.", priority=1),
        Column("Reason", ".spec.reason", description="Why it was refused.", priority=1),
    ),
    selectable=(
        "spec.user",
        "spec.verb",
        "spec.object.kind",
        "spec.object.name",
        "spec.object.uid",
        "spec.code",
        "spec.requestId",
    ),
)

KINDS: tuple[Kind, ...] = (
    DEVICE,
    FLEET,
    TEMPLATE_VERSION,
    ENROLLMENT_REQUEST,
    ENROLLMENT_POLICY,
    CERTIFICATE_SIGNING_REQUEST,
    REPOSITORY,
    RESOURCE_SYNC,
    AUTH_PROVIDER,
    ORGANIZATION,
    ROLLOUT,
    BACKLOG,
    CERTIFICATE_REVOCATION,
    AUDIT_EVENT,
)

_BY_PATH = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}
_BY_KIND = {kind.kind: kind for kind in KINDS}


def by_path(group: str, version: str, plural: str) -> Kind | None:
    """The kind served under `/apis/<group>/<version>/<plural>`."""
    return _BY_PATH.get((group, version, plural))


def by_kind(kind: str) -> Kind:
    """The kind of this name; KeyError if there is none, which is a programmer's error."""
    return _BY_KIND[kind]
