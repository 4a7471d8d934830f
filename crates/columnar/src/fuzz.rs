//! Fuzz targets: what is written comes back byte for byte, and what cannot be read is refused.

use super::*;
use alerts::message::{
    classification::{Rules, classify},
    document,
};
use alerts::source::Source;
use proptest::{collection::vec, prelude::*, sample::Index, sample::select};
use std::collections::HashSet;

/// A JSON value in an odd spelling that a parser would not give back.
fn value() -> impl Strategy<Value = String> {
    let plain = [
        "null",
        "true",
        "-0",
        "1.0",
        "1E+999",
        "9007199254740993",
        "123456789012345678901234567890",
        "\"\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\/\\u0041\"",
        "\"\u{feff}\u{2028}é😀\"",
        "1719792000000",
        "\"2024-07-01T00:00:00+02:00\"",
        "{}",
        "[ ]",
    ];
    let long = (select(vec!["x", "\\ud800", "\\n", "é", "\u{0}"]), 1usize..40_000);
    let text = long.prop_map(|(part, times)| format!("\"{}\"", part.replace('\0', " ").repeat(times)));
    let leaf =
        prop_oneof![40 => select(plain.to_vec()).prop_map(str::to_owned), 4 => r#""[ !#-\[\]-~]{0,20}""#, 1 => text];
    let blank = || select(vec!["", "", " ", "\r\n\t "]);
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let member = ("[a-z]{1,3}", blank(), inner.clone())
            .prop_map(|(name, blank, value)| format!("\"{name}\"{blank}:{value}"));
        prop_oneof![
            (vec(inner, 0..4), blank())
                .prop_map(|(items, blank)| format!("[{blank}{}]", items.join(&format!("{blank},")))),
            (vec(member, 0..4), blank())
                .prop_map(|(members, blank)| format!("{{{blank}{}}}", members.join(&format!(",{blank}")))),
        ]
    })
}

/// A message: its known fields hold anything, in any order, among others.
fn message() -> impl Strategy<Value = String> {
    let names = select(vec!["sender", "channel", "subject", "\\u0073ender", "timestamp", "10", "2", "\\ud800"]);
    let alert = (value(), value(), value()).prop_map(|(id, opened, closed)| {
        format!(r#"{{"alert_id":{id},"status":"closed","opened_at":{opened},"closed_at" : {closed}}}"#)
    });
    let alerts = prop_oneof![vec(alert, 0..3).prop_map(|alerts| format!("[{}]", alerts.join(",\n"))), value()];
    let blank = || select(vec!["", " ", "\n"]);
    (blank(), vec((names, value()), 0..4), alerts, blank()).prop_map(|(before, members, alerts, after)| {
        let members: String = members.iter().map(|(name, value)| format!("\"{name}\":{value},")).collect();
        format!("{before}{{{members}\"alerts\":{alerts}}}{after}")
    })
}

fn entry(number: usize, message: &[u8]) -> Entry {
    let outcome = classify(&Rules::default(), "m", message);
    let at = Timestamp::from_millisecond(1_719_792_000_000 + number as i64).expect("instant");
    // Two documents to an id, in different indices.
    Entry {
        related: String::new(),
        related_bytes: 0,
        index: format!("messages-{}", number % 2),
        id: format!("m{}", number / 2),
        at,
        version: document::version(message),
        bytes: message.len() as u64,
        source: Source::Opensearch,
        written: None,
        outcome,
    }
}

fn writer() -> ObjectWriter {
    let archived_at = Timestamp::from_millisecond(1_767_225_600_000).expect("instant");
    ObjectWriter::new(Origin { run_id: "r1".into(), archived_at }).expect("writer")
}

fn read(object: &Bytes) -> Vec<ArchivedRow> {
    rows(object.clone()).expect("an object").collect::<Result<_, _>>().expect("rows")
}

/// Writes documents of which none names a field twice.
fn written(records: &[Record]) -> (Bytes, Vec<ArchivedRow>) {
    let mut writer = writer();
    let mut expected = Vec::new();
    for (number, record) in records.iter().enumerate() {
        let entry = entry(number, &record.message);
        writer.push(&entry, record.clone()).expect("a row");
        expected.push(ArchivedRow {
            identity: entry.identity(),
            timestamp: entry.at,
            version: entry.version,
            run_id: "r1".into(),
            no_alerts: entry.outcome.no_alerts,
            record: record.clone(),
        });
    }
    (writer.finish().expect("an object"), expected)
}

fn check_round_trip(records: &[Record], taken: impl Fn(usize) -> bool) -> Result<(), TestCaseError> {
    let (object, expected) = written(records);
    prop_assert!(read(&object) == expected, "the rows that were written");
    let (away, here): (Vec<_>, Vec<_>) = expected.into_iter().enumerate().partition(|(number, _)| taken(*number));
    let rows_of = |rows: &[(usize, ArchivedRow)]| rows.iter().map(|(_, row)| row.clone()).collect::<Vec<_>>();
    let identities: HashSet<Identity> = away.iter().map(|(_, row)| row.identity.clone()).collect();
    let Some(halves) = split(object, &identities).expect("a split") else {
        prop_assert!(away.is_empty());
        return Ok(());
    };
    prop_assert_eq!(halves.kept_rows, here.len() as u64);
    prop_assert!(read(&halves.kept) == rows_of(&here), "the rows that stay");
    prop_assert!(read(&halves.taken) == rows_of(&away), "the rows that go");
    prop_assert!(split(halves.kept, &identities).expect("a split").is_none());
    Ok(())
}

fn record() -> impl Strategy<Value = Record> {
    let bodies = || vec(value().prop_map(String::into_bytes), 0..3);
    let readable =
        message().prop_filter("names no field twice", |message| MessageFields::parse(message.as_bytes()).is_some());
    (readable, bodies(), bodies()).prop_map(|(message, history, audit)| Record {
        message: message.into(),
        history,
        audit,
    })
}

proptest! {
    #[test]
    fn rows_come_back_byte_for_byte_and_so_do_the_halves_of_an_object(records in vec(record(), 1..8), taken in any::<u8>()) {
        check_round_trip(&records, |number| taken >> number & 1 == 1)?;
    }

    #[test]
    fn any_message_is_a_row_or_is_refused(
        message in message(),
        changes in vec((any::<Index>(), any::<u8>()), 0..3),
        history in vec(any::<u8>(), 0..4),
    ) {
        let mut message = message.into_bytes();
        for (at, byte) in changes {
            *at.get_mut(&mut message) = byte;
        }
        let readable = MessageFields::parse(&message).is_some() && std::str::from_utf8(&history).is_ok();
        let pushed = writer().push(&entry(0, &message), Record { message, history: vec![history], audit: vec![] });
        prop_assert_eq!(pushed.is_ok(), readable);
        prop_assert!(matches!(pushed, Ok(()) | Err(ColumnarError::NotUtf8 { .. })), "{:?}", pushed);
    }
}

#[test]
fn many_rows_and_large_ones_cross_the_edges_of_batches() {
    let large = |number: usize| {
        format!(
            "{{\"alerts\":[],\"n\":{number},\"x\":\"{}\"}}",
            "\\u00e9".repeat(if number % 100 == 7 { 150_000 } else { number })
        )
    };
    let record =
        |number| Record { message: large(number).into(), history: vec![b"{}".to_vec(); number % 3], audit: vec![] };
    let records: Vec<Record> = (0..2 * ROWS_READ + 100).map(record).collect();
    check_round_trip(&records, |number| number % 100 == 7 || number > 2 * ROWS_READ).expect("round trip");
}
