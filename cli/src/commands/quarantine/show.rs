//! One message of the quarantine: its bytes, and what stands in it in the place of what was expected.

use super::{Which, row_of};
use crate::archive::Archive;
use ::archive::QuarantineLine;
use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use std::io::Write;

/// Characters of a value that are shown.
const SHOWN: usize = 60;

/// The message on standard output; why it is there on standard error, unless only the bytes are wanted.
pub async fn show(archive: &Archive, which: &Which, raw: bool) -> Result<bool> {
    let row = row_of(archive, which).await?;
    let message_id = &which.message_id;
    let path = row.s3_path.context("the row names no object")?;
    let key = archive.objects.key_of(&path).with_context(|| format!("{path} is not in this archive's bucket"))?;
    let lines: Vec<QuarantineLine> = archive.objects.get_lines(key).await?;
    let line = lines.into_iter().find(|line| line.id == row.message_id && line.source_index == row.source_index);
    let line =
        line.with_context(|| format!("{path} does not hold {message_id}; alert-archive verify --deep says more"))?;
    let body = BASE64_STANDARD.decode(line.source_base64)?;
    if !raw {
        let reason = row.reason.clone().unwrap_or(line.reason);
        eprintln!("{message_id} of {}: {reason}", row.source_index);
        if let Some(found) = found(&reason, message_id, &body) {
            eprintln!("found: {found}");
        }
        eprintln!("expected: {}", expected(&reason));
        eprintln!("judge it again: alert-archive quarantine release {}", reports::quoted(message_id));
    }
    std::io::stdout().write_all(&body)?;
    Ok(true)
}

/// What stands in the message in the place of what its reason is about; nothing where the message does not tell.
pub fn found(reason: &str, id: &str, body: &[u8]) -> Option<String> {
    let message: Value = match serde_json::from_slice(body) {
        Ok(message) => message,
        Err(error) if reason == "unreadable_document" => return Some(format!("no JSON: {error}")),
        Err(_) => return None,
    };
    let own = || spelled(message.get("message_id"));
    match reason {
        "unreadable_document" if !message.is_object() => Some(format!("{}, no object", spelled(Some(&message)))),
        "unrecognised_status" => {
            let alerts = match message.get("alerts")? {
                Value::Array(alerts) => alerts.iter().collect(),
                alert => vec![alert],
            };
            let mut statuses: Vec<String> = alerts.into_iter().map(status).collect();
            statuses.sort();
            statuses.dedup();
            Some(statuses.join(", "))
        }
        "alerts_not_a_list" => Some(format!("alerts {}", spelled(message.get("alerts")))),
        "message_id_absent" | "message_id_not_a_string" => Some(format!("message_id {}", own())),
        "message_id_differs" => Some(format!("message_id {} in document {}", own(), spelled(Some(&id.into())))),
        "timestamp_unusable" => Some(format!("timestamp {}", spelled(message.get("timestamp")))),
        _ => None,
    }
}

fn status(alert: &Value) -> String {
    match alert {
        Value::Object(alert) => format!("status {}", spelled(alert.get("status"))),
        other => format!("an alert that is {}", spelled(Some(other))),
    }
}

/// A value as JSON, cut where it is long.
fn spelled(value: Option<&Value>) -> String {
    let Some(value) = value else { return "that is absent".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// What a message would have to be like, so as not to be here.
fn expected(reason: &str) -> &'static str {
    match reason {
        "unrecognised_status" => {
            "each alert is an object whose status is one of those that count as closed or open. Unless others are \
             configured: closed; open, new, reopened, pending, in_progress, acknowledged"
        }
        "alerts_not_a_list" => "alerts is a list of objects, one object, null, or absent",
        "message_id_absent" => "a field message_id",
        "message_id_not_a_string" => "a message_id that is a text",
        "message_id_differs" => "a message_id that is the document's own id",
        "message_id_unusable" => "an id that an index can hold: a text of at most 512 bytes",
        "timestamp_unusable" => "a timestamp that names an instant, such as 2024-07-01T12:00:00Z",
        "several_by_routing" => "one document of this id in its index; there are several, under different routings",
        "history_too_large" => "history and audit of at most 64 MiB together",
        "by_operator" => "nothing: an operator excluded it, and its note says why",
        "unreadable_history" => "history and audit that are valid JSON",
        _ => "a document that can be read without guessing: a JSON object in UTF-8, no member twice that decides",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_stands_beside_what_was_expected() {
        for (reason, body, expected) in [
            (
                "unrecognised_status",
                r#"{"alerts":[{"status":"weird"},{"status":"closed"},{"status":1},{"status":"weird"},{},7]}"#,
                Some(r#"an alert that is 7, status "closed", status "weird", status 1, status that is absent"#),
            ),
            ("unrecognised_status", r#"{"alerts":{"status":"odd"}}"#, Some(r#"status "odd""#)),
            ("alerts_not_a_list", r#"{"alerts":"closed"}"#, Some(r#"alerts "closed""#)),
            ("message_id_absent", r#"{"alerts":[]}"#, Some("message_id that is absent")),
            ("message_id_not_a_string", r#"{"message_id":5}"#, Some("message_id 5")),
            ("message_id_differs", r#"{"message_id":"M1"}"#, Some(r#"message_id "M1" in document "m1""#)),
            ("timestamp_unusable", r#"{"timestamp":"soon"}"#, Some(r#"timestamp "soon""#)),
            ("unreadable_document", "[1]", Some("[1], no object")),
            ("unreadable_document", "{\"a\":", Some("no JSON: EOF while parsing a value at line 1 column 5")),
            ("unreadable_document", r#"{"message_id":"a","message_id":"b"}"#, None),
            ("history_too_large", "{}", None),
            ("message_id_differs", "no JSON", None),
        ] {
            assert_eq!(found(reason, "m1", body.as_bytes()).as_deref(), expected, "{body}");
        }
        let long = found("alerts_not_a_list", "m1", format!(r#"{{"alerts":"{}"}}"#, "ü".repeat(5000)).as_bytes());
        assert!(long.is_some_and(|long| long.chars().count() < 80));
    }
}
