"""`homeport` and the newest kubectl run the same commands on one server, and print the same.

What is compared is everything: exit code, standard output, standard error. What homeport says
beyond that (`hint:` lines) is taken off; what differs from run to run is blotted out. Reading
happens in one namespace; what writes is done twice, by each in a namespace of its own.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cli import main
from tests.conformance.conftest import Ran, binaries, fleet, namespace_manifest
from tests.fakes import apiserver_process

HOMEPORT = Path(sys.executable).parent / "homeport"
TIMEOUT_S = 45
_NUMBERS = itertools.count(1)

REPOSITORY = """
apiVersion: flightctl.io/v1beta1
kind: Repository
metadata: {name: site, annotations: {note: "a <b> & c"}}
spec: {type: git, url: "https://git.example.com/site.git"}
"""


@dataclass(frozen=True, slots=True)
class Program:
    """One of the two, with everything that it is always told."""

    argv: tuple[str, ...]
    namespace: str

    def run(self, *words: str, stdin: str = "", editor: str = "true") -> Ran:
        argv = [*self.argv, "--namespace", self.namespace, *words]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBE_EDITOR", editor)
            ran = _here(argv, stdin) if argv[0] == str(HOMEPORT) else _there(argv, stdin)
        err = "".join(x for x in ran.err.splitlines(True) if not x.startswith("hint: "))
        return Ran(ran.code, ran.out, err)

    def __call__(self, *words: str, stdin: str = "") -> str:
        ran = self.run(*words, stdin=stdin)
        assert ran.code == 0, f"{words}: {ran.err}{ran.out}"
        return ran.out


def _there(argv: list[str], stdin: str) -> Ran:
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def _here(argv: list[str], stdin: str) -> Ran:
    """homeport's own entry point, without the half second that a hundred starts of Python take;
    the watches below and the completion start the program itself."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main.main()
            except SystemExit as end:
                code = int(end.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())


@dataclass(frozen=True, slots=True)
class Both:
    kubectl: Program
    homeport: Program


