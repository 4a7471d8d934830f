//! The settings of the deployed functions. One client less to build: Lambda is asked by hand, with a signed request.

use crate::{Cloud, proxy::Service};
use anyhow::{Context, Result, ensure};
use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

pub const FUNCTIONS: [&str; 8] =
    ["plan-windows", "query-messages", "classify-alerts", "write-partitions", "collect-windows", "send-summary", "aggregate-dashboard", "gate-run"];

pub type Environment = BTreeMap<String, String>;

impl Cloud {
    async fn lambda(&self, method: Method, path: &str, body: String) -> Result<Value> {
        let uri = format!("{}/2015-03-31/functions/{path}", self.aws_url);
        let host = self.aws_url.trim_start_matches("http://");
        let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
        let identity = Credentials::new(variable("AWS_ACCESS_KEY_ID")?, variable("AWS_SECRET_ACCESS_KEY")?, None, None, "environment").into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("lambda")
            .time(SystemTime::now())
            .settings(SigningSettings::default());
        let signable = SignableRequest::new(method.as_str(), &uri, [("host", host)].into_iter(), SignableBody::Bytes(body.as_bytes()))?;
        let (instructions, _) = sign(signable, &parameters.build()?.into())?.into_parts();
        let mut request = Request::builder().method(method).uri(&uri).header("host", host).body(Full::new(Bytes::from(body.clone())))?;
        instructions.apply_to_request_http1x(&mut request);
        let answer = self.http.call(request).await?;
        ensure!(answer.status().is_success(), "Lambda: {path}: {}: {}", answer.status(), String::from_utf8_lossy(answer.body()));
        Ok(serde_json::from_slice(answer.body())?)
    }

    pub async fn environment(&self, function: &str) -> Result<Environment> {
        let settings = self.lambda(Method::GET, &format!("{}-{function}/configuration", self.prefix), String::new()).await?;
        Ok(serde_json::from_value(settings["Environment"]["Variables"].clone())?)
    }

    /// Replaces the environment of a function; its processes are started anew.
    pub async fn set_environment(&self, function: &str, environment: &Environment) -> Result<()> {
        let path = format!("{}-{function}/configuration", self.prefix);
        self.lambda(Method::PUT, &path, json!({"Environment": {"Variables": environment}}).to_string()).await?;
        for _ in 0..100 {
            let settings = self.lambda(Method::GET, &path, String::new()).await?;
            if settings["State"] != "Pending" && settings["LastUpdateStatus"] != "InProgress" {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("the update of {function} does not end")
    }

    /// Does something while a function has another setting, and puts it back.
    pub async fn with_setting<T>(&self, function: &str, variable: &str, value: &str, work: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
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

/// The local cloud overwrites AWS_ENDPOINT_URL in a function's environment, but not what is set for one service.
const ENDPOINTS: [&str; 4] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_SFN", "AWS_ENDPOINT_URL_SES"];
const SOURCE: &str = "OPENSEARCH_URL";

/// From now on each function reaches AWS and OpenSearch through a proxy of its own.
pub async fn put_proxies_between(cloud: &Cloud) -> Result<()> {
    for function in FUNCTIONS {
        let mut environment = cloud.environment(function).await?;
        let aws = cloud.proxies.open(function, Service::Aws).await?;
        environment.extend(ENDPOINTS.map(|variable| (variable.to_owned(), aws.clone())));
        if let Some(url) = environment.get_mut(SOURCE) {
            *url = cloud.proxies.open(function, Service::OpenSearch).await?;
        }
        cloud.set_environment(function, &environment).await?;
    }
    Ok(())
}

/// The functions as they were deployed.
pub async fn take_proxies_away(cloud: &Cloud) -> Result<()> {
    for function in FUNCTIONS {
        let mut environment = cloud.environment(function).await?;
        environment.retain(|variable, _| !ENDPOINTS.contains(&variable.as_str()));
        if let Some(url) = environment.get_mut(SOURCE) {
            *url = cloud.opensearch_url.clone();
        }
        cloud.set_environment(function, &environment).await?;
    }
    Ok(())
}
