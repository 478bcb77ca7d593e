"""The queries of benches/nexmark in PyFlink: SQL over the CSV files as an unbounded table with a watermark.

A job answers into files, or for results that change into this process, to warm up and to hash its rows.
The same job into a sink that drops all rows is measured: its run time as Flink tells it, without the start
of the JVM and of the planner, and the processor time of the JVM meanwhile. Mini-batches and object reuse
are on, and joins have bounds in time where the query allows them.
The last line of output is a JSON object.

    python nexmark_flink.py QUERY FOLDER EVENTS PARALLELISM
"""

import json
import os
import sys
import tempfile
from pathlib import Path

# Flink starts the `java` and `python` that it finds first.
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

import numpy as np
import pyarrow as pa
import pyarrow.csv
from pyflink.common import RowKind
from pyflink.table import EnvironmentSettings, Schema, Table, TableDescriptor, TableEnvironment

from nexmark_digest import Digest

EVENTS = """
CREATE TABLE events (
    kind INT, date_time BIGINT,
    p_id BIGINT, p_name STRING, p_email STRING, p_credit_card STRING, p_city STRING, p_state STRING, p_extra STRING,
    a_id BIGINT, a_item STRING, a_description STRING, a_initial_bid BIGINT, a_reserve BIGINT,
    a_expires BIGINT, a_seller BIGINT, a_category BIGINT, a_extra STRING,
    b_auction BIGINT, b_bidder BIGINT, b_price BIGINT, b_extra STRING,
    rowtime AS TO_TIMESTAMP_LTZ(date_time, 3),
    WATERMARK FOR rowtime AS rowtime - INTERVAL '4' SECOND
) WITH (
    'connector' = 'filesystem', 'path' = '{folder}', 'format' = 'csv',
    'csv.null-literal' = '', 'csv.disable-quote-character' = 'true'
)
"""

VIEWS = [
    """CREATE VIEW person AS SELECT p_id AS id, p_name AS name, p_city AS city, p_state AS state, date_time, rowtime
        FROM events WHERE kind = 0""",
    """CREATE VIEW auction AS
        SELECT a_id AS id, a_seller AS seller, a_category AS category, a_expires AS expires, date_time, rowtime
        FROM events WHERE kind = 1""",
    """CREATE VIEW bid AS
        SELECT b_auction AS auction, b_bidder AS bidder, b_price AS price, date_time, b_extra AS extra, rowtime
        FROM events WHERE kind = 2""",
]

# No auction is open for more than a second, so the join need not keep older ones.
CLOSED = """
    SELECT a.id, a.category, a.seller, MAX(b.price) AS final
    FROM auction a JOIN bid b ON a.id = b.auction
        AND b.rowtime BETWEEN a.rowtime AND a.rowtime + INTERVAL '1' SECOND AND b.date_time <= a.expires
    GROUP BY a.id, a.category, a.seller
"""

BIDS_BY_WINDOW = """
    SELECT auction, COUNT(*) AS n, window_start, window_end
    FROM TABLE(HOP(TABLE bid, DESCRIPTOR(rowtime), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
    GROUP BY auction, window_start, window_end
"""

IN_MS = "CAST(TIMESTAMPDIFF(SECOND, TIMESTAMP '1970-01-01 00:00:00', {}) AS BIGINT) * 1000"

QUERIES = {
    "q0": "SELECT auction, bidder, price, date_time, extra FROM bid",
    "q1": "SELECT auction, bidder, CAST(price AS DOUBLE) * 0.908e0 AS price, date_time, extra FROM bid",
    "q2": "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0",
    "q3": """
        SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id
            AND p.rowtime BETWEEN a.rowtime - INTERVAL '10' SECOND AND a.rowtime + INTERVAL '10' SECOND
        WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')
    """,
    "q4": f"SELECT category, AVG(CAST(final AS DOUBLE)) AS mean FROM ({CLOSED}) GROUP BY category",
    "q5": f"""
        SELECT b.auction, b.n, {IN_MS.format("b.window_start")} AS window_start
        FROM ({BIDS_BY_WINDOW}) b JOIN (
            SELECT MAX(n) AS most, window_start, window_end FROM ({BIDS_BY_WINDOW}) GROUP BY window_start, window_end
        ) w ON b.window_start = w.window_start AND b.window_end = w.window_end AND b.n >= w.most
    """,
    "q6": f"SELECT seller, AVG(CAST(final AS DOUBLE)) AS mean FROM ({CLOSED}) GROUP BY seller",
    "q7": """
        SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
        FROM bid b JOIN (
            SELECT MAX(price) AS most, window_time
            FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(rowtime), INTERVAL '10' SECOND))
            GROUP BY window_start, window_end, window_time
        ) w ON b.price = w.most AND b.rowtime BETWEEN w.window_time - INTERVAL '9.999' SECOND AND w.window_time
    """,
    "q8": f"""
        SELECT p.id, p.name, {IN_MS.format("p.window_start")} AS window_start
        FROM (
            SELECT id, name, window_start, window_end
            FROM TABLE(TUMBLE(TABLE person, DESCRIPTOR(rowtime), INTERVAL '10' SECOND))
            GROUP BY id, name, window_start, window_end
        ) p JOIN (
            SELECT seller, window_start, window_end
            FROM TABLE(TUMBLE(TABLE auction, DESCRIPTOR(rowtime), INTERVAL '10' SECOND))
            GROUP BY seller, window_start, window_end
        ) a ON p.id = a.seller AND p.window_start = a.window_start AND p.window_end = a.window_end
    """,
}
# Their rows change as events come.
CHANGING = {"q4", "q6"}

