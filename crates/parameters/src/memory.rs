use crate::{ParameterError, Parameters};
use async_trait::async_trait;
use network::{Calm, Network, Request, through};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Bytes of a value at most, in the tier that costs nothing.
const VALUE_BYTES: usize = 4096;

/// Parameter Store in memory; clones share it. It refuses what the service refuses.
#[derive(Clone)]
pub struct MemoryParameters {
    values: Arc<Mutex<BTreeMap<String, String>>>,
    network: Arc<dyn Network>,
}

impl Default for MemoryParameters {
    fn default() -> Self {
        MemoryParameters { values: Arc::default(), network: Calm::shared() }
    }
}

impl MemoryParameters {
    /// The same parameters, as a caller behind another network sees them.
    pub fn through(&self, network: Arc<dyn Network>) -> Self {
        MemoryParameters { network, ..self.clone() }
    }

    /// With a parameter that stands there already.
    pub fn with(self, name: &str, value: &str) -> Self {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), value.to_owned());
        self
    }

    async fn ask<T: Send>(
        &self,
        operation: &'static str,
        name: &str,
        carry_out: impl FnMut() -> Result<T, ParameterError> + Send,
    ) -> Result<T, ParameterError> {
        let request = Request { service: "ssm", operation, subject: name.to_owned() };
        let answer = through(&*self.network, &request, carry_out).await;
        answer.unwrap_or_else(|broken| {
            Err(ParameterError::Unavailable { operation, name: name.to_owned(), message: broken.to_string() })
        })
    }
}

#[async_trait]
impl Parameters for MemoryParameters {
    async fn get(&self, name: &str) -> Result<String, ParameterError> {
        let find = || {
            let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
            values.get(name).cloned().ok_or_else(|| ParameterError::Missing { name: name.to_owned() })
        };
        self.ask("GetParameter", name, find).await
    }

    async fn put(&self, name: &str, value: &str) -> Result<(), ParameterError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte);
        let write = || {
            if value.len() > VALUE_BYTES || !name.starts_with('/') || !name.bytes().all(is_allowed) {
                let (name, message) = (name.to_owned(), "ValidationException".to_owned());
                return Err(ParameterError::Unavailable { operation: "PutParameter", name, message });
            }
            let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
            values.insert(name.to_owned(), value.to_owned());
            Ok(())
        };
        self.ask("PutParameter", name, write).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_service_refuses_is_refused() {
        let parameters = MemoryParameters::default();
        parameters.put("/p", &"x".repeat(VALUE_BYTES)).await.expect("as long as may be");
        assert!(parameters.put("/p", &"x".repeat(VALUE_BYTES + 1)).await.is_err());
        assert!(parameters.put("/p/ü", "x").await.is_err());
    }
}
