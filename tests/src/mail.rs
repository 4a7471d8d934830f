//! Mails as they arrived in the sink's folder.

use crate::Cloud;
use anyhow::Result;
use base64::{Engine, prelude::BASE64_STANDARD};

#[derive(Clone, Debug)]
pub struct Mail {
    /// Headers and all text parts, decoded.
    pub text: String,
}

impl Cloud {
    /// The mails that are about the run, in order of arrival: others may name it as the one before.
    pub fn mails(&self, run_id: &str) -> Result<Vec<Mail>> {
        self.mails_that_say(&format!("Run {run_id},"))
    }

    pub fn mails_that_say(&self, words: &str) -> Result<Vec<Mail>> {
        let mut files: Vec<_> =
            std::fs::read_dir(&self.mail_folder)?.filter_map(Result::ok).map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|ending| ending == "eml"));
        files.sort();
        let mut mails = Vec::new();
        for file in files {
            let text = decode(&String::from_utf8_lossy(&std::fs::read(file)?));
            if text.contains(words) {
                mails.push(Mail { text });
            }
        }
        Ok(mails)
    }
}

/// Enough of MIME for the product's own mails: base64 and quoted-printable parts, whatever stands around them.
fn decode(mail: &str) -> String {
    let mail = mail.replace("\r\n", "\n");
    let mut text = String::new();
    for part in mail.split("\n--") {
        let (head, body) = part.split_once("\n\n").unwrap_or((part, ""));
        let encoding = head.to_lowercase();
        text.push_str(head);
        text.push('\n');
        if encoding.contains("content-transfer-encoding: base64") {
            let body: String = body.split_whitespace().collect();
            text.push_str(&String::from_utf8_lossy(&BASE64_STANDARD.decode(body).unwrap_or_default()));
        } else if encoding.contains("content-transfer-encoding: quoted-printable") {
            text.push_str(&body.replace("=\n", "").replace("=3D", "="));
        } else {
            text.push_str(body);
        }
        text.push('\n');
    }
    text
}
