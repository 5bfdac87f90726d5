"""A git repository that tests fill, and git's http-backend that serves it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import programs
from tests.support.web import Answer, Asked

GIT = {
    "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
}  # fmt: skip
SIGNER = "operator@lab"
# The path that git sends is absolute in ssh://git@host/srv/git/x.git, so it needs no rewriting.
FORCED = 'restrict,command="git-shell -c \\"$SSH_ORIGINAL_COMMAND\\""'
CGI_LIMIT = 120.0  # seconds


def make_key(path: Path, comment: str) -> Path:
    """Make an ed25519 key pair at `path` and `path`.pub, without a passphrase."""
    programs.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path])
    return path


def signing_key(folder: Path, name: str, principal: str = SIGNER) -> tuple[Path, str]:
    """Make a key that signs commits. Return its private path, and its line for allowed_signers."""
    key = make_key(folder / name, name)
    return key, f'{principal} namespaces="git" {key.with_suffix(".pub").read_text()}'


def one_signer(folder: Path, repository: "Repository") -> tuple[Path, Path]:
    """Sign the tip with a new key that alone may sign. Return the key, and the file allowed_signers."""
    key, line = signing_key(folder, "operator")
    signers = folder / "allowed_signers"
    signers.write_text(line)
    repository.commit({"deploy.py": "print('signed')\n"}, "signed", sign_with=key)
    return key, signers


@dataclass
class Repository:
    """A bare repository at `path`, and where clients find it. Commits go to a branch's tip."""

    path: Path
    http_url: str = ""
    ssh_url: str = ""
    clock: int = 1_767_225_600
    """Seconds since 1970 of the next commit; each takes one minute."""

    def make(self) -> "Repository":
        """Create it, empty; any commit may be fetched by its id, as on the large hosting services."""
        self._git("init", "--quiet", "--bare", "--initial-branch=main")
        for name in ("allowFilter", "allowAnySHA1InWant"):
            self._git("config", f"uploadpack.{name}", "true")
        return self

    def commit(
        self, files: Mapping[str, str | bytes | None], message: str, *,
        branch: str = "main", parent: str | None = None, sign_with: Path | None = None,
    ) -> str:  # fmt: skip
        """Change `files` (None removes one) on `branch` and return the new commit's id.

        A file that starts with `#!` is executable. `parent` sets where the branch is first.
        """
        tip = parent or self.tip(branch)
        with tempfile.TemporaryDirectory() as folder:
            env = {"GIT_INDEX_FILE": f"{folder}/index"}
            if tip:
                self._git("read-tree", tip, env=env)
            lines = [self._line(name, content) for name, content in files.items()]
            self._git("update-index", "--index-info", env=env, stdin="".join(lines).encode())
            tree = self._git("write-tree", env=env)
        return self.commit_tree(tree, message, branch=branch, parent=tip, sign_with=sign_with)

    def _line(self, name: str, content: str | bytes | None) -> str:
        """Return the line by which `git update-index --index-info` sets or removes a file."""
        if content is None:
            return f"0 {'0' * 40}\t{name}\n"
        data = content.encode() if isinstance(content, str) else content
        blob = self._git("hash-object", "-w", "--stdin", stdin=data)
        return f"{'100755' if data.startswith(b'#!') else '100644'} {blob}\t{name}\n"

    def copy_tree(
        self, source: Path, message: str = "a copy", *, branch: str = "main", sign_with: Path | None = None
    ) -> str:
        """Make a folder's content the whole tree of a new commit, .gitignore respected."""
        tip = self.tip(branch)
        with tempfile.TemporaryDirectory() as folder:
            env = {"GIT_INDEX_FILE": f"{folder}/index", "GIT_WORK_TREE": str(source)}
            self._git("add", "--all", ".", env=env, cwd=source)
            tree = self._git("write-tree", env=env)
        return self.commit_tree(tree, message, branch=branch, parent=tip, sign_with=sign_with)

    def commit_tree(
        self,
        tree: str,
        message: str,
        *,
        branch: str = "main",
        parent: str = "",
        sign_with: Path | None = None,
    ) -> str:
        """Make a tree's id a new commit on `branch`."""
        when = f"{self.clock} +0000"
        self.clock += 60
        env = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
        words = ["commit-tree", tree, "-m", message, *(["-p", parent] if parent else [])]
        sha = self._git(*_signing(sign_with), *words, *(["-S"] if sign_with else []), env=env)
        self.branch(branch, sha)
        return sha

    def tip(self, branch: str = "main") -> str:
        """Return the id of a branch's newest commit; '' when there is no such branch."""
        return self._git("rev-parse", "--verify", "-q", f"refs/heads/{branch}", check=False)

    def branch(self, name: str, sha: str) -> None:
        """Make a branch point at `sha`, whatever it was before."""
        self._git("update-ref", f"refs/heads/{name}", sha)

    def tag(self, name: str, sha: str, *, message: str = "", sign_with: Path | None = None) -> None:
        """Set a tag at `sha`: light without message and key, else annotated and, with a key, signed."""
        kind = ["-s" if sign_with else "-a", "-m", message or name]
        annotated = kind if message or sign_with else []
        self._git(*_signing(sign_with), "tag", "--force", *annotated, name, sha)

    def _git(self, *words: str, env: Mapping[str, str] = {}, cwd: Path = Path("/"), **options: Any) -> str:
        who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in WHO}
        env = {"PATH": os.environ["PATH"], **GIT, **who, **env}
        git = ["git", "-C", str(cwd), f"--git-dir={self.path}"]
        return programs.run([*git, *words], env=env, **options).stdout.strip()


WHO = (("NAME", "Lab"), ("EMAIL", SIGNER))


def _signing(key: Path | None) -> list[str]:
    return ["-c", "gpg.format=ssh", "-c", f"user.signingkey={key}"] if key else []


def backend(repositories: Path) -> Callable[[Asked], Answer]:
    """Return a handler that runs git's http-backend for the bare repositories in a folder."""

    def answer(asked: Asked) -> Answer:
        path, _, query = asked.path.partition("?")
        header = asked.headers.get
        environment = {
            **GIT, "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(repositories), "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": asked.method, "PATH_INFO": path, "QUERY_STRING": query, "REMOTE_ADDR": asked.client,
            "CONTENT_TYPE": header("content-type", ""), "CONTENT_LENGTH": str(len(asked.body)),
            "HTTP_CONTENT_ENCODING": header("content-encoding", ""), "GIT_PROTOCOL": header("git-protocol", ""),
        }  # fmt: skip
        words = [shutil.which("git") or "git", "http-backend"]
        done = subprocess.run(
            words, input=asked.body, capture_output=True, env=environment, timeout=CGI_LIMIT, check=False
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
        status = int(headers.pop("Status", "200 OK").split()[0])
        return Answer(status if head else 500, body, headers)

    return answer
