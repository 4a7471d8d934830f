use crate::{LARGEST, MailError};
use jiff::Timestamp;
use lettre::address::AddressError;
use lettre::message::header::{ContentTransferEncoding, ContentType};
use lettre::message::{Attachment, Body, Mailbox, MultiPart, SinglePart};
use std::time::SystemTime;

/// Longest identifier in a Message-ID, in bytes.
const LONGEST_ID: usize = 100;

/// How mail programs show the sender, where its address brings no name along.
const SENDER: &str = "Alert archive";

/// What a mail says: the same in plain text and in HTML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The same for the same mail sent again, so that a mail program can tell a duplicate.
    pub id: String,
    /// What all mails about the same have in common: mail programs show those as one thread. Not the `id` of the first
    /// of them, because SES gives every mail an id of its own.
    pub thread: Option<String>,
    pub subject: String,
    pub text: String,
    pub html: String,
    /// Shown where the HTML says `cid:<name>`.
    pub images: Vec<File>,
    pub attachments: Vec<File>,
}

/// A file that goes along with a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub name: String,
    /// Such as `image/png`.
    pub kind: &'static str,
    pub bytes: Vec<u8>,
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

/// The bytes of one RFC 5322 message from a sender to all recipients, with a text and an HTML part. Attachments that
/// would make it larger than SES takes are left away: the mail itself is what matters.
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
    let id = |id: &str| format!("<{}@{}>", atom(id), sender.email.domain());
    let mut builder = builder.message_id(Some(id(&content.id)));
    if let Some(thread) = &content.thread {
        builder = builder.in_reply_to(id(thread)).references(id(thread));
    }
    let name = sender.name.clone().or_else(|| Some(SENDER.to_owned()));
    let builder = builder.from(Mailbox { name, email: sender.email });
    let with = |attachments: &[File]| -> Result<Vec<u8>, MailError> {
        Ok(builder.clone().multipart(parts(content, attachments)?)?.formatted())
    };
    let mut bytes = with(&content.attachments)?;
    if bytes.len() > LARGEST && !content.attachments.is_empty() {
        bytes = with(&[])?;
    }
    if bytes.len() > LARGEST {
        return Err(MailError::TooLarge { bytes: bytes.len() });
    }
    Ok(Message { bytes, recipients, rejected })
}

/// Text or HTML with its images, and beside them the attachments. Neither quoted-printable nor base64 can hold `=_`: no
/// content can end its part early.
fn parts(content: &Content, attachments: &[File]) -> Result<MultiPart, MailError> {
    let text = part(ContentType::TEXT_PLAIN, &content.text);
    let html = part(ContentType::TEXT_HTML, &content.html);
    let parts = MultiPart::alternative().boundary("=_alert-archive_=").singlepart(text);
    let parts = if content.images.is_empty() {
        parts.singlepart(html)
    } else {
        let mut related = MultiPart::related().boundary("=_alert-archive-html_=").singlepart(html);
        for image in &content.images {
            related = related.singlepart(file(image, Attachment::new_inline(image.name.clone()))?);
        }
        parts.multipart(related)
    };
    if attachments.is_empty() {
        return Ok(parts);
    }
    let mut mixed = MultiPart::mixed().boundary("=_alert-archive-files_=").multipart(parts);
    for attachment in attachments {
        mixed = mixed.singlepart(file(attachment, Attachment::new(atom(&attachment.name)))?);
    }
    Ok(mixed)
}

fn file(file: &File, place: Attachment) -> Result<SinglePart, MailError> {
    let kind = file.kind.parse().map_err(|_| MailError::Kind { kind: file.kind })?;
    Ok(place.body(file.bytes.clone(), kind))
}

pub(crate) fn mailbox(address: &str) -> Result<Mailbox, MailError> {
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
        Content { id: "run-1.2".into(), subject: "All went well".into(), text, html, ..Content::default() }
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
        let file = File { name: hostile.into(), kind: "text/csv; charset=utf-8", bytes: hostile.into() };
        let content = Content {
            id: hostile.into(),
            thread: Some(hostile.into()),
            subject: hostile.into(),
            text: hostile.into(),
            html: hostile.into(),
            images: Vec::new(),
            attachments: vec![file],
        };
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
    fn mails_about_the_same_are_one_thread_whatever_their_ids() {
        let of = |id: &str, thread: &str| {
            let content = Content { id: id.into(), thread: Some(thread.into()), ..content() };
            let headers = headers(&built(&content, &["ops@example.com"]));
            headers.lines().find(|line| line.starts_with("References: ")).map(str::to_owned).expect("a thread")
        };
        assert_eq!(of("run-1.1", "run-1"), "References: <run-1@example.com>");
        assert_eq!(of("run-1.1", "run-1"), of("run-1.2", "run-1"));
        assert_ne!(of("run-1.1", "run-1"), of("run-2.1", "run-2"));
    }

    #[test]
    fn a_sender_has_a_name() {
        let from = |sender: &str| {
            let built = message(&content(), sender, &["a@example.com".into()], Timestamp::UNIX_EPOCH);
            let headers = headers(&built.expect("a message"));
            headers.lines().find(|line| line.starts_with("From: ")).map(str::to_owned).expect("a sender")
        };
        assert_eq!(from("archive@example.com"), r#"From: "Alert archive" <archive@example.com>"#);
        assert_eq!(from("Night shift <archive@example.com>"), r#"From: "Night shift" <archive@example.com>"#);
    }

    #[test]
    fn images_stand_beside_the_html_and_attachments_beside_all_of_it() {
        let image = File { name: "runs".into(), kind: "image/png", bytes: b"\x89PNG=_alert".to_vec() };
        let csv = File { name: "failed-windows.csv".into(), kind: "text/csv; charset=utf-8", bytes: b"a,b".to_vec() };
        let content = Content { images: vec![image], attachments: vec![csv], ..content() };
        let text = String::from_utf8(built(&content, &["a@example.com"]).bytes).expect("ASCII");
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
        let order = ["multipart/mixed", "multipart/alternative", "text/plain", "multipart/related", "text/html"];
        assert!(order.map(at).is_sorted(), "{text}");
        assert!(at("text/html") < at("Content-ID: <runs>") && at("image/png") < at("failed-windows.csv"));
    }

    #[test]
    fn attachments_that_make_a_mail_too_large_are_left_away() {
        let large = File { name: "a.csv".into(), kind: "text/csv", bytes: vec![b'x'; LARGEST] };
        let message = built(&Content { attachments: vec![large], ..content() }, &["a@example.com"]);
        assert!(message.bytes.len() < 10_000 && !String::from_utf8_lossy(&message.bytes).contains("a.csv"));
    }

    #[test]
    fn a_mail_that_ses_would_not_take_is_refused_before() {
        let content = Content { text: "x".repeat(LARGEST), ..content() };
        let refused = message(&content, "archive@example.com", &["a@example.com".into()], Timestamp::UNIX_EPOCH);
        assert!(matches!(refused, Err(MailError::TooLarge { bytes }) if bytes > LARGEST));
    }
}
