use crate::{
    Hit, OpenSearch, SourceError,
    opensearch::{Answer, KEEP_ALIVE, KEEP_ALIVE_FOR_SUCCESSOR, LARGEST_ANSWER, in_order, range},
    page,
};
use alerts::{
    message::document::version,
    window::plan::{Selection, Window},
};
use bytes::Bytes;
use identity::{Identity, instant};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use tokio::task::JoinHandle;

/// Bytes that a page should have; with the one fetched ahead, two of them are in memory. History and audit are asked for
/// page by page: of messages of 25 KB this is five hundred at once.
const PAGE_BYTES: u64 = 15 << 20;
const LARGEST_PAGE: u64 = 2000;
const FIRST_PAGE: u64 = 25;
/// A page has at most so many times as many documents as the one before.
const GROWTH: u64 = 20;
/// An excluded document larger than this is kept without its bytes: its size may be what makes the window fail.
const LARGEST_EXCLUDED: u64 = 64 << 20;

/// Where a drain stands: enough to go on in another process while the point in time lives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DrainCursor {
    point_in_time: String,
    shard_doc: bool,
    /// Exact number of documents that match the window in this point in time.
    pub matched: u64,
    /// Documents handed out so far.
    pub seen: u64,
    after: Option<Vec<Value>>,
    page: u64,
    /// The size of a page that the node did not give: pages stay below.
    #[serde(default)]
    refused: Option<u64>,
    /// Documents have routings, so that one id may stand several times in one index.
    #[serde(default)]
    is_routed: bool,
    /// Documents that an operator excluded, and that are in none of the pages.
    #[serde(default)]
    excluded: Vec<Identity>,
}

/// Reads a window to its end, in order of time, from one point in time.
pub struct Drain {
    source: OpenSearch,
    window: Window,
    cursor: DrainCursor,
    ahead: Option<JoinHandle<Result<Page, SourceError>>>,
    /// Excluded documents that are still to be handed out, without their bytes.
    excluded: VecDeque<Hit>,
}

struct Page {
    documents: Vec<Document>,
    /// The smallest size that the node did not give.
    refused: Option<u64>,
}

/// A hit and the instant that the source sorts it by.
#[derive(Debug)]
pub struct Document {
    pub hit: Hit,
    /// The earliest of the document's instants.
    pub at: Timestamp,
    pub defect: Option<Defect>,
}

/// Why a document cannot be taken for what its fields say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// It names no message: its id was made of its bytes.
    NoUsableId,
    /// It has no instant: that of its window stands in.
    NoUsableTimestamp,
    /// Its index holds its id several times, under several routings; its id was told apart by its own.
    SeveralByRouting,
}

impl DrainCursor {
    pub fn point_in_time(&self) -> &str {
        &self.point_in_time
    }
}

impl Drain {
    /// Opens a point in time over the messages; [`Drain::count`] comes next.
    pub async fn open(source: &OpenSearch, window: &Window) -> Result<Self, SourceError> {
        let shard_doc = source.has_shard_doc().await?;
        let point_in_time = source.open_over_holders(of(window)).await?;
        let cursor = DrainCursor {
            point_in_time,
            shard_doc,
            matched: 0,
            seen: 0,
            after: None,
            page: FIRST_PAGE,
            refused: None,
            is_routed: false,
            excluded: Vec::new(),
        };
        Ok(Drain::resume(source, window, cursor))
    }

    pub fn resume(source: &OpenSearch, window: &Window, cursor: DrainCursor) -> Self {
        Drain { source: source.clone(), window: window.clone(), cursor, ahead: None, excluded: VecDeque::new() }
    }

    /// Counts the window's documents, exactly, in the point in time.
    pub async fn count(&mut self) -> Result<(), SourceError> {
        let all = of(&self.window);
        self.cursor.matched = self.source.until_whole(|| self.count_once(&all, KEEP_ALIVE)).await?;
        self.look_for_routings().await
    }

    async fn look_for_routings(&mut self) -> Result<(), SourceError> {
        let routed = json!({"exists": {"field": "_routing"}});
        self.cursor.is_routed = self.source.until_whole(|| self.count_once(&routed, KEEP_ALIVE)).await? > 0;
        Ok(())
    }

