"""What DuckDB says of the columns of ../../group_by/reference/rows.txt: writes expected.txt beside this file.

    pip install duckdb==2.0.1 && python recipe.py

The count of distinct values is exact here; the estimate is held against it.
"""

import pathlib

import duckdb

HERE = pathlib.Path(__file__).parent
TYPES = {"k": "bigint", "t": "varchar", "x": "bigint", "y": "double", "b": "boolean"}
SHOWN = {"bigint": "Int64", "varchar": "Utf8", "double": "Float64", "boolean": "Boolean"}

columns = {}
for line in (HERE / "../../group_by/reference/rows.txt").read_text().splitlines():
    name, values = line.split(": ")
    columns[name] = [None if v == "null" else v.strip("'") for v in values.split(", ")]
con = duckdb.connect()
con.execute("create table t (" + ", ".join(f"{n} {t}" for n, t in TYPES.items()) + ")")
con.executemany("insert into t values (?, ?, ?, ?, ?)", list(zip(*(columns[n] for n in TYPES))))


def text(value):
    return "null" if value is None else repr(str(value).lower() if isinstance(value, bool) else str(value))


def number(value):
    return "null" if value is None else repr(value)


rows = []
for name, data_type in TYPES.items():
    of = f"avg({name}), stddev_samp({name})" if data_type in ("bigint", "double") else "null, null"
    rows.append((name, SHOWN[data_type]) + con.execute(
        f"select count({name}), count(*) - count({name}), count(distinct {name}), min({name}), max({name}), {of} from t"
    ).fetchone())
shown = [text, text, number, number, number, text, text, number, number]
names = ["column", "type", "count", "nulls", "distinct", "min", "max", "mean", "std_dev"]
lines = [f"{n}: " + ", ".join(show(r[i]) for r in rows) for i, (n, show) in enumerate(zip(names, shown))]
(HERE / "expected.txt").write_text("\n".join(lines) + "\n")
