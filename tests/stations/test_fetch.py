"""The ops repo at the wanted commit, believed before it is files; real repositories, real servers."""

import io
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo.clients.git import head
from pyinfra_solo.errors import DataError, SoloError, SourceError, TrustError
from pyinfra_solo.run.settings import Ops
from pyinfra_solo.stations.fetch import Checkout, fetch
from tests.support.git import free_port, http_server, ssh_server
from tests.support.line import new_run
from tests.support.loopback import ADDRESS as HERE
from tests.support.machine import ENGINE
from tests.support.programs import run as run_command
from tests.support.repository import Repository, signing_key


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Two commits on main."""
    (tmp_path / "served").mkdir()
    made = Repository(tmp_path / "served" / "ops.git").make()
    made.commit(
        {"deploy.py": "print(1)\n", "roles/site/__init__.py": "x = 1\n", "bin/run": "#!/bin/sh\n"}, "one"
    )
    made.commit({"deploy.py": "print(2)\n"}, "two")
    return made


class Fetching:
    """A machine's state folder, and the settings with which it fetches."""

    def __init__(self, state: Path, *remotes: str) -> None:
        self.state = state
        self.heard = io.StringIO()
        self.options: dict[str, Any] = {"remotes": remotes, "within": 20.0}

    def __call__(
        self, *, flag: str | None = None, stage: str = "staging", good: str | None = None, seconds: float = 60, **options: Any
    ) -> Checkout:  # fmt: skip
        ops = Ops(**{**self.options, **options})
        run = new_run(seconds, self.heard)
        with run.station("fetch"):
            return fetch(ops, stage, flag, self.state, run, good=good)

    def refuses(self, kind: type[SoloError], code: int, **options: Any) -> str:
        """The message with which it fails; not one file of a tree is on disk then."""
        with pytest.raises(kind) as raised:
            self(**options)
        assert raised.value.exit_code == code
        assert self.files() == []
        return str(raised.value)

    def files(self) -> list[Path]:
        """Every file of every checkout, whole or not."""
        return [path for path in (self.state / "checkouts").rglob("*") if path.is_file()]


@pytest.fixture
def fetching(tmp_path: Path, repository: Repository) -> Fetching:
    return Fetching(tmp_path / "state", str(repository.path))


def hexes(checkouts: Path) -> set[str]:
    return {path.name for path in checkouts.iterdir()}


class TestWhatIsWanted:
    def test_is_the_tip_of_a_branch(self, fetching: Fetching, repository: Repository) -> None:
        checkout = fetching()
        assert checkout.sha == repository.tip()
        assert checkout.root == fetching.state / "checkouts" / checkout.sha
        assert (checkout.root / "deploy.py").read_text() == "print(2)\n"
        assert os.access(checkout.root / "bin/run", os.X_OK)
        assert not (checkout.root / ".git").exists()

    def test_is_for_root_s_eyes_alone(self, fetching: Fetching) -> None:
        """It may hold secrets of every stage."""
        checkout = fetching()
        assert checkout.root.stat().st_mode & 0o077 == 0
        assert checkout.root.parent.stat().st_mode & 0o077 == 0

    def test_is_a_light_tag_or_an_annotated_one(self, fetching: Fetching, repository: Repository) -> None:
        first = repository.tip()
        repository.tag("light", first)
        repository.tag("heavy", first, message="a release")
        repository.commit({"deploy.py": "print(3)\n"}, "three")
        assert fetching(ref="light").sha == first
        assert fetching(ref="heavy").sha == first
        assert fetching(ref="heavy").source == str(repository.path)

    def test_is_a_commit_by_its_full_name(self, fetching: Fetching, repository: Repository) -> None:
        old = repository.tip()
        repository.commit({"deploy.py": "print(3)\n"}, "three")
        assert fetching(ref=old).sha == old
        assert fetching().sha == repository.tip()

    def test_is_a_stage_s_own_ref_which_a_flag_beats(
        self, fetching: Fetching, repository: Repository
    ) -> None:
        tip = repository.tip()
        live = repository.commit({"deploy.py": "print('live')\n"}, "live", branch="live", parent=tip)
        own = repository.commit({"deploy.py": "print('own')\n"}, "own", branch="feature/own", parent=tip)
        refs = {"production": "live"}
        assert fetching(refs=refs, stage="staging").sha == tip
        assert fetching(refs=refs, stage="production").sha == live
        assert fetching(refs=refs, stage="production", flag="feature/own").sha == own

    def test_follows_a_branch_that_was_forced_elsewhere(
        self, fetching: Fetching, repository: Repository
    ) -> None:
        first = fetching().sha
        repository.branch("main", "0" * 40)
        other = repository.commit({"deploy.py": "print('other')\n"}, "another history")
        assert fetching().sha == other != first

    def test_that_is_not_there_is_no_source(self, fetching: Fetching) -> None:
        assert "there is no branch or tag 'nowhere'" in fetching.refuses(SourceError, 10, ref="nowhere")
        fetching.refuses(SourceError, 10, ref="1" * 40)

    def test_must_not_be_a_branch_and_a_tag_of_one_name(
        self, fetching: Fetching, repository: Repository
    ) -> None:
        repository.tag("main", repository.tip())
        assert "a branch and a tag 'main'" in fetching.refuses(DataError, 13)

    def test_needs_a_remote(self, fetching: Fetching) -> None:
        assert "ops.remotes" in fetching.refuses(SourceError, 10, remotes=())


