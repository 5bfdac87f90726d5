"""The power fails, or the run is killed, at any moment: the next run puts it right, and no check is
answered 200 before it has."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.lab import cuts
from tests.lab.cuts import Strike, Strikes, after_opening, file, operation, station
from tests.lab.fleet import Fleet, changed, solo
from tests.lab.image import Image
from tests.lab.lab import Lab
from tests.support.programs import wait_for

pytestmark = pytest.mark.lab
Tally = Callable[[str, str, bool], None]

OPERATIONS = 16
"""Operations of the role web, with base; a test holds that there are no more."""
HEAVY = "heavy"
"""A branch with a large file, and with a lock file for which no image has a runtime."""

AT_STATIONS = [station(name) for name in cuts.LINE]
AT_OPERATIONS = [operation(number) for number in range(1, OPERATIONS + 1)]
INSIDE = [
    file("in the middle of a fetch", "var/lib/pyinfra-solo/repo.git/incoming/pack/tmp_pack_*", HEAVY),
    file("in the middle of a checkout", "var/lib/pyinfra-solo/checkouts/.building-*", HEAVY),
    file(
        "in the middle of a runtime", "var/lib/pyinfra-solo/runtimes/.building-*/lib/*/site-packages/*", HEAVY
    ),
    file("in the middle of a release", "srv/shop/releases/.building-*/tree/.venv/lib/*/site-packages/*"),
]
AFTERWARDS = [after_opening(seconds) for seconds in (0.1, 1, 2, 4, 6, 8, 10)]

CUTS = [*AT_STATIONS, *AT_OPERATIONS, *INSIDE, *AFTERWARDS]
CUTS_SPREAD = [*AT_STATIONS, *AT_OPERATIONS[1::5], *INSIDE, AFTERWARDS[0], AFTERWARDS[5]]
KILLS = [replace(one, blow=cuts.kill_run) for one in [*AT_STATIONS[1:], *AT_OPERATIONS, *INSIDE]]
KILLS_SPREAD = KILLS[1::6]


@pytest.fixture(scope="module")
def own_fleet(lab: Lab, image: Image) -> Iterator[Fleet]:
    """In a lab of its own, as several machines live at once, and longer than a test."""
    with Lab(lab.folder.with_name(f"{lab.folder.name}-power")) as own:
        fleet = Fleet(own, image)
        lock = (fleet.tree / "requirements.lock").read_text()
        large: dict[str, str | bytes | None] = {
            "requirements.lock": f"# another lock\n{lock}",
            "roles/large": os.urandom(12 << 20),
        }
        fleet.ops.commit(large, "A large file, and another lock", branch=HEAVY, parent=fleet.sha)
        yield fleet


@pytest.fixture(scope="module")
def strikes(request: pytest.FixtureRequest, own_fleet: Fleet) -> Iterator[Strikes]:
    """Begins all that the tests of this run ask for; each test waits for its own."""
    asked = [item.callspec for item in request.session.items if hasattr(item, "callspec")]
    made = Strikes(own_fleet, [spec.params["strike"] for spec in asked if "strike" in spec.params])
    yield made
    made.end()


def holds(strikes: Strikes, strike: Strike) -> None:
    """Check that the machine came back by itself, the same, and never answered 200 before."""
    life, quiet = strikes.life(strike), strikes.undisturbed(strike.branch)
    assert not life.early
    assert not life.opened or strike in AFTERWARDS, f"too late: {life.where}"
    assert life.run["outcome"] == "ready"
    assert life.empty <= quiet.empty
    assert life.tree == quiet.tree
    assert not life.broken_reports


@pytest.mark.parametrize("strike", CUTS_SPREAD, ids=str)
def test_a_machine_converges_after_a_power_cut(strikes: Strikes, strike: Strike, tally: Tally) -> None:
    tally("power cuts", strike.name, not strikes.life(strike).early)
    holds(strikes, strike)


@pytest.mark.soak
@pytest.mark.parametrize("strike", CUTS, ids=str)
def test_a_machine_converges_after_a_power_cut_at_any_moment(
    strikes: Strikes, strike: Strike, tally: Tally
) -> None:
    test_a_machine_converges_after_a_power_cut(strikes, strike, tally)


@pytest.mark.parametrize("strike", KILLS_SPREAD, ids=str)
def test_a_killed_run_is_restarted_and_converges(strikes: Strikes, strike: Strike, tally: Tally) -> None:
    tally("kills", strike.name, not strikes.life(strike).early)
    holds(strikes, strike)


@pytest.mark.soak
@pytest.mark.parametrize("strike", KILLS, ids=str)
def test_a_run_killed_at_any_moment_is_restarted_and_converges(
    strikes: Strikes, strike: Strike, tally: Tally
) -> None:
    test_a_killed_run_is_restarted_and_converges(strikes, strike, tally)


@pytest.mark.parametrize("strike", AT_OPERATIONS[-1:], ids=str)
def test_the_chosen_moments_cover_every_operation(strikes: Strikes, strike: Strike) -> None:
    assert len(strikes.undisturbed(strike.branch).run["operations"]) == OPERATIONS


def test_a_comparison_leaves_out_only_a_dead_tools_lock_file(fleet: Fleet) -> None:
    """useradd, killed, leaves its lock file for ever; any other difference must show."""
    machine = fleet.machine("locks1")
    fleet.in_service(machine)
    alike, empty = cuts.tree(machine), cuts.empty(machine)
    machine.run(r"printf '999999\0' >/etc/passwd.999999; : >/etc/group.999998", check=True)
    assert (cuts.tree(machine), cuts.empty(machine)) == (alike, empty)
    others = ("printf '1' >/etc/passwd.999997", ": >/etc/hosts.999996", ": >/etc/passwd.new")
    machine.run("; ".join(others), check=True)
    left = {"/etc/passwd.999997", "/etc/hosts.999996", "/etc/passwd.new"}
    assert cuts.tree(machine).keys() - alike.keys() == left
    machine.write("/run/tool", 'echo useradd >/proc/$$/comm; printf "$$\\0" >/etc/passwd.$$; sleep 600; :')
    machine.run("systemd-run --unit=tool sh /run/tool", check=True)
    held = f"/etc/passwd.{machine.run('systemctl show -P MainPID tool').stdout.strip()}"
    wait_for("the tool's lock file", lambda: machine.exists(held), 10)
    assert held in cuts.tree(machine)


def test_a_half_made_account_is_completed(fleet: Fleet) -> None:
    """useradd writes several files one after the other, and the power may fail in between."""
    machine = fleet.machine("torn1")
    fleet.in_service(machine)
    right = cuts.tree(machine)
    machine.run(
        "sed -i /^deploy:/d /etc/shadow /etc/gshadow; sed -i /^shop:/d /etc/shadow /etc/group", check=True
    )
    assert solo(machine, "run")[0] == 0
    mended = cuts.tree(machine)
    assert all(mended[name] == right[name] for name in ("shadow", "gshadow"))
    assert machine.run("id -gn shop").stdout == "shop\n"
    assert solo(machine, "run")[0] == 0
    assert not changed(machine)
