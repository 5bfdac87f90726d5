"""A machine that keeps its older release says so wherever its state is asked for."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.line import FILE, Line
from tests.support.repository import Repository

RELEASE = """
from pyinfra_solo.operations import release
made = release.release(
    name="the shop is at its release", app="shop", repo={repo!r}, ref={ref!r}, user="nobody", requirements=None,
    root=f"{{data.target}}/srv", {options}
)
server.shell(name="the shop is restarted", commands=[f"echo x >> {{data.target}}/restarts"], _if=made.did_change)
"""
CUT = 'case "$*" in *" fetch "*shop.git*) echo "fatal: cut off" >&2; exit 128 ;; esac'
GONE = 'case "$*" in *shop.git*) echo "fatal: no route to host" >&2; exit 128 ;; esac'


@dataclass
class Site:
    """A machine whose role makes a release of the app `shop`."""

    line: Line
    app: Repository
    bin: Path

    def commit(self, more: str = "", *, ref: str = "main", options: str = "") -> None:
        self.line.commit(RELEASE.format(repo=str(self.app.path), ref=ref, options=options) + more)

    def hinder(self, script: str) -> None:
        """Put a git that fails in git's place."""
        self.bin.mkdir(exist_ok=True)
        (self.bin / "git").write_text(f'#!/bin/sh\n{script}\nexec {shutil.which("git")} "$@"\n')
        (self.bin / "git").chmod(0o755)
        self.line.machine.environment["PATH"] = (
            f"{self.bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        )

    @property
    def restarts(self) -> int:
        return len((self.line.target / "restarts").read_text().split())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """It is in service with the first release."""
    app = Repository(tmp_path / "shop.git").make()
    app.commit({"page.txt": "one"}, "one")
    made = Site(Line(tmp_path), app, tmp_path / "bin")
    made.commit()
    made.line.machine.solo("boot").expect(0)
    assert made.restarts == 1
    return made


def next_release(site: Site) -> tuple[str, str]:
    """Commit the app's next release. Return the kept commit and the wanted one."""
    return site.app.tip(), site.app.commit({"page.txt": "two"}, "two")


@pytest.mark.parametrize("script", [CUT, GONE], ids=["cut", "gone"])
def test_kept_release_is_named_everywhere(site: Site, script: str) -> None:
    """At a run that changes something else: journal, report, status, statement and page, with both commits."""
    current, wanted = next_release(site)
    site.commit(FILE)
    site.hinder(script)
    done = site.line.machine.solo("run").expect(0)
    line = f"shop: kept at {current[:12]} instead of {wanted[:12] if script == CUT else 'main'}: fatal: "

    assert line in done.stderr
    assert line in site.line.machine.solo("report").stdout
    assert "warned   site | the shop is at its release" in site.line.machine.solo("report").stdout
    assert f"release   {line}" in site.line.machine.solo("status").stdout
    assert json.loads(site.line.machine.solo("gate", "status", "--json").stdout)["statement"]["kept"][
        0
    ].startswith(line)
    page = site.line.target / "page.html"
    site.line.machine.solo("report", "--html", str(page)).expect(0)
    assert line in page.read_text()
    assert site.restarts == 1
    assert site.line.machine.in_service


@pytest.mark.parametrize("script", [CUT, GONE], ids=["cut", "gone"])
def test_statement_no_longer_names_a_release_that_was_made(site: Site, script: str) -> None:
    next_release(site)
    site.hinder(script)
    site.line.machine.solo("run").expect(0)
    site.hinder("")
    site.line.machine.solo("run").expect(0)
    found = json.loads(site.line.machine.solo("status", "--json").expect(0).stdout)
    assert (found["gate"]["statement"]["kept"], found["kept"]) == ([], [])
    assert site.restarts == 2


def test_plan_names_a_kept_release(site: Site) -> None:
    current, _ = next_release(site)
    site.hinder(GONE)
    done = site.line.machine.solo("plan").expect(0)
    assert done.stdout.startswith(
        f"! site | the shop is at its release\n    shop: kept at {current[:12]} instead of main: fatal: no route"
    )
    assert "0 operations would change this machine, 2 would not." in done.stdout


def test_plan_shows_a_release_that_was_kept_before_as_pending(site: Site) -> None:
    """The next run asks for it once more."""
    next_release(site)
    site.hinder(CUT)
    site.line.machine.solo("run").expect(0)
    assert "~ site | the shop is at its release" in site.line.machine.solo("plan").expect(2).stdout


@pytest.mark.parametrize("script", [CUT, GONE], ids=["cut", "gone"])
@pytest.mark.parametrize("setting", ["report", "refuse"])
def test_kept_release_is_idempotent(site: Site, script: str, setting: str) -> None:
    """`offline` decides the gate. The role is not at fault."""
    next_release(site)
    site.line.settings(converge=f'idempotence = "{setting}"')
    site.commit(FILE)
    site.hinder(script)
    done = site.line.machine.solo("run").expect(0)
    assert "idempotence check: ok" in done.stderr
    assert site.line.report["not_idempotent"] == []
    assert site.line.machine.in_service


def test_refusal_names_the_true_cause_beside_a_kept_release(site: Site) -> None:
    next_release(site)
    site.line.settings(converge='idempotence = "refuse"')
    site.commit(FILE + "\nserver.shell(name='it is never done', commands=['true'])")
    site.hinder(CUT)
    done = site.line.machine.solo("run").expect(30)
    assert "would change something: site | it is never done: run true. Make it" in done.stderr
    assert not site.line.machine.in_service


@pytest.mark.parametrize("script", [CUT, GONE], ids=["cut", "gone"])
def test_pinned_commit_that_cannot_be_fetched_fails_the_run(site: Site, script: str) -> None:
    """It exited 0, said `changed`, and opened the gate with the old application."""
    current, wanted = next_release(site)
    site.line.settings(converge='idempotence = "refuse"')
    site.commit(FILE, ref=wanted)
    site.hinder(script)
    done = site.line.machine.solo("boot").expect(1)
    assert f"shop: {wanted[:12]} ({wanted}) cannot be fetched: fatal: " in done.stderr.splitlines()[-1]
    assert f"The release {current[:12]} stays." in done.stderr.splitlines()[-1]
    assert "would change something once more" not in done.stderr
    assert not site.line.machine.in_service
    assert site.restarts == 1


@pytest.mark.parametrize("ref", ["main", "commit"])
@pytest.mark.parametrize("offline", ["keep", "fail"])
def test_boot_without_any_release_and_without_git_fails(tmp_path: Path, ref: str, offline: str) -> None:
    app = Repository(tmp_path / "shop.git").make()
    sha = app.commit({"page.txt": "one"}, "one")
    site = Site(Line(tmp_path), app, tmp_path / "bin")
    site.commit(ref=sha if ref == "commit" else ref, options=f"offline={offline!r}")
    site.hinder(GONE)
    done = site.line.machine.solo("boot").expect(1)
    assert "there is no release" in done.stderr.lower()
    assert not site.line.machine.in_service