class TestACheckout:
    def test_that_is_there_is_used_again(self, fetching: Fetching) -> None:
        first = fetching().root
        (first / "deploy.py").touch()
        before = first.stat().st_ino, (first / "deploy.py").stat().st_ino
        again = fetching().root
        assert (again.stat().st_ino, (again / "deploy.py").stat().st_ino) == before

    def test_that_is_not_whole_is_made_anew(self, fetching: Fetching, repository: Repository) -> None:
        half = fetching.state / "checkouts" / repository.tip()
        half.mkdir(parents=True)
        (half / "deploy.py").write_text("print(")
        (fetching.state / "checkouts" / ".building-of-a-dead-run").mkdir()
        assert (fetching().root / "deploy.py").read_text() == "print(2)\n"
        assert hexes(fetching.state / "checkouts") == {repository.tip()}

    def test_goes_when_it_is_old_and_never_while_it_is_in_use(
        self, fetching: Fetching, repository: Repository
    ) -> None:
        used = fetching(keep=2).sha
        for number in range(4):
            repository.commit({"deploy.py": f"print({number})\n"}, str(number))
            fetching(keep=2)
            fetching(keep=2, flag=used)
        assert hexes(fetching.state / "checkouts") == {used, repository.tip()}
        fetching(keep=0, flag=used)
        assert hexes(fetching.state / "checkouts") == {used}

    def test_names_its_commit(self, fetching: Fetching, repository: Repository, tmp_path: Path) -> None:
        assert head(fetching().root) == repository.tip()
        clone = tmp_path / "clone"
        run_command(["git", "clone", "--quiet", repository.path, clone])
        assert head(clone) == repository.tip()
        (clone / "new").touch()
        assert head(clone) == f"{repository.tip()}+changes"
        assert head(fetching.state) == "unknown"

    def test_has_no_link_that_leads_out_of_it(self, fetching: Fetching, repository: Repository) -> None:
        for target in ("/etc/shadow", "../outside", "roles/../../outside", ".."):
            _commit_entry(repository, "120000", "leak", target)
            assert "'leak'" in fetching.refuses(TrustError, 11)

    def test_may_have_a_link_that_stays_inside(self, fetching: Fetching, repository: Repository) -> None:
        _commit_entry(repository, "120000", "bin/link", "../deploy.py")
        assert (fetching().root / "bin/link").read_text() == "print(2)\n"

    def test_has_no_submodule(self, fetching: Fetching, repository: Repository) -> None:
        _commit_entry(repository, "160000", "vendor", repository.tip())
        assert "submodule, 'vendor'" in fetching.refuses(DataError, 13)


def _commit_entry(repository: Repository, mode: str, path: str, content: str) -> None:
    """A commit on main with one more entry, which no working tree would give."""
    git = ["git", f"--git-dir={repository.path}"]
    env = {**os.environ, "GIT_INDEX_FILE": str(repository.path / "odd-index")}
    blob = content
    if mode == "120000":
        blob = run_command([*git, "hash-object", "-w", "--stdin"], stdin=content.encode()).stdout.strip()
    run_command([*git, "read-tree", "main"], env=env)
    run_command([*git, "update-index", "--add", "--cacheinfo", f"{mode},{blob},{path}"], env=env)
    tree = run_command([*git, "write-tree"], env=env).stdout.strip()
    who = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    commit = run_command(
        [*git, "commit-tree", tree, "-p", "main", "-m", path], env={**env, **who}
    ).stdout.strip()
    repository.branch("main", commit)


