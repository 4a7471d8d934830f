//! What stands in Secrets Manager. It is read at the moment it is needed, and held in memory only.

use async_trait::async_trait;
use aws_sdk_secretsmanager::{Client, error::DisplayErrorContext};

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SecretError(pub String);

#[async_trait]
pub trait ReadSecret: Send + Sync {
    /// The secret's text.
    async fn read(&self) -> Result<String, SecretError>;
}

/// A secret by its name or ARN.
pub struct SecretsManager {
    client: Client,
    id: String,
}

impl SecretsManager {
    pub fn new(aws: &aws_config::SdkConfig, id: String) -> Self {
        SecretsManager { client: Client::new(aws), id }
    }
}

#[async_trait]
impl ReadSecret for SecretsManager {
    async fn read(&self) -> Result<String, SecretError> {
        let answer = self.client.get_secret_value().secret_id(&self.id).send().await;
        let answer =
            answer.map_err(|error| SecretError(format!("secret {}: {}", self.id, DisplayErrorContext(&error))))?;
        answer.secret_string.ok_or_else(|| SecretError(format!("secret {} holds no text", self.id)))
    }
}
