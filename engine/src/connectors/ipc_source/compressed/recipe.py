"""Files and streams with compressed buffers: writes lz4.arrow, lz4.arrows, zstd.arrow and zstd.arrows beside this file.

    pip install pyarrow==26.0.1 && python recipe.py
"""

import pathlib

import pyarrow as pa
import pyarrow.ipc as ipc

HERE = pathlib.Path(__file__).parent
table = pa.table({"x": pa.array([1, 2, 3] * 100, pa.int64())}).combine_chunks()
for codec in ["lz4", "zstd"]:
    options = ipc.IpcWriteOptions(compression=codec)
    for extension, new in [("arrow", ipc.new_file), ("arrows", ipc.new_stream)]:
        with new(str(HERE / f"{codec}.{extension}"), table.schema, options=options) as writer:
            writer.write_table(table)
