//! The settings of the deployed functions. One client less to build: Lambda is asked by hand, with a signed request.

use crate::{Cloud, proxy::Service};
use anyhow::{Context, Result, ensure};
use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

pub const FUNCTIONS: [&str; 8] = [
    "plan-windows",
    "query-messages",
    "classify-alerts",
    "write-partitions",
    "collect-windows",
    "send-summary",
    "aggregate-dashboard",
    "gate-run",
];

pub type Environment = BTreeMap<String, String>;

impl Cloud {
    async fn lambda(&self, method: Method, path: &str, body: String) -> Result<Value> {
        let uri = format!("{}/2015-03-31/functions/{path}", self.aws_url);
        let host = self.aws_url.trim_start_matches("http://");
        let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
        let identity = Credentials::new(
            variable("AWS_ACCESS_KEY_ID")?,
            variable("AWS_SECRET_ACCESS_KEY")?,
            None,
            None,
            "environment",
        )
        .into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("lambda")
            .time(SystemTime::now())
            .settings(SigningSettings::default());
        let signable = SignableRequest::new(
            method.as_str(),
            &uri,
            [("host", host)].into_iter(),
            SignableBody::Bytes(body.as_bytes()),
        )?;
        let (instructions, _) = sign(signable, &parameters.build()?.into())?.into_parts();
        let mut request = Request::builder()
            .method(method)
            .uri(&uri)
            .header("host", host)
            .body(Full::new(Bytes::from(body.clone())))?;
        instructions.apply_to_request_http1x(&mut request);
        let answer = self.http.call(request).await?;
        ensure!(
            answer.status().is_success(),
            "Lambda: {path}: {}: {}",
            answer.status(),
            String::from_utf8_lossy(answer.body())
        );
        Ok(serde_json::from_slice(answer.body())?)
    }

    pub async fn environment(&self, function: &str) -> Result<Environment> {
        let settings =
            self.lambda(Method::GET, &format!("{}-{function}/configuration", self.prefix), String::new()).await?;
        Ok(serde_json::from_value(settings["Environment"]["Variables"].clone())?)
    }

    /// Replaces the environment of a function; its processes are started anew.
    pub async fn set_environment(&self, function: &str, environment: &Environment) -> Result<()> {
        self.configure(function, json!({"Environment": {"Variables": environment}})).await
    }

    async fn configure(&self, function: &str, settings: Value) -> Result<()> {
        self.lambda(Method::PUT, &format!("{}-{function}/configuration", self.prefix), settings.to_string()).await?;
        self.updated(function).await
    }

