//! `alert-archive warehouse`: the schema file, ingests, builds, and what became of them.

use crate::archive;
use anyhow::{Context, Result, bail};
use aws_config::{SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_lambda::primitives::Blob;
use clap::{Args, Subcommand};
use comfy_table::{Table as Grid, presets::NOTHING};
use identity::instant;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use runtime::Config;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use storage::{Objects, Table, sha256_hex};
use warehouse::{
    schema::{Problem, Schema},
    status::Status,
    table,
};
use warehouse_state::{SCHEMA_KEY, Standing, Warehouse as Rows, request_key};

/// How long `--wait` waits for builds.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Args)]
#[command(after_help = "Examples:
  alert-archive warehouse check schema.yaml
  alert-archive warehouse apply schema.yaml --wait
  alert-archive warehouse ingest --wait --json
  alert-archive warehouse ingest --table customer --full
  alert-archive warehouse rebuild --table fact_sale --wait
  alert-archive warehouse rebuild --from 2024-07-01
  alert-archive warehouse status --json | jq '.tables[] | {table, rows, location}'")]
pub struct Warehouse {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Look for mistakes in a schema file; needs no cloud
    #[command(after_help = "Ends with 0 when there are none.

Examples:
  alert-archive warehouse check schema.yaml
  alert-archive warehouse check schema.yaml --json | jq -r '.[] | \"\\(.line) \\(.field): \\(.message)\"'")]
    Check {
        file: PathBuf,
        /// Print JSON: an array of mistakes, each with line, field, error and message
        #[arg(long)]
        json: bool,
    },
    /// Put a schema file in force; what it changes is built anew from the JSON lines
    #[command(after_help = "Examples:
  alert-archive warehouse apply schema.yaml --wait")]
    Apply {
        file: PathBuf,
        /// Return when all that landed is built by this file
        #[arg(long)]
        wait: bool,
    },
    /// Read what is new in the database
    #[command(after_help = "Examples:
  alert-archive warehouse ingest --wait --json
  alert-archive warehouse ingest --table customer --full")]
    Ingest {
        /// Only this table; may be given several times
        #[arg(long)]
        table: Vec<String>,
        /// Read all rows, also those older than the stored timestamp
        #[arg(long)]
        full: bool,
        /// Return when all that landed is built
        #[arg(long)]
        wait: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Build tables anew from the JSON lines
    #[command(after_help = "Examples:
  alert-archive warehouse rebuild --wait
  alert-archive warehouse rebuild --table fact_sale --table dim_customer --wait --json
  alert-archive warehouse rebuild --from 2024-07-01")]
    Rebuild {
        /// Only this table, or all that comes from this source; may be given several times
        #[arg(long)]
        table: Vec<String>,
        /// Only what is made of objects from this time on, such as 2024-07-01 or 2024-07-01T12:00:00Z (UTC)
        #[arg(long, value_parser = moment)]
        from: Option<Timestamp>,
        /// Return when they are built
        #[arg(long)]
        wait: bool,
        /// Print JSON: with --wait the status afterwards, else where the request lies
        #[arg(long)]
        json: bool,
    },
    /// Show sources, tables, gaps, failures and changes of the source's columns
    #[command(after_help = "Examples:
  alert-archive warehouse status
  alert-archive warehouse status --json | jq -r '.tables[] | select(.table == \"fact_sale\").location'")]
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl Warehouse {
    pub async fn call(self) -> Result<bool> {
        match self.command {
            Command::Check { file, json } => check(&file, json),
            Command::Apply { file, wait } => apply(&file, wait).await,
            Command::Ingest { table, full, wait, json } => ingest(table, full, wait, json).await,
            Command::Rebuild { table, from, wait, json } => rebuild(table, from, wait, json).await,
            Command::Status { json } => {
                let status = Deployed::from_env().await?.status().await?;
                print_status(&status, json)?;
                Ok(true)
            }
        }
    }
}

/// The deployed warehouse, as the environment names it.
struct Deployed {
    ingestion: Objects,
    warehouse: Objects,
    feeds: Option<Objects>,
    rows: Rows,
}

impl Deployed {
    async fn from_env() -> Result<Self> {
        let mut config = Config::default();
        let ingestion = config.required("ALERT_ARCHIVE_INGESTION_BUCKET");
        let warehouse = config.required("ALERT_ARCHIVE_WAREHOUSE_BUCKET");
        let feeds = config.optional("ALERT_ARCHIVE_FEEDS_BUCKET");
        let table = config.required("ALERT_ARCHIVE_WAREHOUSE_TABLE");
        config.check().context("the warehouse is not named; in a checkout, run: eval \"$(make -s env)\"")?;
        let aws = archive::aws().await?;
        Ok(Deployed {
            ingestion: Objects::new(&aws, ingestion),
            warehouse: Objects::new(&aws, warehouse),
            feeds: feeds.map(|bucket| Objects::new(&aws, bucket)),
            rows: Rows::new(Table::new(&aws, table.clone()), Table::new(&aws, table)),
        })
    }

    /// The schema file in force, and its sha256 in hex.
    async fn schema(&self) -> Result<(Schema, String)> {
        let text = self.warehouse.find(SCHEMA_KEY).await?;
        let text = text.context("no schema file is in force: alert-archive warehouse apply FILE")?;
        let schema = Schema::parse(&text).map_err(|problems| {
            anyhow::anyhow!("the schema file in force has mistakes; the first: {}", problems[0].message)
        })?;
        Ok((schema, sha256_hex(&text)))
    }

    async fn status(&self) -> Result<Status> {
        let (schema, digest) = self.schema().await?;
        let standing = Standing::read(&self.rows, &self.warehouse, &schema).await?;
        let pending = standing.pending(&schema, &self.ingestion, self.feeds.as_ref(), &self.warehouse).await?;
        Ok(standing.status(&schema, &digest, pending, &self.warehouse))
    }

    /// Waits until all that landed is built; `true` when no build failed. What an ingest has failed at is its own
    /// answer.
    async fn wait(&self) -> Result<bool> {
        let style =
            ProgressStyle::with_template("{spinner} {msg} ({elapsed})").unwrap_or(ProgressStyle::default_spinner());
        let spinner = ProgressBar::new_spinner().with_style(style);
        spinner.enable_steady_tick(Duration::from_millis(100));
        let began = Instant::now();
        loop {
            let status = self.status().await?;
            if status.up_to_date {
                spinner.finish_and_clear();
                let failed: Vec<_> = status.failures.iter().filter(|failure| !failure.is_of_ingest()).collect();
                for failure in &failed {
                    eprintln!("failed: {} {} {}: {}", failure.table, failure.object, failure.error, failure.message);
                }
                return Ok(failed.is_empty());
            }
            if began.elapsed() > PATIENCE {
                bail!("{} objects are still waiting; see alert-archive warehouse status", status.pending);
            }
            let failure = status.failures.iter().find(|failure| failure.table.is_empty());
            let trouble = failure.map(|failure| format!(", last build: {}", failure.error)).unwrap_or_default();
            spinner.set_message(format!("building, {} objects wait{trouble}", status.pending));
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A time, or the midnight of a date in UTC.
fn moment(text: &str) -> Result<Timestamp, String> {
    instant::parse(text).ok_or_else(|| "it is neither a date nor a time".to_owned())
}

fn read_schema(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))
}

fn print_problems(file: &Path, problems: &[Problem]) {
    for Problem { line, field, error, message } in problems {
        eprintln!("{}:{line}: {field}: {error}: {message}", file.display());
    }
}

fn check(file: &Path, json: bool) -> Result<bool> {
    let problems = Schema::parse(&read_schema(file)?).err().unwrap_or_default();
    if json {
        say!("{}", serde_json::to_string_pretty(&problems)?);
    } else if problems.is_empty() {
        say!("{} is in order", file.display());
    } else {
        print_problems(file, &problems);
    }
    Ok(problems.is_empty())
}

async fn apply(file: &Path, wait: bool) -> Result<bool> {
    let text = read_schema(file)?;
    if let Err(problems) = Schema::parse(&text) {
        print_problems(file, &problems);
        eprintln!("nothing was applied");
        return Ok(false);
    }
    let deployed = Deployed::from_env().await?;
    deployed.warehouse.put(SCHEMA_KEY, text, "application/yaml").await?;
    say!("{} is in force as {}", file.display(), deployed.warehouse.uri(SCHEMA_KEY));
    if wait { deployed.wait().await } else { Ok(true) }
}

async fn ingest(tables: Vec<String>, full: bool, wait: bool, json: bool) -> Result<bool> {
    let mut config = Config::default();
    let function = config.required("ALERT_ARCHIVE_INGEST_TABLES_FUNCTION");
    config.check().context("the warehouse is not named; in a checkout, run: eval \"$(make -s env)\"")?;
    let request = if tables.is_empty() { json!({"full": full}) } else { json!({"tables": tables, "full": full}) };
    let lambda = aws_sdk_lambda::Client::from_conf(patient(&archive::aws().await?));
    let invoked = lambda.invoke().function_name(&function).payload(Blob::new(request.to_string())).send().await;
    let invoked = invoked.with_context(|| format!("{function} could not be called"))?;
    let payload = invoked.payload.map(Blob::into_inner).unwrap_or_default();
    let answer: Value = serde_json::from_slice(&payload).with_context(|| format!("{function} returned no JSON"))?;
    if invoked.function_error.is_some() {
        let part = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        bail!("{}: {}", part("errorType"), part("errorMessage"));
    }
    let went_well = answer["failures"].as_array().is_some_and(Vec::is_empty);
    // Waits first, so that a script reads the answer when its tables are there.
    let is_built = if wait { Deployed::from_env().await?.wait().await? } else { true };
    if json {
        say!("{}", serde_json::to_string_pretty(&answer)?);
    } else {
        print_ingested(&answer)?;
    }
    Ok(went_well && is_built)
}

/// A call may take as long as a Lambda may run. It is not made again: the first one would still be at work.
fn patient(aws: &SdkConfig) -> aws_sdk_lambda::Config {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .disable_operation_attempt_timeout()
        .operation_timeout(Duration::from_secs(16 * 60))
        .build();
    let config = aws_sdk_lambda::config::Builder::from(aws).timeout_config(timeouts);
    config.retry_config(RetryConfig::disabled()).build()
}

async fn rebuild(tables: Vec<String>, from: Option<Timestamp>, wait: bool, json: bool) -> Result<bool> {
    let deployed = Deployed::from_env().await?;
    check_names(&deployed.schema().await?.0, &tables)?;
    let key = request_key(&Timestamp::now().strftime("%Y%m%dT%H%M%S.%9fZ").to_string());
    let request = serde_json::to_vec(&json!({"tables": tables, "from": from}))?;
    deployed.warehouse.put(&key, request, "application/json").await?;
    if wait {
        let is_built = deployed.wait().await?;
        if json {
            print_status(&deployed.status().await?, json)?;
        }
        return Ok(is_built);
    }
    if json {
        say!("{}", json!({"request": deployed.warehouse.uri(&key)}));
    } else {
        say!("asked for; follow it with: alert-archive warehouse status");
    }
    Ok(true)
}

/// A request that names nothing would be done at once, without anything being built.
fn check_names(schema: &Schema, tables: &[String]) -> Result<()> {
    let sources = schema.tables.iter().map(|table| table.name.clone());
    let dimensions = schema.dimensions.iter().map(|dimension| table::dimension(schema, dimension).name);
    let dates = schema.date_dimension.iter().map(|_| table::date().name);
    let facts = schema.facts.iter().map(|fact| table::fact(schema, fact).name);
    let known: Vec<String> = sources.chain(dimensions).chain(dates).chain(facts).collect();
    match tables.iter().find(|table| !known.contains(table)) {
        Some(table) => bail!("the schema file in force makes no table {table}; it knows {}", known.join(", ")),
        None => Ok(()),
    }
}

fn plain() -> Grid {
    let mut grid = Grid::new();
    grid.load_preset(NOTHING);
    grid
}

fn print_ingested(answer: &Value) -> Result<()> {
    let mut grid = plain();
    grid.set_header(["table", "rows", "deleted", "objects", "next read from", "last id"]);
    for table in answer["tables"].as_array().into_iter().flatten() {
        let objects = table["objects"].as_array().map_or(0, Vec::len);
        grid.add_row([
            text(&table["table"]),
            text(&table["rows"]),
            text(&table["deleted"]),
            objects.to_string(),
            text(&table["timestamp"]),
            text(&table["sequential_id"]),
        ]);
    }
    say!("{grid}");
    for failure in answer["failures"].as_array().into_iter().flatten() {
        eprintln!("failed: {} {}: {}", text(&failure["table"]), text(&failure["error"]), text(&failure["message"]));
    }
    Ok(())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn print_status(status: &Status, json: bool) -> Result<()> {
    if json {
        say!("{}", serde_json::to_string_pretty(status)?);
        return Ok(());
    }
    let mut sources = plain();
    sources.set_header(["source", "lines built", "reaches to", "last id", "gaps", "quarantined", "changed columns"]);
    for source in &status.sources {
        let changes = source.schema_changes.iter().map(|change| format!("{} {}", change.column, change.change));
        sources.add_row([
            source.table.clone(),
            source.rows.to_string(),
            source.timestamp.clone().unwrap_or_else(|| "-".to_owned()),
            source.sequential_id.to_string(),
            source.gaps.iter().map(|(from, to)| format!("{from}-{to}")).collect::<Vec<_>>().join(" "),
            source.quarantined.to_string(),
            changes.collect::<Vec<_>>().join(", "),
        ]);
    }
    let mut tables = plain();
    tables.set_header(["table", "rows", "location"]);
    for table in &status.tables {
        tables.add_row([table.table.clone(), table.rows.to_string(), table.location.clone()]);
    }
    say!("{sources}\n\n{tables}\n\n{} objects wait to be built", status.pending);
    for failure in &status.failures {
        say!("failed: {} {} {}: {}", failure.table, failure.object, failure.error, failure.message);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ingest_is_called_once_and_waited_for_as_long_as_it_may_run() {
        let attempt = Duration::from_secs(60);
        let timeouts =
            TimeoutConfig::builder().operation_attempt_timeout(attempt).operation_timeout(3 * attempt).build();
        let aws = SdkConfig::builder().timeout_config(timeouts).retry_config(RetryConfig::standard()).build();
        let config = patient(&aws);
        assert_eq!(config.retry_config().map(RetryConfig::max_attempts), Some(1));
        let timeouts = config.timeout_config().expect("timeouts");
        assert_eq!(timeouts.operation_attempt_timeout(), None);
        assert!(timeouts.operation_timeout() > Some(Duration::from_secs(15 * 60)));
    }

    #[test]
    fn a_rebuild_of_a_table_that_nothing_makes_is_refused_with_the_names_there_are() {
        let example = include_bytes!("../../../fixtures/warehouse/orders.yaml");
        let schema = Schema::parse(example).expect("the example");
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        check_names(&schema, &[]).expect("all of them");
        check_names(&schema, &names(&["sale", "fact_sale", "dim_customer", "dim_date"])).expect("they are made");
        let error = check_names(&schema, &names(&["fact_sale", "fact_sales"])).expect_err("a misspelled name");
        assert!(
            error.to_string().starts_with("the schema file in force makes no table fact_sales; it knows customer,")
        );
    }
}
