use super::{Api, Element, Listing, ListingCursor, TimeRange};
use crate::{Defect, Document, Hit, OpenSearch, SourceError};
use alerts::{message::tracking::NO_INDEX, window::plan::Window};
use jiff::Timestamp;
use runtime::Call;
use std::collections::HashMap;

/// Reads a window from the API to its end, in the API's order. A document is called after the index that holds its
/// message, where there is an OpenSearch that knows it.
pub struct ApiDrain {
    listing: Listing,
    opensearch: Option<OpenSearch>,
    /// Stands in for the instant of a message that has none.
    from: Timestamp,
}

impl ApiDrain {
    pub fn open(
        api: &Api,
        opensearch: Option<OpenSearch>,
        window: &Window,
        cursor: Option<ListingCursor>,
        call: &Call,
    ) -> Self {
        let span = TimeRange { from: window.from, to: window.to };
        let listing = match cursor {
            Some(cursor) => Listing::resume(api, span, cursor, call),
            None => Listing::new(api, span, call),
        };
        ApiDrain { listing, opensearch, from: window.from }
    }

    /// The position after the last page that was handed out.
    pub fn cursor(&self) -> &ListingCursor {
        self.listing.cursor()
    }

    /// The next documents; empty at the end of a listing that is whole.
    pub async fn next_page(&mut self) -> Result<Vec<Document>, SourceError> {
        let Some(elements) = self.listing.next_page().await? else { return Ok(Vec::new()) };
        let named: Vec<(&str, Option<Timestamp>)> = elements
            .iter()
            .filter(|element| element.has_usable_id)
            .map(|element| (element.id.as_str(), element.at))
            .collect();
        let indices = match &self.opensearch {
            Some(opensearch) => opensearch.indices_of(&named).await?,
            None => HashMap::new(),
        };
        Ok(elements.into_iter().map(|element| document(element, &indices, self.from)).collect())
    }
}

fn document(element: Element, indices: &HashMap<String, String>, from: Timestamp) -> Document {
    let Element { id, has_usable_id, at, source } = element;
    let defect =
        if !has_usable_id { Some(Defect::NoUsableId) } else { at.is_none().then_some(Defect::NoUsableTimestamp) };
    // The hash of an element's bytes is the id of no message, also where one is called so.
    let index = indices.get(&id).filter(|_| has_usable_id).map_or(NO_INDEX, String::as_str).to_owned();
    Document {
        hit: Hit { index, id, routing: None, written: None, sort: Vec::new(), source },
        at: at.unwrap_or(from),
        defect,
    }
}
