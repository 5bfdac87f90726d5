"""The ops repo at the wanted commit, verified before it is files; real repositories, real servers."""

import io
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo.errors import DataError, SoloError, SourceError, TrustError
from pyinfra_solo.run.settings import Ops
from pyinfra_solo.stations.fetch import Checkout, fetch
from tests.support.git import free_port, http_server
from tests.support.line import new_run
from tests.support.loopback import ADDRESS as HERE
from tests.support.machine import ENGINE
from tests.support.programs import run as run_command
from tests.support.repository import Repository, one_signer, signing_key


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
        self.options: dict[str, Any] = {"remotes": remotes, "timeout": 20.0}

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


class TestTheWantedCommit:
    def test_the_tip_of_a_branch_is_checked_out(self, fetching: Fetching, repository: Repository) -> None:
        checkout = fetching()
        assert checkout.sha == repository.tip()
        assert checkout.root == fetching.state / "checkouts" / checkout.sha
        assert (checkout.root / "deploy.py").read_text() == "print(2)\n"
        assert os.access(checkout.root / "bin/run", os.X_OK)
        assert not (checkout.root / ".git").exists()

    def test_a_checkout_is_for_root_alone(self, fetching: Fetching) -> None:
        """It may hold secrets of every stage."""
        checkout = fetching()
        assert checkout.root.stat().st_mode & 0o077 == 0
        assert checkout.root.parent.stat().st_mode & 0o077 == 0

    def test_a_flag_beats_the_stages_ref_which_beats_the_settings(
        self, fetching: Fetching, repository: Repository
    ) -> None:
        tip = repository.tip()
        live = repository.commit({"deploy.py": "print('live')\n"}, "live", branch="live", parent=tip)
        own = repository.commit({"deploy.py": "print('own')\n"}, "own", branch="feature/own", parent=tip)
        refs = {"production": "live"}
        assert fetching(refs=refs, stage="staging").sha == tip
        assert fetching(refs=refs, stage="production").sha == live
        assert fetching(refs=refs, stage="production", flag="feature/own").sha == own

    def test_an_unknown_ref_is_a_source_error(self, fetching: Fetching) -> None:
        message = fetching.refuses(SourceError, 10, ref="nowhere")
        assert "there is no branch or tag 'nowhere'" in message
        assert message.endswith("Create 'nowhere' there, or correct the ref in the settings.")
        assert "correct the ref" in fetching.refuses(SourceError, 10, ref="1" * 40)

    def test_without_a_remote_the_setting_is_named(self, fetching: Fetching) -> None:
        assert "ops.remotes" in fetching.refuses(SourceError, 10, remotes=())


