"""Predictions against what happened."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from occupancy_db.report import charts
from occupancy_db.report.home import Home
from occupancy_db.report.parts import Column, Part, Row, Section, Table, Text, percent, skipped

MOST = 50_000
"""The newest so many predictions of the days that are shown are compared."""

# A room is occupied at a moment if one of the spans that end later has begun. That is known in hours whose
# occupied time is stored; upkeep stores that of the hours that have ended. The tenth, 0 to 9, is that of the
# predicted probability.
_OUTCOMES = f"""
    WITH prediction AS (
        SELECT room, coalesce(model_version, '') AS model, probability, expected_vacancy_minutes AS expected,
               prediction_made_at + coalesce(horizon, 0) * interval '1 minute' AS moment, horizon,
               CASE WHEN horizon IS NOT NULL THEN least(floor(probability * 10), 9)::integer END AS tenth
        FROM predictions
        CROSS JOIN LATERAL (
            SELECT CASE prediction_type WHEN 'occupancy' THEN horizon_minutes END AS horizon
        ) AS of_type
        WHERE prediction_made_at >= $1 AND prediction_made_at <= $2
        ORDER BY prediction_made_at DESC LIMIT {MOST}
    ),
    followed AS (
        SELECT *, min(since) OVER (PARTITION BY room ORDER BY moment DESC ROWS UNBOUNDED PRECEDING) AS next
        FROM (
            SELECT *, NULL::timestamptz AS since FROM prediction
            UNION ALL
            SELECT room, NULL, NULL, NULL, upper(part), NULL, NULL, lower(part)
            FROM hourly.occupied CROSS JOIN unnest(spans) AS part
            WHERE hour >= date_bin('1 hour', $1, 'epoch')
        ) AS moments
    ),
    outcome AS (
        SELECT *, coalesce(next <= moment, false) AS occupied,
               greatest(extract(epoch FROM next - moment)::float8 / 60, 0) AS vacant,
               moment < $2 AND NOT (SELECT times FROM hourly.uncovered) @> moment
               AND (next IS NOT NULL OR horizon IS NOT NULL) AS known
        FROM followed WHERE since IS NULL
    )
    SELECT model, room, horizon, tenth, count(*) AS made, count(*) FILTER (WHERE known) AS known,
           count(*) FILTER (WHERE known AND occupied) AS occupied,
           count(*) FILTER (WHERE known AND occupied = (probability >= 0.5)) AS right,
           coalesce(sum(probability) FILTER (WHERE known), 0) AS probability,
           coalesce(sum((probability - occupied::integer) ^ 2) FILTER (WHERE known), 0) AS squares,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY abs(expected - vacant)) FILTER (WHERE known) AS error
    FROM outcome
    GROUP BY model, room, horizon, tenth
