use crate::{
    MessageField, OpenSearch, SourceError,
    opensearch::{Answer, KEEP_ALIVE, LARGEST_ANSWER, in_order},
    page,
};
use alerts::message::document::fields;
use bytes::Bytes;
use serde_json::{Value, json, value::RawValue};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Documents that one search may give.
const PAGE: u64 = 1000;
/// Messages whose documents are asked for at once.
const FEWEST: usize = 10;
const MOST: usize = 200;
/// Bytes that are handed over at once, as far as the messages before tell.
const BATCH_BYTES: usize = 8 << 20;
/// The history of one message, or its audit, that is held at once: to write it takes several times as much.
const LARGEST_RELATED: usize = 64 << 20;

/// Reads what belongs to messages (history or audit). A search sees an index at one moment, and one search is mostly
/// enough for several messages: so no point in time is held, which would count each shard of each index among the few
/// contexts of a node.
pub struct Related {
    source: OpenSearch,
    index: String,
    field: MessageField,
    shard_doc: bool,
    /// Messages that are asked for at once.
    at_once: usize,
}

/// What belongs to the first of some messages: bodies by message, in order of time, index and id.
#[derive(Default)]
pub struct RelatedBodies {
    /// How many of the messages this is about.
    pub messages: usize,
    pub bodies: HashMap<String, Vec<Bytes>>,
    /// Messages of which a related document is not valid JSON.
    pub unreadable: HashSet<String>,
    /// Messages to which more belongs than can be held.
    pub too_large: HashSet<String>,
}

/// A related document and where it belongs in its list: instant, index, id.
struct Placed {
    place: (Option<i64>, String, String),
    body: Bytes,
}

/// What a search for the documents of some messages came to.
enum Fetched {
    All(HashMap<String, Vec<Placed>>),
    /// More documents or bytes than one answer may have.
    TooMuch,
    /// One of the documents is not valid JSON.
    Unreadable,
}

impl Related {
    pub async fn open(source: &OpenSearch, index: &str) -> Result<Self, SourceError> {
        let field = source.check_mapping(index).await?;
        let shard_doc = source.has_shard_doc().await?;
        Ok(Related { source: source.clone(), index: index.to_owned(), field, shard_doc, at_once: FEWEST })
    }

    /// All documents of the first of the messages `ids`: of as many as can be held at once, of one at least.
    pub async fn of(&mut self, ids: &[&str]) -> Result<RelatedBodies, SourceError> {
        let mut found = RelatedBodies::default();
        if self.field.keywords.is_empty() {
            found.messages = ids.len();
            return Ok(found);
        }
        let mut bytes = 0;
        while found.messages < ids.len() && bytes < BATCH_BYTES {
            let left = &ids[found.messages..];
            let batch = &left[..self.at_once.min(left.len())];
            let is_alone = batch.len() == 1;
            let answer = match self.source.until_whole(|| self.search(batch)).await {
                Err(error) if error.asks_for_less() => Fetched::TooMuch,
                answer => answer?,
            };
            let placed = match answer {
                Fetched::All(placed) => placed,
                Fetched::Unreadable if is_alone => {
                    found.unreadable.insert(batch[0].to_owned());
                    HashMap::new()
                }
                Fetched::TooMuch if is_alone => match self.page_through(batch[0]).await? {
                    Fetched::All(placed) => placed,
                    Fetched::Unreadable => {
                        found.unreadable.insert(batch[0].to_owned());
                        HashMap::new()
                    }
                    Fetched::TooMuch => {
                        found.too_large.insert(batch[0].to_owned());
                        HashMap::new()
                    }
                },
                Fetched::Unreadable | Fetched::TooMuch => {
                    self.at_once = batch.len().div_ceil(4);
                    continue;
                }
            };
            let size: usize = placed.values().flatten().map(|document| document.body.len()).sum();
            let fitting = BATCH_BYTES / (size / batch.len()).max(1);
            self.at_once = fitting.clamp(1, MOST).min(2 * batch.len().max(FEWEST / 2));
            bytes += size;
            found.messages += batch.len();
            found.bodies.extend(placed.into_iter().map(|(id, mut documents)| {
                // The sort of the source leaves the order among equal instants open.
                documents.sort_by(|left, right| left.place.cmp(&right.place));
                (id, documents.into_iter().map(|document| document.body).collect())
            }));
        }
        Ok(found)
    }

    /// One search for all documents of some messages.
    async fn search(&self, ids: &[&str]) -> Result<Fetched, SourceError> {
        let body = json!({
            "size": PAGE, "track_total_hits": false, "query": self.naming(ids),
            "sort": [{"timestamp": {"order": "asc", "unmapped_type": "date"}}],
        });
        let limit = 2 * BATCH_BYTES as u64;
        match self.source.search_now("read history and audit", &self.index, body, limit).await? {
            Answer::TooLarge(_) => Ok(Fetched::TooMuch),
            Answer::Body(body) => {
                let mut placed = HashMap::new();
                Ok(match take(&body, ids, &mut placed)? {
                    None => Fetched::Unreadable,
                    Some((documents, _)) if documents as u64 == PAGE => Fetched::TooMuch,
                    Some(_) => Fetched::All(placed),
                })
            }
        }
    }

