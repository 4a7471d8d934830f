"""Asks the warehouse with DuckDB what it asks PostgreSQL, over the tables of fixtures/warehouse, and names differences.

Usage: alert-archive warehouse status --json | compare_warehouse.py
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import boto3
import duckdb

# The same question twice: to DuckDB over the star, to PostgreSQL over its own tables and over history.customer.
CUSTOMERS = "concat_ws('|', {}) ".format(", ".join(
    ["customer_id", "name", "coalesce(email, '-')", "city", "segment", "credit_limit"]))
QUESTIONS = {
    "customers as they are now": (
        f"SELECT {CUSTOMERS} FROM dim_customer WHERE is_current AND customer_key > 0",
        f"SELECT {CUSTOMERS} FROM customer"),
    "json, lists and infinite dates of customers": (
        "SELECT concat_ws('|', customer_id, profile, array_to_string(list_transform(tags, lambda t: coalesce(t,"
        " 'null')), '~'), born)"
        " FROM dim_customer WHERE is_current AND customer_key > 0",
        "SELECT concat_ws('|', customer_id, replace(profile::text, E'\\n', ''), array_to_string(tags, '~', 'null'),"
        " CASE born WHEN 'infinity' THEN '9999-12-31' ELSE born END) FROM customer"),
    "versions of customers": (
        "SELECT concat_ws('|', customer_id, city, segment, credit_limit, is_deleted, epoch_us(valid_from),"
        " CASE WHEN is_current THEN 0 ELSE epoch_us(valid_to) END) FROM dim_customer WHERE customer_key > 0",
        "SELECT concat_ws('|', customer_id, city, segment, credit_limit, CASE WHEN is_deleted THEN 'true' ELSE"
        " 'false' END,"
        " (extract(epoch FROM valid_from) * 1000000)::bigint, coalesce((extract(epoch FROM lead(valid_from) OVER"
        " (PARTITION BY customer_id ORDER BY valid_from)) * 1000000)::bigint, 0)) FROM history.customer"),
    "exactly one version is current": (
        "SELECT count(*) || '|' || count(DISTINCT customer_id) FROM dim_customer WHERE is_current AND customer_key > 0",
        "SELECT count(*) || '|' || count(*) FROM customer"),
    "products with their bytes and doubles": (
        "SELECT concat_ws('|', sku, title, category, supplier_id, list_price, printf('%.9f', weight),"
        " lower(hex(picture)))"
        " FROM dim_product WHERE is_current AND NOT is_deleted AND product_key > 0",
        "SELECT concat_ws('|', sku, title, category, supplier_id, list_price, weight::numeric(30, 9),"
        " encode(picture, 'hex'))"
        " FROM product"),
    "suppliers, NaN and infinity": (
        "SELECT concat_ws('|', supplier_id, name, country, isnan(rating), isinf(rating)) FROM dim_supplier WHERE"
        " supplier_key > 0",
        "SELECT concat_ws('|', supplier_id, name, country, CASE WHEN rating = 'NaN' THEN 'true' ELSE 'false' END,"
        " CASE WHEN rating = 'Infinity' THEN 'true' ELSE 'false' END) FROM supplier"),
    "employees that are left": (
        "SELECT concat_ws('|', employee_id, name, role, store_id) FROM dim_employee WHERE NOT is_deleted AND"
        " employee_key > 0",
        "SELECT concat_ws('|', employee_id, name, role, store_id) FROM employee"),
    "sales": (
        "SELECT concat_ws('|', sale_id, coalesce(channel, '-'), total, epoch_us(sold_at), due_date_key,"
        " sold_date_key) FROM fact_sale",
        "SELECT concat_ws('|', sale_id, coalesce(channel, '-'), total, (extract(epoch FROM sold_at) * 1000000)::bigint,"
        " CASE due_on WHEN 'infinity' THEN '-1' ELSE to_char(due_on, 'YYYYMMDD') END,"
        " to_char(sold_at AT TIME ZONE 'UTC', 'YYYYMMDD')) FROM sale"),
    "turnover by the city of the time of sale": (
        "SELECT coalesce(c.city, CASE s.customer_key WHEN -2 THEN 'none' ELSE 'unknown' END) || '|' || sum(s.total)"
        " FROM fact_sale s JOIN dim_customer c USING (customer_key) GROUP BY c.city, s.customer_key < 0,"
        " s.customer_key = -2,"
        " CASE s.customer_key WHEN -2 THEN 'none' ELSE 'unknown' END",
        "SELECT city || '|' || sum(total) FROM (SELECT s.total, CASE WHEN s.customer_id IS NULL THEN 'none' ELSE"
        " coalesce("
        " (SELECT h.city FROM history.customer h WHERE h.customer_id = s.customer_id AND h.valid_from <= s.sold_at"
        "  ORDER BY valid_from DESC LIMIT 1),"
        " (SELECT h.city FROM history.customer h WHERE h.customer_id = s.customer_id ORDER BY valid_from LIMIT 1),"
        " 'unknown') END AS city FROM sale s) x GROUP BY city"),
    "turnover by segment and month": (
        "SELECT concat_ws('|', c.segment, d.year, d.month, sum(s.total)) FROM fact_sale s JOIN dim_customer c USING"
        " (customer_key)"
        " JOIN dim_date d ON d.date_key = s.sold_date_key WHERE customer_key > 0 GROUP BY c.segment, d.year, d.month",
        "SELECT concat_ws('|', c.segment, extract(year FROM sold_at AT TIME ZONE 'UTC')::integer,"
        " extract(month FROM sold_at AT TIME ZONE 'UTC')::integer, sum(total)) FROM sale JOIN customer c USING"
        " (customer_id)"
        " GROUP BY c.segment, extract(year FROM sold_at AT TIME ZONE 'UTC'), extract(month FROM sold_at AT TIME ZONE"
        " 'UTC')"),
    "lines by product": (
        "SELECT concat_ws('|', l.sale_id, l.line_no, coalesce(p.sku, 'unknown'), l.quantity, l.amount) FROM"
        " fact_sale_line l"
        " JOIN dim_product p USING (product_key) WHERE NOT l.is_deleted AND (p.sku IS NULL OR NOT EXISTS"
        " (SELECT 1 FROM dim_product q WHERE q.sku = p.sku AND q.is_current AND q.is_deleted))",
        "SELECT concat_ws('|', sale_id, line_no, coalesce(p.sku, 'unknown'), quantity, amount) FROM sale_line l"
        " LEFT JOIN product p USING (sku) WHERE p.sku IS NOT NULL OR l.sku NOT IN (SELECT sku FROM gone)"),
    "deliveries by store": (
        "SELECT concat_ws('|', d.delivery_id, s.store_id, s.region, epoch_us(d.sent_at),"
        " coalesce(d.arrived_date_key, 0))"
        " FROM fact_delivery d JOIN dim_store s ON s.store_key = d.from_store_key",
        "SELECT concat_ws('|', delivery_id, s.store_id, s.region, (extract(epoch FROM sent_at) * 1000000)::bigint,"
        " coalesce(to_char(arrived_at, 'YYYYMMDD'), '-2')) FROM delivery JOIN store s USING (store_id)"),
}


def postgresql(question: str) -> list[str]:
    # Products that the warehouse knows as deleted: a line of theirs has its last version there, and nothing here.
    gone = (
        "WITH gone AS (SELECT 'P-' || n AS sku FROM generate_series(1,"
        " (SELECT max(substr(sku, 3)::integer) FROM product)) n EXCEPT SELECT sku FROM product) ")
    psql, url = os.environ.get("PSQL", "psql"), os.environ["ALERT_ARCHIVE_DATABASE_URL"]
    command = [psql, url, "-XAtq", "-v", "ON_ERROR_STOP=1"]
    asked = subprocess.run(
        [*command, "-c", "SET TimeZone = 'UTC'", "-c", "SET extra_float_digits = 1", "-R", "\x1e",
            "-c", gone + question],
        capture_output=True, text=True, check=True)
    return sorted(filter(None, asked.stdout.removesuffix("\n").split("\x1e")))


def fetch(status: dict, folder: Path) -> None:
    s3 = boto3.client("s3", endpoint_url=os.environ.get("AWS_ENDPOINT_URL"))
    for table in status["tables"]:
        bucket, _, prefix = table["location"].removeprefix("s3://").partition("/")
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for found in page.get("Contents", []):
                file = folder / table["table"] / found["Key"].removeprefix(prefix).lstrip("/")
                file.parent.mkdir(parents=True, exist_ok=True)
                s3.download_file(bucket, found["Key"], str(file))


def main() -> int:
    status = json.load(sys.stdin)
    differences = 0
    with tempfile.TemporaryDirectory() as folder:
        fetch(status, Path(folder))
        warehouse = duckdb.connect()
        warehouse.sql("SET TimeZone = 'UTC'")
        for table in status["tables"]:
            name = table["table"]
            source = f"read_parquet('{folder}/{name}/**/*.parquet', hive_partitioning = true)"
            warehouse.sql(f"CREATE VIEW {name} AS SELECT * FROM {source}")
            rows = warehouse.sql(f"SELECT count(*) FROM {name}").fetchall()[0][0]
            if rows != table["rows"]:
                print(f"{name}: {rows} rows, the status says {table['rows']}")
                differences += 1
        for name, (of_warehouse, of_database) in QUESTIONS.items():
            found = sorted(row[0] for row in warehouse.sql(of_warehouse).fetchall())
            expected = postgresql(of_database)
            if found == expected:
                print(f"equal: {name} ({len(found)} rows)")
                continue
            differences += 1
            print(f"DIFFERENT: {name}: {len(found)} rows here, {len(expected)} in PostgreSQL")
            for what, some in (("only here", set(found) - set(expected)), ("only there", set(expected) - set(found))):
                for row in sorted(some)[:3]:
                    print(f"    {what}: {row!r}")
    return 1 if differences else 0


sys.exit(main())