@pytest.fixture(scope="session")
def programs(
    server: apiserver_process.Process, caches: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    access = ("--kubeconfig", str(server.kubeconfig))
    cache = ("--cache-dir", str(caches / "beside-homeport"))
    return (str(binaries()[-1]), *access, *cache), (str(HOMEPORT), *access)


@pytest.fixture(scope="module")
def same(programs: tuple[tuple[str, ...], tuple[str, ...]]) -> Both:
    """Both in one namespace, which has something in it."""
    namespace = f"same-{next(_NUMBERS)}"
    both = Both(*(Program(argv, namespace) for argv in programs))
    both.kubectl("create", "-f", "-", stdin=namespace_manifest(namespace))
    for name in ("web", "gin"):
        both.kubectl("apply", "-f", "-", stdin=fleet(name))
    both.kubectl("label", "fleet", "gin", "site=a", "tier=core", "--overwrite")
    both.kubectl("create", "-f", "-", stdin=REPOSITORY)
    return both


@pytest.fixture
def twins(programs: tuple[tuple[str, ...], tuple[str, ...]]) -> Both:
    """Each in a namespace of its own, both of them empty; the names are of one length, since
    columns are as wide as what is in them."""
    number = next(_NUMBERS)
    both = Both(*(Program(argv, f"{t}-{number}") for argv, t in zip(programs, "kh", strict=True)))
    for program in (both.kubectl, both.homeport):
        both.kubectl("create", "-f", "-", stdin=namespace_manifest(program.namespace))
    return both


READS = [
    "get fleets",
    "get fleets -o wide",
    "get fleet web gin",
    "get fleet/web repository/site",
    "get fleets,repositories",
    "get homeport",
    "get fleets --show-labels -L tier,site",
    "get fleets --no-headers",
    "get fleets -l tier=core",
    "get fleets -l tier=none",
    "get fleets --field-selector metadata.name=web",
    "get fleets --field-selector spec.nothing=1",
    "get fleets --sort-by=.metadata.labels.tier",
    "get fleets -A -l site=a",
    "get ns default",
    "get repositories -o=wide",
    "get templateversions",
    "get templateversions -o yaml",
    "get fleet web -o yaml",
    "get fleet web -o json",
    "get fleet web -o yaml --show-managed-fields=true",
    "get repository site -o json",
    "get fleets -o yaml",
    "get fleets -o json",
    "get fleets,repositories -o name",
    "get fleet web -o jsonpath={.metadata.labels}",
    'get fleets -o jsonpath={range.items[*]}{.metadata.name}{"\\t"}{.spec.selector}{"\\n"}{end}',
    "get fleets -o jsonpath={.items[?(@.metadata.labels.tier=='edge')].metadata.name}",
    "get fleets -o jsonpath={.items[*]['kind','apiVersion']}",
    "get fleets -o jsonpath={.items[9].kind}",
    "get fleets -o custom-columns=NAME:.metadata.name,L:.metadata.labels,NO:.spec.nothing",
    "get fleet nobody",
    "get fleet web nobody",
    "get fleet nobody --ignore-not-found",
    "get -n nowhere fleets",
    "get pods",
    "get fleet web -l tier=edge",
    "get fleets --kubeconfig=/nowhere/at/all --ignore-not-found",
    "api-resources",
    "api-resources -o wide",
    "api-resources -o name --namespaced=true --api-group=flightctl.io",
    "label fleet gin --list",
    "wait fleet/web --for=jsonpath={.metadata.name}=web --timeout=5s",
    "wait fleet web gin --for=jsonpath={.kind}=Fleet --timeout=5s",
    "wait fleet nobody --for=condition=Ready",
    "wait fleet web --for=condition=Nonsense --timeout=1s",
    "delete fleets",
    "delete fleet nobody",
    "delete fleet web gin --dry-run=server",
    "delete fleets --all --dry-run=client -o name",
    "label fleet web",
    "label fleet web tier=other",
    "annotate repository site note=other",
    "apply -f /nowhere/at/all",
]


# Said in words of our own: only that it is an error is the same.
OWN_WORDS = {
    "get fleets --kubeconfig=/nowhere/at/all --ignore-not-found",
    "get fleets -o jsonpath={.items[9].kind}",
    "get fleets --field-selector spec.nothing=1",
    "apply -f /nowhere/at/all",
}
# The order of kubectl's is chance.
UNORDERED = {"label fleet gin --list"}
_AGES = re.compile(r" *\b(?:\d+[smhd]){1,2}\b *")


def timeless(ran: Ran) -> Ran:
    """Without ages, and the blanks by which they are aligned."""
    return Ran(ran.code, _AGES.sub(" AGE ", ran.out), ran.err)


@pytest.mark.parametrize("command", READS)
def test_the_same_is_printed(same: Both, command: str) -> None:
    words = command.split(" ")
    theirs, ours = timeless(same.kubectl.run(*words)), timeless(same.homeport.run(*words))
    if command in OWN_WORDS:
        ours, theirs = (Ran(ran.code, ran.out, ran.err[:6]) for ran in (ours, theirs))
    if command in UNORDERED:
        ours, theirs = (Ran(r.code, "".join(sorted(r.out)), r.err) for r in (ours, theirs))
    assert ours == theirs


@pytest.mark.parametrize("words", ["fleet", "fleets.spec", "devices.spec.applications",
                                   "device.status.conditions.status", "fleet --recursive",
                                   "rollouts.homeport.dev.spec.control", "ns",
                                   "fleet.spec.nothing"])  # fmt: skip
def test_kinds_are_explained_in_the_same_words(same: Both, words: str) -> None:
    theirs = same.kubectl.run("explain", *words.split())
    ours = same.homeport.run("explain", *words.split())
    assert (ours.code, ours.err) == (theirs.code, theirs.err)
    # Where there is no such field kubectl says of what it found none.
    assert ours.code or ours.out.split() == theirs.out.split()


# Stories: steps, each a command line and its standard input; `edit` gets an editor.
CHANGED = fleet("web", "quay.io/acme/os:2")
UNLABELLED = CHANGED.replace("labels: {tier: edge}", "")
UNKNOWN = fleet("bad").replace("spec:\n  selector", "spec:\n  colour: blue\n  selector", 1)
INVALID = fleet("bad").replace("{fleet: bad}", '{fleet: "no spaces here"}')
TWICE_INVALID = INVALID.replace("quay.io/acme/os:1", "not an image")
STALE = CHANGED.replace("name: web\n", 'name: web\n  resourceVersion: "1"\n')
GENERATED = fleet("web").replace("name: web\n", "generateName: web-\n", 1)
STORIES: dict[str, list[tuple[str, str]]] = {
    "create and replace": [
        ("create -f - --dry-run=server", fleet("web")),
        ("create -f - --dry-run=client", fleet("web")),
        ("create -f -", fleet("web")),
        ("create -f -", fleet("web")),
        ("create -f - -o jsonpath={.metadata.name}", fleet("two")),
        ("create -f - --save-config", fleet("three")),
        ("create -f -", fleet("web") + "---" + fleet("four")),
        ("create -f -", UNKNOWN),
        ("create -f -", INVALID),
        ("create -f - --validate=warn", UNKNOWN),
        ("create -f - -l tier=core", fleet("six").replace("edge", "core") + "---" + fleet("not")),
        ("replace -f - --dry-run=server", CHANGED),
        ("replace -f - --dry-run=client", CHANGED),
        ("replace -f -", CHANGED),
        ("replace -f - -o name", CHANGED),
        ("replace -f -", STALE),
        ("replace -f -", fleet("nobody")),
        ("replace -f -", UNKNOWN),
        ("replace -f - --save-config", fleet("two", "quay.io/acme/os:2")),
        ("apply -f -", fleet("two").replace("labels: {tier: edge}", "")),
        ("apply -f -", fleet("three").replace("labels: {tier: edge}", "")),
        ("get fleets --show-labels", ""),
    ],
    "patch": [
        ("create -f -", fleet("web") + "---" + fleet("gin")),
        ('patch fleet web --type=merge -p {"metadata":{"labels":{"site":"a"}}}', ""),
        ('patch fleet web --type=merge -p {"metadata":{"labels":{"site":"a"}}}', ""),
        ('patch fleet/web fleet/gin --type=merge -p {"metadata":{"labels":{"site":"b"}}}', ""),
        ('patch fleet web gin --type=merge -p {"metadata":{"labels":{"site":"c"}}} -o name', ""),
        ('patch fleet web --type=json -p [{"op":"remove","path":"/metadata/labels/site"}]', ""),
        ('patch fleet web --type=json -p [{"op":"remove","path":"/metadata/labels/site"}]', ""),
        ('patch fleet web --type=json -p [{"op":"test","path":"/kind","value":"x"}]', ""),
        ('patch fleet web --type=merge -p {"spec":{"colour":"blue"}}', ""),
        ('patch fleet web --type=merge -p {"spec":{"selector":{"matchLabels":7}}}', ""),
        ('patch fleet web --type=merge -p {"spec":{"selector":null}} --dry-run=server -o name', ""),
        ('patch fleet web --type=merge -p {"spec":{"selector":null}} --dry-run=client -o json', ""),
        ('patch fleet web --subresource=status --type=merge -p {"status":{"conditions":[]}}', ""),
        ('patch -f - --type=merge -p {"metadata":{"labels":{"tier":"core"}}}', fleet("gin")),
        ("patch fleet nobody --type=merge -p {}", ""),
        ("patch fleet web --type=merge", ""),
        ("patch fleets --type=merge -p {}", ""),
        ("get fleets --show-labels", ""),
    ],
    "apply and diff": [
        ("diff -f -", fleet("web")),
        ("apply -f -", fleet("web")),
        ("apply -f -", fleet("web")),
        ("diff -f -", fleet("web")),
        ("diff -f -", CHANGED),
        ("apply -f - --dry-run=server", CHANGED),
        ("apply -f - --dry-run=client", CHANGED),
        ("apply -f -", CHANGED),
        ("apply -f -", UNLABELLED),
        ("apply -f - -o name", UNLABELLED),
        ("apply -f - -o jsonpath={.metadata.name}", CHANGED),
        ("apply -f -", fleet("two") + "---" + fleet("three")),
        ("get fleets", ""),
    ],
    "label, annotate and edit": [
        ("apply -f -", CHANGED),
        ("label fleet web site=a", ""),
        ("label fleet web site=b", ""),
        ("label fleet web site=b --overwrite", ""),
        ("label fleet web site=b", ""),
        ("label fleet web site-", ""),
        ("label fleet web site-", ""),
        ("label fleets --all all=of --dry-run=server", ""),
        ("annotate fleet/web a=1 b=2", ""),
        ("annotate fleet/web a=2 --overwrite=true", ""),
        ("annotate fleet/web b-", ""),
        ("edit fleet web", ""),
        ("edit fleet web", ""),
        ("edit fleet nobody", ""),
    ],
    "refusals": [
        ("apply -f -", UNKNOWN),
        ("apply -f -", INVALID),
        ("apply -f -", TWICE_INVALID),
        ("apply -f - --validate=warn", UNKNOWN),
        ("apply -f - --dry-run=perhaps", UNKNOWN),
        ("apply -f - --force-conflicts", UNKNOWN),
    ],
    "server-side": [
        ("apply -f - --server-side --field-manager=me", fleet("side")),
        ("apply -f - --server-side --field-manager=you", fleet("side", "quay.io/acme/os:9")),
        ("apply -f - --server-side --field-manager=you --force-conflicts",
         fleet("side", "quay.io/acme/os:9")),
        ("diff -f - --server-side --field-manager=you", fleet("side", "quay.io/acme/os:10")),
    ],
    "delete": [
        ("apply -f -", fleet("one") + "---" + fleet("two") + "---" + fleet("three")),
        ("delete fleet two --dry-run=server", ""),
        ("delete fleet two", ""),
        ("delete fleet two", ""),
        ("delete fleet two --ignore-not-found", ""),
        ("delete -f -", fleet("three")),
        ("delete fleets -l tier=nothing", ""),
        ("delete fleets --all --wait=false", ""),
        ("get fleets", ""),
        ("create -f -", fleet("one") + "---" + fleet("two") + "---" + fleet("three")),
        ("delete fleet one --cascade=foreground", ""),
        ("delete fleet two --cascade=orphan", ""),
        ("delete fleet three --cascade=background", ""),
    ],
}  # fmt: skip
EDITOR = "sed -i s|acme/os:2|acme/os:7|"

_BLOTS = [
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "UID"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "TIME"),
    (re.compile(r'("?resourceVersion"?: )"\d+"'), r'\1"N"'),
    (re.compile(r"(---|\+\+\+) \S*?(LIVE|MERGED)\S*?/(\S+).*"), r"\1 \2/\3"),
    (_AGES, " AGE "),
]


