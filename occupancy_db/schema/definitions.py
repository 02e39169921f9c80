"""The definitions of the objects of a database, as pg_dump writes them, and their comparison."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from occupancy_db.maintenance import LOCK_TABLE
from occupancy_db.months import TABLE
from occupancy_db.schema.privileges import OWNER, USERS

# The comment above each object in the output of pg_dump and pg_restore
_HEADER = re.compile(
    r"^--\n-- Name: (?P<name>.*?); Type: (?P<type>[^;\n]*); Schema: (?P<schema>.*?); "
    r"Owner: (?P<owner>.*?)(?:; Tablespace: (?P<tablespace>.*))?\n--\n",
    re.MULTILINE,
)
_END = "--\n-- PostgreSQL database dump complete"
# Settings for the objects that follow, and the change to a created database: no part of a definition
_BETWEEN = re.compile(r"(\s*^SET default_table(space|_access_method) = [^\n]*;$)+\s*\Z", re.MULTILINE)
_CONNECT = re.compile(r"^\\.*", re.MULTILINE | re.DOTALL)
_OWNER_LINE = re.compile(r"^ALTER [^\n]* OWNER TO [^\n]*;$\n*", re.MULTILINE)
# PostgreSQL writes this cast in the second form once the first form has been restored.
_ARRAY_CAST = re.compile(r"\(ARRAY\[((?:'(?:[^']|'')*'::character varying(?:, )?)+)\]\)::text\[\]")
_ARRAY_ITEM = re.compile(r"('(?:[^']|'')*'::character varying)")
# Sets of format 1 have the time zone of the server that was dumped.
_TIME = re.compile(r"'(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?[+-]\d\d(?::\d\d(?::\d\d)?)?)'")
_GRANTEE = re.compile(r" (?:TO|FROM) (?P<name>\S+?)(?: WITH GRANT OPTION)?;$")

_MONTH = re.compile(rf"\b{TABLE}_\d{{4}}_\d{{2}}")
_LABEL = re.compile(r"'((?:[^']|'')*)'")
_ROOM_TYPE = ("TYPE", "public", "room_type")

# They do not change what statements on the table do.
_HARMLESS = {"INDEX", "STATISTICS", "COMMENT", "SECURITY LABEL"}
_ACLS = {"ACL", "DEFAULT ACL"}
# Their definition is the state of a job or of a deployment.
_STATE = {("COMMENT", "public", "TABLE alembic_version")}
_LOCK = LOCK_TABLE.removeprefix("public.")
"""The table of the maintenance lock, which no revision creates."""

Key = tuple[str, str, str]
"""Type, schema and name of an object, as in the comment above it."""


class Entry(NamedTuple):
    """The definition of an object.

    Attributes:
        key: Type, schema and name.
        owner: Its owner; "-" or empty if it has none.
        text: The statements that create it.
    """

    key: Key
    owner: str
    text: str

    @property
    def title(self) -> str:
        """The object in one line."""
        kind, schema, name = self.key
        return f"{kind} {name if schema in {'-', ''} else f'{schema}.{name}'}"


class Drift(NamedTuple):
    """How a live schema differs from the schema of its revision; a line each.

    Attributes:
        missing: Objects that are missing or different.
        changing: Additional objects and privileges that change what the objects of the release do.
        more: Additional indexes, statistics and comments on tables of the release.
        others: Objects of the operator, and privileges of the operator's users.
    """

    missing: list[str]
    changing: list[str]
    more: list[str]
    others: list[str]


class Definitions:
    """All definitions of a database.

    Attributes:
        entries: The objects, in the order of the script.
        owner: The owner of the database.
    """

    def __init__(self, script: str, owner: str = OWNER) -> None:
        """Read the definitions.

        Args:
            script: The output of pg_dump, or of pg_restore for an archive, with the schema only.
            owner: The owner of the database.
        """
        self.owner = owner
        script = script.rpartition(_END)[0] or script
        found = list(_HEADER.finditer(script))
        ends = [match.start() for match in found[1:]] + [len(script)]
        self.entries = [
            _entry(match, script[match.end() : end]) for match, end in zip(found, ends, strict=False)
        ]

    def by_month(self) -> Iterator[tuple[Entry, str | None]]:
        """Yield each object, and the month's table that it is or belongs to; None if there is none."""
        keys = ((one, one.key[2].split(" ")[-1]) for one in self.entries)
        of_index = {
            name: month[0]
            for one, name in keys
            if one.key[0] in {"INDEX", "CONSTRAINT"} and (month := _MONTH.search(one.text))
        }
        return ((one, _month(one, of_index)) for one in self.entries)

    def foreign_owners(self) -> list[str]:
        """Name the objects that do not belong to the owner of the database.

        Privileges have the owner of their object, which is named itself unless it is one of the system.
        """
        return sorted(
            f"{one.title} of {one.owner}"
            for one in self.entries
            if one.owner not in {"-", "", self.owner} and one.key[0] not in {"ACL", "DEFAULT ACL"}
        )

    def foreign_defaults(self) -> list[str]:
        """Name the default privileges of other users than the owner, which any user may set for itself."""
        return sorted(
            f"{one.title} of {one.owner}" for one in self.entries if _is_foreign_default(one, self.owner)
        )

    def differences(self, copy: "Definitions") -> list[str]:
        """Compare with a copy that a restore has made, a line for each difference.

        A restore makes the owner of the database the owner of everything, and the privileges of schema
        public and of system objects are those of a provisioned host.

        Args:
            copy: The definitions of the copy.
        """
        owners: dict[tuple[str, ...], str] = {one.key[1:]: one.owner for one in self.entries}
        saved = _without_owners(self.entries, owners, self.owner)
        restored = _without_owners(copy.entries, owners, self.owner)
        return [
            *(f"{title} is missing" for title in sorted(saved.keys() - restored.keys())),
            *(f"{title} is new" for title in sorted(restored.keys() - saved.keys())),
            *(
                f"{title} has {_difference(restored[title], saved[title])}"
                for title in sorted(saved.keys() & restored.keys())
                if restored[title] != saved[title]
            ),
        ]

    def drift(self, live: "Definitions", *, privileges: bool) -> Drift:
        """Compare the schema of a live database with this one, which the migrations have created.

        Rooms that the live database has beyond those of this schema are no difference.

        Args:
            live: The schema of the live database.
            privileges: Whether owners and privileges are compared.
        """
        found = Drift([], [], [], [])
        expected, present = _by_title(self, privileges), _by_title(live, privileges)
        relations = {one.key[2] for one in self.entries if one.key[0] in {"TABLE", "VIEW", "SEQUENCE"}} - {
            _LOCK
        }
        for title in sorted(expected.keys() | present.keys()):
            ours, theirs = expected.get(title), present.get(title)
            if (ours or theirs or _NOTHING).key[0] in _ACLS:
                _compare_privileges(title, ours, theirs, found)
            elif ours and not theirs:
                found.missing.append(f"{title} is missing")
            elif ours and theirs and ours.text != theirs.text and not _has_more_rooms(ours, theirs):
                found.missing.append(f"{title} has {_difference(theirs.text, ours.text)}")
            elif theirs and not ours:
                harmless = found.more if theirs.key[0] in _HARMLESS else found.changing
                kind = harmless if _relation(theirs) in relations else found.others
                kind.append(title)
        _compare_months(self, live, privileges, found)
        return found


