"""Which source a file or an address is."""

import csv
from pathlib import Path

from occupancy_db.history.rejects import HEADER
from occupancy_db.history.sources.base import Format, Options, Source, check_columns
from occupancy_db.history.sources.influx import InfluxSource, is_table
from occupancy_db.history.sources.json_documents import JsonSource, shape_of
from occupancy_db.history.sources.json_lines import NdjsonSource, RejectsSource
from occupancy_db.history.sources.recorder import Database, RecorderSource
from occupancy_db.history.sources.servers import connect, is_address
from occupancy_db.history.sources.sqlite import MAGIC, Sqlite
from occupancy_db.history.sources.text import CsvSource, File, check_is_text

_BOM = b"\xef\xbb\xbf"
_PARQUET = b"PAR1"


def open_source(path: Path | str, options: Options) -> Source:
    """Look at the head of a source.

    Args:
        path: A file, or the address of a database.
        options: What it does not say itself.

    Raises:
        DatabaseError: it is missing or cannot be used.
    """
    check_columns(path, options)
    if isinstance(path, str) and is_address(path):
        return _recorder(connect(path, options.password), options)
    file = File(Path(path))
    try:
        if options.format is Format.RECORDER or (options.format is None and file.head.startswith(MAGIC)):
            file.close()
            return _recorder(Sqlite(Path(path)), options)
        if options.format is Format.PARQUET or (options.format is None and file.head.startswith(_PARQUET)):
            # DuckDB takes longer to load than all else.
            from occupancy_db.history.sources.parquet import ParquetSource

            return ParquetSource(file, options)
        check_is_text(file, "CSV, JSON or Parquet, or a recorder")
        return _text(file, options)
    except BaseException:
        file.close()
        raise


def _recorder(database: Database, options: Options) -> Source:
    try:
        return RecorderSource(database, options)
    except BaseException:
        database.close()
        raise


def _text(file: File, options: Options) -> Source:
    head = file.head.removeprefix(_BOM).lstrip()
    form = options.format
    if form is None and head[:1] in (b"[", b"{"):
        form = Format.JSON if shape_of(head) else Format.NDJSON
    if form is Format.JSON:
        return JsonSource(file, options)
    if form is Format.NDJSON:
        return NdjsonSource(file, options)
    first = head.partition(b"\n")[0].decode(errors="replace").strip()
    if tuple(next(csv.reader([first]), [])) == HEADER:
        return RejectsSource(file, options)
    if form is Format.INFLUXDB or (options.format is None and is_table(first)):
        return InfluxSource(file, options)
    return CsvSource(file, options)
