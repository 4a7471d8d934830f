use crate::{OpenSearch, SourceError, opensearch::without_values};
use ::opensearch::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashSet;

/// The index has a document of this id.
const CONFLICT: u16 = 409;

impl OpenSearch {
    /// Creates documents, by id, in an index; each byte as given. A document that stands there is left as it is,
    /// because it may be a newer one. Returns how many stood there; all others are written, or it is an error.
    pub async fn create_documents(&self, index: &str, documents: &[(String, Vec<u8>)]) -> Result<u64, SourceError> {
        #[derive(Deserialize)]
        struct Reply {
            items: Vec<Item>,
        }
        #[derive(Deserialize)]
        struct Item {
            create: Created,
        }
        #[derive(Deserialize)]
        struct Created {
            #[serde(rename = "_id", default)]
            id: String,
            status: u16,
            #[serde(default)]
            error: Value,
        }
        // The bulk format ends a document at a line feed, so that documents with one go by themselves.
        let (alone, together): (Vec<_>, Vec<_>) =
            documents.iter().partition(|(_, body)| body.contains(&b'\n') || body.contains(&b'\r'));
        let (mut body, mut there) = (Vec::new(), 0);
        for (id, document) in &together {
            body.extend(json!({"create": {"_id": id}}).to_string().into_bytes());
            body.push(b'\n');
            body.extend_from_slice(document);
            body.push(b'\n');
        }
        if !body.is_empty() {
            let reply: Reply =
                self.post_bytes("restore documents", Method::Post, &format!("/{index}/_bulk"), body, index).await?;
            for Created { id, status, error } in reply.items.into_iter().map(|item| item.create) {
                match status {
                    200..300 => {}
                    CONFLICT => there += 1,
                    _ => {
                        let reason = error["reason"].as_str().unwrap_or("no reason given");
                        let reason = format!("{id}: {}", without_values(reason, &[index]));
                        let (doing, index) = ("restore documents", index.to_owned());
                        return Err(SourceError::Rejected { doing, index, status, reason });
                    }
                }
            }
        }
        for (id, document) in alone {
            let id = percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC);
            let path = format!("/{index}/_create/{id}");
            let created =
                self.post_bytes::<Value>("restore a document", Method::Put, &path, document.clone(), index).await;
            match created {
                Err(SourceError::Rejected { status: CONFLICT, .. }) => there += 1,
                created => drop(created?),
            }
        }
        Ok(there)
    }

    /// Whether what is written to `name` would stand in an index from which the archive reads.
    pub async fn is_read_from(&self, name: &str) -> Result<bool, SourceError> {
        let read = [&self.indices.messages, &self.indices.history, &self.indices.audit];
        let mut behind: HashSet<String> = read.into_iter().cloned().collect();
        for name in read {
            behind.extend(self.behind(name).await?);
        }
        Ok(behind.contains(name) || self.behind(name).await?.iter().any(|index| behind.contains(index)))
    }

    /// The indices behind a name; none where it does not exist.
    async fn behind(&self, name: &str) -> Result<Vec<String>, SourceError> {
        match self.writes(name).await {
            Ok(indices) => Ok(indices.into_iter().map(|index| index.index).collect()),
            Err(SourceError::IndexMissing { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Indices, MemoryNode, OpenSearch};
    use jiff::Timestamp;
    use network::Calm;
    use runtime::ManualClock;

    #[tokio::test]
    async fn what_stands_in_an_index_is_left_as_it_is_and_counted() {
        let node = MemoryNode::new(Calm::shared(), ManualClock::at(Timestamp::UNIX_EPOCH)).index("restored");
        node.put("restored", "a", r#"{"newer":true}"#);
        node.put("restored", "b", r#"{"newer":true}"#);
        let indices = Indices { messages: "m".into(), history: "h".into(), audit: "u".into() };
        let source = OpenSearch::over(node.clone(), indices);
        let documents = [("a", "{}"), ("b", "{\n}"), ("c", "{}"), ("d/e", "{\n}")];
        let documents = documents.map(|(id, body)| (id.to_owned(), body.as_bytes().to_vec()));
        assert_eq!(source.create_documents("restored", &documents).await.expect("written"), 2);
        assert_eq!(source.create_documents("restored", &documents).await.expect("written"), 4, "again");
        for (id, body) in [("a", r#"{"newer":true}"#), ("b", r#"{"newer":true}"#), ("c", "{}"), ("d/e", "{\n}")] {
            let stands = source.source_of("restored", id, None, u64::MAX).await.expect("read").expect("there");
            assert_eq!(stands, body, "{id}");
        }
    }

    #[tokio::test]
    async fn an_index_behind_the_names_that_are_read_is_told_by_any_of_its_names() {
        let node = MemoryNode::new(Calm::shared(), ManualClock::at(Timestamp::UNIX_EPOCH))
            .alias("messages", "messages-2024")
            .alias("everything", "messages-2024")
            .index("restored");
        let name = |name: &str| name.to_owned();
        let indices = Indices { messages: name("messages"), history: name("history"), audit: name("audit") };
        let source = OpenSearch::over(node, indices);
        for (name, is_read) in [
            ("messages", true),
            ("messages-2024", true),
            ("everything", true),
            ("history", true),
            ("restored", false),
            ("new", false),
        ] {
            assert_eq!(source.is_read_from(name).await.expect("asked"), is_read, "{name}");
        }
    }
}
