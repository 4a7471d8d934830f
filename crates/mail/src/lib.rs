//! Mails: [`Recipients`] says who gets one, [`message`] makes its bytes, a [`Mailer`] hands it to SES, and
//! [`send_once`] sees to it that each recipient gets it once. What a mail says is written elsewhere (`reports`); no
//! type of a pipeline may enter.

mod memory;
mod message;
mod once;
mod recipients;
mod ses;

pub use memory::{MemoryMailer, Sent};
pub use message::{Content, File, Message, message};
pub use once::{Delivery, Outbox, send_once};
pub use recipients::Recipients;
pub use ses::Ses;

use async_trait::async_trait;
use errors::{Name, Named};
use parameters::ParameterError;

/// What SES takes as one raw message, in bytes.
pub const LARGEST: usize = 10 << 20;

/// The one request of SES that is needed. SES knows no idempotency key: what is sent twice arrives twice.
#[async_trait]
pub trait Mailer: Send + Sync {
    /// Sends the bytes of a message to one recipient.
    async fn send(&self, from: &str, to: &str, message: &[u8]) -> Result<(), MailError>;
}

#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("`{address}` is not a mail address: {problem}")]
    Address { address: String, problem: String },
    #[error("a mail needs at least one recipient")]
    NoRecipient,
    #[error("who gets the mail is not known")]
    Recipients(#[from] ParameterError),
    #[error("the mail has {bytes} bytes; SES takes {LARGEST}")]
    TooLarge { bytes: usize },
    #[error("`{kind}` is not a content type")]
    Kind { kind: &'static str },
    #[error("the mail could not be put together")]
    Build(#[from] lettre::error::Error),
    #[error("SES refuses the mail to {to}: {message}")]
    Rejected { to: String, message: String },
    #[error("SES cannot take the mail to {to} now: {message}")]
    Unavailable { to: String, message: String, source: Box<dyn std::error::Error + Send + Sync> },
}

impl Named for MailError {
    fn name(&self) -> Name {
        match self {
            MailError::Unavailable { .. } => Name::MailUnavailable,
            MailError::Recipients(error) => error.name(),
            _ => Name::MailRejected,
        }
    }
}

impl MailError {
    /// Whether only this recipient does not get the mail, for a reason that a retry does not change.
    fn is_about_one_recipient(&self) -> bool {
        matches!(self, MailError::Rejected { .. } | MailError::Address { .. })
    }
}
