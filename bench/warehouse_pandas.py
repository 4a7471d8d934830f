#!/usr/bin/env python3
"""The obvious way to make the star of bench/warehouse.yaml in pandas: what build-warehouse is measured against.

Usage: bench/warehouse_pandas.py FOLDER     (objects lie in FOLDER/ingestion, tables come into FOLDER/pandas)
"""

import json
import resource
import sys
import time
from pathlib import Path

import pandas as pd

DIMENSIONS = {"customer": "c_custkey", "supplier": "s_suppkey", "part": "p_partkey"}
FACTS = {
    "orders": (["o_orderkey"], {"customer": "o_custkey"}, {"order": "o_orderdate"}, ["o_orderstatus", "o_totalprice"]),
    "lineitem": (
        ["l_orderkey", "l_linenumber"], {"part": "l_partkey", "supplier": "l_suppkey"},
        {"ship": "l_shipdate", "receipt": "l_receiptdate"}, ["l_quantity", "l_extendedprice", "l_discount"]),
}


def main() -> None:
    folder = Path(sys.argv[1])
    (folder / "pandas").mkdir(exist_ok=True)
    began, lines, rows = time.monotonic(), 0, 0

    def read(table: str, key: list[str]) -> pd.DataFrame:
        nonlocal lines
        objects = sorted((folder / "ingestion" / table).glob("*.jsonl"), key=lambda path: path.name[-16:])
        frame = pd.concat([pd.read_json(path, lines=True, convert_dates=False) for path in objects], ignore_index=True)
        lines += len(frame)
        return frame.drop_duplicates(key, keep="last")

    def write(name: str, frame: pd.DataFrame) -> None:
        nonlocal rows
        rows += len(frame)
        frame.to_parquet(folder / "pandas" / f"{name}.parquet", compression="zstd", index=False)

    keys = {}
    for name, key in DIMENSIONS.items():
        frame = read(name, [key]).copy()
        frame.insert(0, f"{name}_key", range(1, len(frame) + 1))
        keys[name] = frame.set_index(key)[f"{name}_key"]
        write(f"dim_{name}", frame)
    days = pd.DataFrame({"date": pd.date_range("1992-01-01", "1998-12-31")})
    days["date_key"] = days["date"].dt.strftime("%Y%m%d").astype(int)
    write("dim_date", days)
    for name, (key, dimensions, dates, columns) in FACTS.items():
        frame = read(name, key)
        fact = frame[key].copy()
        for dimension, column in dimensions.items():
            fact[f"{dimension}_key"] = frame[column].map(keys[dimension]).fillna(-1).astype("int64")
        for date, column in dates.items():
            fact[f"{date}_date_key"] = pd.to_datetime(frame[column]).dt.strftime("%Y%m%d").astype("int32")
        fact[columns] = frame[columns]
        write(f"fact_{name}", fact)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({
        "lines": lines, "rows": rows, "seconds": time.monotonic() - began, "cpu_seconds": used.ru_utime + used.ru_stime,
        "memory_mb": used.ru_maxrss // 1024,
    }))


if __name__ == "__main__":
    main()
