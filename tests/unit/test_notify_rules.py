"""When a message is written, and what it says."""

from datetime import UTC, datetime, timedelta

import pytest

from occupancy_db.checks.model import Level, Result, Status
from occupancy_db.notify import rules
from occupancy_db.notify.state import QUEUE, State

START = datetime(2026, 11, 27, 12, tzinfo=UTC)
EVERY = timedelta(minutes=5)
GOOD, WARNING, BAD, SKIPPED = Level.GOOD, Level.WARNING, Level.BAD, Level.SKIPPED


def status(time: datetime = START, **levels: Level) -> Status:
    results = tuple(Result(name, level, f"{name} is {level}") for name, level in levels.items())
    return Status(time, "home", "1.0", results)


class Host:
    """Runs of the job, one after the other."""

    def __init__(self) -> None:
        self.now = START
        self.state = State()

    def run(self, after: timedelta = EVERY, text: str | None = "", **levels: Level) -> list[str]:
        """The titles of the messages that this run adds."""
        self.now += after
        document = status(self.now, **levels).to_json() if text == "" else text
        before = self.state.queue
        # As between two processes
        self.state = State.from_json(
            rules.decide(self.state, rules.read(document, self.now), self.now, ["a", "b"], "?").to_json()
        )
        return [one.title for one in self.state.queue if one not in before]

    @property
    def body(self) -> str:
        return self.state.queue[-1].body


def test_a_check_that_turns_bad_is_reported_once_and_again_after_a_day() -> None:
    host = Host()
    assert host.run(backup_age=GOOD) == []
    assert host.run(backup_age=BAD) == ["home: 1 check is bad"]
    assert [len(host.run(backup_age=BAD)) for _ in range(288)] == [0] * 287 + [1]
    assert "Still bad:" in host.body
    assert host.run(backup_age=BAD) == []


def test_a_check_that_is_good_again_is_reported_when_two_documents_say_so() -> None:
    host = Host()
    host.run(backup_age=BAD)
    assert host.run(backup_age=GOOD) == []
    assert host.run(backup_age=GOOD) == ["home: good again"]
    assert "No longer bad:\n- newest verified backup set: backup_age is good" in host.body
    assert host.state.queue[-1].kind == "success"
    assert host.run(backup_age=GOOD) == []
    assert host.run(backup_age=BAD) == ["home: 1 check is bad"]


def test_a_check_that_changes_at_every_run_is_reported_once() -> None:
    host = Host()
    titles = [host.run(backup_age=level) for level in [BAD, GOOD] * 50]
    assert sum(map(len, titles)) == 1


def test_the_same_document_twice_is_not_two() -> None:
    host = Host()
    host.run(backup_age=BAD)
    same = status(host.now, backup_age=GOOD).to_json()
    assert [host.run(timedelta(minutes=1), text=same) for _ in range(3)] == [[], [], []]


def test_a_missing_document_does_not_say_that_a_check_is_good_again() -> None:
    host = Host()
    host.run(backup_age=BAD)
    host.run(backup_age=GOOD)
    host.run(text=None)
    assert "No longer bad" not in host.body
    assert host.run(backup_age=BAD) == []


@pytest.mark.parametrize("level", [WARNING, SKIPPED])
def test_a_check_that_is_no_longer_bad_is_over(level: Level) -> None:
    host = Host()
    host.run(backup_age=BAD)
    host.run(backup_age=level)
    assert host.run(backup_age=level) == ["home: good again"]


def test_a_check_that_a_release_removes_is_over() -> None:
    host = Host()
    host.run(old=BAD, server=GOOD)
    host.run(server=GOOD)
    assert host.run(server=GOOD) == ["home: good again"]
    assert "it is no longer checked" in host.body


