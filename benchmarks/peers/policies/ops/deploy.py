"""The work as pyinfra's own operations, for stock pyinfra and for us."""

import os

from pyinfra.operations import apt, files, server

ROOT = os.environ["W_ROOT"]

server.user(name="www-data has an account", user="www-data", ensure_home=False)
apt.packages(name="git is installed", packages=["git"])
files.line(name="the limit is set", path=f"{ROOT}/lines.conf", line="limit = 4096")
for folder in range(int(os.environ["W_FOLDERS"])):
    files.directory(
        name=f"the folder d{folder}", path=f"{ROOT}/d{folder}", mode="750", user="root", group="root"
    )
    for number in range(10):
        files.template(
            name=f"the file d{folder}/f{number}",
            src="templates/file.j2",
            dest=f"{ROOT}/d{folder}/f{number}",
            mode="644",
            user="root",
            group="root",
            title=f"d{folder}-f{number}",
            shard=folder,
            port=f"90{number}",
        )
    files.link(name=f"the link of d{folder}", path=f"{ROOT}/d{folder}/link", target=f"{ROOT}/d{folder}/f0")

try:
    from pyinfra_solo.deploy import gate, roles
except ImportError:  # pyinfra alone
    pass
else:
    for role in roles():
        role.converge()
    gate()
