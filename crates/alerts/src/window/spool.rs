//! What lies in a window's spool: numbered pairs of objects, `records-00000.zst` with the bodies and
//! `index-00000.jsonl.zst` with one line a document, both in the same order (by instant), so that
//! classification leaves the bodies alone and writing reads them once, front to back.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};

/// Raw bytes in one pair; bounds what a reader holds (a larger single document gets a pair of its own).
pub const PAIR_BYTES: u64 = 16 << 20;
/// Documents in one pair; bounds its index where documents are small.
pub const PAIR_DOCUMENTS: usize = 1000;

/// What the ids object holds of an id.
pub fn id_hash(id: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = Sha256::digest(id).0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// `checkpoint.json`: what the spool holds. Complete once `done`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpoolSummary {
    pub pairs: u32,
    /// Documents of the window, and their bytes.
    pub documents: u64,
    pub bytes: u64,
    /// Documents that match the window by a later one of their instants, and belong to an earlier window.
    pub foreign: u64,
    pub done: bool,
    /// When the source was read: before the first point in time was opened, and shortly before ([`OPENED_WITHIN`]).
    ///
    /// [`OPENED_WITHIN`]: crate::message::tracking::OPENED_WITHIN
    #[serde(default, with = "identity::instant::serde_iso")]
    pub seen_at: jiff::Timestamp,
    /// The API is or was a source: a message may have an earlier row that is called after no index.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub had_api: bool,
    /// The indices of messages, where one that runs have read is gone: rows may be called after it. None at all where the
    /// API alone is asked by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<Vec<String>>,
}

/// One record: a message and, when it is to be archived, what belongs to it. Each part as the source gave it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    pub message: Vec<u8>,
    pub history: Vec<Vec<u8>>,
    pub audit: Vec<Vec<u8>>,
}

impl Record {
    /// Appends: message, count of history, history, count of audit, audit; each length and count a little-endian u32.
    pub fn encode(
        message: &[u8],
        history: &[impl AsRef<[u8]>],
        audit: &[impl AsRef<[u8]>],
        out: &mut impl Write,
    ) -> std::io::Result<()> {
        put(message, out)?;
        for related in
            [history.iter().map(AsRef::as_ref).collect::<Vec<_>>(), audit.iter().map(AsRef::as_ref).collect()]
        {
            out.write_all(&length(related.len())?)?;
            for body in related {
                put(body, out)?;
            }
        }
        Ok(())
    }

    /// Reads the next record; an end in the middle of one is an error.
    pub fn decode(input: &mut impl Read) -> std::io::Result<Record> {
        let message = take(input)?;
        let mut related = || -> std::io::Result<Vec<Vec<u8>>> { (0..count(input)?).map(|_| take(input)).collect() };
        let history = related()?;
        let audit = related()?;
        Ok(Record { message, history, audit })
    }

    /// `{"message":…,"history":[…],"audit":[…]}` in parts, each document as it is.
    pub fn json_parts(&self) -> Vec<&[u8]> {
        let mut parts: Vec<&[u8]> = vec![b"{\"message\":", &self.message];
        for (name, bodies) in [(&b",\"history\":["[..], &self.history), (b"],\"audit\":[", &self.audit)] {
            parts.push(name);
            for (n, body) in bodies.iter().enumerate() {
                parts.extend([if n > 0 { &b","[..] } else { b"" }, body]);
            }
        }
        parts.push(b"]}");
        parts
    }
}

fn length(n: usize) -> std::io::Result<[u8; 4]> {
    u32::try_from(n).map(u32::to_le_bytes).map_err(std::io::Error::other)
}

fn put(body: &[u8], out: &mut impl Write) -> std::io::Result<()> {
    out.write_all(&length(body.len())?)?;
    out.write_all(body)
}

fn count(input: &mut impl Read) -> std::io::Result<u32> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    Ok(u32::from_le_bytes(length))
}

/// Beyond it, memory is taken as bytes come; up to it, at once and no more than is needed.
const LARGEST_RESERVED: u64 = 64 << 20;

fn take(input: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let wanted = u64::from(count(input)?);
    // A damaged length must not allocate 4 GB.
    let mut body = Vec::with_capacity(wanted.min(LARGEST_RESERVED) as usize);
    if input.take(wanted).read_to_end(&mut body)? as u64 != wanted {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_comes_back_byte_for_byte(
            message in proptest::collection::vec(any::<u8>(), 0..200),
            history in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..5),
            audit in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..5),
        ) {
            let mut bytes = Vec::new();
            Record::encode(&message, &history, &audit, &mut bytes).expect("encode");
            let record = Record::decode(&mut bytes.as_slice()).expect("decode");
            prop_assert_eq!(record, Record { message, history, audit });
            if !bytes.is_empty() {
                prop_assert!(Record::decode(&mut &bytes[..bytes.len() - 1]).is_err());
            }
        }
    }
}
