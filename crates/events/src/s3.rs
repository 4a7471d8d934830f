//! What S3 tells of its objects: a notification, as it comes to a function or in the body of an SQS message, becomes
//! events that are checked. A key is a name and never a path; where a file or an object is to be named after it, that
//! is the business of `identity::safe_component`.

use errors::{Name, Named};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};

#[derive(Clone, Debug, PartialEq)]
pub struct ObjectEvent {
    pub bucket: String,
    /// Decoded: the key as `GetObject` wants it.
    pub key: String,
    /// `ObjectCreated:Put` and the like.
    pub name: String,
    pub change: ObjectChange,
    /// When S3 finished the request that changed the object.
    pub at: Timestamp,
    /// Known when the object was created, in bytes.
    pub size: Option<u64>,
    pub etag: Option<String>,
    pub version_id: Option<String>,
    /// Of two events on one key, the one with the greater sequencer came later. Spelled so that comparing the strings
    /// compares the events, in a condition of DynamoDB too; absent where the content did not change.
    pub sequencer: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ObjectChange {
    Created,
    Removed,
    /// Tags, access lists, storage classes: the content is what it was.
    Other,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NotificationError {
    #[error("the notification is not an S3 event: {what}")]
    Event { what: String },
    #[error("a record of the S3 event cannot be used: {what}")]
    Record { what: String },
    #[error("key {key:?} of the S3 event is not URL-encoded UTF-8")]
    Key { key: String },
}

impl Named for NotificationError {
    fn name(&self) -> Name {
        match self {
            NotificationError::Event { .. } => Name::EventUnreadable,
            NotificationError::Record { .. } => Name::EventRecordUnreadable,
            NotificationError::Key { .. } => Name::EventKeyUnreadable,
        }
    }
}

/// The fields of a record that count. A record has others, and gets more with each minor version.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    event_version: String,
    event_source: String,
    event_name: String,
    event_time: Timestamp,
    s3: Entity,
}

#[derive(Deserialize)]
struct Entity {
    bucket: Bucket,
    object: Object,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    key: String,
    size: Option<u64>,
    e_tag: Option<String>,
    version_id: Option<String>,
    sequencer: Option<String>,
}

/// Reads a notification. A record that cannot be used takes none of the others with it; S3's test event has no records.
pub fn read(body: &[u8]) -> Result<Vec<Result<ObjectEvent, NotificationError>>, NotificationError> {
    let unreadable = |what: &dyn std::fmt::Display| NotificationError::Event { what: what.to_string() };
    let fields: HashMap<String, &RawValue> = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    if fields.get("Event").is_some_and(|event| event.get() == r#""s3:TestEvent""#) {
        return Ok(Vec::new());
    }
    let records = fields.get("Records").ok_or_else(|| unreadable(&"it has no `Records`"))?;
    let records: Vec<&RawValue> = serde_json::from_str(records.get()).map_err(|error| unreadable(&error))?;
    Ok(records.into_iter().map(|record| object_event(record.get())).collect())
}

fn object_event(record: &str) -> Result<ObjectEvent, NotificationError> {
    let unusable = |what: String| NotificationError::Record { what };
    let record: Record = serde_json::from_str(record).map_err(|error| unusable(error.to_string()))?;
    let (bucket, object) = (record.s3.bucket.name, record.s3.object);
    // The major version changes when a field goes or means something else.
    if record.event_source != "aws:s3" || record.event_version.split('.').next() != Some("2") {
        return Err(unusable(format!("version {:?} of {:?}", record.event_version, record.event_source)));
    }
    let change = match record.event_name.split(':').next() {
        Some("ObjectCreated") => ObjectChange::Created,
        Some("ObjectRemoved" | "LifecycleExpiration") => ObjectChange::Removed,
        _ => ObjectChange::Other,
    };
    let is_of_a_bucket = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if bucket.is_empty() || !bucket.bytes().all(is_of_a_bucket) {
        return Err(unusable("it names no bucket".into()));
    }
    if object.key.is_empty() {
        return Err(unusable("it names no key".into()));
    }
    let key = decoded(&object.key).ok_or(NotificationError::Key { key: object.key })?;
    let sequencer = |text: String| ordered(&text).ok_or_else(|| unusable(format!("sequencer {text:?}")));
    let sequencer = object.sequencer.map(sequencer).transpose()?;
    // An object of a bucket without versions, or older than they are, has none. While versions are suspended all
    // objects of a key are called `null`, so that it tells none from another.
    let version_id = object.version_id.filter(|id| !id.is_empty() && id != "null");
    if change == ObjectChange::Created && version_id.is_none() && sequencer.is_none() {
        return Err(unusable(format!("{key:?} was created without a version or a sequencer")));
    }
    Ok(ObjectEvent {
        bucket,
        key,
        name: record.event_name,
        change,
        at: record.event_time,
        size: object.size,
        etag: object.e_tag,
        version_id,
        sequencer,
    })
}

/// S3 encodes a key as a form does: a space is `+`, other bytes are `%XX`. `None` when S3 cannot have written it.
fn decoded(key: &str) -> Option<String> {
    let is_hex = |part: &str| part.len() >= 2 && part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !key.split('%').skip(1).all(is_hex) {
        return None;
    }
    Some(percent_decode_str(&key.replace('+', " ")).decode_utf8().ok()?.into_owned())
}

/// Sequencers are compared with the shorter one filled up with zeros on the right, which is to say without those zeros.
fn ordered(sequencer: &str) -> Option<String> {
    let is_hex = !sequencer.is_empty() && sequencer.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| sequencer.trim_end_matches('0').to_ascii_lowercase())
}

