use crate::{
    MessageField, OpenSearch, SourceError,
    opensearch::{Answer, KEEP_ALIVE, LARGEST_ANSWER, LARGEST_RESULT, in_order},
    page,
};
use alerts::message::document::fields;
use bytes::Bytes;
use serde_json::{Value, json, value::RawValue};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Messages whose documents are asked for at once, and documents that the search may give. A node collects an answer
/// in its memory, and how much belongs to a message is known only after the first search: it asks for less.
const FIRST: usize = 25;
const FIRST_DOCUMENTS: usize = 1000;
/// Documents of a page, where those of one message are more bytes than one answer may have.
const FIRST_PAGE: usize = 100;
/// A long id takes a clause of its own, and a query has 1,024 (`indices.query.bool.max_clause_count`).
const MOST: usize = 1000;
/// Where one answer is to hold all, it is asked for fewer than it may have, because messages differ.
const FITTING_DOCUMENTS: usize = LARGEST_RESULT * 4 / 5;
/// A search asks for at most so many times as many messages as the one before.
const GROWTH: usize = 20;
/// Bytes that are handed over at once, as far as the messages before tell.
const BATCH_BYTES: usize = 8 << 20;
/// An answer about several messages above this is not read.
const LARGEST_BATCH: usize = 2 * BATCH_BYTES;
/// The history of one message, or its audit, that is held at once: to write it takes several times as much.
const LARGEST_RELATED: usize = 64 << 20;

/// Reads what belongs to messages (history or audit). A search sees an index at one moment, and one search is mostly
/// enough for hundreds of messages: so no point in time is held, which would count each shard of each index among the
/// few contexts of a node.
pub struct Related {
    source: OpenSearch,
    index: String,
    field: MessageField,
    /// Messages that are asked for at once, and documents that the answer may have.
    at_once: usize,
    documents: usize,
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
    /// More documents than one answer has.
    TooMany,
    /// More bytes than can be held at once.
    TooLarge,
    /// One of the documents is not valid JSON.
    Unreadable,
}

