"""Starting, watching and stopping one server of the local cloud. A process is ours only by its id and start time."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from settings import LOGS, STATE, CloudError, Part, write_atomically

GRACE_SECONDS = 10
LOG_TAIL_LINES = 25


@dataclass
class Server:
    """What is needed to start one server and to know that it works."""

    part: Part
    port: int
    command: list[str]
    environment: dict[str, str]
    answers: Callable[[int], bool]
    ready_seconds: int
    folders: list[Path] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return LOGS / f"{self.part.name}.log"


# --- Ownership -------------------------------------------------------------------------------------------------------


def _record(part: Part) -> Path:
    return STATE / "run" / f"{part.name}.json"


def started_at(pid: int) -> str | None:
    """The start time in clock ticks since boot: with it, a pid that was given out again is not mistaken for ours."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def running(part: Part) -> dict | None:
    """The record of our running server: {"pid", "port", "started"}; None when there is none."""
    try:
        record = json.loads(_record(part).read_text())
    except FileNotFoundError:
        return None
    if started_at(record["pid"]) != record["started"]:
        return None
    return record


# --- Starting --------------------------------------------------------------------------------------------------------


def start(server: Server) -> bool:
    """Starts the server and waits until it answers. False when it ran already."""
    ours = running(server.part)
    if ours:
        if ours["port"] != server.port:
            raise CloudError(
                f"{server.part.name} runs on port {ours['port']}, not on {server.port}: `make down` first, or unset "
                f"{server.part.port_variable}")
        _await_ready(server, ours["pid"])
        return False
    _require_free(server)
    for folder in [*server.folders, LOGS]:
        folder.mkdir(parents=True, exist_ok=True)
    with server.log.open("wb") as log:
        process = subprocess.Popen(
            server.command, env=server.environment, cwd=STATE, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True)
    record = {"pid": process.pid, "port": server.port, "started": started_at(process.pid)}
    write_atomically(_record(server.part), json.dumps(record))
    try:
        _await_ready(server, process.pid)
    except CloudError:
        stop(server.part)
        raise
    return True


def _await_ready(server: Server, pid: int) -> None:
    deadline = time.monotonic() + server.ready_seconds
    while time.monotonic() < deadline:
        if server.answers(server.port):
            return
        if started_at(pid) is None:
            raise CloudError(
                f"{server.part.name} ended while it was starting; the end of {server.log}:\n{_tail(server.log)}"
            )
        time.sleep(0.1)
    raise CloudError(
        f"{server.part.name} did not answer on port {server.port} within {server.ready_seconds} s; the end of "
        f"{server.log}:\n{_tail(server.log)}")


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"    {line}" for line in lines[-LOG_TAIL_LINES:])


def answers_http(path: str) -> Callable[[int], bool]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(port: int) -> bool:
        try:
            with opener.open(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return response.status == 200
        except OSError:
            return False

    return ask


def answers_greeting(greeting: bytes) -> Callable[[int], bool]:
    def ask(port: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                return connection.recv(64).startswith(greeting)
        except OSError:
            return False

    return ask


# --- Ports -----------------------------------------------------------------------------------------------------------


def _require_free(server: Server) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", server.port))
            return
        except OSError:
            pass
    raise CloudError(
        f"port {server.port} for {server.part.name} is taken by {holder(server.port)}: end that, or choose another "
        f"port with {server.part.port_variable}")


def holder(port: int) -> str:
    """Names the process that listens on the port, as far as this user may see it."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(handle) in sockets for handle in (process / "fd").iterdir()):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return f"process {process.name} ({command[:90]})"
        except OSError:
            continue
    return "a process of another user"


# --- Stopping --------------------------------------------------------------------------------------------------------


def stop(part: Part) -> bool:
    """Ends our server and what it started. False when it did not run."""
    ours = running(part)
    if ours:
        _end([ours["pid"]], part.ends_by)
        # The workers of a server are in its session; one that outlived it is ended by the same rule.
        _end(_session_members(ours["pid"]), signal.SIGTERM)
    _record(part).unlink(missing_ok=True)
    return ours is not None


def _end(pids: list[int], first: signal.Signals) -> None:
    birth = {pid: started_at(pid) for pid in pids}

    def alive() -> list[int]:
        return [pid for pid, begun in birth.items() if begun and started_at(pid) == begun]

    for number, patience in ((first, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        for pid in alive():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        deadline = time.monotonic() + patience
        while alive() and time.monotonic() < deadline:
            _reap(list(birth))
            time.sleep(0.05)


def _session_members(session: int) -> list[int]:
    members = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            members.append(int(process.name))
    return members


def _reap(pids: list[int]) -> None:
    """Collects those of our own children that ended, so that a server stopped by the `up` that started it is no zombie.
    Never any child: another thread waits for its own, and would take a status that is gone for success."""
    for pid in pids:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass
