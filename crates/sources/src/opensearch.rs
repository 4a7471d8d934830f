use crate::{
    SourceError,
    node::{Body, Http, HttpRequest, Node, Unconnected},
    page,
    password::Password,
    secret::{ReadSecret, SecretError, SecretsManager},
};
use ::opensearch::{
    OpenSearch as Client,
    auth::Credentials,
    http::{
        Method, Url,
        transport::{SingleNodeConnectionPool, TransportBuilder},
    },
};
use alerts::{
    message::entry::Written,
    window::plan::{Bucket, Interval},
};
use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use identity::Identity;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    error::Error,
    sync::Arc,
    time::Duration,
};

/// How long a point in time outlives the last request. A node holds only so many of them (300, one for each shard), and
/// a function that is killed leaves its own behind, so that this is not longer than the work between two pages needs.
pub(crate) const KEEP_ALIVE: &str = "3m";
/// How often it is renewed while its reader does something else.
pub const RENEWED_EVERY: Duration = Duration::from_secs(60);

/// The same between two calls of one attempt.
pub(crate) const KEEP_ALIVE_FOR_SUCCESSOR: &str = "20m";

/// A page's answer above this is dropped and asked for again with fewer documents.
pub(crate) const LARGEST_ANSWER: u64 = 24 << 20;
/// Names of indices in the path of a request: a node takes a line of 4,096 bytes.
const LONGEST_PATH: usize = 3000;
const MOST_INDICES: usize = 10_000;

/// How the node knows who asks.
#[derive(Clone)]
pub enum Auth {
    None,
    /// AWS Signature Version 4 with the function's own role.
    Iam,
    /// A name and a password, which this secret holds as `{"username","password"}`.
    Basic(Arc<dyn ReadSecret>),
}

impl Auth {
    /// From `ALERT_ARCHIVE_OPENSEARCH_AUTH` (`none`, `iam` or `basic`) and `ALERT_ARCHIVE_OPENSEARCH_SECRET_ID`.
    pub fn from_env(config: &mut runtime::Config, aws: &aws_config::SdkConfig) -> Self {
        match config.optional("ALERT_ARCHIVE_OPENSEARCH_AUTH").as_deref() {
            None | Some("none") => Auth::None,
            Some("iam") => Auth::Iam,
            Some("basic") => {
                let id = config.required("ALERT_ARCHIVE_OPENSEARCH_SECRET_ID");
                Auth::Basic(Arc::new(SecretsManager::new(aws, id)))
            }
            Some(other) => {
                config.refuse(format!("ALERT_ARCHIVE_OPENSEARCH_AUTH is `{other}`, expected none, iam or basic"));
                Auth::None
            }
        }
    }
}

/// Names of indices or aliases.
#[derive(Clone, Debug)]
pub struct Indices {
    pub messages: String,
    pub history: String,
    pub audit: String,
}

impl Indices {
    /// From `ALERT_ARCHIVE_{MESSAGES,HISTORY,AUDIT}_INDEX`.
    pub fn from_env(config: &mut runtime::Config) -> Self {
        let mut name = |variable: &str, default: &str| config.optional(variable).unwrap_or_else(|| default.to_owned());
        Indices {
            messages: name("ALERT_ARCHIVE_MESSAGES_INDEX", "messages"),
            history: name("ALERT_ARCHIVE_HISTORY_INDEX", "history"),
            audit: name("ALERT_ARCHIVE_AUDIT_INDEX", "audit"),
        }
    }
}

/// Messages, history and audit in OpenSearch 2.4 or later.
#[derive(Clone)]
pub struct OpenSearch {
    node: Arc<dyn Node>,
    url: String,
    pub indices: Indices,
}

/// How history and audit are found by their message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MessageField {
    /// The fields that hold `message_id` as a keyword, in one index or another; none when there are no documents.
    pub keywords: Vec<&'static str>,
    /// Longer ids, in UTF-16 units, are not indexed by a keyword below a text: only the text has them.
    pub longest: Option<u64>,
    /// Longer ids are not indexed by a keyword that stands alone: only the body has them.
    pub longest_alone: Option<u64>,
}

/// An answer whose body has not been looked at.
pub(crate) enum Answer {
    Body(Bytes),
    /// More bytes than a function may hold; the size that was announced.
    TooLarge(u64),
}

impl OpenSearch {
    pub fn connect(url: &str, auth: Auth, aws: &aws_config::SdkConfig, indices: Indices) -> Result<Self, SourceError> {
        // A password in the URL is for the node and not for logs.
        let shown = url.rsplit_once('@').map_or(url.to_owned(), |(_, host)| host.to_owned());
        let fault = |reason: String| SourceError::Url { url: shown.clone(), reason };
        let parsed = Url::parse(url).map_err(|error| fault(error.to_string()))?;
        // No proxy: a proxy of the environment would see every message. No gzip: it costs more than it saves.
        let mut transport = TransportBuilder::new(SingleNodeConnectionPool::new(parsed))
            .disable_proxy()
            .timeout(Duration::from_secs(120));
        let mut password = None;
        match auth {
            Auth::None => {}
            Auth::Iam => {
                let provider =
                    aws.credentials_provider().ok_or_else(|| fault("no AWS credentials to sign with".into()))?;
                let region = aws.region().ok_or_else(|| fault("no AWS region to sign for".into()))?.clone();
                transport = transport.auth(Credentials::AwsSigV4(provider, region)).service_name("es");
            }
            Auth::Basic(secret) => password = Some(Password::new(secret)),
        }
        let transport = transport.build().map_err(|error| fault(error.to_string()))?;
        Ok(OpenSearch { node: Arc::new(Http { client: Client::new(transport), password }), url: shown, indices })
    }

