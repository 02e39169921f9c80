"""Files of readings become rows of COPY, or rejects with the right line, whatever is in them."""

import csv
import gzip
import io
import json
import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occupancy_db.errors import DatabaseError
from occupancy_db.history.rejects import Rejects
from occupancy_db.history.rows import Reader
from occupancy_db.history.sources.base import Format, Options
from occupancy_db.history.sources.entities import read_entities
from occupancy_db.models import RoomType
from occupancy_db.months import EARLIEST, month_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HEADER = "timestamp,room,zone,state,source_entity,confidence\n"
GOOD = "2026-10-31T23:59:59.5Z,office,desk,true,binary_sensor.desk,0.5\n"
ROW = ("office", "desk", True, "binary_sensor.desk", 0.5, datetime(2026, 10, 31, 23, 59, 59, 500000, UTC))

Decoded = tuple[str, str, bool, str, float, datetime]


def decode(block: bytes) -> Iterator[Decoded]:
    """Read binary COPY as PostgreSQL's manual describes it."""
    source = io.BytesIO(block)
    while count := source.read(2):
        assert struct.unpack(">h", count) == (6,)
        fields = [source.read(struct.unpack(">i", source.read(4))[0]) for _ in range(6)]
        room, zone, state, entity, confidence, micros = fields
        yield (
            room.decode(), zone.decode(), {b"\1": True, b"\0": False}[state], entity.decode(),
            struct.unpack(">d", confidence)[0],
            datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=struct.unpack(">q", micros)[0]),
        )  # fmt: skip


class Result:
    """What came of files."""

    def __init__(self, files: Sequence[Path | str], options: Options, rejects: Path) -> None:
        self.rows: list[Decoded] = []
        with Rejects(rejects) as bad:
            self.reader = Reader(files, options, bad, NOW)
            more = True
            while more:
                more = self.reader.advance()
                while month := self.reader.fullest():
                    rows = list(decode(b"".join(self.reader.take(month))))
                    assert {month_of(row[-1]) for row in rows} == {month}
                    self.rows += rows
        self.rejected: list[tuple[int, str, str]] = []
        assert rejects.exists() == bool(bad.count)
        if bad.count:
            with rejects.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                header, *lines = csv.reader(file)
            assert header == ["file", "line", "reason", "header", "row"]
            self.rejected = [(int(line), reason, row) for _, line, reason, _, row in lines]
        assert self.reader.waiting == 0
        assert self.reader.read == (
            len(self.rows) + len(self.rejected) + self.reader.stateless.total() + self.reader.unplaced.total()
        )
        assert self.reader.months.total() == len(self.rows)
        assert self.reader.position == self.reader.size


def read(directory: Path, content: str | bytes, **options: Any) -> Result:
    file = directory / "readings"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    (directory / "bad.csv").unlink(missing_ok=True)
    return Result([file], Options(**options), directory / "bad.csv")


texts = st.text(
    st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=50
)
rows = st.tuples(
    st.sampled_from([room.value for room in RoomType]),
    texts,
    st.booleans(),
    texts,
    st.floats(0, 1),
    st.datetimes(
        EARLIEST.replace(tzinfo=None) + timedelta(days=1),
        NOW.replace(tzinfo=None),
        timezones=st.sampled_from(
            [UTC, timezone(timedelta(hours=-9, minutes=-30)), ZoneInfo("Asia/Kolkata")]
        ),
    ),
)


