//! PostgreSQL: one connection a table, read only, in one snapshot, with a time limit.

use crate::{Error, spelling::Kind, spool::SLICES};
use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_secretsmanager::error::DisplayErrorContext;
use runtime::Config;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::Deserialize;
use std::{collections::HashSet, ops::Range, sync::Arc, time::Duration};
use storage::Objects;
use tokio_postgres::{Client, Row, RowStream, config::SslMode, types::ToSql};
use tokio_postgres_rustls::MakeRustlsConnect;
use warehouse::{schema::Table, time, value::Type};
use warehouse_state::SourceColumn;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(600);
const ROWS_PER_SECOND: u64 = 100_000;
/// How far behind the stored timestamp a read begins in any case. A transaction has its start a moment before it is to
/// be seen among those that run: what it writes at that very moment must still be ahead.
const OVERLAP_MICROS: i64 = 5_000_000;

/// A session that ends in the middle of its transaction looks for a moment as if it hid when that began: so often, and
/// so far apart, is looked before it is believed.
const LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

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
    /// For secrets that name no host, port or database, as those that RDS manages.
    pub place: Place,
    /// Key, in the warehouse bucket, of the PEM file with the only authorities to be trusted; `None`: the system's.
    pub authorities: Option<String>,
    /// Of one statement, which is the read of one table.
    pub read_timeout: Duration,
    pub rows_per_second: u64,
}

/// Where the database is.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub name: Option<String>,
}

/// As Secrets Manager and RDS write it.
#[derive(Deserialize)]
struct Credentials {
    username: String,
    password: String,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default, alias = "database")]
    dbname: Option<String>,
    /// `disable` for a database on this machine; else TLS with a verified certificate.
    #[serde(default)]
    sslmode: Option<String>,
}

const PORT: u16 = 5432;

impl Database {
    pub fn from_env(aws: &SdkConfig, config: &mut Config) -> Self {
        Database {
            secrets: Box::new(aws_sdk_secretsmanager::Client::new(aws)),
            secret: config.required("ALERT_ARCHIVE_DATABASE_SECRET"),
            place: Place {
                host: config.optional("ALERT_ARCHIVE_DATABASE_HOST"),
                port: Some(config.parsed("ALERT_ARCHIVE_DATABASE_PORT", PORT)),
                name: config.optional("ALERT_ARCHIVE_DATABASE_NAME"),
            },
            authorities: config.optional("ALERT_ARCHIVE_DATABASE_AUTHORITIES"),
            read_timeout: Duration::from_secs(
                config.parsed("ALERT_ARCHIVE_READ_TIMEOUT_SECONDS", READ_TIMEOUT.as_secs()),
            ),
            rows_per_second: config.parsed("ALERT_ARCHIVE_READ_ROWS_PER_SECOND", ROWS_PER_SECOND),
        }
    }

    /// Logs in with that secret.
    pub fn over(secrets: impl Secrets + 'static, secret: &str) -> Self {
        Database {
            secrets: Box::new(secrets),
            secret: secret.to_owned(),
            place: Place::default(),
            authorities: None,
            read_timeout: READ_TIMEOUT,
            rows_per_second: ROWS_PER_SECOND,
        }
    }

    /// A connection in which nothing was read yet. The secret is read each time, so that a rotation needs no restart.
    /// `warehouse`: the bucket in which authorities lie.
    pub async fn connect(&self, warehouse: &Objects) -> Result<Session, Error> {
        let credentials = self.credentials().await?;
        let missing = |part: &str| Error::Secret {
            secret: self.secret.clone(),
            what: format!("names no {part}, and ALERT_ARCHIVE_DATABASE_{} is not set", part.to_uppercase()),
        };
        let mut config = tokio_postgres::Config::new();
        config.host(credentials.host.as_ref().or(self.place.host.as_ref()).ok_or_else(|| missing("host"))?);
        config.dbname(credentials.dbname.as_ref().or(self.place.name.as_ref()).ok_or_else(|| missing("name"))?);
        config.port(credentials.port.or(self.place.port).unwrap_or(PORT));
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
        let (client, connection) = config.connect(tls(self.roots(warehouse).await?)?).await.map_err(failed)?;
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

    async fn roots(&self, warehouse: &Objects) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        let Some(key) = &self.authorities else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return Ok(roots);
        };
        let unusable = |what: String| Error::Authorities { uri: warehouse.uri(key), what };
        let text = warehouse.find(key).await?.ok_or_else(|| unusable("is not there".to_owned()))?;
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
        if roots.is_empty() { Err(unusable("has no certificate".to_owned())) } else { Ok(roots) }
    }

    async fn credentials(&self) -> Result<Credentials, Error> {
        let failed = |what: String| Error::Secret { secret: self.secret.clone(), what };
        let text = self.secrets.read(&self.secret).await.map_err(failed)?;
        // The message of the parser names what is missing and never a value.
        serde_json::from_str(&text).map_err(|error| failed(format!("is not as it should be: {:?}", error.classify())))
    }
}

