"""PostgreSQL for the warehouse: a cluster of its own on loopback. Its owner fills it, and the functions read it."""

import os
import secrets
import shutil
import subprocess
from pathlib import Path

import servers
import tools
from settings import POSTGRES, STATE, CloudError, own_state, write_atomically

HOME = STATE / "postgres"
DATA = HOME / "data"
NAME = "orders"
OWNER = "orders_owner"
READER = "warehouse_reader"
SUPERUSER = "postgres"


def password(role: str) -> str:
    """Made up once for each role; as long as this state folder lives."""
    path = HOME / f"{role}.password"
    if not path.exists():
        # `make env` asks for it, too, perhaps before the first `make up`.
        own_state()
        write_atomically(path, secrets.token_urlsafe(18))
        path.chmod(0o600)
    return path.read_text()


def url(port: int) -> str:
    return f"postgresql://{OWNER}:{password(OWNER)}@127.0.0.1:{port}/{NAME}"


def secret(port: int) -> dict[str, str | int]:
    """What the functions log in with, in the form that RDS gives it in Secrets Manager."""
    return {
        "engine": "postgres", "host": "127.0.0.1", "port": port, "dbname": NAME, "username": READER,
        "password": password(READER), "sslmode": "disable",
    }


def _as_user(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root: a user namespace that maps root to another user needs no second account."""
    if os.geteuid() == 0:
        return [shutil.which("unshare") or "unshare", "--user", "--map-user=1000", "--map-group=1000", *command]
    return command


def server(port: int) -> servers.Server:
    bin_folder = tools.postgres()
    if not (DATA / "PG_VERSION").exists():
        _initialise(bin_folder)
    command = _as_user([
        str(bin_folder / "postgres"), "-D", str(DATA), "-p", str(port), "-c", "listen_addresses=127.0.0.1",
        "-c", "unix_socket_directories=", "-c", "max_connections=50",
    ])
    return servers.Server(POSTGRES, port, command, _environment(), _ready(bin_folder), 60)


def _initialise(bin_folder: Path) -> None:
    HOME.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(DATA, ignore_errors=True)
    password(SUPERUSER)
    # Without syncs: nothing here outlives the folder.
    tools.run(
        _as_user([
            str(bin_folder / "initdb"), "-D", str(DATA), "-U", SUPERUSER, "-A", "scram-sha-256", "-E", "UTF8",
            "--locale=C.UTF-8", "--no-sync", f"--pwfile={HOME / f'{SUPERUSER}.password'}",
        ]), "initialise PostgreSQL", env=_environment())


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(HOME), "LANG": "C.UTF-8"}


def _ready(bin_folder: Path):
    def ask(port: int) -> bool:
        asked = subprocess.run(
            [bin_folder / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], env=_environment(), timeout=10)
        return asked.returncode == 0

    return ask


def provide(port: int) -> None:
    """The database, its owner, and the role that may read all of public, also what is created later. The owner may see
    others' transactions and end their connections, so that tests can."""
    _sql(port, "postgres", SUPERUSER, f"""
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{OWNER}') THEN
                CREATE ROLE {OWNER} LOGIN PASSWORD '{password(OWNER)}';
                CREATE ROLE {READER} LOGIN PASSWORD '{password(READER)}';
                GRANT pg_read_all_stats TO {READER}, {OWNER};
                GRANT pg_signal_backend TO {OWNER};
            END IF;
        END $$;
        SELECT 'CREATE DATABASE {NAME} OWNER {OWNER}'
            WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{NAME}') \\gexec
    """)
    _sql(port, NAME, OWNER, f"""
        GRANT USAGE ON SCHEMA public TO {READER};
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER};
        ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {READER};
        ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO {READER};
    """)


def _sql(port: int, database: str, role: str, statements: str) -> None:
    command = [
        str(tools.postgres() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(port),
        "-U", role,
        "-d", database, "-f", "-",
    ]
    ended = subprocess.run(
        command, input=statements, env=_environment() | {"PGPASSWORD": password(role)}, capture_output=True, text=True)
    if ended.returncode:
        raise CloudError(f"PostgreSQL refused a statement of {Path(__file__).name}:\n{ended.stderr.strip()}")
