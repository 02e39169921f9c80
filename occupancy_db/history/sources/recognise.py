"""Which source a file or an address is."""

import csv
from pathlib import Path

from occupancy_db.history.rejects import HEADER
from occupancy_db.history.sources.base import Format, Options, Source, check_columns, unusable
from occupancy_db.history.sources.influx import InfluxSource, is_table
from occupancy_db.history.sources.json_lines import NdjsonSource, RejectsSource
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
    file = File(Path(path))
    try:
        if options.format is Format.PARQUET or (options.format is None and file.head.startswith(_PARQUET)):
            # DuckDB takes longer to load than all else.
            from occupancy_db.history.sources.parquet import ParquetSource

            return ParquetSource(file, options)
        check_is_text(file, "CSV, NDJSON or Parquet")
        return _text(file, options)
    except BaseException:
        file.close()
        raise


def _text(file: File, options: Options) -> Source:
    head = file.head.removeprefix(_BOM).lstrip()
    if head[:1] == b"[" and options.format is not Format.CSV:
        raise unusable(file.path, "it is one JSON array", "Write an object a line: jq -c '.[]'.")
    form = options.format or (Format.NDJSON if head[:1] == b"{" else Format.CSV)
    if form is Format.NDJSON:
        return NdjsonSource(file, options)
    first = head.partition(b"\n")[0].decode(errors="replace").strip()
    if tuple(next(csv.reader([first]), [])) == HEADER:
        return RejectsSource(file, options)
    if form is Format.INFLUXDB or (options.format is None and is_table(first)):
        return InfluxSource(file, options)
    return CsvSource(file, options)
