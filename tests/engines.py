"""What the pages let Athena, Spark and pandas ask is asked here, of Trino, Spark and pandas, over a local cloud.

Each answer must be what DuckDB says of copies of the same objects, and so must what DuckDB reads straight from S3.
Trino stands in for Athena, whose engine version 3 is based on it: it takes the tables from the Glue that Terraform has
filled, with the properties of partition projection as they stand there. The CREATE TABLE of docs/query.md is read by
Hive's own parser, and becomes a table of that Glue.

Usage: engines.py fill    loads documents, logs and orders; functions make archive, log errors and warehouse of them
       engines.py         asks
"""

import base64
import contextlib
import datetime
import decimal
import functools
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

import botocore.session
import duckdb
import duckdb_extension_httpfs
import pandas
import pyarrow
import pyarrow.parquet
from pyspark.sql import DataFrame, SparkSession

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "local"))

import tools  # noqa: E402
import trino  # noqa: E402
from settings import TRINO  # noqa: E402

PORT = int(os.environ.get(TRINO.port_variable, TRINO.default_port))
# Where the table of docs/query.md is made, and what is written by the tests themselves.
DATABASE, SCRATCH = "engines", "alert-archive-engines"
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# A type of Glue, and how DuckDB calls the column of Parquet that it is for.
TYPES = {
    "string": "VARCHAR", "int": "INTEGER", "bigint": "BIGINT", "boolean": "BOOLEAN", "double": "DOUBLE", "date": "DATE",
    "binary": "BLOB", "timestamp": "TIMESTAMP WITH TIME ZONE",
}
# What Athena's tables say of columns that Parquet has in another type, and why it does no harm.
OTHER_TYPES = {
    # Counts far below 2^31, which Hive has no unsigned type for.
    ("int", "UINTEGER"),
    # Athena has one type of time, without a zone, and all times are UTC.
    ("timestamp", "TIMESTAMP"),
}


# --- The cloud -------------------------------------------------------------------------------------------------------


def aws(service: str):
    return botocore.session.get_session().create_client(service, endpoint_url=os.environ["AWS_ENDPOINT_URL"])


def variable(name: str) -> str:
    return os.environ[f"ALERT_ARCHIVE_{name}"]


def archive(*arguments: str) -> dict:
    """The report of a command that must go well."""
    ended = subprocess.run(["alert-archive", *arguments, "--json"], capture_output=True, text=True)
    if ended.returncode:
        raise AssertionError(f"alert-archive {' '.join(arguments)}: {ended.stdout}\n{ended.stderr}")
    return json.loads(ended.stdout)


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def until(what: str, is_so) -> None:
    deadline = time.monotonic() + 300
    while not is_so():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after five minutes: {what}")
        time.sleep(2)


def keys(bucket: str, prefix: str) -> list[str]:
    pages = aws("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [found["Key"] for page in pages for found in page.get("Contents", [])]


def fetch(bucket: str, prefix: str, folder: Path) -> None:
    """Copies the objects below a prefix, as `aws s3 sync` does."""
    s3 = aws("s3")
    for key in keys(bucket, prefix):
        file = folder / key.removeprefix(prefix)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())