    /// Excludes documents: those that the window holds come from [`Drain::next_excluded`] from now on, and in no page.
    pub async fn exclude(&mut self, documents: &HashSet<Identity>) -> Result<(), SourceError> {
        if documents.is_empty() {
            return Ok(());
        }
        let fetch = Fetch::of(self);
        let hits = self.source.until_whole(|| fetch.names(documents)).await?;
        self.cursor.excluded = hits.iter().map(Hit::identity).collect();
        self.excluded = hits.into();
        Ok(())
    }

    /// The position after the last page that was handed out.
    pub fn cursor(&self) -> &DrainCursor {
        &self.cursor
    }

    /// The next page, in order of time; empty at the end. The page behind it is fetched meanwhile.
    pub async fn next_page(&mut self) -> Result<Vec<Document>, SourceError> {
        let Page { documents: page, refused } = match self.ahead.take() {
            Some(ahead) => ahead
                .await
                .map_err(|error| SourceError::Unreadable { doing: "read a page", reason: error.to_string() })??,
            None => Fetch::of(self).page(self.cursor.page).await?,
        };
        self.cursor.refused = refused.or(self.cursor.refused);
        let Some(last) = page.last() else { return Ok(page) };
        self.cursor.after = Some(last.hit.sort.clone());
        self.cursor.seen += page.len() as u64;
        let bytes: u64 = page.iter().map(|document| document.hit.source.len() as u64).sum();
        let average = (bytes / page.len() as u64).max(1);
        // One page of small documents says little about the next.
        let most = self.cursor.refused.map_or(LARGEST_PAGE, |refused| (refused / 2).max(1));
        self.cursor.page = (PAGE_BYTES / average).clamp(1, most).min(self.cursor.page * GROWTH);
        let fetch = Fetch::of(self);
        let size = self.cursor.page;
        self.ahead = Some(tokio::spawn(async move { fetch.page(size).await }));
        Ok(page)
    }

    /// The next of the excluded documents, before the first page is asked for: its bytes as they are stored, unread;
    /// none when the source does not give them.
    pub async fn next_excluded(&mut self) -> Result<Option<Document>, SourceError> {
        let Some(mut hit) = self.excluded.pop_front() else { return Ok(None) };
        hit.source = match self.source.source_of(&hit.index, &hit.id, hit.routing.as_deref(), LARGEST_EXCLUDED).await {
            Ok(source) => source.unwrap_or_default(),
            // The node is up, but does not return this document.
            Err(error @ (SourceError::Rejected { .. } | SourceError::Unavailable { status: 500, .. })) => {
                tracing::warn!(
                    index = hit.index,
                    id = hit.id,
                    error = errors::describe(&error),
                    "its bytes cannot be read"
                );
                Bytes::new()
            }
            Err(error) => return Err(error),
        };
        self.cursor.seen += 1;
        if self.cursor.excluded.iter().filter(|excluded| **excluded == hit.identity()).count() > 1 {
            hit.id = told_by_routing(&hit);
        }
        document(hit, &self.window).map(Some)
    }

    /// Ends the point in time.
    pub async fn close(self) {
        if let Some(ahead) = &self.ahead {
            ahead.abort();
        }
        self.source.close_points_in_time(&[self.cursor.point_in_time]).await;
    }

    /// Leaves the point in time to another process, which goes on from the cursor.
    pub async fn leave(self) -> Result<(), SourceError> {
        if let Some(ahead) = &self.ahead {
            ahead.abort();
        }
        self.count_once(&of(&self.window), KEEP_ALIVE_FOR_SUCCESSOR).await.map(|_| ())
    }

    async fn count_once(&self, query: &Value, keep_alive: &str) -> Result<u64, SourceError> {
        #[derive(Deserialize)]
        struct Reply {
            timed_out: bool,
            #[serde(rename = "_shards")]
            shards: page::Shards,
            hits: Hits,
        }
        #[derive(Deserialize)]
        struct Hits {
            total: Total,
        }
        #[derive(Deserialize)]
        struct Total {
            value: u64,
        }
        let body = json!({
            "size": 0, "track_total_hits": true, "query": query,
            "pit": {"id": self.cursor.point_in_time, "keep_alive": keep_alive},
        });
        let unreadable = |reason: String| SourceError::Unreadable { doing: "count the window", reason };
        let Answer::Body(body) = self.source.search("count the window", body, u64::MAX).await? else {
            return Err(unreadable("too large".into()));
        };
        let reply: Reply = serde_json::from_slice(&body).map_err(|error| unreadable(error.to_string()))?;
        reply.shards.check(reply.timed_out, None)?;
        Ok(reply.hits.total.value)
    }
}