def _is_foreign_default(one: Entry, owner: str) -> bool:
    return one.key[0] == "DEFAULT ACL" and one.owner != owner


_NOTHING = Entry(("", "", ""), "", "")


def _entry(match: re.Match[str], text: str) -> Entry:
    key = (match["type"], match["schema"], match["name"])
    if match["type"].startswith("DATABASE") or match["name"].startswith("DATABASE "):
        text = _CONNECT.sub("", text)
    text = _BETWEEN.sub("", text).strip()
    if match["tablespace"]:
        text += f"\n-- in tablespace {match['tablespace']}"
    if key[0] in _ACLS:  # the order is that in which the privileges were granted
        text = "\n".join(sorted(text.splitlines()))
    text = _ARRAY_CAST.sub(lambda cast: "ARRAY[" + _ARRAY_ITEM.sub(r"(\1)::text", cast[1]) + "]", text)
    text = _TIME.sub(lambda time: f"'{_utc(time[1])}'", text)
    return Entry(key, match["owner"], text)


def _utc(time: str) -> str:
    try:
        return datetime.fromisoformat(time).astimezone(UTC).isoformat(" ")
    except (ValueError, OverflowError):  # a month 13 in a text, or the year 9999
        return time


def _without_owners(
    entries: Iterable[Entry], owners: dict[tuple[str, ...], str], owner: str
) -> dict[str, str]:
    """The definitions that a restore keeps, by title."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for one in entries:
        kind, schema, name = one.key
        whose = owners.get((schema, name.partition(" ")[2] if kind == "ACL" else name), owner)
        if _is_foreign_default(one, owner):
            continue
        if (
            kind.startswith(("BLOB", "DATABASE"))
            or kind.endswith((" DATA", " SET"))
            or name.startswith(("DATABASE ", "LARGE OBJECT "))
            or (schema == "-" and name in {"public", "SCHEMA public"})
            or schema in {"pg_catalog", "information_schema"}
            # The privileges of another owner are relative to that owner.
            or (kind == "ACL" and whose not in {"-", "", owner})
        ):
            continue
        found[one.title].append(_OWNER_LINE.sub("", one.text).strip())
    return {title: "\n".join(sorted(texts)) for title, texts in found.items()}


def _by_title(definitions: Definitions, privileges: bool) -> dict[str, Entry]:
    """The definitions without those of months and of the database, by title."""
    found: dict[str, Entry] = {}
    for one, month in definitions.by_month():
        kind, _, name = one.key
        if kind.startswith("DATABASE") or name.startswith("DATABASE ") or one.key in _STATE:
            continue
        if _is_foreign_default(one, definitions.owner):
            continue
        if one.key[1] == "pg_catalog":  # role access revokes functions of PostgreSQL, and no release does
            continue
        if month or (not privileges and (kind in _ACLS or _LOCK in name or name == "public")):
            continue
        text = _comparable(one, privileges)
        earlier = found.get(one.title)
        # Two objects may have one title, as functions of the same name and arguments do not.
        found[one.title] = one._replace(text=f"{earlier.text}\n{text}" if earlier else text)
    return found


def _comparable(one: Entry, privileges: bool) -> str:
    """The text without the order of columns: a migration can only add a column at the end."""
    text = one.text if privileges else _OWNER_LINE.sub("", one.text).strip()
    if one.key[0] == "TABLE":
        text = "\n".join(sorted(line.rstrip(",") for line in text.splitlines()))
    return text


def _compare_privileges(title: str, ours: Entry | None, theirs: Entry | None, found: Drift) -> None:
    """Compare the statements of one object; those for users of the operator are additional."""
    expected = set(ours.text.splitlines()) if ours else set()
    present = set(theirs.text.splitlines()) if theirs else set()
    found.missing.extend(f"{title} lacks {line}" for line in sorted(expected - present))
    for line in sorted(present - expected):
        grantee = _GRANTEE.search(line)
        ours_too = grantee is None or grantee["name"] in {*USERS, "PUBLIC", "occupancy_restore"}
        (found.changing if ours_too else found.others).append(f"{title} also has {line}")


def _compare_months(ours: Definitions, theirs: Definitions, privileges: bool, found: Drift) -> None:
    """Compare every month with one that the migrations have created: all have the same definitions."""
    expected = next(iter(_months(ours, privileges).values()), set())
    for name, present in _months(theirs, privileges).items():
        if any(kind == "TABLE ATTACH" for kind, _ in present):  # otherwise it is no partition
            found.missing.extend(f"{kind} of {name}: {text}" for kind, text in sorted(expected - present))
            more = sorted(present - expected)
            found.changing.extend(f"{kind} of {name}: {text}" for kind, text in more if kind not in _HARMLESS)
            found.more.extend(f"{kind} of {name}: {text}" for kind, text in more if kind in _HARMLESS)


def _months(definitions: Definitions, privileges: bool) -> dict[str, set[tuple[str, str]]]:
    """By month: type and text of its objects, without the names of the month, its indexes and keys."""
    found: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for one, month in definitions.by_month():
        kind = one.key[0]
        if month and (privileges or kind not in _ACLS):
            text = _comparable(one, privileges).replace(month, "…")
            if kind == "INDEX":
                text = re.sub(r"INDEX \S+ ON", "INDEX ON", text)
            elif kind == "CONSTRAINT" and re.search("PRIMARY KEY|UNIQUE", text):
                text = re.sub(r"CONSTRAINT \S+ ", "CONSTRAINT ", text)
            elif kind == "INDEX ATTACH":
                text = re.sub(r"PARTITION \S+;", "PARTITION;", text)
            elif kind == "TABLE ATTACH":
                text = re.sub(r"FOR VALUES FROM .*", "", text)
            found[month].add((kind, " ".join(text.split())))
    return found


def _month(one: Entry, of_index: Mapping[str, str]) -> str | None:
    """The month's table that an object is or belongs to."""
    kind, schema, name = one.key
    if schema != "public" or kind in {"VIEW", "FUNCTION", "PROCEDURE"}:
        return None
    if kind == "INDEX ATTACH":
        return of_index.get(name)
    found = _MONTH.search(one.text if kind.startswith(("INDEX", "STATISTICS")) else name)
    return found[0] if found else None


def _relation(one: Entry) -> str:
    """The relation that an object belongs to, or may."""
    on = re.search(r"\bON (?:ONLY )?\w+\.(\w+)", one.text)
    first = one.key[2].split(" ")[0]
    return on[1] if on and one.key[0] not in {"VIEW", "FUNCTION"} else first


def _difference(found: str, expected: str) -> str:
    """The first line that differs."""
    rows = zip([*found.splitlines(), ""], [*expected.splitlines(), ""], strict=False)
    theirs, ours = next(((one, other) for one, other in rows if one != other), ("", ""))
    return f'"{theirs.strip()}" instead of "{ours.strip()}"'


def _has_more_rooms(reference: Entry, live: Entry) -> bool:
    """Whether both are the type of the rooms, and the live one has all rooms of the reference and others.

    Rooms are data: the migrations create the first ones, and operators add more.
    """
    if reference.key != _ROOM_TYPE or live.key != _ROOM_TYPE:
        return False
    return set(_LABEL.findall(reference.text)) <= set(_LABEL.findall(live.text))
