use crate::MailError;
use async_trait::async_trait;
use aws_sdk_ssm::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
};
use network::{Network, Request, through};
use std::sync::Arc;

/// Who gets a kind of report. Read for each mail, so that a change needs no deployment.
#[async_trait]
pub trait Recipients: Send + Sync {
    async fn list(&self) -> Result<Vec<String>, MailError>;
}

/// A parameter in Parameter Store: addresses with commas between them.
pub struct RecipientsParameter {
    client: Client,
    name: String,
}

impl RecipientsParameter {
    pub fn shared(config: &aws_config::SdkConfig, name: String) -> Arc<dyn Recipients> {
        Arc::new(RecipientsParameter { client: Client::new(config), name })
    }
}

#[async_trait]
impl Recipients for RecipientsParameter {
    async fn list(&self) -> Result<Vec<String>, MailError> {
        let found = self.client.get_parameter().name(&self.name).send().await;
        let found = found.map_err(|error| fault(&self.name, error))?;
        Ok(addresses(&found.parameter.and_then(|parameter| parameter.value).unwrap_or_default()))
    }
}

fn fault<E>(name: &str, error: SdkError<E>) -> MailError
where
    E: std::error::Error + Send + Sync + ProvideErrorMetadata + 'static,
{
    let name = name.to_owned();
    let message = [error.code(), error.message()].into_iter().flatten().collect::<Vec<_>>().join(": ");
    match error.code() {
        Some("ParameterNotFound") => MailError::RecipientsMissing { name },
        Some("AccessDeniedException" | "AccessDenied") => MailError::RecipientsDenied { name, message },
        _ => MailError::RecipientsUnavailable { name, message, source: Box::new(error) },
    }
}

/// Cut at commas and line ends; what lies in quotes is a name, as in `"Shift, night" <night@example.com>`.
fn addresses(value: &str) -> Vec<String> {
    let mut is_quoted = false;
    let parts = value.split(|c| {
        is_quoted ^= c == '"';
        c == '\n' || (c == ',' && !is_quoted)
    });
    parts.map(str::trim).filter(|address| !address.is_empty()).map(str::to_owned).collect()
}

/// Parameter Store in memory, for unit tests and simulations.
pub struct MemoryRecipients {
    value: String,
    network: Arc<dyn Network>,
}

impl MemoryRecipients {
    /// `value` as an operator would write it.
    pub fn shared(network: Arc<dyn Network>, value: &str) -> Arc<dyn Recipients> {
        Arc::new(MemoryRecipients { value: value.to_owned(), network })
    }
}

#[async_trait]
impl Recipients for MemoryRecipients {
    async fn list(&self) -> Result<Vec<String>, MailError> {
        let name = "/memory/mail".to_owned();
        let request = Request { service: "ssm", operation: "GetParameter", subject: name.clone() };
        let answer = through(&*self.network, &request, || addresses(&self.value)).await;
        answer.map_err(|broken| MailError::RecipientsUnavailable {
            name,
            message: broken.to_string(),
            source: broken.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_however_a_person_writes_it() {
        assert_eq!(addresses("a@example.com,b@example.com"), ["a@example.com", "b@example.com"]);
        assert_eq!(addresses(" a@example.com ,\n b@example.com,,\r\n"), ["a@example.com", "b@example.com"]);
        let named = [r#""Shift, night" <night@example.com>"#, "Day <day@example.com>"];
        assert_eq!(addresses(&named.join(", ")), named);
        assert_eq!(addresses(" , "), [""; 0]);
    }
}
