"""The job of benches/batch_predict written by hand with Daft and onnxruntime.

Reads the Parquet files of a folder, makes the same features and scores them with the same model.onnx in
a class UDF (an instance and a session with one thread per core, in threads, which is faster here than
in processes; minibatches of 8,192 rows), and writes Parquet files of all columns and the prediction.
What the features need to know (means, boundaries) is computed before the clock starts, as it is for
Mainstem.

Features are made with numpy inside the UDF: as Daft expressions the 25 columns would be copied between
its partitions and Python one by one, which is slower.
The last line of output is a JSON object.

    python daft_onnxruntime.py BIRTHS MODEL.onnx OUT
"""

import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import daft
import numpy as np
import onnxruntime
import pyarrow.parquet as pq
from daft import DataType, Series, col

MINIBATCH = 8_192
WEEKS_BUCKETS = 10
AGE_BUCKETS = 10
INPUTS = ["mother_age", "gestation_weeks", "is_male", "plurality"]


def learned(file: Path) -> dict:
    """Means, standard deviations and quantile boundaries of a sample."""
    sample = next(pq.ParquetFile(file).iter_batches(100_000, columns=INPUTS))
    known = {}
    for name, n_buckets in (("gestation_weeks", WEEKS_BUCKETS), ("mother_age", AGE_BUCKETS)):
        values = sample[name].drop_null().to_numpy()
        quantiles = [i / n_buckets for i in range(1, n_buckets)]
        cuts = np.unique(np.quantile(values, quantiles, method="nearest"))
        known[name] = (values.mean(), values.std(), cuts)
    return known


@daft.cls(max_concurrency=os.cpu_count() or 1, use_process=False)
class Scorer:
    def __init__(self, model: str, known: dict):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self.known = known
        self.width = 2 + 2 + 4 + sum(len(cuts) + 1 for _, _, cuts in known.values())

    def matrix(self, age, weeks, male, plurality) -> np.ndarray:
        rows = np.arange(len(age))
        matrix = np.zeros((len(age), self.width), dtype=np.float32)
        mean, std, age_cuts = self.known["mother_age"]
        matrix[:, 0] = (age - mean) / std
        mean, std, weeks_cuts = self.known["gestation_weeks"]
        matrix[:, 1] = (weeks - mean) / std
        matrix[rows, 2 + male.astype(np.int64)] = 1.0
        matrix[rows, 4 + plurality - 1] = 1.0
        matrix[rows, 8 + np.searchsorted(weeks_cuts, weeks, side="right")] = 1.0
        offset = 8 + len(weeks_cuts) + 1
        matrix[rows, offset + np.searchsorted(age_cuts, age, side="right")] = 1.0
        return matrix

    @daft.method.batch(return_dtype=DataType.float32(), batch_size=MINIBATCH)
    def score(self, age: Series, weeks: Series, male: Series, plurality: Series):
        columns = [s.to_arrow().to_numpy(zero_copy_only=False) for s in (age, weeks, male, plurality)]
        matrix = self.matrix(*columns)
        return Series.from_numpy(self.session.run(None, {"features": matrix})[0][:, 0])


def main() -> None:
    births, model, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    files = sorted(births.glob("*.parquet"))
    known = learned(files[0])
    n_rows = sum(pq.ParquetFile(file).metadata.num_rows for file in files)
    shutil.rmtree(out, ignore_errors=True)

    def usage() -> float:
        return sum(
            used.ru_utime + used.ru_stime
            for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        )

    before = usage()
    started = time.perf_counter()
    scorer = Scorer(model, known)
    rows = daft.read_parquet([str(file) for file in files])
    rows = rows.with_column("prediction", scorer.score(*(col(name) for name in INPUTS)))
    rows.write_parquet(str(out), compression="snappy")
    seconds = time.perf_counter() - started
    cpu = usage() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    written = sum(pq.ParquetFile(file).metadata.num_rows for file in out.glob("*.parquet"))
    if written != n_rows:
        raise SystemExit(f"{n_rows} rows in, {written} out")
    print(
        json.dumps(
            {
                "rows": n_rows,
                "seconds": seconds,
                "cpu_seconds": cpu,
                "peak_rss_bytes": peak * 1024,
            }
        )
    )


main()
# Daft's threads may still hold the interpreter while it ends, which then crashes in one run of three.
sys.stdout.flush()
os._exit(0)
