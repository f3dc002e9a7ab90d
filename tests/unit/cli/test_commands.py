"""The commands against a small API server: what they ask for, print, and end with."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cli import main as cli
from tests.fakes.tiny_api import TinyApi

Json = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]

BASE = "/apis/flightctl.io/v1beta1"
REQUESTS = f"{BASE}/namespaces/default/enrollmentrequests"
DEVICES = f"{BASE}/namespaces/default/devices"
FLEETS = f"{BASE}/namespaces/default/fleets"


def entry(plural: str, kind: str, *short: str) -> Json:
    return {
        "resource": plural,
        "singularResource": plural[:-1],
        "responseKind": {"group": "flightctl.io", "version": "v1beta1", "kind": kind},
        "scope": "Namespaced",
        "shortNames": list(short),
        "categories": ["homeport"],
        "verbs": ["get", "list"],
    }


def discovery(group: str, version: str, *resources: Json) -> Json:
    versions = [{"version": version, "resources": list(resources)}]
    return {"items": [{"metadata": {"name": group}, "versions": versions}]}


DISCOVERY = discovery(
    "flightctl.io",
    "v1beta1",
    entry("devices", "Device", "dev"),
    entry("enrollmentrequests", "EnrollmentRequest", "er"),
    entry("fleets", "Fleet"),
)
DISCOVERY["items"] += discovery("homeport.dev", "v1alpha1", entry("backlogs", "Backlog"))["items"]


def request(name: str, *, approved: bool = False) -> Json:
    status = {"approval": {"approved": True}} if approved else {}
    return {"metadata": {"name": name}, "status": status}


def table(*names: str, version: str = "7") -> Json:
    return {
        "kind": "Table",
        "metadata": {"resourceVersion": version},
        "columnDefinitions": [{"name": "Name", "priority": 0}],
        "rows": [{"cells": [name], "object": {"metadata": {"name": name}}} for name in names],
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyApi]:
    api = TinyApi()
    api.start(tmp_path_factory.mktemp("api"))
    yield api
    api.stop()


@pytest.fixture
def api(server: TinyApi) -> TinyApi:
    server.heard.clear()
    server.answers = {
        "GET /apis": DISCOVERY,
        "GET /api": {"items": []},
        f"GET {REQUESTS}": {
            "items": [request("aaa1"), request("aaa2"), request("bbb", approved=True)]
        },
    }
    return server


@pytest.fixture
def run(
    api: TinyApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Exit code, standard output and error of a command line, as its caller sees them."""
    kubeconfig = api.kubeconfig(tmp_path / "admin.kubeconfig", token="secret")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))

    def command(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["homeport", *argv])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return command


def test_approve_sends_the_labels_for_the_request_that_begins_so(api: TinyApi, run: Run) -> None:
    api.answers[f"PUT {REQUESTS}/aaa1/approval"] = {}
    code, out, _ = run("approve", "er/aaa1", "--label", "site=a", "--label", "empty=")
    assert (code, out) == (0, "enrollmentrequest/aaa1 approved\n")
    sent = api.heard[-1]
    assert (sent.method, sent.path) == ("PUT", f"{REQUESTS}/aaa1/approval")
    assert sent.body == {"approved": True, "labels": {"site": "a", "empty": ""}}
    assert sent.headers["Authorization"] == "Bearer secret"


def test_approve_all_pending_leaves_the_decided_alone(api: TinyApi, run: Run) -> None:
    for name in ("aaa1", "aaa2"):
        api.answers[f"PUT {REQUESTS}/{name}/approval"] = {}
    code, out, _ = run("approve", "--all-pending", "--yes")
    assert code == 0
    assert out.splitlines() == [f"enrollmentrequest/aaa{n} approved" for n in (1, 2)]


def test_approve_all_pending_asks_and_takes_silence_for_no(api: TinyApi, run: Run) -> None:
    code, out, _ = run("approve", "--all-pending")
    assert code == 1
    assert "Let these 2 in?" in out
    assert {heard.method for heard in api.heard} == {"GET"}


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        pytest.param(["approve", "aaa"], 1, "means 2: aaa1, aaa2", id="ambiguous"),
        pytest.param(["approve", "zzz"], 1, '"zzz" not found', id="unknown"),
        pytest.param(["approve"], 2, "give one name, or --all-pending", id="no name"),
        pytest.param(["approve", "a", "--all-pending"], 2, "give one name", id="both"),
        pytest.param(["approve", "aaa1", "-l", "site"], 2, "is not key=value", id="bad label"),
        pytest.param(
            ["get", "ships"], 1, 'resource type "ships"\nhint: there are: devices', id="no kind"
        ),
        pytest.param(["get", "devices", "-o", "xml"], 1, "allowed formats are", id="bad form"),
        pytest.param(
            ["get", "devices", "a", "-l", "b"], 1, "when a selector is specified", id="name and -l"
        ),
        pytest.param(
            ["get", "devices", "gone"], 1, "Error from server (NotFound): not here", id="no object"
        ),
        pytest.param(["get", "devices", "--data", "/nowhere"], 1, "does not exist", id="no data"),
        pytest.param(
            ["get", "devices", "--data", "/a", "--kubeconfig", "/b"], 2, "not both", id="two ways"
        ),
        pytest.param(["fly"], 2, "No such command", id="no such command"),
    ],
)
def test_what_cannot_be_done_ends_with_a_code_and_a_line_that_says_why(
    run: Run, argv: list[str], code: int, words: str
) -> None:
    got, _, err = run(*argv)
    assert got == code, err
    assert words in err