class TestOverHttp:
    @pytest.fixture
    def remote(self, repository: Repository) -> Iterator[Any]:
        with http_server(repository.path.parent) as server:
            yield server

    def test_it_is_fetched_and_the_second_time_only_asked_for(
        self, tmp_path: Path, repository: Repository, remote: Any
    ) -> None:
        fetching = Fetching(tmp_path / "state", f"{remote.url}/ops.git")
        assert fetching().sha == repository.tip()
        seen = len(remote.log)
        fetching()
        assert not any(
            "git-upload-pack" in asked.path and asked.method == "POST" and "fetch" in asked.path
            for asked in remote.log[seen:]
        )
        assert len(remote.log) - seen <= 2

    def test_the_next_remote_is_asked_when_one_fails(self, tmp_path: Path, remote: Any) -> None:
        closed = f"http://{HERE}:{free_port()}/ops.git"
        fetching = Fetching(tmp_path / "state", closed, f"{remote.url}/absent.git", f"{remote.url}/ops.git")
        assert fetching().source == f"{remote.url}/ops.git"
        assert f"{closed} gives nothing" in fetching.heard.getvalue()
        assert f"{remote.url}/absent.git gives nothing" in fetching.heard.getvalue()

    def test_a_server_that_hangs_costs_its_own_budget_and_leaves_no_process(
        self, tmp_path: Path, repository: Repository, remote: Any
    ) -> None:
        remote.faults.hang = True
        with socket.create_server((HERE, 0)) as mute:
            silent = f"http://{HERE}:{mute.getsockname()[1]}/ops.git"
            fetching = Fetching(tmp_path / "state", f"{remote.url}/ops.git", silent, str(repository.path))
            assert fetching(within=1.0).source == str(repository.path)
        assert _descendants(os.getpid()) == []

    def test_a_server_that_hangs_for_ever_ends_with_the_run(self, tmp_path: Path, remote: Any) -> None:
        remote.faults.hang = True
        fetching = Fetching(tmp_path / "state", f"{remote.url}/ops.git")
        assert "no answer in time" in fetching.refuses(SourceError, 10, seconds=1)

    def test_a_connection_that_breaks_off_leaves_nothing_and_heals(
        self, tmp_path: Path, repository: Repository, remote: Any
    ) -> None:
        fetching = Fetching(tmp_path / "state", f"{remote.url}/ops.git")
        for bytes_sent in (0, 60, 200, 400):
            remote.faults.drop_after = bytes_sent
            fetching.refuses(SourceError, 10)
        remote.faults.clear()
        assert fetching().sha == repository.tip()

    def test_a_password_in_the_url_is_never_shown(self, tmp_path: Path, remote: Any) -> None:
        host = remote.url.removeprefix("http://")
        for path in ("absent.git", "ops.git"):
            remote.faults.fail = [401, 401, 401, 401]
            fetching = Fetching(tmp_path / path, f"http://robot:hunter2@{host}/{path}")
            message = fetching.refuses(SourceError, 10)
            assert "hunter2" not in message + fetching.heard.getvalue()
            assert f"http://{host}/{path}" in message
        remote.faults.hang = True
        message = fetching.refuses(SourceError, 10, within=0.5)
        assert "hunter2" not in message + fetching.heard.getvalue()

    def test_nobody_is_asked_for_a_password(
        self, tmp_path: Path, remote: Any, monkeypatch: pytest.MonkeyPatch
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
        (tmp_path / ".gitconfig").write_text(
            f"[core]\naskpass = {program}\n[credential]\nhelper = !{program}\n"
        )
        remote.faults.fail = [401] * 4
        Fetching(tmp_path / "state", f"{remote.url}/ops.git").refuses(SourceError, 10)
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

    def test_a_pinned_host_is_believed_and_no_other(
        self, tmp_path: Path, repository: Repository, server: Any
    ) -> None:
        pinned = tmp_path / "known_hosts"
        pinned.write_text(server.known_hosts)
        fetching = Fetching(tmp_path / "state", server.url(repository.path), str(repository.path))
        fetching.options |= {"deploy_key": server.client, "known_hosts": pinned}

        other = tmp_path / "other"
        other.write_text(f"[{HERE}]:1 ssh-ed25519 AAAA\n")
        assert "not the pinned one" in fetching.refuses(TrustError, 11, known_hosts=other)
        assert "ops.known_hosts" in fetching.refuses(TrustError, 11, known_hosts=None)
        fetching.refuses(TrustError, 11, known_hosts=tmp_path / "absent")

        assert fetching().source == server.url(repository.path).replace("root@", "")
        shutil.rmtree(fetching.state)
        server.swap()
        assert "If it was changed on purpose" in fetching.refuses(TrustError, 11)

    def test_a_key_that_the_server_does_not_know_gives_nothing(
        self, tmp_path: Path, repository: Repository, server: Any
    ) -> None:
        key, _ = signing_key(tmp_path, "unknown")
        (tmp_path / "known_hosts").write_text(server.known_hosts)
        fetching = Fetching(tmp_path / "state", server.url(repository.path))
        fetching.options |= {"deploy_key": key, "known_hosts": tmp_path / "known_hosts"}
        assert "Permission denied" in fetching.refuses(SourceError, 10)


class TestWhenNoRemoteAnswers:
    @pytest.fixture
    def gone(self, fetching: Fetching, repository: Repository) -> Fetching:
        """It has fetched two commits, and the remote is gone."""
        self.first = fetching().sha
        self.second = repository.commit({"deploy.py": "print(3)\n"}, "three")
        fetching()
        repository.path.rename(repository.path.with_name("gone.git"))
        return fetching

    def test_the_newest_commit_on_disk_goes_on_and_says_so(self, gone: Fetching) -> None:
        checkout = gone()
        assert (checkout.sha, checkout.source) == (self.second, "disk")
        assert f"NO REMOTE ANSWERED: going on with {self.second[:12]}" in gone.heard.getvalue()

    def test_the_last_good_one_goes_on_when_that_is_asked_for(self, gone: Fetching) -> None:
        checkout = gone(on_disk="good", good=self.first)
        assert (checkout.sha, checkout.source) == (self.first, "disk")

    def test_the_last_good_one_must_be_known_and_on_disk(self, gone: Fetching) -> None:
        for good in (None, "2" * 40):
            with pytest.raises(SourceError, match="no good commit of 'main' is on disk"):
                gone(on_disk="good", good=good)

    def test_nothing_goes_on_when_that_is_asked_for(self, gone: Fetching) -> None:
        with pytest.raises(SourceError, match=r"ops\.on_disk is 'never'"):
            gone(on_disk="never")

    def test_another_ref_s_commit_is_no_substitute(self, gone: Fetching) -> None:
        with pytest.raises(SourceError, match="no newest commit of 'live' is on disk"):
            gone(ref="live")

    def test_a_connection_that_breaks_in_the_middle_of_a_pack_does_not_cost_the_commit_on_disk(
        self, gone: Fetching, repository: Repository
    ) -> None:
        """git's words are those of a torn repository, which is made anew."""
        repository.path.with_name("gone.git").rename(repository.path)
        repository.commit({"large": os.urandom(300_000)}, "large")
        with http_server(repository.path.parent) as server:
            server.faults.drop_after = 100_000
            checkout = gone(remotes=(f"{server.url}/ops.git",))
        assert (checkout.sha, checkout.source) == (self.second, "disk")

    def test_a_run_that_was_killed_while_it_made_the_repository_anew_costs_nothing(
        self, gone: Fetching
    ) -> None:
        (gone.state / "repo.git").rename(gone.state / "repo.git.aside")
        (gone.state / "repo.git").mkdir()
        assert gone().sha == self.second

    def test_a_torn_commit_on_disk_is_no_substitute(self, gone: Fetching) -> None:
        shutil.rmtree(gone.state / "checkouts")
        for pack in (gone.state / "repo.git").rglob("*.pack"):
            pack.chmod(0o600)
            pack.write_bytes(pack.read_bytes()[:40])
        gone.refuses(SourceError, 10)

    def test_what_is_on_disk_must_be_believed_like_all_else(self, gone: Fetching, tmp_path: Path) -> None:
        _, line = signing_key(tmp_path, "someone")
        (tmp_path / "signers").write_text(line)
        with pytest.raises(TrustError):
            gone(allowed_signers=tmp_path / "signers")

    def test_on_an_empty_disk_it_says_what_to_look_at(self, gone: Fetching) -> None:
        shutil.rmtree(gone.state)
        assert "see that a remote answers" in gone.refuses(SourceError, 10)


class TestASignature:
    @pytest.fixture
    def signed(self, fetching: Fetching, repository: Repository, tmp_path: Path) -> Fetching:
        """Only `key` may sign, and the tip is signed by it."""
        self.key, line = signing_key(tmp_path, "operator")
        self.signers = tmp_path / "allowed_signers"
        self.signers.write_text(line)
        fetching.options["allowed_signers"] = self.signers
        repository.commit({"deploy.py": "print('signed')\n"}, "signed", sign_with=self.key)
        return fetching

    def test_of_an_allowed_key_is_believed(self, signed: Fetching, repository: Repository) -> None:
        assert signed().sha == repository.tip()

    def test_that_is_missing_leaves_not_one_file(self, signed: Fetching, repository: Repository) -> None:
        repository.commit({"deploy.py": "print('evil')\n"}, "unsigned")
        assert "is not signed by a key in" in signed.refuses(TrustError, 11)

    def test_of_another_key_leaves_not_one_file(
        self, signed: Fetching, repository: Repository, tmp_path: Path
    ) -> None:
        """git's text says `Good "git" signature` all the same."""
        other, _ = signing_key(tmp_path, "other")
        repository.commit({"deploy.py": "print('evil')\n"}, "by another", sign_with=other)
        signed.refuses(TrustError, 11)

    def test_that_is_of_another_commit_leaves_not_one_file(
        self, signed: Fetching, repository: Repository
    ) -> None:
        git = ["git", f"--git-dir={repository.path}"]
        text = run_command([*git, "cat-file", "commit", "main"]).stdout.replace("\n\nsigned", "\n\ntampered")
        forged = run_command(
            [*git, "hash-object", "-t", "commit", "-w", "--stdin"], stdin=text.encode()
        ).stdout.strip()
        repository.branch("main", forged)
        signed.refuses(TrustError, 11)

    def test_of_a_key_in_root_s_keyring_leaves_not_one_file(
        self, signed: Fetching, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A commit names its own kind of signature, and git would ask gpg for an OpenPGP one."""
        home = Path(tempfile.mkdtemp(prefix="gnupg-"))  # a socket's path may have 107 bytes (unix(7))
        monkeypatch.setenv("GNUPGHOME", str(home))
        key = [
            "gpg",
            "--batch",
            "--quiet",
            "--passphrase",
            "",
            "--quick-generate-key",
            "root <root@lab>",
            "ed25519",
            "sign",
        ]
        clone = tmp_path / "clone"
        git = ["git", "-C", str(clone), "-c", "user.name=root", "-c", "user.email=root@lab"]
        try:
            run_command(key)
            run_command(["git", "clone", "--quiet", repository.path, clone])
            run_command([*git, "commit", "--quiet", "--allow-empty", "-m", "by gpg", "-S"])
            run_command([*git, "verify-commit", "HEAD"])
            run_command([*git, "push", "--quiet", "origin", "HEAD:main"])
            signed.refuses(TrustError, 11)
        finally:
            run_command(["gpgconf", "--kill", "all"], check=False)
            shutil.rmtree(home, ignore_errors=True)

    def test_of_a_revoked_key_leaves_not_one_file(self, signed: Fetching, tmp_path: Path) -> None:
        revoked = tmp_path / "revoked"
        revoked.write_text(self.key.with_suffix(".pub").read_text())
        signed.refuses(TrustError, 11, revoked_signers=revoked)

    @pytest.mark.parametrize("missing", ["allowed_signers", "revoked_signers"])
    def test_cannot_be_judged_when_a_list_is_missing(
        self, signed: Fetching, tmp_path: Path, missing: str
    ) -> None:
        """Without the list of revoked keys git only warns."""
        message = signed.refuses(TrustError, 11, **{missing: tmp_path / "absent"})
        assert message.startswith(f"{tmp_path}/absent is named in the settings and is not there.")

    def test_is_asked_for_again_of_a_checkout_that_is_there(self, signed: Fetching) -> None:
        """The key may have been taken from the list since."""
        signed()
        self.signers.write_text("")
        with pytest.raises(TrustError):
            signed()


class TestWhatDeadRunsLeave:
    @pytest.mark.parametrize(
        "name",
        ["shallow.lock", "index.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "refs/solo/main.lock", "objects/pack/tmp_pack_x1"],
    )  # fmt: skip
    def test_does_not_block_the_next_fetch(
        self, fetching: Fetching, repository: Repository, name: str
    ) -> None:
        fetching()
        lock = fetching.state / "repo.git" / name
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
        repository.commit({"deploy.py": "print(3)\n"}, "three")
        assert fetching().sha == repository.tip()
        assert not lock.exists()

    @pytest.mark.parametrize(
        "damage",
        ["cut packs", "empty packs", "no packs", "no indexes", "empty indexes", "no refs", "empty refs", "no HEAD", "empty config", "empty shallow", "no objects"],
    )  # fmt: skip
    @pytest.mark.parametrize("moved_on", [True, False], ids=["the branch has moved", "the branch has not"])
    def test_is_repaired_by_the_next_fetch(
        self, fetching: Fetching, repository: Repository, damage: str, moved_on: bool
    ) -> None:
        first = fetching().sha
        if moved_on:
            repository.commit({"roles/new/__init__.py": "x = 3\n"}, "three")
        _DAMAGE[damage](fetching.state / "repo.git")
        shutil.rmtree(fetching.state / "checkouts")
        checkout = fetching()
        assert checkout.sha == repository.tip()
        assert (checkout.sha == first) is not moved_on
        assert (checkout.root / "deploy.py").read_text() == "print(2)\n"
        assert (checkout.root / "roles/site/__init__.py").read_text() == "x = 1\n"
        assert hexes(fetching.state / "checkouts") == {repository.tip()}

    def test_is_repaired_wherever_the_run_was_killed(self, tmp_path: Path, repository: Repository) -> None:
        """SIGKILL at moments spread over a fetch's whole time, one state folder for all of them."""
        program = tmp_path / "fetch.py"
        program.write_text(
            "import io, sys\nfrom pathlib import Path\n"
            "from pyinfra_solo.stations.fetch import fetch\nfrom pyinfra_solo.run.settings import Ops\nfrom tests.support.machine import new_run\n"
            "run = new_run()\nprint('ready', flush=True)\n"
            "with run.station('fetch'):\n"
            "    fetch(Ops(remotes=(sys.argv[1],)), 'staging', None, Path(sys.argv[2]), run)\n"
        )
        state = tmp_path / "state"
        moments = random.Random(7)  # noqa: S311 - the same moments in each run
        for number in range(6):
            files: dict[str, str | bytes | None] = {
                f"files/{number}/{one}": f"{number} {one}\n" * 50 for one in range(40)
            }
            repository.commit(files, f"commit {number}")
            process = subprocess.Popen(
                [sys.executable, str(program), str(repository.path), str(state)],
                env={**os.environ, "PYTHONPATH": f"{ENGINE}:{ENGINE.parent}"}, stdout=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            assert process.stdout
            with process.stdout:
                process.stdout.readline()
                time.sleep(moments.uniform(0.005, 0.25))
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if number % 3 == 2:
                checkout = Fetching(state, str(repository.path))()
                assert checkout.sha == repository.tip()
                assert len(list((checkout.root / "files").rglob("[0-9]*/[0-9]*"))) == 40 * (number + 1)


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
    "no objects": lambda bare: shutil.rmtree(bare / "objects"),
}


def test_a_full_disk_is_named_and_leaves_nothing_that_is_believed(
    tmp_path: Path, repository: Repository
) -> None:
    """1 MiB is enough for the repository, and not for the tree."""
    if os.geteuid() != 0:
        pytest.skip("mounts a tmpfs")
    repository.commit({"large": "x" * 2_000_000}, "large")
    full = tmp_path / "full"
    full.mkdir()
    run_command(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", full])
    try:
        with pytest.raises(SourceError, match=r"unable to write file large\. 0 MiB are free there\."):
            Fetching(full, str(repository.path))()
        assert not (full / "checkouts" / repository.tip()).exists()
        run_command(["mount", "-o", "remount,size=20m", full])
        assert Fetching(full, str(repository.path))().sha == repository.tip()
    finally:
        run_command(["umount", full])