    /// The documents of a message that are too many for one answer, page after page of one point in time.
    async fn page_through(&self, id: &str) -> Result<Fetched, SourceError> {
        let point_in_time = self.source.open_point_in_time(&self.index).await?;
        let found = self.source.until_whole(|| self.pages(id, &point_in_time)).await;
        self.source.close_points_in_time(&[point_in_time]).await;
        found
    }

    async fn pages(&self, id: &str, point_in_time: &str) -> Result<Fetched, SourceError> {
        let tiebreaker = if self.shard_doc { "_shard_doc" } else { "_id" };
        let (mut after, mut size): (Option<Vec<Value>>, u64) = (None, PAGE / 10);
        let mut placed: HashMap<String, Vec<Placed>> = HashMap::new();
        loop {
            let mut body = json!({
                "size": size, "track_total_hits": false, "query": self.naming(&[id]),
                "pit": {"id": point_in_time, "keep_alive": KEEP_ALIVE},
                "sort": in_order(tiebreaker),
            });
            if let Some(after) = &after {
                body["search_after"] = json!(after);
            }
            let limit = if size == 1 { LARGEST_RELATED as u64 } else { LARGEST_ANSWER };
            let body = match self.source.search("read history and audit", body, limit).await {
                Ok(Answer::Body(body)) => body,
                Ok(Answer::TooLarge(_)) if size == 1 => return Ok(Fetched::TooMuch),
                Err(error) if size == 1 || !error.asks_for_less() => return Err(error),
                Ok(Answer::TooLarge(_)) | Err(_) => {
                    size = (size / 4).max(1);
                    continue;
                }
            };
            // Of the pages before, only what is this message's is held.
            let held: usize = placed.values().flatten().map(|document| document.body.len()).sum();
            if held + body.len() > LARGEST_RELATED {
                return Ok(Fetched::TooMuch);
            }
            match take(&body, &[id], &mut placed)? {
                None => return Ok(Fetched::Unreadable),
                Some((0, _)) => return Ok(Fetched::All(placed)),
                Some((_, last)) => after = Some(last),
            }
        }
    }

    /// All documents that name one of the messages, and perhaps some more.
    fn naming(&self, ids: &[&str]) -> Value {
        let MessageField { keywords, longest, longest_alone } = &self.field;
        let is_above =
            |limit: &Option<u64>, id: &str| limit.is_some_and(|limit| id.encode_utf16().count() as u64 > limit);
        let mut clauses: Vec<Value> = keywords.iter().map(|field| json!({"terms": {*field: ids}})).collect();
        let texts = ids.iter().filter(|id| is_above(longest, id));
        clauses.extend(texts.map(|id| json!({"match_phrase": {"message_id": id}})));
        if ids.iter().any(|id| is_above(longest_alone, id)) {
            // Nothing indexed tells these documents apart, so that the body of each has to.
            clauses.push(json!({"bool": {"must_not": {"exists": {"field": "message_id"}}}}));
        }
        json!({"bool": {"filter": {"bool": {"should": clauses}}}})
    }
}

/// Puts the documents of a page where they belong; returns how many it has, and the sort values of the last. `None`:
/// one of them is not valid JSON.
fn take(
    body: &Bytes,
    ids: &[&str],
    placed: &mut HashMap<String, Vec<Placed>>,
) -> Result<Option<(usize, Vec<Value>)>, SourceError> {
    let Some(hits) = page::parse(body)? else { return Ok(None) };
    let (documents, last) = (hits.len(), hits.last().map(|hit| hit.sort.clone()).unwrap_or_default());
    for hit in hits {
        // The document itself says to whom it belongs: a text is found by its words, and a keyword may be folded.
        let Some(named) = named(&hit.source) else { return Ok(None) };
        for id in named.into_iter().filter(|id| ids.contains(&id.as_str())) {
            // A copy of its own, so that one small document does not keep its whole page in memory.
            let body = Bytes::copy_from_slice(&hit.source);
            let place = (hit.sort.first().and_then(Value::as_i64), hit.index.clone(), hit.id.clone());
            placed.entry(id).or_default().push(Placed { place, body });
        }
    }
    Ok(Some((documents, last)))
}

/// The messages that a document names: one, or a list of them. `None` when it cannot be read.
pub(crate) fn named(source: &[u8]) -> Option<BTreeSet<String>> {
    let [message_id] = fields(std::str::from_utf8(source).ok()?, ["message_id"])?;
    let mut names = BTreeSet::new();
    let mut values: Vec<&RawValue> = message_id.into_iter().collect();
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
        // A name that no text can hold spoils nothing.
        assert_eq!(named(br#"{"\ud800":1,"message_id":"a"}"#), Some(BTreeSet::from(["a".to_owned()])));
    }
}
