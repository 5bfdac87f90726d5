"""web: nginx on one port, in front of the app, which gunicorn runs from its current release.

`/ping.html` is the gate's, on that port, whatever the Host header: 503 until the gate is open.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

import msgspec

from pyinfra_solo import paths
from pyinfra_solo.checks import Check, http, tcp, unit
from pyinfra_solo.operations import accounts, packages
from pyinfra_solo.operations import release as app
from pyinfra_solo.operations import validated as verified
from pyinfra_solo.operations.service import Service, runs, up
from pyinfra_solo.role import role

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Positive = Annotated[int, msgspec.Meta(ge=1)]

NGINX = "/etc/nginx/nginx.conf"


@dataclass(frozen=True, kw_only=True)
class Web:
    """app_repo, app_ref: what `app.release` takes. app_module: gunicorn's module:callable.
    app_gunicorn: more of gunicorn's options; the default one is known since gunicorn 25.1.
    app_health: the path that answers 200 when the app is well. app_port: on the loopback.
    web_workers, web_connections: nginx's processes ("auto": one a core), and connections of each.
    web_keepalive: seconds; longer than the balancer's idle time, which is 60 s on an ALB.
    web_timeout: seconds for the app's answer. web_body_mib: the largest request.
    """

    app_name: str = "shop"
    app_repo: str
    app_ref: str = "main"
    app_keep: Positive = 3
    app_deploy_key: str | None = None
    app_known_hosts: str | None = None
    app_python: str = "/usr/bin/python3"
    app_environment: Mapping[str, str] = field(default_factory=dict)
    app_environment_file: str = ""
    app_module: str = "shop:app"
    app_health: str = "/healthz"
    app_port: Port = 8000
    app_workers: Positive = 2
    app_gunicorn: Sequence[str] = ("--no-control-socket",)
    web_port: Port = 80
    web_ipv6: bool = False
    web_workers: Positive | Literal["auto"] = "auto"
    web_connections: Positive = 4096
    web_keepalive: Positive = 75
    web_timeout: Positive = 60
    web_body_mib: Positive = 8


def healthy(data: Web) -> Sequence[Check]:
    """nginx and the app are up, and the app is well when asked through nginx."""
    return (
        unit("nginx"),
        unit(data.app_name),
        tcp(data.web_port),
        http(f"http://127.0.0.1:{data.web_port}{data.app_health}"),
    )


def application(data: Web) -> Service:
    """gunicorn on the loopback. It is asked as a module: the script's first line would be a path."""
    current = f"{paths.APPS}/{data.app_name}/current"
    return Service(
        name=data.app_name,
        description=f"{data.app_name}, served by gunicorn",
        command=[
            f"{current}/.venv/bin/python", "-m", "gunicorn",
            "--bind", f"127.0.0.1:{data.app_port}",
            "--workers", str(data.app_workers),
            "--worker-tmp-dir", "/dev/shm",  # noqa: S108 - its heartbeat files; a disk may stall (gunicorn's FAQ)
            *data.app_gunicorn,
            "--chdir", current,
            data.app_module,
        ],
        user=data.app_name,
        working_directory=current,
        environment=data.app_environment,
        environment_file=data.app_environment_file,
        notifies=True,
        reads=[current],
    )  # fmt: skip


@role(data=Web, needs=["base"], healthy=healthy)
def web(data: Web) -> None:
    packages.installed(name="nginx is installed", packages=["nginx-light"])
    accounts.system(data.app_name, name=f"{data.app_name} has an account of its own")
    release = app.release(
        name=f"{data.app_name} is at its release",
        app=data.app_name,
        repo=data.app_repo,
        ref=data.app_ref,
        keep=data.app_keep,
        deploy_key=data.app_deploy_key,
        known_hosts=data.app_known_hosts,
        python=data.app_python,
        user=data.app_name,
        root=str(paths.APPS),
    )
    runs(application(data), name=f"gunicorn serves {data.app_name}", changed=[release])
    site = verified.template(
        name="nginx knows our site",
        src="roles/web/templates/nginx.conf.j2",
        dest=NGINX,
        verify='nginx -t -q -c "$FILE"',
        gate=str(paths.GATE),
        **asdict(data),
    )
    up("nginx", name="nginx serves our site", rereads=["/etc/nginx"], reload_on=[site])