"""  # noqa: S608  # a constant


_EXPLAINED = (
    "A prediction of occupancy is right if the room was occupied at that time exactly where the probability "
    "was at least 50 %. A model is of use if it is right more often than who always says the commoner state. "
    "A Brier score is the mean squared error: 0 is perfect, 0.25 is that of always saying 50 %."
)


@dataclass
class Score:
    """How good predictions of occupancy were.

    Attributes:
        made: Number of the predictions.
        known: Those whose outcome is known.
        occupied: Those of them whose room was occupied.
        right: Those that were right: the room was occupied exactly where the probability was at least a half.
        probability: Sum of their probabilities.
        squares: Sum of the squares of their errors.
    """

    made: int = 0
    known: int = 0
    occupied: int = 0
    right: int = 0
    probability: float = 0.0
    squares: float = 0.0

    def add(self, row: Any) -> None:
        """Add those of a row."""
        for name in ("made", "known", "occupied", "right", "probability", "squares"):
            setattr(self, name, getattr(self, name) + row[name])


@dataclass(frozen=True)
class Scores:
    """What was predicted and what happened.

    Attributes:
        occupancy: By model, room and horizon in minutes.
        tenths: By tenth of the probability.
        vacancy: Model, room, number, those with an outcome, and the median error in minutes.
    """

    occupancy: dict[tuple[str, str, int], Score]
    tenths: dict[int, Score]
    vacancy: Sequence[tuple[str, str, int, int, float | None]]


async def find(connection: Any, home: Home) -> Scores:
    """Compare the predictions of the days that are shown.

    Args:
        connection: An ``asyncpg.Connection``.
        home: The home, and the days.
    """
    occupancy: dict[tuple[str, str, int], Score] = defaultdict(Score)
    tenths: dict[int, Score] = defaultdict(Score)
    vacancy = []
    for row in await connection.fetch(_OUTCOMES, home.since, home.now):
        if row["horizon"] is None:
            vacancy.append((row["model"], row["room"], row["made"], row["known"], row["error"]))
        else:
            occupancy[row["model"], row["room"], row["horizon"]].add(row)
            tenths[row["tenth"]].add(row)
    return Scores(dict(occupancy), dict(tenths), sorted(vacancy, key=lambda row: row[:2]))


def section(home: Home, found: Scores) -> Section:
    """The section on predictions."""
    parts: list[Part] = []
    if found.occupancy:
        parts += [Text(_EXPLAINED), _occupancy(home, found), *_calibration(found)]
    if found.vacancy:
        parts.append(_vacancy(home, found))
    if not parts:
        parts = [skipped(f"There are no predictions since {home.first_day}.")]
    elif sum(score.made for score in found.occupancy.values()) + sum(row[2] for row in found.vacancy) >= MOST:
        parts.append(Text(f"These are the newest {MOST:,} predictions."))
    return Section("predictions", "Predictions", parts)


def _occupancy(home: Home, found: Scores) -> Table:
    rows: list[Row] = [
        [
            home.room(room),
            model or "no version",
            f"{horizon} min",
            f"{score.known:,} of {score.made:,}",
            percent(score.right, score.known),
            percent(max(score.occupied, score.known - score.occupied), score.known),
            f"{score.squares / score.known:.3f}" if score.known else "–",
        ]
        for (model, room, horizon), score in sorted(
            found.occupancy.items(), key=lambda item: (home.room(item[0][1]), item[0])
        )
    ]
    columns = [Column("Room"), Column("Model")] + [
        Column(title, "number")
        for title in ("Horizon", "Known outcomes", "Right", "Always the commoner state", "Brier score")
    ]
    return Table(
        "Predictions of occupancy",
        columns,
        rows,
    )


def _calibration(found: Scores) -> list[Part]:
    scores = {tenth: score for tenth, score in sorted(found.tenths.items()) if score.known}
    if not scores:
        return []
    points = [
        (100 * score.probability / score.known, 100 * score.occupied / score.known)
        for score in scores.values()
    ]
    title = "How often rooms were occupied, by the predicted probability"

    def whole(value: float) -> str:
        return f"{value:.0f} %"

    chart = charts.lines(
        f"{title}; the table has the numbers.",
        f"{title}. Points on the dashed line are of a perfect model.",
        {"What happened": points, "A perfect model": [(0, 0), (100, 100)]},
        whole,
        whole,
        xrange=(0, 100),
        range=(0, 100),
    )
    table = Table(
        title,
        [Column("Predicted"), *(Column(name, "number") for name in ("Mean", "Occupied", "Predictions"))],
        [
            [
                f"{10 * tenth} to {10 * tenth + 10} %",
                percent(score.probability, score.known),
                percent(score.occupied, score.known),
                f"{score.known:,}",
            ]
            for tenth, score in scores.items()
        ],
        hidden=True,
    )
    return [chart, table]


def _vacancy(home: Home, found: Scores) -> Table:
    rows: list[Row] = [
        [
            home.room(room),
            model or "no version",
            f"{known:,} of {made:,}",
            f"{error:,.0f} min" if error is not None else "–",
        ]
        for model, room, made, known, error in sorted(
            found.vacancy, key=lambda row: (home.room(row[1]), row[0])
        )
    ]
    columns = [
        Column("Room"),
        Column("Model"),
        Column("Known outcomes", "number"),
        Column("Median error", "number"),
    ]
    return Table(
        "Predictions of how long a room stays vacant, against the time until it was occupied", columns, rows
    )
