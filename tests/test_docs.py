"""The documentation is held to the code: tables, features, commands, settings, messages, links."""

import ast
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import click
import pytest

from features import catalog
from features.columns_file import KNOWN_KEYS, ColumnsFile
from features.crm import bundled, read_mapping
from features.tables import COLUMNS
from serving.api import OPERATIONS
from serving.settings import Settings
from stepin import cli

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "data.md"
METHOD = ROOT / "docs" / "method.md"
SERVING = ROOT / "docs" / "serving.md"
PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if path.exists()]
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
FLOORS = ("features", "training", "serving")

every_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)


# Reading Markdown


def without_code_blocks(text: str) -> str:
    return re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)


def code_lines(text: str) -> Iterator[str]:
    """Lines of fenced and of indented code, those ending in a backslash joined with the next."""
    fenced = re.findall(r"^(?:```|~~~)[^\n]*\n(.*?)^(?:```|~~~)", text, flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^(?: {4}|\t)[^\n]*", without_code_blocks(text), flags=re.MULTILINE)
    for block in (*fenced, "\n".join(indented)):
        yield from block.replace("\\\n", " ").splitlines()


def tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """The header and the rows of each table."""
    for block in re.findall(r"(?:^\|.*\|$\n?)+", without_code_blocks(text), flags=re.MULTILINE):
        header, _, *rows = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()
        ]
        yield header, rows


def named(cell: str) -> str:
    """What stands between backticks in a cell."""
    found = re.search(r"`([^`]+)`", cell)
    assert found, f"no name in backticks in the cell '{cell}'"
    return found.group(1)


