"""Everything that CI checks, one step after the other; says how long each took and, in the last line, how many passed.

Usage: python3 local/check.py quick | all | faults | engines
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import tools
from settings import CloudError

ROOT = Path(__file__).resolve().parent.parent
TESTS = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed", re.MULTILINE)
PYTHON_TESTS = re.compile(
    r"^Ran (\d+) tests? in .*\n\n(?:OK|FAILED \((?:failures=(\d+))?(?:, )?(?:errors=(\d+))?)", re.MULTILINE
)
LINES_OF_FAILED = 30
# The exit code of a step that could not be made here, and whose last line says why.
NOT_RUN = 77

# The tests have a cloud of their own, beside the one of `make up`: its documents and ports stay out of the way.
TEST_CLOUD = {
    "ALERT_ARCHIVE_STATE_DIR": str(ROOT / ".local-test"),
    "ALERT_ARCHIVE_AWS_PORT": "4576",
    "ALERT_ARCHIVE_OPENSEARCH_PORT": "9221",
    "ALERT_ARCHIVE_POSTGRES_PORT": "5443",
    "ALERT_ARCHIVE_SMTP_PORT": "2535",
    # Retries are many in these tests, and what they wait for is there at once.
    "ALERT_ARCHIVE_WAIT_SCALE": "0.02",
    "ALERT_ARCHIVE_DASHBOARD_PORT": "4577",
    "ALERT_ARCHIVE_TRINO_PORT": "4578",
    # Deployed for both sources; the tests choose for each run.
    "SOURCE": "hybrid",
    "ALERT_ARCHIVE_API_PORT": "9320",
    "ALERT_ARCHIVE_API_SECRET": '{"token":"token-of-the-tests"}',
}


def start(command: str, output: int | IO[str], environment: dict[str, str] | None = None) -> subprocess.Popen:
    return subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", command], cwd=ROOT, env=dict(os.environ) | (environment or {}),
        stdout=output, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)


def end(process: subprocess.Popen) -> None:
    """Cancelled: compilers and tests end with it, and the next job does not meet them."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)


def forget_the_other_cloud() -> None:
    """A shell that called `eval "$(make -s env)"` points at the cloud of `make up`: the tests shall not run there."""
    for name in ("AWS_ENDPOINT_URL", "OPENSEARCH_URL", "ALERT_ARCHIVE_API_URL"):
        if urlsplit(os.environ.get(name, "")).hostname in ("127.0.0.1", "localhost"):
            del os.environ[name]


class Checks:
    def __init__(self):
        self.passed = self.failed = 0
        self.times: list[tuple[str, float, bool]] = []
        self.ends_of_failed: dict[str, list[str]] = {}
        self.not_run: dict[str, str] = {}

    def run(self, name: str, command: str, environment: dict[str, str] | None = None) -> bool:
        """Runs a step and shows its output; a step without tests of its own counts as one."""
        print(f"== {name}: {command}", flush=True)
        begun = time.monotonic()
        lines = []
        process = start(command, subprocess.PIPE, environment)
        try:
            with process.stdout:
                for line in process.stdout:
                    print(line, end="", flush=True)
                    lines.append(line)
            code = process.wait()
        except BaseException:
            end(process)
            raise
        return self.count(name, begun, lines, code)

    @contextmanager
    def beside(self, name: str, command: str) -> Iterator[None]:
        """Runs a step while others run, and shows its output when both are done."""
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            begun, process = time.monotonic(), start(command, output)
            try:
                yield
            except BaseException:
                end(process)
                raise
            code = process.wait()
            output.seek(0)
            lines = list(output)
        print(f"== {name}: {command}\n{''.join(lines)}", end="", flush=True)
        self.count(name, begun, lines, code)

    def count(self, name: str, begun: float, lines: list[str], code: int) -> bool:
        if code == NOT_RUN:
            self.not_run[name] = lines[-1].strip() if lines else "it does not say why"
            return True
        good = code == 0
        results = TESTS.findall("".join(lines))
        for ran, *unwell in PYTHON_TESTS.findall("".join(lines)):
            bad = sum(int(number or 0) for number in unwell)
            results.append((int(ran) - bad, bad))
        self.passed += sum(int(passed) for passed, _ in results) if results else int(good)
        failed = sum(int(failed) for _, failed in results)
        self.failed += max(failed, int(not good))
        self.times.append((name, time.monotonic() - begun, good))
        if not good:
            self.ends_of_failed[name] = lines[-LINES_OF_FAILED:]
        return good

    def close(self) -> int:
        print("\nwhere the time went")
        for name, seconds, good in self.times:
            print(f"  {seconds:7.1f} s  {name}{'' if good else '  FAILED'}")
        for name, why in self.not_run.items():
            print(f"        -    {name}  {why}")
        # Again at the end, which is where people look, and all that some CI servers keep.
        for name, lines in self.ends_of_failed.items():
            print(f"\nthe last lines of {name}")
            print("".join(f"  {line}" for line in lines), end="")
        print(f"\n{self.passed} passed, {self.failed} failed")
        return 1 if self.failed else 0


