"""Parquet files with metadata: a description of each column, and JSON about the whole file."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import JsonValue

METADATA_KEY = b"cifar_flow"
DESCRIPTION = b"description"
CLASS_NAME = pa.dictionary(pa.int16(), pa.string())
ROW_GROUP = 50_000  # rows: small enough to hold in memory, large enough for readers to skip by


def make_schema(columns: Iterable[tuple[str, pa.DataType, str]]) -> pa.Schema:
    """Return a schema of columns that are given by name, type and description."""
    return pa.schema(
        [pa.field(name, kind, metadata={DESCRIPTION: description.encode()}) for name, kind, description in columns]
    )


def write_table(path: Path, table: pa.Table, facts: Mapping[str, JsonValue]) -> None:
    """Write a table, with `facts` as JSON in the file's metadata."""
    write_parts(path, table.schema, [table], facts)


def write_parts(path: Path, schema: pa.Schema, parts: Iterable[pa.Table], facts: Mapping[str, JsonValue]) -> None:
    """Write a table part by part, so that only one part is in memory."""
    with table_writer(path, schema, facts) as writer:
        for part in parts:
            writer.write_table(part, row_group_size=ROW_GROUP)


def table_writer(path: Path, schema: pa.Schema, facts: Mapping[str, JsonValue]) -> pq.ParquetWriter:
    metadata = {METADATA_KEY: json.dumps(dict(facts), sort_keys=True).encode()}
    return pq.ParquetWriter(path, schema.with_metadata(metadata), compression="zstd")


def read_table(path: Path) -> pd.DataFrame:
    frame: pd.DataFrame = pq.read_table(path).to_pandas()
    return frame


def read_facts(path: Path) -> dict[str, JsonValue]:
    """Return the facts that were written with a table."""
    facts: dict[str, JsonValue] = json.loads(pq.read_schema(path).metadata[METADATA_KEY])
    return facts


def class_names(indices: NDArray[Any] | pa.Array, classes: Sequence[str]) -> pa.DictionaryArray:
    """Return class indices as dictionary-encoded names."""
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int16()), pa.array(classes, pa.string()))
