"""What a query of Nexmark has answered, as a number of rows and a sum of hashes in any order.

benches/nexmark/digest.rs computes the same.
"""

import numpy as np
import pyarrow as pa

FACTOR = np.uint64(0x9E3779B97F4A7C15)
OF_NULL = np.uint64(0xD1B54A32D192ED03)
ROWS_AT_ONCE = 100_000


def of_texts(column: pa.Array) -> np.ndarray:
    """The bytes of each text, each times its place from 1, added up."""
    column = column.cast(pa.large_string())
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int64)[column.offset :][: len(column) + 1]
    data = column.buffers()[2]
    text = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, np.uint8)
    text = text[offsets[0] : offsets[-1]].astype(np.uint64)
    ends = offsets - offsets[0]
    places = np.arange(1, len(text) + 1, dtype=np.uint64)
    until = lambda values: np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])[ends]
    bytes_of, weighed = np.diff(until(text)), np.diff(until(text * places))
    return weighed - bytes_of * ends[:-1].astype(np.uint64)


def values(column: pa.Array) -> np.ndarray:
    """A column as 64-bit words."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        words = of_texts(column)
    elif pa.types.is_floating(kind):
        words = (column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0).view(np.uint64)
    else:
        words = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False).view(np.uint64)
    missing = column.is_null().to_numpy(zero_copy_only=False)
    return np.where(missing, OF_NULL, words)


class Digest:
    """Rows, and the sum of their hashes modulo 2^64."""

    def __init__(self) -> None:
        self.n_rows, self.hash = 0, 0

    def add(self, rows: pa.RecordBatch, weights: np.ndarray | None = None) -> None:
        """Adds rows; those of a changelog with 1 for a row that comes and -1 for one that goes."""
        for first in range(0, rows.num_rows, ROWS_AT_ONCE):
            part = rows.slice(first, ROWS_AT_ONCE)
            hashes = np.zeros(part.num_rows, np.uint64)
            with np.errstate(over="ignore"):
                for column in part.columns:
                    hashes = (hashes ^ values(column)) * FACTOR
                    hashes ^= hashes >> np.uint64(32)
                if weights is not None:
                    hashes *= weights[first : first + ROWS_AT_ONCE].astype(np.int64).view(np.uint64)
                self.hash = (self.hash + int(hashes.sum(dtype=np.uint64))) % 2**64
        self.n_rows += rows.num_rows if weights is None else int(weights.sum())

    def to_json(self) -> dict:
        return {"n_rows": self.n_rows, "hash": self.hash}