    /// Another node than one over HTTP, such as [`MemoryNode`](crate::MemoryNode).
    pub fn over(node: impl Node + 'static, indices: Indices) -> Self {
        OpenSearch { node: Arc::new(node), url: "memory".into(), indices }
    }

    /// From `OPENSEARCH_URL`, `ALERT_ARCHIVE_OPENSEARCH_AUTH` and the names of the indices. Nothing is sent yet. Where
    /// one of them cannot be used, a node without a connection stands in until the configuration is refused.
    pub fn from_env(config: &mut runtime::Config, aws: &aws_config::SdkConfig) -> Self {
        let url = config.required("OPENSEARCH_URL");
        let auth = Auth::from_env(config, aws);
        let indices = Indices::from_env(config);
        if !url.is_empty() {
            match OpenSearch::connect(&url, auth, aws, indices.clone()) {
                Ok(connected) => return connected,
                Err(error) => config.refuse(error.to_string()),
            }
        }
        OpenSearch::over(Unconnected, indices)
    }

    /// Fails unless `index` has what the product needs; returns how documents are found by their message.
    /// Behind an alias the indices may differ: one has a keyword, another a text with a keyword below it, a new one
    /// nothing yet.
    pub async fn check_mapping(&self, index: &str) -> Result<MessageField, SourceError> {
        let path = format!(
            "/{index}/_field_caps?fields=message_id,message_id.keyword,timestamp&ignore_unavailable=false&include_unmapped=true"
        );
        let caps: Capabilities = self.json("read the mapping", Method::Get, &path, Value::Null, index).await?;
        if caps.lack_a_field() && self.count(index, json!({"match_all": {}})).await? == 0 {
            return Ok(MessageField::default());
        }
        let keywords = caps.message_id(index)?;
        const LOOKED_AT: &str = "*.mappings.dynamic,*.mappings._source,*.mappings.properties.message_id";
        let path = format!("/{index}/_mapping?filter_path={LOOKED_AT}");
        let mappings: HashMap<String, Value> =
            self.json("read the mapping", Method::Get, &path, Value::Null, index).await?;
        // Every body would come back empty, and be taken for one that cannot be read.
        let has_no_bodies = |mapping: &Value| mapping["mappings"]["_source"]["enabled"] == false;
        if let Some((bare, _)) = mappings.iter().find(|(_, mapping)| has_no_bodies(mapping)) {
            let problem = format!("is not kept by index `{bare}`: what it was given cannot be archived");
            return Err(SourceError::Mapping { index: index.to_owned(), field: "_source", problem });
        }
        // A message is found by its `_id`; what belongs to it only by this field.
        let is_blind =
            |name: &String| mappings.get(name).is_some_and(|mapping| mapping["mappings"]["dynamic"] == "false");
        if let Some(blind) = caps.unmapped().into_iter().find(is_blind).filter(|_| index != self.indices.messages) {
            let problem = format!("is not mapped in index `{blind}`, which maps nothing by itself");
            return Err(SourceError::Mapping { index: index.to_owned(), field: "message_id", problem });
        }
        let of_message_id = || mappings.values().map(|mapping| &mapping["mappings"]["properties"]["message_id"]);
        let limits = of_message_id().filter_map(|field| field["fields"]["keyword"]["ignore_above"].as_u64());
        let alone = of_message_id().filter_map(|field| field["ignore_above"].as_u64());
        Ok(MessageField { keywords, longest: limits.min(), longest_alone: alone.min() })
    }

    /// Documents of `[from, to)` a stretch of `interval`, in order; stretches without documents are absent.
    pub async fn histogram(
        &self,
        from: Timestamp,
        to: Timestamp,
        interval: Interval,
    ) -> Result<Vec<Bucket>, SourceError> {
        self.until_whole(|| self.histogram_once(from, to, interval)).await
    }

    async fn histogram_once(
        &self,
        from: Timestamp,
        to: Timestamp,
        interval: Interval,
    ) -> Result<Vec<Bucket>, SourceError> {
        let body = json!({
            "size": 0,
            "track_total_hits": false,
            "query": range(from, to),
            "aggs": {"stretches": {"date_histogram": {
                "field": "timestamp", "fixed_interval": format!("{}ms", interval.length().as_millis()), "min_doc_count": 1, "time_zone": "UTC",
            }}},
        });
        let path = format!("/{}/_search?allow_partial_search_results=false", self.indices.messages);
        let counts: CountsAnswer =
            self.json("count documents", Method::Post, &path, body, &self.indices.messages).await?;
        counts.buckets(from, to, interval)
    }

