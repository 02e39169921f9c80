"""Files that other databases of a home export: what they say becomes readings or rejects."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pytest

from occupancy_db.errors import DatabaseError
from occupancy_db.history.sources.base import Format, Options
from occupancy_db.sensors import Sensors
from tests.unit.test_formats import Result, read

BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
SENSORS = Sensors({"binary_sensor.desk": ((BEGIN, ("office", "desk")),)})
MOMENT = datetime(2026, 1, 5, 10, 0, 0, 123456, UTC)
ON = ("office", "desk", True, "binary_sensor.desk", 1.0, MOMENT)
OFF = (*ON[:2], False, *ON[3:5], MOMENT.replace(second=30))

# As the API answers to a query of two fields, and to one with other columns.
INFLUX = """\
#group,false,false,true,true,false,false,true,true,true,true
#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,double,string,string,string,string
#default,_result,,,,,,,,binary_sensor,
,result,table,_start,_stop,_time,_value,_field,_measurement,domain,entity_id
,,0,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,2026-01-05T10:00:00.123456789Z,1,value,state,binary_sensor,desk
,,0,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,2026-01-05T10:00:30.123456Z,0,value,state,,desk
,,1,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,2026-01-05T10:00:00Z,21.5,value,°C,sensor,"a, b"

#group,false,false,true,true,false,false,true,true,true,true
#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,string,string,string,string,string
#default,_result,,,,,,,,,
,result,table,_start,_stop,_value,_time,_field,_measurement,domain,entity_id
,,2,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,on,2026-01-05T10:01:00Z,state,state,binary_sensor,desk
,,2,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,Desk,2026-01-05T10:01:00Z,friendly_name_str,state,binary_sensor,desk
,,2,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,unavailable,2026-01-05T10:02:00Z,state,state,binary_sensor,desk
""".replace("\n", "\r\n")


def test_annotated_csv_of_influxdb(tmp_path: Path) -> None:
    result = read(tmp_path, INFLUX, sensors=SENSORS)
    assert set(result.reader.said.values()) == {"annotated CSV of InfluxDB"}
    assert result.rows == [ON, OFF, (*ON[:5], datetime(2026, 1, 5, 10, 1, tzinfo=UTC))]
    assert result.reader.unplaced == {"sensor.a, b": 1}
    assert result.reader.stateless == {"unavailable": 1}
    assert result.rejected == []


def test_faults_of_annotated_csv_cost_their_own_rows_and_come_back_in(tmp_path: Path) -> None:
    lines = INFLUX.splitlines(keepends=True)
    lines[4] = lines[4].replace(",state,", ',"state,')
    lines[5] = lines[5].replace("2026-01-05T10:00:30.123456Z", "yesterday")
    error = ["#datatype,string,string\r\n", "#group,true,true\r\n", "#default,,\r\n", ",error,reference\r\n"]
    result = read(tmp_path, "".join([*lines, "\r\n", *error, ",query timed out,\r\n"]), sensors=SENSORS)
    assert [line for line, _, _ in result.rejected] == [5, 6, 21]
    assert "no column" in result.rejected[2][1]
    assert len(result.rows) == 1
    rejects = (tmp_path / "bad.csv").read_text()
    (tmp_path / "good.csv").write_text(
        rejects.replace('""state', "state").replace("yesterday", "2026-01-05T10:00:30.123456Z")
    )
    again = Result([tmp_path / "good.csv"], Options(sensors=SENSORS), tmp_path / "again.csv")
    assert sorted(again.rows) == sorted([ON, OFF])
    assert len(again.rejected) == 1


def test_the_header_alone_tells_influxdb(tmp_path: Path) -> None:
    """The dialect may leave the annotations out; a measurement that is an entity needs no tag."""
    header, row = ",result,table,_time,_value,_field,_measurement", "value,binary_sensor.desk"
    content = f"{header}\n,,0,2026-01-05T10:00:00.123456Z,1,{row}\n"
    assert read(tmp_path, content, sensors=SENSORS).rows == [ON]
    other = content.replace("_measurement", "sensor")
    assert read(tmp_path, other, sensors=SENSORS, columns={"source_entity": "sensor"}).rows == [ON]
    with pytest.raises(DatabaseError, match="no column source_entity"):
        read(tmp_path, other, sensors=SENSORS)
    with pytest.raises(DatabaseError, match="no column"):
        read(tmp_path, "a,b\n1,2\n", format=Format.INFLUXDB)


def test_ltss_as_psql_writes_it(tmp_path: Path) -> None:
    attributes = '"{""friendly_name"": ""Desk, by the window"", ""device_class"": ""occupancy""}"'
    content = (
        "time,entity_id,state,attributes,location\n"
        f"2026-01-05 10:00:00.123456+00,binary_sensor.desk,on,{attributes},\n"
        f"2026-01-05 11:00:30.123456+01,binary_sensor.desk,off,{attributes},\n"
        f"2026-01-05 10:00:31+00,sensor.temperature,21.5,{attributes},\n"
        f"2026-01-05 10:00:32+00,binary_sensor.desk,unknown,{attributes},\n"
    )
    result = read(tmp_path, content, sensors=SENSORS)
    assert set(result.reader.said.values()) == {"LTSS, CSV"}
    assert result.rows == [ON, OFF]
    assert (result.rejected, result.reader.unplaced) == ([], {"sensor.temperature": 1})
    lines = "".join(
        json.dumps({"time": moment.isoformat(), "entity_id": "binary_sensor.desk", "state": state}) + "\n"
        for moment, state in ((MOMENT, "on"), (OFF[-1], "off"))
    )
    assert read(tmp_path, lines, sensors=SENSORS).rows == [ON, OFF]


def parquet(path: Path, select: str) -> Path:
    with duckdb.connect() as connection:
        connection.execute(f"SET TimeZone = 'UTC'; COPY (SELECT {select}) TO '{path}' (FORMAT parquet)")
    return path


def test_parquet_with_moments_and_with_other_types(tmp_path: Path) -> None:
    """A name that is a pattern, columns that need quotes, and values of the types that writers choose."""
    written = parquet(
        tmp_path / "a[b]*.parquet",
        """timestamptz '2026-01-05 11:00:00.123456+01' AS "the ""time"" of it",
        'office'::ENUM ('office') AS room,
        'desk' AS zone, true AS state, 'binary_sensor.desk' AS source_entity, 1::FLOAT AS confidence""",
    )
    result = Result([written], Options(columns={"timestamp": 'the "time" of it'}), tmp_path / "bad.csv")
    assert (result.rows, set(result.reader.said.values())) == ([ON], {"Parquet"})
    seconds = MOMENT.timestamp()
    local = "timestamp '2026-01-05 11:00:00.123456'"
    times = {f"{seconds}::DOUBLE": "1", f"{seconds * 1e6:.0f}": "1.0::DECIMAL(3, 1)", local: "'on'"}
    for time, state in times.items():
        file = parquet(
            tmp_path / "b.parquet", f"{time} AS time, {state} AS state, 'binary_sensor.desk' AS entity_id"
        )
        options = Options(sensors=SENSORS, timezone=ZoneInfo("Europe/Berlin"))
        assert Result([file], options, tmp_path / "bad.csv").rows == [ON]


def test_faults_of_parquet_cost_their_own_rows_and_come_back_in(tmp_path: Path) -> None:
    moment = "timestamptz '2026-01-05 10:00:00.123456+00' + to_seconds(n)"
    file = parquet(
        tmp_path / "a.parquet",
        f"""{moment} AS last_changed, 'office' AS room, 'desk' AS zone, 'binary_sensor.desk' AS entity_id,
        CASE n WHEN 4000 THEN 'perhaps' WHEN 5000 THEN NULL ELSE 'on' END AS state
        FROM range(5001) AS rows (n)""",
    )
    result = Result([file], Options(), tmp_path / "bad.csv")
    assert (len(result.rows), result.reader.stateless) == (4999, {"none": 1})
    assert [(line, reason) for line, reason, _ in result.rejected] == [
        (4001, "state is neither true nor false: 'perhaps'")
    ]
    corrected = tmp_path / "good.csv"
    corrected.write_text((tmp_path / "bad.csv").read_text().replace("desk,perhaps", "desk,off"))
    again = Result([corrected], Options(), tmp_path / "again.csv")
    assert again.rows == [(*OFF[:5], MOMENT + timedelta(seconds=4000))]


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    whole = parquet(tmp_path / "a.parquet", "1 AS other").read_bytes()
    contents = {whole: "no column", whole[:-20]: "cannot import", gzip.compress(whole): "cannot import"}
    for content, words in contents.items():
        (tmp_path / "b.parquet").write_bytes(content)
        with pytest.raises(DatabaseError, match=words):
            Result([tmp_path / "b.parquet"], Options(), tmp_path / "bad.csv")