class TestCheckouts:
    def test_a_complete_one_is_used(self, fetching: Fetching) -> None:
        first = fetching().root
        (first / "deploy.py").touch()
        before = first.stat().st_ino, (first / "deploy.py").stat().st_ino
        again = fetching().root
        assert (again.stat().st_ino, (again / "deploy.py").stat().st_ino) == before

    def test_an_incomplete_one_is_made_anew(self, fetching: Fetching, repository: Repository) -> None:
        half = fetching.state / "checkouts" / repository.tip()
        half.mkdir(parents=True)
        (half / "deploy.py").write_text("print(")
        (fetching.state / "checkouts" / ".building-of-a-dead-run").mkdir()
        assert (fetching().root / "deploy.py").read_text() == "print(2)\n"
        assert hexes(fetching.state / "checkouts") == {repository.tip()}

    def test_old_ones_go_and_never_the_one_in_use(self, fetching: Fetching, repository: Repository) -> None:
        used = fetching(keep=2).sha
        for number in range(4):
            repository.commit({"deploy.py": f"print({number})\n"}, str(number))
            fetching(keep=2)
            fetching(keep=2, flag=used)
        assert hexes(fetching.state / "checkouts") == {used, repository.tip()}
        fetching(keep=0, flag=used)
        assert hexes(fetching.state / "checkouts") == {used}

    def test_a_link_out_of_the_tree_is_refused(self, fetching: Fetching, repository: Repository) -> None:
        for target in ("/etc/shadow", "../outside", "roles/../../outside", ".."):
            _commit_entry(repository, "120000", "leak", target)
            assert "'leak'" in fetching.refuses(TrustError, 11)

    def test_a_link_within_the_tree_is_kept(self, fetching: Fetching, repository: Repository) -> None:
        _commit_entry(repository, "120000", "bin/link", "../deploy.py")
        assert (fetching().root / "bin/link").read_text() == "print(2)\n"

    @pytest.mark.parametrize("links", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "bin/../a"}])
    def test_a_loop_of_links_is_refused_by_name(
        self, fetching: Fetching, repository: Repository, links: dict[str, str]
    ) -> None:
        for path, target in links.items():
            _commit_entry(repository, "120000", path, target)
        assert "link 'a' is part of a loop. Remove it." in fetching.refuses(DataError, 13)

    def test_a_link_to_nothing_is_kept(self, fetching: Fetching, repository: Repository) -> None:
        _commit_entry(repository, "120000", "bin/link", "../later")
        assert (fetching().root / "bin/link").is_symlink()

    def test_a_submodule_is_refused(self, fetching: Fetching, repository: Repository) -> None:
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

    def test_the_next_remote_is_asked_when_one_fails(self, tmp_path: Path, remote: Any) -> None:
        closed = f"http://{HERE}:{free_port()}/ops.git"
        fetching = Fetching(tmp_path / "state", closed, f"{remote.url}/absent.git", f"{remote.url}/ops.git")
        assert fetching().source == f"{remote.url}/ops.git"
        assert f"{closed}: fetch failed" in fetching.heard.getvalue()
        assert f"{remote.url}/absent.git: fetch failed" in fetching.heard.getvalue()

    def test_a_server_that_hangs_costs_its_own_time_only(
        self, tmp_path: Path, repository: Repository, remote: Any
    ) -> None:
        remote.faults.hang = True
        with socket.create_server((HERE, 0)) as mute:
            silent = f"http://{HERE}:{mute.getsockname()[1]}/ops.git"
            fetching = Fetching(tmp_path / "state", f"{remote.url}/ops.git", silent, str(repository.path))
            assert fetching(timeout=1.0).source == str(repository.path)

    def test_a_server_that_hangs_ends_with_the_run(self, tmp_path: Path, remote: Any) -> None:
        remote.faults.hang = True
        fetching = Fetching(tmp_path / "state", f"{remote.url}/ops.git")
        assert "no answer in time" in fetching.refuses(SourceError, 10, seconds=1)

    def test_a_password_in_a_remote_is_never_shown(self, tmp_path: Path, remote: Any) -> None:
        host = remote.url.removeprefix("http://")
        remote.faults.fail = [401] * 4
        fetching = Fetching(tmp_path / "state", f"http://robot:hunter2@{host}/ops.git")
        message = fetching.refuses(SourceError, 10)
        assert "hunter2" not in message + fetching.heard.getvalue()
        assert f"http://{host}/ops.git" in message


class TestWithoutARemote:
    @pytest.fixture
    def gone(self, fetching: Fetching, repository: Repository) -> Fetching:
        """It has fetched two commits, and the remote is gone."""
        self.first = fetching().sha
        self.second = repository.commit({"deploy.py": "print(3)\n"}, "three")
        fetching()
        repository.path.rename(repository.path.with_name("gone.git"))
        return fetching

    def test_the_newest_commit_on_disk_is_used_and_named(self, gone: Fetching) -> None:
        checkout = gone()
        assert (checkout.sha, checkout.source) == (self.second, "disk")
        assert f"NO REMOTE ANSWERED: using {self.second[:12]}" in gone.heard.getvalue()

    def test_a_branch_that_is_gone_is_no_outage(self, fetching: Fetching, repository: Repository) -> None:
        """It answers: to wait for it, or to repair the network, helps nobody."""
        sha = fetching().sha
        repository.branch("other", sha)
        run_command(["git", f"--git-dir={repository.path}", "update-ref", "-d", "refs/heads/main"])
        checkout = fetching()
        assert (checkout.sha, checkout.source) == (sha, "disk")
        said = fetching.heard.getvalue()
        assert f"NO REMOTE THAT ANSWERED HAS 'main': using {sha[:12]} from disk" in said
        assert "NO REMOTE ANSWERED" not in said
        with pytest.raises(SourceError, match=r"ops\.fallback is 'none'\. Create 'main' there, or correct"):
            fetching(fallback="none")

    def test_the_last_good_commit_is_used_if_set(self, gone: Fetching) -> None:
        checkout = gone(fallback="last-good", good=self.first)
        assert (checkout.sha, checkout.source) == (self.first, "disk")

    def test_the_last_good_commit_must_be_known_and_on_disk(self, gone: Fetching) -> None:
        for good in (None, "2" * 40):
            with pytest.raises(SourceError, match="no last-good commit of 'main' is on disk"):
                gone(fallback="last-good", good=good)

    def test_nothing_is_used_if_set(self, gone: Fetching) -> None:
        with pytest.raises(SourceError, match=r"ops\.fallback is 'none'"):
            gone(fallback="none")

    def test_a_commit_of_another_ref_is_not_used(self, gone: Fetching) -> None:
        with pytest.raises(SourceError, match="no newest commit of 'live' is on disk"):
            gone(ref="live")

    def test_a_damaged_commit_on_disk_is_not_used(self, gone: Fetching) -> None:
        shutil.rmtree(gone.state / "checkouts")
        for pack in (gone.state / "repo.git").rglob("*.pack"):
            pack.chmod(0o600)
            pack.write_bytes(pack.read_bytes()[:40])
        gone.refuses(SourceError, 10)

    def test_a_commit_on_disk_needs_its_signature_too(self, gone: Fetching, tmp_path: Path) -> None:
        _, line = signing_key(tmp_path, "someone")
        (tmp_path / "signers").write_text(line)
        with pytest.raises(TrustError):
            gone(allowed_signers=tmp_path / "signers")

    def test_on_an_empty_disk_the_message_says_what_to_do(self, gone: Fetching) -> None:
        shutil.rmtree(gone.state)
        assert "Check that a remote answers" in gone.refuses(SourceError, 10)


