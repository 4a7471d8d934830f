#!/usr/bin/env python3
"""The obvious way to consolidate partner feeds in Python: what consolidate-feeds is measured against.

Usage: bench/consolidate.py FOLDER OUT (files of FOLDER, plain or gz, become objects of 500,000 bytes at most in OUT)
"""

import gzip
import json
import sys
import time
from pathlib import Path

OUTPUT_BYTES = 500_000


def lines(path: Path):
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if packed else open(path, "rb") as file:
        yield from file


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    began, records, bad, held = time.process_time(), 0, 0, bytearray()

    def write() -> None:
        if held:
            (target / f"output_object-{time.time_ns() // 1000}.jsonl").write_bytes(held)
            held.clear()

    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        for line in lines(path):
            line = line.rstrip(b"\r\n")
            if not line.strip():
                continue
            try:
                good = isinstance(json.loads(line), dict)
            except (ValueError, RecursionError):
                good = False
            if not good:
                bad += 1
                continue
            if len(held) + len(line) + 1 > OUTPUT_BYTES:
                write()
            held += line + b"\n"
            records += 1
    write()
    print(f"{records} records, {bad} bad lines, {time.process_time() - began:.2f} CPU-s")


if __name__ == "__main__":
    main()