SETTINGS = {
    "table.local-time-zone": "UTC",
    "pipeline.object-reuse": "true",
    "table.exec.mini-batch.enabled": "true",
    "table.exec.mini-batch.allow-latency": "2 s",
    "table.exec.mini-batch.size": "50000",
}

TYPES = {"BIGINT": pa.int64(), "INT": pa.int32(), "DOUBLE": pa.float64(), "STRING": pa.string()}


def arrow_schema(rows: Table) -> pa.Schema:
    schema = rows.get_schema()
    kinds = [TYPES[str(kind).replace("VARCHAR", "STRING").split("(")[0]] for kind in map(sql_type, schema.get_field_data_types())]
    return pa.schema(list(zip(schema.get_field_names(), kinds)))


def sql_type(data_type) -> str:
    return {"BigIntType": "BIGINT", "IntType": "INT", "DoubleType": "DOUBLE", "VarCharType": "STRING"}[type(data_type).__name__]


def digest_of_files(rows: Table) -> Digest:
    """Runs the query into CSV files, and reads them."""
    digest = Digest()
    schema = arrow_schema(rows)
    with tempfile.TemporaryDirectory(prefix="nexmark-flink-") as folder:
        to = TableDescriptor.for_connector("filesystem").option("path", folder).format("csv")
        rows.execute_insert(to.build()).wait()
        read = pa.csv.ReadOptions(column_names=schema.names)
        convert = pa.csv.ConvertOptions(column_types=schema)
        for file in Path(folder).rglob("*"):
            if file.is_file() and file.stat().st_size > 0:
                for batch in pa.csv.open_csv(file, read_options=read, convert_options=convert):
                    digest.add(batch)
    return digest


def digest_of_changes(rows: Table) -> Digest:
    """Runs the query into this process; what comes counts 1, what goes -1."""
    schema = arrow_schema(rows)
    comes = {RowKind.INSERT, RowKind.UPDATE_AFTER}
    weights, changes = [], []
    with rows.execute().collect() as results:
        for row in results:
            weights.append(1 if row.get_row_kind() in comes else -1)
            changes.append(tuple(row))
    columns = [pa.array(column, kind) for column, kind in zip(zip(*changes), schema.types)]
    digest = Digest()
    digest.add(pa.record_batch(columns, schema=schema), np.array(weights))
    return digest


def java() -> int:
    """The process of the JVM, which this one has started."""
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "java":
                return int(child)
    raise RuntimeError("no JVM is running")


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_rss_bytes(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    name, folder, n_events, parallelism = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    for key, value in (SETTINGS | {"parallelism.default": parallelism}).items():
        tables.get_config().set(key, value)
    tables.execute_sql(EVENTS.format(folder=folder))
    for view in VIEWS:
        tables.execute_sql(view)
    rows = tables.sql_query(QUERIES[name])
    if os.environ.get("EXPLAIN"):
        print(rows.explain(), file=sys.stderr)
    digest = digest_of_changes(rows) if name in CHANGING else digest_of_files(rows)

    jvm = java()
    cpu = cpu_seconds(jvm)
    job = rows.execute_insert(TableDescriptor.for_connector("blackhole").build())
    job.wait()
    millis = job.get_job_client().get_job_execution_result().result().get_net_runtime()
    print(
        json.dumps(
            {
                "rows": n_events,
                "seconds": millis / 1000,
                "cpu_seconds": cpu_seconds(jvm) - cpu,
                "peak_rss_bytes": peak_rss_bytes(jvm),
                "digest": digest.to_json(),
            }
        )
    )


main()
