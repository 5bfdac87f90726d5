"""The repository of commits: fetched over real servers, verified, repaired."""

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo.clients.git import BareRepository, GitError, NoSuchRefError, head
from pyinfra_solo.errors import DataError, TrustError
from pyinfra_solo.system.deadline import Deadline
from pyinfra_solo.system.text import without_password
from tests.support.git import http_server, ssh_server
from tests.support.loopback import ADDRESS as HERE
from tests.support.programs import run as run_command
from tests.support.repository import Repository, one_signer, signing_key
from tests.support.web import Answer, Asked, WebServer


class Client:
    """A machine's repository, which fetches from one remote."""

    def __init__(self, folder: Path, remote: str, **options: Any) -> None:
        self.state = folder / "state"
        self.state.mkdir(parents=True)
        self.remote = remote
        self.options = options
        self.lines: list[str] = []
        self.key = Path()

    def open(self, **options: Any) -> BareRepository:
        return BareRepository(self.state, self.lines.append, **{**self.options, **options})

    def fetch(self, ref: str = "main", *, seconds: float = 20, **options: Any) -> str:
        """The commit, all of which is there."""
        opened = self.open(**options)
        sha = opened.fetch(self.remote, ref, Deadline.after(seconds))
        assert opened.has(sha)
        return sha

    def fails(self, kind: type[Exception] = GitError, ref: str = "main", **options: Any) -> str:
        """The message with which it fails."""
        with pytest.raises(kind) as raised:
            self.fetch(ref, **options)
        return str(raised.value)

    def text(self, sha: str, path: str = "deploy.py") -> str:
        """A file of the commit, as it is written."""
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder, "tree")
            tree.mkdir()
            self.open().write_tree(sha, tree, Path(folder, "index"))
            return (tree / path).read_text()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Two commits on main."""
    (tmp_path / "served").mkdir()
    made = Repository(tmp_path / "served" / "ops.git").make()
    made.commit({"deploy.py": "print(1)\n", "roles/site/__init__.py": "x = 1\n"}, "one")
    made.commit({"deploy.py": "print(2)\n"}, "two")
    return made


@pytest.fixture
def client(tmp_path: Path, repository: Repository) -> Client:
    return Client(tmp_path / "client", str(repository.path))


def test_the_tip_of_a_branch_is_fetched(client: Client, repository: Repository) -> None:
    assert client.fetch() == repository.tip()
    assert client.text(repository.tip()) == "print(2)\n"
    assert client.open().last_fetched("main") == repository.tip()
    assert client.open().last_fetched("live") is None


def test_the_repository_is_for_root_alone(client: Client) -> None:
    """It may hold secrets of every stage."""
    client.fetch()
    assert (client.state / "repo.git").stat().st_mode & 0o077 == 0


def test_a_tag_with_or_without_a_message_may_be_named(client: Client, repository: Repository) -> None:
    first = repository.tip()
    repository.tag("light", first)
    repository.tag("heavy", first, message="a release")
    repository.commit({"deploy.py": "print(3)\n"}, "three")
    assert client.fetch("light") == client.fetch("heavy") == first


def test_a_commit_may_be_named_in_full(client: Client, repository: Repository) -> None:
    old = repository.tip()
    repository.commit({"deploy.py": "print(3)\n"}, "three")
    assert client.fetch(old) == old
    assert client.fetch() == repository.tip()


def test_a_branch_that_was_forced_elsewhere_is_followed(client: Client, repository: Repository) -> None:
    first = client.fetch()
    repository.branch("main", "0" * 40)
    other = repository.commit({"deploy.py": "print('other')\n"}, "another history")
    assert client.fetch() == other != first


def test_an_unknown_ref_is_an_error(client: Client) -> None:
    assert client.fails(ref="nowhere") == "there is no branch or tag 'nowhere'"
    client.fails(ref="1" * 40)


def test_a_branch_and_a_tag_of_one_name_are_an_error(client: Client, repository: Repository) -> None:
    repository.tag("main", repository.tip())
    assert "a branch and a tag 'main'" in client.fails(DataError)


def test_the_head_of_a_folder_is_named(client: Client, repository: Repository, tmp_path: Path) -> None:
    checkout = tmp_path / repository.tip()
    checkout.mkdir()
    assert head(checkout) == repository.tip()
    clone = tmp_path / "clone"
    run_command(["git", "clone", "--quiet", repository.path, clone])
    assert head(clone) == repository.tip()
    (clone / "new").touch()
    assert head(clone) == f"{repository.tip()}+changes"
    assert head(client.state) == "unknown"


def test_many_packs_become_one_without_loss(
    client: Client, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyinfra_solo.clients.git._MOST_PACKS", 2)
    commits = [client.fetch()]
    for number in range(3):
        repository.commit({"deploy.py": f"print({number})\n"}, str(number))
        commits.append(client.fetch())
    opened = client.open()
    assert opened.packs() == 4
    opened.tidy()
    assert opened.packs() == 1
    assert all(map(opened.has, commits))


def test_a_refused_commit_leaves_no_object(client: Client, repository: Repository, tmp_path: Path) -> None:
    """Each refused fetch of a large commit would take its size of the disk, for ever."""
    key, signers = one_signer(tmp_path, repository)
    first = client.fetch(allowed_signers=signers)
    before = stored(client)
    repository.commit({"large": os.urandom(500_000)}, "unsigned and large")
    for _ in range(2):
        client.fails(TrustError, allowed_signers=signers)
        assert stored(client) == before
    assert client.open().has(first)
    good = repository.commit({"large": None}, "the next, signed", sign_with=key)
    assert client.fetch(allowed_signers=signers) == good


def stored(client: Client) -> set[str]:
    """List the files of objects in the client's repository."""
    bare = client.state / "repo.git"
    places = ("objects", "incoming")
    return {
        str(path.relative_to(bare)) for one in places for path in (bare / one).rglob("*") if path.is_file()
    }


