//! Looking at documents by name, without their bodies.

use crate::{OpenSearch, SourceError};
use ::opensearch::http::Method;
use alerts::message::entry::Written;
use identity::Identity;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Documents that are looked up with one request.
pub const NAMES_AT_ONCE: usize = 1000;

/// One document of an answer to `_mget`.
#[derive(Deserialize)]
struct Looked {
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_id")]
    id: String,
    #[serde(default)]
    found: bool,
    #[serde(flatten)]
    written: Option<Written>,
    #[serde(default)]
    error: Value,
}

#[derive(Deserialize)]
struct Reply {
    docs: Vec<Looked>,
}

impl OpenSearch {
    /// The write that made each of these documents what it is now, whether a search finds it already or not. Documents
    /// that do not stand where their name says are absent: one that has a routing of its own may stand there all the same.
    pub async fn written(&self, documents: &[Identity]) -> Result<HashMap<Identity, Written>, SourceError> {
        let mut written = HashMap::with_capacity(documents.len());
        for batch in documents.chunks(NAMES_AT_ONCE) {
            for document in self.until_whole(|| self.written_at_once(batch)).await? {
                let place = Identity::new(document.index, document.id);
                written.extend(document.written.filter(|_| document.found).map(|written| (place, written)));
            }
        }
        Ok(written)
    }

    async fn written_at_once(&self, documents: &[Identity]) -> Result<Vec<Looked>, SourceError> {
        let name = |document: &Identity| json!({"_index": document.source_index, "_id": document.id, "_source": false});
        let body = json!({"docs": documents.iter().map(name).collect::<Vec<_>>()});
        let doing = "look for held-over messages";
        let Reply { docs } = self.json(doing, Method::Post, "/_mget", body, &self.indices.messages).await?;
        for document in &docs {
            // An index that is gone holds nothing. Whatever else went wrong does not say that the document is gone.
            match document.error["type"].as_str() {
                None | Some("index_not_found_exception") => {}
                Some(kind) => return Err(SourceError::PageIncomplete { what: format!("{doing}: {kind}") }),
            }
        }
        if docs.len() != documents.len() {
            let what = format!("{} of {} documents were looked up", docs.len(), documents.len());
            return Err(SourceError::PageIncomplete { what });
        }
        Ok(docs)
    }
}
