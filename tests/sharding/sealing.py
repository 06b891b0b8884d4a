"""Packs altered by someone who knows the checksums: those of the manifest are made to match."""

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq


def alter_manifest(pack, change):
    """Apply ``change`` to the manifest's JSON object, then state the fingerprint of the result."""
    path = pack / "manifest.json"
    stated = json.loads(path.read_text())
    del stated["fingerprint"]
    change(stated)
    canonical = json.dumps(stated, sort_keys=True, separators=(",", ":"))
    stated.setdefault("fingerprint", hashlib.sha256(canonical.encode()).hexdigest())
    path.write_text(json.dumps(stated))


def alter_index(pack, change, **options):
    """Replace the index's table by what ``change`` makes of it."""
    table = change(pq.read_table(pack / "index.parquet"))
    pq.write_table(table, pack / "index.parquet", **options)
    seal_index(pack)


def seal_index(pack):
    digest = hashlib.sha256((pack / "index.parquet").read_bytes()).hexdigest()
    alter_manifest(pack, lambda stated: stated["index"].update(sha256=digest))


def set_value(table, column, row, value):
    """``table`` with ``value`` in a ``row`` of a ``column``, whose type stays."""
    number = table.schema.get_field_index(column)
    values = table.column(column).to_pylist()
    values[row] = value
    field = table.schema.field(number)
    return table.set_column(number, field, pa.array(values, field.type))


def downgrade(pack):
    """Make ``pack`` one of schema version 1, which has no checksums but the shards'."""
    path = pack / "manifest.json"
    stated = json.loads(path.read_text())
    for name in ("index", "rejects_sha256", "fingerprint"):
        del stated[name]
    path.write_text(json.dumps({**stated, "schema_version": 1}))
