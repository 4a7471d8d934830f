//! Parameter Store: what a table's last ingest and build have reached, for operators and other programs. It has no
//! conditional write, so that the table's row decides. An ingest reads it all the same: it never begins later than the
//! parameter says, and never gives an id again that the parameter knows of, should the row be lost.

use async_trait::async_trait;
use aws_sdk_ssm::{
    Client,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    types::ParameterType,
};
use errors::{Name, Named};
use identity::instant;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    #[error("the parameter {name} does not exist")]
    Missing { name: String },
    #[error("{operation} of the parameter {name} is not allowed: {message}")]
    Denied { operation: &'static str, name: String, message: String },
    #[error("the parameter {name} is not as an ingest writes it: {what}")]
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

/// Where the next ingest of a table begins, as its parameter says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IngestParameter {
    /// As PostgreSQL writes it, UTC; `None`: at the beginning.
    pub timestamp: Option<String>,
    pub sequential_id: u64,
    pub latest_object: Option<String>,
}

/// What the last build of a table has read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildParameter {
    pub latest_object: Option<String>,
    pub sequential_id: u64,
    pub rows: u64,
    #[serde(with = "instant::serde_iso")]
    pub built_at: Timestamp,
}

/// `None` where there is no such parameter yet.
pub async fn recall<T: DeserializeOwned>(parameters: &dyn Parameters, name: &str) -> Result<Option<T>, ParameterError> {
    let text = match parameters.get(name).await {
        Ok(text) => text,
        Err(ParameterError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let unreadable =
        |error: serde_json::Error| ParameterError::Unreadable { name: name.to_owned(), what: error.to_string() };
    serde_json::from_str(&text).map(Some).map_err(unreadable)
}

pub async fn tell<T: Serialize>(parameters: &dyn Parameters, name: &str, value: &T) -> Result<(), ParameterError> {
    let unreadable =
        |error: serde_json::Error| ParameterError::Unreadable { name: name.to_owned(), what: error.to_string() };
    parameters.put(name, &serde_json::to_string(value).map_err(unreadable)?).await
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

/// Bytes of a value at most, in the tier that costs nothing.
const VALUE_BYTES: usize = 4096;

/// Parameter Store in memory; clones share it. It refuses what the service refuses.
#[derive(Clone, Default)]
pub struct MemoryParameters(Arc<Mutex<BTreeMap<String, String>>>);

#[async_trait]
impl Parameters for MemoryParameters {
    async fn get(&self, name: &str) -> Result<String, ParameterError> {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.get(name).cloned().ok_or_else(|| ParameterError::Missing { name: name.to_owned() })
    }

    async fn put(&self, name: &str, value: &str) -> Result<(), ParameterError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte);
        if value.len() > VALUE_BYTES || !name.starts_with('/') || !name.bytes().all(is_allowed) {
            let (name, message) = (name.to_owned(), "ValidationException".to_owned());
            return Err(ParameterError::Unavailable { operation: "PutParameter", name, message });
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

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

    fn parameter() -> IngestParameter {
        let timestamp = Some("2024-01-01T00:00:00.000001Z".to_owned());
        IngestParameter { timestamp, sequential_id: 7, latest_object: Some("t/7.jsonl".into()) }
    }

    #[tokio::test]
    async fn what_was_told_is_recalled_and_what_never_was_is_none() {
        let parameters = MemoryParameters::default();
        assert_eq!(recall::<IngestParameter>(&parameters, "/p/t/ingest").await.expect("nothing"), None);
        let missing = parameters.get("/p/t/ingest").await.expect_err("missing");
        assert_eq!(missing.name(), Name::ParameterMissing);
        tell(&parameters, "/p/t/ingest", &parameter()).await.expect("told");
        assert_eq!(recall(&parameters, "/p/t/ingest").await.expect("recalled"), Some(parameter()));
    }

    #[tokio::test]
    async fn the_longest_key_of_an_object_fits_and_any_name_of_a_table_does() {
        let table = "Größe %/\"".repeat(5);
        let name = crate::build_parameter("/deployment/warehouse", &table);
        let latest_object = Some("k".repeat(1024));
        let parameter =
            BuildParameter { latest_object, sequential_id: u64::MAX, rows: u64::MAX, built_at: Timestamp::MAX };
        let parameters = MemoryParameters::default();
        tell(&parameters, &name, &parameter).await.expect("told");
        assert!(parameters.put("/p", &"x".repeat(VALUE_BYTES + 1)).await.is_err());
        assert!(parameters.put("/p/ü", "x").await.is_err());
    }

    #[test]
    fn no_two_tables_share_a_parameter() {
        let tables = ["a_b", "a-b", "a b", "a/b", "a.b", "A_b", "a-2db", "ab", "a_b/build"];
        let names: BTreeSet<String> = tables.iter().map(|table| crate::build_parameter("/p", table)).collect();
        assert_eq!(names.len(), tables.len(), "{names:?}");
    }

    #[tokio::test]
    async fn what_cannot_be_read_or_reached_is_an_error_by_name() {
        let parameters = MemoryParameters::default();
        parameters.put("/p", "{}").await.expect("put");
        let unreadable = recall::<IngestParameter>(&parameters, "/p").await.expect_err("unreadable");
        assert_eq!(unreadable.name(), Name::ParameterUnreadable);
        let unavailable =
            || ParameterError::Unavailable { operation: "GetParameter", name: "/p".into(), message: String::new() };
        let denied = || ParameterError::Denied { operation: "GetParameter", name: "/p".into(), message: String::new() };
        for (refusal, name) in
            [(unavailable as fn() -> ParameterError, Name::ParametersUnavailable), (denied, Name::ParameterDenied)]
        {
            let error = recall::<IngestParameter>(&Refusing(refusal), "/p").await.expect_err("an error");
            assert_eq!(error.name(), name);
            let error = tell(&Refusing(refusal), "/p", &parameter()).await.expect_err("an error");
            assert_eq!(error.name(), name);
        }
    }
}
