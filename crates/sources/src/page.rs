use crate::SourceError;
use alerts::message::entry::Written;
use bytes::Bytes;
use identity::Identity;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// A document as the source holds it.
#[derive(Clone, Debug)]
pub struct Hit {
    pub index: String,
    pub id: String,
    pub routing: Option<String>,
    /// The write that made it what it is, where that was asked for.
    pub written: Option<Written>,
    /// Values of the sort fields: the position from which the next page goes on.
    pub sort: Vec<Value>,
    /// The document's bytes; empty when they were not asked for.
    pub source: Bytes,
}

impl Hit {
    pub fn identity(&self) -> Identity {
        Identity::new(&self.index, &self.id)
    }
}

/// A search answer as it is spelled, borrowed from its bytes.
#[derive(Deserialize)]
struct RawPage<'a> {
    timed_out: bool,
    #[serde(default)]
    terminated_early: Option<bool>,
    #[serde(rename = "_shards")]
    shards: Shards,
    #[serde(borrow)]
    hits: RawHits<'a>,
}

#[derive(Deserialize)]
struct RawHits<'a> {
    #[serde(borrow)]
    hits: Vec<RawHit<'a>>,
}

#[derive(Deserialize)]
struct RawHit<'a> {
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_routing")]
    routing: Option<String>,
    #[serde(rename = "_seq_no")]
    seq_no: Option<u64>,
    #[serde(rename = "_primary_term")]
    primary_term: Option<u64>,
    #[serde(rename = "_source", borrow)]
    source: Option<&'a RawValue>,
    #[serde(default)]
    sort: Vec<Value>,
}

#[derive(Deserialize)]
pub(crate) struct Shards {
    total: u32,
    failed: u32,
}

impl Shards {
    /// A page that lacks a shard's documents, or ended early, is no page.
    pub(crate) fn check(&self, timed_out: bool, terminated_early: Option<bool>) -> Result<(), SourceError> {
        let what = if self.failed > 0 {
            format!("{} of {} shards failed", self.failed, self.total)
        } else if timed_out {
            "the search timed out".to_owned()
        } else if terminated_early == Some(true) {
            "the search was terminated early".to_owned()
        } else {
            return Ok(());
        };
        Err(SourceError::PageIncomplete { what })
    }
}

/// Reads a page. `Ok(None)`: its bytes are not valid JSON, so that one of its documents is a poison document.
pub(crate) fn parse(body: &Bytes) -> Result<Option<Vec<Hit>>, SourceError> {
    let Some(text) = std::str::from_utf8(body).ok() else { return Ok(None) };
    let Ok(page) = serde_json::from_str::<RawPage>(text) else { return Ok(None) };
    page.shards.check(page.timed_out, page.terminated_early)?;
    let hits = page.hits.hits.into_iter().map(|hit| Hit {
        index: hit.index,
        id: hit.id,
        routing: hit.routing,
        written: hit.seq_no.zip(hit.primary_term).map(|(seq_no, primary_term)| Written { seq_no, primary_term }),
        sort: hit.sort,
        source: hit.source.map(|source| with_blanks(body, source.get())).unwrap_or_default(),
    });
    Ok(Some(hits.collect()))
}

/// The document as it lies in the page. The parser leaves out the blanks around a value, but here they are the
/// document's own: OpenSearch copies its bytes and writes none of its own between a name and its value.
fn with_blanks(body: &Bytes, source: &str) -> Bytes {
    let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let start = source.as_ptr() as usize - body.as_ptr() as usize;
    let end = start + source.len();
    let before = body[..start].iter().rev().take_while(is_blank).count();
    let after = body[end..].iter().take_while(is_blank).count();
    body.slice(start - before..end + after)
}

/// The document in an answer that holds one, also when it is not valid JSON. It is the last value: what follows are the
/// closing brackets. A name before it cannot look like `"_source":`, because JSON escapes the quotes of a text.
pub(crate) fn only_source(answer: &Bytes) -> Option<Bytes> {
    const NAME: &[u8] = b"\"_source\":";
    const END: &[u8] = b"}]}";
    let start = answer.windows(NAME.len()).position(|part| part == NAME)? + NAME.len();
    let end = answer.len().checked_sub(END.len()).filter(|end| start <= *end && answer.ends_with(END))?;
    Some(answer.slice(start..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(extra: &str, source: &str) -> Bytes {
        let hit = format!(r#"{{"_index":"m","_id":"1","_source":{source},"sort":[1,2,"m"]}}"#);
        Bytes::from(format!(r#"{{"took":1,{extra},"hits":{{"hits":[{hit}]}}}}"#))
    }

    const WHOLE: &str = r#""timed_out":false,"_shards":{"total":2,"failed":0}"#;

    #[test]
    fn the_bytes_of_a_document_are_those_of_the_page() {
        let source = "{ \"b\" : 1.0,\n \"a\":9007199254740993, \"c\":\"\\ud800\\u0041\" }";
        for source in [source.to_owned(), format!(" \t{source}\r\n")] {
            let hits = parse(&page(WHOLE, &source)).expect("page").expect("json");
            assert_eq!(hits[0].source, source.as_bytes());
        }
    }

    #[test]
    fn partial_pages_are_refused_and_unreadable_ones_are_told_apart() {
        for extra in [
            r#""timed_out":true,"_shards":{"total":2,"failed":0}"#,
            r#""timed_out":false,"_shards":{"total":2,"failed":1}"#,
            r#""timed_out":false,"terminated_early":true,"_shards":{"total":2,"failed":0}"#,
        ] {
            assert!(matches!(parse(&page(extra, "{}")), Err(SourceError::PageIncomplete { .. })), "{extra}");
        }
        assert!(parse(&page(WHOLE, "{/* note */}")).expect("no error").is_none());
        assert!(parse(&Bytes::from_static(b"{\"\xc0\x80\":1}")).expect("no error").is_none());
    }

    #[test]
    fn the_bytes_of_one_document_are_had_without_parsing_them() {
        let answer = |source: &str| {
            Bytes::from(format!(r#"{{"docs":[{{"_index":"m","_id":"\"_source\":","found":true{source}}}]}}"#))
        };
        let source = "\n{\"_source\":{} /* }]} */ }]}\n";
        assert_eq!(only_source(&answer(&format!(",\"_source\":{source}"))).expect("found"), source);
        assert_eq!(only_source(&answer("")), None);
    }
}
