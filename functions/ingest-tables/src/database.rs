//! PostgreSQL: one connection a table, read only, in one snapshot, with a time limit.

use crate::Error;
use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_secretsmanager::error::DisplayErrorContext;
use runtime::Config;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio_postgres::{Client, Row, RowStream, config::SslMode, types::ToSql};
use tokio_postgres_rustls::MakeRustlsConnect;
use warehouse::{schema::Table, time};
use warehouse_state::SourceColumn;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(600);
const ROWS_PER_SECOND: u64 = 100_000;
/// How far behind the stored timestamp a read begins in any case. A transaction has its start a moment before it is to
/// be seen among those that run: what it writes at that very moment must still be ahead.
const OVERLAP_MICROS: i64 = 5_000_000;

/// Names for a row and a key in a statement. With `.*` they are the row, also where a column has the same name.
const ROW: &str = "\"alert-archive row\"";
const KEY: &str = "\"alert-archive key\"";

/// Where credentials lie.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// The text of a secret; else what stands in the way.
    async fn read(&self, name: &str) -> Result<String, String>;
}

#[async_trait]
impl Secrets for aws_sdk_secretsmanager::Client {
    async fn read(&self, name: &str) -> Result<String, String> {
        let found = self.get_secret_value().secret_id(name).send().await;
        let found = found.map_err(|error| DisplayErrorContext(&error).to_string())?;
        found.secret_string.ok_or_else(|| "holds no text".to_owned())
    }
}

pub struct Database {
    secrets: Box<dyn Secrets>,
    secret: String,
    /// Of one statement, which is the read of one table.
    pub read_timeout: Duration,
    pub rows_per_second: u64,
}

/// As Secrets Manager and RDS write it.
#[derive(Deserialize)]
struct Credentials {
    username: String,
    password: String,
    host: String,
    #[serde(default = "port")]
    port: u16,
    #[serde(alias = "database")]
    dbname: String,
    /// `disable` for a database on this machine; else TLS with a verified certificate.
    #[serde(default)]
    sslmode: Option<String>,
}

fn port() -> u16 {
    5432
}

impl Database {
    pub fn from_env(aws: &SdkConfig, config: &mut Config) -> Self {
        Database {
            secrets: Box::new(aws_sdk_secretsmanager::Client::new(aws)),
            secret: config.required("ALERT_ARCHIVE_DATABASE_SECRET"),
            read_timeout: Duration::from_secs(
                config.parsed("ALERT_ARCHIVE_READ_TIMEOUT_SECONDS", READ_TIMEOUT.as_secs()),
            ),
            rows_per_second: config.parsed("ALERT_ARCHIVE_READ_ROWS_PER_SECOND", ROWS_PER_SECOND),
        }
    }

    /// Logs in with that secret.
    pub fn over(secrets: impl Secrets + 'static, secret: &str) -> Self {
        let secret = secret.to_owned();
        Database { secrets: Box::new(secrets), secret, read_timeout: READ_TIMEOUT, rows_per_second: ROWS_PER_SECOND }
    }

    /// A connection in which nothing was read yet. The secret is read each time, so that a rotation needs no restart.
    pub async fn connect(&self) -> Result<Session, Error> {
        let credentials = self.credentials().await?;
        let mut config = tokio_postgres::Config::new();
        config.host(&credentials.host).port(credentials.port).dbname(&credentials.dbname);
        config.user(&credentials.username).password(&credentials.password);
        config.application_name("alert-archive ingest-tables").connect_timeout(CONNECT_TIMEOUT);
        let is_plain = credentials.sslmode.as_deref() == Some("disable");
        config.ssl_mode(if is_plain { SslMode::Disable } else { SslMode::Require });
        let failed = |error: tokio_postgres::Error| match Error::of("the database", error) {
            Error::Connection { source: Some(error), .. } => {
                Error::Connection { what: "could not be reached".to_owned(), source: Some(error) }
            }
            other => other,
        };
        let (client, connection) = config.connect(tls()?).await.map_err(failed)?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = errors::describe(&error), "the connection ended");
            }
        });
        let session = Session { client, driver };
        let timeout = self.read_timeout.as_millis();
        let settings = format!(
            "SET statement_timeout = {timeout}; SET lock_timeout = '10s'; SET TimeZone = 'UTC'; SET DateStyle = 'ISO, MDY'; \
             SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 1; \
             SET row_security = off; SET default_transaction_read_only = on"
        );
        session.client.batch_execute(&settings).await.map_err(|error| Error::of("the settings", error))?;
        Ok(session)
    }

    async fn credentials(&self) -> Result<Credentials, Error> {
        let failed = |what: String| Error::Secret { secret: self.secret.clone(), what };
        let text = self.secrets.read(&self.secret).await.map_err(failed)?;
        // The message of the parser names what is missing and never a value.
        serde_json::from_str(&text).map_err(|error| failed(format!("is not as it should be: {:?}", error.classify())))
    }
}

