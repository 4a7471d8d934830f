//! A listing of a stretch of time: its first page tells how many there are, the others come in parallel and are handed
//! on in their order.

use super::{Api, ApiError, Element, TimeRange, answer::Page, client::Ask, element};
use runtime::Call;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use tokio::task::JoinSet;

/// Bytes of pages that are on their way or wait for the ones before them.
const BYTES_AHEAD: u64 = 64 << 20;
const PAGES_AHEAD: u64 = 64;
/// Pages in a row that may bring nothing new: a listing that speaks of pages without end must not be read for ever.
const FRUITLESS: u32 = 100;

/// Where a listing stands: enough to go on in another process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListingCursor {
    /// Messages in a page; 0 before the first.
    page_size: u64,
    /// The next page that is handed on.
    next: u64,
    /// Pages that the API speaks of.
    pages: u64,
    /// What every page must tell; none before the first.
    pub total: Option<u64>,
    /// The largest page so far, in bytes.
    largest: u64,
    /// Pages in a row that brought nothing new.
    #[serde(default)]
    fruitless: u32,
    /// Messages that have come: a hash of the id, and one of the bytes.
    seen: HashMap<String, String>,
}

impl ListingCursor {
    /// Different messages handed on so far.
    pub fn seen(&self) -> u64 {
        self.seen.len() as u64
    }
}

/// Lists a stretch once. Whether it was whole is known at its end.
pub struct Listing {
    api: Api,
    span: TimeRange,
    cursor: ListingCursor,
    call: Call,
    ahead: JoinSet<(u64, Result<Page, ApiError>)>,
    /// The first page that no request was sent for.
    unasked: u64,
    arrived: BTreeMap<u64, Result<Page, ApiError>>,
}

impl Listing {
    pub fn new(api: &Api, span: TimeRange, call: &Call) -> Self {
        let cursor = ListingCursor { page_size: api.page_size(), next: 1, pages: 1, ..ListingCursor::default() };
        Listing::resume(api, span, cursor, call)
    }

    pub fn resume(api: &Api, span: TimeRange, cursor: ListingCursor, call: &Call) -> Self {
        let unasked = cursor.next;
        let (api, call) = (api.clone(), call.clone());
        Listing { api, span, cursor, call, ahead: JoinSet::new(), unasked, arrived: BTreeMap::new() }
    }

    /// The position after the last page that was handed on.
    pub fn cursor(&self) -> &ListingCursor {
        &self.cursor
    }

    /// The next messages, none twice; `None` at the end of a listing that is whole. Fails with `NotWhole` otherwise,
    /// and then nothing that it handed on may be kept.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Element>>, ApiError> {
        loop {
            let missing = self.cursor.total.is_none_or(|total| self.cursor.seen() < total);
            let is_beyond = self.cursor.next > self.cursor.pages;
            if is_beyond && !missing {
                return self.end().map(|()| None);
            }
            let before = self.cursor.seen();
            let page = match self.page().await {
                Err(ApiError::TooLarge { .. }) if self.cursor.page_size > 1 => {
                    self.start_over_smaller();
                    continue;
                }
                // A page that the API did not speak of need not be there.
                Err(ApiError::Rejected { .. }) if is_beyond => return self.end().map(|()| None),
                page => page?,
            };
            let elements = self.take(page)?;
            if is_beyond && self.cursor.seen() == before {
                return self.end().map(|()| None);
            }
            // Pages of messages that have come already, and empty ones, are passed over.
            if !elements.is_empty() {
                self.cursor.fruitless = 0;
                return Ok(Some(elements));
            }
            self.cursor.fruitless += 1;
            if self.cursor.fruitless > FRUITLESS {
                return Err(self.not_whole(format!("{FRUITLESS} pages in a row brought nothing new")));
            }
        }
    }

    /// Reads all pages again, with fewer messages in each: what has come already is passed over.
    fn start_over_smaller(&mut self) {
        self.ahead = JoinSet::new();
        self.arrived.clear();
        self.unasked = 1;
        self.cursor = ListingCursor {
            page_size: self.cursor.page_size.div_ceil(4).min(self.cursor.page_size - 1),
            next: 1,
            pages: 1,
            ..std::mem::take(&mut self.cursor)
        };
    }

    fn end(&self) -> Result<(), ApiError> {
        let (total, seen) = (self.cursor.total.unwrap_or_default(), self.cursor.seen());
        if total == seen {
            return Ok(());
        }
        Err(self.not_whole(format!("the API counts {total} messages, and {seen} different ones came")))
    }

    fn not_whole(&self, reason: String) -> ApiError {
        ApiError::NotWhole { span: self.span.to_string(), reason }
    }

    /// The next page in order; as many as memory allows are fetched meanwhile.
    async fn page(&mut self) -> Result<Page, ApiError> {
        let number = self.cursor.next;
        // Beyond the pages that the API speaks of one is asked for after the other.
        let last = self.cursor.pages.max(number);
        // The first page comes alone: it says how many others there are, and how large.
        let room = BYTES_AHEAD.checked_div(self.cursor.largest).map_or(1, |pages| pages.clamp(2, PAGES_AHEAD));
        self.unasked = self.unasked.max(number);
        while self.unasked <= last && (self.ahead.len() + self.arrived.len()) < room as usize {
            let (api, call) = (self.api.clone(), self.call.clone());
            let following = (last - self.unasked).min(PAGES_AHEAD) as usize;
            let ask = Ask { span: self.span, size: self.cursor.page_size, number: self.unasked, following };
            self.ahead.spawn(async move { (ask.number, api.page(ask, &call).await) });
            self.unasked += 1;
        }
        loop {
            if let Some(page) = self.arrived.remove(&number) {
                return page;
            }
            match self.ahead.join_next().await {
                Some(Ok((number, page))) => drop(self.arrived.insert(number, page)),
                Some(Err(error)) => return Err(ApiError::Unreadable { reason: error.to_string() }),
                None => return Err(ApiError::Unreadable { reason: format!("page {number} was not asked for") }),
            }
        }
    }

    /// Notes what a page brings; returns the messages that had not come before.
    fn take(&mut self, page: Page) -> Result<Vec<Element>, ApiError> {
        let total = *self.cursor.total.get_or_insert(page.total);
        if page.total != total {
            return Err(self.not_whole(format!("the API counted {total} messages, and later {}", page.total)));
        }
        self.cursor.pages = self.cursor.pages.max(page.total_pages);
        self.cursor.largest = self.cursor.largest.max(page.bytes);
        self.cursor.next += 1;
        let mut fresh = Vec::with_capacity(page.messages.len());
        for element in page.messages.into_iter().map(element) {
            let (id, content) = (short_hash(element.id.as_bytes()), short_hash(&element.source));
            match self.cursor.seen.get(&id) {
                None => {
                    self.cursor.seen.insert(id, content);
                    fresh.push(element);
                }
                Some(before) if *before == content => {}
                Some(_) => return Err(self.not_whole("one message came with two contents".into())),
            }
        }
        if self.cursor.seen() > total {
            self.end()?;
        }
        Ok(fresh)
    }
}

/// Half of a sha256, in hex: enough to tell millions apart.
fn short_hash(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..16])
}
