"""The queries of benches/relational in DuckDB and Polars.

Each answers into Arrow or its own columns in memory, once to warm up and once to be measured; neither is
asked to keep the order of rows. Polars uses its streaming engine, which is the faster one here.
The last line of output is a JSON object.

    python relational.py duckdb|polars QUERY FACTS IDS THREADS
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def duckdb_query(name: str, facts: str, ids: str, threads: int):
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}")
    connection.execute("SET preserve_insertion_order = false")
    facts, ids = f"read_parquet('{facts}/*.parquet')", f"read_parquet('{ids}/*.parquet')"
    sql = {
        "filter": f"SELECT low, x, y FROM {facts} WHERE y < 100 AND x >= 500",
        "project": f"SELECT x * 2 + y AS a, x - y AS b FROM {facts}",
        "group-low": f"SELECT low, sum(x), avg(y), max(x), count(*) FROM {facts} GROUP BY low",
        "group-high": f"SELECT high, sum(x), count(*) FROM {facts} GROUP BY high",
        "group-name": f"SELECT name, sum(x), min(y), count(*) FROM {facts} GROUP BY name",
        "join": f"SELECT sum(f.x * i.weight), count(*) FROM {facts} f JOIN {ids} i ON f.id = i.id",
    }[name]
    return lambda: connection.sql(sql).to_arrow_table()


def polars_query(name: str, facts: str, ids: str, threads: int):
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    import polars as pl

    col = pl.col

    def query():
        rows = pl.scan_parquet(f"{facts}/*.parquet")
        by = lambda key, *aggregates: rows.group_by(key).agg(*aggregates)
        if name == "filter":
            rows = rows.filter((col("y") < 100) & (col("x") >= 500)).select("low", "x", "y")
        elif name == "project":
            rows = rows.select(a=col("x") * 2 + col("y"), b=col("x") - col("y"))
        elif name == "group-low":
            rows = by("low", col("x").sum(), col("y").mean(), col("x").max().alias("max"), pl.len())
        elif name == "group-high":
            rows = by("high", col("x").sum(), pl.len())
        elif name == "group-name":
            rows = by("name", col("x").sum(), col("y").min(), pl.len())
        elif name == "join":
            ids_rows = pl.scan_parquet(f"{ids}/*.parquet")
            rows = rows.join(ids_rows, on="id").select((col("x") * col("weight")).sum(), n=pl.len())
        return rows.collect(engine="streaming")

    return query


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """A column as 64-bit floats; a text counts as the number it ends in."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        texts = column.cast(pa.large_string())
        digits = pc.list_element(pc.split_pattern(texts, "-"), 1)
        return digits.cast(pa.int64()).to_numpy().astype(np.float64)
    return column.to_numpy().astype(np.float64)


def answer(table: pa.Table) -> dict:
    """Rows, the sum of the first column, and of that column plus one times each other one."""
    first, *others = [numbers(column) for column in table.columns]
    sums = [float(first.sum())] + [float(((first + 1.0) * other).sum()) for other in others]
    return {"n_rows": table.num_rows, "sums": sums}


def main() -> None:
    engine, name, facts, ids, threads = *sys.argv[1:5], int(sys.argv[5])
    make = {"duckdb": duckdb_query, "polars": polars_query}[engine]
    query = make(name, facts, ids, threads)
    query()
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    result = query()
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    table = result if isinstance(result, pa.Table) else result.to_arrow()
    n_rows = sum(pq.ParquetFile(file).metadata.num_rows for file in Path(facts).iterdir())
    print(
        json.dumps(
            {
                "rows": n_rows,
                "seconds": seconds,
                "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                "peak_rss_bytes": after.ru_maxrss * 1024,
                "answer": answer(table),
            }
        )
    )


main()
