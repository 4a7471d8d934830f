//! Fuzz targets: whatever the bytes are, the outcome is one that the product has a name for.

use crate::{
    message::{
        classification::{Disposition, Outcome, Rules, classify},
        document::MessageFields,
        entry::Entry,
    },
    window::spool::Record,
};
use identity::instant;
use jiff::Timestamp;
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::value::RawValue;

/// Documents from which others are made by changing some bytes.
const SEEDS: [&str; 6] = [
    r#"{"message_id":"m1","alerts":[{"status":"closed","opened_at":1719792000000},{"status":"open","closed_at":"2024-07-01"}]}"#,
    r#"{"message_id":"m1","alerts":{"status":" CLOSED\u00a0","severity":3}}"#,
    r#"{ "alerts" : null , "message_id":"\u006d1","lone":"\ud800","big":123456789012345678901234567890 }"#,
    r#"{"message_id":["m1"],"alerts":[[],null,"closed",{"status":{}}],"alert\u0073x":1e999}"#,
    r#"["m1",[["a","open","high","c",1,2]],"sender","channel","subject"]"#,
    r#"{"index":"m","id":"1","at":"2024-07-01T00:00:00.000Z","version":"v","bytes":1,"disposition":"closed","no_alerts":true}"#,
];

/// A seed with some of its bytes replaced, or cut off.
fn awkward() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), proptest::sample::select(b"{}[]\":,\\ \t\n0-e.un".to_vec())];
    (proptest::sample::select(SEEDS.to_vec()), vec((any::<Index>(), byte), 0..4), any::<Option<Index>>()).prop_map(
        |(seed, changes, end)| {
            let mut bytes = seed.as_bytes().to_vec();
            for (at, byte) in changes {
                *at.get_mut(&mut bytes) = byte;
            }
            bytes.truncate(end.map_or(seed.len(), |end| end.index(seed.len())));
            bytes
        },
    )
}

fn check_document(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Outcome { disposition, reason, no_alerts } = classify(&Rules::default(), "m1", bytes);
    prop_assert_eq!(disposition == Disposition::Quarantined, reason.is_some());
    prop_assert!(!no_alerts || disposition == Disposition::Closed);
    let json: Option<Box<RawValue>> = serde_json::from_slice(bytes).ok();
    match MessageFields::parse(bytes) {
        None => prop_assert_eq!(disposition, Disposition::Quarantined),
        Some(document) => {
            prop_assert!(
                json.is_some_and(|json| json.get().starts_with('{')),
                "what is not a JSON object is not a document"
            );
            for text in [document.sender(), document.channel(), document.subject()].into_iter().flatten() {
                prop_assert!(text.len() <= bytes.len());
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn documents_have_an_outcome(bytes in vec(any::<u8>(), 0..300), awkward in awkward()) {
        check_document(&bytes)?;
        check_document(&awkward)?;
    }

    #[test]
    fn spool_records_are_read_or_refused(bytes in vec(prop_oneof![3 => 0u8..4, 1 => any::<u8>()], 0..200)) {
        let mut rest = bytes.as_slice();
        while let Ok(record) = Record::decode(&mut rest) {
            let held = record.message.len() + record.history.iter().chain(&record.audit).map(Vec::len).sum::<usize>();
            prop_assert!(held <= bytes.len());
            let mut again = Vec::new();
            Record::encode(&record.message, &record.history, &record.audit, &mut again).expect("encode");
            prop_assert!(bytes[..bytes.len() - rest.len()].ends_with(&again));
        }
    }

    #[test]
    fn a_line_of_the_spool_index_is_read_or_refused(bytes in vec(any::<u8>(), 0..200), awkward in awkward()) {
        for bytes in [bytes, awkward] {
            if let Ok(entry) = serde_json::from_slice::<Entry>(&bytes) {
                let again: Entry = serde_json::from_str(&serde_json::json!(entry).to_string()).expect("what was written can be read");
                prop_assert_eq!(entry, again);
            }
        }
    }

    #[test]
    fn every_instant_that_can_be_held_is_spelled_so_that_it_can_be_read(
        millis in prop_oneof![Timestamp::MIN.as_millisecond()..=Timestamp::MAX.as_millisecond(), -1_000_000_000_000i64..4_000_000_000_000],
        text in r"[-+]?[0-9]{1,8}(-[0-9]{1,2}){0,2}([T ][0-9:.,]{0,12}(Z|[+-][0-9:]{1,8})?)?|\PC{0,20}",
    ) {
        let at = Timestamp::from_millisecond(millis).expect("in range");
        prop_assert_eq!(instant::parse(&instant::iso(at)), Some(at));
        prop_assert_eq!(instant::parse(&instant::date(at)).map(instant::date), Some(instant::date(at)));
        let json = serde_json::json!([text, millis]).to_string();
        let values: Vec<&RawValue> = serde_json::from_str(&json).expect("a list");
        // Digits alone are a count of milliseconds, or a year.
        if !text.bytes().all(|byte| byte.is_ascii_digit() || b"-.".contains(&byte)) {
            prop_assert_eq!(instant::parse_json(values[0]), instant::parse(&text));
        }
        // Four digits are a year.
        if !(1000..10_000).contains(&millis) {
            prop_assert_eq!(instant::parse_json(values[1]), Some(at));
        }
    }
}

/// The most address space that this process ever had, in bytes: an allocation shows there before a byte of it is used.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).expect("VmPeak");
    1024 * peak.trim().trim_end_matches(" kB").parse::<u64>().expect("kB")
}

#[test]
fn a_length_that_lies_costs_no_memory() {
    let before = peak();
    let lies = [
        b"\xff\xff\xff\xff".to_vec(),
        [&[0; 4], [0xff; 4].as_slice()].concat(),
        [&[0; 8], [0xff; 4].as_slice(), &[1; 9]].concat(),
    ];
    for lie in lies {
        assert!(Record::decode(&mut lie.as_slice()).is_err(), "{lie:?}");
    }
    let grown = peak() - before;
    assert!(grown < 1 << 30, "{grown} bytes were allocated for a record of some bytes");
}

#[test]
fn ten_thousand_levels_are_read_or_refused_and_overflow_no_stack() {
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
    for (body, expected) in [
        (format!(r#"{{"message_id":"m1","alerts":[],"x":{}}}"#, deep("[", "]")), Disposition::Closed),
        (
            format!(r#"{{"message_id":"m1","alerts":[{{"status":"open","x":{}}}]}}"#, deep(r#"{"x":"#, "}")),
            Disposition::Open,
        ),
        (format!(r#"{{"message_id":"m1","alerts":{}}}"#, deep("[", "]")), Disposition::Quarantined),
        (
            format!(r#"{{"message_id":"m1","alerts":[{{"status":{}}}]}}"#, deep(r#"{"status":"#, "}")),
            Disposition::Quarantined,
        ),
        (format!(r#"{{"message_id":{},"alerts":[]}}"#, deep("[", "]")), Disposition::Quarantined),
        (deep(r#"{"alerts":"#, "}"), Disposition::Quarantined),
        ("{\"x\":".repeat(10_000), Disposition::Quarantined),
    ] {
        assert_eq!(classify(&Rules::default(), "m1", body.as_bytes()).disposition, expected, "{}", &body[..60]);
    }
}