def test_checks_of_one_run_share_a_message() -> None:
    host = Host()
    assert host.run(server=BAD, backup_age=BAD, disk=WARNING, clock=GOOD) == ["home: 2 checks are bad"]
    assert "sudo occupancy-db backup create" in host.body
    assert "Warnings:\n- disk: disk is warning" in host.body
    assert "clock" not in host.body


def test_a_warning_alone_is_not_sent() -> None:
    host = Host()
    assert [host.run(disk=WARNING) for _ in range(300)] == [[]] * 300


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there are no results"),
        ("{", "the results of the checks are damaged"),
        ("\x00" * 100, "the results of the checks are damaged"),
        ('{"checks": 1}', "the results of the checks are damaged"),
        ('{"time": "2026-11-27T11:00:00+00:00", "host": 1, "release": "", "checks": [1]}', "damaged"),
        (status().to_json(), "the checks have not run since 2026-11-27 12:00 UTC"),
        (
            status(START + timedelta(days=99)).to_json(),
            "since the clock was set back from 2027-03-06 12:00 UTC",
        ),
    ],
)
def test_checks_that_do_not_run_are_reported_and_that_they_run_again(text: str | None, said: str) -> None:
    host = Host()
    host.run(timedelta(hours=1), server=BAD)
    assert host.run(text=text) == ["home: 1 check is bad"]
    assert said in host.body
    assert host.run(text=text) == []
    # The fault that was there before is neither over nor repeated.
    assert host.run(server=BAD) == []
    assert host.run(server=BAD) == ["home: 1 check is bad"]
    assert "the checks themselves: the checks run again" in host.body


def test_a_host_without_any_results_has_a_name() -> None:
    found = rules.decide(State(), rules.read(None, START), START, ["a"], "attic")
    assert found.queue[0].title == "attic: 1 check is bad"


@pytest.mark.parametrize("jump", [timedelta(days=-3650), timedelta(days=3650), timedelta(hours=-2)])
def test_a_clock_that_jumps_silences_nothing(jump: timedelta) -> None:
    host = Host()
    host.run(backup_age=BAD)
    host.run(jump, backup_age=BAD)
    assert sum(len(host.run(backup_age=BAD)) for _ in range(289)) == 1
    assert host.run(backup_age=BAD, server=BAD) == ["home: 2 checks are bad"]
    host.run(backup_age=GOOD, server=GOOD)
    assert host.run(backup_age=GOOD, server=GOOD) == ["home: good again"]


def test_details_are_in_no_message() -> None:
    result = Result("sensors", BAD, "2 sensors are silent", ("kitchen", "SELECT 1"))
    report = rules.read(Status(START, "home", "1.0", (result,)).to_json(), START)
    found = rules.decide(State(), report, START, ["a"], "")
    assert "2 sensors are silent" in found.queue[0].body
    assert "kitchen" not in found.to_json()
    assert "SELECT" not in found.to_json()


def test_a_message_is_bounded_and_has_no_control_characters() -> None:
    results = tuple(Result(f"c{n}", BAD, "x\n\r\x1b\u2028" * 999) for n in range(99))
    report = rules.read(Status(START, "home", "1.0", results).to_json(), START)
    body = rules.decide(State(), report, START, ["a"], "").queue[0].body
    assert len(body) < 6000
    assert "and 84 more" in body
    assert not set(body) & set("\r\x1b\u2028")


def test_the_queue_is_bounded_and_the_next_message_says_what_it_lost() -> None:
    host = Host()
    for _ in range(30):
        host.run(backup_age=BAD)
        host.run(backup_age=GOOD)
        host.run(backup_age=GOOD)
    assert len(host.state.queue) == QUEUE
    assert "Earlier messages that reached nobody and were dropped: 39." in host.body
    assert len(host.state.to_json()) < 64 * 1024


def test_without_receivers_nothing_waits_and_what_was_found_is_known() -> None:
    report = rules.read(status(server=BAD).to_json(), START)
    found = rules.decide(State(), report, START, [], "")
    assert found.queue == ()
    assert set(found.problems) == {"server"}
