"""The documents name only things that exist and state each fact once; their examples run, or tell why not."""

import os
import re
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from occupancy_db.checks.catalogue import BY_NAME
from occupancy_db.cli.app import app
from provisioning import run_tags
from tests.documents import (
    DOCUMENTS,
    PAGES,
    PLACES,
    ROLE_READMES,
    ROOT,
    RUNNABLE,
    Block,
    anchors,
    blocks,
    blocks_to_run,
    commands_of,
    inline_code,
    name_of,
    prose,
    scratch_checkout,
)

MANUAL = {
    "db-test", "db-init", "db-check", "db-migrate", "db-rollback", "db-current", "db-history", "db-reset",
    "migrate-create",
}  # fmt: skip

WRITTEN = [path for path in DOCUMENTS if path not in ROLE_READMES]
"""Documents that are not generated as a whole."""


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.* ## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def code(path: Path) -> list[str]:
    """Return inline code and the commands of all blocks."""
    commands = [
        command for block in blocks(path) if block.language == "bash" for command in commands_of(block)
    ]
    return inline_code(path) + commands


def named(pattern: str, *documents: Path) -> dict[str, set[str]]:
    """Return the matches in the code of the documents, with the documents of each."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in documents or DOCUMENTS:
        for text in code(path):
            for match in re.findall(pattern, text):
                found[match].add(name_of(path))
    return dict(found)


def without(found: dict[str, set[str]], existing: set[str]) -> dict[str, set[str]]:
    return {name: where for name, where in found.items() if name not in existing}


# Size


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250


def test_the_architecture_fits_two_screens() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 110


def test_the_architecture_names_every_package_role_and_directory() -> None:
    named_there = set(re.findall(r"`([\w/.-]+?)/?`", (ROOT / "ARCHITECTURE.md").read_text()))
    package = {path.stem for path in (ROOT / "occupancy_db").iterdir() if path.suffix in ("", ".py")}
    roles = {f"roles/{path.name}" for path in (ROOT / "roles").iterdir()}
    directories = {"playbooks", "provisioning", "compose", "migrations", "tests", "molecule", "bench"}
    private = {name for name in package if name.startswith("_")}
    assert (package - private) | roles | directories <= named_there


# Links


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_link_targets_exist(document: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_every_page_is_in_the_contents_of_the_site() -> None:
    index = (ROOT / "docs/index.md").read_text()
    listed = set(re.findall(r"^([a-z/-]+)$", index, re.MULTILINE))
    pages = {str(path.relative_to(ROOT / "docs").with_suffix("")) for path in PAGES}
    decisions = {page for page in pages if page.startswith("decisions/0")}
    assert len(decisions) > 20
    assert listed == pages - decisions - {"index"}


# Names


def test_make_targets_exist() -> None:
    targets = named(r"(?:^|&& |=\S+ )make ([a-z][a-z-]*)")
    assert set(targets) >= MANUAL | {"up", "test", "docs"}
    assert without(targets, make_targets()) == {}


def test_makefile_has_every_target_of_the_manual() -> None:
    assert (MANUAL | {"up", "test", "help", "docs"}) - make_targets() == set()


def cli_problems(text: str) -> list[str]:
    """Return the commands and options of a command line of occupancy-db that do not exist."""
    words = re.split(r"\s+", text.split(" #")[0])
    group: Any = get_command(app)
    options = {flag for option in group.params for flag in option.opts}
    problems, path = [], ["occupancy-db"]
    for word in words:
        if word.startswith("--"):
            continue_options = (
                options
                | {flag for option in group.params for flag in (*option.opts, *option.secondary_opts)}
                | {"--help", "-h"}
            )
            if re.sub(r"[^\w-].*", "", word) not in continue_options:
                problems.append(f"{' '.join(path)} has no {word}")
        elif hasattr(group, "commands"):
            if not re.fullmatch(r"[a-z][a-z-]*", word):
                break
            if word not in group.commands:
                problems.append(f"{' '.join(path)} has no command {word}")
                break
            group = group.commands[word]
            path.append(word)
    return problems


def test_command_lines_of_occupancy_db_exist() -> None:
    problems, checked = {}, 0
    for path in DOCUMENTS:
        for text in code(path):
            for line in re.findall(r"(?:occupancy-db|manage_db\.py) ([^\n;|&]+)", text):
                checked += 1
                if found := cli_problems(line):
                    problems[f"{name_of(path)}: {line}"] = found
    assert checked > 50
    assert problems == {}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("backup liist", "occupancy-db backup has no command liist"),
        ("cleanup --month 3", "occupancy-db cleanup has no --month"),
        ("--jsn check-tables", "occupancy-db has no --jsn"),
    ],
)
def test_a_wrong_command_line_is_found(line: str, problem: str) -> None:
    assert cli_problems(line) == [problem]


def test_playbooks_exist() -> None:
    playbooks = named(r"playbooks/([a-z_]+\.yml)")
    assert playbooks
    assert without(playbooks, {path.name for path in (ROOT / "playbooks").glob("*.yml")}) == {}


def test_tags_exist() -> None:
    lists = named(r"--(?:skip-)?tags[ =]([a-z_,-]+)")
    used = {tag: where for text, where in lists.items() for tag in text.split(",")}
    assert set(used) >= {"backup", "migrate", "tuning"}
    assert without(used, {*run_tags.ROLES, *run_tags.JOBS}) == {}


def test_the_tags_of_operations_are_listed() -> None:
    assert set(run_tags.JOBS) <= set(inline_code(ROOT / "docs/hosts.md"))


def specs() -> dict[str, dict[str, Any]]:
    return {
        path.parent.parent.name: yaml.safe_load(path.read_text())["argument_specs"]["main"].get("options", {})
        for path in (ROOT / "roles").glob("*/meta/argument_specs.yml")
    }


def test_role_variables_exist() -> None:
    """A name in the inventory's YAML, or in inline code with a role's prefix, is a variable of that role."""
    options = specs()
    variables = {name for role in options.values() for name in role}
    prefix = "|".join(sorted(options))
    yaml_names: dict[str, set[str]] = defaultdict(set)
    for block in blocks():
        if block.language == "yaml":
            for name in re.findall(rf"^((?:{prefix})_\w+):", block.text, re.MULTILINE):
                yaml_names[name].add(block.document)
    assert len(yaml_names) > 8
    assert without(yaml_names, variables) == {}
    inline: dict[str, set[str]] = defaultdict(set)
    for path in (path for path in DOCUMENTS if path.name != "CHANGELOG.md"):  # names removed variables
        for text in inline_code(path):
            for name in re.findall(rf"^((?:{prefix})_\w+)(?:[:=].*)?$", text):
                inline[name].add(name_of(path))
    assert len(inline) > 20
    assert without(inline, variables | names_of_the_product()) == {}


def names_of_the_product() -> set[str]:
    """Names with the prefix of a role besides its variables: users, metrics, modules, playbooks' own."""
    users = yaml.safe_load((ROOT / "roles/occupancy/vars/main.yml").read_text())["occupancy_roles"]
    others = {"occupancy_db", "occupancy_dev", "occupancy_test", "occupancy_template", "tuning_plan"}
    playbooks = "\n".join(path.read_text() for path in (ROOT / "playbooks").glob("*.yml"))
    optional = set(re.findall(r"\b(\w+) \| default\(", playbooks))
    return {user["name"] for user in users} | metrics() | others | optional | set(BY_NAME)


