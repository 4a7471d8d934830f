//! How documents are packed changes their size, and nothing else.

use alerts::{
    message::{
        classification::{Rules, classify},
        document,
        entry::Entry,
    },
    source::Source,
    window::spool::Record,
};
use columnar::{ObjectWriter, Origin, rows, writer::Packing};
use jiff::Timestamp;

/// Messages of words by chance: what repeats lies far apart, as in mail.
fn messages() -> Vec<(String, String)> {
    let mut random = 1_u64;
    let mut word = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:x} ", (random >> 33) % 5_000)
    };
    let message = |n: usize| {
        let text: String = (0..2_000).map(|_| word()).collect();
        (format!("m{n}"), format!(r#"{{"message_id":"m{n}","alerts":[],"text":"{text}"}}"#))
    };
    (0..200).map(message).collect()
}

fn entry(id: &str, source: &str) -> Entry {
    Entry {
        index: "messages".into(),
        id: id.into(),
        at: Timestamp::UNIX_EPOCH,
        version: document::version(source.as_bytes()),
        related: String::new(),
        related_bytes: 0,
        bytes: source.len() as u64,
        source: Source::Opensearch,
        written: None,
        outcome: classify(&Rules::default(), id, source.as_bytes()),
    }
}

#[test]
fn what_is_packed_for_cold_storage_is_smaller_and_comes_back_byte_for_byte() {
    let messages = messages();
    let packed = |packing| {
        let origin = Origin { run_id: "r1".into(), archived_at: Timestamp::UNIX_EPOCH };
        let mut writer = ObjectWriter::packed(origin, packing).expect("a writer");
        for (id, source) in &messages {
            let record = Record { message: source.as_bytes().to_vec(), ..Record::default() };
            writer.push(&entry(id, source), record).expect("a row");
        }
        writer.finish().expect("an object")
    };
    let (balanced, cold) = (packed(Packing::BALANCED), packed(Packing::COLD));
    assert!(cold.len() < balanced.len(), "{} and {} bytes", cold.len(), balanced.len());
    let read = rows(cold).expect("an object").map(|row| row.expect("a row").record.message);
    assert!(read.eq(messages.iter().map(|(_, source)| source.as_bytes())), "other documents");
}