    /// The earliest instant of any message; `None` when there is none.
    pub async fn earliest(&self) -> Result<Option<Timestamp>, SourceError> {
        let body = json!({"size": 0, "track_total_hits": false, "aggs": {"earliest": {"min": {"field": "timestamp"}}}});
        let path = format!("/{}/_search?allow_partial_search_results=false", self.indices.messages);
        let reply: Value =
            self.json("find the first message", Method::Post, &path, body, &self.indices.messages).await?;
        Ok(earliest(&reply))
    }

    /// Messages without a usable timestamp: no window holds them. Neither does one whose earliest instant no calendar
    /// reaches.
    pub async fn undated(&self) -> Result<u64, SourceError> {
        let (first, last) = (identity::instant::first().as_millisecond(), Timestamp::MAX.as_second() * 1000);
        let within = json!({"range": {"timestamp": {"gte": first, "lt": last, "format": "epoch_millis"}}});
        let before = json!({"range": {"timestamp": {"lt": first, "format": "epoch_millis"}}});
        self.count(&self.indices.messages, json!({"bool": {"should": [{"bool": {"must_not": within}}, before]}})).await
    }

    /// Messages that match `[from, to)` although an earlier instant owns them: their timestamp is a list.
    pub async fn foreign(&self, from: Timestamp, to: Timestamp) -> Result<u64, SourceError> {
        let before = json!({"range": {"timestamp": {"lt": from.as_millisecond(), "format": "epoch_millis"}}});
        self.count(&self.indices.messages, json!({"bool": {"filter": [range(from, to), before]}})).await
    }

    async fn count(&self, index: &str, query: Value) -> Result<u64, SourceError> {
        #[derive(Deserialize)]
        struct Reply {
            count: u64,
            #[serde(rename = "_shards")]
            shards: page::Shards,
        }
        self.until_whole(async || {
            let reply: Reply = self
                .json("count documents", Method::Post, &format!("/{index}/_count"), json!({"query": query}), index)
                .await?;
            reply.shards.check(false, None)?;
            Ok(reply.count)
        })
        .await
    }

    /// A point in time over an index or alias, all shards or none.
    pub(crate) async fn open_point_in_time(&self, index: &str) -> Result<String, SourceError> {
        #[derive(Deserialize)]
        struct Reply {
            pit_id: String,
        }
        let path = format!("/{index}/_search/point_in_time?keep_alive={KEEP_ALIVE}&allow_partial_pit_creation=false");
        Ok(self.json::<Reply>("open a point in time", Method::Post, &path, Value::Null, index).await?.pit_id)
    }

    /// As [`OpenSearch::open_point_in_time`], over those of the indices behind the messages' name that hold what
    /// `query` finds: each shard of each index counts among the few contexts that a node has.
    pub(crate) async fn open_over_holders(&self, query: Value) -> Result<String, SourceError> {
        let name = &self.indices.messages;
        let holders = self.until_whole(|| self.holders(&query)).await?.join(",");
        if holders.is_empty() || holders.len() > LONGEST_PATH {
            return self.open_point_in_time(name).await;
        }
        match self.open_point_in_time(&holders).await {
            // The role may be allowed the alias only; an index may have gone meanwhile.
            Err(SourceError::Rejected { status: 401 | 403, .. } | SourceError::IndexMissing { .. }) => {
                self.open_point_in_time(name).await
            }
            opened => opened,
        }
    }

    /// The indices that hold what a query finds.
    async fn holders(&self, query: &Value) -> Result<Vec<String>, SourceError> {
        #[derive(Deserialize)]
        struct Reply {
            timed_out: bool,
            #[serde(rename = "_shards")]
            shards: page::Shards,
            aggregations: Aggregations,
        }
        #[derive(Deserialize)]
        struct Aggregations {
            indices: Indices,
        }
        #[derive(Deserialize)]
        struct Indices {
            buckets: Vec<Index>,
        }
        #[derive(Deserialize)]
        struct Index {
            key: String,
        }
        let name = &self.indices.messages;
        let body = json!({
            "size": 0, "track_total_hits": false, "query": query,
            "aggs": {"indices": {"terms": {"field": "_index", "size": MOST_INDICES}}},
        });
        let path = format!("/{name}/_search?allow_partial_search_results=false");
        let reply: Reply = self.json("look for indices", Method::Post, &path, body, name).await?;
        reply.shards.check(reply.timed_out, None)?;
        Ok(reply.aggregations.indices.buckets.into_iter().map(|index| index.key).collect())
    }

    /// Lets points in time live on while something else takes long.
    pub async fn renew_points_in_time(&self, ids: &[String]) -> Result<(), SourceError> {
        for id in ids {
            let body = json!({
                "size": 0, "track_total_hits": false, "query": {"match_all": {}},
                "pit": {"id": id, "keep_alive": KEEP_ALIVE},
            });
            self.search("keep a point in time", body, LARGEST_ANSWER).await?;
        }
        Ok(())
    }