fn tls(roots: RootCertStore) -> Result<MakeRustlsConnect, Error> {
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

/// A table as the catalogue has it.
pub struct Relation {
    /// Another one: the table was dropped and made anew. `None`: there is no such table, or it has no columns.
    pub oid: Option<u32>,
    /// In their order.
    pub columns: Vec<SourceColumn>,
}

impl Session {
    /// Looks at the running transactions, then takes the snapshot: what begins between the two writes with a later time
    /// than the bound, and what ends between them is in the snapshot.
    pub async fn begin(&self, table: &Table) -> Result<Horizon, Error> {
        let sql = "WITH others AS (SELECT * FROM pg_catalog.pg_stat_activity \
                     WHERE datname = current_database() AND backend_type NOT IN ('autovacuum worker', 'walsender')) \
                   SELECT least(clock_timestamp(), (SELECT min(xact_start) FROM others WHERE pid <> pg_backend_pid()))::text, \
                   pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), \
                   EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()), \
                   pg_is_in_recovery(), \
                   EXISTS (SELECT FROM others WHERE state = 'disabled' OR xact_start IS NULL AND (state LIKE \
                     'idle in transaction%' OR backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)), \
                   EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                     WHERE n.nspname = 'public' AND c.relname = $1::text::name AND c.relkind IN ('r', 'p', 'v'))";
        let mut looks = 0;
        let row = loop {
            let row = self.client.query_one(sql, &[&table.name]).await;
            let row = row.map_err(|error| Error::of("pg_stat_activity", error))?;
            looks += 1;
            let is_hidden: bool = row.get(4);
            if !is_hidden || looks == LOOKS {
                break row;
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        };
        if row.get(3) {
            let what =
                "it is a read replica, where those of the primary are not to be seen; name the primary in the secret";
            return Err(Error::Hidden { what });
        }
        if !row.get::<_, bool>(1) {
            let what = "the role is no member of pg_read_all_stats: it cannot see when other transactions began";
            return Err(Error::Denied { what: what.to_owned() });
        }
        if row.get(4) {
            let what = "track_activities is off, for all or for some sessions; set it to on";
            return Err(Error::Hidden { what });
        }
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        self.client.batch_execute(begin).await.map_err(|error| Error::of("the snapshot", error))?;
        // A lock takes no snapshot. A table that is being rewritten looks empty in a snapshot from before: with the lock
        // it is waited for, and can only be rewritten after us.
        if row.get(5) {
            let lock = format!("LOCK TABLE public.{} IN ACCESS SHARE MODE", quoted(&table.name));
            self.client.batch_execute(&lock).await.map_err(|error| Error::of(&table.name, error))?;
        }
        Ok(Horizon { bound: instant("pg_stat_activity", &row, 0)?, has_prepared: row.get(2) })
    }

    /// The time of the snapshot in microseconds since 1970, at the latest.
    pub async fn now(&self) -> Result<i64, Error> {
        let row = self.client.query_one("SELECT clock_timestamp()::text", &[]).await;
        instant("the clock", &row.map_err(|error| Error::of("the clock", error))?, 0)
    }

    /// The table as it stands; without columns where there is none.
    pub async fn relation(&self, table: &str) -> Result<Relation, Error> {
        // A domain is described by the type at its bottom.
        let sql = "SELECT c.oid, a.attname::text, format_type(below.type, below.modifier) \
                   FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid \
                   CROSS JOIN LATERAL (WITH RECURSIVE types AS (SELECT a.atttypid AS type, a.atttypmod AS modifier \
                     UNION ALL SELECT t.typbasetype, t.typtypmod \
                       FROM types JOIN pg_catalog.pg_type t ON t.oid = types.type AND t.typtype = 'd') \
                     SELECT types.* FROM types JOIN pg_catalog.pg_type t ON t.oid = types.type \
                       WHERE t.typtype <> 'd') AS below \
                   WHERE n.nspname = 'public' AND c.relname = $1::text::name AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
                     AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
        let rows = self.client.query(sql, &[&table]).await.map_err(|error| Error::of(table, error))?;
        let columns = rows.iter().map(|row| SourceColumn { name: row.get(1), of: row.get(2) }).collect();
        Ok(Relation { oid: rows.first().map(|row| row.get(0)), columns })
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

    /// Streams the keys of all rows, or of those in some slices of [`SLICES`](crate::spool::SLICES).
    pub async fn keys(&self, table: &Table, slices: &Range<usize>) -> Result<RowStream, Error> {
        let (key, name) = (key_of(table), quoted(&table.name));
        if *slices == (0..SLICES) {
            return self.stream(table, &format!("SELECT {key} FROM public.{name} {ROW}"), &[]).await;
        }
        // As `slice_of`.
        let sql = format!(
            "SELECT {KEY}.key FROM (SELECT {key} AS key FROM public.{name} {ROW}) {KEY} WHERE get_byte(sha256(convert_to(\
             translate({KEY}.key, chr(10) || chr(13), ''), 'UTF8')), 0) BETWEEN {} AND {}",
            slices.start,
            slices.end - 1
        );
        self.stream(table, &sql, &[]).await
    }

    /// Which of these keys, each a JSON object, rows have, however the keys are spelled; by their places. What is text
    /// to PostgreSQL and to the file is another key when it is spelled in another way, also where `=` holds, as it does
    /// for 'a' and 'A' as citext.
    pub async fn standing(
        &self,
        table: &Table,
        columns: &[SourceColumn],
        keys: &[&str],
    ) -> Result<HashSet<usize>, Error> {
        let (names, of) = key_columns(table, columns);
        let is_same = table.key.iter().zip(&names).map(|(at, column)| {
            let equal = format!("{ROW}.{column} = {KEY}.{column}");
            match is_text(table, columns, *at) {
                true => format!("{equal} AND to_json({ROW}.{column})::text = to_json({KEY}.{column})::text"),
                false => equal,
            }
        });
        let is_same: Vec<String> = is_same.collect();
        let sql = format!(
            "SELECT e.n FROM json_array_elements($1::text::json) WITH ORDINALITY AS e(key, n) \
             CROSS JOIN LATERAL json_to_record(e.key) AS {KEY}({of}) \
             WHERE EXISTS (SELECT FROM public.{} {ROW} WHERE {})",
            quoted(&table.name),
            is_same.join(" AND ")
        );
        let failed = |error| Error::of(&table.name, error);
        let mut found = HashSet::new();
        let mut ranges: Vec<Range<usize>> = std::iter::once(0..keys.len()).collect();
        while let Some(range) = ranges.pop() {
            self.client.batch_execute("SAVEPOINT standing").await.map_err(failed)?;
            let some = format!("[{}]", keys[range.clone()].join(","));
            let end = match self.client.query(&sql, &[&some]).await {
                Ok(rows) => {
                    let places = rows.iter().map(|row| row.get::<_, i64>(0) as usize - 1);
                    found.extend(places.map(|place| range.start + place));
                    "RELEASE SAVEPOINT standing"
                }
                // A key that its columns cannot hold any more is in no row of theirs.
                Err(error) if error.code().is_some_and(|code| code.code().starts_with("22")) => {
                    if range.len() > 1 {
                        let middle = range.start + range.len() / 2;
                        ranges.extend([range.start..middle, middle..range.end]);
                    }
                    "ROLLBACK TO SAVEPOINT standing; RELEASE SAVEPOINT standing"
                }
                Err(error) => return Err(failed(error)),
            };
            self.client.batch_execute(end).await.map_err(failed)?;
        }
        Ok(found)
    }

    /// Streams the rows with these keys, each a JSON object; as [`Session::rows`]. `columns` are the table's.
    pub async fn rows_of(&self, table: &Table, columns: &[SourceColumn], keys: &[&str]) -> Result<RowStream, Error> {
        let (name, key, cursor) = (quoted(&table.name), key_of(table), cursor_of(table));
        let (names, of) = key_columns(table, columns);
        let join = names.iter().map(|column| format!("{ROW}.{column} = {KEY}.{column}"));
        let join = join.collect::<Vec<_>>().join(" AND ");
        let sql = format!(
            "SELECT row_to_json({ROW}.*)::text, {key}, ({cursor})::text FROM public.{name} {ROW} \
             JOIN json_to_recordset($1::text::json) AS {KEY}({of}) ON {join}"
        );
        self.stream(table, &sql, &[&format!("[{}]", keys.join(","))]).await
    }
}

/// The names of the key's columns, and the same with their types. Of the key alone: the other columns may have domains
/// that refuse null.
fn key_columns(table: &Table, columns: &[SourceColumn]) -> (Vec<String>, String) {
    let of = table.key.iter().filter_map(|at| columns.iter().find(|other| other.name == table.columns[*at].name));
    let of: Vec<_> = of.map(|column| format!("{} {}", quoted(&column.name), column.of)).collect();
    (table.key.iter().map(|at| quoted(&table.columns[*at].name)).collect(), of.join(", "))
}

/// Whether a column is a text in the file and no number in the table.
fn is_text(table: &Table, columns: &[SourceColumn], at: usize) -> bool {
    let column = &table.columns[at];
    let is_number = columns.iter().any(|other| other.name == column.name && Kind::of(&other.of) == Kind::Number);
    column.of == Type::Text && !is_number
}

/// An identifier as SQL wants it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The key's columns as JSON, as `row_to_json` writes them; null where one of them is null.
fn key_of(table: &Table) -> String {
    let columns: Vec<_> = table.key.iter().map(|at| format!("{ROW}.{}", quoted(&table.columns[*at].name))).collect();
    let columns = columns.join(", ");
    format!(
        "CASE WHEN num_nulls({columns}) = 0 THEN (SELECT row_to_json({KEY}.*) FROM (SELECT {columns}) {KEY})::text END"
    )
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
