"""The end of a service's log tells why it fails, in one line that is fit to be shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyinfra_solo.clients import service_log
from pyinfra_solo.clients.service_log import last_words, log_place

CRASH = """\
[2026-11-21 20:00:00 +0000] [7] [ERROR] Exception in worker process
Traceback (most recent call last):
  File "/srv/shop/current/shop.py", line 3, in <module>
    import shopp
ModuleNotFoundError: No module named 'shopp'
[2026-11-21 20:00:00 +0000] [7] [INFO] Worker exiting (pid: 7)
[2026-11-21 20:00:00 +0000] [5] [ERROR] Reason: Worker failed to boot.
"""
NAMESPACE = """\
shop.service: Failed to set up mount namespacing: /run/systemd/unit-root/srv/none: No such file or directory
shop.service: Failed at step NAMESPACE spawning /srv/shop/current/.venv/bin/python: No such file or directory
shop.service: Main process exited, code=exited, status=226/NAMESPACE
shop.service: Failed with result 'exit-code'.
Failed to start shop.service - shop, served by gunicorn.
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log of the service demo."""
    monkeypatch.setattr(service_log, "_FILES", {"sysv": f"{tmp_path}/{{}}.log"})
    return tmp_path / "demo.log"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CRASH, "ModuleNotFoundError: No module named 'shopp'"),
        ("demo.errors.NotReadyError\nbye\n", "demo.errors.NotReadyError"),
        ("one\n2026 ERROR no database.\ntwo\n", "2026 ERROR no database"),
        (NAMESPACE, "shop.service: Failed to set up mount namespacing: /srv/none: No such file or directory"),
        ("one\nshop.service: Scheduled restart job, restart counter is at 5.\nStopped shop.\n", "one"),
        ("one\ntwo\n\n", "two"),
        ("\x1b[31mpanic:\x07 it\tends\n", "[31mpanic: it ends"),
        ("ValueError: postgres://shop:hunter2@db/shop\n", "ValueError: postgres://db/shop"),
        ("one\nValueError: " + 301 * "x" + "\n", "one"),
        ("ValueError: old\n" + 60 * "all is well\n", "all is well"),
        (70_000 * "x" + "\nlast\n", "last"),
        ("x" * 65_530 + "ValueError: half\nlast\n", "last"),
        ("ValueError: " + "y" * 65_520 + "\nlast\n", "last"),
        ("", ""),
    ],
)
def test_the_line_that_tells_most_is_taken(log: Path, text: str, words: str) -> None:
    log.write_text(text)
    assert last_words("sysv", "demo", 0) == words


def test_what_is_no_regular_file_is_not_read(log: Path, tmp_path: Path) -> None:
    assert last_words("sysv", "demo", 0) == ""
    os.mkfifo(log)
    assert last_words("sysv", "demo", 0) == ""
    log.unlink()
    (tmp_path / "secret").write_text("secret\n")
    log.symlink_to(tmp_path / "secret")
    assert last_words("sysv", "demo", 0) == ""


@pytest.mark.parametrize(
    ("init", "place"),
    [("systemd", "journalctl -u shop"), ("upstart", "/var/log/upstart/shop.log"), ("sysv", "/var/log/shop.log")],
)  # fmt: skip
def test_each_init_s_place_of_a_log_is_named(init: str, place: str) -> None:
    """Upstart: init(5), `console log`."""
    assert log_place(init, "shop") == place


def test_a_journal_is_asked_for_the_service_s_own_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "journalctl"
    program.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\necho last; yes x | head -c 200000\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert last_words("systemd", "shop", 1e9 + 0.9) == "last"
    asked = (tmp_path / "asked").read_text().split()
    assert "--reverse" in asked
    # Without _UID=0 any account could write the log of shop.
    own, systemds = "_SYSTEMD_UNIT=shop.service", ["_UID=0", "UNIT=shop.service"]
    assert asked[-5:] == ["--since=@1000000000", own, "+", *systemds]
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert last_words("systemd", "shop", 1e9 + 0.9) == ""