    /// Best effort: an unclosed point in time ends by itself.
    pub async fn close_points_in_time(&self, ids: &[String]) {
        if ids.is_empty() {
            return;
        }
        let closed: Result<Value, _> = self
            .json("close a point in time", Method::Delete, "/_search/point_in_time", json!({"pit_id": ids}), "")
            .await;
        if let Err(error) = closed {
            tracing::warn!(error = errors::describe(&error), "a point in time stays open until it expires");
        }
    }

    /// The stored bytes of one document, also when they are not valid JSON. `None` when it is gone, or larger than
    /// `limit`.
    pub async fn source_of(
        &self,
        index: &str,
        id: &str,
        routing: Option<&str>,
        limit: u64,
    ) -> Result<Option<Bytes>, SourceError> {
        let mut wanted = json!({"_index": index, "_id": id});
        if let Some(routing) = routing {
            wanted["routing"] = json!(routing);
        }
        // By a body and not by a path: the ids `.` and `..` cannot stand in one, however they are escaped.
        match self.send("read a document", Method::Post, "/_mget", json!({"docs": [wanted]}), index, limit).await? {
            Answer::Body(body) => Ok(page::only_source(&body)),
            Answer::TooLarge(_) => Ok(None),
        }
    }

    /// The indices in which a message of this id stands, with its routing.
    pub async fn places_of(&self, id: &str) -> Result<Vec<(String, Option<String>)>, SourceError> {
        let body =
            json!({"size": 1000, "track_total_hits": false, "_source": false, "query": {"ids": {"values": [id]}}});
        let path = format!("/{}/_search?allow_partial_search_results=false", self.indices.messages);
        let reply: Value = self.json("look for a message", Method::Post, &path, body, &self.indices.messages).await?;
        let hits = reply["hits"]["hits"].as_array().into_iter().flatten();
        let text = |hit: &Value, field: &str| hit[field].as_str().map(str::to_owned);
        Ok(hits.filter_map(|hit| Some((text(hit, "_index")?, text(hit, "_routing")))).collect())
    }

    /// The index that holds each message, by id; where several do, one whose instant is the one given. Messages that a
    /// search does not find yet are absent.
    pub(crate) async fn indices_of(
        &self,
        messages: &[(&str, Option<Timestamp>)],
    ) -> Result<HashMap<String, String>, SourceError> {
        let mut indices = HashMap::with_capacity(messages.len());
        for batch in messages.chunks(IDS_AT_ONCE) {
            let ids: Vec<&str> = batch.iter().map(|(id, _)| *id).collect();
            let places = self.until_whole(|| self.places_of_all(&ids)).await?;
            for (id, at) in batch {
                let millis = at.map(Timestamp::as_millisecond);
                let of_id = || places.iter().filter(|place| place.id == *id);
                let place = of_id()
                    .find(|place| millis.is_some() && place.earliest() == millis)
                    .or_else(|| of_id().next_back());
                indices.extend(place.map(|place| ((*id).to_owned(), place.index.clone())));
            }
        }
        Ok(indices)
    }

    /// Every document of these ids that a search finds, in whatever index behind the alias.
    pub async fn found(&self, ids: &[&str]) -> Result<Vec<Sighting>, SourceError> {
        let mut found = Vec::new();
        for batch in ids.chunks(IDS_AT_ONCE) {
            let places = self.until_whole(|| self.places_of_all(batch)).await?;
            found.extend(places.into_iter().map(NamedHit::sighting));
        }
        Ok(found)
    }

    /// Those of these ids that stand more than once in one index, under several routings.
    pub(crate) async fn several_by_routing(&self, ids: &[&str]) -> Result<HashSet<Identity>, SourceError> {
        let mut found: HashMap<Identity, usize> = HashMap::new();
        for sighting in self.found(ids).await? {
            *found.entry(sighting.document).or_default() += 1;
        }
        Ok(found.into_iter().filter(|(_, places)| *places > 1).map(|(document, _)| document).collect())
    }

    /// Where messages stand; the places of each in order of index.
    async fn places_of_all(&self, ids: &[&str]) -> Result<Vec<NamedHit>, SourceError> {
        let (mut places, mut batches) = (Vec::new(), vec![ids]);
        while let Some(batch) = batches.pop() {
            let found = self.places_at_once(batch).await?;
            if found.len() < LARGEST_RESULT {
                places.extend(found);
                continue;
            }
            // There may be more than an answer has.
            if batch.len() < 2 {
                let reason = format!("an id stands in {LARGEST_RESULT} places or more");
                return Err(SourceError::Unreadable { doing: "look for messages", reason });
            }
            batches.extend(<[_; 2]>::from(batch.split_at(batch.len() / 2)));
        }
        Ok(places)
    }

