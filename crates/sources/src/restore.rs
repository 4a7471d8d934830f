use crate::{OpenSearch, SourceError};
use ::opensearch::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

impl OpenSearch {
    /// Puts documents, by id, into an index; each byte as given. All of them or an error; to repeat it changes nothing.
    pub async fn put_documents(&self, index: &str, documents: &[(String, Vec<u8>)]) -> Result<(), SourceError> {
        #[derive(Deserialize)]
        struct Reply {
            errors: bool,
            items: Vec<Value>,
        }
        // The bulk format ends a document at a line feed, so that documents with one go by themselves.
        let (alone, together): (Vec<_>, Vec<_>) =
            documents.iter().partition(|(_, body)| body.contains(&b'\n') || body.contains(&b'\r'));
        let mut body = Vec::new();
        for (id, document) in &together {
            body.extend(json!({"index": {"_id": id}}).to_string().into_bytes());
            body.push(b'\n');
            body.extend_from_slice(document);
            body.push(b'\n');
        }
        if !body.is_empty() {
            let reply: Reply =
                self.post_bytes("restore documents", Method::Post, &format!("/{index}/_bulk"), body, index).await?;
            if reply.errors {
                let refused = reply.items.iter().find(|item| !item["index"]["error"].is_null()).unwrap_or(&Value::Null);
                let reason = format!("{}: {}", refused["index"]["_id"], refused["index"]["error"]["reason"]);
                return Err(SourceError::Rejected {
                    doing: "restore documents",
                    index: index.to_owned(),
                    status: 200,
                    reason,
                });
            }
        }
        for (id, document) in alone {
            let id = percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC);
            let _: Value = self
                .post_bytes("restore a document", Method::Put, &format!("/{index}/_doc/{id}"), document.clone(), index)
                .await?;
        }
        Ok(())
    }
}
