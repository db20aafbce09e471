"""The tables in pandas, polars and DuckDB, as README.md shows them, and what the files say of themselves."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.config import PROJECT
from tasks.core.evaluation.schemas import CALIBRATION, PER_CLASS, predictions_columns
from tasks.core.runtime.parquet import read_facts
from tasks.core.store import open_store
from tasks.core.store.history import artifact_of
from tasks.core.training.curve import TRAINING

TABLES = {"per_class": "per_class", "calibration": "per_class", "predictions": "predictions", "training": "weights"}
README = (PROJECT / "README.md").read_text(encoding="utf-8")
PAGE = (PROJECT / "artifacts" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest, two_runs: Path) -> Path:
    """Each table of a real run."""
    store = open_store(two_runs)
    return store.open(artifact_of(store, "current", TABLES[request.param])) / f"{request.param}.parquet"


def shown_about_tables() -> list[Any]:
    """What each expression comes to that README.md shows about tables, run in its order beside `artifacts/`."""
    section = README.partition("### 3. As tables")[2].partition("\n### ")[0].partition("\n## ")[0]
    names: dict[str, Any] = {}
    found = []
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        for statement in ast.parse(block).body:
            if isinstance(statement, ast.Expr):
                found.append(eval(compile(ast.Expression(statement.value), "README.md", "eval"), names))  # noqa: S307
            else:
                exec(compile(ast.Module([statement], []), "README.md", "exec"), names)
    return found


def test_the_readmes_lines_find_the_same_in_pandas_polars_and_duckdb(
    two_runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(two_runs.parent)
    shown = shown_about_tables()
    worst_pandas, mistakes_pandas, worst_polars, mistakes_polars, worst_duckdb, mistakes_duckdb, *facts, loaded = shown
    for worst in (worst_polars.to_dicts(), worst_duckdb.pl().to_dicts()):
        assert [row["accuracy"] for row in worst] == worst_pandas["accuracy"].tolist()
    for mistakes in (mistakes_polars, mistakes_duckdb.pl()):
        assert mistakes["confidence"].to_list() == pytest.approx(mistakes_pandas["confidence"].tolist())
        assert set(mistakes["index"]) == set(mistakes_pandas["index"])
        assert not mistakes["correct"].any()
    assert len(worst_pandas) == 3
    assert len(mistakes_pandas) == 10
    told = [json.loads(facts[0]), json.loads(facts[1].fetchall()[0][0])]
    assert told[0] == told[1]
    assert told[0]["generated_images"] is True
    assert str(loaded) == "<All keys matched successfully>"
    printed = capsys.readouterr().out
    assert "support (int32): test images of this class" in printed
    assert len(printed.splitlines()) == len(PER_CLASS.names)


def test_every_column_of_every_table_says_what_it_means(table: Path) -> None:
    for field in pq.read_schema(table):
        assert field.metadata[b"description"].decode(), field.name


def test_every_table_says_what_it_is_of(table: Path) -> None:
    facts = read_facts(table)
    assert {"artifact", "dataset", "generated_images", "recipe", "seed"} <= facts.keys()


def test_pandas_has_no_column_of_objects(table: Path) -> None:
    assert not [name for name, kind in pd.read_parquet(table).dtypes.items() if pd.api.types.is_object_dtype(kind)]


def test_polars_and_duckdb_read_the_numbers_that_pandas_reads(table: Path) -> None:
    expected = pd.read_parquet(table)
    for frame in (pl.read_parquet(table), duckdb.read_parquet(str(table)).pl()):
        assert frame.columns == list(expected.columns)
        for name in expected:
            column = frame[name].cast(pl.String) if frame[name].dtype == pl.Categorical else frame[name]
            values = [None if pd.isna(value) else value for value in expected[name]]
            assert column.to_list() == values, name


def test_class_names_are_categories_in_polars_and_join_with_the_table_of_classes(two_runs: Path) -> None:
    predictions = pl.read_parquet(two_runs / "predictions.parquet")
    assert predictions.schema["label"] == pl.Categorical
    joined = duckdb.sql(
        f"SELECT count(*) FROM '{two_runs / 'predictions.parquet'}' p JOIN '{two_runs / 'per_class.parquet'}' c "
        "ON p.label = c.class"
    ).fetchall()
    assert joined == [(len(predictions),)]


@pytest.mark.parametrize("columns", [PER_CLASS, CALIBRATION, predictions_columns(["<class>"])])
def test_every_column_is_described_on_the_stores_page_with_its_type(columns: pa.Schema) -> None:
    words = {"double": "float64", "float": "float32"}
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    for field in columns:
        kind = "dictionary of strings" if pa.types.is_dictionary(field.type) else str(field.type)
        assert any(f"`{field.name}`" in row and f"| {words.get(kind, kind)} |" in row for row in rows), field.name


def test_every_column_of_training_is_named_on_the_stores_page() -> None:
    assert all(f"`{name}`" in PAGE for name in TRAINING.names)


def test_every_score_is_described_on_the_stores_page(two_runs: Path) -> None:
    scores = json.loads((two_runs / "metrics.json").read_text(encoding="utf-8"))["scores"]
    assert len(scores) == 8
    assert all(f"`{name}`" in PAGE for name in scores)