def test_a_killed_fetch_leaves_no_object(client: Client, repository: Repository) -> None:
    """A run that is killed in quarantine leaves packs that nobody has verified."""
    client.fetch()
    before = stored(client)
    repository.commit({"deploy.py": "print(3)\n"}, "three")
    pid = os.fork()
    if pid == 0:
        try:
            opened = client.open()
            with opened.quarantine():
                opened.fetch_refs(client.remote, "refs/heads/main")
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert stored(client) > before
    client.open()
    assert stored(client) == before
    assert client.fetch() == repository.tip()


@pytest.mark.parametrize("way", ["count", "parameters"])
def test_git_variables_of_the_environment_count_nothing(
    client: Client, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Settings given there are stronger than -c: they could name a program that finds each signature good."""
    _, signers = one_signer(tmp_path, repository)
    key, _ = signing_key(tmp_path, "other")
    repository.commit({"deploy.py": "print('evil')\n"}, "by another", sign_with=key)
    agrees = tmp_path / "agrees"
    agrees.write_text("#!/bin/sh\necho 'Good \"git\" signature for operator with ED25519 key SHA256:x'\n")
    agrees.chmod(0o755)
    count = {"COUNT": "1", "KEY_0": "gpg.ssh.program", "VALUE_0": str(agrees)}
    given = count if way == "count" else {"PARAMETERS": f"'gpg.ssh.program={agrees}'"}
    for name, value in given.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    client.fails(TrustError, allowed_signers=signers)


def test_a_head_is_of_the_folder_whatever_the_environment_names(
    client: Client, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = tmp_path / "clone"
    run_command(["git", "clone", "--quiet", repository.path, clone])
    monkeypatch.setenv("GIT_WORK_TREE", str(client.state))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert head(clone) == repository.tip()


def test_a_ref_that_a_remote_lacks_is_no_outage(client: Client, repository: Repository) -> None:
    client.fails(NoSuchRefError, ref="nowhere")
    client.fails(NoSuchRefError, ref="1" * 40)
    repository.path.rename(repository.path.with_name("gone.git"))
    with pytest.raises(GitError) as raised:
        client.fetch()
    assert not isinstance(raised.value, NoSuchRefError)


class TestOverHttp:
    @pytest.fixture
    def remote(self, repository: Repository) -> Iterator[Any]:
        with http_server(repository.path.parent) as server:
            yield server

    @pytest.fixture
    def client(self, tmp_path: Path, remote: Any) -> Client:
        return Client(tmp_path / "client", f"{remote.url}/ops.git")

    def test_a_commit_that_is_here_is_not_fetched(self, client: Client, remote: Any) -> None:
        """Two requests list the refs; a third would fetch."""
        client.fetch()
        seen = len(remote.log)
        client.fetch()
        assert len(remote.log) - seen <= 2

    @pytest.mark.parametrize("how", ["no answer", "no connection"])
    def test_a_server_that_hangs_leaves_no_process(self, client: Client, remote: Any, how: str) -> None:
        remote.faults.hang = True
        with socket.create_server((HERE, 0)) as mute:
            if how == "no connection":
                client.remote = f"http://{HERE}:{mute.getsockname()[1]}/ops.git"
            assert client.fails(seconds=1) == "no answer in time"
        assert _descendants(os.getpid()) == []

    def test_without_time_nothing_is_asked(self, client: Client, remote: Any) -> None:
        assert client.fails(seconds=0) == "no time is left to ask the remote"
        assert not remote.log

    def test_a_connection_that_breaks_costs_nothing(self, client: Client, remote: Any) -> None:
        for sent in (0, 60, 200, 400):
            remote.faults.drop_after = sent
            client.fails()
        remote.faults.clear()
        client.fetch()

    def test_a_pack_that_breaks_off_costs_no_commit(
        self, client: Client, repository: Repository, remote: Any
    ) -> None:
        """git's words are those of a damaged repository, which is made anew."""
        first = client.fetch()
        repository.commit({"large": os.urandom(300_000)}, "large")
        remote.faults.drop_after = 100_000
        client.fails()
        assert client.open().has(first)
        assert client.open().last_fetched("main") == first

    def test_a_password_in_the_url_is_never_shown(self, client: Client, remote: Any) -> None:
        host = remote.url.removeprefix("http://")
        for path in ("absent.git", "ops.git"):
            remote.faults.fail = [401, 401, 401, 401]
            client.remote = f"http://robot:hunter2@{host}/{path}"
            assert "hunter2" not in client.fails() + "".join(client.lines)
            assert without_password(client.remote) == f"http://{host}/{path}"
        remote.faults.hang = True
        assert "hunter2" not in client.fails(seconds=0.5) + "".join(client.lines)

    def test_a_token_does_not_follow_a_redirect(
        self, client: Client, repository: Repository, remote: WebServer
    ) -> None:
        """git sends http.extraHeader to whatever host it is redirected to."""
        serve, tokens = remote.answer, []
        with http_server(repository.path.parent) as other:

            def redirect(asked: Asked) -> Answer:
                return Answer(307, b"", {"Location": other.url + asked.path})

            def protected(asked: Asked) -> Answer:
                tokens.append(asked.headers.get("authorization"))
                return serve(asked)

            client.remote = remote.url.replace("http://", "http://robot:hunter2@") + "/ops.git"
            remote.answer = redirect
            assert "307" in client.fails()
            assert not other.log
            remote.answer = protected
            assert client.fetch() == repository.tip()
            assert set(tokens) == {"Basic cm9ib3Q6aHVudGVyMg=="}

    def test_nobody_is_asked_for_a_password(
        self, client: Client, tmp_path: Path, remote: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """git would ask on the terminal, and through the programs that the environment names."""
        asked = tmp_path / "asked"
        program = tmp_path / "ask"
        program.write_text(f"#!/bin/sh\ntouch {asked}\necho x\n")
        program.chmod(0o755)
        for name in ("GIT_ASKPASS", "SSH_ASKPASS"):
            monkeypatch.setenv(name, str(program))
        monkeypatch.setenv("DISPLAY", ":0")
        monkeypatch.setenv("HOME", str(tmp_path))
        settings = f"[core]\naskpass = {program}\n[credential]\nhelper = !{program}\n"
        (tmp_path / ".gitconfig").write_text(settings)
        remote.faults.fail = [401] * 4
        client.fails()
        assert not asked.exists()


def _descendants(pid: int) -> list[str]:
    """git's processes below `pid`, by name."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        name = Path(f"/proc/{child}/comm").read_text().strip()
        found += [*([name] if name.startswith("git") else []), *_descendants(int(child))]
    return found


class TestOverSsh:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Any]:
        with ssh_server(tmp_path / "sshd") as made:
            yield made

    @pytest.fixture
    def client(self, tmp_path: Path, repository: Repository, server: Any) -> Client:
        pinned = tmp_path / "known_hosts"
        pinned.write_text(server.known_hosts)
        url = server.url(repository.path)
        return Client(tmp_path / "client", url, deploy_key=server.client, known_hosts=pinned)

    def test_only_a_pinned_host_is_trusted(
        self, client: Client, tmp_path: Path, repository: Repository, server: Any
    ) -> None:
        other = tmp_path / "other"
        other.write_text(f"[{HERE}]:1 ssh-ed25519 AAAA\n")
        url = without_password(client.remote)
        assert (
            f"{other}, which ops.known_hosts names, has no key for the host of {url}. Add it."
            in client.fails(TrustError, known_hosts=other)
        )
        assert client.fails(TrustError, known_hosts=None).startswith(
            f"No host key is pinned for {url}: ops.known_hosts is not set. Put the host's key into a file"
        )
        absent = tmp_path / "absent"
        assert f"The file {absent}, which ops.known_hosts names, is not there." in client.fails(
            TrustError, known_hosts=absent
        )

        assert client.fetch() == repository.tip()
        shutil.rmtree(client.state / "repo.git")
        server.swap()
        changed = client.fails(TrustError)
        assert f"The host key of {url} is not the pinned one. If it was changed on purpose" in changed
        assert str(client.options["known_hosts"]) in changed

    def test_an_unknown_key_gets_nothing(self, client: Client, tmp_path: Path) -> None:
        key, _ = signing_key(tmp_path, "unknown")
        assert "Permission denied" in client.fails(deploy_key=key)


class TestSignatures:
    @pytest.fixture
    def signed(self, client: Client, repository: Repository, tmp_path: Path) -> Client:
        """Only `key` may sign, and the tip is signed by it."""
        self.key, self.signers = one_signer(tmp_path, repository)
        client.options["allowed_signers"] = self.signers
        return client

    def refuses(self, signed: Client, **options: Any) -> str:
        """The message; the commit is not the newest of its ref."""
        message = signed.fails(TrustError, **options)
        assert signed.open().last_fetched("main") is None
        return message

    def test_a_commit_of_an_allowed_key_is_trusted(self, signed: Client, repository: Repository) -> None:
        assert signed.fetch() == repository.tip()

    def test_a_commit_without_one_is_refused(self, signed: Client, repository: Repository) -> None:
        repository.commit({"deploy.py": "print('evil')\n"}, "unsigned")
        assert "is not signed by a key in" in self.refuses(signed)

    def test_a_commit_of_another_key_is_refused(
        self, signed: Client, repository: Repository, tmp_path: Path
    ) -> None:
        """git's text says `Good "git" signature` all the same."""
        other, _ = signing_key(tmp_path, "other")
        repository.commit({"deploy.py": "print('evil')\n"}, "by another", sign_with=other)
        self.refuses(signed)

    def test_a_signature_of_another_commit_is_refused(self, signed: Client, repository: Repository) -> None:
        git = ["git", f"--git-dir={repository.path}"]
        text = run_command([*git, "cat-file", "commit", "main"]).stdout.replace("\n\nsigned", "\n\ntampered")
        forged = run_command([*git, "hash-object", "-t", "commit", "-w", "--stdin"], stdin=text.encode())
        repository.branch("main", forged.stdout.strip())
        self.refuses(signed)

    def test_a_key_in_roots_keyring_is_refused(
        self, signed: Client, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A commit names its own kind of signature, and git would ask gpg for an OpenPGP one."""
        home = Path(tempfile.mkdtemp(prefix="gnupg-"))  # a socket's path may have 107 bytes (unix(7))
        monkeypatch.setenv("GNUPGHOME", str(home))
        key = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "root <root@lab>", "ed25519", "sign"]  # fmt: skip
        clone = tmp_path / "clone"
        git = ["git", "-C", str(clone), "-c", "user.name=root", "-c", "user.email=root@lab"]
        try:
            run_command(key)
            run_command(["git", "clone", "--quiet", repository.path, clone])
            run_command([*git, "commit", "--quiet", "--allow-empty", "-m", "by gpg", "-S"])
            run_command([*git, "verify-commit", "HEAD"])
            run_command([*git, "push", "--quiet", "origin", "HEAD:main"])
            self.refuses(signed)
        finally:
            run_command(["gpgconf", "--kill", "all"], check=False)
            shutil.rmtree(home, ignore_errors=True)

    def test_a_commit_of_a_revoked_key_is_refused(self, signed: Client, tmp_path: Path) -> None:
        revoked = tmp_path / "revoked"
        revoked.write_text(self.key.with_suffix(".pub").read_text())
        self.refuses(signed, revoked_signers=revoked)

    @pytest.mark.parametrize("missing", ["allowed_signers", "revoked_signers"])
    def test_a_missing_list_of_keys_is_refused(self, signed: Client, tmp_path: Path, missing: str) -> None:
        """Without the list of revoked keys git only warns."""
        message = self.refuses(signed, **{missing: tmp_path / "absent"})
        assert message.startswith(f"{tmp_path}/absent is named in the settings and does not exist.")


def _each(pattern: str, change: Callable[[Path], None]) -> Callable[[Path], None]:
    def damage(bare: Path) -> None:
        found = [path for path in bare.glob(pattern) if path.is_file()]
        assert found, f"nothing to damage: {pattern}"
        for path in found:
            path.chmod(0o600)
            change(path)

    return damage


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _without_files(bare: Path) -> None:
    """The commit is here, and its files are not: git fetches nothing then."""
    git = ["git", f"--git-dir={bare}"]
    for pack in list(bare.glob("objects/pack/*.pack")):
        aside = pack.rename(bare / pack.name)
        for index in bare.glob(f"objects/pack/{pack.stem}.*"):
            index.unlink()
        run_command([*git, "unpack-objects", "-q"], stdin=aside.read_bytes())
        aside.unlink()
    for path in [*bare.glob("objects/??/*")]:
        sha = path.parent.name + path.name
        if run_command([*git, "cat-file", "-t", sha]).stdout == "blob\n":
            path.unlink()


_DAMAGE: dict[str, Callable[[Path], None]] = {
    "cut packs": _each("objects/pack/*.pack", _cut),
    "empty packs": _each("objects/pack/*.pack", _empty),
    "no packs": _each("objects/pack/*.pack", Path.unlink),
    "no indexes": _each("objects/pack/*.idx", Path.unlink),
    "empty indexes": _each("objects/pack/*.idx", _empty),
    "no refs": _each("refs/**/*", Path.unlink),
    "empty refs": _each("refs/**/*", _empty),
    "no HEAD": _each("HEAD", Path.unlink),
    "empty config": _each("config", _empty),
    "empty shallow": _each("shallow", _empty),
    "no files": _without_files,
    "no objects": lambda bare: shutil.rmtree(bare / "objects"),
}


class TestDeadRuns:
    @pytest.mark.parametrize(
        "name",
        ["shallow.lock", "index.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "refs/solo/main.lock", "objects/pack/tmp_pack_x1"],
    )  # fmt: skip
    def test_a_lock_does_not_block_the_next_fetch(
        self, client: Client, repository: Repository, name: str
    ) -> None:
        client.fetch()
        lock = client.state / "repo.git" / name
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
        repository.commit({"deploy.py": "print(3)\n"}, "three")
        assert client.fetch() == repository.tip()
        assert not lock.exists()

    @pytest.mark.parametrize("damage", _DAMAGE)
    @pytest.mark.parametrize("moved_on", [True, False], ids=["the branch has moved", "the branch has not"])
    def test_damage_is_repaired_by_the_next_fetch(
        self, client: Client, repository: Repository, damage: str, moved_on: bool
    ) -> None:
        first = client.fetch()
        if moved_on:
            repository.commit({"roles/new/__init__.py": "x = 3\n"}, "three")
        _DAMAGE[damage](client.state / "repo.git")
        sha = client.fetch()
        assert sha == repository.tip()
        assert (sha == first) is not moved_on
        assert client.text(sha) == "print(2)\n"
        assert client.text(sha, "roles/site/__init__.py") == "x = 1\n"

    @pytest.mark.parametrize("where", ["repo.git", "repo.git.aside"])
    def test_folders_very_deep_do_not_block_the_next_fetch(
        self, client: Client, repository: Repository, where: str
    ) -> None:
        """Python's own removal and search of folders raise RecursionError for these."""
        client.fetch()
        (client.state / where / "refs").mkdir(parents=True, exist_ok=True)
        (client.state / where / "HEAD").unlink(missing_ok=True)
        before = os.open(".", os.O_RDONLY)
        try:
            os.chdir(client.state / where / "refs")
            for _ in range(3000):
                Path("d").mkdir()
                os.chdir("d")
        finally:
            os.fchdir(before)
            os.close(before)
        repository.commit({"deploy.py": "print(3)\n"}, "three")
        assert client.fetch() == repository.tip()
        assert not (client.state / "repo.git/refs/d").exists()

    def test_one_that_made_the_repository_anew_costs_no_commit(self, client: Client) -> None:
        sha = client.fetch()
        (client.state / "repo.git").rename(client.state / "repo.git.aside")
        (client.state / "repo.git").mkdir()
        assert client.open().has(sha)
