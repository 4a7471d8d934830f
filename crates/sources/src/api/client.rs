use super::{
    ApiError, Turns,
    answer::{self, Page},
    token::{Token, Tokens},
};
use crate::secret::ReadSecret;
use backon::{BackoffBuilder, ExponentialBuilder};
use identity::instant;
use jiff::Timestamp;
use reqwest::{
    Client, StatusCode, Url,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION},
    redirect::Policy,
};
use runtime::Call;
use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// What the contract allows at most.
pub const LARGEST_PAGE: u64 = 500;
/// A page's answer above this is asked for again with fewer messages; a single message above it is unreadable.
const LARGEST_ANSWER: u64 = 64 << 20;
const CONNECT: Duration = Duration::from_secs(5);
/// Between two pieces of an answer.
const SILENCE: Duration = Duration::from_secs(30);
/// A server that asks for more is left alone until the window is run again.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// Tries of one page; the waits between them come to about six seconds where the server names none.
const TRIES: usize = 6;
/// Fresh tokens that the API may refuse.
const FRESH_TOKENS: u32 = 2;

/// A stretch of time, half-open, as a request names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    pub from: Timestamp,
    pub to: Timestamp,
}

impl fmt::Display for TimeRange {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{} to {}", instant::iso(self.from), instant::iso(self.to))
    }
}

/// The API of one deployment. Clones share the connections, the token and the turns.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

struct Shared {
    http: Client,
    url: Url,
    page_size: u64,
    tokens: Tokens,
    turns: Arc<Turns>,
}

impl Api {
    /// `url` is the address to which `/getMessages` is appended.
    pub fn connect(url: &str, page_size: u64, secret: Arc<dyn ReadSecret>, turns: Turns) -> Result<Self, ApiError> {
        let fault = |reason: String| ApiError::Url { reason };
        let url = Url::parse(&format!("{}/getMessages", url.trim_end_matches('/')))
            .map_err(|error| fault(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https")
            || !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(fault("an http or https address without user, password, query and # is needed".into()));
        }
        // No proxy: a proxy of the environment would see every message. No redirect: the token would go with it.
        let http = Client::builder().no_proxy().redirect(Policy::none()).connect_timeout(CONNECT).read_timeout(SILENCE);
        let http = http.build().map_err(|error| fault(errors::describe(&error)))?;
        let turns = Arc::new(turns);
        let tokens = Tokens::new(secret, http.clone(), turns.clone());
        let page_size = page_size.clamp(1, LARGEST_PAGE);
        Ok(Api { shared: Arc::new(Shared { http, url, page_size, tokens, turns }) })
    }

    /// Messages that one request asks for.
    pub fn page_size(&self) -> u64 {
        self.shared.page_size
    }

    /// What the API counts in a stretch: an estimate, because messages may come and go.
    pub async fn count(&self, span: TimeRange, call: &Call) -> Result<u64, ApiError> {
        Ok(self.page(Ask { span, size: 1, number: 1, following: 0 }, call).await?.total)
    }

    /// One page, tried again while the reason may pass, but never before the server allows it.
    pub(crate) async fn page(&self, ask: Ask, call: &Call) -> Result<Page, ApiError> {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(5));
        let mut delays = backoff.with_max_times(TRIES - 1).with_jitter().build();
        let (mut refused_token, mut refused_fresh) = (0, 0);
        loop {
            let token = self.shared.tokens.newer_than(refused_token, call).await?;
            let error = match self.page_once(ask, &token, call).await {
                Ok(page) => return Ok(page),
                Err(error) => error,
            };
            match &error {
                ApiError::Unauthorized => {
                    // The first may have expired. Those after it were fetched because of that.
                    if refused_token > 0 {
                        refused_fresh += 1;
                    }
                    refused_token = token.number;
                    if refused_fresh == FRESH_TOKENS {
                        return Err(error);
                    }
                    // A rotation tells the API and Secrets Manager one after the other.
                    if let Some(wait) = delays.next().filter(|_| refused_fresh > 0) {
                        call.sleep(wait).await;
                    }
                }
                ApiError::Unavailable { status, retry_after: Some(wait) } => {
                    let (status, wait) = (*status, *wait);
                    if wait > LONGEST_WAIT || wait >= call.left() {
                        return Err(ApiError::WaitTooLong { status, wait });
                    }
                    // Also behind the last try: another function, or the next call, would ask too early.
                    self.shared.turns.pause(wait, call).await?;
                    if delays.next().is_none() {
                        return Err(error);
                    }
                    tracing::info!(status, seconds = wait.as_secs(), page = ask.number, "the API asks to wait");
                    call.sleep(wait).await;
                }
                _ if error.is_passing() => {
                    let Some(wait) = delays.next().filter(|wait| *wait < call.left()) else {
                        return Err(error);
                    };
                    tracing::info!(page = ask.number, error = errors::describe(&error), "a page is asked for again");
                    call.sleep(wait).await;
                }
                _ => return Err(error),
            }
        }
    }

    async fn page_once(&self, ask: Ask, token: &Token, call: &Call) -> Result<Page, ApiError> {
        self.shared.turns.next(ask.following, call).await?;
        let mut url = self.shared.url.clone();
        url.query_pairs_mut()
            .append_pair("start_time", &instant::iso(ask.span.from))
            .append_pair("end_time", &instant::iso(ask.span.to))
            .append_pair("status", "all")
            .append_pair("page_size", &ask.size.to_string())
            .append_pair("page_number", &ask.number.to_string());
        // No gzip: the size of an answer is then known before it is read.
        let request = self.shared.http.get(url).header(AUTHORIZATION, token.header.clone());
        let request = request.header(ACCEPT, "application/json").header(ACCEPT_ENCODING, "identity");
        let unreachable = |error: reqwest::Error| ApiError::Unreachable { source: error.without_url() };
        let request = request.timeout(call.left());
        let mut answer = request.send().await.map_err(unreachable)?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            return Err(ApiError::Unauthorized);
        }
        if let Some(error) =
            answer::refusal(answer.status(), answer.headers(), SystemTime::from(call.now()), &ask.span.to_string())
        {
            return Err(error);
        }
        answer::check_headers(answer.headers())?;
        let body = answer::body(&mut answer, LARGEST_ANSWER).await?;
        answer::parse(&body)
    }
}

/// One request for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub span: TimeRange,
    pub size: u64,
    pub number: u64,
    /// Requests that will probably follow it.
    pub following: usize,
}