def metrics() -> set[str]:
    """The names that the metric files use."""
    sources = [
        ROOT / "scripts/generate_alerts.py",
        *(ROOT / "occupancy_db").rglob("*.py"),
        *(ROOT / "roles").glob("*/files/*"),
    ]
    text = "\n".join(path.read_text() for path in sources)
    names = set(re.findall(r"\boccupancy_(?:job|backup|offsite|checks?)_\w+", text))
    return names | {
        f"occupancy_backup_{name}"
        for name in re.findall(r'"(last_\w+|\w+_(?:bytes|seconds)|sets|rows)"', text)
    }


def test_metrics_exist() -> None:
    text = (ROOT / "docs/monitoring.md").read_text()
    found = set(re.findall(r"\boccupancy_(?:job|backup|offsite)_\w+(?![.\w])", text))
    assert len(found) > 10
    assert found - metrics() == set()


def test_variables_of_the_command_line_exist() -> None:
    used = named(r"(?:-e|--extra-vars) '?\{?\"?([a-z_]+)")
    files = [path for folder in ("roles", "playbooks") for path in (ROOT / folder).rglob("*.yml")]
    texts = [path.read_text() for path in files]
    assert used
    assert {name: where for name, where in used.items() if not any(name in text for text in texts)} == {}


def test_paths_of_the_checkout_exist() -> None:
    first = "occupancy_db|roles|playbooks|compose|tests|molecule|bench|scripts|migrations|inventories|docs"
    paths = named(rf"(?<![\w/.-])((?:{first})/[\w./-]+)")
    made = {"inventories/home", "inventories/local/host_vars"}  # the operator's own
    missing = {
        path: where
        for path, where in paths.items()
        if not path.startswith(tuple(made)) and not (ROOT / path.rstrip("./")).exists()
    }
    assert len(paths) > 20
    assert missing == {}