def anchors(text: str) -> set[str]:
    """Addresses of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", without_code_blocks(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Commands


def commands(line: str) -> Iterator[list[str]]:
    """The arguments of each call of stepin in a line: ``$ A=1 .venv/bin/stepin train x | ...``."""
    for part in re.split(r"&&|;|\||\s>\s", line.strip().removeprefix("$").strip()):
        try:
            words = shlex.split(part.replace("[", " ").replace("]", " "), comments=True)
        except ValueError:  # half a quotation: words, not a command
            continue
        while words and ("=" in words[0] or words[0] in ("python", "python3", "-m", "uv", "run")):
            words.pop(0)
        if len(words) > 1 and words[0].rsplit("/", 1)[-1] == "stepin":
            yield words[1:]


def faults(arguments: list[str]) -> list[str]:
    """What is wrong with the sub-command and its options."""
    top = ("-h", "--help", "--version")
    name, *rest = arguments
    if name.startswith("-"):
        return [] if name in top else [f"stepin has no option {name}"]
    command = cli.commands.get(name)
    if command is None:
        return [f"stepin has no command '{name}'; it has {', '.join(sorted(cli.commands))}"]
    if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name, command = f"{name} {rest[0]}", command.commands.get(rest[0])
        if command is None:
            return [f"stepin has no command '{name}'"]
    known = {
        option
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    options = [word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
    return [f"stepin {name} has no option {option}" for option in options if option not in {*known, *top[:2]}]


@every_page
def test_every_command_in_a_code_block_exists_with_its_options(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    wrong = [fault for line in code_lines(text) for call in commands(line) for fault in faults(call)]
    assert wrong == []


@every_page
def test_every_command_named_in_a_sentence_exists(page: Path) -> None:
    inline = re.findall(r"`(stepin [^`\n]+)`", without_code_blocks(page.read_text(encoding="utf-8")))
    assert [fault for line in inline for call in commands(line) for fault in faults(call)] == []


@every_page
def test_every_make_target_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    in_blocks = [re.match(r"\s*\$?\s*make ([a-z]+)", line) for line in code_lines(text)]
    asked = {found.group(1) for found in in_blocks if found} | set(re.findall(r"`make ([a-z]+)`", text))
    assert asked <= targets


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("$ stepin simulate crm --deals 2000", []),
        (".venv/bin/stepin train crm --out m && stepin serve m --port 0", []),
        ("A=1 python -m stepin train SOURCE [--columns FILE.toml] [--no-track]", []),
        ("stepin promote NAME 2 | stepin rollback NAME", []),
        ("stepin --help", []),
        ("stepin key create CRM --scope score", []),
        ("stepin key create CRM --spoke", ["stepin key create has no option --spoke"]),
        ("stepin key forge", ["stepin has no command 'key forge'"]),
        ("stepin: crm does not exist", []),
        ("stepin train crm --fast", ["stepin train has no option --fast"]),
        ("stepin train crm --out=m --deep=3", ["stepin train has no option --deep"]),
        ("x; stepin --fast", ["stepin has no option --fast"]),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, wrong: list[str]) -> None:
    assert [fault for call in commands(line) for fault in faults(call)] == wrong


def test_a_sub_command_that_does_not_exist_is_found() -> None:
    assert faults(["fly"])[0].startswith("stepin has no command 'fly'; it has ")


# Links and files


@every_page
def test_every_link_within_the_project_resolves(page: Path) -> None:
    text = without_code_blocks(page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)(?: +\"[^\"]*\")?\)", text) + re.findall(
        r"(?:src|href)=\"([^\"]+)\"", text
    )
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}, which is not there"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{target}: no such heading"


@every_page
def test_every_file_of_the_project_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    home = "|".join((*FLOORS, "docs", "benchmarks", "examples", "notebooks", "requirements", "tests"))
    for name in re.findall(rf"`((?:{home})/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}, which is not there"


# Tables and features


def documented_columns() -> dict[str, list[list[str]]]:
    """Table name -> rows, for every heading of docs/data.md that is a name in backticks."""
    parts = re.split(r"^### `(\w+)`$", DATA.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {}
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        header, rows = next(tables(text))
        assert header == ["column", "type", "meaning"], name
        found[name] = rows
    return found


def test_the_documented_tables_are_the_tables() -> None:
    assert list(documented_columns()) == list(COLUMNS)


@pytest.mark.parametrize("table", COLUMNS)
def test_the_documented_columns_are_the_columns(table: str) -> None:
    documented = [(named(name), kind, name.endswith("*")) for name, kind, _ in documented_columns()[table]]
    assert documented == [(name, column.kind, column.required) for name, column in COLUMNS[table].items()]


def test_the_allowed_texts_of_a_column_are_all_named() -> None:
    for table, columns in COLUMNS.items():
        meanings = {named(name): meaning for name, _, meaning in documented_columns()[table]}
        for name, column in columns.items():
            assert all(f"`{text}`" in meanings[name] for text in column.one_of), f"{table}.{name}"


def test_the_documented_features_are_the_catalog() -> None:
    header, rows = next(table for table in tables(DATA.read_text(encoding="utf-8")) if "feature" in table[0])
    assert header == ["feature", "unit", "meaning"]
    assert [(named(name), unit, meaning) for name, unit, meaning in rows] == [
        (feature.name, feature.unit or feature.kind, feature.meaning) for feature in catalog.CATALOG
    ]


@every_page
def test_every_feature_that_a_table_lists_is_in_the_catalog(page: Path) -> None:
    for header, rows in tables(page.read_text(encoding="utf-8")):
        if header[0] == "feature":
            assert {named(row[0]) for row in rows} <= set(catalog.names())


# Importing a CRM's export


def test_what_an_export_cannot_know_is_said_in_its_section() -> None:
    text = DATA.read_text(encoding="utf-8")
    for crm, path in bundled().items():
        mapping = read_mapping(path)
        section = re.search(
            rf"^### {re.escape(mapping.title)}$(.*?)^##", text, flags=re.DOTALL | re.MULTILINE
        )
        assert section, f"docs/data.md has no section on {crm}"
        listed = section.group(1).replace("`", "")
        assert [each for each in mapping.cannot_know if each.replace("`", "") not in listed] == []


# The service


def the_table(page: Path, first: str) -> list[list[str]]:
    """The rows of the page's table whose first column bears this name."""
    return next(rows for header, rows in tables(page.read_text(encoding="utf-8")) if header[0] == first)


