use crate::secret::{ReadSecret, SecretError};
use ::opensearch::http::headers::HeaderValue;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use std::sync::Arc;
use tokio::sync::Mutex;

/// A name and a password from a secret, as the header of HTTP basic authentication. The secret is read at the first
/// request, and again when the node refuses what is held: it may have been rotated.
pub(crate) struct Password {
    secret: Arc<dyn ReadSecret>,
    held: Mutex<Option<HeaderValue>>,
}

/// The secret's value, as RDS and others keep theirs; further fields are ignored.
#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
}

impl Password {
    pub fn new(secret: Arc<dyn ReadSecret>) -> Self {
        Password { secret, held: Mutex::default() }
    }

    /// The header to send. Of many requests whose header was `refused` at once only the first reads the secret.
    pub async fn header(&self, refused: Option<&HeaderValue>) -> Result<HeaderValue, SecretError> {
        let mut held = self.held.lock().await;
        if let Some(header) = held.as_ref().filter(|header| Some(*header) != refused) {
            return Ok(header.clone());
        }
        let text = self.secret.read().await?;
        // The parser's message could quote the secret.
        let Login { username, password } = serde_json::from_str(&text).map_err(|_| {
            SecretError("the secret of OpenSearch is not {\"username\":\"...\",\"password\":\"...\"}".to_owned())
        })?;
        let credentials = BASE64_STANDARD.encode(format!("{username}:{password}"));
        let mut header = HeaderValue::from_str(&format!("Basic {credentials}")).expect("base64 fits into a header");
        header.set_sensitive(true);
        *held = Some(header.clone());
        Ok(header)
    }
}
