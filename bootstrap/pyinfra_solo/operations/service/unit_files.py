"""Write a `Service` down for each init system: values to text, or to a DataError."""

import re
import shlex
from pathlib import Path
from typing import get_args

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pyinfra_solo.errors import DataError
from pyinfra_solo.operations.service import sandbox
from pyinfra_solo.operations.service.spec import Init, Permission, Service
from pyinfra_solo.system.text import ACCOUNT, NAME

_PATHS = {
    "systemd": "/etc/systemd/system/{}.service",
    "upstart": "/etc/init/{}.conf",
    "sysv": "/etc/init.d/{}",
}
_TEMPLATES = {"systemd": "systemd.service.j2", "upstart": "upstart.conf.j2", "sysv": "lsb.sh.j2"}
_PATH = re.compile(r"/[A-Za-z0-9_./+-]*", re.ASCII)
_HOME = re.compile(r"/(home|root|run/user)(/|$)")
"""Folders that ProtectHome= hides (systemd.exec(5))."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SIGNAL = re.compile(r"[A-Z][A-Z0-9]{1,9}", re.ASCII)


def path(name: str, init: str) -> str:
    """Get the path of the service's unit, job or script. Raises DataError."""
    return _PATHS[init].format(checked_name(name))


def checked_name(name: str) -> str:
    """Return `name`. Raises DataError when no service can have it."""
    if not NAME.fullmatch(name):
        raise DataError(f"The service {name!r} is not a name: use a-z, then a-z, 0-9, _ or -, 63 at most.")
    return name


def render(service: Service, init: Init, *, run: str, log: str, self: str) -> str:
    """Fill the init system's template. Raises DataError for a value that it has no way to write down."""
    _check(service)
    description = service.description or service.name
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - no HTML; each value is quoted for its own place below
    )
    group = service.group or service.user
    launcher = sandbox.launcher(service, group, init)
    words = [shlex.quote(word) for word in (*launcher, *service.command)]
    return environment.get_template(_TEMPLATES[init]).render(
        service=service,
        group=group,
        restrictions=sandbox.directives(service),
        drops_root=bool(launcher),
        description=description.replace("%", "%%"),
        upstart_description=f'"{description}"',
        command=" ".join([service.command[0], *(_systemd_word(word) for word in service.command[1:])]),
        environment=[_systemd_pair(key, value) for key, value in sorted(service.environment.items())],
        exports=[f"{key}={shlex.quote(value)}" for key, value in sorted(service.environment.items())],
        shell_command=" ".join(words),
        shell_program=words[0],
        shell_arguments=" ".join(words[1:]),
        run=run,
        log=log,
        script=shlex.quote(self),
    )


def _check(service: Service) -> None:
    checked_name(service.name)
    _must(bool(service.command), service, "command", "it is empty. Give the program and its arguments")
    _must(
        bool(_PATH.fullmatch(service.command[0])),
        service,
        "command",
        "the program is not a full path of plain letters",
    )
    for account in (service.user, service.group or service.user):
        _must(bool(ACCOUNT.fullmatch(account)), service, "user", f"{account!r} is not an account's name")
    for kind, place in (
        ("working_directory", service.working_directory),
        ("environment_file", service.environment_file or "/"),
        *(("writable", place) for place in service.writable),
    ):
        _must(bool(_PATH.fullmatch(place)), service, kind, "it is not a full path of plain letters")
    rights = get_args(Permission)
    _must(set(service.allow) <= set(rights), service, "allow", f"it takes only {', '.join(rights)}")
    homes = [place for place in (service.command[0], service.working_directory) if _HOME.match(place)]
    _must(
        not homes or bool({"home", "everything"} & set(service.allow)),
        service,
        "allow",
        'its program or its folder is in a home. Give allow=["home"]',
    )
    for key in service.environment:
        _must(bool(_VARIABLE.fullmatch(key)), service, "environment", f"{key!r} is not a variable's name")
    for kind, words in (
        ("command", service.command),
        ("environment", service.environment.values()),
        ("description", [service.description]),
    ):
        _must(
            all(word.isprintable() for word in words),
            service,
            kind,
            "a line's end or control character cannot be written in a unit",
        )
    _must(
        not set(service.description) & set('"\\'), service, "description", "leave out quotes and backslashes"
    )
    _must(
        not service.reload_signal or bool(_SIGNAL.fullmatch(service.reload_signal)),
        service,
        "reload_signal",
        "write it like HUP",
    )
    numbers = (
        service.start_timeout,
        service.stop_timeout,
        service.restart_delay,
        service.open_files,
        service.memory_mib,
    )
    _must(all(number >= 0 for number in numbers), service, "limits", "a number is below 0")


def _must(right: bool, service: Service, kind: str, problem: str) -> None:
    """Raise DataError without the value itself: a log is no place for it."""
    if not right:
        raise DataError(f"The service {service.name!r}, {kind}: {problem}.")


def _systemd_word(word: str) -> str:
    """Quote an argument of ExecStart=, so that nothing in it has a meaning (systemd.service(5))."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _systemd_pair(key: str, value: str) -> str:
    """Quote an Environment= assignment; a dollar has no meaning there (systemd.exec(5))."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{key}={escaped}"'
