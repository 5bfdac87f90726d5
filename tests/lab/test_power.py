"""The power fails, or the run is killed, at any moment: the next run puts it right, and no check is
answered 200 before it has."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.lab import cuts
from tests.lab.cuts import Life, Moment, Strikes, after_opening, file, operation, station
from tests.lab.fleet import Fleet
from tests.lab.image import Image
from tests.lab.lab import Lab
from tests.lab.machine import Machine

pytestmark = pytest.mark.lab

STATIONS = ["close gate", "identify", "fetch", "prepare", "resolve", "converge", "judge", "open gate"]
OPERATIONS = 17
"""Of the role web, with base; a test holds that there are no more."""
HEAVY = "heavy"
"""A branch with a large file, and with a lock file for which no image has a runtime."""

AT_STATIONS = [station(name) for name in STATIONS]
AT_OPERATIONS = [operation(number) for number in range(1, OPERATIONS + 1)]
INSIDE = [
    file("in the middle of a fetch", "var/lib/pyinfra-solo/repo.git/objects/pack/tmp_pack_*", HEAVY),
    file("in the middle of a checkout", "var/lib/pyinfra-solo/checkouts/.building-*", HEAVY),
    file("in the middle of a runtime", "var/lib/pyinfra-solo/runtimes/.building-*/lib/*/site-packages/*", HEAVY),
    file("in the middle of a release", "srv/shop/releases/.tmp-*/.venv/lib/*/site-packages/*"),
]
AFTERWARDS = [after_opening(seconds) for seconds in (0.1, 1, 2, 4, 6, 8, 10)]

ALL = [*AT_STATIONS, *AT_OPERATIONS, *INSIDE, *AFTERWARDS]
SPREAD = [*AT_STATIONS, *AT_OPERATIONS[3::5], *INSIDE, AFTERWARDS[0], AFTERWARDS[5]]
KILLS = [*AT_STATIONS[1:], *AT_OPERATIONS, *INSIDE]
KILLS_SPREAD = [*AT_STATIONS[2::3], *AT_OPERATIONS[12::4], INSIDE[3]]


@pytest.fixture(scope="module")
def own_fleet(lab: Lab, image: Image) -> Iterator[Fleet]:
    """In a lab of its own, as several machines live at once, and longer than a test."""
    with Lab(lab.folder.with_name(f"{lab.folder.name}-power")) as own:
        fleet = Fleet(own, image)
        lock = (fleet.tree / "requirements.lock").read_text()
        large = {"requirements.lock": f"# another lock\n{lock}", "roles/large": os.urandom(24 << 20)}
        fleet.ops.commit(large, "A large file, and another lock", branch=HEAVY, parent=fleet.sha)
        yield fleet


def strikes(
    request: pytest.FixtureRequest, fleet: Fleet, blow: Callable[[Machine], None], kind: str
) -> Iterator[Strikes]:
    """Begin all that the tests of this run ask for; each test waits for its own."""
    wanted = [
        item.callspec.params["moment"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and request.fixturename in item.fixturenames and hasattr(item, "callspec")
    ]
    made = Strikes(fleet, blow, kind)
    made.begin(wanted)
    yield made
    made.end()


@pytest.fixture(scope="module")
def power_cuts(request: pytest.FixtureRequest, own_fleet: Fleet) -> Iterator[Strikes]:
    yield from strikes(request, own_fleet, cuts.cut, "cut")


@pytest.fixture(scope="module")
def kills(request: pytest.FixtureRequest, own_fleet: Fleet) -> Iterator[Strikes]:
    yield from strikes(request, own_fleet, cuts.kill_run, "kill")


def holds(life: Life, quiet: Life) -> None:
    """It came back by itself, as if nothing had been; and it never said 200 on the way."""
    assert not life.early
    assert life.run["outcome"] == "ready"
    assert life.empty <= quiet.empty
    assert life.tree == quiet.tree
    assert not life.broken_reports


@pytest.mark.parametrize("moment", SPREAD, ids=str)
def test_a_machine_whose_power_failed_comes_back_right(
    power_cuts: Strikes, moment: Moment, tally: Callable[[str, bool], None]
) -> None:
    life = power_cuts.life(moment)
    tally("power cuts", not life.early)
    holds(life, power_cuts.undisturbed(moment.branch))


@pytest.mark.soak
@pytest.mark.parametrize("moment", ALL, ids=str)
def test_there_is_no_moment_at_which_the_power_may_not_fail(
    power_cuts: Strikes, moment: Moment, tally: Callable[[str, bool], None]
) -> None:
    test_a_machine_whose_power_failed_comes_back_right(power_cuts, moment, tally)


@pytest.mark.parametrize("moment", KILLS_SPREAD, ids=str)
def test_a_run_that_was_killed_is_started_again_and_ends_right(
    kills: Strikes, moment: Moment, tally: Callable[[str, bool], None]
) -> None:
    life = kills.life(moment)
    tally("kills", not life.early)
    holds(life, kills.undisturbed(moment.branch))


@pytest.mark.soak
@pytest.mark.parametrize("moment", KILLS, ids=str)
def test_there_is_no_moment_at_which_a_run_may_not_be_killed(
    kills: Strikes, moment: Moment, tally: Callable[[str, bool], None]
) -> None:
    test_a_run_that_was_killed_is_started_again_and_ends_right(kills, moment, tally)


@pytest.mark.parametrize("moment", AT_OPERATIONS[-1:], ids=str)
def test_the_moments_cover_every_operation(power_cuts: Strikes, moment: Moment) -> None:
    assert len(power_cuts.undisturbed(moment.branch).run["operations"]) == OPERATIONS
