//! An element of the API's list: which message it is, and when it was.

use alerts::message::document::fields;
use bytes::Bytes;
use identity::instant;
use jiff::Timestamp;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// The longest id that an index takes, in bytes: a longer one can be in none.
const LONGEST_ID: usize = 512;

/// One element of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    /// Its `message_id`; where that is not usable, the sha256 of its bytes in hex.
    pub id: String,
    pub has_usable_id: bool,
    /// Its `timestamp`; of a list the earliest. `None` where it has none that can be read.
    pub at: Option<Timestamp>,
    pub source: Bytes,
}

pub fn element(source: Bytes) -> Element {
    // A field that stands there twice is no field: which of the two is meant can only be guessed.
    let object = std::str::from_utf8(&source).ok();
    let [message_id, timestamp] =
        object.and_then(|object| fields(object, ["message_id", "timestamp"])).unwrap_or_default();
    let own_id: Option<String> = message_id.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let own_id = own_id.filter(|id| !id.is_empty() && id.len() <= LONGEST_ID);
    // What lies before the calendar of partitions is as good as none, as it is for the index.
    let at = timestamp.and_then(earliest).filter(|at| *at >= instant::first());
    let has_usable_id = own_id.is_some();
    let id = own_id.unwrap_or_else(|| hex::encode(Sha256::digest(&source)));
    Element { id, has_usable_id, at, source }
}

fn earliest(raw: &RawValue) -> Option<Timestamp> {
    if !raw.get().starts_with('[') {
        return instant::parse_json(raw);
    }
    let list: Vec<&RawValue> = serde_json::from_str(raw.get()).ok()?;
    list.into_iter().filter_map(instant::parse_json).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Element {
        element(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn an_element_without_a_usable_id_is_called_by_its_bytes() {
        assert_eq!(
            (read(r#"{"message_id":"m-\u0031"}"#).id, read(r#"{"message_id":"m-\u0031"}"#).has_usable_id),
            ("m-1".into(), true)
        );
        // A name that no text can hold spoils nothing.
        assert_eq!(read(r#"{"\ud800":1,"message_id":"m-1","timestamp":0}"#).id, "m-1");
        let long = format!(r#"{{"message_id":"{}"}}"#, "x".repeat(513));
        for text in [
            "{}",
            "7",
            "null",
            "\"m-1\"",
            "[1]",
            r#"{"message_id":null}"#,
            r#"{"message_id":5}"#,
            r#"{"message_id":""}"#,
            r#"{"message_id":["a"]}"#,
            r#"{"message_id":"a","message_id":"a"}"#,
            r#"{"message_id":"\ud800"}"#,
            long.as_str(),
        ] {
            let element = read(text);
            assert_eq!((element.id, element.has_usable_id), (hex::encode(Sha256::digest(text)), false), "{text}");
        }
    }

    #[test]
    fn the_date_is_that_of_the_timestamp_and_the_earliest_of_a_list() {
        let at = |timestamp: &str| {
            read(&format!(r#"{{"x":[],"timestamp":{timestamp},"message_id":"m"}}"#)).at.map(instant::iso)
        };
        assert_eq!(at(r#""2026-10-01T02:00:00.5+02:00""#).as_deref(), Some("2026-10-01T00:00:00.500Z"));
        assert_eq!(at("1790812800000").as_deref(), Some("2026-10-01T00:00:00.000Z"));
        assert_eq!(at(r#"["2026-10-02","2026-10-01","no"]"#).as_deref(), Some("2026-10-01T00:00:00.000Z"));
        for none in ["null", "{}", "[]", r#""no""#, "true", "-62167219200001", r#"["2026-10-01",-70000000000000]"#] {
            assert_eq!(at(none), None, "{none}");
        }
    }
}
