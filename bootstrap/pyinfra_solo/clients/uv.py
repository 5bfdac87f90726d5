"""Run uv: make an environment, and fill it from a lock file, within a time. Tried with uv 0.13.8.

Standard library only: install.sh runs `prepare` without it, and `release` sends this module to
machines that have no engine.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyinfra_solo.errors import DataError, DeadlineError, SourceError, TrustError
from pyinfra_solo.system import processes
from pyinfra_solo.system.text import without_password

_PASSED = (
    "PATH", "LANG", "TMPDIR", "NETRC", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
)  # fmt: skip
"""Variables that uv gets. VIRTUAL_ENV, PYTHON* and UV_* would change what it makes."""

Run = Callable[[Sequence[str], Mapping[str, str], float], "tuple[int, str]"]
"""Run words in an environment, for some seconds; return exit status and output.

Raises TimeoutError, OSError."""


def run(words: Sequence[str], environment: Mapping[str, str], seconds: float) -> tuple[int, str]:
    """Run a program as this account. All that it started ends at the time-out."""
    done = processes.run(words, timeout=seconds, environment=environment, merge=True, umask=0o022)
    return done.status, done.stdout.decode(errors="replace")


@dataclass(frozen=True)
class Uv:
    """uv, until the monotonic clock reads `until` (seconds), with `cache` as its cache and home.

    run: runs it. build: allow packages without a wheel, whose authors' code then runs. compile: write
    bytecode, for which uv starts the new environment's python. limit: the option that sets the time.
    """

    path: Path
    cache: Path
    until: float
    log: Callable[[str], None]
    run: Run = run
    build: bool = False
    compile: bool = True
    limit: str = "[prepare] timeout"

    def make_environment(self, folder: Path, python: str) -> None:
        """Make an empty environment in `folder` that works after a move. Raises SourceError, DeadlineError."""
        status, output = self._uv(
            "venv", "--quiet", "--no-project", "--relocatable", "--offline", "--python", python, str(folder)
        )
        if status:
            raise SourceError(f"No environment can be made for {python}: {_reason(output)}.")

    def install(self, folder: Path, lock: Path, wheels: Sequence[Path | str], index: str | None) -> str:
        """Fill the environment from `lock`: first without the network, then from the index.

        Returns "offline" or "index". Raises TrustError when a wheel is not the one that was locked,
        DataError for the lock file, SourceError when a wheel is missing, DeadlineError.
        """
        urls = [str(one) for one in wheels if "://" in str(one)]
        folders = [str(one) for one in wheels if "://" not in str(one) and Path(one).is_dir()]
        places = ["--default-index", index] if index else []
        status, output = self._sync(folder, lock, [*places, "--offline"], folders)
        if status == 0:
            return "offline"
        _refuse(output, lock)
        self.log(f"not in the local wheels ({_reason(output)}); trying the index")
        if urls:
            status, output = self._sync(folder, lock, ["--no-index"], [*folders, *urls])
            if status == 0:
                return "index"
            _refuse(output, lock)
            if "--find-links" in output:
                self.log(f"{_reason(output)}; trying the index alone")
                urls = []
        status, output = self._sync(folder, lock, places, [*folders, *urls])
        if status:
            _refuse(output, lock)
            raise SourceError(
                f"{_missing(output, index)}. Put it into a folder of wheels, or check the index."
            )
        return "index"

    def _sync(self, folder: Path, lock: Path, places: Sequence[str], links: Sequence[str]) -> tuple[int, str]:
        """`--no-build`: building from source would run code that no hash covers."""
        options = [] if self.build else ["--no-build"]
        options += ["--compile-bytecode"] if self.compile else []
        found = [word for one in links for word in ("--find-links", one)]
        return self._uv(
            "pip", "sync", "--require-hashes", *options, "--link-mode", "copy",
            "--python", str(folder / "bin/python"), *places, *found, str(lock),
        )  # fmt: skip

    def _uv(self, *words: str) -> tuple[int, str]:
        began = time.monotonic()
        try:
            return self.run([str(self.path), *words], self._environment(), self.until - began)
        except TimeoutError:
            seconds = time.monotonic() - began
            raise DeadlineError(
                f"`uv {' '.join(words[:2])}` was ended after {seconds:.0f} s, its time. Raise {self.limit}."
            ) from None
        except OSError as error:
            raise SourceError(
                f"{self.path} cannot be run: {error.strerror}. Run bootstrap/install.sh."
            ) from error

    def _environment(self) -> dict[str, str]:
        return {
            **passed(),
            # uv writes below it, also where a boot unit has none; and it must not differ by who runs us.
            "HOME": str(self.cache),
            "UV_CACHE_DIR": str(self.cache),
            "UV_NO_CONFIG": "1",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_HTTP_TIMEOUT": "20",
        }


def passed() -> dict[str, str]:
    """Return the variables of this process that an installer gets."""
    given = {name: os.environ[name] for name in _PASSED if name in os.environ}
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", **given}


def _refuse(output: str, lock: Path) -> None:
    """Raise what no other source can cure: TrustError for a wheel, DataError for the lock file."""
    wrong = re.search(r"Hash mismatch for `([^`]+)`", output)
    if wrong:
        raise TrustError(
            f"{wrong[1]} is not what {lock.name} was locked to: its hash differs. Find out who changed the wheel, "
            "or make the lock file anew."
        )
    if "Couldn't parse requirement" in output or "In `--require-hashes` mode" in output:
        raise DataError(
            f"{lock.name} is invalid: {_reason(output)}. Make it with `uv pip compile --generate-hashes`."
        )


def _missing(output: str, index: str | None) -> str:
    """Name the wheel that cannot be had, the URL that was asked, and the reason, in one line."""
    fetched = re.search(r"Failed to fetch: `?([^\s`]+)", output)
    names = (
        r"Failed to download `([^`]+)`",
        r"Failed to fetch: .*/([^/\s`]+)/?`?$",
        r"Because ([^\s,]+) was not found",
    )
    found = next((match for name in names if (match := re.search(name, output, re.MULTILINE))), None)
    place = without_password(fetched[1] if fetched else index or "the default index of uv")
    hint = re.search(r"^hint: (An index .*)$", output, re.MULTILINE)
    causes = re.findall(r"^\s*cause: (.*)$", output, re.MULTILINE) if fetched else []
    reason = hint[1] if hint else causes[-1] if causes else _reason(output)
    reason = re.sub(r" for url \(\S*\)$", "", reason.rstrip("."))
    return f"No wheel for {found[1] if found else 'a package'} from {place}: {reason[:300]}"


def _reason(output: str) -> str:
    """Return uv's error and its deepest cause in one line."""
    words = [text for _, text in re.findall(r"^\s*(error|cause): (.*)$", output, re.MULTILINE)]
    if not words:
        text = (output.strip().splitlines() or ["uv gave no reason"])[-1]
    elif words[0].startswith("No solution found") and len(words) > 1:
        text = re.sub(r"^Because |,? (and|so) (you require|we can conclude).*$", "", words[1])
    else:
        text = words[0] if len(words) == 1 else f"{words[0]}: {words[-1]}"
    return text[:300].rstrip(".")