fn tls() -> Result<MakeRustlsConnect, Error> {
    let mut roots = RootCertStore::empty();
    // SSL_CERT_FILE names other certificates, such as those of RDS.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config =
        config.map_err(|error| Error::Connection { what: format!("speaks no TLS of ours: {error}"), source: None })?;
    Ok(MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth()))
}

pub struct Session {
    client: Client,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What holds of the moment before the snapshot.
pub struct Horizon {
    /// Start of the oldest transaction that was running, at the latest now; microseconds since 1970.
    pub bound: i64,
    /// A transaction is prepared: when it began is not known.
    pub has_prepared: bool,
}

impl Session {
    /// Looks at the running transactions, then takes the snapshot: what begins between the two writes with a later time
    /// than the bound, and what ends between them is in the snapshot.
    pub async fn begin(&self) -> Result<Horizon, Error> {
        let sql = "SELECT least(clock_timestamp(), (SELECT min(xact_start) FROM pg_catalog.pg_stat_activity \
                     WHERE datname = current_database() AND pid <> pg_backend_pid() \
                       AND backend_type NOT IN ('autovacuum worker', 'walsender')))::text, \
                   pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), \
                   EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts WHERE database = current_database())";
        let row = self.client.query_one(sql, &[]).await.map_err(|error| Error::of("pg_stat_activity", error))?;
        if !row.get::<_, bool>(1) {
            let what = "the role is no member of pg_read_all_stats: it cannot see when other transactions began";
            return Err(Error::Denied { what: what.to_owned() });
        }
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        self.client.batch_execute(begin).await.map_err(|error| Error::of("the snapshot", error))?;
        Ok(Horizon { bound: instant("pg_stat_activity", &row, 0)?, has_prepared: row.get(2) })
    }

    /// The time of the snapshot in microseconds since 1970, at the latest.
    pub async fn now(&self) -> Result<i64, Error> {
        let row = self.client.query_one("SELECT clock_timestamp()::text", &[]).await;
        instant("the clock", &row.map_err(|error| Error::of("the clock", error))?, 0)
    }

    /// The table's columns in their order; none where there is no such table.
    pub async fn columns(&self, table: &str) -> Result<Vec<SourceColumn>, Error> {
        // A domain is described by the type below it.
        let sql = "SELECT a.attname::text, format_type(coalesce(nullif(t.typbasetype, 0), a.atttypid), \
                     CASE WHEN t.typbasetype = 0 THEN a.atttypmod ELSE t.typtypmod END) \
                   FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
                   WHERE n.nspname = 'public' AND c.relname = $1::text::name AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
                     AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
        let rows = self.client.query(sql, &[&table]).await.map_err(|error| Error::of(table, error))?;
        Ok(rows.iter().map(|row| SourceColumn { name: row.get(0), of: row.get(1) }).collect())
    }

    /// Streams (line, key, cursor) of the rows from `since` on, or of all. `since` is in microseconds since 1970.
    pub async fn rows(&self, table: &Table, since: Option<i64>) -> Result<RowStream, Error> {
        let (name, key, cursor) = (quoted(&table.name), key_of(table), cursor_of(table));
        let select = format!("SELECT row_to_json({ROW}.*)::text, {key}, ({cursor})::text FROM public.{name} {ROW}");
        let Some(since) = since else { return self.stream(table, &select, &[]).await };
        let columns: Vec<String> =
            table.cursor.iter().map(|at| format!("{ROW}.{}", quoted(&table.columns[*at].name))).collect();
        // Written so that an index on each cursor column can be used. Null and infinite cursors come every time.
        let newer = columns.iter().map(|column| format!("{column} >= $1::text::timestamptz"));
        let never = columns.iter().map(|column| format!("({column} IS NULL OR {column} = '-infinity')"));
        let (newer, never) = (newer.collect::<Vec<_>>().join(" OR "), never.collect::<Vec<_>>().join(" AND "));
        let behind = i64::try_from(table.lookback.as_micros()).unwrap_or(i64::MAX).saturating_add(OVERLAP_MICROS);
        let since = since.saturating_sub(behind);
        // Before the year 1 a time is not written as PostgreSQL reads it.
        let since = if since < time::FIRST { "-infinity".to_owned() } else { time::text(since) };
        self.stream(table, &format!("{select} WHERE ({newer}) OR ({never})"), &[&since]).await
    }