@given(
    st.lists(rows, max_size=8), st.booleans(), st.sampled_from(["true", "t", "1", "on", "yes", "YES", "On"])
)
def test_any_reading_comes_through_csv_and_json(
    tmp_path_factory: pytest.TempPathFactory, written: list[Decoded], packed: bool, yes: str
) -> None:
    directory = tmp_path_factory.mktemp("files")
    target = io.StringIO(newline="")
    csv.writer(target).writerows(
        [HEADER.strip().split(","), *(
            [moment.isoformat(), room, zone, yes if state else "off", entity, repr(confidence)]
            for room, zone, state, entity, confidence, moment in written
        )]
    )  # fmt: skip
    lines = "".join(
        json.dumps({"timestamp": moment.isoformat(" "), "room": room, "zone": zone, "state": state,
                    "source_entity": entity, "confidence": confidence, "": 0}, ensure_ascii=packed) + "\n"
        for room, zone, state, entity, confidence, moment in written
    )  # fmt: skip
    for content, form in ((target.getvalue(), Format.CSV), (lines, Format.NDJSON)):
        data = gzip.compress(content.encode()) if packed else content.encode()
        result = read(directory, data, format=form)
        assert result.rejected == []
        assert sorted(result.rows) == sorted((*row[:5], row[5].astimezone(UTC)) for row in written)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rejects_have_the_line_where_the_row_begins(tmp_path: Path, end: str) -> None:
    lines = [
        HEADER.strip(),
        GOOD.strip(),
        '2026-10-31T23:59:59.5Z,office,"a\nb",true,e,0.5',  # lines 3 and 4
        '2026-10-31T23:59:59.5Z,attic,"a\nb",true,e,0.5',  # 5 and 6
        "",
        "2026-10-31T23:59:59.5Z,office,a,true,e,2",  # 8
        GOOD.strip(),
        "2026-10-31T23:59:59.5Z,office,a,true",  # 10
    ]
    text = end.join(line.replace("\n", end) for line in lines)
    result = read(tmp_path, text)
    assert [(line, reason) for line, reason, _ in result.rejected] == [
        (5, "unknown room 'attic'"),
        (8, "confidence is not between 0 and 1: '2'"),
        (10, "4 fields instead of 6"),
    ]
    assert next(csv.reader(io.StringIO(result.rejected[0][2], newline="")))[2] == f"a{end}b"
    assert sorted(row[1] for row in result.rows) == [f"a{end}b", "desk", "desk"]


BAD = {
    "no time zone": GOOD.replace("Z", ""),
    "is not ISO 8601": GOOD.replace("2026-10-31", "31.10.2026"),
    "no timestamp": GOOD.replace("2026-10-31T23:59:59.5Z", ""),
    "was the clock set": GOOD.replace("2026", "1970"),
    "in the future": GOOD.replace("2026", "2027"),
    "out of range": GOOD.replace("2026-10-31T23:59:59.5Z", "0001-01-01T00:00:00+14:00"),
    "unknown room 'Office'": GOOD.replace("office", "Office"),
    "zone is empty": GOOD.replace("desk,", ","),
    "zone is longer": GOOD.replace("desk,", "x" * 51 + ","),
    "source_entity is longer": GOOD.replace("binary_sensor.desk", "x" * 101),
    "contains a NUL": GOOD.replace("desk,", "de\0sk,"),
    "state is neither": GOOD.replace("true", "maybe"),
    "confidence is not a number: 'high'": GOOD.replace("0.5", "high"),
    "not between 0 and 1: 'nan'": GOOD.replace("0.5\n", "nan\n"),
    "not between 0 and 1: '1.1'": GOOD.replace("0.5\n", "1.1\n"),
    "7 fields instead of 6": GOOD.replace("\n", ",\n"),
    "',' expected": GOOD.replace("office", '"off"ice'),
    "unknown room 'xx": GOOD.replace("office", "x" * 100_000),
    "not valid Unicode": GOOD.replace("desk,", "d\udce4sk,"),
}


@pytest.mark.parametrize("reason", BAD)
@pytest.mark.parametrize("warm", [0, 1])
def test_a_bad_row_is_rejected_and_the_others_are_not(tmp_path: Path, reason: str, warm: int) -> None:
    """Whether the like of it was good before, or it is the first row."""
    content = HEADER + GOOD * 100 * warm
    content += BAD[reason] + GOOD
    result = read(tmp_path, content.encode(errors="surrogateescape"))
    assert len(result.rejected) == 1
    line, why, row = result.rejected[0]
    assert reason in why
    assert line == content.count("\n") - 1
    assert row in ("", BAD[reason].rstrip("\n"))
    assert len(result.rows) == content.count("\n") - 2
    assert set(result.rows) == {ROW}


def test_an_open_quote_at_the_end_is_rejected(tmp_path: Path) -> None:
    result = read(tmp_path, HEADER + GOOD + GOOD.replace("office", '"office'))
    assert [(line, why) for line, why, _ in result.rejected] == [(3, "unexpected end of data")]
    assert result.rows == [ROW]


