"""What the documentation tells people to type is what the commands take.

Each line of a `sh` block in README.md and docs/ that calls `alert-archive` is handed to the command itself, in an
environment that names no archive: it then ends with 2 only when it does not understand the line, and does nothing in
any case. `make` targets must exist, operations and options of `aws` must be in AWS's own model, and files that are
named must be there. What is in none of these stands in EXEMPT with its reason. SQL blocks are run by DuckDB on an
archive of three messages; those marked `aws` need the service or a download, and are only looked at for what they name.
tests/engines.py runs what Athena, Spark and pandas are told.
"""

import ast
import json
import os
import re
import shlex
import subprocess
import tempfile
import unittest
from pathlib import Path

import tools

ROOT = Path(__file__).resolve().parent.parent
COMMAND = ROOT / "target" / "debug" / "alert-archive"
PAGES = sorted([ROOT / "README.md", ROOT / "statemachine" / "README.md", *ROOT.glob("docs/*.md")])
# Makes an archive of three messages in its folder, as the columns are that the queries name, and answers each query.
RUN_QUERIES = """
import duckdb, json, os, sys
os.makedirs("parquet/date=2024-07-01")
duckdb.sql('''COPY (
    SELECT 'MSG-' || n AS message_id, TIMESTAMP '2024-07-01 10:00:00' AS timestamp, n::INTEGER AS alert_count,
        ['high', 'low'] AS alert_severities, TIMESTAMP '2024-07-01 09:00:00' AS first_opened_at,
        TIMESTAMP '2024-07-01 10:00:00' AS last_closed_at, '{"subject":"Disk ' || n || '"}' AS message
    FROM range(3) t(n)) TO 'parquet/date=2024-07-01/a.parquet' (FORMAT parquet)''')
json.dump([duckdb.sql(query).fetchall() for query in json.load(sys.stdin)], sys.stdout, default=str)
"""
# The same over a star of two customers, one of whom moved, and of the members that stand for none.
RUN_WAREHOUSE_QUERIES = """
import duckdb, json, os, sys
for folder in ["dim_customer", "dim_date", "fact_sale/sold_month=202312", "fact_sale/sold_month=202401"]:
    os.makedirs(folder)
duckdb.sql('''COPY (SELECT * FROM (VALUES (-1, NULL, NULL, NULL, true, false), (-2, NULL, NULL, NULL, true, false),
    (11, 1, 'Ada', 'Rome', false, false), (12, 1, 'Ada', 'Oslo', true, false), (21, 2, 'Bob', 'Bonn', true, true))
    t(customer_key, customer_id, name, city, is_current, is_deleted)) TO 'dim_customer/a.parquet' (FORMAT parquet)''')
duckdb.sql('''COPY (SELECT strftime(d, '%Y%m%d')::INTEGER AS date_key, year(d) AS year, month(d) AS month
    FROM range(DATE '2023-12-01', DATE '2024-03-01', INTERVAL 1 DAY) t(d)) TO 'dim_date/a.parquet' (FORMAT parquet)''')
for month, rows in [(202312, "(1, 11, 20231231, 5.00, false)"),
                    (202401, "(2, 12, 20240101, 7.50, false), (3, -2, 20240102, 1.00, false),"
                             " (4, 21, 20240103, 9.99, true)")]:
    duckdb.sql(f'''COPY (SELECT * FROM (VALUES {rows}) t(sale_id, customer_key, sold_date_key, total, is_deleted))
        TO 'fact_sale/sold_month={month}/a.parquet' (FORMAT parquet)''')
json.dump([duckdb.sql(query).fetchall() for query in json.load(sys.stdin)], sys.stdout, default=str)
"""
# Commands that no test here runs, and why.
EXEMPT = {
    "eval": "sets the environment of the local cloud, which the pipeline tests do",
    "export": "sets a variable", "head": "cuts what another command prints", "jq": "cuts what another command prints",
    "while": "part of a loop", "do": "part of a loop", "done": "part of a loop",
    "curl": "breaks and mends a source: the pipeline tests close an index themselves",
    "fixtures": "loads a source: make run and the pipeline tests do", "psql": "loads a database: the pipeline tests do",
    "git": "not ours",
    "source": "sets the environment that another command wrote",
    "terraform": "asks a deployment on AWS: the tf-* targets are tried by the delivery test",
}
# What the command line of AWS adds to each operation, and the commands that are no operations.
AWS_OPTIONS = {"max-items", "query", "output", "region", "profile"}
AWS_COMMANDS = {("s3", "ls"), ("s3", "sync"), ("s3", "cp")}
# Prints for each [service, operation, options] what the model of AWS does not know.
ASK_AWS = """
import botocore.session, json, sys
session, faults = botocore.session.get_session(), []
for service, operation, options in json.load(sys.stdin):
    try:
        model = session.get_service_model(service)
        named = {name.lower(): name for name in model.operation_names}
        members = model.operation_model(named[operation.replace("-", "")]).input_shape.members
        known = {name.lower() for name in members}
        faults += [f"{service} {operation} --{option}" for option in options if option.replace("-", "") not in known]
    except Exception as error:
        faults.append(f"{service} {operation}: {error!r}")
print(json.dumps(faults))
"""
BLOCK = re.compile(r"^ *```(\w+)([^\n]*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[str, str, str]]:
    """Page, mark and text of each block in a language."""
    found = []
    for page in PAGES:
        for name, mark, text in BLOCK.findall(page.read_text()):
            if name == language:
                found.append((page.relative_to(ROOT).as_posix(), mark.strip(), text))
    return found


def lines() -> list[tuple[str, list[str]]]:
    """Each command of each page, without its comment, cut where a shell would cut it."""
    found = []
    for page, _, text in blocks("sh"):
        begun = ""
        for line in text.replace("\\\n", " ").splitlines():
            try:
                words = shell_words(begun + line)
            except ValueError:
                begun += line + "\n"  # a quotation goes on in the next line
                continue
            begun = ""
            found.extend((page, command) for command in split(words))
    return found


def shell_words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    return list(lexer)


def split(words: list[str]) -> list[list[str]]:
    """Each command of a line, without the file that takes what it prints."""
    commands: list[list[str]] = [[]]
    is_file = False
    for word in words:
        if is_file or set(word) <= set("<>"):
            is_file = not is_file
        elif set(word) <= set("|&;"):
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


class Documentation(unittest.TestCase):
    def test_the_command_line_understands_every_line_of_the_documentation(self):
        sources = [path.stat().st_mtime for path in (ROOT / "cli" / "src").rglob("*.rs")]
        if not COMMAND.exists() or COMMAND.stat().st_mtime < max(sources):
            self.skipTest("alert-archive is not built from what stands here: cargo build -p alert-archive")
        bare = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
        told = [(page, words) for page, words in lines() if words[0] == "alert-archive"]
        self.assertGreater(len(told), 20)
        for page, words in told:
            with self.subTest(page=page, command=shlex.join(words)):
                ended = subprocess.run([COMMAND, *words[1:]], env=bare, capture_output=True, text=True, timeout=60)
                self.assertNotEqual(ended.returncode, 2, ended.stderr)

    def test_every_make_target_of_the_documentation_exists(self):
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        for page, words in lines():
            if words[0] == "make":
                for word in words[1:]:
                    if not word.startswith("-") and "=" not in word:
                        self.assertIn(word, targets, f"{page}: {shlex.join(words)}")

    def test_what_the_text_calls_a_command_is_one_with_its_options(self):
        if not COMMAND.exists():
            self.skipTest("alert-archive is not built: cargo build -p alert-archive")
        bare = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
        helps: dict[tuple[str, ...], str] = {}

        def help_of(words: tuple[str, ...]) -> str:
            if words not in helps:
                ended = subprocess.run([COMMAND, *words, "--help"], env=bare, capture_output=True, text=True,
                    timeout=60)
                helps[words] = ended.stdout if ended.returncode == 0 else ""
            return helps[words]

        for page in PAGES:
            prose = BLOCK.sub("", page.read_text())
            for told in re.findall(r"`alert-archive ([^`]+)`", prose):
                with self.subTest(page=page.name, command=told):
                    words = shell_words(told)
                    # Words in capitals and in lower case behind the last subcommand are what it is given.
                    names = tuple(word for word in words if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-"))
                    known = next((help_of(names[:n]) for n in range(len(names), 0, -1) if help_of(names[:n])), "")
                    self.assertTrue(known, "there is no such command")
                    for option in (word for word in words if word.startswith("--")):
                        self.assertIn(option, known)

    def test_every_other_command_is_known_to_aws_or_exempt_with_a_reason(self):
        asked = []
        for page, words in lines():
            with self.subTest(page=page, command=shlex.join(words)):
                if words[0] == "aws" and tuple(words[1:3]) not in AWS_COMMANDS:
                    options = [word[2:] for word in words[3:] if word.startswith("--") and word[2:] not in AWS_OPTIONS]
                    asked.append([words[1], words[2], options])
                elif words[0] not in ("alert-archive", "make", "aws"):
                    self.assertIn(words[0], EXEMPT)
                for named in (word for word in words if word.startswith(("fixtures/", "local/", "infra/", "bench/"))):
                    self.assertTrue((ROOT / named).exists(), named)
        python = tools.python_packages("requirements.txt") / "bin" / "python"
        ended = subprocess.run([python, "-c", ASK_AWS], input=json.dumps(asked), capture_output=True, text=True,
            timeout=60)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertEqual(json.loads(ended.stdout), [])

    def test_python_names_columns_that_the_archive_has(self):
        schema = (ROOT / "crates" / "columnar" / "src" / "lib.rs").read_text()
        found = blocks("python")
        self.assertGreater(len(found), 1)
        for page, _, text in found:
            tree = ast.parse(text)
            for keyword in (node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "columns"):
                for column in ast.literal_eval(keyword.value):
                    self.assertTrue(column == "date" or f'Field::new("{column}"' in schema, f"{page}: {column}")

    def test_every_page_that_is_linked_exists(self):
        for page in PAGES:
            for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
                self.assertTrue((page.parent / target).exists(), f"{page.name} links {target}")

    def test_the_queries_run_as_they_stand(self):
        python = tools.python_packages("requirements.txt") / "bin" / "python"  # the local cloud's, which brings DuckDB
        queries = [text for page, mark, text in blocks("sql") if page == "docs/query.md" and mark != "aws"]
        self.assertEqual(len(queries), 3)
        with tempfile.TemporaryDirectory() as folder:
            ended = subprocess.run(
                [python, "-c", RUN_QUERIES], cwd=folder, input=json.dumps(queries), capture_output=True, text=True,
                timeout=60)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        by_month, by_field, by_quarter = json.loads(ended.stdout)
        self.assertEqual(by_month, [["2024-07", "high", 3], ["2024-07", "low", 3]])
        self.assertEqual(by_field, [["MSG-2", "Disk 2"]])
        self.assertEqual(len(by_quarter), 1)

    def test_the_queries_of_the_warehouse_run_as_they_stand(self):
        python = tools.python_packages("requirements.txt") / "bin" / "python"
        queries = [text for page, mark, text in blocks("sql") if page == "docs/warehouse.md" and "read_parquet" in text]
        self.assertEqual(len(queries), 3)
        with tempfile.TemporaryDirectory() as folder:
            ended = subprocess.run(
                [python, "-c", RUN_WAREHOUSE_QUERIES], cwd=folder, input=json.dumps(queries),
                capture_output=True, text=True,
                timeout=60)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        by_city, by_month, customers = json.loads(ended.stdout)
        self.assertEqual(by_city, [["Oslo", "7.50"], ["Rome", "5.00"], [None, "1.00"]])
        self.assertEqual(by_month, [[2024, 1, 3]])
        self.assertEqual(customers, [[1, "Ada", "Oslo"]])
        # The columns are those of the example.
        example = (ROOT / "fixtures" / "warehouse" / "orders.yaml").read_text()
        for word in ("customer_id", "name", "city", "total", "partition: sold", "customer: customer_id"):
            self.assertIn(word, example)

    def test_the_columns_that_athena_is_told_are_those_of_the_archive(self):
        (table,) = [text for _, mark, text in blocks("sql") if mark == "aws" and "CREATE EXTERNAL TABLE" in text]
        told = re.findall(r"(\w+)`? (?:string|timestamp|int|boolean|array<string>)", table.split("PARTITIONED")[0])
        schema = (ROOT / "crates" / "columnar" / "src" / "lib.rs").read_text()
        written = re.findall(r'Field::new\(\s*"(\w+)"', schema.split("static SCHEMA")[1].split("});")[0])
        self.assertEqual(told, written, "docs/query.md: Athena's table is not SCHEMA in crates/columnar/src/lib.rs")
        # Words that mean something in CREATE TABLE; make test-engines asks Hive's parser itself.
        for word in ("timestamp", "date"):
            self.assertIn(f"`{word}` {word}", table)


if __name__ == "__main__":
    unittest.main()
