"""Each commit names its ops repo, in a file that is read before any of it is a file on disk."""

from pathlib import Path

import pytest

from pyinfra_solo.errors import TrustError
from tests.clients.test_git import Client
from tests.support.programs import run as run_command
from tests.support.repository import Repository, one_signer, signing_key


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """An ops repo called shop, its tip signed by the key that alone may sign."""
    made = Repository(tmp_path / "ops.git").make()
    made.commit({"deploy.py": "print(1)\n", "ops.toml": 'name = "shop"\n'}, "one")
    return made


@pytest.fixture
def client(tmp_path: Path, repository: Repository) -> Client:
    """A machine that takes signed commits of the ops repo shop."""
    key, signers = one_signer(tmp_path, repository)
    made = Client(tmp_path / "client", str(repository.path), allowed_signers=signers, name="shop")
    made.key = key
    return made


def change(client: Client, repository: Repository, marker: str | bytes | None) -> None:
    repository.commit({"ops.toml": marker}, "another marker", sign_with=client.key)


def test_a_commit_of_the_named_repository_is_trusted(client: Client, repository: Repository) -> None:
    assert client.fetch() == repository.tip()


def test_keys_for_later_engines_do_not_count(client: Client, repository: Repository) -> None:
    change(client, repository, 'later = [1, 2]\nname = "shop"\n[table]\nname = "x"\n')
    assert client.fetch() == repository.tip()


def test_a_signed_commit_of_another_repository_is_refused(client: Client, repository: Repository) -> None:
    """One team signs the commits of all its repositories with the same key."""
    change(client, repository, 'name = "lab"\n')
    message = client.fails(TrustError)
    assert "is of the ops repo 'lab', and the settings ask for ops.name = 'shop'" in message
    assert client.open().last_fetched("main") is None


@pytest.mark.parametrize(
    ("marker", "problem"),
    [
        (None, "there is none"),
        (b"", "it has no name"),
        (b"names = 'shop'", "it has no name"),
        (b"name = shop", "Invalid value"),
        (b"name = 'shop'\n\xff", "ops.toml: "),
        (b"name = " + b"[" * 3000, "recursion"),
        (b"name = 'shop' #" + b"x" * 5000, "it is no regular file of 4096 bytes at most"),
    ],
)
def test_a_commit_without_a_name_is_refused(
    client: Client, repository: Repository, marker: bytes | None, problem: str
) -> None:
    change(client, repository, marker)
    message = client.fails(TrustError)
    assert "does not say which ops repo it is of, in ops.toml: " in message
    assert problem in message
    assert message.endswith('Commit one with the line: name = "shop".')


@pytest.mark.parametrize("value", [b"['shop']", b"1", b"''", b"'Shop'", b"{ name = 'shop' }"])
def test_a_name_that_is_not_the_same_is_refused(client: Client, repository: Repository, value: bytes) -> None:
    change(client, repository, b"name = " + value)
    assert "is of the ops repo " in client.fails(TrustError)


@pytest.mark.parametrize("mode", ["120000", "040000", "160000"])
def test_a_marker_that_is_no_regular_file_is_refused(
    client: Client, repository: Repository, mode: str
) -> None:
    """A link would be read from elsewhere once it is a file."""
    git = ["git", f"--git-dir={repository.path}"]
    target = run_command([*git, "hash-object", "-w", "--stdin"], stdin=b'name = "shop"').stdout.strip()
    kind = {"120000": "blob", "040000": "tree", "160000": "commit"}[mode]
    if kind == "tree":
        target = run_command([*git, "mktree"], stdin=f"100644 blob {target}\tname".encode()).stdout.strip()
    if kind == "commit":
        target = repository.tip()
    tree = run_command([*git, "mktree"], stdin=f"{mode} {kind} {target}\tops.toml\n".encode()).stdout.strip()
    repository.commit_tree(tree, "an odd marker", sign_with=client.key)
    assert "it is no regular file" in client.fails(TrustError)


def test_the_name_counts_without_signatures_too(client: Client, repository: Repository) -> None:
    repository.commit({"ops.toml": 'name = "lab"\n'}, "unsigned")
    assert "'lab'" in client.fails(TrustError, allowed_signers=None)
    client.fetch(allowed_signers=None, name=None)


def test_an_unsigned_commit_is_refused_whatever_its_name(client: Client, repository: Repository) -> None:
    repository.commit({"deploy.py": "print('evil')\n"}, "unsigned")
    assert "is not signed by" in client.fails(TrustError)


def test_a_commit_on_disk_needs_the_name_too(client: Client) -> None:
    sha = client.fetch()
    with pytest.raises(TrustError, match="'shop'"):
        client.open(name="lab").verify(sha)


def test_another_signer_of_the_same_name_is_refused(
    client: Client, repository: Repository, tmp_path: Path
) -> None:
    other, _ = signing_key(tmp_path, "other")
    repository.commit({"deploy.py": "print('evil')\n"}, "by another", sign_with=other)
    client.fails(TrustError)
