use crate::password::Password;
use ::opensearch::{
    OpenSearch as Client,
    http::{
        Method,
        headers::{HeaderMap, HeaderValue},
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{error::Error, time::Duration};

/// What carries requests to OpenSearch and its answers back; nothing of their content is looked at.
#[async_trait]
pub trait Node: Send + Sync {
    async fn send(&self, request: HttpRequest<'_>) -> Result<HttpResponse, Box<dyn Error + Send + Sync>>;

    /// Waits before another try.
    async fn wait(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

#[derive(Clone, Debug)]
pub struct HttpRequest<'a> {
    pub method: Method,
    /// With the query behind it.
    pub path: &'a str,
    pub body: Option<Bytes>,
    /// An answer of 200 with more bytes is not read.
    pub limit: u64,
}

#[derive(Clone, Debug)]
pub struct HttpResponse {
    pub status: u16,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub enum Body {
    Whole(Bytes),
    /// The size that was announced.
    TooLarge(u64),
}

/// OpenSearch over HTTP.
pub(crate) struct Http {
    pub client: Client,
    /// None where the node asks for none, or requests are signed.
    pub password: Option<Password>,
}

impl Http {
    async fn ask(
        &self,
        request: &HttpRequest<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<::opensearch::http::response::Response, ::opensearch::Error> {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        // The client would ask for gzip, which costs both ends more than it saves and hides how long the answer is.
        headers.insert("accept-encoding", HeaderValue::from_static("identity"));
        if let Some(authorization) = authorization {
            headers.insert("authorization", authorization.clone());
        }
        self.client.send(request.method, request.path, headers, None::<&()>, request.body.clone(), None).await
    }
}

#[async_trait]
impl Node for Http {
    async fn send(&self, request: HttpRequest<'_>) -> Result<HttpResponse, Box<dyn Error + Send + Sync>> {
        let answer = match &self.password {
            None => self.ask(&request, None).await?,
            Some(password) => {
                let held = password.header(None).await?;
                let answer = self.ask(&request, Some(&held)).await?;
                if answer.status_code().as_u16() != UNAUTHORIZED {
                    answer
                } else {
                    // Once more, with what the secret holds now.
                    self.ask(&request, Some(&password.header(Some(&held)).await?)).await?
                }
            }
        };
        let status = answer.status_code().as_u16();
        if let Some(length) = answer.content_length().filter(|length| status == 200 && *length > request.limit) {
            return Ok(HttpResponse { status, body: Body::TooLarge(length) });
        }
        Ok(HttpResponse { status, body: Body::Whole(answer.bytes().await?) })
    }
}

const UNAUTHORIZED: u16 = 401;

/// Stands in for a node whose address is missing.
pub(crate) struct Unconnected;

#[async_trait]
impl Node for Unconnected {
    async fn send(&self, _: HttpRequest<'_>) -> Result<HttpResponse, Box<dyn Error + Send + Sync>> {
        Err("OPENSEARCH_URL is not set".into())
    }
}
