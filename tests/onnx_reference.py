#!/usr/bin/env python3
"""Checks a saved Predictor with the reference tools: onnx.checker and Python's onnxruntime.

    pip install onnx onnxruntime pyarrow
    python3 tests/onnx_reference.py PREDICTOR_FOLDER [--rows ROWS.arrow]

Both ONNX files must pass the full check. Then golden.arrow, and ROWS where it is given (an Arrow IPC file with
the raw columns, "features" and "prediction"), go through fused.onnx: features must be equal bit by bit, scores
within 1e-5 relative. The last line is one JSON object. Exits with 1 on a difference.
"""

import argparse
import json
import pathlib
import sys

import numpy
import onnx
import onnxruntime
import pyarrow
import pyarrow.ipc

TOLERANCE = 1e-5
BATCH_ROWS = 8192


def raw_input(column, spec):
    """The column as its ONNX input takes it: NaN or the empty text for null, shape [N, 1]."""
    if isinstance(column.type, pyarrow.DictionaryType):
        column = column.cast(column.type.value_type)
    if spec["onnx_type"] == "string":
        values = numpy.array(column.fill_null("").to_pylist(), dtype=object)
    elif spec["onnx_type"] == "double":
        doubles = column.cast(pyarrow.float64())
        values = doubles.fill_null(float("nan")).to_numpy(zero_copy_only=False)
    else:
        if column.null_count:
            sys.exit(f'column "{spec["name"]}" holds null, which ONNX has not for Booleans')
        values = column.to_numpy(zero_copy_only=False).astype(bool)
    return values.reshape(-1, 1)


def compare(session, manifest, batch):
    """Feature values that differ, the largest relative difference of a score, and rows."""
    inputs = {
        spec["name"]: raw_input(batch.column(spec["name"]), spec)
        for spec in manifest["inputs"]
        if spec["name"] in {i.name for i in session.get_inputs()}
    }
    features, scores = session.run(["features", "score"], inputs)
    expected = batch.column("features").flatten().to_numpy(zero_copy_only=False)
    expected = expected.astype(numpy.float32, copy=False)
    if features.size != expected.size:
        sys.exit(f"fused.onnx gives {features.size} feature values, expected {expected.size}")
    bits = features.reshape(-1).view(numpy.uint32) != expected.view(numpy.uint32)
    bits &= ~(numpy.isnan(features.reshape(-1)) & numpy.isnan(expected))
    theirs = scores.reshape(-1).astype(numpy.float64)
    ours = batch.column("prediction").to_numpy(zero_copy_only=False).astype(numpy.float64)
    scale = numpy.maximum(numpy.maximum(abs(theirs), abs(ours)), manifest["golden"]["score_floor"])
    difference = abs(theirs - ours)
    relative = numpy.divide(difference, scale, out=numpy.zeros_like(scale), where=difference != 0)
    # A score that is not a number must never pass as equal.
    relative[numpy.isnan(difference)] = numpy.inf
    return int(bits.sum()), float(relative.max(initial=0.0)), batch.num_rows


def batches_of(path):
    with pyarrow.memory_map(str(path)) as file:
        for batch in pyarrow.ipc.open_file(file).read_all().to_batches(max_chunksize=BATCH_ROWS):
            if batch.num_rows:
                yield batch


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("predictor", type=pathlib.Path)
    arguments.add_argument("--rows", type=pathlib.Path)
    given = arguments.parse_args()
    manifest = json.loads((given.predictor / "manifest.json").read_text())
    if manifest["fused_refused"]:
        sys.exit(f'there is no fused.onnx: {manifest["fused_refused"]}')
    for name in ["model.onnx", "fused.onnx"]:
        onnx.checker.check_model(onnx.load(given.predictor / name), full_check=True)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(given.predictor / "fused.onnx"), options, providers=["CPUExecutionProvider"]
    )
    differing, largest, n_rows = 0, 0.0, 0
    for path in [given.predictor / "golden.arrow", given.rows]:
        for batch in batches_of(path) if path else []:
            found = compare(session, manifest, batch)
            differing += found[0]
            largest = max(largest, found[1])
            n_rows += found[2]
    report = {
        "features_differing": differing,
        "scores_max_relative_difference": largest,
        "rows": n_rows,
    }
    print(json.dumps(report))
    return 0 if n_rows and differing == 0 and largest <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
