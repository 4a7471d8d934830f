//! The token of a request: one that others rotate, or one that is fetched with OAuth 2 client credentials.

use super::{ApiError, Turns, answer};
use crate::secret::ReadSecret;
use backon::{BackoffBuilder, ExponentialBuilder};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::{SignedDuration, Timestamp};
use reqwest::{
    Client, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use runtime::Call;
use serde::Deserialize;
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::sync::Mutex;

/// A token server's answer is small; anything longer is none.
const LONGEST_ANSWER: u64 = 64 << 10;

#[derive(Deserialize)]
#[serde(untagged)]
enum Secret {
    Token { token: String },
    Client { token_url: String, client_id: String, client_secret: String },
}

#[derive(Deserialize)]
struct Issued {
    access_token: String,
    #[serde(default)]
    expires_in: Option<Lifetime>,
}

/// In seconds. Some servers write it as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lifetime {
    Number(f64),
    Text(String),
}

impl Lifetime {
    /// None where it is no time: the token is then good until it is refused.
    fn seconds(&self) -> Option<f64> {
        let seconds = match self {
            Lifetime::Number(seconds) => Some(*seconds),
            Lifetime::Text(text) => text.trim().parse().ok(),
        };
        seconds.filter(|seconds| seconds.is_finite() && *seconds > 0.0)
    }
}

/// A token and which one it is: the first that was fetched is 1.
#[derive(Clone)]
pub(crate) struct Token {
    pub header: HeaderValue,
    pub number: u64,
    until: Option<Timestamp>,
}

pub(crate) struct Tokens {
    secret: Arc<dyn ReadSecret>,
    http: Client,
    turns: Arc<Turns>,
    held: Mutex<Option<Token>>,
}

impl Tokens {
    pub fn new(secret: Arc<dyn ReadSecret>, http: Client, turns: Arc<Turns>) -> Self {
        Tokens { secret, http, turns, held: Mutex::default() }
    }

    /// A token newer than `refused`, the number of one that the API did not take. Of many requests that were refused at
    /// once only the first fetches.
    pub async fn newer_than(&self, refused: u64, call: &Call) -> Result<Token, ApiError> {
        let mut held = self.held.lock().await;
        let is_good = |token: &&Token| token.number > refused && token.until.is_none_or(|until| call.now() < until);
        if let Some(token) = held.as_ref().filter(is_good) {
            return Ok(token.clone());
        }
        let number = held.as_ref().map_or(0, |token| token.number).max(refused) + 1;
        let token = self.fetch(number, call).await?;
        *held = Some(token.clone());
        Ok(token)
    }

    async fn fetch(&self, number: u64, call: &Call) -> Result<Token, ApiError> {
        let none = |reason: String| ApiError::NoToken { reason };
        let text = self.secret.read().await.map_err(|error| none(error.to_string()))?;
        // The parser's message could quote the secret.
        let secret: Secret = serde_json::from_str(&text).map_err(|_| {
            none("the secret is neither {\"token\"} nor {\"token_url\",\"client_id\",\"client_secret\"}".into())
        })?;
        let (token, lives) = match secret {
            Secret::Token { token } => (token, None),
            Secret::Client { token_url, client_id, client_secret } => {
                let url = Url::parse(&token_url).map_err(|error| none(format!("token_url: {error}")))?;
                let issued = self.issued(url, &client_id, &client_secret, call).await?;
                (issued.access_token, issued.expires_in.and_then(|lifetime| lifetime.seconds()))
            }
        };
        let mut header = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .map_err(|_| none("the token holds characters that a header cannot".into()))?;
        header.set_sensitive(true);
        // Renewed a little early, so that it does not expire on its way.
        let until = lives.map(|seconds| call.now() + SignedDuration::from_secs_f64((seconds * 0.9).min(86_400.0)));
        Ok(Token { header, number, until })
    }

