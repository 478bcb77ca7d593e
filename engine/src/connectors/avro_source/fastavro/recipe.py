"""Files of the Avro library fastavro: writes types.avro, one file per codec, and unions.avro beside this file.

    pip install fastavro==1.13.1 cramjam==2.14.0 backports.zstd==1.8.0 && python recipe.py
"""

import datetime
import decimal
import pathlib
import uuid

import fastavro

HERE = pathlib.Path(__file__).parent
SYNC = bytes(range(16))

TYPES = {
    "type": "record",
    "name": "Row",
    "namespace": "org.example",
    "fields": [
        {"name": "id", "type": "int"},
        {"name": "millis", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "micros", "type": ["null", {"type": "long", "logicalType": "time-micros"}]},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at_millis", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "at_micros", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
        {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-micros"}},
        {"name": "uuid", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "fixed", "type": {"type": "fixed", "name": "Four", "size": 4}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
        {"name": "rate", "type": ["null", {"type": "fixed", "name": "Rate", "size": 6, "logicalType": "decimal", "precision": 12, "scale": 4}]},
        {"name": "suit", "type": ["null", {"type": "enum", "name": "Suit", "symbols": ["SPADES", "HEARTS"]}]},
        {"name": "counts", "type": {"type": "map", "values": "long"}},
        {"name": "tags", "type": ["null", {"type": "array", "items": ["null", "string"]}]},
        {
            "name": "of",
            "type": ["null", {
                "type": "record",
                "name": "Outer",
                "fields": [
                    {"name": "name", "type": "string"},
                    {"name": "inner", "type": {"type": "record", "name": "Inner", "fields": [
                        {"name": "x", "type": ["null", "double"]},
                        {"name": "again", "type": {"type": "array", "items": "Suit"}},
                    ]}},
                ],
            }],
        },
        {"name": "last_null", "type": ["long", "null"]},
    ],
}

ROWS = [
    {
        "id": 1,
        "millis": datetime.time(23, 59, 59, 999_000),
        "micros": datetime.time(12, 0, 0, 1),
        "day": datetime.date(2024, 2, 29),
        "at_millis": datetime.datetime(1969, 12, 31, 23, 59, 59, 999_000, datetime.timezone.utc),
        "at_micros": datetime.datetime(2262, 4, 12, 0, 0, 0, 1, datetime.timezone.utc),
        "local": datetime.datetime(2024, 3, 31, 2, 30),
        "uuid": uuid.UUID("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
        "fixed": b"\x00\xff\x10\x20",
        "price": decimal.Decimal("-12345.67"),
        "rate": decimal.Decimal("99999999.9999"),
        "suit": "HEARTS",
        "counts": {"a": 1, "b": -2},
        "tags": ["x", None, ""],
        "of": {"name": "n", "inner": {"x": 0.5, "again": ["SPADES", "HEARTS"]}},
        "last_null": 7,
    },
    {
        "id": 2,
        "millis": datetime.time(0, 0),
        "micros": None,
        "day": datetime.date(1, 1, 1),
        "at_millis": datetime.datetime(1, 1, 1, tzinfo=datetime.timezone.utc),
        "at_micros": None,
        "local": datetime.datetime(9999, 12, 31, 23, 59, 59, 999_999),
        "uuid": uuid.UUID(int=0),
        "fixed": b"\x00\x00\x00\x00",
        "price": decimal.Decimal("0.01"),
        "rate": None,
        "suit": None,
        "counts": {},
        "tags": None,
        "of": None,
        "last_null": None,
    },
]

UNIONS = {
    "type": "record",
    "name": "Row",
    "fields": [
        {"name": "id", "type": "int"},
        {"name": "two", "type": ["long", "string"]},
        {"name": "three", "type": ["null", "double", "string"]},
    ],
}
MIXED = [
    {"id": 1, "two": 5, "three": "a"},
    {"id": 2, "two": "b", "three": None},
    {"id": 3, "two": -1, "three": 0.5},
]


def write(name, schema, rows, **options):
    with open(HERE / name, "wb") as file:
        fastavro.writer(file, fastavro.parse_schema(schema), rows, sync_marker=SYNC, **options)


write("types.avro", TYPES, ROWS)
write("unions.avro", UNIONS, MIXED)
NUMBERS = {"type": "record", "name": "Row", "fields": [{"name": "x", "type": "long"}, {"name": "s", "type": "string"}]}
for codec in ["null", "deflate", "snappy", "zstandard", "bzip2", "xz"]:
    # Blocks of few rows, so that each file has several.
    rows = [{"x": i, "s": f"row {i:03}"} for i in range(60)]
    write(f"{codec}.avro", NUMBERS, rows, codec=codec, sync_interval=250)
