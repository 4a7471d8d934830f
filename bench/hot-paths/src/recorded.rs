//! A source that answers at once: what another node answered before.

use async_trait::async_trait;
use bytes::Bytes;
use memory_cloud::Cloud;
use sources::{HttpRequest, HttpResponse, Indices, MemoryNode, Node, OpenSearch};
use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

/// Path and body of a request.
type Asked = (String, Option<Bytes>);

#[derive(Clone)]
pub struct Recorded {
    node: MemoryNode,
    answers: Arc<Mutex<HashMap<Asked, HttpResponse>>>,
    /// By path, without its query string.
    requests: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Recorded {
    pub fn before(cloud: &Cloud) -> Self {
        Recorded { node: cloud.node.clone(), answers: Arc::default(), requests: Arc::default() }
    }

    /// The requests since this was asked last.
    pub fn take_requests(&self) -> BTreeMap<String, usize> {
        mem::take(&mut self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn source(&self) -> OpenSearch {
        let [messages, history, audit] = ["messages", "history", "audit"].map(str::to_owned);
        OpenSearch::over(self.clone(), Indices { messages, history, audit })
    }
}

#[async_trait]
impl Node for Recorded {
    async fn send(&self, request: HttpRequest<'_>) -> Result<HttpResponse, Box<dyn Error + Send + Sync>> {
        let path = request.path.split('?').next().unwrap_or_default();
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(path.to_owned()).or_default() += 1;
        let asked = (request.path.to_owned(), request.body.clone());
        let known = self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&asked).cloned();
        if let Some(answer) = known {
            return Ok(answer);
        }
        let answer = self.node.send(request).await?;
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(asked, answer.clone());
        Ok(answer)
    }
}
