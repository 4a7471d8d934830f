//! The rules that decide what becomes of a message. They stand here and nowhere else.

use crate::document::{Alerts, Document};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disposition {
    Closed,
    Open,
    Quarantined,
}

impl Disposition {
    pub fn as_str(self) -> &'static str {
        match self {
            Disposition::Closed => "closed",
            Disposition::Open => "open",
            Disposition::Quarantined => "quarantined",
        }
    }
}

/// Statuses that count as open and as closed, trimmed and lower-cased.
#[derive(Clone, Debug)]
pub struct Rules {
    open: Vec<String>,
    closed: Vec<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Rules::new(["open", "new", "reopened", "pending", "in_progress", "acknowledged"], ["closed"])
    }
}

impl Rules {
    pub fn new<'a>(open: impl IntoIterator<Item = &'a str>, closed: impl IntoIterator<Item = &'a str>) -> Self {
        let normal = |status: &str| status.trim().to_lowercase();
        Rules { open: open.into_iter().map(normal).collect(), closed: closed.into_iter().map(normal).collect() }
    }

    /// The same rules with the lists that are configured, each as a whole.
    pub fn with(self, open: Option<Vec<String>>, closed: Option<Vec<String>>) -> Self {
        let normal = |statuses: Vec<String>| statuses.iter().map(|status| status.trim().to_lowercase()).collect();
        Rules { open: open.map_or(self.open, normal), closed: closed.map_or(self.closed, normal) }
    }

    fn kind(&self, status: Option<&str>) -> Kind {
        let Some(status) = status.map(|status| status.trim().to_lowercase()) else { return Kind::Unrecognised };
        if self.open.contains(&status) {
            Kind::Open
        } else if self.closed.contains(&status) {
            Kind::Closed
        } else {
            Kind::Unrecognised
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Open,
    Closed,
    Unrecognised,
}

/// What a message is, and why when it is quarantined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub disposition: Disposition,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_alerts: bool,
}

/// Why a message is in quarantine; the names stand in the quarantine objects and in the mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The stored bytes are no JSON object that can be read without guessing.
    UnreadableDocument,
    /// The message is fine, but a document of its history or audit is no JSON.
    UnreadableHistory,
    UnrecognisedStatus,
    AlertsNotAList,
    MessageIdAbsent,
    MessageIdNotAString,
    MessageIdDiffers,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::UnreadableDocument => "unreadable_document",
            Reason::UnreadableHistory => "unreadable_history",
            Reason::UnrecognisedStatus => "unrecognised_status",
            Reason::AlertsNotAList => "alerts_not_a_list",
            Reason::MessageIdAbsent => "message_id_absent",
            Reason::MessageIdNotAString => "message_id_not_a_string",
            Reason::MessageIdDiffers => "message_id_differs",
        }
    }
}

/// Classifies the document stored under `_id` = `id`; `source` are its bytes as the source holds them.
pub fn classify(rules: &Rules, id: &str, source: &[u8]) -> Outcome {
    let Some(document) = Document::parse(source) else {
        return quarantined(Reason::UnreadableDocument);
    };
    let (unrecognised, no_alerts) = match document.alerts() {
        Alerts::None => (None, true),
        Alerts::Scalar => (Some(Reason::AlertsNotAList), false),
        Alerts::List(alerts) => {
            let kinds: Vec<Kind> = alerts.iter().map(|alert| rules.kind(alert.status.as_deref())).collect();
            if kinds.contains(&Kind::Open) {
                return Outcome { disposition: Disposition::Open, reason: None, no_alerts: false };
            }
            (kinds.contains(&Kind::Unrecognised).then_some(Reason::UnrecognisedStatus), false)
        }
    };
    let misnamed = match document.message_id() {
        None => Some(Reason::MessageIdAbsent),
        Some(Err(_)) => Some(Reason::MessageIdNotAString),
        Some(Ok(own)) if own != id => Some(Reason::MessageIdDiffers),
        Some(Ok(_)) => None,
    };
    match unrecognised.or(misnamed) {
        Some(reason) => quarantined(reason),
        None => Outcome { disposition: Disposition::Closed, reason: None, no_alerts },
    }
}

