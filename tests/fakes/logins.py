"""What has to hold of logins at whatever real identity provider: the same list for each.

A class of tests takes one of these and brings the fixture `site`, which has `ann` (viewer), `bob`
(administrator of an organisation) and `root` (of all) at a provider of its own.
"""

from __future__ import annotations

import stat
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from apiserver.auth import oidc, tokens, verdicts
from apiserver.auth.claims import SKEW_S
from tests.conformance.conftest import fleet
from tests.e2e import processes
from tests.fakes import identity
from tests.fakes.people import HOMEPORT, Person, Site, refused

# Renewed when they last less than another minute.
RENEWED_AFTER_S = 3
SHORT_S = 60 + RENEWED_AFTER_S
VIEWER = ["flightctl-viewer"]


class Common:
    """Of both types."""

    def test_in_a_browser_and_then_with_plain_kubectl(self, site: Site) -> None:
        ann = site.person("ann")
        assert "logged in as ann; context" in ann.log_in(site.provider, *site.options)
        for path in (ann.kubeconfig, *(ann.home / "config/homeport/sessions").iterdir()):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path

        assert ann.run(str(HOMEPORT), "whoami").stdout == "ann\n"
        assert "ann" in ann.kubectl("auth", "whoami").stdout
        assert ann.kubectl("get", "fleets").returncode == 0
        refused(ann.kubectl("apply", "-f", "-", stdin=fleet("web")), 'User "ann" cannot')
        refused(ann.kubectl("get", "fleets", "-n", site.theirs), "forbidden")
        refused(ann.kubectl("get", "fleets", "--all-namespaces"), "forbidden")
        for own in ("namespaces", "organizations"):
            found = ann.kubectl("get", own, "-o", "name").stdout
            assert found.split("/")[1:] == [f"{site.ours}\n"]
            refused(ann.kubectl("get", own, site.theirs), "forbidden")
        assert ann.kubectl("auth", "can-i", "list", "devices").stdout.strip() == "yes"
        assert ann.kubectl("auth", "can-i", "delete", "devices").stdout.startswith("no")
        asked = ("auth", "can-i", "list", "devices", "-n", site.theirs)
        assert ann.kubectl(*asked).stdout.startswith("no")

        ann.run(str(HOMEPORT), "logout", site.server.url)
        refused(ann.run(str(HOMEPORT), "get", "fleets"), "")

    def test_by_a_code_where_there_is_no_browser(self, site: Site) -> None:
        ann = site.person("ann")
        assert "logged in as ann" in ann.log_in_by_code(site.provider, *site.options)
        assert ann.kubectl("get", "fleets").returncode == 0

    def test_a_token_for_another_client_is_none_for_us(self, site: Site) -> None:
        token = site.logged_in("ann").session["token"]
        site.apply_and_wait(site.spec | {"clientId": identity.OTHER_CLIENT})
        assert self.NOT_FOR_US in site.person("ann", "other").refused_with(token)
        site.apply_and_wait(site.spec)
        other = site.person("ann", "other")
        assert "logged in as ann" in other.end(other.begin("--token", token))

    NOT_FOR_US = "no identity provider is known here that gives out tokens as"


