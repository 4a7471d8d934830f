use crate::node::{Body, HttpRequest, HttpResponse, Node};
use ::opensearch::http::Method;
use async_trait::async_trait;
use bytes::Bytes;
use identity::instant;
use jiff::SignedDuration;
use network::{Network, through};
use runtime::Clock;
use serde_json::{Value, json, value::RawValue};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What a sort by time gives to a document that has none: it comes last.
const NO_INSTANT: i64 = i64::MAX;
/// Points in time of one node, one for each shard.
const LARGEST_NUMBER_OF_CONTEXTS: usize = 300;

/// An OpenSearch node in memory, for unit tests and simulations, which answers the requests that this crate sends, and
/// refuses every other. It has aliases, points in time that expire by the clock, a refresh that lags, exact counts,
/// documents that are not valid JSON, and shards that fail. Each index is one shard.
#[derive(Clone)]
pub struct MemoryNode {
    state: Arc<Mutex<State>>,
    network: Arc<dyn Network>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct State {
    /// By index, id and routing.
    documents: BTreeMap<(String, String, Option<String>), Stored>,
    indices: BTreeSet<String>,
    /// Writes of each index so far.
    writes: BTreeMap<String, u64>,
    /// How often an index was made anew under its name.
    remade: BTreeMap<String, u64>,
    /// How often an index was restored in place.
    restored: BTreeMap<String, u64>,
    /// Indices that keep no bodies.
    bare: BTreeSet<String>,
    /// Refuses to refresh.
    is_read_only: bool,
    /// The keyword of `message_id` leaves out longer ids.
    ignores_above: Option<usize>,
    /// `message_id` is a text, with that keyword below it.
    has_text: bool,
    aliases: BTreeMap<String, BTreeSet<String>>,
    points: HashMap<String, Point>,
    opened: u64,
    /// Searches that lose a shard from now on.
    failing: usize,
    /// Documents that a page with bodies may have.
    largest_page: Option<u64>,
    most_contexts: usize,
    lags: bool,
}

/// A document and what a search sees of it, which may be an earlier version, or nothing yet.
#[derive(Default)]
struct Stored {
    live: Option<Arc<Indexed>>,
    searched: Option<Arc<Indexed>>,
}

#[derive(Debug)]
struct Indexed {
    index: String,
    id: String,
    routing: Option<String>,
    source: Bytes,
    seq_no: u64,
    /// Milliseconds since 1970, in order.
    instants: Vec<i64>,
    messages: Vec<String>,
    /// Those of them that the keyword has.
    keywords: Vec<String>,
}

struct Point {
    /// In order of index, as its shards hold them.
    documents: Arc<[Arc<Indexed>]>,
    contexts: usize,
    until: Duration,
}

/// A document that a search found: its values of the sort fields.
struct Match<'a> {
    document: &'a Indexed,
    sort: (i64, Tiebreaker, &'a str),
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Tiebreaker {
    /// The position in the shard: it repeats in each index.
    ShardDoc(u64),
    Id(String),
}

struct Refusal(u16, Value);

impl MemoryNode {
    pub fn new(network: Arc<dyn Network>, clock: Arc<dyn Clock>) -> Self {
        MemoryNode { state: Arc::default(), network, clock }
    }

    /// The same documents, seen through another network.
    pub fn through(&self, network: Arc<dyn Network>) -> Self {
        MemoryNode { network, ..self.clone() }
    }

    /// Creates an index, which may stay empty.
    pub fn index(self, index: &str) -> Self {
        self.state().indices.insert(index.to_owned());
        self
    }

    /// Lets `alias` name an index too.
    pub fn alias(self, alias: &str, index: &str) -> Self {
        self.state().indices.insert(index.to_owned());
        self.state().aliases.entry(alias.to_owned()).or_default().insert(index.to_owned());
        self
    }

    /// Stores a document, or its next version, by the `timestamp` and the `message_id` that it has.
    pub fn put(&self, index: &str, id: &str, source: &str) {
        self.put_routed(index, id, None, source);
    }

    /// As [`MemoryNode::put`]. Under another routing an index takes the same id once more.
    pub fn put_routed(&self, index: &str, id: &str, routing: Option<&str>, source: &str) {
        let fields: HashMap<&str, &RawValue> = serde_json::from_str(source).unwrap_or_default();
        let of = |name: &str| fields.get(name).map(|value| listed(value)).unwrap_or_default();
        let mut instants: Vec<i64> = of("timestamp").into_iter().filter_map(millis).collect();
        instants.sort_unstable();
        let messages =
            of("message_id").into_iter().filter_map(|value| serde_json::from_str(value.get()).ok()).collect();
        self.store(index, (id, routing), source.as_bytes(), instants, messages);
    }

    /// Stores bytes that are not valid JSON, as OpenSearch does with comments or a byte order mark.
    pub fn put_bytes(&self, index: &str, id: &str, source: &[u8], millis: i64, message_id: &str) {
        self.store(index, (id, None), source, vec![millis], vec![message_id.to_owned()]);
    }

    fn store(
        &self,
        index: &str,
        (id, routing): (&str, Option<&str>),
        source: &[u8],
        instants: Vec<i64>,
        messages: Vec<String>,
    ) {
        let (index, id, routing) = (index.to_owned(), id.to_owned(), routing.map(str::to_owned));
        let source = Bytes::copy_from_slice(source);
        let mut state = self.state();
        let (key, lags) = ((index.clone(), id.clone(), routing.clone()), state.lags);
        state.indices.insert(index.clone());
        let seq_no = state.next_write(&index);
        let longest = state.ignores_above.unwrap_or(usize::MAX);
        let keywords = messages.iter().filter(|id| id.encode_utf16().count() <= longest).cloned().collect();
        let stored = state.documents.entry(key).or_default();
        stored.live = Some(Arc::new(Indexed { index, id, routing, source, seq_no, instants, messages, keywords }));
        if !lags {
            stored.searched = stored.live.clone();
        }
    }

    /// 201, or 409 where a document of this id stands already.
    fn create(&self, index: &str, id: &str, source: &[u8]) -> u16 {
        let key = (index.to_owned(), id.to_owned(), None);
        if self.state().documents.get(&key).is_some_and(|stored| stored.live.is_some()) {
            return 409;
        }
        self.store(index, (id, None), source, Vec::new(), Vec::new());
        201
    }

    pub fn delete(&self, index: &str, id: &str) {
        let mut state = self.state();
        let lags = state.lags;
        state.next_write(index);
        if let Some(stored) = state.documents.get_mut(&(index.to_owned(), id.to_owned(), None)) {
            stored.live = None;
            if !lags {
                stored.searched = None;
            }
        }
    }

    /// From now on searches do not see what changes, until [`MemoryNode::refresh`].
    pub fn let_refresh_lag(&self) {
        self.state().lags = true;
    }

    pub fn refresh(&self) {
        self.state().refresh(|_| true);
    }

    /// From now on the node refuses what a reader may not do.
    pub fn let_only_read(&self) {
        self.state().is_read_only = true;
    }

    /// `message_id` is mapped as an index does by itself, with a keyword that leaves out what is longer than this, in
    /// UTF-16 units. Before the first document is stored.
    pub fn ignore_ids_above(&self, units: usize) {
        let mut state = self.state();
        (state.ignores_above, state.has_text) = (Some(units), true);
    }

    /// `message_id` is mapped as a keyword alone that leaves out what is longer than this, in UTF-16 units. Before the
    /// first document is stored.
    pub fn keep_no_keyword_above(&self, units: usize) {
        let mut state = self.state();
        (state.ignores_above, state.has_text) = (Some(units), false);
    }

    /// From now on an index says that it keeps no bodies.
    pub fn keep_no_bodies(&self, index: &str) {
        self.state().bare.insert(index.to_owned());
    }

    /// Removes an index with all its documents, also from its aliases.
    pub fn remove_index(&self, index: &str) {
        let mut state = self.state();
        state.documents.retain(|(of, ..), _| of != index);
        state.indices.remove(index);
        state.writes.remove(index);
        *state.remade.entry(index.to_owned()).or_default() += 1;
        for indices in state.aliases.values_mut() {
            indices.remove(index);
        }
    }

    /// Brings an index back to when it had taken so many writes, in place, as a snapshot does that is restored over the
    /// closed index: its uuid stays, and its next writes take numbers that others had.
    pub fn restore_in_place(&self, index: &str, writes: u64) {
        let mut state = self.state();
        state.documents.retain(|(of, ..), stored| {
            of != index || stored.live.as_ref().is_some_and(|document| document.seq_no < writes)
        });
        state.writes.insert(index.to_owned(), writes);
        *state.restored.entry(index.to_owned()).or_default() += 1;
    }

    /// The next `searches` lose a shard.
    pub fn fail_shards(&self, searches: usize) {
        self.state().failing = searches;
    }

    /// From now on a search with bodies gives no more than so many documents: a larger page breaks the node's circuit.
    pub fn refuse_pages_above(&self, documents: u64) {
        self.state().largest_page = Some(documents);
    }

    /// Contexts of points in time that were open at once, at most.
    pub fn most_contexts(&self) -> usize {
        self.state().most_contexts
    }

    /// Forgets all points in time, as a node that restarts does.
    pub fn forget_points_in_time(&self) {
        self.state().points.clear();
    }

    /// Points in time that are open now.
    pub fn points_in_time(&self) -> usize {
        let now = self.clock.elapsed();
        self.state().points.values().filter(|point| point.until > now).count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Node for MemoryNode {
    async fn send(&self, request: HttpRequest<'_>) -> Result<HttpResponse, Box<dyn Error + Send + Sync>> {
        let (path, query) = request.path.split_once('?').unwrap_or((request.path, ""));
        let operation = match path.rsplit('/').next().unwrap_or_default() {
            "point_in_time" => "point_in_time",
            "_search" => "_search",
            "_count" => "_count",
            "_mget" => "_mget",
            "_bulk" => "_bulk",
            "_field_caps" => "_field_caps",
            "_mapping" => "_mapping",
            _ => "other",
        };
        let seen = network::Request { service: "source", operation, subject: path.to_owned() };
        if let Some(Creation { index, documents }) = created(path, request.body.as_deref()) {
            let statuses: Vec<u16> = documents.iter().map(|(id, source)| self.create(index, id, source)).collect();
            return Ok(if path.ends_with("/_bulk") {
                let items = statuses.iter().zip(&documents);
                let items = items.map(|(status, (id, _))| json!({"create": {"_id": id, "status": status}}));
                let body = Body::Whole(bytes(json!({"items": items.collect::<Vec<_>>()})));
                HttpResponse { status: 200, body }
            } else {
                let status = statuses.first().copied().unwrap_or(400);
                HttpResponse {
                    status,
                    body: Body::Whole(bytes(json!({"error": {"type": "version_conflict_engine_exception"}}))),
                }
            });
        }
        // A bulk request is a JSON value a line.
        let values = serde_json::Deserializer::from_slice(request.body.as_deref().unwrap_or_default());
        let mut values = values.into_iter::<Value>().collect::<Result<Vec<_>, _>>()?;
        let body = if operation == "_bulk" { Value::Array(values) } else { values.pop().unwrap_or_default() };
        let now = self.clock.elapsed();
        let answer = through(&*self.network, &seen, || self.state().answer(request.method, path, query, &body, now));
        let (status, body) = match answer.await? {
            Ok(body) => (200, body),
            Err(Refusal(status, error)) => (status, json!({"error": error, "status": status}).to_string().into()),
        };
        let bytes = body.len() as u64;
        let is_too_large = status == 200 && bytes > request.limit;
        Ok(HttpResponse { status, body: if is_too_large { Body::TooLarge(bytes) } else { Body::Whole(body) } })
    }

    async fn wait(&self, time: Duration) {
        self.network.wait(time).await;
    }
}

impl State {
    /// The sequence number of the next write to an index.
    fn next_write(&mut self, index: &str) -> u64 {
        let writes = self.writes.entry(index.to_owned()).or_default();
        *writes += 1;
        *writes - 1
    }

    fn uuid(&self, index: &str) -> String {
        format!("{index}#{}", self.remade.get(index).copied().unwrap_or_default())
    }

    fn refresh(&mut self, is_meant: impl Fn(&str) -> bool) {
        for ((index, ..), stored) in &mut self.documents {
            if is_meant(index) {
                stored.searched = stored.live.clone();
            }
        }
    }

    fn answer(
        &mut self,
        method: Method,
        path: &str,
        query: &str,
        body: &Value,
        now: Duration,
    ) -> Result<Bytes, Refusal> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        self.points.retain(|_, point| point.until > now);
        match (method, parts.as_slice()) {
            (Method::Get, []) => Ok(bytes(json!({"version": {"number": "3.8.0"}}))),
            (Method::Post, [index, "_search", "point_in_time"]) => {
                self.open(index, parameter(query, "keep_alive"), now)
            }
            (Method::Delete, ["_search", "point_in_time"]) => {
                for id in body["pit_id"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    self.points.remove(id);
                }
                Ok(bytes(json!({"pits": []})))
            }
            (Method::Post, ["_search"]) => self.page(body, now),
            (Method::Post, [index, "_search"]) => self.search(index, body),
            (Method::Post, [index, "_count"]) => {
                let (documents, failed) = (self.searched(index)?, self.loses_a_shard());
                let count = count(documents.iter().map(|document| &**document), &body["query"])?;
                Ok(bytes(json!({"count": count, "_shards": shards(failed)})))
            }
            (Method::Post, ["_mget"]) => self.get(body),
            (Method::Post, ["_bulk"]) => {
                let lines = body.as_array().into_iter().flatten();
                let items: Vec<Value> = lines.map(|line| self.delete_if(&line["delete"])).collect();
                Ok(bytes(json!({"items": items})))
            }
            (Method::Get, [index, "_stats", "docs"]) => {
                let stats = |index: &String| {
                    let last = self.writes.get(index).map_or(-1, |writes| *writes as i64 - 1);
                    let history = format!("history-{}", self.restored.get(index).copied().unwrap_or_default());
                    let commit = json!({"user_data": {"history_uuid": history}});
                    let copy =
                        json!({"routing": {"primary": true}, "seq_no": {"global_checkpoint": last}, "commit": commit});
                    (index.clone(), json!({"uuid": self.uuid(index), "shards": {"0": [copy]}}))
                };
                let stats: serde_json::Map<_, _> = self.named(index)?.iter().map(stats).collect();
                Ok(bytes(json!({"indices": stats})))
            }
            (Method::Post, [index, "_refresh"]) if !self.is_read_only => {
                let indices = self.named(index)?;
                self.refresh(|index| indices.iter().any(|named| named == index));
                Ok(bytes(json!({"_shards": shards(false)})))
            }
            (Method::Get, [index, "_field_caps"]) => {
                let indices = self.named(index)?;
                let fields = match self.has_text {
                    false => json!({"message_id": {"keyword": {}}, "timestamp": {"date": {}}}),
                    true => json!({
                        "message_id": {"text": {}}, "message_id.keyword": {"keyword": {}}, "timestamp": {"date": {}},
                    }),
                };
                Ok(bytes(json!({"indices": indices, "fields": fields})))
            }
            (Method::Get, [index, "_mapping"]) => {
                let message_id = match (self.ignores_above, self.has_text) {
                    (Some(units), true) => json!({"fields": {"keyword": {"ignore_above": units}}}),
                    (units, _) => json!({"ignore_above": units}),
                };
                let properties = json!({"message_id": message_id});
                let mapping = |index: &String| {
                    let source = self.bare.contains(index).then(|| json!({"enabled": false}));
                    (index.clone(), json!({"mappings": {"_source": source, "properties": properties}}))
                };
                Ok(bytes(self.named(index)?.iter().map(mapping).collect::<serde_json::Map<_, _>>().into()))
            }
            _ => Err(Refusal(
                400,
                json!({"type": "illegal_argument_exception", "reason": format!("no handler for {path}")}),
            )),
        }
    }

    /// The concrete indices behind a name.
    fn named(&self, name: &str) -> Result<Vec<String>, Refusal> {
        if name.contains(',') {
            return Ok(name.split(',').map(|name| self.named(name)).collect::<Result<Vec<_>, _>>()?.concat());
        }
        if let Some(indices) = self.aliases.get(name) {
            return Ok(indices.iter().cloned().collect());
        }
        if self.indices.contains(name) {
            Ok(vec![name.to_owned()])
        } else {
            Err(Refusal(404, json!({"type": "index_not_found_exception", "index": name})))
        }
    }

    fn searched(&self, name: &str) -> Result<Vec<Arc<Indexed>>, Refusal> {
        let indices = self.named(name)?;
        let is_named = |document: &&Arc<Indexed>| indices.contains(&document.index);
        Ok(self.documents.values().filter_map(|stored| stored.searched.as_ref()).filter(is_named).cloned().collect())
    }

    fn loses_a_shard(&mut self) -> bool {
        let failing = self.failing > 0;
        self.failing = self.failing.saturating_sub(1);
        failing
    }

    fn open(&mut self, index: &str, keep_alive: &str, now: Duration) -> Result<Bytes, Refusal> {
        let (documents, contexts) = (self.searched(index)?, self.named(index)?.len());
        let open: usize = self.points.values().map(|point| point.contexts).sum();
        if open + contexts > LARGEST_NUMBER_OF_CONTEXTS {
            let reason = "Trying to create too many Point In Time contexts. Must be less than or equal to: [300]";
            return Err(Refusal(429, json!({"type": "rejected_execution_exception", "reason": reason})));
        }
        self.most_contexts = self.most_contexts.max(open + contexts);
        self.opened += 1;
        let id = format!("point-{}", self.opened);
        self.points
            .insert(id.clone(), Point { documents: documents.into(), contexts, until: now + duration(keep_alive)? });
        Ok(bytes(json!({"pit_id": id})))
    }

    /// A page of a point in time, or its count.
    fn page(&mut self, body: &Value, now: Duration) -> Result<Bytes, Refusal> {
        let keep_alive = duration(body["pit"]["keep_alive"].as_str().unwrap_or_default())?;
        let failed = self.loses_a_shard();
        let missing = || {
            Refusal(
                404,
                json!({"type": "search_phase_execution_exception", "root_cause": [{"type": "search_context_missing_exception"}]}),
            )
        };
        let point = self.points.get_mut(body["pit"]["id"].as_str().unwrap_or_default()).ok_or_else(missing)?;
        point.until = point.until.max(now + keep_alive);
        if body["track_total_hits"] == true {
            let total = count(point.documents.iter().map(|document| &**document), &body["query"])?;
            let hits = json!({"total": {"value": total, "relation": "eq"}, "hits": []});
            return Ok(bytes(json!({"timed_out": false, "_shards": shards(failed), "hits": hits})));
        }
        let documents = point.documents.clone();
        self.listed(&documents, body, failed)
    }

    /// Documents in the order and with the bodies that a search asks for.
    fn listed(&self, documents: &[Arc<Indexed>], body: &Value, failed: bool) -> Result<Bytes, Refusal> {
        let size = body["size"].as_u64().unwrap_or(10);
        let with_source = body["_source"] != false;
        if with_source && self.largest_page.is_some_and(|largest| size > largest) {
            return Err(Refusal(429, json!({"type": "circuit_breaking_exception", "reason": "data too large"})));
        }
        let by_shard_doc = body["sort"].as_array().into_iter().flatten().any(|field| !field["_shard_doc"].is_null());
        let (mut found, mut shard, mut position) = (Vec::new(), "", 0);
        for document in documents {
            position = if document.index == shard { position + 1 } else { 0 };
            shard = &document.index;
            if matches(&body["query"], document)? {
                let tiebreaker =
                    if by_shard_doc { Tiebreaker::ShardDoc(position) } else { Tiebreaker::Id(document.id.clone()) };
                let first = document.instants.first().copied().unwrap_or(NO_INSTANT);
                found.push(Match { document, sort: (first, tiebreaker, &document.index) });
            }
        }
        if let Some(after) = body["search_after"].as_array() {
            found.retain(|hit| hit.is_behind(after));
        }
        found.sort_by(|left, right| left.sort.cmp(&right.sort));
        if failed {
            found.retain(|hit| hit.document.index != shard);
        }
        found.truncate(size as usize);
        let hits: Vec<Vec<u8>> = found.iter().map(|hit| hit.shown(with_source)).collect();
        let mut page = format!(r#"{{"timed_out":false,"_shards":{},"hits":{{"hits":["#, shards(failed)).into_bytes();
        page.extend(hits.join(&b','));
        page.extend(b"]}}");
        Ok(page.into())
    }

    /// A search without a point in time: an aggregation, or the places of ids.
    fn search(&mut self, index: &str, body: &Value) -> Result<Bytes, Refusal> {
        let (documents, failed) = (self.searched(index)?, self.loses_a_shard());
        if !body["sort"][0]["timestamp"].is_null() {
            return self.listed(&documents, body, failed);
        }
        let mut found = Vec::new();
        for document in &documents {
            if body["query"].is_null() || matches(&body["query"], document)? {
                found.push(document);
            }
        }
        if !body["sort"][0]["_seq_no"].is_null() {
            found.sort_by_key(|document| document.seq_no);
        }
        let mut answer = json!({"timed_out": false, "_shards": shards(failed), "hits": {"hits": []}});
        if let Some(interval) = body["aggs"]["stretches"]["date_histogram"]["fixed_interval"].as_str() {
            let length = duration(interval)?.as_millis() as i64;
            let mut buckets: BTreeMap<i64, u64> = BTreeMap::new();
            for document in found {
                let keys: BTreeSet<i64> = document.instants.iter().map(|at| at.div_euclid(length) * length).collect();
                for key in keys {
                    *buckets.entry(key).or_default() += 1;
                }
            }
            let buckets = buckets.into_iter().map(|(key, count)| json!({"key": key, "doc_count": count}));
            answer["aggregations"] = json!({"stretches": {"buckets": buckets.collect::<Vec<_>>()}});
        } else if !body["aggs"]["indices"].is_null() {
            let indices: BTreeSet<&str> = found.iter().map(|document| document.index.as_str()).collect();
            let buckets: Vec<_> = indices.into_iter().map(|index| json!({"key": index})).collect();
            answer["aggregations"] = json!({"indices": {"buckets": buckets}});
        } else if !body["aggs"]["earliest"].is_null() {
            let earliest = found.iter().filter_map(|document| document.instants.first()).min();
            answer["aggregations"] = json!({"earliest": {"value": earliest.map(|at| *at as f64)}});
        } else {
            let hit = |document: &Arc<Indexed>| {
                let instants = document.instants.iter().map(i64::to_string).collect::<Vec<_>>();
                let field = if self.has_text { "message_id.keyword" } else { "message_id" };
                let fields = json!({"timestamp": instants, field: document.keywords});
                json!({
                    "_index": document.index, "_id": document.id, "_seq_no": document.seq_no, "_primary_term": 1,
                    "fields": fields, "sort": [document.seq_no],
                })
            };
            found.truncate(body["size"].as_u64().unwrap_or(10) as usize);
            answer["hits"]["hits"] = found.into_iter().map(hit).collect();
        }
        Ok(bytes(answer))
    }

    /// Deletes a document if its last write is the one that was meant, as one item of a bulk request.
    fn delete_if(&mut self, wanted: &Value) -> Value {
        let text = |field: &str| wanted[field].as_str().unwrap_or_default().to_owned();
        let (index, id) = (text("_index"), text("_id"));
        let stored = self.documents.get_mut(&(index.clone(), id.clone(), None));
        let is_meant = |stored: &&mut Stored| {
            let seq_no = stored.live.as_ref().map(|document| document.seq_no);
            seq_no.is_some() && seq_no == wanted["if_seq_no"].as_u64() && wanted["if_primary_term"] == 1
        };
        let status = match stored.filter(is_meant) {
            Some(stored) => {
                stored.live = None;
                if !self.lags {
                    stored.searched = None;
                }
                self.next_write(&index);
                200
            }
            None => 409,
        };
        json!({"delete": {"_index": index, "_id": id, "status": status}})
    }

    /// Documents as they are now, whether a search sees them or not.
    fn get(&self, body: &Value) -> Result<Bytes, Refusal> {
        let wanted = body["docs"].as_array().into_iter().flatten();
        let answers: Vec<Vec<u8>> = wanted.map(|wanted| self.get_one(wanted)).collect();
        let mut answer = br#"{"docs":["#.to_vec();
        answer.extend(answers.join(&b','));
        answer.extend(b"]}");
        Ok(answer.into())
    }

    fn get_one(&self, wanted: &Value) -> Vec<u8> {
        let (index, id) = (wanted["_index"].as_str().unwrap_or_default(), wanted["_id"].as_str().unwrap_or_default());
        let mut answer = format!(r#"{{"_index":{},"_id":{}"#, json!(index), json!(id)).into_bytes();
        let routing = wanted["routing"].as_str().map(str::to_owned);
        let stored = self.documents.get(&(index.to_owned(), id.to_owned(), routing));
        let stored = stored.and_then(|stored| stored.live.as_ref());
        match stored {
            _ if !self.indices.contains(index) => {
                answer.extend(br#","error":{"type":"index_not_found_exception"}"#);
            }
            Some(document) => {
                answer.extend(format!(r#","_seq_no":{},"_primary_term":1,"found":true"#, document.seq_no).into_bytes());
                if wanted["_source"] != false {
                    answer.extend(br#","_source":"#);
                    answer.extend(&document.source);
                }
            }
            None => answer.extend(br#","found":false"#),
        }
        answer.push(b'}');
        answer
    }
}

impl Match<'_> {
    fn is_behind(&self, after: &[Value]) -> bool {
        let (at, tiebreaker, index) = &self.sort;
        let by_time = at.cmp(&after.first().and_then(Value::as_i64).unwrap_or(i64::MIN));
        let by_tiebreaker = || match (tiebreaker, after.get(1)) {
            (Tiebreaker::ShardDoc(position), Some(Value::Number(other))) => position.cmp(&other.as_u64().unwrap_or(0)),
            (Tiebreaker::Id(id), Some(Value::String(other))) => id.cmp(other),
            _ => Ordering::Equal,
        };
        let by_index = || (*index).cmp(after.get(2).and_then(Value::as_str).unwrap_or_default());
        by_time.then_with(by_tiebreaker).then_with(by_index) == Ordering::Greater
    }

    /// The document's bytes stand in the answer as they are, also where that spoils the answer.
    fn shown(&self, with_source: bool) -> Vec<u8> {
        let (at, tiebreaker, index) = &self.sort;
        let tiebreaker = match tiebreaker {
            Tiebreaker::ShardDoc(position) => json!(position),
            Tiebreaker::Id(id) => json!(id),
        };
        let (id, seq_no) = (json!(self.document.id), self.document.seq_no);
        let named = format!(r#"{{"_index":{},"_id":{id},"_seq_no":{seq_no},"_primary_term":1"#, json!(index));
        let mut hit = named.into_bytes();
        if let Some(routing) = &self.document.routing {
            hit.extend(format!(r#","_routing":{}"#, json!(routing)).into_bytes());
        }
        if with_source {
            hit.extend(br#","_source":"#);
            hit.extend(&self.document.source);
        }
        hit.extend(format!(r#","sort":{}}}"#, json!([at, tiebreaker, index])).into_bytes());
        hit
    }
}

fn count<'a>(mut documents: impl Iterator<Item = &'a Indexed>, query: &Value) -> Result<u64, Refusal> {
    documents.try_fold(0, |count, document| Ok(count + u64::from(matches(query, document)?)))
}

/// `indices.query.bool.max_clause_count`, as OpenSearch has it by default.
const MOST_CLAUSES: usize = 1024;

/// Whether a query finds a document. A query that this crate does not send is refused.
fn matches(query: &Value, document: &Indexed) -> Result<bool, Refusal> {
    let unknown = || Refusal(400, json!({"type": "parsing_exception", "reason": format!("unknown query {query}")}));
    let (name, inner) = query.as_object().and_then(|query| query.iter().next()).ok_or_else(unknown)?;
    let contains =
        |values: &Value, text: &str| values.as_array().is_some_and(|values| values.iter().any(|value| value == text));
    let names = |values: &Value| document.keywords.iter().any(|message| contains(values, message));
    Ok(match name.as_str() {
        "match_all" => true,
        "exists" if inner["field"] == "message_id" => !document.keywords.is_empty(),
        "exists" => inner["field"] == "_routing" && document.routing.is_some(),
        "range" if !inner["_seq_no"].is_null() => {
            let bound = |name: &str| inner["_seq_no"][name].as_i64();
            let (above, up_to) = (bound("gt").unwrap_or(-1), bound("lte").unwrap_or(i64::MAX));
            above < document.seq_no as i64 && document.seq_no as i64 <= up_to
        }
        "range" => {
            let bound = |name: &str, default: i64| inner["timestamp"][name].as_i64().unwrap_or(default);
            let within = bound("gte", i64::MIN)..bound("lt", i64::MAX);
            document.instants.iter().any(|at| within.contains(at))
        }
        "ids" => contains(&inner["values"], &document.id),
        "term" => inner["_index"] == document.index.as_str(),
        "terms" => names(&inner["message_id"]) || names(&inner["message_id.keyword"]),
        "match_phrase" => document.messages.iter().any(|message| inner["message_id"] == message.as_str()),
        "bool" => {
            let clauses = |name: &str| match &inner[name] {
                Value::Null => [].as_slice(),
                Value::Array(clauses) => clauses,
                clause => std::slice::from_ref(clause),
            };
            if ["filter", "must", "must_not", "should"].map(|name| clauses(name).len()).iter().sum::<usize>()
                > MOST_CLAUSES
            {
                return Err(Refusal(
                    400,
                    json!({"type": "too_many_clauses", "reason": "maxClauseCount is set to 1024"}),
                ));
            }
            let found = |name: &str| {
                clauses(name).iter().map(|clause| matches(clause, document)).collect::<Result<Vec<_>, _>>()
            };
            let (all, none, some) = ([found("filter")?, found("must")?].concat(), found("must_not")?, found("should")?);
            let needs_one = !some.is_empty() && (all.is_empty() || inner["minimum_should_match"] == 1);
            all.iter().all(|found| *found) && !none.contains(&true) && (!needs_one || some.contains(&true))
        }
        _ => return Err(unknown()),
    })
}

/// A request that creates documents: their index, and of each its id and bytes.
struct Creation<'a> {
    index: &'a str,
    documents: Vec<(String, &'a [u8])>,
}

fn created<'a>(path: &'a str, body: Option<&'a [u8]>) -> Option<Creation<'a>> {
    let (index, rest) = path.strip_prefix('/')?.split_once('/')?;
    if let Some(id) = rest.strip_prefix("_create/") {
        let id = percent_encoding::percent_decode_str(id).decode_utf8().ok()?.into_owned();
        return Some(Creation { index, documents: vec![(id, body?)] });
    }
    if rest != "_bulk" {
        return None;
    }
    let lines: Vec<&[u8]> = body?.split(|byte| *byte == b'\n').collect();
    let document = |pair: &[&'a [u8]]| {
        let action: Value = serde_json::from_slice(pair.first()?).ok()?;
        Some((action["create"]["_id"].as_str()?.to_owned(), *pair.get(1)?))
    };
    Some(Creation { index, documents: lines.chunks(2).filter_map(document).collect() })
}

fn shards(failed: bool) -> Value {
    json!({"total": 2, "successful": 2 - u8::from(failed), "failed": u8::from(failed)})
}

fn bytes(value: Value) -> Bytes {
    value.to_string().into()
}

fn parameter<'a>(query: &'a str, name: &str) -> &'a str {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
}

/// `3m` or `86400000ms`.
fn duration(text: &str) -> Result<Duration, Refusal> {
    let invalid = || Refusal(400, json!({"type": "parse_exception", "reason": format!("failed to parse {text:?}")}));
    let duration: SignedDuration = text.parse().map_err(|_| invalid())?;
    Duration::try_from(duration).map_err(|_| invalid())
}

/// The values of a field: one, or those of a list.
fn listed(value: &RawValue) -> Vec<&RawValue> {
    serde_json::from_str(value.get()).unwrap_or_else(|_| vec![value])
}

fn millis(value: &RawValue) -> Option<i64> {
    instant::parse_json(value).map(|at| at.as_millisecond())
}
