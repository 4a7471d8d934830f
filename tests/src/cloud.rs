//! The deployed archive that the tests work on, as the environment names it.

use crate::{functions, http::Http, proxy::Proxies};
use anyhow::{Context, Result, bail, ensure};
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use bytes::Bytes;
use fixtures::{Indices, load::Kind};
use futures::{StreamExt, TryStreamExt, stream};
use hyper::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI16, Ordering};
use tokio::process::Command;

/// An index that says whose cloud it is: only one with it is ever emptied.
const MARK: &str = "alert-archive-pipeline-tests";

const HOW: &str = "The pipeline tests need a local cloud of their own. `make test` starts one and runs them; by hand:\n  \
    export ALERT_ARCHIVE_STATE_DIR=$PWD/.local-test ALERT_ARCHIVE_AWS_PORT=4576 ALERT_ARCHIVE_OPENSEARCH_PORT=9221 ALERT_ARCHIVE_SMTP_PORT=2535\n  \
    export SOURCE=hybrid ALERT_ARCHIVE_API_PORT=9320 ALERT_ARCHIVE_API_SECRET='{\"token\":\"token-of-the-tests\"}'\n  \
    make up && eval \"$(make -s env)\" && cargo test -p pipeline-tests --test pipeline";

pub struct Cloud {
    pub s3: aws_sdk_s3::Client,
    pub dynamodb: aws_sdk_dynamodb::Client,
    pub sfn: aws_sdk_sfn::Client,
    pub http: Http,
    pub source: fixtures::load::OpenSearch,
    pub aws_url: String,
    pub opensearch_url: String,
    pub region: String,
    pub bucket: String,
    pub job_runs: String,
    pub windows: String,
    pub tracking: String,
    pub state_machine_arn: String,
    /// Begins the name of every function.
    pub prefix: String,
    pub mail_folder: PathBuf,
    /// Where tests keep what they fetch.
    pub scratch: PathBuf,
    /// The command line.
    pub program: PathBuf,
    /// A Python with DuckDB.
    pub python: PathBuf,
    pub proxies: Proxies,
    pub golden: Vec<fixtures::golden::Golden>,
    years: AtomicI16,
    /// In the names of executions, which are taken for ever.
    since: i64,
}

/// A year of a test's own, and how the ids of its documents begin.
#[derive(Clone, Debug)]
pub struct Stretch {
    pub year: i16,
    pub prefix: String,
}

impl Stretch {
    pub fn from(&self) -> String {
        format!("{}-01-01", self.year)
    }

    pub fn to(&self) -> String {
        format!("{}-01-01", self.year + 1)
    }
}

