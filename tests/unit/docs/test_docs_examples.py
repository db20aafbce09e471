"""The pages: their Python examples run, their links lead to files, and their command lines parse."""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from itertools import dropwhile, pairwise
from pathlib import Path
from typing import Any

import cyclopts
import pytest

from flows.cli.app import app
from tasks.core.config import PROJECT
from tasks.core.data.archive import read_archive

DOCS = PROJECT / "docs"
PAGES = [PROJECT / "README.md", PROJECT / "artifacts" / "README.md", *sorted(DOCS.glob("*.md"))]
LINKED = [*PAGES, *(PROJECT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md"))]
BLOCK = re.compile(r"(<!-- not run: .+? -->\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SCRIPTS = {"cifar_flow.py": "run", "predict_flow.py": "predict", "compare_flow.py": "compare"}
ASSIGNMENT = re.compile(r"[A-Z_]+=")
SHELL_SYNTAX = set("();<>|&")


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language, without those that are marked as not run."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [code for mark, name, code in found if name == language and not mark]


def name_of(page: Path) -> str:
    return page.relative_to(PROJECT).as_posix()


def run_blocks(page: Path, codes: list[str]) -> list[Any]:
    """Run code blocks in order, in one namespace; returns the values of the expressions in them."""
    namespace: dict[str, Any] = {"__name__": "page"}
    values = []
    for statement in ast.parse("\n".join(codes)).body:
        if isinstance(statement, ast.Expr):
            values.append(eval(compile(ast.Expression(statement.value), name_of(page), "eval"), namespace))  # noqa: S307
        else:
            exec(compile(ast.Module([statement], []), name_of(page), "exec"), namespace)
    return values


def words_of_commands(code: str) -> Iterator[list[str]]:
    """The words of each shell command in a block."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= SHELL_SYNTAX:
                words.append(word)
            elif words:
                yield words
                words = []


def cifar_arguments(page: Path) -> Iterator[list[str]]:
    """The arguments of each `cifar` command line of a page, also of those in the form of scripts and `make run`."""
    for code in blocks(page, "sh"):
        for words in words_of_commands(code):
            program, *arguments = list(dropwhile(ASSIGNMENT.match, words)) or [""]
            script = Path(arguments[0]).name if arguments else ""
            if Path(program).name == "cifar":
                yield arguments
            elif script in SCRIPTS:
                yield [SCRIPTS[script], *arguments[1:]]
            elif [program, script] == ["make", "run"]:
                yield ["run", *(word for each in arguments[1:] for word in shlex.split(each.removeprefix("ARGS=")))]


def parse(arguments: list[str]) -> None:
    """Parse a command line as the command does; local archives that it names exist."""
    for option, value in pairwise(arguments):
        if option == "--source" and "://" not in value:
            Path(value).touch()
    app.parse_args(arguments, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_examples_run_in_order_on_a_real_store(
    page: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(artifacts.parent)
    monkeypatch.setenv("CIFAR_FLOW_STORE", str(artifacts))

    run_blocks(page, blocks(page, "python"))


def test_pandas_polars_and_duckdb_examples_agree(two_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(two_runs.parent)
    page = DOCS / "python-api.md"
    codes = blocks(page, "python")
    start = next(index for index, code in enumerate(codes) if code.startswith("import pandas"))

    worst, mistakes, polars_worst, polars_mistakes, duckdb_worst, duckdb_mistakes, *facts = run_blocks(
        page, codes[start:]
    )

    for frame in (polars_worst, duckdb_worst.pl()):
        assert frame["accuracy"].to_list() == worst["accuracy"].tolist()
    for frame in (polars_mistakes, duckdb_mistakes.pl()):
        assert set(frame["index"]) == set(mistakes["index"])
    by_polars, by_duckdb = facts[-2], facts[-1].fetchall()[0][0]
    assert json.loads(by_polars) == json.loads(by_duckdb)


def test_the_archive_that_own_data_writes_is_accepted(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(artifacts.parent)
    monkeypatch.setenv("CIFAR_FLOW_STORE", str(artifacts))

    page = DOCS / "own-data.md"
    run_blocks(page, blocks(page, "python"))

    archive = read_archive(Path("insects.tar.gz"))
    assert archive.classes == ("ant", "bee", "cow")
    assert (sum(len(batch.labels) for batch in archive.train_batches), len(archive.test.labels)) == (300, 60)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_command_lines_parse(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in cifar_arguments(page):
        try:
            parse(arguments)
        except cyclopts.CycloptsError as error:
            pytest.fail(f"cifar {shlex.join(arguments)}: {error}")


@pytest.mark.parametrize("wrong", [["recipe"], ["run", "--epohcs", "3"], ["gc", "--dry-run"], ["run", "--epochs", "0"]])
def test_a_wrong_command_line_does_not_parse(wrong: list[str]) -> None:
    with pytest.raises(cyclopts.CycloptsError):
        parse(wrong)


def test_every_command_and_option_is_documented() -> None:
    text = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("cli.md", "recipes.md"))
    commands = [name for name in app if not name.startswith("-")]
    assert len(commands) >= 13
    for command in commands:
        assert f"## `cifar {command}`" in text, command
        for argument in app[command].assemble_argument_collection():
            options = [name for name in argument.names if name.startswith("--")]
            assert not options or f"`{options[0]}" in text, f"{command} {options}"


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_the_readme_is_short() -> None:
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
