use crate::{LARGEST, MailError, Mailer};
use async_trait::async_trait;
use network::{Network, Request, through_once};
use std::sync::{Arc, Mutex, PoisonError};

/// SES in memory, for unit tests and simulations: it delivers, refuses what SES would, and delivers twice what it is
/// given twice.
#[derive(Clone)]
pub struct MemoryMailer {
    outbox: Arc<Mutex<Vec<Sent>>>,
    refused: Arc<Vec<String>>,
    network: Arc<dyn Network>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub from: String,
    pub to: String,
    /// As it went out.
    pub message: String,
}

impl Sent {
    /// The value of a header, unfolded.
    pub fn header(&self, name: &str) -> Option<String> {
        let headers = self.message.split_once("\r\n\r\n")?.0.replace("\r\n ", " ");
        let value = headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?;
        Some(value.to_owned())
    }
}

impl MemoryMailer {
    pub fn new(network: Arc<dyn Network>) -> Self {
        MemoryMailer { outbox: Arc::default(), refused: Arc::default(), network }
    }

    /// Mails to this recipient are refused, as those to an unverified one.
    pub fn refusing(self, recipient: &str) -> Self {
        let refused = self.refused.iter().cloned().chain([recipient.to_owned()]).collect();
        MemoryMailer { refused: Arc::new(refused), ..self }
    }

    /// The same mails, seen through another network.
    pub fn through(&self, network: Arc<dyn Network>) -> Self {
        MemoryMailer { network, ..self.clone() }
    }

    /// What went out so far, in order.
    pub fn sent(&self) -> Vec<Sent> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Mailer for MemoryMailer {
    async fn send(&self, from: &str, to: &str, message: &[u8]) -> Result<(), MailError> {
        let request = Request { service: "ses", operation: "SendRawEmail", subject: to.to_owned() };
        let rejected = |message: &str| MailError::Rejected { to: to.to_owned(), message: message.to_owned() };
        let answer = through_once(&*self.network, &request, || {
            if self.refused.iter().any(|refused| refused == to) {
                return Err(rejected("MessageRejected: Email address is not verified"));
            }
            if message.len() > LARGEST {
                return Err(rejected("InvalidParameterValue: Message length is more than 10485760 bytes long"));
            }
            let message = String::from_utf8_lossy(message).into_owned();
            let sent = Sent { from: from.to_owned(), to: to.to_owned(), message };
            self.outbox.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
            Ok(())
        });
        answer.await.map_err(|broken| MailError::Unavailable {
            to: to.to_owned(),
            message: broken.to_string(),
            source: broken.into(),
        })?
    }
}
