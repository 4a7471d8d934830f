//! Fuzz targets: an answer of the source is read as it is, refused by name, or known to hold bytes that are not valid
//! JSON.

use crate::{
    SourceError,
    opensearch::{Capabilities, CountsAnswer, refusal},
    page,
};
use alerts::window::plan::Interval;
use bytes::Bytes;
use errors::Named;
use jiff::Timestamp;
use proptest::{collection::vec, prelude::*, sample::Index, sample::select};
use serde_json::{json, value::RawValue};

/// Documents that OpenSearch may hold: objects, their bytes as odd as its parser lets through.
fn document() -> impl Strategy<Value = Vec<u8>> {
    let good: [&[u8]; 8] = [
        b"\"\\ud800\\u0000\"",
        b" 9007199254740993 ",
        b"1.0E+9999",
        b"\"\\\"}]}\"",
        b"[ [],\r\n{\"_source\":{}}]",
        b"\t null",
        "\"é\u{feff}\u{2028}\"".as_bytes(),
        b"{\"_id\":\"x\"}",
    ];
    let bad: [&[u8]; 6] = [b"\"\xc0\x80\"", b"1 /* \"}] */", b"\"\xed\xa0\x80\"", b"\xef\xbb\xbf1", b"\"\t\"", b"01"];
    let value = prop_oneof![30 => select(good.to_vec()), 1 => select(bad.to_vec())];
    let blank = || select(vec!["", "", " ", "\r\n", "\t \n"]);
    (blank(), vec(("[a-z_]{1,7}", value), 0..4), blank()).prop_map(|(before, members, after)| {
        let members: Vec<Vec<u8>> =
            members.into_iter().map(|(name, value)| [format!("\"{name}\":").as_bytes(), value].concat()).collect();
        [before.as_bytes(), b"{", &members.join(&b','), b"}", after.as_bytes()].concat()
    })
}

