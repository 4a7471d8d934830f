//! Plain HTTP, for what no client of the project speaks: the proxy's way on, Lambda's settings, the source's indices.

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

#[derive(Clone)]
pub struct Http(Client<HttpConnector, Full<Bytes>>);

impl Default for Http {
    fn default() -> Self {
        Http(Client::builder(TokioExecutor::new()).build_http())
    }
}

impl Http {
    /// Sends the request and reads the whole answer.
    pub async fn call(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
        let uri = request.uri().clone();
        let answer = self.0.request(request).await.with_context(|| format!("{uri} does not answer"))?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.with_context(|| format!("the answer of {uri} broke off"))?.to_bytes();
        Ok(Response::from_parts(head, body))
    }

    pub async fn send(&self, method: Method, url: &str, body: impl Into<Bytes>) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header("content-type", "application/json")
            .body(Full::new(body.into()))?;
        let answer = self.call(request).await?;
        Ok((answer.status(), answer.into_body()))
    }
}