def fill() -> None:
    """Awkward documents and generated ones, some from before the year 2000; logs of today and of then; six weeks of
    orders."""
    url, database = os.environ["OPENSEARCH_URL"], variable("DATABASE_URL")
    run("fixtures", "golden", "load", "--url", url)
    for first, last, count in (("2024-07-01", "2024-07-11", 300), ("1999-12-30", "2000-01-02", 30)):
        # Behind the aliases of the golden set.
        run("fixtures", "load", "--url", url, "--indices", "messages-a,history-a,audit-a",
            "--from", first, "--to", last,
            "--count", str(count))
    for first, last in (("2024-01-01", "2024-01-08"), ("2024-07-01", "2024-07-11"), ("1999-12-30", "2000-01-02")):
        run("alert-archive", "run", "--from", first, "--to", last, "--wait")
    reopen(url)
    run("alert-archive", "run", "--from", "2024-07-01", "--to", "2024-07-11", "--wait")

    today = datetime.datetime.now(datetime.UTC).date()
    days = [today - datetime.timedelta(1), today - datetime.timedelta(20), datetime.date(1999, 12, 31)]
    for seed, day in enumerate(days, 1):
        with tempfile.TemporaryDirectory() as folder:
            run("fixtures", "logs", "--out", folder, "--entries", "400", "--date", str(day), "--seed", str(seed))
            for file in sorted(Path(folder).rglob("*.gz")):
                aws("s3").put_object(
                    Bucket=variable("LOGS_BUCKET"), Key=file.relative_to(folder).as_posix(), Body=file.read_bytes())

    run("psql", database, "-Xq", "-f", str(ROOT / "fixtures/warehouse/orders.sql"))
    for week in range(1, 7):
        run("psql", database, "-Xq", "-v", f"week={week}", "-f", str(ROOT / "fixtures/warehouse/week.sql"))
        run("alert-archive", "warehouse", "ingest", "--wait")

    until("the warehouse is up to date", lambda: archive("warehouse", "status")["up_to_date"])
    until("all logs are extracted", lambda: archive("logs", "status")["waiting"] == 0)


def reopen(url: str) -> None:
    """Opens an alert of a message that is archived."""
    july = {"size": 100, "query": {"range": {"timestamp": {"gte": "2024-07-01", "lt": "2024-07-11"}}}}
    found = opensearch(f"{url}/messages-a/_search", july)["hits"]["hits"]
    closed = next(hit for hit in found if [alert["status"] for alert in hit["_source"].get("alerts", [])] == ["closed"])
    (alert,) = closed["_source"]["alerts"]
    changed = {"doc": {"alerts": [alert | {"status": "open"}]}}
    opensearch(f"{url}/messages-a/_update/{closed['_id']}?refresh=true", changed)


def opensearch(url: str, body: dict) -> dict:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


# --- The documentation -----------------------------------------------------------------------------------------------


def blocks(page: str, language: str, word: str) -> list[str]:
    """Blocks of a page in a language that hold the word."""
    text = (ROOT / page).read_text()
    return [body for name, _, body in BLOCK.findall(text) if name == language and word in body]


def of_this_bucket(text: str) -> str:
    return text.replace("BUCKET", variable("BUCKET"))


# --- The engines -----------------------------------------------------------------------------------------------------


@functools.cache
def spark() -> SparkSession:
    engines = tools.engines()
    os.environ["JAVA_HOME"] = str(engines.spark_java.parent.parent)
    options = {
        "spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false",
        "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1",
        "spark.jars": ",".join(map(str, engines.spark_jars)),
        "spark.sql.session.timeZone": "UTC",
        "spark.hadoop.fs.s3a.endpoint": os.environ["AWS_ENDPOINT_URL"],
        "spark.hadoop.fs.s3a.endpoint.region": os.environ["AWS_REGION"],
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.access.key": os.environ["AWS_ACCESS_KEY_ID"],
        "spark.hadoop.fs.s3a.secret.key": os.environ["AWS_SECRET_ACCESS_KEY"],
    }
    builder = SparkSession.builder.master("local[2]")
    for name, value in options.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def trino_rows(database: str, sql: str, precision: str = "MICROSECONDS") -> list[dict]:
    columns, rows = trino.ask(PORT, database, sql, precision)
    return [
        {column["name"]: from_trino(column["typeSignature"], value) for column, value in zip(columns, row)}
        for row in rows
    ]


