use crate::{MailError, Mailer};
use async_trait::async_trait;
use aws_sdk_ses::{
    Client,
    config::{Builder, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    primitives::Blob,
    types::{RawMessage, VerificationStatus},
};
use std::error::Error;

/// SES itself.
pub struct Ses {
    client: Client,
}

impl Ses {
    /// SES cannot tell a repeated request from a second mail. So the client repeats none by itself:
    /// [`crate::send_once`] does, and says in the mail that it may be the second.
    pub fn new(config: &aws_config::SdkConfig) -> Self {
        let config = Builder::from(config).retry_config(RetryConfig::disabled()).build();
        Ses { client: Client::from_conf(config) }
    }

    /// Whether SES has verified an address, or the domain that it belongs to.
    pub async fn is_verified(&self, address: &str) -> Result<bool, MailError> {
        let address = crate::message::mailbox(address)?.email;
        let identities = [address.to_string(), address.domain().to_owned()];
        let asked = self.client.get_identity_verification_attributes().set_identities(Some(identities.to_vec()));
        let answer = asked.send().await.map_err(|error| fault(&identities[0], error))?;
        let mut statuses = answer.verification_attributes.values().map(|attributes| &attributes.verification_status);
        Ok(statuses.any(|status| *status == VerificationStatus::Success))
    }
}

fn fault<E>(to: &str, error: SdkError<E>) -> MailError
where
    E: Error + Send + Sync + ProvideErrorMetadata + 'static,
{
    let message = [error.code(), error.message()].into_iter().flatten().collect::<Vec<_>>().join(": ");
    match &error {
        SdkError::ServiceError(answer)
            if answer.raw().status().is_client_error() && error.code() != Some("Throttling") =>
        {
            MailError::Rejected { to: to.to_owned(), message }
        }
        _ => MailError::Unavailable { to: to.to_owned(), message, source: Box::new(error) },
    }
}

#[async_trait]
impl Mailer for Ses {
    async fn send(&self, from: &str, to: &str, message: &[u8]) -> Result<(), MailError> {
        let rejected = |message: String| MailError::Rejected { to: to.to_owned(), message };
        let raw =
            RawMessage::builder().data(Blob::new(message)).build().map_err(|error| rejected(error.to_string()))?;
        let request = self.client.send_raw_email().source(from).destinations(to).raw_message(raw);
        request.send().await.map(|_| ()).map_err(|error| fault(to, error))
    }
}
