"""The local cloud: AWS (ministack), OpenSearch, the API, a mail sink and the dashboard, as plain processes on loopback.

Usage: python3 local/cloud.py up | api | down | status | env | load | tools
  api   starts the fixture API, which is compiled first
  load  where fixtures are loaded, as options of `fixtures load`
"""

import argparse
import fcntl
import os
import secrets
import shlex
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import database
import servers
import tools
from settings import (
    ADMINISTRATOR, API, AWS, BINARIES, CACHE, DASHBOARD, LOCAL, MAIL, OPENSEARCH, OUTPUTS_FILE, PARTS, POSTGRES, REGION,
    SMTP,
    STATE, TRINO, CloudError, Endpoint, credentials, endpoints, is_ours, message_source, own_state, remember,
)


@contextmanager
def one_at_a_time():
    """Two `up` in parallel: the second waits and then finds everything running. The lock is the folder of this file,
    so that it leaves nothing behind."""
    folder = os.open(LOCAL, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


# --- The servers -------------------------------------------------------------------------------------------------


def clean_environment(home: Path) -> dict[str, str]:
    """Nothing of the caller's: stray AWS_* or proxy variables would change how the servers behave."""
    path = os.environ.get("PATH", "/usr/bin:/bin")
    return {"PATH": path, "HOME": str(home), "TMPDIR": str(home / "tmp"), "LANG": "C.UTF-8"}


def ministack(port: int, smtp_port: int) -> servers.Server:
    home = STATE / "ministack"
    python = tools.python_packages("requirements.txt") / "bin/python"
    environment = clean_environment(home) | {
        "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        # Every call is checked against IAM, so that a missing permission fails here as it would on AWS.
        "AUTH": "true",
        "IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0",
        # What it holds is saved when it is stopped, so that it can be restarted.
        "PERSIST_STATE": "1", "S3_PERSIST": "1", "S3_DATA_DIR": str(home / "s3"), "STATE_DIR": str(home / "state"),
        "SMTP_HOST": f"127.0.0.1:{smtp_port}",
        # Retries wait a tenth of their time: six attempts take 12 s, not two minutes.
        "SFN_WAIT_SCALE": os.environ.get("ALERT_ARCHIVE_WAIT_SCALE", "0.1"),
        "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1",
    }
    return servers.Server(
        AWS, port, [str(python), str(LOCAL / "ministack_redrive.py")], environment,
        servers.answers_http("/_ministack/health"), 60, [home / "tmp", home / "s3", home / "state"])


def opensearch(port: int) -> servers.Server:
    home = STATE / "opensearch"
    command = [
        str(tools.java()), "-Xms1g", "-Xmx1g",
        # As in OpenSearch's own jvm.options. Without them the collector lets the heap fill up, and the node, which
        # refuses requests above 95 % of it, answers 429 although nearly all of it is garbage.
        "-XX:+UseG1GC", "-XX:G1ReservePercent=25", "-XX:InitiatingHeapOccupancyPercent=30",
        "--enable-native-access=ALL-UNNAMED", f"-Djava.io.tmpdir={home / 'tmp'}",
        "-cp", f"{tools.opensearch_jars()}/*", "org.codelibs.opensearch.runner.OpenSearchRunner",
        # The runner takes the first free port after this one; that it is free was checked.
        "-basePath", str(home), "-numOfNode", "1", "-baseHttpPort", str(port - 1),
        "-clusterName", f"alert-archive-{port}",
    ]
    configuration = home / "node_1/config"
    if not configuration.exists():
        configuration.mkdir(parents=True)
        (configuration / "opensearch.yml").write_text(
            "network.host: 127.0.0.1\n"
            # A node of one machine that nearly fills its disk must not turn read-only.
            "cluster.routing.allocation.disk.threshold_enabled: false\n")
    return servers.Server(
        OPENSEARCH, port, command, clean_environment(home),
        servers.answers_http("/_cluster/health?wait_for_status=yellow&timeout=1s"), 120, [home / "tmp"])


def mail_sink(port: int) -> servers.Server:
    command = [sys.executable, str(LOCAL / "smtp_sink.py"), "--folder", str(MAIL), "--port", str(port)]
    return servers.Server(SMTP, port, command, clean_environment(STATE), servers.answers_greeting(b"220 "), 15, [MAIL])


def dashboard(port: int, aws_url: str) -> servers.Server:
    python = tools.python_packages("requirements.txt") / "bin/python"
    command = [
        str(python), str(LOCAL / "dashboard.py"), "--port", str(port), "--endpoint", aws_url,
        "--outputs", str(OUTPUTS_FILE),
    ]
    environment = clean_environment(STATE) | ADMINISTRATOR | {"AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}
    return servers.Server(DASHBOARD, port, command, environment, servers.answers_http("/health"), 30)


def api(port: int) -> servers.Server:
    source = message_source()
    command = [
        str(BINARIES / "fixtures"), "api", "serve", "--port", str(port),
        "--requests-per-second", str(source.requests_per_second),
        # Where OpenSearch has the older messages, the API keeps no more than the recent ones.
        *(["--keep-days", "60"] if source.mode == "hybrid" else []),
    ]
    environment = clean_environment(STATE) | {"ALERT_ARCHIVE_API_SECRET": api_secret()}
    return servers.Server(API, port, command, environment, servers.answers_http("/fixtures/health"), 30)


def api_secret() -> str | None:
    """What stands in Secrets Manager: the value given, else, for an API of ours, one that is made once."""
    given = os.environ.get("ALERT_ARCHIVE_API_SECRET")
    kept = STATE / "api-secret.json"
    if given or not endpoints()[API.name].ours:
        return given
    if not kept.exists():
        kept.touch(mode=0o600)
        kept.write_text(f'{{"token":"{secrets.token_hex(16)}"}}')
    return kept.read_text()


# --- Commands
# ----------------------------------------------------------------------------------------------------------


def up() -> None:
    own_state()
    with one_at_a_time():
        chosen = endpoints()
        makers = {
            AWS.name: lambda: ministack(chosen[AWS.name].port, chosen[SMTP.name].port),
            POSTGRES.name: lambda: database.server(chosen[POSTGRES.name].port),
            SMTP.name: lambda: mail_sink(chosen[SMTP.name].port),
        }
        if OPENSEARCH.name in chosen:
            makers[OPENSEARCH.name] = lambda: opensearch(chosen[OPENSEARCH.name].port)
        if chosen[AWS.name].ours:
            makers[DASHBOARD.name] = lambda: dashboard(chosen[DASHBOARD.name].port, chosen[AWS.name].url)
        with ThreadPoolExecutor() as pool:
            started = {name: pool.submit(_bring_up, chosen[name], make) for name, make in makers.items()}
        problems = {name: str(job.exception()) for name, job in started.items() if job.exception()}
        # A port that was refused is not remembered: the next `up` shall not stumble over it again.
        remember({name: endpoint for name, endpoint in chosen.items() if name in makers and name not in problems})
        if problems:
            raise CloudError("\n".join(problems.values()))
        database.provide(chosen[POSTGRES.name].port)
        _link_commands()


def _bring_up(endpoint: Endpoint, make) -> None:
    if not endpoint.ours:
        print(f"{endpoint.part.name}: {endpoint.url} is given by {endpoint.part.url_variable}, nothing started\n",
            end="", flush=True)
        return
    begun = time.monotonic()
    fresh = servers.start(make())
    took = f"started in {time.monotonic() - begun:.1f} s" if fresh else "runs already"
    # With its line break in one piece: the servers come up in threads.
    print(f"{endpoint.part.name}: {endpoint.url} {took}\n", end="", flush=True)


def _link_commands() -> None:
    """.local/bin goes on PATH through `make env`: our command line, and `aws` where the machine has none."""
    links = {name: BINARIES / name for name in ("alert-archive", "fixtures")}
    if not shutil.which("aws"):
        links["aws"] = tools.aws_command()
    folder = STATE / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in links.items():
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def empty_aws() -> None:
    """Starts our AWS again, with nothing in it."""
    with one_at_a_time():
        servers.stop(AWS)
        shutil.rmtree(STATE / "ministack", ignore_errors=True)
    up()


def up_api() -> None:
    with one_at_a_time():
        chosen = endpoints().get(API.name)
        if chosen:
            _bring_up(chosen, lambda: api(chosen.port))
            remember({API.name: chosen})


def load() -> None:
    chosen = endpoints()
    options = [f"--url {chosen[OPENSEARCH.name].url}"] if OPENSEARCH.name in chosen else []
    # An API that is given from outside has its own messages.
    options += [f"--api {chosen[API.name].url}"] if API.name in chosen and chosen[API.name].ours else []
    print(" ".join(options))


def down() -> None:
    if STATE.exists() and not is_ours():
        raise CloudError(f"{STATE} is not the local cloud's: nothing is stopped, nothing is removed")
    with one_at_a_time():
        for part in (*PARTS, TRINO):
            if servers.stop(part):
                print(f"{part.name}: stopped")
        kept = STATE / "terraform"
        if kept.exists() and not endpoints()[AWS.name].ours:
            # Terraform's state is the only trace of what was made at an endpoint that is not ours.
            print(f"What was deployed at the given AWS endpoint stays; its Terraform state is in {kept}")
            for entry in STATE.iterdir():
                if entry != kept:
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        elif STATE.exists():
            shutil.rmtree(STATE)
            print(f"{STATE}: wiped (downloads stay in {CACHE})")


def restart() -> None:
    """The AWS part alone, with the data that it has: executions end there, as in an outage."""
    with one_at_a_time():
        chosen = endpoints()
        if not chosen[AWS.name].ours:
            raise CloudError(f"{chosen[AWS.name].url} is not ours to restart")
        servers.stop(AWS)
        _bring_up(chosen[AWS.name], lambda: ministack(chosen[AWS.name].port, chosen[SMTP.name].port))


def status() -> None:
    chosen = endpoints()
    if not chosen[AWS.name].ours:
        del chosen[DASHBOARD.name]
    for endpoint in chosen.values():
        ours = servers.running(endpoint.part)
        if not endpoint.ours:
            state = "given, not ours"
        elif ours:
            state = f"runs as process {ours['pid']}"
        else:
            state = "stopped"
        print(f"{endpoint.part.name:<10} {endpoint.url:<28} {state}")


def env() -> None:
    for line in exports():
        print(line)


def exports() -> list[str]:
    """Shell lines that point any AWS tool, and our own, at this cloud."""
    import deploy
    chosen = endpoints()
    values = credentials(chosen[AWS.name])
    values["AWS_ENDPOINT_URL"] = chosen[AWS.name].url
    if OPENSEARCH.name in chosen:
        values["OPENSEARCH_URL"] = chosen[OPENSEARCH.name].url
    values["ALERT_ARCHIVE_DATABASE_URL"] = database.url(chosen[POSTGRES.name].port)
    if API.name in chosen:
        values["ALERT_ARCHIVE_API_URL"] = chosen[API.name].url
    # So that a `make up` in the same shell, after a `make down`, takes the same ports again.
    values |= {e.part.port_variable: str(e.port) for e in chosen.values() if e.ours and e.port != e.part.default_port}
    values |= deploy.variables()
    here = str(STATE / "bin")
    values["PATH"] = os.pathsep.join([here] + [p for p in os.environ.get("PATH", "").split(os.pathsep) if p != here])
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    # Left-overs of another account would win over the pair above.
    foreign = ("AWS_PROFILE", "AWS_SESSION_TOKEN") if chosen[AWS.name].ours else ()
    lines += [f"unset {name}" for name in foreign if name in os.environ]
    if OPENSEARCH.name not in chosen and "OPENSEARCH_URL" in os.environ:
        lines.append("unset OPENSEARCH_URL")
    return lines


def check_tools() -> None:
    own_state()
    for name, found in tools.provide_all().items():
        print(f"{name:<18} {found}")


COMMANDS = {
    "up": up, "api": up_api, "load": load, "down": down, "restart": restart, "status": status, "env": env,
    "tools": check_tools,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=COMMANDS)
    arguments = parser.parse_args()
    try:
        COMMANDS[arguments.command]()
    except CloudError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