# Examples


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_every_example_declares_where_it_runs(block: Block) -> None:
    if block.language not in RUNNABLE:
        assert block.attributes == {}
        assert block.language, "a block without a language"
        return
    assert block.place in PLACES
    assert (block.place == "no") == bool(block.attributes.get("because"))
    assert set(block.attributes) <= {"run", "because"}


def test_most_examples_run() -> None:
    places = [block.place for block in blocks() if block.place]
    assert places.count("no") < len(places) / 3


# Facts


def words(path: Path) -> list[str]:
    text = re.sub(r"\]\([^)]*\)", "", prose(path))
    return re.findall(r"[\w/.:-]*\w", text.lower())


LENGTH = 7
"""Number of equal words in a row that count as the same sentence."""


def test_no_sentence_stands_in_two_documents() -> None:
    seen: dict[tuple[str, ...], str] = {}
    twice: dict[tuple[str, str], str] = {}
    generated = {ROOT / "docs/reference/cli.md", ROOT / "docs/reference/exit-codes.md"}
    for path in (path for path in WRITTEN if path not in generated and path.name != "CHANGELOG.md"):
        text = words(path)
        for start in range(len(text) - LENGTH + 1):
            run = tuple(text[start : start + LENGTH])
            other = seen.setdefault(run, name_of(path))
            if other != name_of(path):
                twice.setdefault((other, name_of(path)), " ".join(run))
    assert [f"{pair}: {run}" for pair, run in twice.items()] == []


def test_no_example_stands_in_two_documents() -> None:
    seen: dict[str, str] = {}
    for block in (block for block in blocks() if block.language == "bash"):
        for run in pairwise(command.split(" #")[0].strip() for command in commands_of(block)):
            other = seen.setdefault("\n".join(run), block.document)
            assert other == block.document, f"{block}: {run}"


# Generated pages


GENERATED = [*ROLE_READMES, ROOT / "docs/reference/cli.md", ROOT / "docs/reference/exit-codes.md"]


@pytest.mark.parametrize("example", blocks_to_run("unit"), ids=str)
def test_the_site_builds_without_a_warning_and_generated_pages_are_up_to_date(
    example: Block, tmp_path: Path
) -> None:
    checkout = scratch_checkout(tmp_path / "checkout")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    built = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example.text],
        cwd=checkout,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    site = checkout / "dist/docs"
    assert "Command line" in (site / "reference/cli.html").read_text()
    assert "postgres_settings" in (site / "reference/roles.html").read_text()
    assert "InvalidReadings" in (site / "api.html").read_text()
    changed = [
        name_of(path) for path in GENERATED if path.read_text() != (checkout / name_of(path)).read_text()
    ]
    assert changed == [], "run make docs"


# Messages

OF_POSTGRESQL = {
    "pg_hba.conf rejects connection", "no encryption", "SSL encryption", "too many connections for role",
    "already exists",
}  # fmt: skip


def test_messages_in_troubleshooting_are_those_of_the_product() -> None:
    folders = ("occupancy_db", "provisioning", "playbooks", "roles")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.*") if path.suffix in SOURCES]
    sources.append(ROOT / "Makefile")
    text = " ".join(re.sub(r"[\"'\s{}]+", " ", path.read_text()) for path in sources)
    cells = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    quoted = [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]
    parts = [part.strip(" .") for message in quoted for part in re.split(r"…|\b5432\b", message)]
    missing = [part for part in parts if part and re.sub(r"[\"'\s{}]+", " ", part) not in text]
    assert len(quoted) > 20
    assert set(missing) - OF_POSTGRESQL == set()


SOURCES = {".py", ".yml", ".sh", ".sql", ".j2"}