def test_nobody_there_is_one_line_with_a_way_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = tmp_path / "admin.kubeconfig"
    text = kubeconfig.read_text()
    kubeconfig.write_text(text.replace(text.split("server: ")[1].split()[0], "https://127.0.0.1:1"))
    code, _, err = run("get", "devices")
    assert code == 1
    assert err.startswith("error: no answer from https://127.0.0.1:1: connection refused\n")
    assert "hint: is `homeport up` running" in err


def test_get_asks_for_a_table_by_short_name_and_selector(api: TinyApi, run: Run) -> None:
    api.answers[f"GET {DEVICES}"] = table("abc")
    code, out, _ = run("get", "dev", "-l", "site=a")
    assert (code, out) == (0, "NAME\nabc\n")
    assert api.heard[-1].query == {"labelSelector": "site=a", "limit": "500"}
    assert "as=Table" in api.heard[-1].headers["Accept"]


def test_get_of_nothing_says_so(api: TinyApi, run: Run) -> None:
    api.answers[f"GET {DEVICES}"] = table()
    assert run("get", "devices") == (0, "", "No resources found in default namespace.\n")


@pytest.mark.parametrize(
    ("form", "expected"),
    [("name", "device.flightctl.io/abc"), ("json", '"name": "abc"'), ("yaml", "name: abc")],
)
def test_get_prints_what_programs_read(api: TinyApi, run: Run, form: str, expected: str) -> None:
    api.answers[f"GET {DEVICES}"] = {"metadata": {}, "items": [{"metadata": {"name": "abc"}}]}
    code, out, _ = run("get", "devices", "-o", form)
    assert code == 0
    assert expected in out


def test_get_of_all_organisations_names_none(api: TinyApi, run: Run) -> None:
    api.answers[f"GET {BASE}/devices"] = table("abc")
    assert run("get", "devices", "-A")[0] == 0


def test_describe_finds_a_device_by_its_alias_and_shows_its_events(api: TinyApi, run: Run) -> None:
    item = {"metadata": {"name": "abc", "labels": {"alias": "north"}}, "status": {}}
    api.answers[f"GET {DEVICES}"] = {"apiVersion": "flightctl.io/v1beta1", "items": [item]}
    api.answers["GET /api/v1/namespaces/default/events"] = {
        "items": [{"type": "Normal", "reason": "Seen", "message": "hello"}]
    }
    api.answers[f"GET {DEVICES}/abc/lastseen"] = {"lastSeen": "2026-01-01T00:00:00Z"}
    code, out, _ = run("describe", "device", "north")
    assert code == 0
    assert re.search(r"Last seen: +2026-01-01T00:00:00Z \(\d+\w+ ago\)", out)
    assert re.search("Name: +abc\n", out)
    assert "hello" in out
    asked = next(heard for heard in api.heard if heard.path.endswith("/events"))
    assert "involvedObject.kind=Device" in asked.query["fieldSelector"]


def test_version_says_both(api: TinyApi, run: Run) -> None:
    api.answers["GET /version"] = {"gitVersion": "v1.32.0+homeport"}
    code, out, _ = run("version")
    assert code == 0
    assert "service  v1.32.0+homeport" in out


def test_version_without_a_service_is_no_failure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    code, out, _ = run("version")
    assert code == 0
    assert "service  unknown: /nowhere does not exist; name a kubeconfig" in out


HEAVY = {"pydantic", "rich", "aiohttp", "asyncio", "apiserver", "controllers", "cryptography"}
# Of ours, what the other verbs do their work with.
ELSEWHERE = {"cli.applying", "cli.describing", "cli.editing", "cli.explaining", "cli.manifests"}
OF_GET = {"cli.columns", "cli.forms", "cli.getting", "cli.jsonpath", "cli.selecting", "cli.tables"}