impl Cloud {
    /// Connects, empties what an earlier test process left, prepares the source and puts the proxies in between.
    pub async fn connect() -> Result<Self> {
        let mut absent = Vec::new();
        let mut variable = |name: &'static str| {
            std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| {
                absent.push(name);
                String::new()
            })
        };
        let (aws_url, opensearch_url) = (variable("AWS_ENDPOINT_URL"), variable("OPENSEARCH_URL"));
        let (bucket, job_runs) = (variable("ALERT_ARCHIVE_BUCKET"), variable("ALERT_ARCHIVE_JOB_RUNS_TABLE"));
        let (windows, tracking) =
            (variable("ALERT_ARCHIVE_WINDOWS_TABLE"), variable("ALERT_ARCHIVE_MESSAGE_TRACKING_TABLE"));
        let (state_machine_arn, region) = (variable("ALERT_ARCHIVE_STATE_MACHINE_ARN"), variable("AWS_REGION"));
        let state = variable("ALERT_ARCHIVE_STATE_DIR");
        ensure!(absent.is_empty(), "Not set: {}. {HOW}", absent.join(", "));
        for url in [&aws_url, &opensearch_url] {
            ensure!(
                ["http://127.0.0.1:", "http://localhost:"].iter().any(|own| url.starts_with(own)),
                "{url} is not on this machine. {HOW}"
            );
        }
        let prefix = job_runs
            .strip_suffix("-job-runs")
            .context("the job-runs table has another name than <prefix>-job-runs")?
            .to_owned();
        let aws = runtime::aws_config().await;
        let s3 = aws_sdk_s3::Client::from_conf(aws_sdk_s3::config::Builder::from(&aws).force_path_style(true).build());
        let state = PathBuf::from(state);
        let mut cloud = Cloud {
            s3,
            dynamodb: aws_sdk_dynamodb::Client::new(&aws),
            sfn: aws_sdk_sfn::Client::new(&aws),
            http: Http::default(),
            source: fixtures::load::OpenSearch::connect(&opensearch_url)?,
            proxies: Proxies::new(&aws_url, &opensearch_url),
            aws_url: aws_url.trim_end_matches('/').to_owned(),
            opensearch_url: opensearch_url.trim_end_matches('/').to_owned(),
            region,
            bucket,
            job_runs,
            windows,
            tracking,
            state_machine_arn,
            prefix,
            mail_folder: state.join("mail"),
            scratch: state.join("tests"),
            program: program()?,
            python: python()?,
            golden: Vec::new(),
            // All of them are over, as the schedule wants it.
            years: AtomicI16::new(1600),
            since: Timestamp::now().as_second(),
        };
        cloud.golden = cloud.begin_anew().await?;
        functions::put_proxies_between(&cloud).await?;
        Ok(cloud)
    }

    /// A year that no other test has.
    pub fn stretch(&self) -> Stretch {
        // The golden set has 2024 and the end of 2023; the tests of the API have the days around now.
        let year = match self.years.fetch_add(1, Ordering::Relaxed) {
            year @ ..2023 => year,
            year => year + 10,
        };
        Stretch { year, prefix: format!("t{year}") }
    }

    /// A name for an execution that no earlier test process took.
    pub fn name(&self, what: &str, stretch: &Stretch) -> String {
        format!("{what}-{}-{}", stretch.prefix, self.since)
    }

    /// An empty archive, and a source that holds the golden set only, which is returned.
    pub async fn begin_anew(&self) -> Result<Vec<fixtures::golden::Golden>> {
        self.empty().await?;
        self.prepare_source().await.context("the source cannot be prepared")
    }

    /// Removes what earlier tests left. Refuses a cloud that another user filled.
    async fn empty(&self) -> Result<()> {
        let exists = async |index: &str| -> Result<bool> {
            Ok(self.http.send(Method::HEAD, &format!("{}/{index}", self.opensearch_url), "").await?.0.is_success())
        };
        if exists("messages").await? && !exists(MARK).await? {
            bail!(
                "{} holds messages that the tests did not load, so it is not theirs to empty. {HOW}",
                self.opensearch_url
            );
        }
        self.http.send(Method::PUT, &format!("{}/{MARK}", self.opensearch_url), "").await?;
        for index in ["messages-*", "history-*", "audit-*"] {
            self.http.send(Method::DELETE, &format!("{}/{index}", self.opensearch_url), "").await?;
        }
        for prefix in ["archive/", "quarantine/", "spool/", "runs/", "dashboard/"] {
            let keys: Vec<String> = self.keys(prefix).await?.into_keys().collect();
            for batch in keys.chunks(1000) {
                let objects = batch
                    .iter()
                    .map(|key| ObjectIdentifier::builder().key(key).build())
                    .collect::<Result<Vec<_>, _>>()?;
                self.s3
                    .delete_objects()
                    .bucket(&self.bucket)
                    .delete(Delete::builder().set_objects(Some(objects)).quiet(true).build()?)
                    .send()
                    .await?;
            }
        }
        for (table, keys) in [
            (&self.job_runs, &["run_id"][..]),
            (&self.windows, &["run_id", "window_id"]),
            (&self.tracking, &["message_id", "source_index"]),
        ] {
            let mut pages = self.dynamodb.scan().table_name(table).into_paginator().send();
            while let Some(page) = pages.next().await {
                let items = page?.items.unwrap_or_default();
                let deletions = items.into_iter().map(|mut item| {
                    item.retain(|name, _| keys.contains(&name.as_str()));
                    self.dynamodb.delete_item().table_name(table).set_key(Some(item)).send()
                });
                let _: Vec<_> = stream::iter(deletions).buffer_unordered(16).try_collect().await?;
            }
        }
        let _ = std::fs::remove_dir_all(&self.scratch);
        std::fs::create_dir_all(&self.scratch)?;
        Ok(())
    }

    /// The golden set and its aliases, and three plain indices of messages behind one of them.
    async fn prepare_source(&self) -> Result<Vec<fixtures::golden::Golden>> {
        let golden = fixtures::golden::load(&self.opensearch_url, &Indices::default()).await?;
        let messages = ["messages-a", "messages-b", "messages-c"].map(str::to_owned);
        for index in &messages {
            self.source.create_index(index, Kind::Messages).await?;
        }
        self.source.point_alias("messages", &messages).await?;
        Ok(golden)
    }

    /// Keys under a prefix with their entity tags.
    pub async fn keys(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        let mut pages = self.s3.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        let mut keys = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.with_context(|| format!("listing {prefix}"))?;
            keys.extend(
                page.contents()
                    .iter()
                    .filter_map(|object| Some((object.key()?.to_owned(), object.e_tag()?.to_owned()))),
            );
        }
        Ok(keys)
    }

    /// Does something while no request may write below a prefix of the bucket.
    pub async fn while_denied<T>(&self, prefix: &str, work: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
        let before =
            self.s3.get_bucket_policy().bucket(&self.bucket).send().await.ok().and_then(|answer| answer.policy);
        let mut policy: Value =
            before.as_deref().map_or(Ok(json!({"Version": "2012-10-17", "Statement": []})), serde_json::from_str)?;
        let statements = policy["Statement"].as_array_mut().context("a policy has statements")?;
        let resource = format!("arn:aws:s3:::{}/{prefix}*", self.bucket);
        statements.push(
            json!({"Sid": "Test", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": resource}),
        );
        self.s3.put_bucket_policy().bucket(&self.bucket).policy(policy.to_string()).send().await?;
        let outcome = work().await;
        match before {
            Some(before) => drop(self.s3.put_bucket_policy().bucket(&self.bucket).policy(before).send().await?),
            None => drop(self.s3.delete_bucket_policy().bucket(&self.bucket).send().await?),
        }
        outcome
    }

    /// Stops the emulator of AWS, and with it every execution and function, and starts it again with the data that it
    /// had.
    pub async fn restart(&self) -> Result<()> {
        let local = Path::new(env!("CARGO_MANIFEST_DIR")).join("../local/cloud.py");
        let output = Command::new("python3").arg(local).arg("restart").output().await.context("python3")?;
        ensure!(output.status.success(), "local/cloud.py restart: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    pub async fn get(&self, key: &str) -> Result<Bytes> {
        let answer = self
            .s3
            .get_object()
            .bucket(&self.bucket)
            .key(key)
            .send()
            .await
            .with_context(|| format!("s3://{}/{key}", self.bucket))?;
        Ok(answer.body.collect().await?.into_bytes())
    }

    pub async fn get_many(&self, keys: impl IntoIterator<Item = String>) -> Result<BTreeMap<String, Bytes>> {
        let reads =
            keys.into_iter().map(|key| async move { Ok::<_, anyhow::Error>((key.clone(), self.get(&key).await?)) });
        stream::iter(reads).buffer_unordered(16).try_collect().await
    }
}

/// Beside the test binary, where Cargo put it.
fn program() -> Result<PathBuf> {
    let tests = std::env::current_exe()?;
    let debug = tests.parent().and_then(Path::parent).context("the test binary stands in no target folder")?;
    let program = debug.join("alert-archive");
    ensure!(program.is_file(), "{} is not built: cargo build --workspace", program.display());
    Ok(program)
}

/// The Python that the local cloud runs on; its packages hold DuckDB.
fn python() -> Result<PathBuf> {
    let local = Path::new(env!("CARGO_MANIFEST_DIR")).join("../local");
    let ask = "import tools; print(tools.python_packages('requirements.txt') / 'bin/python')";
    let answer =
        std::process::Command::new("python3").args(["-c", ask]).current_dir(local).output().context("python3")?;
    ensure!(answer.status.success(), "local/tools.py: {}", String::from_utf8_lossy(&answer.stderr));
    let path = String::from_utf8(answer.stdout)?.lines().last().unwrap_or_default().to_owned();
    Ok(PathBuf::from(path))
}
