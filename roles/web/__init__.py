"""web: nginx on one port, in front of the app, which gunicorn runs from its current release.

`/ping.html` is the gate's, on that port, whatever the Host header: 503 until the gate is open.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import msgspec

from pyinfra_solo import paths
from pyinfra_solo.checks import Check, http, tcp, unit
from pyinfra_solo.operations import packages, service, validated
from pyinfra_solo.operations.service import Service, folder
from pyinfra_solo.role import role
from roles.app import App, Positive, deployed

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]

NGINX = "/etc/nginx/nginx.conf"


@dataclass(frozen=True, kw_only=True)
class Web(App):
    """app_module: gunicorn's module:callable.
    app_gunicorn: more of gunicorn's options; the default one is known since gunicorn 25.1.
    app_health: the path that answers 200 when the app is well. app_port: on the loopback, for an app that
    other programs ask there; any account can take a port while the app is down, and gets its requests.
    Without it gunicorn listens on a socket in a folder that only the app can write to.
    web_workers, web_connections: nginx's processes ("auto": one a core), and connections of each.
    web_keepalive: seconds; longer than the balancer's idle time, which is 60 s on an ALB.
    web_timeout: seconds for the app's answer. web_body_mib: the largest request.
    """

    app_module: str = "shop:app"
    app_health: str = "/healthz"
    app_port: Port | None = None
    app_workers: Positive = 2
    app_gunicorn: Sequence[str] = ("--no-control-socket",)
    web_port: Port = 80
    web_ipv6: bool = False
    web_workers: Positive | Literal["auto"] = "auto"
    web_connections: Positive = 4096
    web_keepalive: Positive = 75
    web_timeout: Positive = 60
    web_body_mib: Positive = 8

    @property
    def app_address(self) -> str:
        """Where gunicorn listens: nginx and gunicorn write it alike."""
        if self.app_port:
            return f"127.0.0.1:{self.app_port}"
        return f"unix:{folder(self.app_name)}/gunicorn.socket"


def healthy(data: Web) -> Sequence[Check]:
    """Check that nginx and the app run, and that the app is well when it is asked through nginx."""
    return (
        unit("nginx"),
        unit(data.app_name),
        tcp(data.web_port),
        http(f"http://127.0.0.1:{data.web_port}{data.app_health}", log=data.app_name),
    )


def application(data: Web) -> Service:
    """Declare gunicorn; as a module, as its script names the folder of the build."""
    current = data.app_current
    return Service(
        name=data.app_name,
        description=f"{data.app_name}, served by gunicorn",
        command=[
            f"{current}/.venv/bin/python", "-m", "gunicorn",
            "--bind", data.app_address,
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
        has_folder=True,
        writable=data.app_writes,
        allow=data.app_allow,
        notifies=True,
        restart_on=[current],
    )  # fmt: skip


@role(data=Web, needs=["base"], healthy=healthy)
def web(data: Web) -> None:
    packages.installed(name="nginx is installed", packages=["nginx-light"])
    release = deployed(data)
    service.supervised(application(data), name=f"gunicorn serves {data.app_name}", restart_on=[release])
    site = validated.template(
        name="nginx knows our site",
        src="roles/web/templates/nginx.conf.j2",
        dest=NGINX,
        validate='nginx -t -q -c "$FILE"',
        gate=str(paths.GATE),
        app_address=data.app_address,
        **asdict(data),
    )
    service.running("nginx", name="nginx serves our site", reload_on=["/etc/nginx", site])