def test_bad_json_is_rejected_by_line(tmp_path: Path) -> None:
    good = {"timestamp": "2026-10-31T23:59:59.5Z", "room": "office", "zone": "desk", "state": True,
            "source_entity": "binary_sensor.desk", "confidence": 0.5}  # fmt: skip
    changes: list[dict[str, Any]] = [
        {}, {"state": 2}, {"state": [1]}, {"confidence": True}, {"confidence": "x"},
        {"timestamp": 1793404799}, {"room": None}, {"zone": {"a": 1}}, {"zone": "a\0"},
        {"confidence": float("nan")}, {"state": 1}, {"confidence": 10**400},
    ]  # fmt: skip
    lines = [json.dumps({**good, **change}) for change in changes] + ["[1]", "", "{", "7", json.dumps(good)]
    result = read(tmp_path, "\n".join(lines))
    assert [line for line, _, _ in result.rejected] == [*range(2, 11), 12, 13, 15, 16]
    assert result.rejected[-3:] == [
        (13, "not a JSON object", "[1]"),
        (15, result.rejected[-2][1], "{"),
        (16, "not a JSON object", "7"),
    ]
    assert result.rows == [ROW] * 3


def test_confidence_is_optional_and_columns_may_have_other_names_and_places(tmp_path: Path) -> None:
    content = "x,area_name,state,when,room,source_entity\n"
    content += "1,desk,1,2026-10-31T23:59:59.5Z,office,binary_sensor.desk\n"
    result = read(tmp_path, content, columns={"zone": "area_name", "timestamp": "when"})
    assert result.rows == [(*ROW[:4], 1.0, ROW[5])]
    assert read(tmp_path, HEADER + GOOD.replace("0.5\n", "\n")).rows == result.rows
    lines = (
        '{"when":"2026-10-31T23:59:59.5Z","room":"office","zone":"desk","state":"on","source_entity":"e"}\n'
    )
    assert read(tmp_path, lines, columns={"timestamp": "when"}).rows == [(*ROW[:3], "e", 1.0, ROW[5])]


HISTORY = """\
entity_id,state,last_changed
binary_sensor.desk,on,2026-10-31T23:59:59.500Z
binary_sensor.desk,unavailable,2026-11-01T00:00:00.000Z
binary_sensor.desk,unknown,2026-11-01T00:00:00.000Z
binary_sensor.desk,,2026-11-01T00:00:00.000Z
binary_sensor.desk,off,2026-11-01T00:00:01.000Z
light.kitchen,on,2026-11-01T00:00:01.000Z
binary_sensor.desk,open,2026-11-01T00:00:01.000Z
"""


def test_the_history_of_home_assistant(tmp_path: Path) -> None:
    mapping = tmp_path / "entities.csv"
    mapping.write_text("entity_id,room,zone\nbinary_sensor.desk,office,desk\n")
    nowhere = read(tmp_path, HISTORY)
    assert (nowhere.rows, nowhere.rejected) == ([], [])
    assert nowhere.reader.unplaced == {"binary_sensor.desk": 6, "light.kitchen": 1}
    result = read(tmp_path, HISTORY, sensors=read_entities(mapping))
    assert set(result.reader.said.values()) == {"Home Assistant's history, CSV"}
    assert result.rows == [
        (*ROW[:4], 1.0, ROW[5]),
        ("office", "desk", False, "binary_sensor.desk", 1.0, datetime(2026, 11, 1, 0, 0, 1, tzinfo=UTC)),
    ]
    assert result.reader.stateless == {"unavailable": 1, "unknown": 1, "none": 1}
    assert result.reader.unplaced == {"light.kitchen": 1}
    assert [(line, reason) for line, reason, _ in result.rejected] == [
        (8, "state is neither true nor false: 'open'"),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("entity,room,zone\n", "its header is another"),
        ("entity_id,room,zone\nb.x,attic,a\n", "line 2: unknown room 'attic'"),
        ("entity_id,room,zone\nb.x,office\n", "line 2: zone is not text"),
        ("entity_id,room,zone\nb.x,office,a\nb.x,office,b\n", "line 3: b.x is there twice"),
        ('entity_id,room,zone\n"b.x', "unexpected end of data"),
    ],
)
def test_an_unusable_mapping_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "entities.csv").write_text(content)
    with pytest.raises(DatabaseError, match=words):
        read_entities(tmp_path / "entities.csv")


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"", {}, "has no column timestamp, .* but nothing"),
        (b"\n\n", {}, "has no column"),
        (b"a;b\n", {}, "but a, b"),
        (HEADER.encode(), {"columns": {"zone": "area"}}, "has no column area"),
        (HEADER.encode(), {"columns": {"Zone": "area"}}, "no column of ours is called Zone"),
        (HEADER.replace("room", "zone").encode(), {}, "no column room"),
        (HEADER.replace("\n", ",zone\n").encode(), {}, "more than one column zone"),
        (HEADER.encode("utf-16"), {}, "not UTF-8 text"),
        (bytes(100), {}, "not UTF-8 text"),
        (b"\x1f\x8bgarbage", {}, "cannot import"),
        (gzip.compress(HEADER.encode(), mtime=0)[:15], {}, "cannot import"),
    ],
)
def test_an_unusable_file_is_refused(tmp_path: Path, content: bytes, options: Any, words: str) -> None:
    with pytest.raises(DatabaseError, match=words):
        read(tmp_path, content, **options)


