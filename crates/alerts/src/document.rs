//! A look into a message that leaves its bytes alone: only the few fields that rules and columns need are read.

use crate::instant;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    message_id: Option<&'a RawValue>,
    #[serde(borrow)]
    alerts: Option<&'a RawValue>,
    #[serde(borrow)]
    sender: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    #[serde(borrow)]
    subject: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct AlertFields<'a> {
    #[serde(borrow)]
    alert_id: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    severity: Option<&'a RawValue>,
    #[serde(borrow)]
    category: Option<&'a RawValue>,
    #[serde(borrow)]
    opened_at: Option<&'a RawValue>,
    #[serde(borrow)]
    closed_at: Option<&'a RawValue>,
}

/// A message that could be read: valid JSON, an object, none of the fields we look at twice.
pub struct Document<'a> {
    fields: Fields<'a>,
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

impl<'a> Document<'a> {
    /// `None` when the bytes are no JSON object or name a field twice, so that reading on would be guessing.
    pub fn parse(source: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(source).ok()?;
        // A struct can also be read from a JSON list, which is no document.
        if !text.trim_start().starts_with('{') {
            return None;
        }
        let fields: Fields = serde_json::from_str(text).ok()?;
        let alerts = parse_alerts(fields.alerts)?;
        Some(Document { fields, alerts })
    }

    /// `None` when absent or null; `Err` with the raw value when it is no string.
    pub fn message_id(&self) -> Option<Result<String, &'a str>> {
        let raw = self.fields.message_id?;
        Some(serde_json::from_str(raw.get()).map_err(|_| raw.get()))
    }

    pub fn alerts(&self) -> &Alerts {
        &self.alerts
    }

    pub fn sender(&self) -> Option<String> {
        text(self.fields.sender)
    }

    pub fn channel(&self) -> Option<String> {
        text(self.fields.channel)
    }

    pub fn subject(&self) -> Option<String> {
        text(self.fields.subject)
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
    let fields: AlertFields = serde_json::from_str(raw.get()).ok()?;
    Some(Alert {
        alert_id: text(fields.alert_id),
        status: fields.status.and_then(|raw| serde_json::from_str(raw.get()).ok()),
        severity: text(fields.severity),
        category: text(fields.category),
        opened_at: fields.opened_at.and_then(instant::parse_json),
        closed_at: fields.closed_at.and_then(instant::parse_json),
    })
}

/// A string's text; any other value as it is spelled; null is absent.
fn text(raw: Option<&RawValue>) -> Option<String> {
    let raw = raw?.get();
    match raw.starts_with('"') {
        true => serde_json::from_str(raw).ok(),
        false => Some(raw.to_owned()),
    }
}

/// The version of a document: sha256 over its bytes, in hex.
pub fn version(source: &[u8]) -> String {
    hex::encode(Sha256::digest(source))
}
