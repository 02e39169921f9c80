"""What every section needs: the home, its rooms, its time, and the range of time that is shown."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

_HOME = "SELECT time_zone, statement_timestamp() AS now FROM hourly.home"
_ROOMS = """
    SELECT name::text AS room, rooms.label, rooms.retired_at
    FROM unnest(enum_range(NULL::room_type)) AS name LEFT JOIN rooms ON rooms.room = name::text
"""


@dataclass(frozen=True)
class Room:
    """A room.

    Attributes:
        name: Its name in the database.
        label: Its name for people; None if it has no other one.
        retired: Whether it takes no readings any more.
    """

    name: str
    label: str | None = None
    retired: bool = False

    @property
    def title(self) -> str:
        """What it is called on the page."""
        return (self.label or self.name) + (" (retired)" if self.retired else "")


@dataclass(frozen=True)
class Home:
    """The home, and what is shown of it.

    Attributes:
        zone: Its time zone.
        now: The time of the report, in UTC.
        days: How many of the last days are shown, the present one included.
        rooms: The rooms by name.
    """

    zone: ZoneInfo
    now: datetime
    days: int
    rooms: dict[str, Room]

    @property
    def today(self) -> date:
        """The present day of the home."""
        return self.now.astimezone(self.zone).date()

    @property
    def yesterday(self) -> date:
        """The day before."""
        return self.today - timedelta(days=1)

    @property
    def first_day(self) -> date:
        """The first day that is shown."""
        return self.today - timedelta(days=self.days - 1)

    @property
    def since(self) -> datetime:
        """When the first day began, in UTC."""
        return self.midnight(self.first_day)

    def midnight(self, day: date) -> datetime:
        """When a day began, in UTC; of a midnight that a clock passes twice, the first."""
        return datetime(day.year, day.month, day.day, tzinfo=self.zone).astimezone(UTC)

    def room(self, name: str) -> str:
        """What a room is called on the page."""
        return self.rooms[name].title if name in self.rooms else name

    def local(self, moment: datetime, form: str = "%Y-%m-%d %H:%M") -> str:
        """A moment in the time of the home."""
        return moment.astimezone(self.zone).strftime(form)


async def find(connection: Any, days: int) -> Home:
    """Read the home from the database.

    Args:
        connection: An ``asyncpg.Connection``.
        days: How many days are shown.

    Raises:
        asyncpg.PostgresError: the schema is older, or the user may not read it.
    """
    row = await connection.fetchrow(_HOME)
    rooms = {
        one["room"]: Room(
            one["room"], one["label"], one["retired_at"] is not None and one["retired_at"] <= row["now"]
        )
        for one in await connection.fetch(_ROOMS)
    }
    return Home(ZoneInfo(row["time_zone"]), row["now"], days, rooms)