    async fn places_at_once(&self, ids: &[&str]) -> Result<Vec<NamedHit>, SourceError> {
        #[derive(Deserialize)]
        struct Reply {
            timed_out: bool,
            #[serde(rename = "_shards")]
            shards: page::Shards,
            hits: Hits,
        }
        #[derive(Deserialize)]
        struct Hits {
            hits: Vec<NamedHit>,
        }
        let body = json!({
            "size": LARGEST_RESULT, "track_total_hits": false, "_source": false, "seq_no_primary_term": true,
            "query": {"ids": {"values": ids}},
            "docvalue_fields": [{"field": "timestamp", "format": "epoch_millis"}],
            "sort": [{"_index": {"order": "asc", "unmapped_type": "keyword"}}],
        });
        let path = format!("/{}/_search?allow_partial_search_results=false", self.indices.messages);
        let reply: Reply = self.json("look for messages", Method::Post, &path, body, &self.indices.messages).await?;
        reply.shards.check(reply.timed_out, None)?;
        Ok(reply.hits.hits)
    }

    /// The version before 3.3 knows no `_shard_doc` that is unique in a point in time.
    pub(crate) async fn has_shard_doc(&self) -> Result<bool, SourceError> {
        #[derive(Deserialize)]
        struct Root {
            version: Version,
        }
        #[derive(Deserialize)]
        struct Version {
            number: String,
        }
        let root: Root = self.json("read its version", Method::Get, "/", Value::Null, "").await?;
        Ok(is_from_3_3(&root.version.number))
    }

    /// One page of a point in time; tried again while the node is merely busy. An answer above `limit` is not read.
    pub(crate) async fn search(&self, doing: &'static str, body: Value, limit: u64) -> Result<Answer, SourceError> {
        self.send(doing, Method::Post, "/_search?allow_partial_search_results=false", body, "", limit).await
    }

    /// One search over an index or alias as it is now.
    pub(crate) async fn search_now(
        &self,
        doing: &'static str,
        index: &str,
        body: Value,
        limit: u64,
    ) -> Result<Answer, SourceError> {
        let path = format!("/{index}/_search?allow_partial_search_results=false");
        self.send(doing, Method::Post, &path, body, index, limit).await
    }

    pub(crate) async fn json<T: for<'de> Deserialize<'de>>(
        &self,
        doing: &'static str,
        method: Method,
        path: &str,
        body: Value,
        index: &str,
    ) -> Result<T, SourceError> {
        let unreadable = |reason: String| SourceError::Unreadable { doing, reason };
        match self.send(doing, method, path, body, index, u64::MAX).await? {
            Answer::Body(body) => serde_json::from_slice(&body).map_err(|error| unreadable(error.to_string())),
            Answer::TooLarge(bytes) => Err(unreadable(format!("{bytes} bytes"))),
        }
    }

    /// Sends bytes instead of a JSON value, and reads a JSON answer.
    pub(crate) async fn post_bytes<T: for<'de> Deserialize<'de>>(
        &self,
        doing: &'static str,
        method: Method,
        path: &str,
        body: Vec<u8>,
        index: &str,
    ) -> Result<T, SourceError> {
        let unreadable = |reason: String| SourceError::Unreadable { doing, reason };
        match self.send_bytes(doing, method, path, Some(body.into()), index, u64::MAX).await? {
            Answer::Body(body) => serde_json::from_slice(&body).map_err(|error| unreadable(error.to_string())),
            Answer::TooLarge(bytes) => Err(unreadable(format!("{bytes} bytes"))),
        }
    }

    pub(crate) async fn send(
        &self,
        doing: &'static str,
        method: Method,
        path: &str,
        body: Value,
        index: &str,
        limit: u64,
    ) -> Result<Answer, SourceError> {
        let body = (!body.is_null()).then(|| Bytes::from(body.to_string()));
        self.send_bytes(doing, method, path, body, index, limit).await
    }

    async fn send_bytes(
        &self,
        doing: &'static str,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        index: &str,
        limit: u64,
    ) -> Result<Answer, SourceError> {
        let attempt = || self.send_once(doing, method, path, body.clone(), index, limit);
        attempt.retry(backoff(Duration::from_millis(200))).sleep(self.waits()).when(SourceError::is_passing).await
    }

    async fn send_once(
        &self,
        doing: &'static str,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        index: &str,
        limit: u64,
    ) -> Result<Answer, SourceError> {
        let unreachable = |source: Box<dyn Error + Send + Sync>| {
            let url = self.url.clone();
            match source.downcast::<SecretError>() {
                Ok(source) => SourceError::Secret { url, doing, source: *source },
                Err(source) => SourceError::Unreachable { url, doing, source },
            }
        };
        let answer = self.node.send(HttpRequest { method, path, body, limit }).await.map_err(unreachable)?;
        match answer.body {
            Body::TooLarge(length) => Ok(Answer::TooLarge(length)),
            Body::Whole(body) if (200..300).contains(&answer.status) => Ok(Answer::Body(body)),
            Body::Whole(body) => Err(refusal(doing, answer.status, &body, index)),
        }
    }

    /// Asks again while the node answers only a part: a shard that moves is back in a moment.
    pub(crate) async fn until_whole<T, F: Future<Output = Result<T, SourceError>>>(
        &self,
        ask: impl FnMut() -> F,
    ) -> Result<T, SourceError> {
        let backoff = backoff(Duration::from_millis(300));
        ask.retry(backoff).sleep(self.waits()).when(|error| matches!(error, SourceError::PageIncomplete { .. })).await
    }