/// Kept whole, reported, and not archived as if it were fine.
pub fn quarantined(reason: Reason) -> Outcome {
    Outcome { disposition: Disposition::Quarantined, reason: Some(reason), no_alerts: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(body: &str) -> String {
        let outcome = classify(&Rules::default(), "m1", body.as_bytes());
        match (outcome.reason, outcome.no_alerts) {
            (Some(reason), _) => reason.as_str().to_owned(),
            (None, true) => "closed, no alerts".to_owned(),
            (None, false) => outcome.disposition.as_str().to_owned(),
        }
    }

    #[test]
    fn every_rule_has_its_case() {
        for (body, expected) in [
            (r#"{"message_id":"m1","alerts":[{"status":"closed"}]}"#, "closed"),
            (r#"{"message_id":"m1","alerts":[{"status":"  CLOSED\u00a0"}]}"#, "closed"),
            (r#"{"message_id":"m1","alerts":[{"status":"closed"},{"status":"Acknowledged"}]}"#, "open"),
            (r#"{"message_id":"m1","alerts":[{"status":"weird"},{"status":"open"}]}"#, "open"),
            (r#"{"message_id":"other","alerts":[{"status":"open"}]}"#, "open"),
            (r#"{"message_id":"m1","alerts":[{"status":"weird"},{"status":"closed"}]}"#, "unrecognised_status"),
            (r#"{"message_id":"m1","alerts":[{"status":1}]}"#, "unrecognised_status"),
            (r#"{"message_id":"m1","alerts":[{"status":null}]}"#, "unrecognised_status"),
            (r#"{"message_id":"m1","alerts":[{}]}"#, "unrecognised_status"),
            (r#"{"message_id":"m1","alerts":["closed"]}"#, "unrecognised_status"),
            (r#"{"message_id":"m1","alerts":[null]}"#, "unrecognised_status"),
            (r#"{"message_id":"m1","alerts":[[{"status":"open"}]]}"#, "unrecognised_status"),
            (r#"{"message_id":"m1"}"#, "closed, no alerts"),
            (r#"{"message_id":"m1","alerts":null}"#, "closed, no alerts"),
            (r#"{"message_id":"m1","alerts":[ ]}"#, "closed, no alerts"),
            (r#"{"message_id":"m1","alerts":{"status":"closed"}}"#, "closed"),
            (r#"{"message_id":"m1","alerts":{"status":"new"}}"#, "open"),
            (r#"{"message_id":"m1","alerts":"closed"}"#, "alerts_not_a_list"),
            (r#"{"message_id":"m1","alerts":7}"#, "alerts_not_a_list"),
            (r#"{"message_id":"m1","alerts":false}"#, "alerts_not_a_list"),
            (r#"{"alerts":[{"status":"closed"}]}"#, "message_id_absent"),
            (r#"{"message_id":null,"alerts":[{"status":"closed"}]}"#, "message_id_absent"),
            (r#"{"message_id":5,"alerts":[{"status":"closed"}]}"#, "message_id_not_a_string"),
            (r#"{"message_id":"M1","alerts":[{"status":"closed"}]}"#, "message_id_differs"),
            (r#"{"message_id":"m1","alerts":[{"status":"closed","status":"open"}]}"#, "unreadable_document"),
            (r#"{"message_id":"m1","alerts":[],"big":123456789012345678901234567890,"deep":[[[[1.0]]]]}"#, "closed, no alerts"),
            (r#"{"message_id":"m1","alerts":[],"lone":"\ud800"}"#, "closed, no alerts"),
            ("{\"message_id\":\"m1\" /* note */}", "unreadable_document"),
            ("\u{feff}{\"message_id\":\"m1\"}", "unreadable_document"),
            ("[1]", "unreadable_document"),
        ] {
            assert_eq!(of(body), expected, "{body}");
        }
        let overlong = classify(&Rules::default(), "m1", b"{\"message_id\":\"m1\",\"x\":\"\xc0\x80\"}");
        assert_eq!(overlong.reason, Some(Reason::UnreadableDocument));
    }

    #[test]
    fn both_lists_can_be_configured() {
        let rules = Rules::new(["Live"], ["done", " resolved "]);
        let outcome =
            |status: &str| classify(&rules, "m", format!(r#"{{"message_id":"m","alerts":[{{"status":"{status}"}}]}}"#).as_bytes()).disposition;
        assert_eq!(outcome("LIVE"), Disposition::Open);
        assert_eq!(outcome("Resolved"), Disposition::Closed);
        assert_eq!(outcome("closed"), Disposition::Quarantined);
    }

    // An independent statement of the rules: over lists of status words, by counting.
    proptest! {
        #[test]
        fn open_beats_unrecognised_beats_closed(words in proptest::collection::vec("(open|OPEN | new|closed| Closed\t|resolved|in_progress|)", 0..6)) {
            let alerts: Vec<_> = words.iter().map(|word| serde_json::json!({"status": word})).collect();
            let body = serde_json::json!({"message_id": "m1", "alerts": alerts}).to_string();
            let open = words.iter().filter(|w| ["open", "new", "in_progress"].contains(&w.trim().to_lowercase().as_str())).count();
            let closed = words.iter().filter(|w| w.trim().eq_ignore_ascii_case("closed")).count();
            let expected = if open > 0 { Disposition::Open } else if closed < words.len() { Disposition::Quarantined } else { Disposition::Closed };
            prop_assert_eq!(classify(&Rules::default(), "m1", body.as_bytes()).disposition, expected);
        }
    }
}
