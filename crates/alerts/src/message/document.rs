//! A look into a message that leaves its bytes alone: only the few fields that rules and columns need are read.

use identity::instant;
use jiff::Timestamp;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// A message that could be read: valid JSON, an object, none of the fields we look at twice.
pub struct MessageFields<'a> {
    message_id: Option<&'a RawValue>,
    sender: Option<&'a RawValue>,
    channel: Option<&'a RawValue>,
    subject: Option<&'a RawValue>,
    alerts: Alerts,
}

pub enum Alerts {
    /// Missing, null or an empty list.
    None,
    /// A value that is neither list nor object.
    Scalar,
    List(Vec<Alert>),
}

/// One alert. An element that is no object is an alert without any field.
#[derive(Default)]
pub struct Alert {
    pub alert_id: Option<String>,
    /// `None` when the status is missing or no string.
    pub status: Option<String>,
    pub severity: Option<String>,
    pub category: Option<String>,
    pub opened_at: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
}

impl<'a> MessageFields<'a> {
    /// `None` when the bytes are not a JSON object or name a field twice, so that reading on would be guessing.
    pub fn parse(source: &'a [u8]) -> Option<Self> {
        let object = std::str::from_utf8(source).ok()?;
        let [message_id, sender, channel, subject, alerts] =
            fields(object, ["message_id", "sender", "channel", "subject", "alerts"])?;
        Some(MessageFields { message_id, sender, channel, subject, alerts: parse_alerts(alerts)? })
    }

    /// `None` when absent or null; `Err` with the raw value when it is no string.
    pub fn message_id(&self) -> Option<Result<String, &'a str>> {
        let raw = self.message_id?;
        Some(serde_json::from_str(raw.get()).map_err(|_| raw.get()))
    }

    pub fn alerts(&self) -> &Alerts {
        &self.alerts
    }

    pub fn sender(&self) -> Option<String> {
        text(self.sender)
    }

    pub fn channel(&self) -> Option<String> {
        text(self.channel)
    }

    pub fn subject(&self) -> Option<String> {
        text(self.subject)
    }
}

fn parse_alerts(raw: Option<&RawValue>) -> Option<Alerts> {
    let Some(raw) = raw else { return Some(Alerts::None) };
    let elements: Vec<&RawValue> = match raw.get().as_bytes()[0] {
        b'[' => serde_json::from_str(raw.get()).ok()?,
        b'{' => vec![raw],
        _ => return Some(Alerts::Scalar),
    };
    if elements.is_empty() {
        return Some(Alerts::None);
    }
    elements.into_iter().map(parse_alert).collect::<Option<Vec<_>>>().map(Alerts::List)
}

fn parse_alert(raw: &RawValue) -> Option<Alert> {
    if !raw.get().starts_with('{') {
        return Some(Alert::default());
    }
    let names = ["alert_id", "status", "severity", "category", "opened_at", "closed_at"];
    let [alert_id, status, severity, category, opened_at, closed_at] = fields(raw.get(), names)?;
    Some(Alert {
        alert_id: text(alert_id),
        status: status.and_then(|raw| serde_json::from_str(raw.get()).ok()),
        severity: text(severity),
        category: text(category),
        opened_at: opened_at.and_then(instant::parse_json),
        closed_at: closed_at.and_then(instant::parse_json),
    })
}

/// A string's text; any other value as it is spelled; null is absent.
fn text(raw: Option<&RawValue>) -> Option<String> {
    let raw = raw?.get();
    if raw.starts_with('"') { serde_json::from_str(raw).ok() } else { Some(raw.to_owned()) }
}

/// The version of a document: sha256 over its bytes, in hex.
pub fn version(source: &[u8]) -> String {
    hex::encode(Sha256::digest(source))
}

/// Tells one history and audit of a message from another: a hash over their bytes and where each body ends, in hex.
pub fn related(history: &[impl AsRef<[u8]>], audit: &[impl AsRef<[u8]>]) -> String {
    let mut hash = Sha256::new();
    for bodies in [as_bytes(history), as_bytes(audit)] {
        hash.update((bodies.len() as u64).to_le_bytes());
        for body in bodies {
            hash.update((body.len() as u64).to_le_bytes());
            hash.update(body);
        }
    }
    hex::encode(&hash.finalize()[..16])
}

fn as_bytes(bodies: &[impl AsRef<[u8]>]) -> Vec<&[u8]> {
    bodies.iter().map(AsRef::as_ref).collect()
}

/// The fields `names` of a JSON object, null counting as absent. `None` when it is no object, or has one of them twice.
/// Whatever other names it has, also such as no text can hold, is nothing to us.
pub fn fields<'a, const N: usize>(object: &'a str, names: [&str; N]) -> Option<[Option<&'a RawValue>; N]> {
    let mut input = serde_json::Deserializer::from_str(object);
    let found = input.deserialize_map(Fields(names)).ok()?;
    input.end().ok()?;
    Some(found.map(|value| value.filter(|value| value.get() != "null")))
}

struct Fields<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Fields<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(key) = object.next_key::<&RawValue>()? {
            // A key with a lone surrogate is JSON, but no `str` can hold it: it is none of the names.
            let key: Option<String> = serde_json::from_str(key.get()).ok();
            match self.0.iter().position(|name| key.as_deref() == Some(name)) {
                None => drop(object.next_value::<IgnoredAny>()?),
                Some(position) if found[position].is_some() => {
                    return Err(A::Error::custom("a field stands there twice"));
                }
                Some(position) => found[position] = Some(object.next_value()?),
            }
        }
        Ok(found)
    }
}
