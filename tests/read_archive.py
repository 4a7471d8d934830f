"""Reads Parquet objects with DuckDB, as any user of the archive would, and prints their rows as a JSON list.

Usage: read_archive.py FOLDER
"""

import hashlib
import json
import sys

import duckdb

COLUMNS = (
    "message_id, source_index, strftime(date, '%Y-%m-%d') AS date, filename AS key, epoch_ms(timestamp) AS"
    " timestamp_ms, "
    "version, run_id, alert_count, no_alerts, history_count, audit_count, message, history, audit"
)


def rows(folder: str) -> list[dict]:
    objects = f"{folder}/**/*.parquet"
    # The object's own rows only: an object emptied by replacements has a schema and no rows.
    found = duckdb.sql(
        f"SELECT {COLUMNS} FROM read_parquet('{objects}', hive_partitioning = true, hive_types = {{'date': DATE}}, "
        "filename = true) ORDER BY message_id, source_index, key")
    names = found.columns
    result = []
    for values in found.fetchall():
        row = dict(zip(names, values))
        row["key"] = row["key"].removeprefix(folder).lstrip("/")
        row["sha256"] = hashlib.sha256(row["message"].encode()).hexdigest()
        result.append(row)
    return result


if __name__ == "__main__":
    json.dump(rows(sys.argv[1].rstrip("/")), sys.stdout)