def blotted(text: str, namespace: str) -> str:
    """Without what differs between two runs of one program."""
    text = text.replace(namespace, "NAMESPACE")
    for pattern, word in _BLOTS:
        text = pattern.sub(word, text)
    # kubectl names the program that it showed the difference with; ours is its own.
    return "".join(x for x in text.splitlines(True) if not x.startswith("diff -u"))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("story", STORIES)
def test_a_story_of_changes_is_told_the_same_and_ends_the_same(twins: Both, story: str) -> None:
    """Each step, and at its end what is there, with everything that the server noted of it."""
    for number, (command, stdin) in enumerate(STORIES[story]):
        theirs, ours = (
            _told(program, command, stdin) for program in (twins.kubectl, twins.homeport)
        )
        assert ours == theirs, f"step {number}: {command}"
    left = [_left(twins.kubectl, each.namespace) for each in (twins.kubectl, twins.homeport)]
    assert left[1] == left[0]


def _left(kubectl: Program, namespace: str) -> str:
    """What is there. The server puts owners in the order of their times, in seconds; the programs
    are not equally fast, and so it is not looked at."""
    there = Program(kubectl.argv, namespace)("get", "fleets", "-o", "json", "--show-managed-fields")
    document = json.loads(there)
    for item in document["items"]:
        item["metadata"]["managedFields"].sort(key=lambda owner: owner["manager"])
    return blotted(json.dumps(document, indent=1), namespace)


