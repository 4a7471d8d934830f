use crate::{
    OpenSearch,
    api::{Api, Pace, Turns},
    secret::SecretsManager,
};
use aws_config::SdkConfig;
use runtime::Config;
use std::{str::FromStr, sync::Arc};

/// Where a deployment reads its messages from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceMode {
    OpenSearch,
    /// History and audit are then absent.
    Api,
    /// Recent messages from the API, older ones from OpenSearch, history and audit always from there.
    Hybrid,
}

impl FromStr for SourceMode {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "opensearch" => Ok(SourceMode::OpenSearch),
            "api" => Ok(SourceMode::Api),
            "hybrid" => Ok(SourceMode::Hybrid),
            _ => Err(()),
        }
    }
}

/// The sources of a deployment, from the environment of the functions that read them.
pub struct Sources {
    pub mode: SourceMode,
    /// Unless the mode is OpenSearch.
    pub api: Option<Api>,
    opensearch: Option<OpenSearch>,
}

impl Sources {
    /// `pace` is given the API's limit of requests a second, and shares it among all functions.
    pub fn from_env(config: &mut Config, aws: &SdkConfig, pace: impl FnOnce(u32) -> Box<dyn Pace>) -> Self {
        let mode = config.parsed("ALERT_ARCHIVE_MESSAGE_SOURCE", SourceMode::OpenSearch);
        let api = (mode != SourceMode::OpenSearch).then(|| {
            let url = config.required("ALERT_ARCHIVE_API_URL");
            let page_size = config.parsed("ALERT_ARCHIVE_API_PAGE_SIZE", 500);
            let per_second = config.parsed("ALERT_ARCHIVE_API_REQUESTS_PER_SECOND", 20);
            let secret = SecretsManager::new(aws, config.required("ALERT_ARCHIVE_API_SECRET_ID"));
            let connected = Api::connect(&url, page_size, Arc::new(secret), Turns::new(pace(per_second)));
            connected.map_err(|error| config.refuse(error.to_string())).ok()
        });
        let opensearch = (mode != SourceMode::Api).then(|| OpenSearch::from_env(config, aws));
        Sources { mode, api: api.flatten(), opensearch }
    }

    /// OpenSearch alone, such as one over a [`MemoryNode`](crate::MemoryNode).
    pub fn over(opensearch: OpenSearch) -> Self {
        Sources { mode: SourceMode::OpenSearch, api: None, opensearch: Some(opensearch) }
    }

    /// The same, with messages that come from an API, as `mode` says.
    pub fn with_api(self, mode: SourceMode, api: Api) -> Self {
        let opensearch = self.opensearch.filter(|_| mode != SourceMode::Api);
        Sources { mode, api: Some(api), opensearch }
    }

    /// None where the API is the only source.
    pub fn opensearch(&self) -> Option<&OpenSearch> {
        self.opensearch.as_ref()
    }
}
