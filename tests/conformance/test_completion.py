"""What shells make of Tab: bash, zsh and fish, with the program itself and a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.conftest import fleet, namespace_manifest
from tests.fakes import apiserver_process

BIN = Path(sys.executable).parent
TIMEOUT_S = 50
TRIES = 3
NAMES = "homeport get fleets -n tab harbour-"
APPLICATION = "homeport app stop -n tab device/gate --name w"
GATE = """
apiVersion: flightctl.io/v1beta1
kind: Device
metadata: {name: gate}
spec:
  applications:
  - {name: web, appType: container, image: "quay.io/acme/web:1"}
  - {name: log, appType: container, image: "quay.io/acme/log:1"}
"""
FLEETS = ["harbour-east", "harbour-west"]

# Each prints what its completion offers for the words of $LINE, a line each.
BASH = """
source <(homeport completion bash)
COMP_LINE=$LINE
read -ra COMP_WORDS <<<"$LINE"
[[ $LINE == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_homeport_completion homeport
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = """
homeport completion fish | source
complete --do-complete="$LINE" | string split -f1 \\t
"""
# zsh completes in its line editor only; so it gets a terminal, and Tab, and lists what it knows.
ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=; autoload -Uz compinit; compinit -u -D; source <(homeport completion zsh)"
zpty -w shell "zstyle ':completion:*' list-colors ''; setopt no_beep; LISTMAX=999; echo begin''here"
zpty -r -m shell line '*beginhere*'
zpty -w -n shell "$LINE"$'\\t\\t'
sleep 8
while zpty -r -t shell line; do print -r -- "$line"; done
zpty -d shell
"""
SHELLS: dict[str, list[str]] = {
    "bash": ["bash", "--norc", "-c", BASH],
    "fish": ["fish", "--no-config", "-c", FISH],
    "zsh": ["zsh", "-f", "-c", ZSH],
}


@pytest.fixture(scope="module")
def kubeconfig(server: apiserver_process.Process) -> Path:
    """Of a server with fleets in an organisation of their own."""

    def homeport(*words: str, stdin: str) -> None:
        argv = [str(BIN / "homeport"), "--kubeconfig", str(server.kubeconfig), *words]
        subprocess.run(argv, input=stdin, text=True, check=True, capture_output=True)

    homeport("apply", "-f", "-", stdin=namespace_manifest("tab"))
    both = fleet("harbour-east") + "---" + fleet("harbour-west")
    homeport("-n", "tab", "apply", "-f", "-", stdin=f"{both}---{GATE}")
    return server.kubeconfig


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("shell", "line", "expected", "other"),
    [
        pytest.param("bash", "homeport de", ["delete", "describe"], "apply", id="bash: verbs"),
        pytest.param("bash", "homeport get fl", ["fleets"], "devices", id="bash: kinds"),
        pytest.param("bash", NAMES, FLEETS, "fleets-", id="bash: names"),
        pytest.param("bash", APPLICATION, ["web"], "log", id="bash: applications"),
        pytest.param("fish", NAMES, FLEETS, "fleets-", id="fish: names"),
        pytest.param("zsh", NAMES, FLEETS, "fleets-", id="zsh: names"),
    ],
)
def test_tab_offers_what_fits(
    kubeconfig: Path, shell: str, line: str, expected: list[str], other: str
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    # A second is all that the server has, which a busy machine may not keep to.
    for _ in range(TRIES):
        text = pressed(shell, line, kubeconfig)
        if all(word in text for word in expected):
            break
    assert all(word in text for word in expected), text
    assert other not in text, text


def pressed(shell: str, line: str, kubeconfig: Path) -> str:
    """What is shown when Tab is pressed at the end of the line."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    more = {"PATH": path, "KUBECONFIG": str(kubeconfig), "LINE": line, "TERM": "dumb"}
    done = subprocess.run(
        SHELLS[shell],
        env=os.environ | more,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.stdout
