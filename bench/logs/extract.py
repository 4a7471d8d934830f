"""What extraction is compared with: gzip, one regular expression a line, a trace joined to its entry. It knows one
format, one thread and no categories, fingerprints or damage.

Usage: extract.py FILE
"""

import gzip
import re
import sys

HEAD = re.compile(
    r"^(?P<time>\d{4}-\d\d-\d\d[T ]\S+) \[(?P<thread>[^\]]*)\] (?P<level>[A-Z]+) +(?P<logger>\S+) - (?P<message>.*)")


def entries(path: str):
    entry = None
    with gzip.open(path, "rt", errors="replace") as log:
        for number, line in enumerate(log, 1):
            found = HEAD.match(line)
            if found:
                if entry:
                    yield entry
                is_error = found["level"] in ("ERROR", "FATAL")
                entry = found.groupdict() | {"line": number, "stack": []} if is_error else None
            elif entry:
                entry["stack"].append(line)
    if entry:
        yield entry


print(sum(1 for _ in entries(sys.argv[1])), "entries")