    fn waits(&self) -> impl Fn(Duration) -> BoxFuture<'static, ()> + use<> {
        let node = self.node.clone();
        move |time| {
            let node = node.clone();
            async move { node.wait(time).await }.boxed()
        }
    }
}

fn backoff(first: Duration) -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(Duration::from_secs(5))
        .with_max_times(5)
        .with_jitter()
}

/// The answer of a `min` over instants. One that no [`Timestamp`] can hold must not look like none at all.
fn earliest(reply: &Value) -> Option<Timestamp> {
    let millis = reply["aggregations"]["earliest"]["value"].as_f64()? as i64;
    Timestamp::from_millisecond(millis.max(Timestamp::MIN.as_millisecond())).ok()
}

/// Ids that are looked up at once: with each in nearly twenty indices they still fit into one result.
const IDS_AT_ONCE: usize = 500;
/// Hits of one answer (`index.max_result_window`).
pub(crate) const LARGEST_RESULT: usize = 10_000;

#[derive(Deserialize)]
pub(crate) struct NamedHit {
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_id")]
    id: String,
    #[serde(flatten)]
    written: Option<Written>,
    #[serde(default)]
    pub(crate) fields: HashMap<String, Vec<Value>>,
}

/// A document that a search found, without its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    pub document: Identity,
    /// The earliest instant that the index knows; none where no window reaches it.
    pub at: Option<Timestamp>,
    pub written: Option<Written>,
}

impl NamedHit {
    pub(crate) fn sighting(self) -> Sighting {
        let at = self.earliest().and_then(|millis| Timestamp::from_millisecond(millis).ok());
        let at = at.filter(|at| *at >= identity::instant::first());
        Sighting { document: Identity::new(self.index, self.id), at, written: self.written }
    }

    /// Milliseconds since 1970 of the earliest instant that the index knows.
    fn earliest(&self) -> Option<i64> {
        let instants = self.fields.get("timestamp")?.iter();
        instants.filter_map(|value| value.as_str().map_or_else(|| value.as_i64(), |text| text.parse().ok())).min()
    }
}

/// What a field is mapped as, in the indices behind a name.
#[derive(Deserialize)]
pub(crate) struct Capabilities {
    #[serde(default)]
    indices: Vec<String>,
    fields: HashMap<String, HashMap<String, Capability>>,
}

#[derive(Deserialize)]
struct Capability {
    /// Absent when all indices have this type.
    indices: Option<Vec<String>>,
}

impl Capabilities {
    /// The fields that hold `message_id` as a keyword, in one index or another.
    pub(crate) fn message_id(&self, index: &str) -> Result<Vec<&'static str>, SourceError> {
        let (timestamp, own, below) =
            (self.types("timestamp"), self.types("message_id"), self.types("message_id.keyword"));
        let names = |types: &BTreeMap<&str, Vec<String>>| types.keys().copied().collect::<Vec<_>>().join(" and ");
        let fault = |field, problem| SourceError::Mapping { index: index.to_owned(), field, problem };
        match names(&timestamp).as_str() {
            "date" => {}
            "" => return Err(fault("timestamp", "is not mapped; it must be a date".into())),
            other => return Err(fault("timestamp", format!("is mapped as {other}; it must be a date everywhere"))),
        }
        let keyword_below = below.get("keyword").filter(|_| below.len() == 1);
        let has_keyword_below = |index: &String| keyword_below.is_some_and(|indices| indices.contains(index));
        let searchable = own.iter().all(|(name, indices)| match *name {
            "keyword" => true,
            "text" => indices.iter().all(has_keyword_below),
            _ => false,
        });
        if own.is_empty() || !searchable {
            let found = if own.is_empty() { "nothing".to_owned() } else { names(&own) };
            let problem =
                format!("is mapped as {found}; it must be a keyword, or text with the sub-field message_id.keyword");
            return Err(fault("message_id", problem));
        }
        let keywords = [("message_id", own.contains_key("keyword")), ("message_id.keyword", own.contains_key("text"))];
        Ok(keywords.into_iter().filter(|(_, mapped)| *mapped).map(|(field, _)| field).collect())
    }

    fn lack_a_field(&self) -> bool {
        self.types("timestamp").is_empty() || self.types("message_id").is_empty()
    }

    /// The indices that do not map `message_id`.
    fn unmapped(&self) -> Vec<String> {
        self.of("message_id").remove("unmapped").unwrap_or_default()
    }

    /// The types of a field, where it is mapped, each with its indices.
    fn types(&self, field: &str) -> BTreeMap<&str, Vec<String>> {
        let mut types = self.of(field);
        types.remove("unmapped");
        types
    }

    fn of(&self, field: &str) -> BTreeMap<&str, Vec<String>> {
        let types = self.fields.get(field).into_iter().flatten();
        types
            .map(|(name, capability)| {
                (name.as_str(), capability.indices.clone().unwrap_or_else(|| self.indices.clone()))
            })
            .collect()
    }
}

/// Documents by stretches of time.
#[derive(Deserialize)]
pub(crate) struct CountsAnswer {
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: crate::page::Shards,
    aggregations: Aggregations,
}

