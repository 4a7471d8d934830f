"""The archive as a script of an afternoon: scan a range, keep what is closed, write JSON lines and Parquet.

Usage: scan.py URL INDEX FROM TO FOLDER     Prints the numbers of messages read and kept as JSON.
"""

import json
import sys
from pathlib import Path

import pandas
from opensearchpy import OpenSearch, helpers

CLOSED = {"closed"}


def is_closed(message: dict) -> bool:
    alerts = message.get("alerts") or []
    return all(isinstance(alert, dict) and str(alert.get("status")).strip().lower() in CLOSED for alert in alerts)


def main() -> None:
    url, index, begin, end, folder = sys.argv[1:]
    client = OpenSearch(url, timeout=120)
    query = {"query": {"range": {"timestamp": {"gte": begin, "lt": end}}}}
    read, kept = 0, []
    for hit in helpers.scan(client, index=index, query=query, size=1000):
        read += 1
        if is_closed(hit["_source"]):
            kept.append(
                {"id": hit["_id"], "timestamp": str(hit["_source"]["timestamp"]), "message": json.dumps(hit["_source"])}
            )
    frame = pandas.DataFrame(kept)
    with open(Path(folder) / "messages.jsonl", "w") as lines:
        for message in frame["message"]:
            lines.write(message + "\n")
    frame.to_parquet(Path(folder) / "messages.parquet", compression="snappy")
    print(json.dumps({"read": read, "kept": len(kept)}))


main()
