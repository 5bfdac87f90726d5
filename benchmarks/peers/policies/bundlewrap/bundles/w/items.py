"""The work. bundlewrap has no item for a line in a file: an action with `unless` is its way."""

import os

ROOT = os.environ["W_ROOT"]
OWNED = {"owner": "root", "group": "root"}

users: dict[str, object] = {"www-data": {}}
pkg_apt: dict[str, object] = {"git": {}}
actions = {
    "limit": {
        "command": f"echo 'limit = 4096' >> {ROOT}/lines.conf",
        "unless": f"grep -qx 'limit = 4096' {ROOT}/lines.conf",
    },
}
directories = {}
files = {}
symlinks = {}
for folder in range(int(os.environ["W_FOLDERS"])):
    directories[f"{ROOT}/d{folder}"] = {"mode": "0750", **OWNED}
    for number in range(10):
        files[f"{ROOT}/d{folder}/f{number}"] = {
            "source": "file.j2",
            "content_type": "jinja2",
            "context": {"title": f"d{folder}-f{number}", "shard": folder, "port": f"90{number}"},
            "mode": "0644",
            **OWNED,
        }
    symlinks[f"{ROOT}/d{folder}/link"] = {"target": f"{ROOT}/d{folder}/f0", **OWNED}