class OidcLogins(Common):
    def test_who_leaves_a_group_is_out_at_the_next_renewal(self, site: Site) -> None:
        site.provider.set_ttl(SHORT_S)
        ann = site.logged_in("ann")
        assert ann.kubectl("get", "fleets").returncode == 0
        site.provider.set_roles("ann", [])
        time.sleep(RENEWED_AFTER_S + 1)
        refused(ann.kubectl("get", "fleets"), 'User "ann" cannot list')
        site.provider.set_roles("ann", VIEWER)
        time.sleep(RENEWED_AFTER_S + 1)
        assert ann.kubectl("get", "fleets").returncode == 0
        site.provider.forget("ann")
        time.sleep(RENEWED_AFTER_S + 1)
        gone = ann.run(str(HOMEPORT), "credential", "--server", site.server.url)
        refused(gone, "was not renewed")

    def test_a_token_that_has_expired(self, site: Site) -> None:
        ann = site.logged_in("ann")
        site.provider.set_ttl(self.SHORTEST_S)
        token = renewed(ann)["id_token"]
        ends = jwt.decode(token, options={"verify_signature": False})["exp"]
        time.sleep(max(0.0, ends + SKEW_S + 1 - time.time()))
        assert "the token has expired" in site.person("ann", "other").refused_with(token)

    # What a provider can be told; below zero the tokens are old when they are given out.
    SHORTEST_S = 1

    def test_a_key_that_the_provider_never_published(self, site: Site) -> None:
        token = site.logged_in("ann").session["token"]
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, options={"verify_signature": False})
        mine = rsa.generate_private_key(65537, 2048)
        other = site.person("ann", "other")
        for kid, words in (("mine", "does not publish"), (header["kid"], "Signature")):
            forged = jwt.encode(claims, mine, "RS256", headers={"kid": kid})
            assert words in other.refused_with(forged)

    def test_keys_are_rotated(self, site: Site) -> None:
        ann, bob = site.logged_in("ann"), site.person("bob")
        was = jwt.get_unverified_header(ann.session["token"])["kid"]
        site.provider.rotate()
        time.sleep(oidc.RENEW_S)
        bob.log_in(site.provider, *site.options)
        assert jwt.get_unverified_header(bob.session["token"])["kid"] != was
        assert bob.kubectl("get", "fleets").returncode == 0, "with the new key"
        assert ann.kubectl("get", "fleets").returncode == 0, "with the old one, published yet"

    def test_the_provider_is_down(self, site: Site) -> None:
        ann = site.logged_in("ann")
        site.provider.stop()
        assert ann.kubectl("get", "fleets").returncode == 0, "its key is known"
        login = site.person("bob").begin("--no-browser", "--provider", site.name)
        _, errors = login.communicate(timeout=60)
        assert login.returncode == 1
        assert "the identity provider can't be reached" in errors
        site.provider.start()
        time.sleep(oidc.RENEW_S)
        bob = site.logged_in("bob", "again")
        assert bob.kubectl("get", "fleets").returncode == 0


class OAuth2Logins(Common):
    NOT_FOR_US = "and not for us"

    def test_the_token_bears_the_name_of_its_provider(self, site: Site) -> None:
        ann = site.logged_in("ann")
        token = ann.session["token"]
        home = f"homeport~default~{site.name}~"
        assert token.startswith(home)
        other = site.person("ann", "other")
        assert "is gone" in other.refused_with(token.replace(site.name, "nobody"))
        # Without it each provider that is vouched for is asked.
        login = other.begin("--token", token.removeprefix(home))
        assert "logged in as ann" in other.end(login)

    def test_who_leaves_a_group_is_out_within_seconds(self, site: Site) -> None:
        ann = site.logged_in("ann")
        assert ann.kubectl("get", "fleets").returncode == 0
        site.provider.set_roles("ann", [])
        within_seconds(lambda: refuses(ann, 'User "ann" cannot list'))
        site.provider.set_roles("ann", VIEWER)
        within_seconds(lambda: ann.kubectl("get", "fleets").returncode == 0)
        site.provider.forget("ann")
        within_seconds(lambda: refuses(ann, "You must be logged in"))

    def test_a_token_that_has_expired_and_one_that_is_renewed(self, site: Site) -> None:
        site.provider.set_ttl(SHORT_S)
        ann = site.logged_in("ann")
        first = ann.session["token"]
        time.sleep(RENEWED_AFTER_S + 1)
        assert ann.kubectl("get", "fleets").returncode == 0
        assert ann.session["token"] != first
        site.provider.set_ttl(2)
        token = renewed(ann)["access_token"]
        time.sleep(3)
        assert "log in again" in site.person("ann", "other").refused_with(token)

    def test_an_invented_token(self, site: Site) -> None:
        other = site.person("ann", "other")
        for token in (f"homeport~default~{site.name}~invented", "invented"):
            assert "the token is not valid" in other.refused_with(token)

    def test_the_provider_is_down(self, site: Site) -> None:
        ann = site.logged_in("ann")
        site.provider.stop()
        try:
            within_seconds(lambda: refuses(ann, f"provider {site.name} can't be reached"))
            began = time.monotonic()
            assert site.admin.run("get", "fleets").code == 0
            assert time.monotonic() - began < 5, "others wait for nothing"
        finally:
            site.provider.start()


def refuses(person: Person, words: str) -> bool:
    done = person.kubectl("get", "fleets")
    return done.returncode != 0 and words in done.stderr


def within_seconds(claim: Any) -> None:
    limit_s = verdicts.GOOD_S + verdicts.REST_S + tokens.LOOK_S
    processes.until(claim, "it counts", timeout_s=limit_s)


def renewed(person: Person) -> dict[str, Any]:
    """What the provider gives for the refresh token, by way of the service."""
    from cli import sessions

    kept = person.session
    form = {"grant_type": "refresh_token", "client_id": kept["client_id"]}
    service = sessions.Service(kept["server"], kept["authority"])
    status, answer = service.ask(
        f"{kept['provider']}/token", form | {"refresh_token": kept["refresh"]}
    )
    assert status == 200, answer
    return answer
