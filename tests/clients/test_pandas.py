"""Clients with pandas: frames are read from the tables and appended to them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from sqlalchemy import Engine, bindparam, create_engine, text

from tests.clients.server import Login

NOW = datetime.now(UTC)


@pytest.fixture(params=["psycopg2", "psycopg"])
def engine(request: pytest.FixtureRequest, application: Login) -> Iterator[Engine]:
    engine = create_engine(application.url(request.param))
    yield engine
    engine.dispose()


@pytest.fixture
def frame() -> pd.DataFrame:
    times = [NOW - timedelta(minutes=n) for n in range(40)]
    return pd.DataFrame(
        {
            "timestamp": times,
            "room": ["office", "bedroom"] * 20,
            "zone": "desk",
            "state": [True, False] * 20,
            "confidence": 0.5,
            "source_entity": "binary_sensor.fp2_desk",
        }
    )


@pytest.mark.parametrize("method", [None, "multi"])
@pytest.mark.parametrize("categories", [False, True])
def test_frames_are_appended_and_read(
    engine: Engine, frame: pd.DataFrame, method: None, categories: bool
) -> None:
    if categories:
        frame["room"] = frame["room"].astype("category")
    frame.to_sql("sensor_readings", engine, if_exists="append", index=False, method=method)
    offices = pd.read_sql(
        text(
            "SELECT * FROM sensor_readings WHERE room = :room AND timestamp >= :since ORDER BY timestamp DESC"
        ),
        engine,
        params={"room": "office", "since": NOW - timedelta(minutes=30)},
    )
    assert offices["room"].tolist() == ["office"] * 16
    assert offices["timestamp"].tolist() == [NOW - timedelta(minutes=n) for n in range(0, 31, 2)]
    assert offices["state"].all()
    rooms = text("SELECT room, count(*) AS n FROM sensor_readings WHERE room IN :rooms GROUP BY room")
    found = pd.read_sql(
        rooms.bindparams(bindparam("rooms", expanding=True)), engine, params={"rooms": ["office", "kitchen"]}
    )
    assert found.to_dict("records") == [{"room": "office", "n": 20}]


def test_a_table_is_read_as_a_whole_and_a_frame_with_an_unknown_room_is_refused(
    engine: Engine, frame: pd.DataFrame
) -> None:
    frame.to_sql("sensor_readings", engine, if_exists="append", index=False)
    assert len(pd.read_sql_table("sensor_readings", engine)) == 40
    status = pd.read_sql("SELECT * FROM room_occupancy_status", engine)
    assert set(status["room"]) >= {"office", "bedroom"}
    frame.loc[7, "room"] = "kitchen"
    with pytest.raises(Exception, match='invalid input value for enum room_type: "kitchen"'):
        frame.to_sql("sensor_readings", engine, if_exists="append", index=False)
    assert len(pd.read_sql_table("sensor_readings", engine)) == 40