#[derive(Deserialize)]
struct Aggregations {
    stretches: Stretches,
}

#[derive(Deserialize)]
struct Stretches {
    buckets: Vec<Stretch>,
}

#[derive(Deserialize)]
struct Stretch {
    key: i64,
    doc_count: u64,
}

impl CountsAnswer {
    pub(crate) fn buckets(
        self,
        from: Timestamp,
        to: Timestamp,
        interval: Interval,
    ) -> Result<Vec<Bucket>, SourceError> {
        self.shards.check(self.timed_out, None)?;
        // A document with a list of timestamps is also counted outside the range.
        let cut = |stretch: Stretch| alerts::window::plan::clip(stretch.key, interval, stretch.doc_count, from, to);
        Ok(self.aggregations.stretches.buckets.into_iter().filter_map(cut).collect())
    }
}

/// All documents whose timestamp lies in `[from, to)`.
pub(crate) fn range(from: Timestamp, to: Timestamp) -> Value {
    json!({"range": {"timestamp": {"gte": from.as_millisecond(), "lt": to.as_millisecond(), "format": "epoch_millis"}}})
}

/// In order of time, and of what tells documents of one instant apart. Without `_index` documents behind an alias are
/// lost: the other values repeat across indices. A new index has no mapping yet, and must not fail the whole search.
pub(crate) fn in_order(tiebreaker: &str) -> Value {
    json!([
        {"timestamp": {"order": "asc", "unmapped_type": "date"}},
        {tiebreaker: "asc"},
        {"_index": {"order": "asc", "unmapped_type": "keyword"}},
    ])
}

/// Reads an error answer. Only its type and reason are kept, and of the reason what quotes no value of a document.
pub(crate) fn refusal(doing: &'static str, status: u16, body: &[u8], index: &str) -> SourceError {
    let reply: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &reply["error"];
    let kinds = [&error["type"], &error["root_cause"][0]["type"], &error["caused_by"]["type"]];
    let is = |kind: &str| kinds.iter().any(|found| found.as_str() == Some(kind));
    let reason = error["root_cause"][0]["reason"].as_str().or(error["reason"].as_str()).unwrap_or("no reason given");
    let named: Vec<&str> =
        [&error["index"], &error["root_cause"][0]["index"]].into_iter().filter_map(Value::as_str).collect();
    let has_too_many_contexts = is("rejected_execution_exception") && reason.to_lowercase().contains("contexts");
    let reason = without_values(reason, &[named.as_slice(), &[index]].concat());
    if is("index_not_found_exception") {
        let index = error["index"].as_str().or(error["root_cause"][0]["index"].as_str()).unwrap_or(index).to_owned();
        return SourceError::IndexMissing { index };
    }
    if is("search_context_missing_exception")
        || String::from_utf8_lossy(body).contains("search_context_missing_exception")
    {
        return SourceError::PointInTimeExpired;
    }
    let kind = error["root_cause"][0]["type"].as_str().or(error["type"].as_str());
    // What a request is about may be an alias; an error names the very index.
    let index = named.first().copied().unwrap_or(index).to_owned();
    let reason = kind.map_or(reason.clone(), |kind| format!("{kind}: {reason}"));
    match status {
        429 if has_too_many_contexts => SourceError::Busy { doing, reason },
        429 | 500.. => SourceError::Unavailable { doing, status, reason },
        _ if is("index_closed_exception") => SourceError::IndexClosed { doing, index, status, reason },
        _ => SourceError::Rejected { doing, index, status, reason },
    }
}

/// Fields and types that a reason may name between quotes.
const NAMES: &[&str] = &[
    "_id",
    "_index",
    "_seq_no",
    "_shard_doc",
    "alerts.status",
    "message_id",
    "message_id.keyword",
    "timestamp",
    "date",
    "keyword",
    "long",
    "object",
    "text",
];
/// Characters that are kept of a reason.
const REASON: usize = 300;

