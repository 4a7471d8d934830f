//! Deleting documents that are archived. None is deleted that was written again since it was looked at.

use crate::{OpenSearch, SourceError, opensearch::Answer};
use ::opensearch::http::Method;
use alerts::message::entry::Written;
use bytes::Bytes;
use identity::Identity;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::collections::HashMap;

const READING: &str = "read documents before they are deleted";
const DELETING: &str = "delete archived documents";

/// A document as it stands now, and the write that made it so.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub written: Written,
    pub source: Bytes,
}

/// What became of a document that was to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deleted {
    Done,
    /// It stands there no more: deleted before, or by a request whose answer was lost.
    Gone,
    /// It was written again since it was looked at, and is left alone.
    Changed,
}

#[derive(Deserialize)]
struct Got<'a> {
    #[serde(borrow)]
    docs: Vec<GotOne<'a>>,
}

#[derive(Deserialize)]
struct GotOne<'a> {
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_id")]
    id: String,
    #[serde(default)]
    found: bool,
    #[serde(rename = "_seq_no")]
    seq_no: Option<u64>,
    #[serde(rename = "_primary_term")]
    primary_term: Option<u64>,
    #[serde(rename = "_source", borrow)]
    source: Option<&'a RawValue>,
}

impl OpenSearch {
    /// Documents as they stand now, also where no search sees them yet. Absent: what does not stand where its name
    /// says, what has a routing of its own, and what is not valid JSON.
    pub async fn stored(&self, documents: &[Identity]) -> Result<HashMap<Identity, Stored>, SourceError> {
        let mut stored = HashMap::with_capacity(documents.len());
        let mut batches = vec![documents];
        while let Some(batch) = batches.pop().filter(|batch| !batch.is_empty()) {
            let name = |document: &Identity| json!({"_index": document.source_index, "_id": document.id});
            let body = json!({"docs": batch.iter().map(name).collect::<Vec<_>>()});
            match self.send(READING, Method::Post, "/_mget", body, &self.indices.messages, u64::MAX).await? {
                Answer::Body(body) => match serde_json::from_slice::<Got>(&body) {
                    Ok(got) => stored.extend(got.docs.into_iter().filter_map(|one| one.stored(&body))),
                    // One of them spoils the answer: the others are found in the other half.
                    Err(_) if batch.len() > 1 => batches.extend(<[_; 2]>::from(batch.split_at(batch.len() / 2))),
                    Err(_) => {}
                },
                Answer::TooLarge(_) => {}
            }
        }
        Ok(stored)
    }

    /// Deletes each document on condition that the write that made it what it is was the last one; in the order given.
    /// To repeat it is safe: what is deleted is told as gone.
    pub async fn delete_written(&self, documents: &[(Identity, Written)]) -> Result<Vec<Deleted>, SourceError> {
        #[derive(Deserialize)]
        struct Reply {
            items: Vec<Value>,
        }
        if documents.is_empty() {
            return Ok(Vec::new());
        }
        let mut body = Vec::new();
        for (document, written) in documents {
            let line = json!({"delete": {
                "_index": document.source_index, "_id": document.id,
                "if_seq_no": written.seq_no, "if_primary_term": written.primary_term,
            }});
            body.extend(line.to_string().into_bytes());
            body.push(b'\n');
        }
        let index = &self.indices.messages;
        let reply: Reply = self.post_bytes(DELETING, Method::Post, "/_bulk", body, index).await?;
        if reply.items.len() != documents.len() {
            let reason = format!("{} of {} documents were told of", reply.items.len(), documents.len());
            return Err(SourceError::Unreadable { doing: DELETING, reason });
        }
        let mut ends = Vec::with_capacity(documents.len());
        for item in &reply.items {
            let end = &item["delete"];
            ends.push(match end["status"].as_u64() {
                Some(200) => Deleted::Done,
                Some(404) => Deleted::Gone,
                Some(409) => Deleted::Changed,
                status => {
                    let status = status.and_then(|status| u16::try_from(status).ok()).unwrap_or_default();
                    let reason = format!("{}: {}", end["_id"], end["error"]["reason"]);
                    let index = end["_index"].as_str().unwrap_or(index).to_owned();
                    return Err(SourceError::Rejected { doing: DELETING, index, status, reason });
                }
            });
        }
        // A deletion whose answer was lost and that was sent again conflicts with itself.
        let changed = |end: &Deleted| *end == Deleted::Changed;
        let doubted = documents.iter().zip(&ends).filter(|(_, end)| changed(end));
        let doubted: Vec<Identity> = doubted.map(|((document, _), _)| document.clone()).collect();
        let there = self.written(&doubted).await?;
        for ((document, _), end) in documents.iter().zip(&mut ends) {
            if changed(end) && !there.contains_key(document) {
                *end = Deleted::Gone;
            }
        }
        Ok(ends)
    }
}

impl GotOne<'_> {
    fn stored(self, body: &Bytes) -> Option<(Identity, Stored)> {
        let source = body.slice_ref(self.source?.get().as_bytes());
        let written = Written { seq_no: self.seq_no.filter(|_| self.found)?, primary_term: self.primary_term? };
        let stored = Stored { written, source };
        Some((Identity::new(self.index, self.id), stored))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Indices, MemoryNode};
    use network::Calm;
    use runtime::ManualClock;

    fn given() -> (MemoryNode, OpenSearch) {
        let node = MemoryNode::new(Calm::shared(), ManualClock::at(jiff::Timestamp::UNIX_EPOCH)).index("messages");
        let name = || "messages".to_owned();
        let source = OpenSearch::over(node.clone(), Indices { messages: name(), history: name(), audit: name() });
        (node, source)
    }

    fn named(id: &str) -> Identity {
        Identity::new("messages", id)
    }

    #[tokio::test]
    async fn what_was_written_again_is_left_alone_and_what_is_gone_is_told_so() {
        let (node, source) = given();
        for id in ["a", "b", "c"] {
            node.put("messages", id, &format!(r#"{{"message_id":"{id}",  "n":1.0}}"#));
        }
        let all = ["a", "b", "c", "never"].map(named);
        let stored = source.stored(&all).await.expect("read");
        assert_eq!(stored.len(), 3);
        assert_eq!(stored[&named("a")].source, r#"{"message_id":"a",  "n":1.0}"#, "byte for byte");
        node.put("messages", "b", r#"{"message_id":"b","n":2}"#);
        node.delete("messages", "c");
        let wanted: Vec<_> = all[..3].iter().map(|id| (id.clone(), stored[id].written)).collect();
        let ends = source.delete_written(&wanted).await.expect("deleted");
        assert_eq!(ends, [Deleted::Done, Deleted::Changed, Deleted::Gone]);
        let left = source.stored(&all).await.expect("read");
        assert_eq!(left.keys().collect::<Vec<_>>(), [&named("b")]);
        assert_eq!(source.delete_written(&wanted[..1]).await.expect("repeated"), [Deleted::Gone]);
    }

    #[tokio::test]
    async fn a_document_that_is_not_valid_json_hides_none_of_the_others() {
        let (node, source) = given();
        let ids: Vec<String> = (0..7).map(|n| format!("m{n}")).collect();
        for id in &ids {
            node.put("messages", id, r#"{"n":1}"#);
        }
        node.put_bytes("messages", "m3", b"{/* no JSON */}", 0, "m3");
        let stored = source.stored(&ids.iter().map(|id| named(id)).collect::<Vec<_>>()).await.expect("read");
        assert_eq!(stored.len(), 6);
        assert!(!stored.contains_key(&named("m3")));
    }
}
