"""Where the local cloud keeps its things and which ports it takes. Reads the environment, starts nothing."""

import json
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ROOT / "local"
STATE = Path(os.environ.get("ALERT_ARCHIVE_STATE_DIR") or ROOT / ".local").resolve()
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alert-archive"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
# Where cargo leaves the binaries of the profile that `make` was given: dev (the default) or release.
BINARIES = TARGET / ("release" if os.environ.get("PROFILE") == "release" else "debug")

LOGS = STATE / "logs"
MAIL = STATE / "mail"
# Says that the folder is the local cloud's, so that `make down` may wipe it.
MARKER = STATE / ".local-cloud"
ENDPOINTS_FILE = STATE / "endpoints.json"
OUTPUTS_FILE = STATE / "outputs.json"

REGION = "us-east-1"
# ministack takes this pair for the account's administrator; every other key is checked against IAM.
ADMINISTRATOR = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


class CloudError(Exception):
    """Something the reader can act on; its text is all that is printed."""


def own_state() -> None:
    """Makes the state folder ours, for this user alone: it holds documents and Terraform's state."""
    if STATE.exists() and not is_ours() and any(STATE.iterdir()):
        raise CloudError(
            f"{STATE} holds files that are not the local cloud's, and `make down` wipes this folder: let "
            f"ALERT_ARCHIVE_STATE_DIR name a folder that is empty or not there yet")
    STATE.mkdir(parents=True, exist_ok=True)
    STATE.chmod(0o700)
    MARKER.touch()


def is_ours() -> bool:
    # The two folders that git ignores in this clone are ours in any case.
    return MARKER.is_file() or STATE in (ROOT / ".local", ROOT / ".local-test")


@dataclass(frozen=True)
class Part:
    """One of the servers: how it is called, where it listens, and what replaces it."""

    name: str
    port_variable: str
    default_port: int
    url_variable: str | None
    scheme: str = "http"
    # What asks it to end. PostgreSQL waits for its clients when it gets SIGTERM.
    ends_by: signal.Signals = signal.SIGTERM


AWS = Part("aws", "ALERT_ARCHIVE_AWS_PORT", 4566, "AWS_ENDPOINT_URL")
OPENSEARCH = Part("opensearch", "ALERT_ARCHIVE_OPENSEARCH_PORT", 9201, "OPENSEARCH_URL")
POSTGRES = Part("postgres", "ALERT_ARCHIVE_POSTGRES_PORT", 5433, None, scheme="postgresql", ends_by=signal.SIGINT)
SMTP = Part("smtp", "ALERT_ARCHIVE_SMTP_PORT", 2525, None, scheme="smtp")
# Stands beside the AWS port unless it is chosen, so that a second cloud needs no fourth variable.
DASHBOARD = Part("dashboard", "ALERT_ARCHIVE_DASHBOARD_PORT", AWS.default_port + 1, None)
# The fixture API; its program is compiled first, so that it comes up after the others.
API = Part("api", "ALERT_ARCHIVE_API_PORT", 9310, "ALERT_ARCHIVE_API_URL")
PARTS = (AWS, OPENSEARCH, POSTGRES, SMTP, DASHBOARD, API)
# No part of the cloud: `make test-engines` starts it over one.
TRINO = Part("trino", "ALERT_ARCHIVE_TRINO_PORT", 4568, None)


@dataclass(frozen=True)
class MessageSource:
    """Where messages are read from, and what the API allows."""

    mode: str
    page_size: int
    requests_per_second: int

    def uses(self, part: Part) -> bool:
        return not (part is API and self.mode == "opensearch" or part is OPENSEARCH and self.mode == "api")


@dataclass(frozen=True)
class Endpoint:
    """Where a part is reached; `ours` tells whether we start and stop it."""

    part: Part
    url: str
    port: int
    ours: bool


def message_source() -> MessageSource:
    """What the environment says, else the remembered choice of `up`, else OpenSearch."""
    known = remembered_ports().get("source") or {}
    mode = os.environ.get("SOURCE") or known.get("mode", "opensearch")
    if mode not in ("opensearch", "api", "hybrid"):
        raise CloudError(f"SOURCE={mode}: known are opensearch, api and hybrid")

    def number(variable: str, name: str, default: int, largest: int) -> int:
        text = os.environ.get(variable)
        if not text:
            return known.get(name, default)
        if not text.isdecimal() or not 1 <= int(text) <= largest:
            raise CloudError(f"{variable}={text}: a number from 1 to {largest} is needed")
        return int(text)

    return MessageSource(
        mode, number("ALERT_ARCHIVE_API_PAGE_SIZE", "page_size", 500, 500),
        number("ALERT_ARCHIVE_API_REQUESTS_PER_SECOND", "requests_per_second", 20, 100_000))


def endpoints() -> dict[str, Endpoint]:
    """The remembered choice of `up`, else what the environment says, else the defaults: of the parts that are used."""
    remembered, source = remembered_ports(), message_source()
    chosen: dict[str, Endpoint] = {}
    for part in filter(source.uses, PARTS):
        beside = chosen[AWS.name].port + 1 if part is DASHBOARD and chosen[AWS.name].ours else part.default_port
        chosen[part.name] = _endpoint(part, remembered.get(part.name), beside)
    return chosen


def _endpoint(part: Part, known: dict | None, default_port: int) -> Endpoint:
    port = _port(part, known, default_port)
    own_url = f"{part.scheme}://127.0.0.1:{port}"
    given = (os.environ.get(part.url_variable) or "").rstrip("/") if part.url_variable else ""
    if not given and known and not known["ours"]:
        return Endpoint(part, known["url"], known["port"], ours=False)
    # `eval "$(make -s env)"` sets these variables to our own addresses: that does not make the part one that is given
    # from outside.
    if given and given not in (own_url, own_url.replace("127.0.0.1", "localhost")):
        return Endpoint(part, given, 0, ours=False)
    return Endpoint(part, own_url, port, ours=True)


def _port(part: Part, known: dict | None, default_port: int) -> int:
    text = os.environ.get(part.port_variable)
    if not text:
        return known["port"] if known and known["ours"] else default_port
    try:
        port = int(text)
    except ValueError:
        port = 0
    if not 1024 <= port <= 65535:
        raise CloudError(f"{part.port_variable}={text} is no port: give a number from 1024 to 65535")
    # The runner looks for a free port no further than 9299.
    if part is OPENSEARCH and not 9201 <= port <= 9299:
        raise CloudError(f"{part.port_variable}={port}: the OpenSearch runner accepts 9201 to 9299 only")
    return port


def credentials(aws: Endpoint) -> dict[str, str]:
    """What signs the calls: ours on our own cloud; at a given endpoint the caller's, or ours where there are none."""
    if aws.ours or not (os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_PROFILE")):
        return ADMINISTRATOR | {"AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}
    return {}


def remembered_ports() -> dict[str, dict]:
    try:
        return json.loads(ENDPOINTS_FILE.read_text())
    except FileNotFoundError:
        return {}


def remember(chosen: dict[str, Endpoint]) -> None:
    """Keeps the choice, so that later commands need none of the variables; what is not chosen anew stays."""
    data = remembered_ports() | {name: {"url": e.url, "port": e.port, "ours": e.ours} for name, e in chosen.items()}
    data["source"] = asdict(message_source())
    write_atomically(ENDPOINTS_FILE, json.dumps(data, indent=2) + "\n")


def write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)
