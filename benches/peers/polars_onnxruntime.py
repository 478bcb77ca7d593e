"""The job of batch_predict.rs written by hand with Polars and onnxruntime.

Reads the Parquet files of a folder, makes the same features with Polars expressions, scores them with
the same model.onnx, and writes Parquet files of all columns and the prediction. What the features need
to know (means, boundaries) is computed before the clock starts, as it is for Mainstem.
The last line of output is a JSON object.

    python polars_onnxruntime.py BIRTHS MODEL.onnx OUT
"""

import json
import os
import resource
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl

ROWS_AT_ONCE = 500_000
# Small minibatches on one thread each are the fastest way through onnxruntime for a small network.
MINIBATCH = 8_192
WEEKS_BUCKETS = 10
AGE_BUCKETS = 10


def boundaries(values: pl.Series, n_buckets: int) -> list[float]:
    """Quantile boundaries between `n_buckets` buckets, without repetitions."""
    cuts = [values.quantile(i / n_buckets, "nearest") for i in range(1, n_buckets)]
    return sorted(set(cuts))


def one_hot(code: pl.Expr, depth: int, name: str) -> list[pl.Expr]:
    return [(code == i).cast(pl.Float32).alias(f"{name}_{i}") for i in range(depth)]


def features(sample: pl.DataFrame) -> list[pl.Expr]:
    """The 25 columns of the feature matrix, learned from a sample."""
    columns = []
    for name in ("mother_age", "gestation_weeks"):
        mean, std = sample[name].mean(), sample[name].std(ddof=0)
        columns.append(((pl.col(name) - mean) / std).cast(pl.Float32).alias(f"{name}_z"))
    columns += one_hot(pl.col("is_male").cast(pl.Int8), 2, "sex")
    columns += one_hot(pl.col("plurality") - 1, 4, "plurality")
    for name, n_buckets in (("gestation_weeks", WEEKS_BUCKETS), ("mother_age", AGE_BUCKETS)):
        bucket = pl.lit(0)
        cuts = boundaries(sample[name], n_buckets)
        for cut in cuts:
            bucket = bucket + (pl.col(name) >= cut).cast(pl.Int32)
        columns += one_hot(bucket, len(cuts) + 1, f"{name}_bucket")
    return columns


def main() -> None:
    births, model, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    files = sorted(births.glob("*.parquet"))
    columns = features(pl.read_parquet(files[0], n_rows=100_000))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)

    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    scan = pl.scan_parquet(files)
    n_rows = scan.select(pl.len()).collect().item()
    for part, offset in enumerate(range(0, n_rows, ROWS_AT_ONCE)):
        rows = scan.slice(offset, ROWS_AT_ONCE).collect()
        matrix = np.ascontiguousarray(rows.select(columns).to_numpy(), dtype=np.float32)
        parts = range(0, len(matrix), MINIBATCH)
        score = lambda at: session.run(None, {"features": matrix[at : at + MINIBATCH]})[0]
        scores = np.concatenate(list(pool.map(score, parts)))
        rows = rows.with_columns(pl.Series("prediction", scores[:, 0]))
        rows.write_parquet(out / f"part-{part:05}.parquet", compression="snappy")
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        json.dumps(
            {
                "rows": n_rows,
                "seconds": seconds,
                "cpu_seconds": cpu,
                "peak_rss_bytes": after.ru_maxrss * 1024,
            }
        )
    )


main()
