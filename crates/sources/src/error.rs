use crate::secret::SecretError;
use errors::{Name, Named};

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("OpenSearch at {url} cannot be reached to {doing}")]
    Unreachable { url: String, doing: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("OpenSearch at {url} was not asked to {doing}: its name and password cannot be had")]
    Secret { url: String, doing: &'static str, source: SecretError },
    #[error("OpenSearch cannot {doing} now (status {status}): {reason}")]
    Unavailable { doing: &'static str, status: u16, reason: String },
    #[error("OpenSearch has no room to {doing}: its nodes hold as many contexts as they may: {reason}")]
    Busy { doing: &'static str, reason: String },
    #[error("OpenSearch refuses to {doing} in {index} (status {status}): {reason}")]
    Rejected { doing: &'static str, index: String, status: u16, reason: String },
    #[error("OpenSearch cannot {doing}: index `{index}` is closed (status {status}): {reason}")]
    IndexClosed { doing: &'static str, index: String, status: u16, reason: String },
    #[error("index or alias `{index}` does not exist in OpenSearch")]
    IndexMissing { index: String },
    #[error("index `{index}`: field `{field}` {problem}")]
    Mapping { index: String, field: &'static str, problem: String },
    #[error("the point in time of the window expired; a new attempt starts over")]
    PointInTimeExpired,
    #[error("OpenSearch answered only a part of a page: {what}")]
    PageIncomplete { what: String },
    #[error("OpenSearch's answer to {doing} is not readable: {reason}")]
    Unreadable { doing: &'static str, reason: String },
    #[error("window {window} was planned for {what}, from which this deployment does not read")]
    NotConfigured { window: String, what: String },
    #[error(transparent)]
    Api(#[from] crate::api_error::ApiError),
    #[error("OPENSEARCH_URL `{url}` is not a URL: {reason}")]
    Url { url: String, reason: String },
}

impl Named for SourceError {
    fn name(&self) -> Name {
        match self {
            SourceError::Unreachable { .. } | SourceError::Unavailable { .. } | SourceError::Secret { .. } => {
                Name::SourceUnavailable
            }
            SourceError::Busy { .. } => Name::SourceBusy,
            SourceError::Rejected { .. } | SourceError::Unreadable { .. } => Name::SourceRejected,
            SourceError::IndexMissing { .. } => Name::SourceIndexMissing,
            SourceError::IndexClosed { .. } => Name::SourceIndexClosed,
            SourceError::Mapping { .. } => Name::MappingUnsupported,
            SourceError::Api(error) => error.name(),
            SourceError::PointInTimeExpired => Name::PointInTimeExpired,
            SourceError::PageIncomplete { .. } => Name::PageIncomplete,
            SourceError::Url { .. } | SourceError::NotConfigured { .. } => Name::ConfigMissing,
        }
    }
}

impl SourceError {
    /// Worth another try at once: the node may answer in a moment.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, SourceError::Unreachable { .. } | SourceError::Unavailable { .. } | SourceError::Busy { .. })
    }

    /// A node that is short of memory, or fails for another reason, may well give a smaller page.
    pub(crate) fn asks_for_less(&self) -> bool {
        matches!(self, SourceError::Unavailable { status: 429 | 500, .. })
    }
}
