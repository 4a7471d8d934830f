use crate::{LARGEST, MailError};
use jiff::Timestamp;
use lettre::address::AddressError;
use lettre::message::header::{ContentTransferEncoding, ContentType};
use lettre::message::{Body, Mailbox, MultiPart, SinglePart};
use std::time::SystemTime;

/// Longest identifier in a Message-ID, in bytes.
const LONGEST_ID: usize = 100;

/// What a mail says: the same in plain text and in HTML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The same for the same mail sent again, so that a mail program can tell a duplicate.
    pub id: String,
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// A message, ready to be sent.
#[derive(Debug)]
pub struct Message {
    pub bytes: Vec<u8>,
    /// Without their display names: one [`Mailer::send`](crate::Mailer::send) each.
    pub recipients: Vec<String>,
    /// Recipients whose address cannot be one. The others get the mail all the same.
    pub rejected: Vec<(String, MailError)>,
}

/// The bytes of one RFC 5322 message from a sender to all recipients, with a text and an HTML part.
pub fn message(content: &Content, from: &str, to: &[String], date: Timestamp) -> Result<Message, MailError> {
    let sender = mailbox(from)?;
    let subject: String = content.subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut builder = lettre::Message::builder().subject(subject).date(SystemTime::from(date));
    let (mut recipients, mut rejected) = (Vec::new(), Vec::new());
    for address in to {
        match mailbox(address) {
            Ok(recipient) if recipients.contains(&recipient.email.to_string()) => {}
            Ok(recipient) => {
                recipients.push(recipient.email.to_string());
                builder = builder.to(recipient);
            }
            Err(error) => rejected.push((address.clone(), error)),
        }
    }
    if recipients.is_empty() {
        return Err(rejected.into_iter().next().map_or(MailError::NoRecipient, |(_, error)| error));
    }
    let id = format!("<{}@{}>", atom(&content.id), sender.email.domain());
    let text = part(ContentType::TEXT_PLAIN, &content.text);
    let html = part(ContentType::TEXT_HTML, &content.html);
    // Quoted-printable cannot hold `=_`: no text can end its part early.
    let parts = MultiPart::alternative().boundary("=_alert-archive_=").singlepart(text).singlepart(html);
    let bytes = builder.from(sender).message_id(Some(id)).multipart(parts)?.formatted();
    if bytes.len() > LARGEST {
        return Err(MailError::TooLarge { bytes: bytes.len() });
    }
    Ok(Message { bytes, recipients, rejected })
}

fn mailbox(address: &str) -> Result<Mailbox, MailError> {
    let shown: String = address.chars().map(|c| if c.is_control() { ' ' } else { c }).take(320).collect();
    let invalid = |error: AddressError| MailError::Address { address: shown.clone(), problem: error.to_string() };
    // The parser of addresses is lenient about line breaks; headers are not.
    if address.chars().any(char::is_control) {
        return Err(invalid(AddressError::InvalidUser));
    }
    address.trim().parse().map_err(invalid)
}

fn part(kind: ContentType, text: &str) -> SinglePart {
    let text = text.replace("\r\n", "\n").replace('\n', "\r\n");
    let body = Body::new_with_encoding(text.clone(), ContentTransferEncoding::QuotedPrintable);
    SinglePart::builder().header(kind).body(body.unwrap_or_else(|_| Body::new(text)))
}

fn atom(id: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let id: String = id.chars().take(LONGEST_ID).map(|c| if allowed(c) { c } else { '_' }).collect();
    // Dots stand between other characters only.
    id.split('.').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Content {
        let (text, html) = ("Grüße\nSecond line".to_owned(), "<p>Grüße</p>".to_owned());
        Content { id: "run-1.2".into(), subject: "All went well".into(), text, html }
    }

    fn built(content: &Content, to: &[&str]) -> Message {
        let to: Vec<String> = to.iter().map(|&address| address.to_owned()).collect();
        message(content, "Archive <archive@example.com>", &to, Timestamp::UNIX_EPOCH).expect("a message")
    }

    fn headers(message: &Message) -> String {
        let text = String::from_utf8(message.bytes.clone()).expect("ASCII");
        text.split_once("\r\n\r\n").expect("headers end at an empty line").0.replace("\r\n ", " ")
    }

    #[test]
    fn a_message_has_both_parts_and_an_id_that_does_not_change() {
        let (first, second) = (built(&content(), &["ops@example.com"]), built(&content(), &["ops@example.com"]));
        assert_eq!(first.bytes, second.bytes);
        assert!(first.bytes.is_ascii());
        assert!(headers(&first).contains("Message-ID: <run-1.2@example.com>"), "{}", headers(&first));
        let text = String::from_utf8(first.bytes).expect("ASCII");
        assert!(text.contains("text/plain") && text.contains("text/html") && text.contains("Gr=C3=BC=C3=9Fe\r\n"));
    }

    #[test]
    fn no_text_adds_a_header_or_a_recipient() {
        let hostile = "x\r\nBcc: thief@example.com\r\n\r\n<script>";
        let content =
            Content { id: hostile.into(), subject: hostile.into(), text: hostile.into(), html: hostile.into() };
        let message = built(&content, &["ops@example.com"]);
        assert!(!headers(&message).lines().any(|line| line.to_lowercase().starts_with("bcc")), "{}", headers(&message));
        assert_eq!(message.recipients, ["ops@example.com"]);
        for id in ["..", "a..b.", "é ∂", ""] {
            built(&Content { id: id.into(), ..content.clone() }, &["ops@example.com"]);
        }
    }

    #[test]
    fn a_bad_address_is_told_and_the_others_get_the_mail() {
        let bad = "b@example.com\r\nBcc: thief@example.com";
        let message = built(&content(), &["a@example.com", bad, "nobody", "C <c@example.com>", "a@example.com"]);
        assert_eq!(message.recipients, ["a@example.com", "c@example.com"]);
        let rejected: Vec<&str> = message.rejected.iter().map(|(address, _)| address.as_str()).collect();
        assert_eq!(rejected, [bad, "nobody"]);
        assert!(!headers(&message).contains("thief"));
        let none = crate::message(&content(), "archive@example.com", &["nobody".into()], Timestamp::UNIX_EPOCH);
        assert!(matches!(none, Err(MailError::Address { .. })));
        let none = crate::message(&content(), "archive@example.com", &[], Timestamp::UNIX_EPOCH);
        assert!(matches!(none, Err(MailError::NoRecipient)));
    }

    #[test]
    fn a_mail_that_ses_would_not_take_is_refused_before() {
        let content = Content { text: "x".repeat(LARGEST), ..content() };
        let refused = message(&content, "archive@example.com", &["a@example.com".into()], Timestamp::UNIX_EPOCH);
        assert!(matches!(refused, Err(MailError::TooLarge { bytes }) if bytes > LARGEST));
    }
}
