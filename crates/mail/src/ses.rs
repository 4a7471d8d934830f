use crate::{MailError, Mailer};
use async_trait::async_trait;
use aws_sdk_ses::{
    Client,
    config::{Builder, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    primitives::Blob,
    types::RawMessage,
};

/// SES itself.
pub struct Ses {
    client: Client,
}

impl Ses {
    /// SES cannot tell a repeated request from a second mail. So the client repeats none by itself: [`crate::send_once`]
    /// does, and says in the mail that it may be the second.
    pub fn new(config: &aws_config::SdkConfig) -> Self {
        let config = Builder::from(config).retry_config(RetryConfig::disabled()).build();
        Ses { client: Client::from_conf(config) }
    }
}

#[async_trait]
impl Mailer for Ses {
    async fn send(&self, from: &str, to: &str, message: &[u8]) -> Result<(), MailError> {
        let rejected = |message: String| MailError::Rejected { to: to.to_owned(), message };
        let raw =
            RawMessage::builder().data(Blob::new(message)).build().map_err(|error| rejected(error.to_string()))?;
        let request = self.client.send_raw_email().source(from).destinations(to).raw_message(raw);
        request.send().await.map(|_| ()).map_err(|error| {
            let message = [error.code(), error.message()].into_iter().flatten().collect::<Vec<_>>().join(": ");
            match &error {
                SdkError::ServiceError(answer)
                    if answer.raw().status().is_client_error() && error.code() != Some("Throttling") =>
                {
                    rejected(message)
                }
                _ => MailError::Unavailable { to: to.to_owned(), message, source: Box::new(error) },
            }
        })
    }
}