@pytest.mark.parametrize(
    ("argv", "first", "unwanted"),
    [
        (["version"], f"homeport {metadata.version('homeport')}", HEAVY | ELSEWHERE | OF_GET),
        (["get", "devices"], "NAME", HEAVY | ELSEWHERE | {"cli.columns", "cli.jsonpath"}),
    ],
    ids=["version", "get"],
)
def test_a_verb_loads_nothing_that_it_can_do_without(
    api: TinyApi, tmp_path: Path, argv: list[str], first: str, unwanted: set[str]
) -> None:
    """Starting fast is half of a good command line; pydantic alone takes longer than the rest."""
    api.answers[f"GET {DEVICES}"] = table("abc")
    api.answers["GET /version"] = {"gitVersion": "v1.32.0+homeport"}
    kubeconfig = api.kubeconfig(tmp_path / "config")
    program = (
        f"import sys; sys.argv[1:] = {argv}; from cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\nprint(*sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"KUBECONFIG": str(kubeconfig)},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    head, row, modules = ran.stdout.splitlines()
    assert head == first
    assert row in ("abc", "service  v1.32.0+homeport")
    assert unwanted & set(modules.split()) == set()


def test_a_verb_makes_a_command_of_itself_alone() -> None:
    """The others are made for who wants to see them, or mistypes one."""

    def commands(*argv: str) -> list[str]:
        group: Any = typer.main.get_command(cli.program(argv))
        return list(group.commands)

    assert commands("get", "devices") == ["get"]
    assert commands("up") == ["up"]
    assert commands("fly") == commands("--help") == commands()
    assert {"up", "get", "rollout"} < set(commands())


def test_decommission_dismisses_the_device_that_was_named(api: TinyApi, run: Run) -> None:
    api.answers[f"PUT {DEVICES}/pump/decommission"] = {}
    for word in ("device/pump", "pump", "dev/pump"):
        code, out, err = run("decommission", word)
        assert (code, out) == (0, "device.flightctl.io/pump decommissioning\n"), err
        assert api.heard[-1].body == {"target": "Unenroll"}
    code, _, err = run("decommission", "er/pump")
    assert code == 2
    assert "device/NAME" in err


def test_app_asks_what_was_named(api: TinyApi, run: Run) -> None:
    api.answers[f"POST {DEVICES}/pump/lifecycle"] = {}
    api.answers[f"POST {FLEETS}/web/lifecycle"] = {}
    for action, doing in (("stop", "stopping"), ("start", "starting"), ("restart", "restarting")):
        code, out, err = run("app", action, "device/pump", "--name", "log")
        assert (code, out) == (0, f"device.flightctl.io/pump {doing} log\n"), err
        assert api.heard[-1].body == {"application": "log", "action": action}
    code, out, err = run("app", "stop", "fleet/web", "--name", "log")
    assert (code, out) == (0, "fleet.flightctl.io/web stopping log\n"), err
    code, _, err = run("app", "restart", "fleet/web", "--name", "log")
    assert code == 1
    assert "only a device's application can be restarted" in err
    code, _, err = run("app", "stop", "er/x", "--name", "log")
    assert code == 1
    assert "neither device/NAME nor fleet/NAME" in err
    assert run("app", "stop", "device/pump")[0] == 2


def test_resume_sends_the_set_as_it_was_typed(api: TinyApi, run: Run) -> None:
    path = "/apis/homeport.dev/v1alpha1/namespaces/default/backlogs/devices/resume"
    api.answers[f"POST {path}"] = {"resumedDevices": 2}
    for words, body in (
        (["devices", "-l", "site=a"], {"labelSelector": "site=a"}),
        (["devices", "--field-selector", "metadata.owner=Fleet/web"],
         {"fieldSelector": "metadata.owner=Fleet/web"}),
        (["device/a", "device/b"], {"fieldSelector": "metadata.name in (a,b)"}),
        (["devices", "--all"], {}),
    ):  # fmt: skip
        code, out, err = run("resume", *words)
        assert (code, out) == (0, "2 devices resumed\n"), err
        assert api.heard[-1].body == body
    assert run("resume", "devices")[0] == 1, "a kind alone says too little"
    code, _, err = run("resume", "fleets", "--all")
    assert code == 1
    assert "only devices can be resumed" in err


def test_deny_and_approve_know_enrolments_and_certificates(api: TinyApi, run: Run) -> None:
    api.answers[f"PUT {REQUESTS}/aaa1/approval"] = {}
    assert run("deny", "er/aaa1")[:2] == (0, "enrollmentrequest/aaa1 denied\n")
    assert api.heard[-1].body == {"approved": False}

    path = f"{BASE}/namespaces/default/certificatesigningrequests/mine"
    api.answers[f"GET {path}"] = {"metadata": {"name": "mine"}, "spec": {}, "status": {}}
    api.answers[f"PUT {path}/approval"] = {}
    for verb, decision in (("approve", "Approved"), ("deny", "Denied")):
        code, out, err = run(verb, "csr/mine")
        assert (code, out) == (0, f"certificatesigningrequest/mine {decision.lower()}\n"), err
        (said,) = api.heard[-1].body["status"]["conditions"]
        assert (said["type"], said["status"]) == (decision, "True")
