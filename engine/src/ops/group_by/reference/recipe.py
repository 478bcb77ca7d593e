"""What DuckDB says of random rows with nulls: writes rows.txt and expected.txt beside this file.

    pip install duckdb==2.0.1 && python recipe.py

Both are tables as `testing::table` reads them; expected.txt is ordered by its keys, nulls first.
"""

import pathlib
import random

import duckdb

HERE = pathlib.Path(__file__).parent
random.seed(20261124)


def or_null(value):
    return None if random.random() < 0.15 else value


rows = [
    (or_null(random.randrange(4)), or_null(random.choice("abc")), or_null(random.randrange(-50, 50)),
     or_null(random.randrange(-400, 400) / 8), or_null(random.random() < 0.7))
    for _ in range(300)
]
con = duckdb.connect()
con.execute("create table t (k bigint, t varchar, x bigint, y double, b boolean)")
con.executemany("insert into t values (?, ?, ?, ?, ?)", rows)
columns = {
    "k": "k", "t": "t", "n": "count(*)", "n_x": "count(x)", "d": "count(distinct x)", "s": "sum(x)::bigint",
    "lo": "min(x)", "hi": "max(y)", "mean": "avg(y)", "sd": "stddev_samp(y)", "sdp": "stddev_pop(y)",
    "v": "var_samp(x)", "vp": "var_pop(x)", "med": "median(y)", "r": "corr(x, y)", "c": "covar_samp(x, y)",
    "cp": "covar_pop(x, y)", "every": "bool_and(b)", "some": "bool_or(b)", "text": "max(t)",
    "part": "(sum(x) filter (where y > 0))::bigint", "ratio": "sum(y) / count(x)",
    "slope": "regr_slope(y, x)", "bits": "bit_xor(x)",
}
select = ", ".join(f"{of} as {name}" for name, of in columns.items())
expected = con.execute(
    f"select {select} from t group by k, t order by k nulls first, t nulls first").fetchall()


def cell(value):
    if value is None or value != value:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def write(name, names, table):
    lines = [f"{n}: " + ", ".join(cell(row[i]) for row in table) for i, n in enumerate(names)]
    (HERE / name).write_text("\n".join(lines) + "\n")


write("rows.txt", ["k", "t", "x", "y", "b"], rows)
write("expected.txt", list(columns), expected)