/// What is true now of each object, by bucket and key, whatever the order of delivery and however often it was
/// delivered.
pub fn newest(events: impl IntoIterator<Item = ObjectEvent>) -> Vec<ObjectEvent> {
    let mut newest: BTreeMap<(String, String), ObjectEvent> = BTreeMap::new();
    for event in events.into_iter().filter(|event| event.change != ObjectChange::Other) {
        let known = newest.entry((event.bucket.clone(), event.key.clone())).or_insert_with(|| event.clone());
        if known.sequencer < event.sequencer {
            *known = event;
        }
    }
    newest.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::Index};
    use serde_json::{Value, json};

    fn record(name: &str, key: &str, sequencer: &str) -> Value {
        json!({
            "eventVersion": "2.6", "eventSource": "aws:s3", "awsRegion": "eu-central-1", "eventTime": "2026-11-16T06:00:00.000Z", "eventName": name,
            "userIdentity": {"principalId": "AWS:1"}, "requestParameters": {"sourceIPAddress": "127.0.0.1"}, "responseElements": null,
            "s3": {"s3SchemaVersion": "1.0", "configurationId": "logs", "bucket": {"name": "b-1", "arn": "arn:aws:s3:::b-1"},
                "object": {"key": key, "size": 5, "eTag": "d41d", "versionId": "v1", "sequencer": sequencer}},
        })
    }

    fn events(records: &[Value]) -> Vec<Result<ObjectEvent, NotificationError>> {
        read(json!({"Records": records}).to_string().as_bytes()).expect("a notification")
    }

    fn event(name: &str, key: &str, sequencer: &str) -> ObjectEvent {
        events(&[record(name, key, sequencer)]).remove(0).expect("an event")
    }

    #[test]
    fn a_record_says_which_object_changed_and_how() {
        let created = event("ObjectCreated:Put", "in/red+flower%2B%C3%BC.gz", "0055AED6DCD90281E5");
        assert_eq!(
            (created.bucket.as_str(), created.key.as_str(), created.change),
            ("b-1", "in/red flower+ü.gz", ObjectChange::Created)
        );
        assert_eq!(created.at, "2026-11-16T06:00:00Z".parse().expect("instant"));
        assert_eq!(
            (created.size, created.etag.as_deref(), created.version_id.as_deref()),
            (Some(5), Some("d41d"), Some("v1"))
        );
        for (name, change) in [
            ("ObjectCreated:CompleteMultipartUpload", ObjectChange::Created),
            ("ObjectRemoved:DeleteMarkerCreated", ObjectChange::Removed),
            ("LifecycleExpiration:Delete", ObjectChange::Removed),
            ("ObjectTagging:Put", ObjectChange::Other),
        ] {
            assert_eq!(event(name, "k", "01").change, change, "{name}");
        }
        let mut unversioned = record("ObjectCreated:Put", "k", "01");
        for none in [json!("null"), json!(""), Value::Null] {
            unversioned["s3"]["object"]["versionId"] = none;
            assert_eq!(events(&[unversioned.clone()]).remove(0).expect("an event").version_id, None);
        }
        assert_eq!(read(br#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b"}"#), Ok(vec![]));
    }

    #[test]
    fn a_bad_record_takes_no_good_one_with_it() {
        let changed = |path: &str, value: Value| {
            let mut record = record("ObjectCreated:Put", "k", "01");
            *record.pointer_mut(path).expect("a field") = value;
            record
        };
        let bad = [
            changed("/s3/object/key", json!("%FF")),
            changed("/s3/object/key", json!("100%")),
            changed("/s3/object/key", json!("")),
            changed("/s3/object/size", json!(-1)),
            changed("/s3/object/sequencer", json!("later")),
            changed("/s3/bucket/name", json!("../other")),
            changed("/eventSource", json!("aws:sqs")),
            changed("/eventVersion", json!("3.0")),
            changed("/eventTime", json!("yesterday")),
            changed("/eventName", Value::Null),
            changed("/s3/object", Value::Null),
            json!(7),
        ];
        for bad in bad {
            let is_key = bad["s3"]["object"]["key"].as_str().is_some_and(|key| key.contains('%'));
            let expected = ["a", if is_key { "EventKeyUnreadable" } else { "EventRecordUnreadable" }, "b"];
            let read =
                events(&[record("ObjectCreated:Put", "a", "01"), bad.clone(), record("ObjectCreated:Put", "b", "01")]);
            let read: Vec<String> = read
                .into_iter()
                .map(|event| event.map_or_else(|error| error.name().to_string(), |event| event.key))
                .collect();
            assert_eq!(read, expected, "{bad}");
        }
        for body in ["", "[]", "{}", r#"{"Records":{}}"#, r#"{"Records":null}"#, "\u{feff}{}"] {
            assert_eq!(read(body.as_bytes()).map_err(|error| error.name().as_str()), Err("EventUnreadable"), "{body}");
        }
    }

    #[test]
    fn the_later_of_two_events_wins_in_any_order_of_delivery() {
        // As numbers these are in another order: the shorter one is filled up on the right.
        let in_order = ["00", "0055", "00550", "005501", "0055ae", "0055AF", "1", "1000a"];
        for (position, earlier) in in_order.iter().enumerate() {
            for later in &in_order[position..] {
                let (first, second) =
                    (event("ObjectCreated:Put", "k", earlier), event("ObjectRemoved:Delete", "k", later));
                let same = earlier.trim_end_matches('0') == later.trim_end_matches('0');
                let expected = if same { [&first, &second] } else { [&second, &second] };
                assert_eq!(
                    [&newest([first.clone(), second.clone()])[0], &newest([second.clone(), first.clone()])[0]],
                    expected,
                    "{earlier} {later}"
                );
            }
        }
        let two = [
            event("ObjectCreated:Put", "a", "2"),
            event("ObjectCreated:Put", "b", "1"),
            event("ObjectTagging:Put", "b", "9"),
        ];
        assert_eq!(newest(two.clone()), two[..2]);
    }

    /// As S3 does it.
    fn encoded(key: &str) -> String {
        let one = |byte: u8| match byte {
            b' ' => "+".to_owned(),
            b'/' | b'.' | b'-' | b'_' | b'*' => char::from(byte).to_string(),
            _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        key.bytes().map(one).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn fuzz_any_key_comes_back_and_is_no_path(key in r"(\PC|[\x00-\x20/.%+~]){1,700}|\.\./\.\./etc/passwd|[./]{1,3}") {
            prop_assert_eq!(event("ObjectCreated:Put", &encoded(&key), "01").key, &key[..]);
            prop_assert!(!identity::safe_component(&key).contains(['/', '.', '\0', '\n']));
        }

        #[test]
        fn fuzz_any_bytes_are_a_notification_or_a_named_error(
            bytes in vec(any::<u8>(), 0..200),
            changes in vec((any::<Index>(), any::<u8>()), 0..4),
        ) {
            prop_assert!(read(&bytes).is_err());
            let mut body = json!({"Records": [record("ObjectCreated:Put", "a+b%20c", "0055AE")]}).to_string().into_bytes();
            for (at, byte) in changes {
                *at.get_mut(&mut body) = byte;
            }
            for event in read(&body).into_iter().flatten().flatten() {
                prop_assert!(!event.bucket.contains('/') && !event.key.is_empty());
                prop_assert!(event.version_id.is_some() || event.sequencer.is_some() || event.change != ObjectChange::Created);
            }
        }
    }
}