impl OpenSearch {
    /// Looks at every document of a window by its name only, in order of time; a page of them is in memory at once.
    pub async fn for_each_name(&self, window: &Window, mut look: impl FnMut(Document)) -> Result<(), SourceError> {
        let unreadable = || SourceError::Unreadable { doing: "read names", reason: "it is not valid JSON".into() };
        let mut drain = Drain::open(self, window).await?;
        drain.look_for_routings().await?;
        loop {
            let fetch = Fetch::of(&drain);
            let page = async || match fetch.ask(LARGEST_PAGE, &fetch.cursor.after, false).await? {
                Answer::Body(body) => page::parse(&body)?.ok_or_else(unreadable),
                Answer::TooLarge(_) => Err(unreadable()),
            };
            let hits = self.until_whole(page).await?;
            let Some(last) = hits.last() else { break };
            drain.cursor.after = Some(last.sort.clone());
            let documents = hits.into_iter().map(|hit| document(hit, window)).collect::<Result<_, _>>()?;
            // By the names that the ledger has.
            fetch.told_apart(documents).await?.into_iter().for_each(&mut look);
        }
        drain.close().await;
        Ok(())
    }
}

/// A request for the page behind a position; owns what it needs, so that it can run ahead.
struct Fetch {
    source: OpenSearch,
    window: Window,
    cursor: DrainCursor,
}

impl Fetch {
    fn of(drain: &Drain) -> Self {
        Fetch { source: drain.source.clone(), window: drain.window.clone(), cursor: drain.cursor.clone() }
    }

    async fn page(&self, size: u64) -> Result<Page, SourceError> {
        self.source.until_whole(|| self.page_once(size)).await
    }