impl Related {
    pub async fn open(source: &OpenSearch, index: &str) -> Result<Self, SourceError> {
        let field = source.check_mapping(index).await?;
        Ok(Related {
            source: source.clone(),
            index: index.to_owned(),
            field,
            at_once: FIRST,
            documents: FIRST_DOCUMENTS,
        })
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
            let mut fetched = match self.source.until_whole(|| self.search(batch)).await {
                Err(error) if error.asks_for_less() => Fetched::TooLarge,
                answer => answer?,
            };
            match fetched {
                Fetched::TooMany if is_alone || self.documents == LARGEST_RESULT => {
                    fetched = self.page_through(batch, self.documents).await?;
                }
                Fetched::TooLarge if is_alone => fetched = self.page_through(batch, FIRST_PAGE).await?,
                _ => {}
            }
            let placed = match fetched {
                Fetched::All(placed) => placed,
                Fetched::Unreadable if is_alone => {
                    found.unreadable.insert(batch[0].to_owned());
                    HashMap::new()
                }
                Fetched::TooMany | Fetched::TooLarge if is_alone => {
                    found.too_large.insert(batch[0].to_owned());
                    HashMap::new()
                }
                Fetched::Unreadable | Fetched::TooMany | Fetched::TooLarge => {
                    self.at_once = batch.len().div_ceil(4);
                    continue;
                }
            };
            let documents: usize = placed.values().map(Vec::len).sum();
            let size: usize = placed.values().flatten().map(|document| document.body.len()).sum();
            let of_each = |total: usize| (total / batch.len()).max(1);
            let fitting = (BATCH_BYTES / of_each(size)).min(FITTING_DOCUMENTS / of_each(documents));
            self.at_once = fitting.clamp(1, MOST).min(GROWTH * self.at_once);
            self.documents = LARGEST_RESULT;
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
            "size": self.documents, "track_total_hits": false, "query": self.naming(ids),
            "sort": [{"timestamp": {"order": "asc", "unmapped_type": "date"}}],
        });
        match self.source.search_now("read history and audit", &self.index, body, LARGEST_BATCH as u64).await? {
            Answer::TooLarge(_) => Ok(Fetched::TooLarge),
            Answer::Body(body) => {
                let mut placed = HashMap::new();
                Ok(match take(&body, &ids.iter().copied().collect(), &mut placed)? {
                    None => Fetched::Unreadable,
                    Some((documents, _)) if documents == self.documents => Fetched::TooMany,
                    Some(_) => Fetched::All(placed),
                })
            }
        }
    }

    /// The documents of messages that are too many for one answer, page after page of one point in time.
    async fn page_through(&self, ids: &[&str], size: usize) -> Result<Fetched, SourceError> {
        let tiebreaker = if self.source.has_shard_doc().await? { "_shard_doc" } else { "_id" };
        let point_in_time = self.source.open_point_in_time(&self.index).await?;
        let found = self.source.until_whole(|| self.pages(ids, size, tiebreaker, &point_in_time)).await;
        self.source.close_points_in_time(&[point_in_time]).await;
        found
    }

    async fn pages(
        &self,
        ids: &[&str],
        mut size: usize,
        tiebreaker: &str,
        point_in_time: &str,
    ) -> Result<Fetched, SourceError> {
        let most = if ids.len() == 1 { LARGEST_RELATED } else { LARGEST_BATCH };
        let wanted: HashSet<&str> = ids.iter().copied().collect();
        let mut after: Option<Vec<Value>> = None;
        let mut placed: HashMap<String, Vec<Placed>> = HashMap::new();
        // Of the pages before, only what is these messages' is held.
        let mut held = 0;
        loop {
            let mut body = json!({
                "size": size, "track_total_hits": false, "query": self.naming(ids),
                "pit": {"id": point_in_time, "keep_alive": KEEP_ALIVE},
                "sort": in_order(tiebreaker),
            });
            if let Some(after) = &after {
                body["search_after"] = json!(after);
            }
            let limit = if size == 1 { LARGEST_RELATED as u64 } else { LARGEST_ANSWER };
            let body = match self.source.search("read history and audit", body, limit).await {
                Ok(Answer::Body(body)) => body,
                Ok(Answer::TooLarge(_)) if size == 1 => return Ok(Fetched::TooLarge),
                Err(error) if size == 1 || !error.asks_for_less() => return Err(error),
                Ok(Answer::TooLarge(_)) | Err(_) => {
                    size = (size / 4).max(1);
                    continue;
                }
            };
            if held + body.len() > most {
                return Ok(Fetched::TooLarge);
            }
            match take(&body, &wanted, &mut placed)? {
                None => return Ok(Fetched::Unreadable),
                Some((documents, last)) => {
                    if documents < size {
                        return Ok(Fetched::All(placed));
                    }
                    after = Some(last);
                }
            }
            held = placed.values().flatten().map(|document| document.body.len()).sum();
        }
    }

    /// All documents that name one of the messages, and perhaps some more.
    fn naming(&self, ids: &[&str]) -> Value {
        let MessageField { keywords, longest, longest_alone } = &self.field;
        let mut clauses: Vec<Value> = keywords.iter().map(|field| json!({"terms": {*field: ids}})).collect();
        let texts = ids.iter().filter(|id| is_above(*longest, id));
        clauses.extend(texts.map(|id| json!({"match_phrase": {"message_id": id}})));
        if ids.iter().any(|id| is_above(*longest_alone, id)) {
            // Nothing indexed tells these documents apart, so that the body of each has to.
            clauses.push(json!({"bool": {"must_not": {"exists": {"field": "message_id"}}}}));
        }
        json!({"bool": {"filter": {"bool": {"should": clauses}}}})
    }
}

/// Whether an id is longer than what a keyword takes, in UTF-16 units.
fn is_above(limit: Option<u64>, id: &str) -> bool {
    limit.is_some_and(|limit| id.encode_utf16().count() as u64 > limit)
}

/// Puts the documents of a page where they belong; returns how many it has, and the sort values of the last. `None`:
/// one of them is not valid JSON.
fn take(
    body: &Bytes,
    ids: &HashSet<&str>,
    placed: &mut HashMap<String, Vec<Placed>>,
) -> Result<Option<(usize, Vec<Value>)>, SourceError> {
    let Some(hits) = page::parse(body)? else { return Ok(None) };
    let (documents, last) = (hits.len(), hits.last().map(|hit| hit.sort.clone()).unwrap_or_default());
    for hit in hits {
        // The document itself says to whom it belongs: a text is found by its words, and a keyword may be folded.
        let Some(named) = named(&hit.source) else { return Ok(None) };
        for id in named.into_iter().filter(|id| ids.contains(id.as_str())) {
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