class TestSignatures:
    @pytest.fixture
    def signed(self, fetching: Fetching, repository: Repository, tmp_path: Path) -> Fetching:
        """Only `key` may sign, and the tip is signed by it."""
        self.key, self.signers = one_signer(tmp_path, repository)
        fetching.options["allowed_signers"] = self.signers
        return fetching

    def test_an_unsigned_commit_leaves_not_one_file(self, signed: Fetching, repository: Repository) -> None:
        repository.commit({"deploy.py": "print('evil')\n"}, "unsigned")
        assert "is not signed by a key in" in signed.refuses(TrustError, 11)

    def test_an_unsigned_commit_ends_the_ladder(self, signed: Fetching, repository: Repository) -> None:
        signed.options["remotes"] = (str(repository.path), str(repository.path.with_name("second.git")))
        repository.commit({"deploy.py": "print('evil')\n"}, "unsigned")
        signed.refuses(TrustError, 11)
        assert "second.git" not in signed.heard.getvalue()

    def test_a_revoked_key_leaves_not_one_file(self, signed: Fetching, tmp_path: Path) -> None:
        revoked = tmp_path / "revoked"
        revoked.write_text(self.key.with_suffix(".pub").read_text())
        signed.refuses(TrustError, 11, revoked_signers=revoked)

    def test_a_commit_of_another_repository_leaves_not_one_file(
        self, signed: Fetching, repository: Repository
    ) -> None:
        assert "does not say which ops repo it is of" in signed.refuses(TrustError, 11, name="shop")
        repository.commit({"ops.toml": 'name = "lab"\n'}, "of the lab", sign_with=self.key)
        assert "is of the ops repo 'lab'" in signed.refuses(TrustError, 11, name="shop")
        assert signed(name="lab").sha == repository.tip()

    def test_a_complete_checkout_needs_its_signature_too(self, signed: Fetching) -> None:
        """The key may have been taken from the list since."""
        signed()
        self.signers.write_text("")
        with pytest.raises(TrustError):
            signed()


def test_killed_anywhere_the_next_fetch_repairs_it(tmp_path: Path, repository: Repository) -> None:
    """SIGKILL at moments spread over a fetch's whole time, one state folder for all of them."""
    program = tmp_path / "fetch.py"
    program.write_text(
        "import io, sys\nfrom pathlib import Path\n"
        "from pyinfra_solo.stations.fetch import fetch\nfrom pyinfra_solo.run.settings import Ops\nfrom tests.support.line import new_run\n"
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
            assert process.stdout.readline() == b"ready\n"
            time.sleep(moments.uniform(0.005, 0.25))
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if number % 3 == 2:
            checkout = Fetching(state, str(repository.path))()
            assert checkout.sha == repository.tip()
            assert len(list((checkout.root / "files").rglob("[0-9]*/[0-9]*"))) == 40 * (number + 1)


def test_a_full_disk_is_named_and_leaves_no_checkout(tmp_path: Path, repository: Repository) -> None:
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
