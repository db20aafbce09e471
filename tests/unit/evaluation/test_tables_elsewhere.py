"""The tables of a run in pandas, polars and DuckDB, and the metadata of the files."""

import json
from pathlib import Path

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
from tasks.core.store.history import find_artifact
from tasks.core.training.curve import TRAINING

TABLES = {"per_class": "per_class", "calibration": "per_class", "predictions": "predictions", "training": "weights"}
PAGE = (PROJECT / "artifacts" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest, two_runs: Path) -> Path:
    """Each table of a real run in turn."""
    store = open_store(two_runs)
    return store.open(find_artifact(store, "current", TABLES[request.param])) / f"{request.param}.parquet"


def test_pandas_polars_and_duckdb_rank_classes_equally(two_runs: Path) -> None:
    path = two_runs / "per_class.parquet"
    by_pandas = pd.read_parquet(path).nsmallest(3, "accuracy")["accuracy"].tolist()
    by_polars = pl.read_parquet(path).sort("accuracy").head(3)["accuracy"].to_list()
    by_duckdb = duckdb.sql(f"SELECT accuracy FROM '{path}' ORDER BY accuracy LIMIT 3").fetchall()
    assert len(by_pandas) == 3
    assert by_polars == [accuracy for (accuracy,) in by_duckdb] == by_pandas


def test_pandas_polars_and_duckdb_find_the_same_mistakes(two_runs: Path) -> None:
    path = two_runs / "predictions.parquet"
    frame = pd.read_parquet(path)
    by_pandas = set(frame[~frame["correct"]].nlargest(10, "confidence")["index"])
    by_polars = pl.scan_parquet(path).filter(~pl.col("correct")).sort("confidence", descending=True).head(10).collect()
    by_duckdb = duckdb.sql(f"SELECT index FROM '{path}' WHERE NOT correct ORDER BY confidence DESC LIMIT 10").fetchall()
    assert len(by_pandas) == 10
    assert set(by_polars["index"]) == {index for (index,) in by_duckdb} == by_pandas


def test_pyarrow_and_duckdb_read_the_facts(two_runs: Path) -> None:
    path = two_runs / "per_class.parquet"
    by_pyarrow = json.loads(pq.read_schema(path).metadata[b"cifar_flow"])
    query = f"SELECT decode(value) FROM parquet_kv_metadata('{path}') WHERE decode(key) = 'cifar_flow'"
    assert json.loads(duckdb.sql(query).fetchall()[0][0]) == by_pyarrow
    assert by_pyarrow["generated_images"] is True


def test_every_column_of_every_table_has_a_description(table: Path) -> None:
    for field in pq.read_schema(table):
        assert field.metadata[b"description"].decode(), field.name


def test_every_table_contains_its_facts(table: Path) -> None:
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


def test_class_names_are_categories_in_polars_and_join(two_runs: Path) -> None:
    predictions = pl.read_parquet(two_runs / "predictions.parquet")
    assert predictions.schema["label"] == pl.Categorical
    joined = duckdb.sql(
        f"SELECT count(*) FROM '{two_runs / 'predictions.parquet'}' p JOIN '{two_runs / 'per_class.parquet'}' c "
        "ON p.label = c.class"
    ).fetchall()
    assert joined == [(len(predictions),)]


@pytest.mark.parametrize("columns", [PER_CLASS, CALIBRATION, predictions_columns(["<class>"])])
def test_every_column_is_on_the_stores_page_with_its_type(columns: pa.Schema) -> None:
    words = {"double": "float64", "float": "float32"}
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    for field in columns:
        kind = "dictionary of strings" if pa.types.is_dictionary(field.type) else str(field.type)
        assert any(f"`{field.name}`" in row and f"| {words.get(kind, kind)} |" in row for row in rows), field.name


def test_every_column_of_training_is_on_the_stores_page() -> None:
    assert all(f"`{name}`" in PAGE for name in TRAINING.names)


def test_every_score_is_on_the_stores_page(two_runs: Path) -> None:
    scores = json.loads((two_runs / "metrics.json").read_text(encoding="utf-8"))["scores"]
    assert len(scores) == 8
    assert all(f"`{name}`" in PAGE for name in scores)