def test_a_missing_file_is_refused_before_the_first_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEADER + GOOD)
    with pytest.raises(DatabaseError, match=r"b\.csv: No such file"):
        Reader([tmp_path / "a.csv", tmp_path / "b.csv"], Options(), Rejects(tmp_path / "bad.csv"), NOW)


def test_a_gzip_file_that_was_cut_short_stops_everything(tmp_path: Path) -> None:
    lines = "".join(GOOD.replace("59.5", f"{n % 60:02}.{n}") for n in range(20_000))
    with pytest.raises(DatabaseError, match="cannot read on in"):
        read(tmp_path, gzip.compress((HEADER + lines).encode())[:-2000])


def test_several_files_and_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + (HEADER + GOOD).encode())
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress((HEADER + GOOD + "x\n").encode()))
    result = Result([tmp_path / "a.csv", tmp_path / "b.csv.gz"], Options(), tmp_path / "bad.csv")
    assert result.rows == [ROW, ROW]
    assert [line for line, _, _ in result.rejected] == [3]


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [GOOD.replace("desk,", f"desk {n},").replace("0.5\n", f"0.{n}\n") for n in range(1, 100)]
    for module in ("rows", "judge"):
        monkeypatch.setattr(f"occupancy_db.history.{module}.REMEMBERED", 7)
    result = read(tmp_path, HEADER + "".join(lines * 2) + GOOD.replace("0.5\n", "\n"))
    assert len(result.rows) == 199
    assert {row[4] for row in result.rows if row[1] == "desk 42"} == {0.42}


def test_what_waits_and_what_is_remembered_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line is another, of 24 months in turn, as in no file that anybody has."""
    for name, value in {"STEP": 50, "ENOUGH": 500, "AT_MOST": 2000, "REMEMBERED": 300}.items():
        monkeypatch.setattr(f"occupancy_db.history.rows.{name}", value)
    monkeypatch.setattr("occupancy_db.history.judge.REMEMBERED", 300)
    file = tmp_path / "readings"
    lines = [
        f"{NOW - timedelta(days=30 * (n % 24), seconds=n):%FT%TZ},office,desk,true,fp2.{n},0.{n}\n"
        for n in range(20_000)
    ]
    file.write_text(HEADER + "".join(lines))
    with Rejects(tmp_path / "bad.csv") as bad:
        reader = Reader([file], Options(), bad, NOW)
        taken = 0
        while True:  # as the importer does it
            month = reader.ready()
            if month is None:
                if reader.advance():
                    continue
                month = reader.fullest()
                if month is None:
                    break
            assert reader.waiting <= 2000 + 50
            assert max(len(reader._known), len(reader._judge._starts)) <= 300
            for block in reader.take(month):
                taken += len(list(decode(block)))
                if reader.waiting < 2000:
                    reader.advance()
    assert (taken, bad.count) == (len(lines), 0)