/// A reason up to the first thing between quotes or brackets that is no known name: it may be a value of a document,
/// which must not come into a log.
pub(crate) fn without_values(reason: &str, names: &[&str]) -> String {
    let is_quote = |c: char| matches!(c, '\'' | '"' | '`' | '[' | '{');
    let (mut kept, mut rest) = (String::new(), reason);
    while let Some(start) = rest.find(is_quote) {
        let end = match rest.as_bytes()[start] {
            b'[' => ']',
            b'{' => '}',
            quote => quote as char,
        };
        let inside = &rest[start + 1..];
        let known = inside.find(end).filter(|end| NAMES.contains(&&inside[..*end]) || names.contains(&&inside[..*end]));
        // As in `field's`.
        let is_apostrophe = rest[start..].starts_with("'s ") && rest[..start].ends_with(char::is_alphanumeric);
        let taken = match known {
            _ if is_apostrophe => start + 1,
            Some(length) => start + 1 + length + 1,
            None => {
                kept.push_str(rest[..start].trim_end());
                kept.push_str(" …");
                return kept.chars().take(REASON).collect();
            }
        };
        kept.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    kept.push_str(rest);
    kept.chars().take(REASON).collect()
}

/// 7.10 is what any version calls itself in compatibility mode (`compatibility.override_main_response_version`): then
/// nothing is known of it, and the order that all versions have does.
fn is_from_3_3(number: &str) -> bool {
    let mut parts = number.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    version >= (3, 3) && version != (7, 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryNode;
    use errors::Named;
    use network::Calm;
    use runtime::ManualClock;

    /// As a node answers a search over an alias one of whose indices is closed.
    const CLOSED: &str = r#"{"error":{"root_cause":[{"type":"index_closed_exception","reason":"closed",
        "index":"messages-2024","index_uuid":"x"}],"type":"index_closed_exception","reason":"closed",
        "index":"messages-2024","index_uuid":"x"},"status":400}"#;

    #[test]
    fn a_closed_index_is_named_with_what_was_asked_and_what_the_source_said() {
        let error = refusal("open a point in time", 400, CLOSED.as_bytes(), "messages");
        let said = error.to_string();
        for part in ["open a point in time", "`messages-2024`", "status 400", "index_closed_exception: closed"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let advice = errors::advice(error.name().as_str());
        assert!(advice.contains("Open") && !advice.contains("role"), "{advice}");
    }

    #[test]
    fn refusals_get_the_names_that_operators_know() {
        for (status, body, name) in [
            (
                404,
                r#"{"error":{"type":"index_not_found_exception","index":"nope"},"status":404}"#,
                "SourceIndexMissing",
            ),
            (
                404,
                r#"{"error":{"type":"search_phase_execution_exception","root_cause":[{"type":"search_context_missing_exception"}]}}"#,
                "PointInTimeExpired",
            ),
            (429, r#"{"error":{"type":"circuit_breaking_exception"}}"#, "SourceUnavailable"),
            (
                429,
                r#"{"error":{"type":"rejected_execution_exception","reason":"Trying to create too many Point In Time contexts. Must be less than or equal to: [300]"}}"#,
                "SourceBusy",
            ),
            (503, "<html>", "SourceUnavailable"),
            (400, r#"{"error":{"type":"parsing_exception","reason":"x"}}"#, "SourceRejected"),
            (400, CLOSED, "SourceIndexClosed"),
            (403, "", "SourceRejected"),
        ] {
            assert_eq!(refusal("search", status, body.as_bytes(), "messages").name(), name, "{body}");
        }
    }

    #[test]
    fn the_first_message_may_lie_before_all_that_can_be_held() {
        let of = |value: Value| earliest(&json!({"aggregations": {"earliest": {"value": value}}}));
        assert_eq!(of(json!(1.7e12)), Timestamp::from_millisecond(1_700_000_000_000).ok());
        assert_eq!(of(json!(-9.2e18)), Timestamp::from_millisecond(Timestamp::MIN.as_millisecond()).ok());
        assert_eq!(of(Value::Null), None);
    }

    #[test]
    fn a_reason_goes_as_far_as_it_quotes_no_value_of_a_document() {
        for (reason, said) in [
            ("all shards failed", "all shards failed"),
            ("no such index [messages-2024]", "no such index [messages-2024]"),
            (
                "failed to parse field [timestamp] of type [date] in document with id 'MSG-1'. Preview of field's value: 'a ] b'",
                "failed to parse field [timestamp] of type [date] in document with id …",
            ),
            ("Preview of field's value: \"secret\"", "Preview of field's value: …"),
            ("failed to parse date field [Ann Miller] with format [x]", "failed to parse date field …"),
            ("Unrecognized token 'secret': was expecting", "Unrecognized token …"),
            ("unterminated [timestamp", "unterminated …"),
        ] {
            assert_eq!(without_values(reason, &["messages-2024"]), said);
        }
        let body = br#"{"error":{"type":"mapper_parsing_exception","reason":"value 'secret'"}}"#;
        assert!(!refusal("search", 400, body, "messages").to_string().contains("secret"));
    }

    #[tokio::test]
    async fn every_place_of_an_id_is_found_although_one_answer_cannot_hold_them() {
        let mut node = MemoryNode::new(Calm::shared(), ManualClock::at(Timestamp::UNIX_EPOCH));
        let ids: Vec<String> = (0..300).map(|n| format!("m-{n}")).collect();
        for index in (0..40).map(|n| format!("messages-{n:02}")) {
            node = node.alias("messages", &index);
            ids.iter().for_each(|id| node.put(&index, id, r#"{"timestamp":"2024-07-01"}"#));
        }
        let name = |name: &str| name.to_owned();
        let indices = Indices { messages: name("messages"), history: name("h"), audit: name("a") };
        let found = OpenSearch::over(node, indices).found(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(found.expect("found").len(), 300 * 40);
    }

    #[test]
    fn a_version_in_compatibility_mode_is_not_taken_for_a_new_one() {
        for (number, is_new) in
            [("3.3.0", true), ("3.10.1", true), ("4.0.0", true), ("3.2.9", false), ("7.10.2", false)]
        {
            assert_eq!(is_from_3_3(number), is_new, "{number}");
        }
    }
}