def static(checks: Checks) -> None:
    checks.run("format", "cargo fmt --all --check")
    checks.run("terraform format", "terraform fmt -check -recursive -diff infra")
    checks.run("terraform validate", "python3 local/deploy.py validate")
    checks.run("terraform test", "python3 local/deploy.py test")
    checks.run("definitions", "python3 local/definitions.py")
    checks.run("python", "python3 -m compileall -q local tests && python3 -m unittest discover -s local")


def functions() -> str:
    """The packages of all functions, as cargo selects them. Their tests run in memory, without a cloud."""
    return " ".join(f"-p {manifest.parent.name}" for manifest in sorted(ROOT.glob("functions/*/Cargo.toml")))


def quick() -> int:
    checks = Checks()
    checks.run("tools", "python3 local/cloud.py tools")
    static(checks)
    checks.run("lints", "cargo clippy --workspace --all-targets --locked -- -D warnings")
    checks.run("unit tests", "cargo test --workspace --locked --lib --bins")
    checks.run("tests of the functions", f"cargo test --locked --tests {functions()}")
    return checks.close()


def all_of_it() -> int:
    checks = Checks()
    with deployed(checks) as well:
        static(checks)
        if well:
            # The tests leave half of a core idle. In a folder of its own, clippy does not keep cargo from it.
            lints = "nice cargo clippy --workspace --all-targets --locked --target-dir target/lints -- -D warnings"
            # Load does not change the number of instructions.
            with checks.beside("lints", lints), checks.beside("hot paths", "nice bench/instructions"):
                # The functions' histories by chance: more than when they are tested by themselves.
                command = "ALERT_ARCHIVE_SEEDS=600 cargo test --workspace --locked --no-fail-fast"
                checks.run("tests", f'eval "$(python3 local/cloud.py env)" && {command}', TEST_CLOUD)
            checks.run("delivery", "python3 local/try_delivery.py", TEST_CLOUD)
    # The program that stands: `make simulate` would compile the SDK again, with the features of this one package.
    checks.run("histories", "${CARGO_TARGET_DIR:-target}/debug/simulate --seeds 5000")
    return checks.close()


def faults() -> int:
    """The whole fault campaign; CI runs a part of it."""
    checks = Checks()
    with deployed(checks) as well:
        if well:
            campaign = "cargo test -p pipeline-tests --test pipeline --locked -- --include-ignored '[fault]'"
            checks.run("faults", f'eval "$(python3 local/cloud.py env)" && {campaign}', TEST_CLOUD)
    return checks.close()


def engines() -> int:
    """What docs/ let other engines ask; CI does not download them."""
    checks = Checks()
    try:
        python = tools.engines().python
    except CloudError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with deployed(checks, "cargo build --locked") as well:
        ask = f'eval "$(python3 local/cloud.py env)" && {python} tests/engines.py'
        if well and checks.run("fill", f"{ask} fill", TEST_CLOUD):
            checks.run("engines", ask, TEST_CLOUD)
    return checks.close()


@contextmanager
def deployed(checks: Checks, build: str = "cargo build --workspace --all-targets --locked") -> Iterator[bool]:
    """The cloud of the tests, and everything built; it starts while the compiler runs."""
    if not checks.run("tools", "python3 local/cloud.py tools"):
        yield False
        return
    try:
        with ThreadPoolExecutor() as pool:
            servers = pool.submit(
                subprocess.run, ["bash", "-c", "python3 local/cloud.py up && python3 local/deploy.py storage"],
                cwd=ROOT, env=os.environ | TEST_CLOUD, capture_output=True, text=True)
            # All targets in one go: without its tests the workspace asks for other features of the SDK, which is then
            # compiled twice.
            built = checks.run("build", build)
            started = servers.result()
        print(started.stdout + started.stderr, flush=True)
        yield built and checks.run("deploy", "python3 local/cloud.py api && python3 local/deploy.py all", TEST_CLOUD)
    finally:
        checks.run("stop", "python3 local/cloud.py down", TEST_CLOUD)


def main() -> int:
    # A job that CI cancels stops its servers too: as an exception, the signal runs the `finally` above.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    forget_the_other_cloud()
    modes = {"quick": quick, "all": all_of_it, "faults": faults, "engines": engines}
    if len(sys.argv) == 2 and sys.argv[1] in modes:
        return modes[sys.argv[1]]()
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
