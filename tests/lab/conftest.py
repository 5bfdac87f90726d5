"""One lab for all tests of a run; each test leaves it healed, and its machines ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.lab import host
from tests.lab.fleet import Fleet, systemd_image
from tests.lab.image import Image
from tests.lab.lab import Lab
from tests.support.cache import cache_folder

LAST_OF_CONSOLE = 4000  # characters
TALLIES = pytest.StashKey[dict[str, dict[str, bool]]]()


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Make the lab. Fails with a sentence where it cannot be made."""
    reason = host.missing()
    if reason:
        pytest.fail(reason, pytrace=False)
    with Lab(cache_folder() / "runs" / str(os.getpid())) as made:
        yield made


@pytest.fixture(scope="session")
def image(lab: Lab) -> Image:
    """Debian 12 under systemd with this working tree's engine baked in."""
    return systemd_image(lab.folder)


@pytest.fixture(scope="session")
def fleet(lab: Lab, image: Image) -> Fleet:
    """Our ops repo and our app, in the lab. Its branch `main` is everybody's: commit to your own."""
    return Fleet(lab, image)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Callable[[str, str, bool], None]:
    """Count cuts and kills: kind, name, and whether the gate stayed closed until the machine was right."""
    tallies = request.config.stash.setdefault(TALLIES, {})
    return lambda kind, name, right: tallies.setdefault(kind, {}).update({name: right})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the counts."""
    for kind, right in config.stash.get(TALLIES, {}).items():
        wrong = list(right.values()).count(False)
        result = f"{wrong} TIMES a 200" if wrong else "never a 200"
        terminalreporter.write_line(f"{kind}: {len(right)}, {result} while unconverged")


@pytest.fixture(autouse=True)
def _left_as_found(request: pytest.FixtureRequest) -> Iterator[None]:
    """Undo all faults, and remove the machines that a test made, after it."""
    if "lab" not in request.fixturenames:
        yield
        return
    lab: Lab = request.getfixturevalue("lab")
    kept = set(lab.machines)
    yield
    lab.heal()
    for name in set(lab.machines) - kept:
        lab.discard(lab.machines[name])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the consoles of its machines to a failed test's report."""
    report = yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and isinstance(lab, Lab):
        for machine in lab.machines.values():
            text = machine.console()[-LAST_OF_CONSOLE:]
            report.sections.append((f"console of {machine.name}", text))
    return report