def _told(program: Program, command: str, stdin: str) -> tuple[int, str, str]:
    ran = program.run(*command.split(), stdin=stdin, editor=EDITOR)
    return ran.code, blotted(ran.out, program.namespace), blotted(ran.err, program.namespace)


@pytest.mark.parametrize("first", ["kubectl", "homeport"])
def test_both_may_take_turns_on_one_object(twins: Both, first: str) -> None:
    kubectl = Program(twins.kubectl.argv, twins.homeport.namespace)
    one, other = (kubectl, twins.homeport) if first == "kubectl" else (twins.homeport, kubectl)
    assert "created" in one("apply", "-f", "-", stdin=fleet("web"))
    ran = other.run("apply", "-f", "-", stdin=fleet("web"))
    assert (ran.out, ran.err) == ("fleet.flightctl.io/web unchanged\n", "")
    assert "configured" in other("apply", "-f", "-", stdin=UNLABELLED)
    assert one("get", "fleet", "web", "-o", "jsonpath={.metadata.labels}") == ""
    assert "unchanged" in one("apply", "-f", "-", stdin=UNLABELLED)
    # And on to the server's own account, without a conflict with oneself.
    assert "serverside-applied" in one("apply", "--server-side", "-f", "-", stdin=CHANGED)
    assert "serverside-applied" in other(
        "apply", "--server-side", "-f", "-", stdin=fleet("web", "quay.io/acme/os:5")
    )


