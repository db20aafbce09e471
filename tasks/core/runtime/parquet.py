"""Parquet files that describe themselves: each column says what it means, each file what it is of."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
ROW_GROUP = 50_000  # rows: few enough to be held, enough for a reader to skip by


def make_schema(columns: Iterable[tuple[str, pa.DataType, str]]) -> pa.Schema:
    return pa.schema(
        [pa.field(name, kind, metadata={DESCRIPTION: meaning.encode()}) for name, kind, meaning in columns]
    )


def write_table(path: Path, table: pa.Table, facts: Mapping[str, JsonValue]) -> None:
    """Write a table that says by itself what it is: `facts` stand as JSON in the file's metadata."""
    write_parts(path, table.schema, [table], facts)


def write_parts(path: Path, schema: pa.Schema, parts: Iterable[pa.Table], facts: Mapping[str, JsonValue]) -> None:
    """Write one table of parts that are made as they are written, so that no more than one of them is held."""
    with table_writer(path, schema, facts) as writer:
        for part in parts:
            writer.write_table(part, row_group_size=ROW_GROUP)


@contextmanager
def table_writer(path: Path, schema: pa.Schema, facts: Mapping[str, JsonValue]) -> Iterator[pq.ParquetWriter]:
    """What writes a table of that schema part by part."""
    metadata = {METADATA_KEY: json.dumps(dict(facts), sort_keys=True).encode()}
    with pq.ParquetWriter(path, schema.with_metadata(metadata), compression="zstd") as writer:
        yield writer


def read_table(path: Path) -> pd.DataFrame:
    frame: pd.DataFrame = pq.read_table(path).to_pandas()
    return frame


def read_facts(path: Path) -> dict[str, JsonValue]:
    """What a table of ours says of itself."""
    facts: dict[str, JsonValue] = json.loads(pq.read_schema(path).metadata[METADATA_KEY])
    return facts


def class_names(indices: NDArray[Any] | pa.Array, classes: Sequence[str]) -> pa.DictionaryArray:
    """Class indices as dictionary-encoded names."""
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int16()), pa.array(classes, pa.string()))
