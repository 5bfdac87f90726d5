"""A release over SSH says which file has no key of its host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.git import ssh_server
from tests.support.releases import Shop, changed, refused


@pytest.fixture
def remote(shop: Shop, tmp_path: Path) -> Iterator[Any]:
    with ssh_server(tmp_path / "sshd") as made:
        shop.options |= {"repo": made.url(shop.repository.path), "deploy_key": str(made.client)}
        yield made


def test_host_without_a_pinned_key_is_named_with_the_option(shop: Shop, remote: Any) -> None:
    """git says `Host key verification failed`, and not which file it has read."""
    assert remote.port
    text = refused(shop.release())
    assert (
        "did not answer (fatal: known_hosts= of the release names no file, so nothing pins the host key"
        in text
    )


def test_host_that_the_file_does_not_name_is_an_error_with_the_file(
    shop: Shop, remote: Any, tmp_path: Path
) -> None:
    pinned = tmp_path / "known_hosts"
    pinned.write_text("")
    shop.options["known_hosts"] = str(pinned)
    text = refused(shop.release(ref=shop.repository.tip()))
    assert (
        f"cannot be fetched: fatal: {pinned}, which known_hosts= names, does not have the host key of" in text
    )
    pinned.write_text(remote.known_hosts)
    assert changed(shop.release())