def test_what_is_created_gets_a_name_where_it_has_only_its_beginning(twins: Both) -> None:
    for program in (twins.kubectl, twins.homeport):
        out = program("create", "-f", "-", stdin=GENERATED)
        assert re.fullmatch(r"fleet\.flightctl\.io/web-[a-z0-9]{5} created\n", out)


def test_go_templates_are_refused_with_the_forms_that_there_are(same: Both) -> None:
    ran = same.homeport.run("get", "fleets", "-o", "go-template={{.items}}")
    assert ran.code == 1
    assert "custom-columns,custom-columns-file,json,jsonpath,jsonpath-file,name,wide" in ran.err


def test_a_patch_is_a_merge_patch_unless_said_otherwise(twins: Both) -> None:
    """kubectl's default is what no server of such kinds takes."""
    homeport = twins.homeport
    homeport("create", "-f", "-", stdin=fleet("web"))
    change = "metadata: {labels: {site: a}}"
    assert homeport("patch", "fleet", "web", "-p", change).endswith("patched\n")
    refused = homeport.run("patch", "fleet", "web", "--type=strategic", "-p", change)
    assert refused.err == 'error: --type must be one of json, merge, not "strategic"\n'


@pytest.mark.parametrize(("how", "said"), [("server", "server dry run"), ("client", "dry run")])
def test_a_patch_that_is_tried_out_says_so(twins: Both, how: str, said: str) -> None:
    """kubectl's says "patched", as if it were."""
    homeport = twins.homeport
    homeport("create", "-f", "-", stdin=fleet("web"))
    change = '{"metadata":{"labels":{"site":"a"}}}'
    out = homeport("patch", "fleet", "web", "-p", change, f"--dry-run={how}")
    assert out == f"fleet.flightctl.io/web patched ({said})\n"
    assert "site" not in homeport("get", "fleet", "web", "-o", "jsonpath={.metadata.labels}")
    operations = '[{"op":"remove","path":"/metadata/labels"}]'
    command = ("patch", "fleet", "web", "--type=json", "-p", operations, f"--dry-run={how}")
    ran = homeport.run(*command)
    assert ran.code == (how == "client"), "operations are worked out by the server alone"


