"""Trino, a server on loopback that knows its tables from Glue, and how it is asked.

Athena's engine version 3 is based on it. Its Hive connector takes columns, formats and the properties of partition
projection from Glue as they stand there.
"""

import json
import time
import urllib.request
from pathlib import Path

import servers
import tools
from settings import STATE, TRINO

READY_SECONDS = 180
FLAGS = [
    "-Xmx2G", "-Duser.timezone=UTC", "-Djdk.attach.allowAttachSelf=true", "-XX:+EnableDynamicAgentLoading",
    "--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow", "--add-modules=jdk.incubator.vector",
]
CATALOG = """\
connector.name=hive
hive.metastore=glue
hive.metastore.glue.region={region}
hive.metastore.glue.endpoint-url={url}
hive.metastore.glue.aws-access-key={key}
hive.metastore.glue.aws-secret-key={secret}
hive.partition-projection-enabled=true
fs.native-s3.enabled=true
s3.region={region}
s3.endpoint={url}
s3.path-style-access=true
s3.aws-access-key={key}
s3.aws-secret-key={secret}
"""
CONFIGURATION = """\
coordinator=true
node-scheduler.include-coordinator=true
http-server.http.port={port}
discovery.uri=http://127.0.0.1:{port}
plugin.dir={trino}/plugin
catalog.config-dir={home}/catalog
"""


class TrinoError(Exception):
    """What Trino answered instead of rows."""


def start(port: int, aws: dict[str, str]) -> None:
    """Starts it over the Glue and the S3 at `url`, which are given with `region`, `key` and `secret`."""
    home, engines = STATE / "trino", tools.engines()
    (home / "catalog").mkdir(parents=True, exist_ok=True)
    (home / "catalog" / "athena.properties").write_text(CATALOG.format(**aws))
    (home / "config.properties").write_text(CONFIGURATION.format(port=port, trino=engines.trino, home=home))
    (home / "log.properties").write_text("io.trino=WARN\n")
    command = [
        str(engines.trino_java), *FLAGS, "-cp", f"{engines.trino}/lib/*",
        f"-Dconfig={home}/config.properties", f"-Dlog.levels-file={home}/log.properties",
        "-Dnode.environment=engines", f"-Dnode.data-dir={home}/data", "-Dnode.bind-ip=127.0.0.1",
        "-Dnode.internal-address=127.0.0.1", "io.trino.server.TrinoServer",
    ]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8"}
    servers.start(servers.Server(TRINO, port, command, environment, _answers, READY_SECONDS, [home / "data"]))


def stop() -> None:
    servers.stop(TRINO)


def _answers(port: int) -> bool:
    try:
        return not _call(f"http://127.0.0.1:{port}/v1/info")["starting"]
    except OSError:
        return False


def _call(url: str, sql: str | None = None, headers: dict[str, str] | None = None) -> dict:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    body = sql.encode() if sql is not None else None
    request = urllib.request.Request(url, body, {"X-Trino-User": "engines"} | (headers or {}))
    with opener.open(request, timeout=600) as response:
        return json.load(response)


def ask(port: int, database: str, sql: str, precision: str = "MILLISECONDS") -> tuple[list[dict], list[list]]:
    """Columns (name, type) and rows of a query. Milliseconds are the precision of timestamps in Athena."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        answer, columns, rows = _rows(port, database, sql, precision)
        error = answer.get("error")
        if not error:
            return columns, rows
        # A server that has just started does not know itself yet.
        if error["errorName"] != "NO_NODES_AVAILABLE" or time.monotonic() > deadline:
            raise TrinoError(f"{error['errorName']}: {error['message']}: {sql}")
        time.sleep(0.5)


def _rows(port: int, database: str, sql: str, precision: str) -> tuple[dict, list[dict], list[list]]:
    """The last answer to a query, and what all of them brought."""
    headers = {
        "X-Trino-Catalog": "athena", "X-Trino-Schema": database, "X-Trino-Time-Zone": "UTC",
        "X-Trino-Session": f"athena.timestamp_precision={precision}",
        # Without, times are rounded on their way.
        "X-Trino-Client-Capabilities": "PARAMETRIC_DATETIME",
    }
    answer, columns, rows = _call(f"http://127.0.0.1:{port}/v1/statement", sql, headers), [], []
    while True:
        columns = answer.get("columns", columns)
        rows += answer.get("data", [])
        if "error" in answer or "nextUri" not in answer:
            return answer, columns, rows
        answer = _call(answer["nextUri"])
