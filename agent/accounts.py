"""For whom an application runs: root, or a user of the device whom its specification names.

What runs for a user is theirs: the images, volumes and containers in their podman, the services in
their systemd, the files in their home. All of it is asked and done as that user, never by root on
their behalf, so that a link that they put somewhere leads the agent nowhere that they could not go
themselves.

An application of a user needs neither a login nor a running session, but a systemd of theirs that
is there without one: the user must linger. Where it sleeps nevertheless, it is woken before the
first command.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from agent import errors, world

LINGERING = "/var/lib/systemd/linger"
WAKE_S = 60.0
# The agent's own settings for podman, which are root's, and what systemd wants to hear from it.
_NOT_INHERITED = (
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
    "REGISTRY_AUTH_FILE",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
    "TMPDIR",
)


class Accounts:
    """`user` is a name as a specification has it, and empty for root."""

    def __init__(self, where: world.World) -> None:
        self._world = where

    def of(self, user: str) -> world.Account | None:
        """None = there is nobody of that name, or it is root."""
        return self._world.account_of(user) if user else None

    def lingering(self) -> list[world.Account]:
        """Those whose services run without a login."""
        found = (self._world.account_of(name) for name in self._world.listdir(LINGERING))
        return [account for account in found if account is not None and account.uid != 0]

    def objection(self, user: str, app: str) -> errors.Reject | None:
        """Why nothing can run for `user` here."""
        if not user:
            return None
        account = self.of(user)
        if account is None:
            words = f"no user {user!r} here; useradd --create-home {user}"
            return _reject(errors.NOT_FOUND, f"runAs: {words}", app)
        if account.uid == 0:
            return _reject(errors.INVALID_ARGUMENT, f"runAs: {user!r} is root; leave it out", app)
        is_path = account.home.startswith("/") and account.home != "/"
        if not is_path or self._seen(account.home) is None:
            words = f"runAs: user {user!r} has no home; mkhomedir_helper {account.name}"
            return _reject(errors.FAILED_PRECONDITION, words, app)
        if self._world.stat(f"{LINGERING}/{account.name}") is None:
            words = f"runAs: user {user!r} does not linger; loginctl enable-linger {account.name}"
            return _reject(errors.FAILED_PRECONDITION, words, app)
        return None

    def is_up(self, account: world.Account) -> bool:
        """Whether their systemd is there."""
        return self._seen(f"{runtime_of(account)}/systemd/private") is not None

    def _seen(self, path: str) -> world.Stat | None:
        """None also over a link that may be a user's: it is theirs if they break what is theirs."""
        try:
            return self._world.stat(path)
        except world.Astray:
            return None

    def run(
        self,
        user: str,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> world.Completed:
        """As `World.run`, as `user`; in their home, where no `cwd` is given."""
        if not user:
            return self._world.run(argv, timeout_s=timeout_s, stdin=stdin, env=env, cwd=cwd)
        account = self.of(user)
        if account is None:
            return world.Completed(tuple(argv), world.NOT_STARTED, "", f"there is no user {user}")
        if not self.is_up(account):
            unit = f"user@{account.uid}.service"
            self._world.run(["systemctl", "start", unit], timeout_s=WAKE_S)
        whole = argv_as(account, argv, cwd=cwd)
        return self._world.run(whole, timeout_s=timeout_s, stdin=stdin, env=env)

    def systemctl(self, user: str, argv: Sequence[str], *, timeout_s: float) -> world.Completed:
        """`argv` as for root's systemd."""
        return self.run(user, systemctl_argv(user, argv), timeout_s=timeout_s)


def systemctl_argv(user: str, argv: Sequence[str]) -> list[str]:
    """For the systemd of `user`; `argv` as for root's."""
    return [argv[0], "--user", *argv[1:]] if user else [*argv]


def runtime_of(account: world.Account) -> str:
    return f"/run/user/{account.uid}"


def argv_as(account: world.Account, argv: Iterable[str], *, cwd: str | None = None) -> list[str]:
    """A command of root's that becomes `argv` of the user's. Proxies in the environment stay."""
    runtime = runtime_of(account)
    become = [f"--reuid={account.uid}", f"--regid={account.gid}", "--init-groups"]
    own = {
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        "XDG_RUNTIME_DIR": runtime,
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
    }
    return [
        *("setpriv", *become, "--inh-caps=-all", "--"),
        *("env", f"--chdir={cwd or account.home}"),
        *(f"--unset={name}" for name in _NOT_INHERITED),
        *(f"{name}={value}" for name, value in own.items()),
        *argv,
    ]


def _reject(cause: str, detail: str, app: str) -> errors.Reject:
    return errors.Reject(cause, detail, component=errors.APPLICATIONS, element=app)
