"""The one door to uv: an environment made and filled from a lock file, within a time, leaving nothing.

Standard library only, as `prepare` is. Tried with uv 0.13.8.
"""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyinfra_solo.errors import DataError, DeadlineError, SourceError, TrustError
from pyinfra_solo.system.processes import end_group

_PASSED = (
    "PATH", "LANG", "TMPDIR", "NETRC", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
)  # fmt: skip
"""What uv may know of the process that starts it. VIRTUAL_ENV, PYTHON* and UV_* would change what it makes."""


@dataclass(frozen=True)
class Uv:
    """uv, to be run until the monotonic clock reads `until` (seconds), with a cache of its own."""

    path: Path
    cache: Path
    until: float
    log: Callable[[str], None]

    def make_environment(self, folder: Path, python: str) -> None:
        """An empty environment in `folder` that works after a move. Raises SourceError, DeadlineError."""
        status, said = self._run(
            "venv", "--quiet", "--no-project", "--relocatable", "--offline", "--python", python, str(folder)
        )
        if status:
            raise SourceError(f"No environment can be made for {python}: {_brief(said)}.")

    def install(self, folder: Path, lock: Path, wheels: Sequence[Path | str], index: str | None) -> str:
        """Fill the environment from `lock`, without the network when that can be done.

        Returns "offline" or "index". Raises TrustError when a wheel is not the one that was locked,
        SourceError when one cannot be had, DeadlineError.
        """
        urls = [str(one) for one in wheels if "://" in str(one)]
        folders = [str(one) for one in wheels if "://" not in str(one) and Path(one).is_dir()]
        places = ["--default-index", index] if index else []
        status, said = self._sync(folder, lock, [*places, "--offline"], folders)
        if status == 0:
            return "offline"
        _refuse(said, lock)
        self.log(f"not from what is at hand ({_brief(said)}); asking the network")
        if urls:
            status, said = self._sync(folder, lock, ["--no-index"], [*folders, *urls])
            if status == 0:
                return "index"
            _refuse(said, lock)
            if "--find-links" in said:
                self.log(f"{_brief(said)}; asking the index alone")
                urls = []
        status, said = self._sync(folder, lock, places, [*folders, *urls])
        if status:
            _refuse(said, lock)
            raise SourceError(
                f"A wheel cannot be had: {_brief(said)}. Put it in a folder of [prepare] wheels, or check the index."
            )
        return "index"

    def _sync(self, folder: Path, lock: Path, places: Sequence[str], links: Sequence[str]) -> tuple[int, str]:
        """`--no-build`: building from source would run code that no hash covers."""
        found = [word for one in links for word in ("--find-links", one)]
        return self._run(
            "pip", "sync", "--require-hashes", "--no-build", "--compile-bytecode", "--link-mode", "copy",
            "--python", str(folder / "bin/python"), *places, *found, str(lock),
        )  # fmt: skip

    def _run(self, *words: str) -> tuple[int, str]:
        """Its exit status and what it said. All that it started ends with it, or with the time."""
        began = time.monotonic()
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(
                    [str(self.path), *words], env=self._environment(), stdin=subprocess.DEVNULL,
                    stdout=said, stderr=said, start_new_session=True, umask=0o022,
                )  # fmt: skip
            except OSError as error:
                raise SourceError(
                    f"{self.path} cannot be run: {error.strerror}. Run bootstrap/install.sh."
                ) from error
            try:
                process.wait(timeout=max(0.0, self.until - began))
            except subprocess.TimeoutExpired:
                seconds = time.monotonic() - began
                raise DeadlineError(
                    f"`uv {' '.join(words[:2])}` was ended after {seconds:.0f} s, its time. Raise [prepare] within."
                ) from None
            finally:
                if process.returncode is None:
                    end_group(process.pid)
                    process.wait()
            said.seek(0)
            return process.returncode, said.read().decode(errors="replace")

    def _environment(self) -> dict[str, str]:
        passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            **passed,
            # uv writes below it, also where a boot unit has none; and it must not differ by who runs us.
            "HOME": str(self.cache),
            "UV_CACHE_DIR": str(self.cache),
            "UV_NO_CONFIG": "1",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_HTTP_TIMEOUT": "20",
        }


def _refuse(said: str, lock: Path) -> None:
    """Raises what no other source can mend: TrustError for a wheel, DataError for the lock file."""
    wrong = re.search(r"Hash mismatch for `([^`]+)`", said)
    if wrong:
        raise TrustError(
            f"{wrong[1]} is not what {lock.name} was locked to: its hash differs. Find out who changed the wheel, "
            "or lock anew."
        )
    if "Couldn't parse requirement" in said or "In `--require-hashes` mode" in said:
        raise DataError(
            f"{lock.name} is not understood: {_brief(said)}. Make it again with `uv pip compile --generate-hashes`."
        )


def _brief(said: str) -> str:
    """What uv says is wrong, as one line: the error and its deepest reason."""
    found = re.findall(r"^\s*(error|cause): (.*)$", said, re.MULTILINE)
    words = [text for _, text in found]
    if not words:
        return (said.strip().splitlines() or ["uv said nothing"])[-1][:300].rstrip(".")
    if words[0].startswith("No solution found") and len(words) > 1:
        return re.sub(r"^Because |,? (and|so) (you require|we can conclude).*$", "", words[1])[:300].rstrip(
            "."
        )
    return (words[0] if len(words) == 1 else f"{words[0]}: {words[-1]}")[:300].rstrip(".")
