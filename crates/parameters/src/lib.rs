//! Parameter Store: texts by name, of which a few are values as JSON. It has no conditional write: what two may change at
//! once is decided elsewhere. What a parameter means is said where it is used; no type of a pipeline may enter.

mod memory;

pub use memory::MemoryParameters;

use async_trait::async_trait;
use aws_sdk_ssm::{
    Client,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    types::ParameterType,
};
use errors::{Name, Named};
use serde::{Serialize, de::DeserializeOwned};

#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    #[error("the parameter {name} does not exist")]
    Missing { name: String },
    #[error("{operation} of the parameter {name} is not allowed: {message}")]
    Denied { operation: &'static str, name: String, message: String },
    #[error("the parameter {name} does not hold what is written there: {what}")]
    Unreadable { name: String, what: String },
    #[error("{operation} of the parameter {name} failed: {message}")]
    Unavailable { operation: &'static str, name: String, message: String },
}

impl Named for ParameterError {
    fn name(&self) -> Name {
        match self {
            ParameterError::Missing { .. } => Name::ParameterMissing,
            ParameterError::Denied { .. } => Name::ParameterDenied,
            ParameterError::Unreadable { .. } => Name::ParameterUnreadable,
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

/// A value that [`tell`] wrote; `None` where there is no such parameter yet.
pub async fn recall<T: DeserializeOwned>(parameters: &dyn Parameters, name: &str) -> Result<Option<T>, ParameterError> {
    let text = match parameters.get(name).await {
        Ok(text) => text,
        Err(ParameterError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_str(&text).map(Some).map_err(|error| unreadable(name, &error))
}

/// Writes a value as JSON.
pub async fn tell<T: Serialize>(parameters: &dyn Parameters, name: &str, value: &T) -> Result<(), ParameterError> {
    parameters.put(name, &serde_json::to_string(value).map_err(|error| unreadable(name, &error))?).await
}

fn unreadable(name: &str, error: &serde_json::Error) -> ParameterError {
    ParameterError::Unreadable { name: name.to_owned(), what: error.to_string() }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Refuses everything in the way that it is told.
    struct Refusing(fn() -> ParameterError);

    #[async_trait]
    impl Parameters for Refusing {
        async fn get(&self, _name: &str) -> Result<String, ParameterError> {
            Err(self.0())
        }
        async fn put(&self, _name: &str, _value: &str) -> Result<(), ParameterError> {
            Err(self.0())
        }
    }

    #[tokio::test]
    async fn what_was_told_is_recalled_and_what_never_was_is_none() {
        let parameters = MemoryParameters::default();
        assert_eq!(recall::<[u8; 2]>(&parameters, "/p/t").await.expect("nothing"), None);
        let missing = parameters.get("/p/t").await.expect_err("missing");
        assert_eq!(missing.name(), Name::ParameterMissing);
        tell(&parameters, "/p/t", &[1, 2]).await.expect("told");
        assert_eq!(recall(&parameters, "/p/t").await.expect("recalled"), Some([1, 2]));
    }

    #[tokio::test]
    async fn what_cannot_be_read_or_reached_is_an_error_by_name() {
        let parameters = MemoryParameters::default();
        parameters.put("/p", "{}").await.expect("put");
        let unreadable = recall::<[u8; 2]>(&parameters, "/p").await.expect_err("unreadable");
        assert_eq!(unreadable.name(), Name::ParameterUnreadable);
        let unavailable =
            || ParameterError::Unavailable { operation: "GetParameter", name: "/p".into(), message: String::new() };
        let denied = || ParameterError::Denied { operation: "GetParameter", name: "/p".into(), message: String::new() };
        for (refusal, name) in
            [(unavailable as fn() -> ParameterError, Name::ParametersUnavailable), (denied, Name::ParameterDenied)]
        {
            let error = recall::<[u8; 2]>(&Refusing(refusal), "/p").await.expect_err("an error");
            assert_eq!(error.name(), name);
            let error = tell(&Refusing(refusal), "/p", &[1, 2]).await.expect_err("an error");
            assert_eq!(error.name(), name);
        }
    }
}