def test_the_documented_variables_are_those_of_the_settings() -> None:
    """With the sentences that stand in the code."""
    said: dict[str, str] = {}
    entries = re.findall(
        r"^    (``STEPIN_[^\n]+)\n((?:        [^\n]+\n)+)", Settings.__doc__ or "", flags=re.MULTILINE
    )
    for names, text in entries:
        sentence = " ".join(text.split()).replace("``", "`").replace("|", "\\|")
        said |= dict.fromkeys(re.findall(r"STEPIN_\w+", names), sentence)
    assert {named(name): text for name, text in the_table(SERVING, "variable")} == said


def test_the_documented_routes_are_those_of_the_service() -> None:
    documented = [named(route) for route, _ in the_table(SERVING, "route")]
    assert documented == [f"{each.method} {each.template}" for each in OPERATIONS]


# The columns file


def test_the_documented_keys_of_a_columns_file_are_those_it_takes() -> None:
    header, rows = next(
        table for table in tables(DATA.read_text(encoding="utf-8")) if table[0][0] == "section"
    )
    assert header == ["section", "key", "meaning"]
    documented: dict[str, list[str]] = {}
    for section, key, _ in rows:
        documented.setdefault(named(section), []).append(named(key))
    assert {section: set(keys) for section, keys in documented.items()} == {
        section: set(keys) for section, keys in KNOWN_KEYS.items()
    }


def test_the_columns_file_in_the_documentation_can_be_read(tmp_path: Path) -> None:
    block = re.search(
        r"^```toml\n(.*?)^```", DATA.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    assert block
    (tmp_path / "columns.toml").write_text(block.group(1), encoding="utf-8")
    assert ColumnsFile.read(tmp_path / "columns.toml").partner == "Reseller"
    shown = {key for section in tomllib.loads(block.group(1)).values() for key in section}
    assert shown == {key for keys in KNOWN_KEYS.values() for key in keys} - {"numeric", "unit", "include"}


def test_every_example_is_named_and_can_be_read() -> None:
    text = DATA.read_text(encoding="utf-8")
    examples = sorted((ROOT / "examples").glob("*.toml"))
    assert examples
    for example in examples:
        assert f"../examples/{example.name}" in text
        assert ColumnsFile.read(example).name == example.name


# What is said to users, and settings


def strings_of(folder: str) -> str:
    """Every piece of text in the code of one floor; the parts of one literal are joined."""
    said = []
    for file in sorted((ROOT / folder).glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                said.append(
                    "".join(str(p.value) if isinstance(p, ast.Constant) else "\0" for p in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.append(node.value)
    return "\n".join(said)


def test_every_refusal_is_quoted_from_the_code() -> None:
    code = strings_of("features") + strings_of("training")
    header, rows = next(
        table for table in tables(DATA.read_text(encoding="utf-8")) if "what came" in table[0]
    )
    assert header == ["what came", "what the sentence says"]
    assert len(rows) > 15
    for what, says in rows:
        assert says.strip('"') in code, f"no sentence says {says} (where {what})"


def setting(address: str) -> object:
    """The value at ``module.NAME``, or the default of ``module.Class.field``."""
    module = address.split(".")
    for cut in range(len(module), 0, -1):
        try:
            found: object = importlib.import_module(".".join(module[:cut]))
        except ModuleNotFoundError:
            continue
        for name in module[cut:]:
            if isinstance(found, type) and is_dataclass(found):
                found = next(field.default for field in fields(found) if field.name == name)
            else:
                found = getattr(found, name)
        return found
    raise AssertionError(f"{address} is nowhere")


def test_the_documented_settings_are_those_of_the_code() -> None:
    header, rows = next(
        table for table in tables(METHOD.read_text(encoding="utf-8")) if table[0][0] == "setting"
    )
    assert header == ["setting", "value", "meaning"]
    assert len(rows) > 10
    documented = {named(name): value for name, value, _ in rows}
    assert documented == {name: f"{setting(name):g}" for name in documented}
