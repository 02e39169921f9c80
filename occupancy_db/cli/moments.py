"""Points in time as options and in tables."""

from datetime import UTC, datetime

from occupancy_db.errors import DatabaseError, ExitCode


def parse(option: str, text: str) -> datetime:
    """The point in time that an option gives, in UTC.

    Args:
        option: Its name, for the message.
        text: ISO 8601; without an offset it is UTC.

    Raises:
        DatabaseError: it is not a time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise DatabaseError(
            ExitCode.USAGE,
            f"{option} {text} is not a time",
            f"Write it as in {option} 2026-11-20T10:00:00+01:00.",
        ) from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def shown(moment: datetime | None) -> str | None:
    """A point in time as a cell of a table."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment else None