    async fn updated(&self, function: &str) -> Result<()> {
        let path = format!("{}-{function}/configuration", self.prefix);
        for _ in 0..100 {
            let settings = self.lambda(Method::GET, &path, String::new()).await?;
            if settings["State"] != "Pending" && settings["LastUpdateStatus"] != "InProgress" {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("the update of {function} does not end")
    }

    /// Calls a function as Step Functions does; returns what it returned.
    pub async fn invoke(&self, function: &str, payload: &Value) -> Result<Value> {
        self.lambda(Method::POST, &format!("{}-{function}/invocations", self.prefix), payload.to_string()).await
    }

    /// Does something while Lambda ends these functions after so many seconds.
    pub async fn with_timeouts<T>(&self, timeouts: &[(&str, u64)], work: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
        let mut before = Vec::new();
        for (function, seconds) in timeouts {
            let settings =
                self.lambda(Method::GET, &format!("{}-{function}/configuration", self.prefix), String::new()).await?;
            before.push((*function, settings["Timeout"].clone()));
            self.configure(function, json!({"Timeout": seconds})).await?;
        }
        let outcome = work().await;
        for (function, seconds) in before {
            self.configure(function, json!({"Timeout": seconds})).await?;
        }
        outcome
    }

    /// Does something while each process of these functions may have no more than `mebibytes` of memory.
    pub async fn with_memory<T>(
        &self,
        functions: &[&str],
        mebibytes: u64,
        work: impl AsyncFnOnce() -> Result<T>,
    ) -> Result<T> {
        let limit = MemoryLimit::find();
        for function in functions {
            let script = limit.script(mebibytes, &self.program.with_file_name(function));
            self.set_code(function, &zip(&self.python, &script).await?).await?;
        }
        let outcome = work().await;
        for function in functions {
            let package = self.mail_folder.with_file_name("packages").join(format!("{function}.zip"));
            self.set_code(function, &std::fs::read(&package).with_context(|| package.display().to_string())?).await?;
        }
        limit.clean().await?;
        outcome
    }

    async fn set_code(&self, function: &str, zip: &[u8]) -> Result<()> {
        let body = json!({"ZipFile": BASE64_STANDARD.encode(zip)}).to_string();
        self.lambda(Method::PUT, &format!("{}-{function}/code", self.prefix), body).await?;
        self.updated(function).await
    }

    /// Does something while a function has another setting, and puts it back.
    pub async fn with_setting<T>(
        &self,
        function: &str,
        variable: &str,
        value: &str,
        work: impl AsyncFnOnce() -> Result<T>,
    ) -> Result<T> {
        let before = self.environment(function).await?;
        ensure!(before.contains_key(variable), "{function} has no variable {variable}");
        let mut changed = before.clone();
        changed.insert(variable.to_owned(), value.to_owned());
        self.set_environment(function, &changed).await?;
        let outcome = work().await;
        self.set_environment(function, &before).await?;
        outcome
    }
}

/// How the memory of a process is limited here.
enum MemoryLimit {
    /// A control group for each process, below this folder, by this file: what the process touches counts, as on
    /// Lambda.
    Group { folder: &'static str, file: &'static str },
    /// Without rights to control groups: a limit on what the process reserves, touched or not, so with some allowance.
    Data,
}

const GROUP: &str = "alert-archive-tests-";
const UNTOUCHED_MEBIBYTES: u64 = 64;

impl MemoryLimit {
    fn find() -> Self {
        let groups = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        let usable = groups.into_iter().find(|(folder, file)| {
            let group = Path::new(folder).join(format!("{GROUP}probe"));
            let made = std::fs::create_dir(&group).is_ok()
                && std::fs::OpenOptions::new().write(true).open(group.join(file)).is_ok();
            let _ = std::fs::remove_dir(&group);
            made
        });
        usable.map_or(MemoryLimit::Data, |(folder, file)| MemoryLimit::Group { folder, file })
    }

    fn script(&self, mebibytes: u64, binary: &Path) -> String {
        let binary = binary.display();
        match self {
            MemoryLimit::Group { folder, file } => {
                let bytes = mebibytes << 20;
                format!(
                    "#!/bin/sh\ngroup={folder}/{GROUP}$$\nmkdir -p $group && echo {bytes} > $group/{file} && \
                     echo $$ > $group/cgroup.procs && exec {binary}\n"
                )
            }
            MemoryLimit::Data => {
                format!("#!/bin/sh\nulimit -d {} && exec {binary}\n", (mebibytes + UNTOUCHED_MEBIBYTES) << 10)
            }
        }
    }

    /// Removes the groups, as their processes end.
    async fn clean(&self) -> Result<()> {
        let MemoryLimit::Group { folder, .. } = self else { return Ok(()) };
        for _ in 0..100 {
            let entries = std::fs::read_dir(folder)?.flatten();
            let left = entries.filter(|entry| {
                entry.file_name().to_string_lossy().starts_with(GROUP) && std::fs::remove_dir(entry.path()).is_err()
            });
            if left.count() == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("groups stay in {folder}: their processes live on")
    }
}

/// A zip that holds `bootstrap`, which the runtime starts.
async fn zip(python: &Path, bootstrap: &str) -> Result<Vec<u8>> {
    const ZIP: &str = "import sys, zipfile\n\
        entry = zipfile.ZipInfo('bootstrap')\n\
        entry.external_attr = 0o100755 << 16\n\
        with zipfile.ZipFile(sys.stdout.buffer, 'w') as archive: archive.writestr(entry, sys.argv[1])";
    let output = tokio::process::Command::new(python).args(["-c", ZIP, bootstrap]).output().await?;
    ensure!(output.status.success(), "zip: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// The local cloud overwrites AWS_ENDPOINT_URL in a function's environment, but not what is set for one service.
const ENDPOINTS: [&str; 4] =
    ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_SFN", "AWS_ENDPOINT_URL_SES"];
const SOURCE: &str = "OPENSEARCH_URL";
/// The cloud of the tests is deployed for both sources, so that each may be tried; most tests read OpenSearch alone.
const MODE: &str = "ALERT_ARCHIVE_MESSAGE_SOURCE";

/// From now on each function reaches AWS and OpenSearch through a proxy of its own.
pub async fn put_proxies_between(cloud: &Cloud) -> Result<()> {
    for function in FUNCTIONS {
        put_proxy_before(cloud, function).await?;
    }
    Ok(())
}

pub async fn put_proxy_before(cloud: &Cloud, function: &'static str) -> Result<()> {
    let mut environment = cloud.environment(function).await?;
    let aws = cloud.proxies.open(function, Service::Aws).await?;
    environment.extend(ENDPOINTS.map(|variable| (variable.to_owned(), aws.clone())));
    if let Some(url) = environment.get_mut(SOURCE) {
        *url = cloud.proxies.open(function, Service::OpenSearch).await?;
    }
    if let Some(mode) = environment.get_mut(MODE) {
        *mode = "opensearch".to_owned();
    }
    cloud.set_environment(function, &environment).await
}

/// The functions as they were deployed.
pub async fn take_proxies_away(cloud: &Cloud) -> Result<()> {
    for function in FUNCTIONS {
        take_proxy_away(cloud, function).await?;
    }
    Ok(())
}

/// The function as it was deployed.
pub async fn take_proxy_away(cloud: &Cloud, function: &str) -> Result<()> {
    let mut environment = cloud.environment(function).await?;
    environment.retain(|variable, _| !ENDPOINTS.contains(&variable.as_str()));
    if let Some(url) = environment.get_mut(SOURCE) {
        *url = cloud.opensearch_url.clone();
    }
    if let Some(mode) = environment.get_mut(MODE) {
        *mode = "hybrid".to_owned();
    }
    cloud.set_environment(function, &environment).await
}
