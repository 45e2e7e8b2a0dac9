"""The objects' schemas: the one place that names the columns of days and of their texts.

Put here: columns, their types and order, the schema's version. Keep out: encodings (`storage/parquet.py`).
"""

import pyarrow as pa

SCHEMA_VERSION = 1
"""The version of the schema; it increases when readers must treat older objects differently."""

SCHEMA = pa.schema(
    [
        pa.field("timestamp", pa.int64(), nullable=False),  # Unix milliseconds UTC
        pa.field("point_name", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("site_name", pa.string(), nullable=False),
    ]
)
"""The contract's columns, in its order."""

TEXT_SCHEMA = pa.schema([f if f.name != "value" else pa.field("text", pa.string(), nullable=False) for f in SCHEMA])
"""The columns of an object of texts: those of `SCHEMA` with `text` (UTF-8, as the API sent it) instead of `value`."""