fn whole(documents: &[Vec<u8>], head: &str) -> Bytes {
    let hit = |(number, source): (usize, &Vec<u8>)| {
        [
            format!(r#"{{"_index":"m","_id":"{number}","_score":null,"_source":"#).as_bytes(),
            source,
            format!(r#","sort":[{number}]}}"#).as_bytes(),
        ]
        .concat()
    };
    let hits: Vec<Vec<u8>> = documents.iter().enumerate().map(hit).collect();
    [format!(r#"{{"took":1,{head},"hits":{{"hits":["#).as_bytes(), &hits.join(&b','), b"]}}"].concat().into()
}

const HEAD: &str = r#""timed_out":false,"_shards":{"total":2,"failed":0}"#;

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn documents_come_out_of_a_page_as_they_lie_in_it(documents in vec(document(), 0..5)) {
        match page::parse(&whole(&documents, HEAD)).expect("no shard failed") {
            None => prop_assert!(!documents.iter().all(|document| is_json(document))),
            Some(hits) => {
                prop_assert!(documents.iter().all(|document| is_json(document)));
                prop_assert_eq!(hits.iter().map(|hit| &hit.source[..]).collect::<Vec<_>>(), documents);
                prop_assert!(hits.iter().enumerate().all(|(number, hit)| hit.id == number.to_string() && hit.sort == [json!(number)]));
            }
        }
    }

    #[test]
    fn a_partial_page_is_never_taken_for_a_whole_one(
        documents in vec(document(), 0..3),
        (failed, timed_out) in (0u8..3, any::<bool>()),
        early in select(vec!["", r#""terminated_early":null,"#, r#""terminated_early":false,"#, r#""terminated_early":true,"#]),
        lacking in select(vec!["", "", "", "timed_out", "_shards", "failed"]),
    ) {
        let head = format!(r#"{early}"timed_out":{timed_out},"_shards":{{"total":3,"successful":{},"skipped":0,"failed":{failed}}}"#, 3 - failed);
        let head = head.replace(&format!("\"{lacking}\""), "\"another\"");
        let partial = failed > 0 || timed_out || early.contains("true");
        match page::parse(&whole(&documents, &head)) {
            Ok(Some(_)) => prop_assert!(!partial && lacking.is_empty()),
            Ok(None) => prop_assert!(!lacking.is_empty() || !documents.iter().all(|document| is_json(document))),
            Err(error) => prop_assert!(partial && matches!(error, SourceError::PageIncomplete { .. }), "{error}"),
        }
    }

    #[test]
    fn any_bytes_are_a_page_or_none(
        bytes in vec(any::<u8>(), 0..200),
        documents in vec(document(), 1..3),
        changes in vec((any::<Index>(), prop_oneof![any::<u8>(), select(b"{}[]\":,\\ \n0".to_vec())]), 1..4),
    ) {
        prop_assert!(page::parse(&bytes.into()).expect("nothing is said of shards").is_none());
        let mut page = whole(&documents, HEAD).to_vec();
        for (at, byte) in changes {
            *at.get_mut(&mut page) = byte;
        }
        let readable = is_json(&page) && std::str::from_utf8(&page).is_ok();
        match page::parse(&page.into()) {
            Ok(Some(hits)) => prop_assert!(readable && hits.iter().all(|hit| hit.source.is_empty() || is_json(&hit.source))),
            Ok(None) => {}
            Err(error) => prop_assert!(readable && error.name() == "PageIncomplete"),
        }
    }

    #[test]
    fn any_other_answer_is_read_or_refused_by_name(
        bytes in vec(any::<u8>(), 0..100),
        seed in select(vec![
            r#"{"fields":{"timestamp":{"date":{"type":"date"}},"message_id":{"keyword":{"type":"keyword"}}}}"#,
            r#"{"timed_out":false,"_shards":{"total":1,"failed":0},"aggregations":{"stretches":{"buckets":[{"key":1719792000000,"doc_count":3}]}}}"#,
            r#"{"error":{"type":"x","reason":"y","root_cause":[{"type":"search_context_missing_exception","reason":"z"}]},"status":404}"#,
        ]),
        changes in vec((any::<Index>(), select(b"{}[]\":,\\ 0129-e".to_vec())), 0..3),
        status in 300u16..600,
    ) {
        let mut changed = seed.as_bytes().to_vec();
        for (at, byte) in changes {
            *at.get_mut(&mut changed) = byte;
        }
        let mut errors = Vec::new();
        for bytes in [bytes, changed] {
            errors.extend(serde_json::from_slice(&bytes).ok().and_then(|found: Capabilities| found.message_id("messages").err()));
            let buckets = |counts: CountsAnswer| counts.buckets(Timestamp::MIN, Timestamp::MAX, Interval::Day);
            errors.extend(serde_json::from_slice(&bytes).ok().and_then(|counts| buckets(counts).err()));
            errors.push(refusal("search", status, &bytes, "messages"));
        }
        let names = ["MappingUnsupported", "PageIncomplete", "PointInTimeExpired", "SourceIndexClosed", "SourceIndexMissing", "SourceRejected", "SourceUnavailable"];
        prop_assert!(errors.iter().all(|error| names.contains(&error.name().as_str())));
    }

    #[test]
    fn documents_are_counted_within_the_range_and_nowhere_else(
        (key, count) in (prop_oneof![any::<i64>(), -100_000i64..100_000, Just(i64::MAX), Just(i64::MIN)], 0u64..3),
        (from, to) in (-50_000i64..50_000, -50_000i64..50_000),
        (failed, timed_out) in (select(vec![0, 0, 1]), select(vec![false, false, true])),
    ) {
        let at = |millis| Timestamp::from_millisecond(millis).expect("in range");
        let stretches = json!({"buckets": [{"key": key, "doc_count": count}]});
        let answer = json!({"timed_out": timed_out, "_shards": {"total": 1, "failed": failed}, "aggregations": {"stretches": stretches}});
        let counts: CountsAnswer = serde_json::from_value(answer).expect("an answer");
        let buckets = counts.buckets(at(from), at(to), Interval::Minute);
        prop_assert_eq!(buckets.as_ref().map_err(Named::name).err(), (timed_out || failed > 0).then_some(errors::Name::PageIncomplete));
        let Ok(buckets) = buckets else { return Ok(()) };
        let (start, end) = (i128::from(key).max(from.into()), (i128::from(key) + 60_000).min(to.into()));
        prop_assert_eq!(buckets.len(), usize::from(start < end && count > 0));
        for bucket in buckets {
            prop_assert_eq!((i128::from(bucket.from.as_millisecond()), i128::from(bucket.to.as_millisecond()), bucket.count), (start, end, count));
        }
    }
}

#[test]
fn ten_thousand_levels_are_a_document_like_any_other() {
    let deep =
        |open: &str, close: &str| format!("{{\"x\":{}1{}}}", open.repeat(10_000), close.repeat(10_000)).into_bytes();
    let documents = [deep("[", "]"), b"{}".to_vec(), deep("{\"x\":", "}")];
    let hits = page::parse(&whole(&documents, HEAD)).expect("no shard failed").expect("a page");
    assert!(hits.iter().map(|hit| &hit.source[..]).eq(documents.iter().map(Vec::as_slice)));
    assert!(page::parse(&whole(&[vec![b'['; 10_000]], HEAD)).expect("nothing is said of shards").is_none());
}
