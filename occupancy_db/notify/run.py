"""One run: read the results, decide, send, and keep what could not be sent."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from occupancy_db.notify import rules, send
from occupancy_db.notify.receivers import Receivers
from occupancy_db.notify.state import HEARTBEAT, Message, State, Store

HOURLY = 10
"""Minutes of each hour in which messages are sent although it cannot be recorded that they were."""


@dataclass(frozen=True)
class Outcome:
    """What a run has done.

    Attributes:
        sent: Deliveries of a message to a receiver.
        pending: Messages that wait for one or more receivers.
        failures: What failed, in sentences without any part of a URL.
        skipped: Whether another run was active.
        recorded: Whether the state could be written.
    """

    sent: int = 0
    pending: int = 0
    failures: tuple[str, ...] = ()
    skipped: bool = False
    recorded: bool = True


def run(
    status: Path,
    directory: Path,
    receivers: Receivers,
    seconds: float = send.SECONDS,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Outcome:
    """Send what is due after a run of the checks.

    Args:
        status: ``status.json``.
        directory: The directory of the state.
        receivers: Who gets messages, and the heartbeat.
        seconds: How long deliveries may take.
        clock: The present time, in UTC.

    Raises:
        OSError: The directory of the state cannot be used.
    """
    store = Store(directory)
    with store.locked() as alone:
        if not alone:
            return Outcome(skipped=True)
        now = clock()
        keys = [one.key for one in receivers.each]
        state = store.load().known(set(keys))
        report = rules.read(_text(status), now)
        state = rules.decide(state, report, now, keys, receivers.host or "this host")
        # Before anything is sent: a run that is killed then repeats a message at most, and forgets none.
        recorded = store.save(state)
        sent = 0
        if recorded or now.minute < HOURLY:
            state, sent, recorded = _deliver(store, state, receivers, now, seconds)
        state = _beat(state, report, receivers.heartbeat, now)
        recorded = store.save(state) and recorded
        failures = [*filter(None, [state.note])]
        failures += [f"{one.name}: {one.text}" for one in state.failures.values()]
        return Outcome(sent, len(state.queue), tuple(failures), recorded=recorded)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError:
        return ""


def _deliver(
    store: Store, state: State, receivers: Receivers, now: datetime, seconds: float
) -> tuple[State, int, bool]:
    waiting = {
        one.key: [message for message in state.queue if one.key in message.receivers]
        for one in receivers.each
    }
    sent, recorded = 0, True
    for receiver, message, failure in send.deliver(receivers.each, waiting, seconds):
        if failure:
            state = state.failed(receiver.key, receiver.name, failure, now)
            continue
        sent += 1
        state = state.delivered(message, receiver.key)
        # At once: a run that is killed later does not repeat it.
        recorded = store.save(state)
    return state, sent, recorded


def _beat(state: State, report: rules.Report, url: str, now: datetime) -> State:
    """The heartbeat says that the checks run. Its receiver is to notice when they do not."""
    if not url:
        return state.works(HEARTBEAT)
    if report.status is None:
        return state
    failure = send.beat(url, report.status.release)
    return state.failed(HEARTBEAT, HEARTBEAT, failure, now) if failure else state.works(HEARTBEAT)


def test(receivers: Receivers, seconds: float = send.SECONDS) -> dict[str, str]:
    """Send a test message to each receiver, and request the heartbeat.

    Args:
        receivers: Who gets it.
        seconds: How long deliveries may take.

    Returns:
        For each, by its name, "" or why it failed.
    """
    now = datetime.now(UTC)
    host = receivers.host or "this host"
    message = Message(
        now,
        "info",
        f"{host}: test of the notifications",
        f"This message was requested on {host} at {rules.moment(now)}. Messages about checks come here.",
    )
    waiting = {one.key: [message] for one in receivers.each}
    found = {one.name: send.LATE for one in receivers.each}
    for receiver, _, failure in send.deliver(receivers.each, waiting, seconds):
        found[receiver.name] = failure
    if receivers.heartbeat:
        found[HEARTBEAT] = send.beat(receivers.heartbeat, "test")
    return found