def test_pruning_takes_what_left_the_files_and_nothing_else(twins: Both, tmp_path: Path) -> None:
    homeport = twins.homeport
    for name in ("web", "gin"):
        (tmp_path / f"{name}.yaml").write_text(fleet(name))
    assert homeport("apply", "-f", str(tmp_path)).count("created") == 2
    homeport("apply", "-f", "-", stdin=fleet("elsewhere").replace("edge", "core"))
    twins.kubectl.run("create", "-f", "-", stdin=fleet("made"))
    Program(twins.kubectl.argv, homeport.namespace)("create", "-f", "-", stdin=fleet("made"))
    (tmp_path / "gin.yaml").unlink()
    refused = homeport.run("apply", "-f", str(tmp_path), "--prune")
    assert refused.code == 1
    assert "--all" in refused.err
    out = homeport("apply", "-f", str(tmp_path), "--prune", "-l", "tier=edge")
    assert out == "fleet.flightctl.io/web unchanged\nfleet.flightctl.io/gin pruned\n"
    left = homeport("get", "fleets", "-o", "name").split()
    assert left == [f"fleet.flightctl.io/{name}" for name in ("elsewhere", "made", "web")]


def test_a_foreign_program_may_show_the_difference(twins: Both) -> None:
    homeport = twins.homeport
    homeport("apply", "-f", "-", stdin=fleet("web"))
    os.environ["KUBECTL_EXTERNAL_DIFF"] = "diff -r -u -N"
    try:
        ran = homeport.run("diff", "-f", "-", stdin=CHANGED)
    finally:
        del os.environ["KUBECTL_EXTERNAL_DIFF"]
    assert ran.code == 1
    assert "+        image: quay.io/acme/os:2" in ran.out


@pytest.fixture
def started(twins: Both) -> Iterator[subprocess.Popen[str]]:
    argv = [*twins.homeport.argv, "-n", twins.homeport.namespace, "get", "fleets", "-w"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_a_watch_prints_rows_as_they_come(twins: Both, started: subprocess.Popen[str]) -> None:
    assert started.stdout is not None
    twins.homeport("apply", "-f", "-", stdin=fleet("web"))
    assert started.stdout.readline().split()[:2] == ["NAME", "OWNER"]
    assert started.stdout.readline().split()[0] == "web"
    twins.homeport("label", "fleet", "web", "a=b")
    assert started.stdout.readline().split()[0] == "web"


@pytest.mark.timeout(120)
def test_a_watch_outlives_the_server(tmp_path: Path) -> None:
    """Stopped and started again on its port: what changed meanwhile comes, and nothing twice."""
    data = tmp_path / "data"
    with apiserver_process.running(data) as server:
        access = ("--kubeconfig", str(server.kubeconfig))
        homeport = Program((str(HOMEPORT), *access), "default")
        homeport("apply", "-f", "-", stdin=fleet("web"))
        argv = [*homeport.argv, "get", "fleets", "-w", "-o", "name"]
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as watch:
            assert watch.stdout is not None
            assert watch.stderr is not None
            try:
                assert watch.stdout.readline() == "fleet.flightctl.io/web\n"
                server.stop()
                assert "trying again" in watch.stderr.readline()
                address = server.url.removeprefix("https://")
                with apiserver_process.running(data, "--listen", address):
                    homeport("apply", "-f", "-", stdin=fleet("gin"))
                    assert watch.stdout.readline() == "fleet.flightctl.io/gin\n"
                    assert watch.stderr.readline() == "the server is back\n"
            finally:
                watch.kill()


def test_yaml_of_either_is_json_of_the_other(same: Both) -> None:
    text = same.homeport("get", "fleets,repositories", "-o", "yaml")
    assert yaml.safe_load(text) == json.loads(
        same.kubectl("get", "fleets,repositories", "-o", "json")
    )