def from_trino(of: dict, value):
    """A value of Trino's protocol, as Python has it."""
    if value is None:
        return None
    match of["rawType"]:
        case "array":
            return [from_trino(of["arguments"][0]["value"], element) for element in value]
        case "varbinary":
            return base64.b64decode(value)
        case "decimal":
            return decimal.Decimal(value)
        case "double":
            return float(value)
        case "date":
            return datetime.date.fromisoformat(value)
        case "timestamp":
            return micros_of(value)
        case _:
            return value


def micros_of(text: str) -> int:
    """Microseconds since 1970 of a time as Trino writes it, also after the year 9999."""
    year, month, day, hour, minute, second, fraction = re.fullmatch(
        r"\+?(\d+)-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)\.(\d+)", text).groups()
    # Python's calendar ends with 9999, and each 400 years have as many days.
    ages, rest = divmod(int(year) - 1, 400)
    day_of = datetime.date(rest + 1, int(month), int(day)).toordinal()
    days = ages * 146_097 + day_of - datetime.date(1970, 1, 1).toordinal()
    return (((days * 24 + int(hour)) * 60 + int(minute)) * 60 + int(second)) * 1_000_000 + int(fraction.ljust(6, "0"))


def plain(value):
    """A value of DuckDB, Spark, pandas or Trino in one form: times as microseconds, the rest as text that tells all."""
    match value:
        case datetime.datetime():
            zoned = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
            return (zoned - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(microseconds=1)
        case datetime.date():
            return value.isoformat()
        case float():
            return "NaN" if math.isnan(value) else repr(value)
        case decimal.Decimal():
            return str(value)
        case bytes() | bytearray():
            return bytes(value).hex()
        case list():
            return [plain(element) for element in value]
        case _:
            return value


def sorted_rows(rows: list[dict]) -> list[str]:
    return sorted(json.dumps({name: plain(value) for name, value in row.items()}, sort_keys=True) for row in rows)


def duckdb_rows(sql: str, **views: str) -> list[dict]:
    """The rows of a query; each view is a query, too."""
    with duckdb.connect() as database:
        database.sql("SET TimeZone = 'UTC'")
        for name, query in views.items():
            database.sql(f"CREATE VIEW {name} AS {query}")
        return database.sql(sql).to_arrow_table().to_pylist()


def spark_rows(found: DataFrame) -> list[dict]:
    # Arrow has the year 1, which Python's times of Spark have not.
    return found.toArrow().to_pylist()


# --- What is there ---------------------------------------------------------------------------------------------------


class Copies:
    """The objects of archive, log errors and warehouse on this disk, for DuckDB and pandas."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp())
        fetch(variable("BUCKET"), "archive/parquet/", self.folder / "parquet")
        fetch(variable("BUCKET"), "log-errors/parquet/", self.folder / "log_errors")
        self.locations = {table["table"]: table["location"] for table in archive("warehouse", "status")["tables"]}
        for table, location in self.locations.items():
            bucket, _, prefix = location.removeprefix("s3://").partition("/")
            fetch(bucket, prefix.rstrip("/") + "/", self.folder / table)

    def read(self, table: str, columns: str = "*", types: str = "") -> str:
        objects = f"{self.folder}/{table}/**/*.parquet"
        return f"SELECT {columns} FROM read_parquet('{objects}', hive_partitioning = true{types})"

    def alerts(self) -> str:
        return self.read("parquet", types=", hive_types = {'date': DATE}")

    def log_errors(self) -> str:
        return self.read("log_errors", types=", hive_types = {'date': VARCHAR}")

    def warehouse_table(self, table: str) -> str:
        """Without the names of folders, which Athena's table does not have."""
        return f"SELECT * FROM read_parquet('{self.folder}/{table}/**/*.parquet', hive_partitioning = false)"


@functools.cache
def copies() -> Copies:
    return Copies()


def glue_tables() -> dict[str, dict]:
    tables = aws("glue").get_tables(DatabaseName=variable("LOGS_DATABASE"))["TableList"]
    return {table["Name"]: table for table in tables}


def hive_tree(statement: str):
    """What Hive's parser reads of a statement: (name, children). Athena's DDL is Hive's."""
    driver = spark()._jvm.org.apache.hadoop.hive.ql.parse.ParseDriver()

    def tree(node):
        children = node.getChildren()
        return node.getText(), [tree(child) for child in children] if children else []

    return tree(driver.parse(statement))


def found_in(tree, name: str) -> list:
    """All nodes of that name, as lists of their children."""
    own, children = tree
    return ([children] if own == name else []) + [node for child in children for node in found_in(child, name)]


def hive_type(tree) -> str:
    name, children = tree
    if name == "TOK_LIST":
        return f"array<{hive_type(children[0])}>"
    return name.removeprefix("TOK_").lower()


def unquoted(tree) -> str:
    return tree[0].strip("'`")


def table_of(statement: str) -> dict:
    """What Athena writes into Glue for a CREATE EXTERNAL TABLE."""
    tree = hive_tree(statement)
    (partitions,) = found_in(tree, "TOK_TABLEPARTCOLS")
    of_partitions = found_in(("", partitions), "TOK_TABCOL")
    columns = [column for column in found_in(tree, "TOK_TABCOL") if column not in of_partitions]
    (file_format,) = found_in(tree, "TOK_FILEFORMAT_GENERIC")
    (location,) = found_in(tree, "TOK_TABLELOCATION")
    (name,) = found_in(tree, "TOK_TABNAME")
    assert unquoted(file_format[0]).upper() == "PARQUET", file_format

    def described(found: list) -> list[dict]:
        return [{"Name": unquoted(column[0]), "Type": hive_type(column[1])} for column in found]

    return {
        "Name": unquoted(name[0]), "TableType": "EXTERNAL_TABLE",
        "Parameters": {"EXTERNAL": "TRUE"} | {
            unquoted(pair[0]): unquoted(pair[1]) for pair in found_in(tree, "TOK_TABLEPROPERTY")},
        "PartitionKeys": described(of_partitions),
        "StorageDescriptor": {
            "Columns": described(columns), "Location": unquoted(location[0]),
            "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
            "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
            "SerdeInfo": {"SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"},
        },
    }


def create(statement: str, **changed) -> None:
    """The table of a statement, in the tests' own database."""
    aws("glue").create_table(DatabaseName=DATABASE, TableInput=table_of(statement) | changed)


def create_of_the_docs() -> tuple[str, str]:
    """The statement that makes the table of the archive, and the query behind it."""
    (block,) = blocks("docs/query.md", "sql", "CREATE EXTERNAL TABLE")
    statement, query = [part.strip() for part in block.split(";")[:2]]
    return statement, query


def setUpModule() -> None:
    if not keys(variable("BUCKET"), "archive/parquet/") or not keys(variable("BUCKET"), "log-errors/parquet/"):
        raise AssertionError("the cloud has no archive or no log errors: engines.py fill")
    tidy()
    aws("glue").create_database(DatabaseInput={"Name": DATABASE})
    aws("s3").create_bucket(Bucket=SCRATCH)
    create(of_this_bucket(create_of_the_docs()[0]))
    trino.start(PORT, {
        "url": os.environ["AWS_ENDPOINT_URL"], "region": os.environ["AWS_REGION"],
        "key": os.environ["AWS_ACCESS_KEY_ID"], "secret": os.environ["AWS_SECRET_ACCESS_KEY"],
    })


def tearDownModule() -> None:
    trino.stop()
    tidy()
    if spark.cache_info().currsize:
        spark().stop()
    if copies.cache_info().currsize:
        shutil.rmtree(copies().folder)


def tidy() -> None:
    """Takes away what the tests have made in the cloud."""
    s3, glue = aws("s3"), aws("glue")
    if SCRATCH in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        for key in keys(SCRATCH, ""):
            s3.delete_object(Bucket=SCRATCH, Key=key)
        s3.delete_bucket(Bucket=SCRATCH)
    if DATABASE in [database["Name"] for database in glue.get_databases()["DatabaseList"]]:
        for table in glue.get_tables(DatabaseName=DATABASE)["TableList"]:
            glue.delete_table(DatabaseName=DATABASE, Name=table["Name"])
        glue.delete_database(Name=DATABASE)


class Compared(unittest.TestCase):
    def assert_same(self, found: list[dict], wanted: list[dict], at_least: int = 1) -> None:
        self.assertGreaterEqual(len(wanted), at_least, "too few rows to tell anything")
        found, wanted = sorted_rows(found), sorted_rows(wanted)
        if found != wanted:
            sides = (("only here", set(found) - set(wanted)), ("only DuckDB", set(wanted) - set(found)))
            told = [f"{what}: {row[:600]}" for what, rows in sides for row in sorted(rows)[:2]]
            self.fail("\n".join([f"{len(found)} rows, DuckDB has {len(wanted)}", *told]))


# --- DuckDB ----------------------------------------------------------------------------------------------------------


class DuckDb(Compared):
    def straight_from_s3(self) -> duckdb.DuckDBPyConnection:
        """With the secret of docs/query.md for the local cloud."""
        database = duckdb.connect(config={"extension_directory": str(copies().folder / "extensions")})
        self.addCleanup(database.close)
        (extension,) = Path(duckdb_extension_httpfs.__file__).parent.rglob("*.duckdb_extension")
        database.install_extension(str(extension))
        (secret,) = blocks("docs/query.md", "sql", "ENDPOINT")
        database.sql(secret.replace("127.0.0.1:4566", os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")))
        return database

    def test_it_reads_the_archive_straight_from_s3(self):
        (block,) = blocks("docs/query.md", "sql", "credential_chain")
        query = of_this_bucket(block.split(";")[1])
        found = self.straight_from_s3().sql(query).to_arrow_table().to_pylist()
        wanted = duckdb_rows("SELECT date, count(*) FROM alerts GROUP BY date", alerts=copies().alerts())
        self.assert_same(found, wanted, at_least=10)

    def test_the_queries_of_the_readme_run_straight_from_s3_and_leave_out_what_is_open_again(self):
        by_date, final = [of_this_bucket(query) for query in blocks("README.md", "sql", "read_parquet")]
        database = self.straight_from_s3()
        messages = sum(count for _, count in database.sql(by_date).fetchall())
        self.assertEqual(messages, duckdb_rows(f"SELECT count(*) AS n FROM ({copies().alerts()})")[0]["n"])
        self.assertEqual(database.sql(final).fetchall(), [(messages - 1,)], "one was opened again")


# --- Trino -----------------------------------------------------------------------------------------------------------


class Trino(Compared):
    def assert_types(self, columns: list[dict], written: str) -> None:
        """Glue names each column that Parquet has, and no other, with the type that is for it."""
        with duckdb.connect() as database:
            parquet = {row[0]: row[1] for row in database.sql(f"DESCRIBE {written}").fetchall()}
        # In whatever order: columns are found by their names.
        self.assertEqual(sorted(column["Name"] for column in columns), sorted(parquet))
        for column in columns:
            told, found = column["Type"], parquet[column["Name"]]
            is_list = told.startswith("array<")
            element = told.removeprefix("array<").removesuffix(">") if is_list else told
            wanted = TYPES.get(element, element.upper()) + ("[]" if is_list else "")
            if (told, found) not in OTHER_TYPES:
                self.assertEqual(found, wanted, column["Name"])

    def test_the_table_of_the_archive_has_every_row_and_value_of_all_days(self):
        self.assert_same(trino_rows(DATABASE, "SELECT * FROM alerts"), duckdb_rows(copies().alerts()), at_least=300)

    def test_the_table_of_the_archive_has_the_types_of_its_columns(self):
        table = table_of(create_of_the_docs()[0])
        self.assert_types(table["StorageDescriptor"]["Columns"], copies().alerts().replace("*", "* EXCLUDE (date)", 1))

    def test_the_query_behind_create_table_runs_as_it_stands(self):
        _, query = create_of_the_docs()
        self.assert_same(trino_rows(DATABASE, query), duckdb_rows(query, alerts=copies().alerts()), at_least=5)

    def test_a_column_that_older_objects_lack_is_null_there(self):
        create(of_this_bucket(create_of_the_docs()[0]).replace(variable("BUCKET"), SCRATCH), Name="two_versions")
        two_versions()
        found = trino_rows(DATABASE,
            "SELECT message_id, audit_count FROM two_versions WHERE \"date\" = DATE '2024-07-01'")
        self.assert_same(found, two_versions())

    def test_the_table_of_log_errors_has_every_row_and_value_of_all_days(self):
        found = trino_rows(variable("LOGS_DATABASE"), "SELECT * FROM log_errors")
        self.assert_same(found, duckdb_rows(copies().log_errors()), at_least=100)

    def test_the_table_of_log_errors_has_the_types_of_its_columns(self):
        columns = glue_tables()["log_errors"]["StorageDescriptor"]["Columns"]
        self.assert_types(columns, copies().log_errors().replace("*", "* EXCLUDE (date)", 1))

    def test_the_saved_queries_run_as_they_are_deployed(self):
        athena = aws("athena")
        names = athena.list_named_queries()["NamedQueryIds"]
        saved = [athena.get_named_query(NamedQueryId=name)["NamedQuery"] for name in names]
        self.assertEqual(len(saved), len(list((ROOT / "infra" / "queries").glob("*.sql"))))
        for query in saved:
            with self.subTest(query=query["Name"]):
                wanted = duckdb_rows(query["QueryString"], log_errors=copies().log_errors())
                self.assert_same(trino_rows(query["Database"], query["QueryString"]), wanted)

    def test_every_table_of_the_warehouse_has_the_types_and_every_row_and_value_of_its_objects(self):
        tables = {name: table for name, table in glue_tables().items() if name != "log_errors"}
        self.assertEqual(set(tables), set(copies().locations))
        for name, table in tables.items():
            with self.subTest(table=name):
                written = copies().warehouse_table(name)
                self.assert_types(table["StorageDescriptor"]["Columns"], written)
                self.assert_same(trino_rows(table["DatabaseName"], f"SELECT * FROM {name}"), duckdb_rows(written))

    def test_times_of_the_warehouse_are_rounded_to_the_millisecond_as_in_athena(self):
        """So that the end of what is current is the first instant of the year 10000."""
        columns = "customer_key, valid_from, valid_to"
        found = trino_rows(variable("LOGS_DATABASE"), f"SELECT {columns} FROM dim_customer", "MILLISECONDS")
        wanted = duckdb_rows(f"SELECT {columns} FROM ({copies().warehouse_table('dim_customer')})")
        for row in wanted:
            row |= {name: (plain(row[name]) + 500) // 1000 * 1000 for name in ("valid_from", "valid_to")}
        self.assert_same(found, wanted, at_least=50)
        self.assertIn(micros_of("+10000-01-01 00:00:00.000"), [row["valid_to"] for row in found])

    def test_the_queries_of_the_warehouse_run_over_its_tables(self):
        for query in warehouse_queries():
            # A folder's name, which Athena's table does not have.
            if "sold_month" not in query:
                with self.subTest(query=query):
                    found = trino_rows(variable("LOGS_DATABASE"), by_name(query))
                    self.assert_same(found, duckdb_in_copies(query), at_least=3)

    def test_one_row_a_message_is_asked_for_as_it_stands(self):
        (query,) = blocks("docs/query.md", "sql", "row_number()")
        wanted = duckdb_rows(query.rstrip().rstrip(";"), alerts=copies().alerts())
        self.assert_same(trino_rows(DATABASE, query.rstrip().rstrip(";")), wanted, at_least=300)
        spark_alerts().createOrReplaceTempView("alerts")
        self.assert_same(spark_rows(spark().sql(query.rstrip().rstrip(";"))), wanted, at_least=300)


@functools.cache
def two_versions() -> list[dict]:
    """Puts two objects of one day into a bucket, one as an older version wrote it: without a column. Gives what is in
    them."""
    day = sorted((copies().folder / "parquet" / "date=2024-07-01").glob("*.parquet"))
    table = pyarrow.concat_tables([pyarrow.parquet.ParquetFile(file).read() for file in day])
    half, rows = table.num_rows // 2, []
    for name, part in (("a-old", table.slice(0, half).drop_columns(["audit_count"])), ("b-new", table.slice(half))):
        body = io.BytesIO()
        pyarrow.parquet.write_table(part, body, compression="zstd", store_schema=False)
        aws("s3").put_object(Bucket=SCRATCH, Key=f"archive/parquet/date=2024-07-01/{name}.parquet",
            Body=body.getvalue())
        rows += [{"audit_count": None} | row for row in part.select(
            [column for column in part.column_names if column in ("message_id", "audit_count")]).to_pylist()]
    return rows


def warehouse_queries() -> list[str]:
    return [query.strip().rstrip(";") for query in blocks("docs/warehouse.md", "sql", "read_parquet")]


def by_name(query: str) -> str:
    """The query over tables in the place of files."""
    return re.sub(r"read_parquet\('(\w+)/\*\*/\*\.parquet'[^)]*\)", r"\1", query)


def duckdb_in_copies(query: str) -> list[dict]:
    with contextlib.chdir(copies().folder):
        return duckdb_rows(query)


# --- Spark -----------------------------------------------------------------------------------------------------------


def spark_alerts() -> DataFrame:
    """What the snippet of docs/query.md calls `messages`."""
    (snippet,) = blocks("docs/query.md", "python", "spark.read")
    names = {"spark": spark()}
    exec(of_this_bucket(snippet), names)
    return names["messages"]


def shown(text: str) -> list[list[str]]:
    """The rows of a table that Spark prints."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


class Spark(Compared):
    def test_the_snippet_of_the_archive_prints_what_is_there(self):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            spark_alerts()
        wanted = duckdb_rows(
            "SELECT date, count(*) AS n FROM alerts WHERE date >= '2024-07-01' GROUP BY date ORDER BY date",
            alerts=copies().alerts())
        self.assertGreater(len(wanted), 5)
        self.assertEqual(shown(printed.getvalue()), [[str(row["date"]), str(row["n"])] for row in wanted])

    def test_the_archive_has_every_row_and_value(self):
        with contextlib.redirect_stdout(io.StringIO()):
            self.assert_same(spark_rows(spark_alerts()), duckdb_rows(copies().alerts()), at_least=300)

    def test_a_column_that_older_objects_lack_is_null_there_with_the_option_that_is_named(self):
        self.assertTrue(two_versions())
        found = spark().read.option("mergeSchema", "true").parquet(f"s3a://{SCRATCH}/archive/parquet/")
        self.assert_same(spark_rows(found.select("message_id", "audit_count")), two_versions())

    def test_the_log_errors_have_every_row_and_value(self):
        found = spark().read.parquet(f"s3a://{variable('BUCKET')}/log-errors/parquet/")
        wanted = duckdb_rows(copies().read("log_errors", types=", hive_types = {'date': DATE}"))
        self.assert_same(spark_rows(found), wanted, at_least=100)

    def test_the_snippet_of_the_warehouse_makes_its_tables_with_every_row_and_value(self):
        (snippet,) = blocks("docs/warehouse.md", "python", "spark")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(snippet, {"spark": spark()})
        wanted = duckdb_rows(
            "SELECT city, count(*) AS n FROM customers WHERE is_current GROUP BY city ORDER BY city NULLS FIRST",
            customers=copies().warehouse_table("dim_customer"))
        self.assertEqual(shown(printed.getvalue()), [[row["city"] or "NULL", str(row["n"])] for row in wanted])
        for name in copies().locations:
            with self.subTest(table=name):
                self.assert_same(spark_rows(spark().table(name)), duckdb_rows(copies().read(name)))
        for query in warehouse_queries():
            with self.subTest(query=query):
                self.assert_same(spark_rows(spark().sql(by_name(query))), duckdb_in_copies(query), at_least=2)


# --- pandas ----------------------------------------------------------------------------------------------------------


def pandas_rows(found: pandas.DataFrame) -> list[dict]:
    def plain_cell(cell):
        if isinstance(cell, pandas.Timestamp):
            return cell.to_pydatetime()
        if hasattr(cell, "tolist"):
            return cell.tolist()
        return None if cell is pandas.NaT else cell

    return [{name: plain_cell(cell) for name, cell in row.items()} for row in found.to_dict("records")]


class Pandas(Compared):
    def ask(self, snippet: str) -> tuple[dict, str]:
        """What a snippet leaves and prints that is run where the copies are."""
        printed, names = io.StringIO(), {"os": os}
        with contextlib.chdir(copies().folder), contextlib.redirect_stdout(printed):
            exec(snippet, names)
        return names, printed.getvalue()

    def assert_july(self, snippet: str) -> None:
        names, printed = self.ask(snippet)
        wanted = duckdb_rows(
            "SELECT message_id, timestamp, alert_count, date::VARCHAR AS date FROM alerts "
            "WHERE date >= '2024-07-01' AND date < '2024-08-01'", alerts=copies().alerts())
        self.assert_same(pandas_rows(names["messages"]), wanted, at_least=100)
        self.assertIn("2024-07-01", printed)

    def test_the_snippet_of_the_archive_finds_what_is_there(self):
        (snippet,) = blocks("docs/query.md", "python", "read_parquet")
        self.assert_july(snippet)

    def test_the_snippet_of_the_archive_reads_straight_from_s3_as_the_text_says(self):
        (snippet,) = blocks("docs/query.md", "python", "read_parquet")
        text = " ".join((ROOT / "docs" / "query.md").read_text().split())
        path = '"s3://BUCKET/archive/parquet/"'
        options = 'storage_options={"client_kwargs": {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}}'
        self.assertIn(f"`{path}`", text)
        self.assertIn(f"`{options}`", text)
        self.assert_july(of_this_bucket(snippet.replace('"parquet",', f"{path}, {options},")))

    def test_the_snippet_of_the_warehouse_finds_what_is_there(self):
        (snippet,) = blocks("docs/warehouse.md", "python", "read_parquet")
        _, printed = self.ask(snippet)
        wanted = duckdb_in_copies(warehouse_queries()[0])
        found = dict(re.findall(r"^(\w+) +([\d.]+)$", printed, re.MULTILINE))
        self.assertEqual(found, {row["city"]: str(row["turnover"]) for row in wanted if row["city"]})

    def test_every_table_has_every_row_and_value(self):
        """The archive and log errors, too. Null is NaN in pandas' numbers, so that integers with nulls become
        floats."""
        wanted = {name: copies().read(name) for name in copies().locations}
        wanted |= {"parquet": copies().alerts(), "log_errors": copies().log_errors()}
        for name, query in wanted.items():
            with self.subTest(table=name):
                read = pandas.read_parquet(copies().folder / name, dtype_backend="pyarrow")
                self.assert_same(pandas_rows(read), duckdb_rows(query))


if __name__ == "__main__":
    if sys.argv[1:] == ["fill"]:
        fill()
    else:
        # Of sockets between Python and the JVM.
        unittest.main(warnings="ignore")