    async fn issued(&self, url: Url, id: &str, secret: &str, call: &Call) -> Result<Issued, ApiError> {
        let mut delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_times(4)
            .with_jitter()
            .build();
        loop {
            let mut answer = self.ask(&url, id, secret, true, call).await;
            // A server may want both in the form.
            if matches!(answer, Err(Refused { status: Some(400 | 401), .. })) {
                answer = self.ask(&url, id, secret, false, call).await;
            }
            let refused = match answer {
                Ok(issued) => return Ok(issued),
                Err(refused) => refused,
            };
            let wait = delays.next().map(|delay| delay.max(refused.retry_after.unwrap_or_default()));
            match wait.filter(|wait| refused.is_passing && *wait < call.left()) {
                Some(wait) => call.sleep(wait).await,
                None => return Err(ApiError::NoToken { reason: refused.reason }),
            }
        }
    }

    async fn ask(&self, url: &Url, id: &str, secret: &str, basic: bool, call: &Call) -> Result<Issued, Refused> {
        self.turns.next(0, call).await.map_err(|error| Refused::lasting(error.to_string()))?;
        // A form of the url crate: the query of an address that is never asked.
        let mut form = Url::parse("http://form/").map_err(|error| Refused::lasting(error.to_string()))?;
        form.query_pairs_mut().append_pair("grant_type", "client_credentials");
        if !basic {
            form.query_pairs_mut().append_pair("client_id", id).append_pair("client_secret", secret);
        }
        let mut request = self
            .http
            .post(url.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json");
        if basic {
            let mut header =
                HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}"))))
                    .map_err(|error| Refused::lasting(error.to_string()))?;
            header.set_sensitive(true);
            request = request.header(AUTHORIZATION, header);
        }
        let request = request.timeout(call.left()).body(form.query().unwrap_or_default().to_owned());
        let answer = request.send().await;
        let mut answer = answer.map_err(|error| {
            let error = error.without_url();
            Refused {
                is_passing: true,
                ..Refused::lasting(format!("the token server cannot be reached: {}", errors::describe(&error)))
            }
        })?;
        let status = answer.status();
        if status != StatusCode::OK {
            let refusal = answer::refusal(status, answer.headers(), SystemTime::from(call.now()), "");
            let (is_passing, retry_after) = match refusal {
                Some(ApiError::Unavailable { retry_after, .. }) => (true, retry_after),
                _ => (false, None),
            };
            let reason = format!("the token server answers {}", status.as_u16());
            return Err(Refused { reason, status: Some(status.as_u16()), is_passing, retry_after });
        }
        let body = answer::body(&mut answer, LONGEST_ANSWER).await;
        let body = body.map_err(|error| Refused { is_passing: true, ..Refused::lasting(error.to_string()) })?;
        // Without the parser's message, which could quote the token.
        let unreadable = || Refused {
            is_passing: true,
            ..Refused::lasting("the token server's answer holds no access_token".into())
        };
        serde_json::from_slice(&body).map_err(|_| unreadable())
    }
}

/// Why the token server gave none.
struct Refused {
    reason: String,
    status: Option<u16>,
    is_passing: bool,
    retry_after: Option<Duration>,
}

impl Refused {
    fn lasting(reason: String) -> Self {
        Refused { reason, status: None, is_passing: false, retry_after: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lifetime_of_a_token_is_a_number_or_a_text_and_never_what_refuses_the_token() {
        for (expires_in, seconds) in [
            ("3600", Some(3600.0)),
            ("\"3599\"", Some(3599.0)),
            ("0", None),
            ("-1", None),
            ("\"soon\"", None),
            ("\"NaN\"", None),
            ("null", None),
        ] {
            let issued = format!(r#"{{"access_token":"t","expires_in":{expires_in},"token_type":"Bearer"}}"#);
            let issued: Issued = serde_json::from_str(&issued).expect(expires_in);
            assert_eq!(issued.expires_in.and_then(|lifetime| lifetime.seconds()), seconds, "{expires_in}");
        }
        assert!(serde_json::from_str::<Issued>(r#"{"access_token":"t"}"#).expect("a token").expires_in.is_none());
    }
}