    async fn page_once(&self, size: u64) -> Result<Page, SourceError> {
        let (mut size, mut refused) = (size.max(1), None);
        loop {
            match self.ask(size, &self.cursor.after, true).await {
                Ok(Answer::TooLarge(_)) => size = (size / 4).max(1),
                Ok(Answer::Body(body)) => {
                    let documents = match page::parse(&body)? {
                        Some(hits) => {
                            hits.into_iter().map(|hit| document(hit, &self.window)).collect::<Result<_, _>>()?
                        }
                        None => self.isolate(size).await?,
                    };
                    return Ok(Page { documents: self.told_apart(documents).await?, refused });
                }
                Err(error) if error.asks_for_less() && size > 1 => {
                    tracing::warn!(size, error = errors::describe(&error), "a smaller page is asked for");
                    refused = Some(size);
                    size = (size / 4).max(1);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// An index may hold one id several times, under several routings. Each is told by its routing then.
    async fn told_apart(&self, mut documents: Vec<Document>) -> Result<Vec<Document>, SourceError> {
        if !self.cursor.is_routed {
            return Ok(documents);
        }
        let ids: Vec<&str> = documents.iter().map(|document| document.hit.id.as_str()).collect();
        let several = self.source.several_by_routing(&ids).await?;
        for document in documents.iter_mut().filter(|document| several.contains(&document.hit.identity())) {
            document.hit.id = told_by_routing(&document.hit);
            document.defect = Some(Defect::SeveralByRouting);
        }
        Ok(documents)
    }

    /// A document of this page is not valid JSON: the same page without bodies names all of them, and halves of it are
    /// asked for until each poison document stands alone.
    async fn isolate(&self, size: u64) -> Result<Vec<Document>, SourceError> {
        let unreadable = || SourceError::Unreadable {
            doing: "read a page without documents",
            reason: "it is not valid JSON".into(),
        };
        let Answer::Body(body) = self.ask(size, &self.cursor.after, false).await? else { return Err(unreadable()) };
        let names = page::parse(&body)?.ok_or_else(unreadable)?;
        let mut documents = Vec::with_capacity(names.len());
        let mut stretches = VecDeque::from([(0, names.len())]);
        while let Some((start, end)) = stretches.pop_front() {
            if start == end {
                continue;
            }
            let after = if start == 0 { self.cursor.after.clone() } else { Some(names[start - 1].sort.clone()) };
            let hits = match self.ask((end - start) as u64, &after, true).await? {
                Answer::Body(body) => page::parse(&body)?,
                Answer::TooLarge(_) => None,
            };
            match hits {
                Some(hits) => {
                    for hit in hits {
                        documents.push(document(hit, &self.window)?);
                    }
                }
                None if end - start == 1 => documents.push(self.unreadable(names[start].clone()).await?),
                None => {
                    let middle = start + (end - start) / 2;
                    stretches.push_front((middle, end));
                    stretches.push_front((start, middle));
                }
            }
        }
        Ok(documents)
    }

    async fn unreadable(&self, mut hit: Hit) -> Result<Document, SourceError> {
        let source = self.source.source_of(&hit.index, &hit.id, hit.routing.as_deref(), u64::MAX).await?;
        // Deleted since the point in time: its bytes are gone, its name is kept.
        hit.source = source.unwrap_or_else(Bytes::new);
        document(hit, &self.window)
    }

    /// Those of these documents that the window holds, without their bytes.
    async fn names(&self, documents: &HashSet<Identity>) -> Result<Vec<Hit>, SourceError> {
        let unreadable =
            || SourceError::Unreadable { doing: "look for documents", reason: "it is not valid JSON".into() };
        let mut body = json!({
            "size": LARGEST_PAGE, "track_total_hits": false, "_source": false, "seq_no_primary_term": true,
            "query": {"bool": {"filter": [of(&self.window), any_of(documents)]}},
            "pit": {"id": self.cursor.point_in_time, "keep_alive": KEEP_ALIVE},
            "sort": in_order(if self.cursor.shard_doc { "_shard_doc" } else { "_id" }),
        });
        let mut found: Vec<Hit> = Vec::new();
        loop {
            let answer = self.source.search("look for documents", body.clone(), u64::MAX).await?;
            let Answer::Body(answer) = answer else { return Err(unreadable()) };
            let page = page::parse(&answer)?.ok_or_else(unreadable)?;
            let Some(last) = page.last() else { return Ok(found) };
            body["search_after"] = json!(last.sort);
            found.extend(page);
            if !(found.len() as u64).is_multiple_of(LARGEST_PAGE) {
                return Ok(found);
            }
        }
    }

    async fn ask(&self, size: u64, after: &Option<Vec<Value>>, source: bool) -> Result<Answer, SourceError> {
        let (point_in_time, window) = (&self.cursor.point_in_time, &self.window);
        let tiebreaker = if self.cursor.shard_doc { "_shard_doc" } else { "_id" };
        let mut query = of(window);
        if !self.cursor.excluded.is_empty() {
            query = json!({"bool": {"filter": [query], "must_not": any_of(&self.cursor.excluded)}});
        }
        let mut body = json!({
            "size": size, "track_total_hits": false, "_source": source, "seq_no_primary_term": true, "query": query,
            "pit": {"id": point_in_time, "keep_alive": KEEP_ALIVE},
            "sort": in_order(tiebreaker),
        });
        if source {
            // No `_source` at all: even `true` is left to the default, because a filter would rewrite the bytes.
            if let Some(body) = body.as_object_mut() {
                body.remove("_source");
            }
        }
        if let Some(after) = after {
            body["search_after"] = json!(after);
        }
        self.source.search("read a page", body, if size == 1 { u64::MAX } else { LARGEST_ANSWER }).await
    }
}

/// A routing above this is told by its hash: the ledger's keys end somewhere, and routings do not.
const LONGEST_ROUTING: usize = 1000;

/// The id of a document whose index holds it several times.
fn told_by_routing(Hit { id, routing, .. }: &Hit) -> String {
    match routing {
        Some(routing) if routing.len() > LONGEST_ROUTING => {
            format!("{id} (routing of hash {})", version(routing.as_bytes()))
        }
        Some(routing) => format!("{id} (routing {routing})"),
        None => format!("{id} (no routing)"),
    }
}

/// The documents of a window, as a query.
fn of(window: &Window) -> Value {
    match &window.selection {
        Selection::Range => range(window.from, window.to),
        Selection::Identities(documents) => any_of(documents),
    }
}

/// These documents and no others: an id may stand in several indices. One clause an index, because OpenSearch takes
/// 1,024 of them (`indices.query.bool.max_clause_count`) and as many ids in one as there are.
fn any_of<'a>(documents: impl IntoIterator<Item = &'a Identity>) -> Value {
    let mut by_index: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Identity { source_index, id } in documents {
        by_index.entry(source_index).or_default().insert(id);
    }
    let of_index = |(index, ids)| json!({"bool": {"filter": [{"ids": {"values": ids}}, {"term": {"_index": index}}]}});
    let clauses: Vec<Value> = by_index.into_iter().map(of_index).collect();
    json!({"bool": {"should": clauses, "minimum_should_match": 1}})
}

fn document(hit: Hit, window: &Window) -> Result<Document, SourceError> {
    let millis = hit.sort.first().and_then(Value::as_i64);
    let millis = millis.ok_or_else(|| SourceError::Unreadable {
        doing: "read a page",
        reason: format!("{} has no sort value", hit.id),
    })?;
    let at = Timestamp::from_millisecond(millis).ok().filter(|at| *at >= instant::first());
    Ok(match (at, &window.selection) {
        (Some(at), _) => Document { hit, at, defect: None },
        // One of several instants lies in the window, so that the earliest can only be out of the calendar's reach
        // before it.
        (None, Selection::Range) => Document { hit, at: Timestamp::MIN, defect: None },
        // Wherever it lay when it was named, it has no instant now that a partition could be called after.
        (None, Selection::Identities(_)) => Document { hit, at: window.from, defect: Some(Defect::NoUsableTimestamp) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Indices, MemoryNode};
    use network::Calm;
    use runtime::ManualClock;

    #[test]
    fn documents_by_name_are_one_clause_an_index() {
        let documents = [("a", "2"), ("b", "1"), ("a", "1")].map(|(index, id)| Identity::new(index, id));
        let of_index = |index: &str, ids: &[&str]| json!({"bool": {"filter": [{"ids": {"values": ids}}, {"term": {"_index": index}}]}});
        let clauses = [of_index("a", &["1", "2"]), of_index("b", &["1"])];
        assert_eq!(any_of(&documents), json!({"bool": {"should": clauses, "minimum_should_match": 1}}));
    }

    #[tokio::test]
    async fn more_documents_are_excluded_than_a_query_has_clauses_or_an_answer_hits() {
        let node = MemoryNode::new(Calm::shared(), ManualClock::at(Timestamp::UNIX_EPOCH)).index("m");
        let ids: Vec<String> = (0..LARGEST_PAGE + 100).map(|n| format!("m-{n}")).collect();
        ids.iter()
            .map(String::as_str)
            .chain(["last"])
            .for_each(|id| node.put("m", id, r#"{"timestamp":"2024-07-01"}"#));
        let indices = Indices { messages: "m".into(), history: "h".into(), audit: "u".into() };
        let source = OpenSearch::over(node, indices);
        let at = |text: &str| instant::parse(text).expect("an instant");
        let window = Window::new(at("2024-07-01"), at("2024-07-02"), 1);
        let mut drain = Drain::open(&source, &window).await.expect("opened");
        drain.count().await.expect("counted");
        let excluded: HashSet<Identity> = ids.iter().map(|id| Identity::new("m", id)).collect();
        drain.exclude(&excluded).await.expect("excluded");
        let mut handed_out = HashSet::new();
        while let Some(document) = drain.next_excluded().await.expect("its bytes") {
            handed_out.insert(document.hit.identity());
        }
        assert!(handed_out == excluded, "{} of {}", handed_out.len(), excluded.len());
        let page = drain.next_page().await.expect("a page");
        assert_eq!(page.iter().map(|document| document.hit.id.as_str()).collect::<Vec<_>>(), ["last"]);
        drain.close().await;
    }
}
