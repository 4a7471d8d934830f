use errors::{Name, Named};
use std::time::Duration;

/// Why the API gave no page. No variant holds a body, a query or a token.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("the API cannot be reached")]
    Unreachable { source: reqwest::Error },
    #[error("the API cannot answer now (status {status})")]
    Unavailable { status: u16, retry_after: Option<Duration> },
    #[error("the API asks to wait {} s before the next request (status {status}), which is too long for this \
        call", .wait.as_secs())]
    WaitTooLong { status: u16, wait: Duration },
    #[error("the call ends before the next request may be sent: the limit of requests a second is used up")]
    NoTurn,
    #[error("no turn for a request can be had: {reason}")]
    Pace { reason: String },
    #[error("no token can be had: {reason}")]
    NoToken { reason: String },
    #[error("the API refuses a fresh token (status 401)")]
    Unauthorized,
    #[error("the API sends elsewhere (status {status}); redirects are not followed")]
    Redirected { status: u16 },
    #[error("the API refuses the request (status {status}) for {span}")]
    Rejected { status: u16, span: String },
    #[error("the API's answer is not a page: {reason}")]
    Unreadable { reason: String },
    #[error("the API's page is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the listing of {span} is not whole: {reason}")]
    NotWhole { span: String, reason: String },
    #[error("ALERT_ARCHIVE_API_URL: {reason}")]
    Url { reason: String },
}

impl Named for ApiError {
    fn name(&self) -> Name {
        match self {
            ApiError::Unreachable { .. }
            | ApiError::Unavailable { .. }
            | ApiError::WaitTooLong { .. }
            | ApiError::NoTurn
            | ApiError::Pace { .. }
            | ApiError::NoToken { .. } => Name::SourceUnavailable,
            ApiError::Unauthorized | ApiError::Redirected { .. } | ApiError::Rejected { .. } => Name::SourceRejected,
            ApiError::Unreadable { .. } | ApiError::TooLarge { .. } => Name::SourceUnreadable,
            ApiError::NotWhole { .. } => Name::CountMismatch,
            ApiError::Url { .. } => Name::ConfigMissing,
        }
    }
}

impl ApiError {
    /// The next try may go better: a page can be cut, or be another's error page, only once.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, ApiError::Unreachable { .. } | ApiError::Unavailable { .. } | ApiError::Unreadable { .. })
    }
}