    async fn stream(&self, table: &Table, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<RowStream, Error> {
        let parameters = parameters.iter().map(|parameter| *parameter as &dyn ToSql);
        let rows = self.client.query_raw(sql, parameters.collect::<Vec<_>>()).await;
        rows.map_err(|error| Error::of(&table.name, error))
    }

    /// Streams the keys of all rows.
    pub async fn keys(&self, table: &Table) -> Result<RowStream, Error> {
        let sql = format!("SELECT {} FROM public.{} {ROW}", key_of(table), quoted(&table.name));
        self.stream(table, &sql, &[]).await
    }

    /// Streams the rows with these keys, each a JSON object; as [`Session::rows`]. `columns` are the table's.
    pub async fn rows_of(&self, table: &Table, columns: &[SourceColumn], keys: &[&str]) -> Result<RowStream, Error> {
        let (name, key, cursor) = (quoted(&table.name), key_of(table), cursor_of(table));
        let names = table.key.iter().map(|at| quoted(&table.columns[*at].name));
        let join = names.map(|column| format!("{ROW}.{column} = {KEY}.{column}")).collect::<Vec<_>>().join(" AND ");
        // Of the key alone: the other columns may have domains that refuse null.
        let of = table.key.iter().filter_map(|at| columns.iter().find(|other| other.name == table.columns[*at].name));
        let of = of.map(|column| format!("{} {}", quoted(&column.name), column.of)).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT row_to_json({ROW}.*)::text, {key}, ({cursor})::text FROM public.{name} {ROW} \
             JOIN json_to_recordset($1::text::json) AS {KEY}({of}) ON {join}"
        );
        self.stream(table, &sql, &[&format!("[{}]", keys.join(","))]).await
    }
}

/// An identifier as SQL wants it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The key's columns as JSON, as `row_to_json` writes them.
fn key_of(table: &Table) -> String {
    let columns: Vec<_> = table.key.iter().map(|at| format!("{ROW}.{}", quoted(&table.columns[*at].name))).collect();
    format!("(SELECT row_to_json({KEY}.*) FROM (SELECT {}) {KEY})::text", columns.join(", "))
}

/// The greatest cursor that is not null. The session's zone is UTC, which is that of a timestamp without one.
fn cursor_of(table: &Table) -> String {
    let columns = table.cursor.iter().map(|at| format!("{ROW}.{}::timestamptz", quoted(&table.columns[*at].name)));
    format!("GREATEST({})", columns.collect::<Vec<_>>().join(", "))
}

/// The cursor of a row that was streamed, where it is finite; in microseconds since 1970.
pub fn cursor(table: &str, row: &Row, column: usize) -> Result<Option<i64>, Error> {
    let Some(text) = text(table, row, column)? else { return Ok(None) };
    let at = time::timestamptz(text)
        .map_err(|_| Error::Read { table: table.to_owned(), what: "a cursor is no time".to_owned() })?;
    Ok(Some(at).filter(|at| *at != time::INFINITY && *at != time::MINUS_INFINITY))
}

fn instant(what: &str, row: &Row, column: usize) -> Result<i64, Error> {
    cursor(what, row, column)?
        .ok_or_else(|| Error::Read { table: what.to_owned(), what: "there is no time".to_owned() })
}

/// A text of a row that was streamed.
pub fn text<'a>(table: &str, row: &'a Row, column: usize) -> Result<Option<&'a str>, Error> {
    row.try_get(column).map_err(|error| Error::Read { table: table.to_owned(), what: errors::describe(&error) })
}
