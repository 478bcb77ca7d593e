"""The queries of benches/nexmark in DuckDB: one batch over all events, with no event time.

Each is answered once to warm up and to hash its rows, and once to be measured; batches of the result are
taken as they come and let go. The last line of output is a JSON object.

    python nexmark_duckdb.py QUERY FOLDER EVENTS THREADS
"""

import json
import resource
import sys
import time
from pathlib import Path

import duckdb

from nexmark_digest import Digest

NUMBER, TEXT = "BIGINT", "VARCHAR"
COLUMNS = {
    "kind": "INTEGER", "date_time": NUMBER,
    "p_id": NUMBER, "p_name": TEXT, "p_email": TEXT, "p_credit_card": TEXT, "p_city": TEXT, "p_state": TEXT,
    "p_extra": TEXT,
    "a_id": NUMBER, "a_item": TEXT, "a_description": TEXT, "a_initial_bid": NUMBER, "a_reserve": NUMBER,
    "a_expires": NUMBER, "a_seller": NUMBER, "a_category": NUMBER, "a_extra": TEXT,
    "b_auction": NUMBER, "b_bidder": NUMBER, "b_price": NUMBER, "b_extra": TEXT,
}  # fmt: skip

VIEWS = """
CREATE VIEW person AS SELECT p_id AS id, p_name AS name, p_city AS city, p_state AS state, date_time
    FROM events WHERE kind = 0;
CREATE VIEW auction AS SELECT a_id AS id, a_seller AS seller, a_category AS category, a_expires AS expires, date_time
    FROM events WHERE kind = 1;
CREATE VIEW bid AS SELECT b_auction AS auction, b_bidder AS bidder, b_price AS price, date_time, b_extra AS extra
    FROM events WHERE kind = 2;
"""

CLOSED = """
    SELECT a.id, a.category, a.seller, max(b.price) AS final
    FROM auction a JOIN bid b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires
    GROUP BY a.id, a.category, a.seller
"""

QUERIES = {
    "q0": "SELECT auction, bidder, price, date_time, extra FROM bid",
    "q1": "SELECT auction, bidder, CAST(price AS DOUBLE) * CAST(0.908 AS DOUBLE), date_time, extra FROM bid",
    "q2": "SELECT auction, price FROM bid WHERE auction % 123 = 0",
    "q3": """
        SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id
        WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')
    """,
    "q4": f"SELECT category, avg(final) FROM ({CLOSED}) GROUP BY category",
    # A row of panes of 2 seconds is in five windows of 10.
    "q5": """
        WITH panes AS (
            SELECT auction, date_time // 2000 * 2000 AS pane, count(*) AS n FROM bid GROUP BY ALL
        ), windows AS (
            SELECT auction, pane - 2000 * back AS window_start, sum(n)::BIGINT AS n
            FROM panes, range(5) AS earlier(back) GROUP BY ALL
        )
        SELECT auction, n, window_start FROM windows
        QUALIFY n = max(n) OVER (PARTITION BY window_start)
    """,
    "q6": f"SELECT seller, avg(final) FROM ({CLOSED}) GROUP BY seller",
    "q7": """
        SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
        FROM bid b JOIN (
            SELECT date_time // 10000 AS number, max(price) AS most FROM bid GROUP BY number
        ) w ON b.date_time // 10000 = w.number AND b.price = w.most
    """,
    "q8": """
        SELECT p.id, p.name, p.window_start
        FROM (SELECT DISTINCT id, name, date_time // 10000 * 10000 AS window_start FROM person) p
        JOIN (SELECT DISTINCT seller, date_time // 10000 * 10000 AS window_start FROM auction) a
        ON p.id = a.seller AND p.window_start = a.window_start
    """,
}


def main() -> None:
    name, folder, n_events, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}")
    connection.execute("SET preserve_insertion_order = false")
    if folder.name == "csv":
        columns = ", ".join(f"'{column}': '{kind}'" for column, kind in COLUMNS.items())
        files = f"read_csv('{folder}/*.csv', header = false, quote = '', columns = {{{columns}}})"
    else:
        files = f"read_parquet('{folder}/*.parquet')"
    connection.execute(f"CREATE VIEW events AS SELECT * FROM {files};" + VIEWS)
    batches = lambda: connection.sql(QUERIES[name]).to_arrow_reader(100_000)

    digest = Digest()
    for rows in batches():
        digest.add(rows)
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    n_rows = sum(rows.num_rows for rows in batches())
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert n_rows == digest.n_rows
    print(
        json.dumps(
            {
                "rows": n_events,
                "seconds": seconds,
                "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                "peak_rss_bytes": after.ru_maxrss * 1024,
                "digest": digest.to_json(),
            }
        )
    )


main()
