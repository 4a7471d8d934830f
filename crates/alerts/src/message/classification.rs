//! The rules that decide what becomes of a message. They stand here and nowhere else.

use crate::message::document::{Alerts, MessageFields};
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

#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// The stored bytes are not a JSON object that can be read without guessing.
    UnreadableDocument,
    /// The message is fine, but a document of its history or audit is not valid JSON.
    UnreadableHistory,
    UnrecognisedStatus,
    AlertsNotAList,
    MessageIdAbsent,
    MessageIdNotAString,
    MessageIdDiffers,
    /// From the API: no index could hold a document of this id.
    MessageIdUnusable,
    /// From the API: no instant can be read, so that no partition is the message's own.
    TimestampUnusable,
    /// Its index holds its id several times, under several routings.
    SeveralByRouting,
    /// Its history or audit is larger than a function can hold.
    HistoryTooLarge,
    /// An operator excluded it, because the document makes its window fail.
    ByOperator,
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
            Reason::MessageIdUnusable => "message_id_unusable",
            Reason::TimestampUnusable => "timestamp_unusable",
            Reason::SeveralByRouting => "several_by_routing",
            Reason::HistoryTooLarge => "history_too_large",
            Reason::ByOperator => "by_operator",
        }
    }
}

/// Classifies the document stored under `_id` = `id`; `source` are its bytes as the source holds them.
pub fn classify(rules: &Rules, id: &str, source: &[u8]) -> Outcome {
    let Some(document) = MessageFields::parse(source) else {
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
    use proptest::{collection::vec, prelude::*, sample::select};

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
            (
                r#"{"message_id":"m1","alerts":[],"big":123456789012345678901234567890,"deep":[[[[1.0]]]]}"#,
                "closed, no alerts",
            ),
            (r#"{"message_id":"m1","alerts":[],"lone":"\ud800"}"#, "closed, no alerts"),
            (r#"{"\ud800":1,"message_id":"m1","alert\u0073":[{"\udfff":1,"status":"new"}]}"#, "open"),
            (r#"{"message_id":"m1","message_id":null}"#, "unreadable_document"),
            (r#"{"message_id":"m1"}{}"#, "unreadable_document"),
            ("{\"message_id\":\"m1\",\"a\tb\":1}", "unreadable_document"),
            ("{\"message_id\":\"m1\" /* note */}", "unreadable_document"),
            ("\u{feff}{\"message_id\":\"m1\"}", "unreadable_document"),
            ("[1]", "unreadable_document"),
            (r#"["m1",[],null,null,null]"#, "unreadable_document"),
        ] {
            assert_eq!(of(body), expected, "{body}");
        }
        let overlong = classify(&Rules::default(), "m1", b"{\"message_id\":\"m1\",\"x\":\"\xc0\x80\"}");
        assert_eq!(overlong.reason, Some(Reason::UnreadableDocument));
    }

    #[test]
    fn both_lists_can_be_configured() {
        let rules = Rules::new(["Live"], ["done", " resolved "]);
        let outcome = |status: &str| {
            classify(&rules, "m", format!(r#"{{"message_id":"m","alerts":[{{"status":"{status}"}}]}}"#).as_bytes())
                .disposition
        };
        assert_eq!(outcome("LIVE"), Disposition::Open);
        assert_eq!(outcome("Resolved"), Disposition::Closed);
        assert_eq!(outcome("closed"), Disposition::Quarantined);
    }

    /// What the rules say of one alert, for the statement below.
    type Said = (String, Kind);

    /// Unicode's `White_Space`, written down from its table.
    const BLANKS: &str = "\t\n\u{b}\u{c}\r \u{85}\u{a0}\u{1680}\u{2000}\u{2001}\u{2002}\u{2003}\u{2004}\u{2005}\u{2006}\u{2007}\
        \u{2008}\u{2009}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}";
    const OPEN: &[&str] = &["open", "new", "reopened", "pending", "in_progress", "acknowledged"];
    /// Some of them look closed or open, but what pads them is no white space.
    const OTHER: &[&str] = &[
        "",
        "close",
        "closed.",
        "clos ed",
        "in progress",
        "open,closed",
        "\u{200b}closed",
        "\u{feff}open",
        "\u{1c}new",
        "\u{180e}closed",
    ];
    const NO_STRING: &[&str] = &["null", "1", "true", "{}", r#"["open"]"#, r#"{"status":"open"}"#, r#""\ud800open""#];
    /// Fields that decide nothing.
    const ASIDE: &[&str] = &[
        r#""x":[{"alerts":[{"status":"open"}]}]"#,
        r#""\ud800":"\ud800""#,
        r#""Alerts":[{"status":"open"}]"#,
        r#""n":1e999"#,
    ];

    /// A JSON string in one of its spellings: as it is, or with every character escaped.
    fn spelled(text: &str, escaped: bool) -> String {
        if !escaped {
            return serde_json::json!(text).to_string();
        }
        format!("\"{}\"", text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<String>())
    }

    fn word(words: &'static [&'static str], kind: Kind) -> impl Strategy<Value = Said> {
        let blanks = || vec(select(BLANKS.chars().collect::<Vec<_>>()), 0..3).prop_map(String::from_iter);
        (select(words), any::<u32>(), blanks(), blanks(), any::<bool>()).prop_map(
            move |(word, upper, before, after, escaped)| {
                let cased = word
                    .chars()
                    .enumerate()
                    .map(|(at, c)| if upper >> at & 1 == 1 { c.to_ascii_uppercase() } else { c });
                (spelled(&format!("{before}{}{after}", cased.collect::<String>()), escaped), kind)
            },
        )
    }

    fn object() -> impl Strategy<Value = Said> {
        let status = prop_oneof![
            3 => word(&["closed"], Kind::Closed),
            1 => word(OPEN, Kind::Open),
            1 => word(OTHER, Kind::Unrecognised),
            1 => select(NO_STRING).prop_map(|value| (value.to_owned(), Kind::Unrecognised)),
        ];
        let with_status = (
            status,
            select(&["", "\"\\udfff\":\"a\\ud800\",", "\"opened_at\":[],", "\"severity\":{\"status\":\"open\"},"][..]),
        )
            .prop_map(|((status, kind), other)| (format!("{{{other} \"status\" : {status} }}"), kind));
        prop_oneof![9 => with_status, 1 => select(&["{}", "{\"Status\":\"open\"}"][..]).prop_map(|object| (object.to_owned(), Kind::Unrecognised))]
    }

    fn element() -> impl Strategy<Value = Said> {
        let other = [
            "null",
            "0",
            "true",
            "\"open\"",
            "\"closed\"",
            "[]",
            "[{\"status\":\"open\"}]",
            "[\"a\",\"open\",\"s\",\"c\",1,2]",
        ];
        prop_oneof![5 => object(), 1 => select(other.to_vec()).prop_map(|element| (element.to_owned(), Kind::Unrecognised))]
    }

    /// The field `alerts`, what its alerts are, and whether there are none.
    fn alerts() -> impl Strategy<Value = (Option<String>, Vec<Kind>, bool)> {
        let none = select(vec![None, Some("null"), Some("[]"), Some("[ \n]")])
            .prop_map(|alerts| (alerts.map(str::to_owned), vec![], true));
        let scalar = select(&["\"open\"", "\"\"", "7", "-0.5e9", "true", "false"][..]);
        let list = vec(element(), 1..5).prop_map(|elements| {
            let (spelled, kinds): (Vec<_>, Vec<_>) = elements.into_iter().unzip();
            (Some(format!("[{}]", spelled.join(" , "))), kinds, false)
        });
        prop_oneof![
            1 => none,
            1 => scalar.prop_map(|scalar| (Some(scalar.to_owned()), vec![Kind::Unrecognised], false)),
            2 => object().prop_map(|(object, kind)| (Some(object), vec![kind], false)),
            6 => list,
        ]
    }

    /// The field `message_id` and whether it names the message `Ä/1`.
    fn message_id() -> impl Strategy<Value = (Option<String>, bool)> {
        let other = [
            "null",
            "1",
            "true",
            "[]",
            "[\"Ä/1\"]",
            "{\"Ä/1\":1}",
            "\"\"",
            "\"ä/1\"",
            "\" Ä/1\"",
            "\"A\\u0308/1\"",
            "\"\\ud800\"",
        ];
        prop_oneof![
            6 => any::<bool>().prop_map(|escaped| (Some(spelled("Ä/1", escaped)), true)),
            2 => select(other.to_vec()).prop_map(|other| (Some(other.to_owned()), false)),
            1 => Just((None, false)),
        ]
    }

    // An independent statement of the rules: each part is generated together with what the rules say of it.
    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn open_beats_unrecognised_beats_closed(
            (alerts, kinds, none) in alerts(),
            (message_id, named) in message_id(),
            other in select(ASIDE),
            alerts_first in any::<bool>(),
        ) {
            let mut fields: Vec<String> = alerts.map(|alerts| format!("\"alerts\": {alerts}")).into_iter().collect();
            fields.push(other.to_owned());
            fields.extend(message_id.map(|id| format!("\"message_id\":{id}")));
            if !alerts_first {
                fields.reverse();
            }
            let body = format!(" {{{}}}\n", fields.join(","));
            let outcome = classify(&Rules::default(), "Ä/1", body.as_bytes());
            let expected = if kinds.contains(&Kind::Open) {
                Disposition::Open
            } else if kinds.contains(&Kind::Unrecognised) || !named {
                Disposition::Quarantined
            } else {
                Disposition::Closed
            };
            prop_assert_eq!(outcome.disposition, expected, "{}", body);
            prop_assert_eq!(outcome.reason.is_some(), expected == Disposition::Quarantined);
            prop_assert_eq!(outcome.no_alerts, none && named);
        }
    }
}
