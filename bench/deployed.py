"""What the functions that are deployed say of themselves, and where results go. Shared by the benchmarks."""

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

BENCH = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCH.parent / "local"))
from settings import BINARIES  # noqa: E402

STEPS = ("query-messages", "classify-alerts", "write-partitions")
RESULTS = BENCH / "RESULTS.md"


def call(*command: str) -> str:
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return ended.stdout


def unused_year() -> int:
    """A year that no earlier measurement has used: archived messages would only be recognised."""
    return 2100 + int(time.time()) % 5000


def load(seed: int, messages: int, begin: str, end: str) -> None:
    """Messages with the entropy of mail, with history and audit."""
    call("fixtures", "load", "--url", os.environ["OPENSEARCH_URL"], "--seed", str(seed), "--count", str(messages),
         "--wide", "--from", begin, "--to", end)


def _lines(step: str, since: int) -> list[str]:
    prefix = os.environ["ALERT_ARCHIVE_JOB_RUNS_TABLE"].removesuffix("-job-runs")
    answer = json.loads(call(
        "aws", "logs", "filter-log-events", "--log-group-name", f"/aws/lambda/{prefix}-{step}",
        "--start-time", str(since), "--output", "json"))
    return [event["message"] for event in answer["events"]]


def archive(begin: str, end: str) -> dict:
    """Archives a range; CPU time and memory are those of the functions' own processes, from their logs."""
    since, began = int(time.time() * 1000), time.monotonic()
    report = json.loads(call("alert-archive", "run", "--from", begin, "--to", end, "--wait", "--json"))
    seconds = time.monotonic() - began
    lines = {step: _lines(step, since) for step in STEPS}
    ended = {step: [json.loads(line)["fields"] for line in of if '"call ended"' in line] for step, of in lines.items()}
    if not all(ended.values()):
        sys.exit("a function's log says nothing of its calls: is this the code that is deployed?")
    metrics = [json.loads(line) for of in lines.values() for line in of if '"_aws"' in line]

    def total(name: str) -> int:
        return sum(line.get(name, 0) for line in metrics if line.get("RunId") == report["run_id"])

    by_step = {step: sum(call["cpu_millis"] for call in calls) / 1000 for step, calls in ended.items()}
    return {
        "seconds": seconds, "cpu": sum(by_step.values()), "by_step": by_step, "calls": sum(map(len, ended.values())),
        "peak_mb": {step: max(call["peak_memory_bytes"] for call in calls) / 2**20 for step, calls in ended.items()},
        "source_wait": total("SourceWaitMillis") / 1000, "upload": total("UploadMillis") / 1000,
        "read": report["messages"]["source"], "windows": report["windows"]["planned"],
        "source_bytes": report["bytes"]["source"], "kept_bytes": report["bytes"]["archive"]}


def machine() -> str:
    """What was measured, and on what, for the reader of a result."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    busy = os.getloadavg()[1]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, "
        f"{os.cpu_count()} cores of {model[1] if model else 'unknown'}, {memory:.0f} GiB, load {busy:.0f}; "
        f"{'release' if BINARIES.name == 'release' else 'development'} binaries")


def write_section(title: str, text: str) -> None:
    """Puts a section into RESULTS.md, in the place of the one of that title; paragraphs are broken into lines."""
    whole = RESULTS.read_text()
    lines = [
        line if line.startswith(("|", "!["))
        else textwrap.fill(line, 120, break_long_words=False, break_on_hyphens=False)
        for line in text.strip().splitlines()]
    section = "\n".join([f"## {title}", "", *lines, ""])
    begin = whole.find(f"## {title}\n")
    if begin < 0:
        whole = f"{whole.rstrip()}\n\n{section}"
    else:
        end = whole.find("\n## ", begin)
        whole = whole[:begin] + section + (whole[end:] if end >= 0 else "")
    RESULTS.write_text(whole)
    print(f"written to {RESULTS}: {title}")
