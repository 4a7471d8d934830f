//! Parameter Store: what a table's last ingest reached, for operators and other programs. It has no conditional write,
//! so it decides nothing: the table's row does, and the next ingest puts a parameter right that differs from it.

use async_trait::async_trait;
use aws_sdk_ssm::{
    Client,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    types::ParameterType,
};
use errors::{Name, Named};

#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    #[error("the parameter {name} does not exist")]
    Missing { name: String },
    #[error("{operation} of the parameter {name} is not allowed: {message}")]
    Denied { operation: &'static str, name: String, message: String },
    #[error("{operation} of the parameter {name} failed: {message}")]
    Unavailable { operation: &'static str, name: String, message: String },
}

impl Named for ParameterError {
    fn name(&self) -> Name {
        match self {
            ParameterError::Missing { .. } => Name::ParameterMissing,
            ParameterError::Denied { .. } => Name::ParameterDenied,
            ParameterError::Unavailable { .. } => Name::ParametersUnavailable,
        }
    }
}

/// Texts by name.
#[async_trait]
pub trait Parameters: Send + Sync {
    async fn get(&self, name: &str) -> Result<String, ParameterError>;
    async fn put(&self, name: &str, value: &str) -> Result<(), ParameterError>;
}

pub struct Ssm(Client);

impl Ssm {
    pub fn new(config: &aws_config::SdkConfig) -> Self {
        Ssm(Client::new(config))
    }
}

#[async_trait]
impl Parameters for Ssm {
    async fn get(&self, name: &str) -> Result<String, ParameterError> {
        let found = self.0.get_parameter().name(name).send().await;
        let found = found.map_err(|error| failure("GetParameter", name, error))?;
        let value = found.parameter.and_then(|parameter| parameter.value);
        value.ok_or_else(|| ParameterError::Missing { name: name.to_owned() })
    }

    async fn put(&self, name: &str, value: &str) -> Result<(), ParameterError> {
        let put = self.0.put_parameter().name(name).value(value).r#type(ParameterType::String).overwrite(true);
        put.send().await.map(|_| ()).map_err(|error| failure("PutParameter", name, error))
    }
}

fn failure<E, R>(operation: &'static str, name: &str, error: SdkError<E, R>) -> ParameterError
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
    R: std::fmt::Debug + 'static,
    SdkError<E, R>: ProvideErrorMetadata,
{
    let name = name.to_owned();
    match error.code() {
        Some("ParameterNotFound") => ParameterError::Missing { name },
        Some("AccessDeniedException" | "AccessDenied") => {
            ParameterError::Denied { operation, name, message: DisplayErrorContext(&error).to_string() }
        }
        _ => ParameterError::Unavailable { operation, name, message: DisplayErrorContext(&error).to_string() },
    }
}
