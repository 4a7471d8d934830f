//! A window's documents, from the source that its plan names.

use crate::{Deps, Error};
use alerts::{source::Source, window::plan::Window};
use runtime::Call;
use serde::{Deserialize, Serialize};
use sources::{
    Document, Drain, DrainCursor, OpenSearch, SourceError,
    api::{ApiDrain, ApiError, ListingCursor},
};
use std::time::Duration;

pub enum Reading {
    OpenSearch(Box<Drain>),
    Api(Box<ApiDrain>),
}

/// Where a reading stands.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ReadingPosition {
    OpenSearch(DrainCursor),
    Api(ListingCursor),
}

impl ReadingPosition {
    /// The point in time from which the next call goes on.
    pub fn point_in_time(&self) -> Option<&str> {
        match self {
            ReadingPosition::OpenSearch(cursor) => Some(cursor.point_in_time()),
            ReadingPosition::Api(_) => None,
        }
    }
}

impl Reading {
    /// Begins at the beginning, or behind `position`.
    pub async fn open(
        deps: &Deps,
        opensearch: Option<&OpenSearch>,
        window: &Window,
        position: Option<ReadingPosition>,
        call: &Call,
    ) -> Result<Self, SourceError> {
        let absent =
            |what: &str| SourceError::NotConfigured { window: window.window_id.clone(), what: what.to_owned() };
        match (window.source, position) {
            (Source::Opensearch, position) => {
                let opensearch = opensearch.ok_or_else(|| absent("OpenSearch"))?;
                let drain = match position {
                    Some(ReadingPosition::OpenSearch(cursor)) => Drain::resume(opensearch, window, cursor),
                    _ => Drain::open(opensearch, window).await?,
                };
                Ok(Reading::OpenSearch(Box::new(drain)))
            }
            (Source::Api, position) => {
                let api = deps.sources.api.as_ref().ok_or_else(|| absent("the API"))?;
                let cursor = match position {
                    Some(ReadingPosition::Api(cursor)) => Some(cursor),
                    _ => None,
                };
                // What came must still go into the spool.
                let margin = (call.left() / 20).min(Duration::from_secs(15));
                Ok(Reading::Api(Box::new(ApiDrain::open(
                    api,
                    opensearch.cloned(),
                    window,
                    cursor,
                    &call.shorter_by(margin),
                ))))
            }
        }
    }

    pub fn position(&self) -> ReadingPosition {
        match self {
            Reading::OpenSearch(drain) => ReadingPosition::OpenSearch(drain.cursor().clone()),
            Reading::Api(drain) => ReadingPosition::Api(drain.cursor().clone()),
        }
    }

    /// The next documents; empty at the end.
    pub async fn next_page(&mut self) -> Result<Vec<Document>, SourceError> {
        match self {
            Reading::OpenSearch(drain) => drain.next_page().await,
            Reading::Api(drain) => drain.next_page().await,
        }
    }

    /// At the end of the window: whether all of it came. A listing of the API says so itself.
    pub async fn finish(self, window: &Window) -> Result<(), Error> {
        let Reading::OpenSearch(drain) = self else { return Ok(()) };
        let (matched, seen) = (drain.cursor().matched, drain.cursor().seen);
        drain.close().await;
        if matched != seen {
            return Err(Error::CountMismatch { window_id: window.window_id.clone(), matched, seen });
        }
        Ok(())
    }

    /// Closes what was opened, without reading it.
    pub async fn close(self) {
        if let Reading::OpenSearch(drain) = self {
            drain.close().await;
        }
    }

    /// Leaves the rest to the next call.
    pub async fn leave(self) -> Result<(), SourceError> {
        match self {
            Reading::OpenSearch(drain) => drain.leave().await,
            Reading::Api(_) => Ok(()),
        }
    }
}

/// Whether the API was not asked, or did not answer, because the call ends: the limit of requests a second may put a
/// turn behind that.
pub fn is_out_of_time(error: &SourceError, call: &Call) -> bool {
    match error {
        SourceError::Api(ApiError::NoTurn) => true,
        SourceError::Api(ApiError::Unreachable { .. }) => call.is_ending(),
        _ => false,
    }
}

/// How often a call reads a window again when what came of it is worth nothing.
pub fn worth_again(error: &Error) -> u32 {
    match error {
        Error::Source(SourceError::PointInTimeExpired) => 1,
        Error::Source(SourceError::Api(ApiError::NotWhole { .. })) => 3,
        _ => 0,
    }
}
