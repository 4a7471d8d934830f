use crate::{
    MessageField, OpenSearch, SourceError,
    opensearch::{Answer, KEEP_ALIVE, in_order},
    page,
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Documents of one page of history or audit.
const PAGE: u64 = 1000;

/// Reads what belongs to messages (history or audit) from one point in time.
pub struct Related {
    source: OpenSearch,
    point_in_time: String,
    field: MessageField,
    shard_doc: bool,
}

/// What belongs to a batch of messages: bodies by message, in order of time, index and id.
#[derive(Default)]
pub struct RelatedBodies {
    pub bodies: HashMap<String, Vec<Bytes>>,
    /// Messages of which a related document is not valid JSON.
    pub unreadable: HashSet<String>,
}

/// A related document and where it belongs in its list: instant, index, id.
struct Placed {
    place: (Option<i64>, String, String),
    body: Bytes,
}

impl Related {
    pub async fn open(source: &OpenSearch, index: &str) -> Result<Self, SourceError> {
        let field = source.check_mapping(index).await?;
        let shard_doc = source.has_shard_doc().await?;
        let point_in_time = source.open_point_in_time(index).await?;
        Ok(Related { source: source.clone(), point_in_time, field, shard_doc })
    }

    pub fn point_in_time(&self) -> &str {
        &self.point_in_time
    }

    pub async fn close(self) {
        self.source.close_points_in_time(&[self.point_in_time]).await;
    }

    /// All documents of the messages `ids`.
    pub async fn of(&self, ids: &[&str]) -> Result<RelatedBodies, SourceError> {
        let mut found = RelatedBodies::default();
        if self.field.keywords.is_empty() {
            return Ok(found);
        }
        let mut batches = vec![ids];
        while let Some(batch) = batches.pop() {
            if batch.is_empty() {
                continue;
            }
            match self.source.until_whole(|| self.batch(batch)).await? {
                Some(bodies) => found.bodies.extend(bodies),
                None if batch.len() == 1 => {
                    found.unreadable.insert(batch[0].to_owned());
                }
                None => {
                    let (left, right) = batch.split_at(batch.len() / 2);
                    batches.extend([left, right]);
                }
            }
        }
        Ok(found)
    }

    /// `None`: one of the documents is not valid JSON.
    async fn batch(&self, ids: &[&str]) -> Result<Option<HashMap<String, Vec<Bytes>>>, SourceError> {
        let wanted: HashSet<&str> = ids.iter().copied().collect();
        let tiebreaker = if self.shard_doc { "_shard_doc" } else { "_id" };
        let (mut after, mut size): (Option<Vec<Value>>, u64) = (None, PAGE);
        // In order of (timestamp, index, id): the sort of the pages leaves the order among equal instants open.
        let mut collected: HashMap<String, Vec<Placed>> = HashMap::new();
        loop {
            let mut body = json!({
                "size": size, "track_total_hits": false, "query": self.naming(ids),
                "pit": {"id": self.point_in_time, "keep_alive": KEEP_ALIVE},
                "sort": in_order(tiebreaker),
            });
            if let Some(after) = &after {
                body["search_after"] = json!(after);
            }
            let body = match self.source.search("read history and audit", body, size == 1).await? {
                Answer::Body(body) => body,
                Answer::TooLarge(_) => {
                    size = (size / 4).max(1);
                    continue;
                }
            };
            let Some(hits) = page::parse(&body)? else { return Ok(None) };
            let Some(last) = hits.last() else { break };
            after = Some(last.sort.clone());
            for hit in hits {
                // The document itself says to whom it belongs: a text is found by its words, and a keyword may be folded.
                let Some(named) = named(&hit.source) else { return Ok(None) };
                for id in named.into_iter().filter(|id| wanted.contains(id.as_str())) {
                    // A copy of its own, so that one small document does not keep its whole page in memory.
                    let body = Bytes::copy_from_slice(&hit.source);
                    let place = (hit.sort.first().and_then(Value::as_i64), hit.index.clone(), hit.id.clone());
                    collected.entry(id).or_default().push(Placed { place, body });
                }
            }
        }
        let in_order = collected.into_iter().map(|(id, mut documents)| {
            documents.sort_by(|left, right| left.place.cmp(&right.place));
            (id, documents.into_iter().map(|document| document.body).collect())
        });
        Ok(Some(in_order.collect()))
    }

    /// All documents that name one of the messages, and perhaps some more.
    fn naming(&self, ids: &[&str]) -> Value {
        let MessageField { keywords, longest } = &self.field;
        let is_left_out = |id: &&&str| longest.is_some_and(|longest| id.encode_utf16().count() as u64 > longest);
        let keywords = keywords.iter().map(|field| json!({"terms": {*field: ids}}));
        let texts = ids.iter().filter(is_left_out).map(|id| json!({"match_phrase": {"message_id": id}}));
        json!({"bool": {"filter": {"bool": {"should": keywords.chain(texts).collect::<Vec<_>>()}}}})
    }
}

/// The messages that a document names: one, or a list of them. `None` when it cannot be read.
fn named(source: &[u8]) -> Option<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Naming<'a> {
        #[serde(borrow)]
        message_id: Option<&'a RawValue>,
    }
    let naming: Naming = serde_json::from_slice(source).ok()?;
    let mut names = BTreeSet::new();
    let mut values: Vec<&RawValue> = naming.message_id.into_iter().collect();
    while let Some(value) = values.pop() {
        match value.get().as_bytes()[0] {
            b'[' => values.extend(serde_json::from_str::<Vec<&RawValue>>(value.get()).ok()?),
            b'"' => names.extend(serde_json::from_str::<String>(value.get()).ok()),
            b'{' | b'n' => {}
            // A keyword takes a number or a boolean as it is spelled.
            _ => names.extend([value.get().to_owned()]),
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_names_its_messages_as_a_keyword_would_index_them() {
        for (value, expected) in [
            (r#""a""#, vec!["a"]),
            (r#"["b",["a"],"b"]"#, vec!["a", "b"]),
            (r#""\u0061""#, vec!["a"]),
            ("77", vec!["77"]),
            ("true", vec!["true"]),
            ("null", vec![]),
            (r#"{"a":"b"}"#, vec![]),
        ] {
            let names =
                named(format!(r#"{{"x":{{"message_id":"no"}}, "message_id":{value}}}"#).as_bytes()).expect("readable");
            assert_eq!(names.into_iter().collect::<Vec<_>>(), expected, "{value}");
        }
        assert!(named(b"{}").expect("readable").is_empty());
        assert!(named(br#"{"message_id":"a","message_id":"b"}"#).is_none());
    }
}
