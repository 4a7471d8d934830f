//! The source against a real OpenSearch node (OPENSEARCH_URL; `make test` starts one).

use alerts::window::plan::{Selection, Window};
use errors::Named;
use identity::{Identity, instant};
use serde_json::{Value, json};
use sources::{Auth, Document, Drain, Indices, OpenSearch, Related, SourceError, WrittenAfter};
use std::collections::{HashMap, HashSet};

fn url() -> String {
    std::env::var("OPENSEARCH_URL").expect(
        "OPENSEARCH_URL names a running OpenSearch: use `make test`, or eval \"$(make -s env)\" after `make up`",
    )
}

/// Indices of one test, gone when it ends well.
struct Bench {
    client: reqwest::Client,
    name: String,
}

impl Bench {
    async fn new(name: &str, indices: &[&str]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bench = Bench { client: reqwest::Client::new(), name: format!("adapter-{name}") };
        bench.wipe().await;
        for index in indices {
            let properties = json!({"message_id": {"type": "keyword"}, "timestamp": {"type": "date", "format": "strict_date_optional_time||epoch_millis"}});
            let body = json!({
                "settings": {"number_of_shards": 2, "number_of_replicas": 0, "refresh_interval": "-1"},
                "mappings": {"dynamic": false, "properties": properties},
                "aliases": {&bench.name: {}},
            });
            bench.call(reqwest::Method::PUT, &format!("{}-{index}", bench.name), body.to_string().into()).await;
        }
        bench
    }

    async fn wipe(&self) {
        let names = format!("_cat/indices/{}-*?h=index&format=json", self.name);
        let listed = self.call(reqwest::Method::GET, &names, Vec::new()).await;
        for index in listed.as_array().expect("a list") {
            self.call(reqwest::Method::DELETE, index["index"].as_str().expect("a name"), Vec::new()).await;
        }
    }

    async fn call(&self, method: reqwest::Method, path: &str, body: Vec<u8>) -> Value {
        let request = self
            .client
            .request(method, format!("{}/{path}", url()))
            .header("content-type", "application/x-ndjson")
            .body(body);
        let mut attempt = 1;
        loop {
            let answer = request.try_clone().expect("bytes").send().await.expect("OpenSearch answers");
            let status = answer.status();
            let body: Value = serde_json::from_slice(&answer.bytes().await.expect("body")).unwrap_or_default();
            // A node whose memory is short for a moment, as after other tests, says so and asks to come back.
            if status == reqwest::StatusCode::TOO_MANY_REQUESTS && attempt < 60 {
                attempt += 1;
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                continue;
            }
            assert!(status.is_success() && body["errors"] != json!(true), "{path}: {status}: {body}");
            return body;
        }
    }

    async fn load(&self, documents: &[(&str, &str, &[u8])]) {
        for batch in documents.chunks(2000) {
            let mut body = Vec::new();
            for (index, id, source) in batch {
                body.extend(
                    format!("{}\n", json!({"index": {"_index": format!("{}-{index}", self.name), "_id": id}})).bytes(),
                );
                body.extend_from_slice(source);
                body.push(b'\n');
            }
            self.call(reqwest::Method::POST, "_bulk", body).await;
        }
        self.call(reqwest::Method::POST, &format!("{}/_refresh", self.name), Vec::new()).await;
    }

    fn source(&self) -> OpenSearch {
        let indices = Indices { messages: self.name.clone(), history: self.name.clone(), audit: self.name.clone() };
        let aws = aws_config::SdkConfig::builder().build();
        OpenSearch::connect(&url(), Auth::None, &aws, indices).expect("a URL")
    }
}

fn window(from: &str, to: &str) -> Window {
    Window::new(instant::parse(from).expect("from"), instant::parse(to).expect("to"), 0)
}

async fn drain(source: &OpenSearch, window: &Window) -> (Vec<Document>, u64) {
    let mut drain = Drain::open(source, window).await.expect("opened");
    drain.count().await.expect("counted");
    let mut documents = Vec::new();
    loop {
        let page = drain.next_page().await.expect("page");
        if page.is_empty() {
            break;
        }
        documents.extend(page);
    }
    let matched = drain.cursor().matched;
    drain.close().await;
    (documents, matched)
}

#[tokio::test]
async fn ids_and_instants_that_repeat_across_three_indices_all_arrive_once_and_in_order() {
    let bench = Bench::new("alias", &["a", "b", "c"]).await;
    // One instant for all: what tells two documents apart is then the shard document, which repeats, and the index.
    let body = |n: usize| format!(r#"{{"message_id":"id-{}","timestamp":"2024-07-01T00:00:00Z"}}"#, n / 3);
    let sources: Vec<_> = (0..900).map(|n| (["a", "b", "c"][n % 3], format!("id-{}", n / 3), body(n))).collect();
    bench
        .load(&sources.iter().map(|(index, id, source)| (*index, id.as_str(), source.as_bytes())).collect::<Vec<_>>())
        .await;
    let (documents, matched) = drain(&bench.source(), &window("2024-07-01", "2024-07-02")).await;
    let identities: HashSet<_> =
        documents.iter().map(|document| (document.hit.index.clone(), document.hit.id.clone())).collect();
    assert_eq!((documents.len(), identities.len(), matched), (900, 900, 900));
    assert!(documents.is_sorted_by_key(|document| document.at));
    bench.wipe().await;
}

#[tokio::test]
async fn windows_are_half_open_to_the_millisecond() {
    let bench = Bench::new("edges", &["a"]).await;
    let at = |text: &str| format!(r#"{{"timestamp":"{text}"}}"#).into_bytes();
    let documents = [
        ("before", "2024-06-30T23:59:59.999Z"),
        ("from", "2024-07-01T00:00:00.000Z"),
        ("last", "2024-07-01T23:59:59.999Z"),
        ("to", "2024-07-02T00:00:00.000Z"),
    ];
    let documents: Vec<_> = documents.iter().map(|(id, text)| (*id, at(text))).collect();
    bench.load(&documents.iter().map(|(id, source)| ("a", *id, source.as_slice())).collect::<Vec<_>>()).await;
    let (found, _) = drain(&bench.source(), &window("2024-07-01", "2024-07-02")).await;
    assert_eq!(found.iter().map(|document| document.hit.id.as_str()).collect::<Vec<_>>(), ["from", "last"]);
    bench.wipe().await;
}

#[tokio::test]
async fn documents_that_are_no_json_are_isolated_with_their_bytes_and_the_others_arrive() {
    let bench = Bench::new("broken", &["a"]).await;
    let comment: &[u8] = br#"{"timestamp":"2024-07-01T00:00:03Z" /* a note */ }"#;
    let overlong: &[u8] = b"{\"timestamp\":\"2024-07-01T00:00:07Z\",\"x\":\"\xc0\x80\"}";
    let fine: Vec<_> = (0..40)
        .map(|n| (format!("fine-{n}"), format!(r#"{{ "timestamp":"2024-07-01T00:00:{:02}Z","n":1.0}}"#, n % 10)))
        .collect();
    let mut documents: Vec<(&str, &str, &[u8])> =
        fine.iter().map(|(id, source)| ("a", id.as_str(), source.as_bytes())).collect();
    documents.push(("a", "comment / with slash", comment));
    documents.push(("a", "..", comment));
    let client = &bench;
    client.load(&documents).await;
    // Whether OpenSearch takes overlong UTF-8 depends on its version: where it does, it must be isolated as well.
    let path = format!("{}/{}-a/_doc/overlong?refresh=true", url(), bench.name);
    let taken = bench
        .client
        .put(path)
        .header("content-type", "application/json")
        .body(overlong.to_vec())
        .send()
        .await
        .expect("answer")
        .status()
        .is_success();
    let (found, matched) = drain(&bench.source(), &window("2024-07-01", "2024-07-02")).await;
    assert_eq!((found.len() as u64, matched), (42 + u64::from(taken), 42 + u64::from(taken)));
    let bytes_of =
        |id: &str| found.iter().find(|document| document.hit.id == id).map(|document| document.hit.source.to_vec());
    assert_eq!(bytes_of("comment / with slash").as_deref(), Some(comment));
    assert_eq!(bytes_of("..").as_deref(), Some(comment));
    assert_eq!(bytes_of("fine-7").as_deref(), Some(fine[7].1.as_bytes()));
    if taken {
        assert_eq!(bytes_of("overlong").as_deref(), Some(overlong));
    }
    bench.wipe().await;
}

#[tokio::test]
async fn excluded_documents_come_by_themselves_unread_and_in_no_page() {
    let bench = Bench::new("left-out", &["a", "b"]).await;
    let broken: &[u8] = br#"{"timestamp":"2024-07-01T00:00:03Z" /* a note */ }"#;
    let fine: &[u8] = br#"{ "timestamp":"2024-07-01T00:00:04Z","n":1.0}"#;
    bench
        .load(&[("a", "poison", broken), ("b", "poison", fine), ("a", "other / one", fine), ("b", "last", fine)])
        .await;
    let identity = |index: &str, id: &str| Identity::new(format!("{}-{index}", bench.name), id);
    let excluded = HashSet::from([identity("a", "poison"), identity("a", "other / one"), identity("b", "nowhere")]);
    let source = bench.source();
    let mut drain = Drain::open(&source, &window("2024-07-01", "2024-07-02")).await.expect("opened");
    drain.count().await.expect("counted");
    drain.exclude(&excluded).await.expect("excluded");
    let mut handed_out = Vec::new();
    while let Some(document) = drain.next_excluded().await.expect("its bytes") {
        handed_out.push((document.hit.identity(), document.hit.source.to_vec()));
    }
    assert_eq!(handed_out, [(identity("a", "poison"), broken.to_vec()), (identity("a", "other / one"), fine.to_vec())]);
    // The same in another process: what is excluded does not come back.
    let cursor = serde_json::from_value(serde_json::to_value(drain.cursor()).expect("json")).expect("cursor");
    let mut drain = Drain::resume(&source, &window("2024-07-01", "2024-07-02"), cursor);
    assert!(drain.next_excluded().await.expect("nothing").is_none());
    let mut ids: Vec<_> =
        drain.next_page().await.expect("page").into_iter().map(|document| document.hit.identity()).collect();
    ids.sort();
    assert_eq!(ids, [identity("b", "last"), identity("b", "poison")]);
    assert!(drain.next_page().await.expect("end").is_empty());
    assert_eq!((drain.cursor().seen, drain.cursor().matched), (4, 4));
    drain.close().await;
    let mut places: Vec<_> =
        source.places_of("poison").await.expect("places").into_iter().map(|(index, _)| index).collect();
    places.sort();
    assert_eq!(places, [identity("a", "").source_index, identity("b", "").source_index]);
    bench.wipe().await;
}

#[tokio::test]
async fn a_window_may_name_documents_and_what_was_written_is_listed_by_name() {
    let bench = Bench::new("selection", &["a", "b"]).await;
    let bodies: Vec<Vec<u8>> =
        (0..8).map(|second| format!(r#"{{"timestamp":"2024-07-01T00:00:0{second}Z"}}"#).into_bytes()).collect();
    let ids = ["one", "two", "three", "four", "five", "six", "seven", "eight"];
    let documents =
        ids.iter().zip(&bodies).flat_map(|(id, body)| [("a", *id, body.as_slice()), ("b", *id, body.as_slice())]);
    bench.load(&documents.collect::<Vec<_>>()).await;
    let identity = |index: &str, id: &str| Identity::new(format!("{}-{index}", bench.name), id);
    let source = bench.source();
    let selected = async |selection: Selection| {
        let mut drain =
            Drain::open(&source, &Window { selection, ..window("2024-07-01", "2024-07-02") }).await.expect("opened");
        drain.count().await.expect("counted");
        let mut found = Vec::new();
        loop {
            let page = drain.next_page().await.expect("page");
            if page.is_empty() {
                break;
            }
            found.extend(page.into_iter().map(|document| document.hit.identity()));
        }
        assert_eq!(drain.cursor().matched, found.len() as u64);
        found
    };
    let named = vec![identity("a", "one"), identity("b", "nine"), identity("a", "three")];
    assert_eq!(selected(Selection::Identities(named)).await, [identity("a", "one"), identity("a", "three")]);
    // What was written is listed by shard, and each document's last write is told by name.
    let index = identity("a", "").source_index;
    let writes = source.writes(&index).await.expect("numbers").remove(0);
    assert!(writes.uuid.contains('@'), "the histories of its shards are told: {}", writes.uuid);
    let mut listed = Vec::new();
    for (shard, up_to) in &writes.shards {
        let (name, index, message_fields) = (index.as_str(), index.as_str(), &[][..]);
        let all = WrittenAfter { name, index, shard, above: -1, up_to: *up_to, before: None, message_fields };
        let none = WrittenAfter { above: *up_to, ..all };
        assert!(source.written_after(none).await.expect("a page").is_empty());
        let page = source.written_after(all).await.expect("a page");
        assert!(page.is_sorted_by_key(|write| write.seq_no), "{page:?}");
        listed
            .extend(page.into_iter().map(|write| (write.sighting.document, write.sighting.written.expect("a write"))));
    }
    let documents: Vec<Identity> = ids.iter().map(|id| identity("a", id)).collect();
    let asked = [documents.as_slice(), &[identity("a", "nine"), identity("gone", "one")]].concat();
    let by_name = source.written(&asked).await.expect("looked up");
    assert_eq!((by_name.len(), listed.into_iter().collect::<HashMap<_, _>>()), (8, by_name));
    assert!(source.refresh(&index).await.expect("refreshed"));
}

#[tokio::test]
async fn a_drain_goes_on_in_another_process_and_an_expired_point_in_time_is_named() {
    let bench = Bench::new("resume", &["a", "b"]).await;
    let sources: Vec<_> =
        (0..700).map(|n| (["a", "b"][n % 2], format!("id-{n}"), r#"{"timestamp":"2024-07-01T00:00:00Z"}"#)).collect();
    bench
        .load(&sources.iter().map(|(index, id, source)| (*index, id.as_str(), source.as_bytes())).collect::<Vec<_>>())
        .await;
    let (source, window) = (bench.source(), window("2024-07-01", "2024-07-02"));
    let mut first = Drain::open(&source, &window).await.expect("opened");
    let mut seen: Vec<String> =
        first.next_page().await.expect("page").into_iter().map(|document| document.hit.id).collect();
    let cursor = serde_json::from_value(serde_json::to_value(first.cursor()).expect("json")).expect("cursor");
    first.leave().await.expect("left");
    let mut second = Drain::resume(&source, &window, cursor);
    loop {
        let page = second.next_page().await.expect("page");
        if page.is_empty() {
            break;
        }
        seen.extend(page.into_iter().map(|document| document.hit.id));
    }
    let different: HashSet<_> = seen.iter().collect();
    assert_eq!((seen.len(), different.len()), (700, 700));
    let cursor = second.cursor().clone();
    second.close().await;
    let expired = Drain::resume(&source, &window, cursor).next_page().await.expect_err("it is closed");
    assert_eq!(expired.name(), "PointInTimeExpired");
    bench.wipe().await;
}

#[tokio::test]
async fn related_documents_come_in_order_of_time_index_and_id() {
    let bench = Bench::new("related", &["a", "b"]).await;
    let body = |id: &str, at: u32, n: u32| {
        format!(r#"{{"message_id":"{id}","timestamp":"2024-07-01T00:00:{at:02}Z","n":{n}}}"#)
    };
    let documents = [
        ("b", "1", body("m1", 5, 1)),
        ("a", "2", body("m1", 5, 2)),
        ("a", "1", body("m1", 5, 3)),
        ("a", "0", body("m1", 9, 4)),
        ("b", "9", body("m1", 1, 5)),
        ("a", "x", body("m2", 1, 6)),
    ];
    bench.load(&documents.iter().map(|(index, id, source)| (*index, *id, source.as_bytes())).collect::<Vec<_>>()).await;
    let broken = br#"{"message_id":"m3","timestamp":"2024-07-01T00:00:00Z" /* note */}"#;
    bench.load(&[("a", "broken", broken)]).await;
    let source = bench.source();
    let mut related = Related::open(&source, &bench.name).await.expect("opened");
    let found = related.of(&["m1", "m2", "m3", "absent"]).await.expect("found");
    let order: Vec<u64> = found.bodies["m1"]
        .iter()
        .map(|body| serde_json::from_slice::<Value>(body).expect("json")["n"].as_u64().expect("n"))
        .collect();
    assert_eq!(order, [5, 3, 2, 1, 4]);
    assert_eq!(found.bodies["m2"].len(), 1);
    assert!(found.unreadable.contains("m3") && !found.bodies.contains_key("m3"));
    bench.wipe().await;
}

/// Searches that the shards of a test's indices have answered.
async fn searches(bench: &Bench) -> u64 {
    let stats = bench.call(reqwest::Method::GET, &format!("{}/_stats/search", bench.name), Vec::new()).await;
    stats["_all"]["total"]["search"]["query_total"].as_u64().expect("a number")
}

/// What belongs to all of these, asked for as messages come in pages: few at first.
async fn all_related(related: &mut Related, ids: &[String]) -> HashMap<String, Vec<String>> {
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let (first, others) = ids.split_at(ids.len().min(25));
    let mut all = HashMap::new();
    for mut left in [first, others] {
        while !left.is_empty() {
            let found = related.of(left).await.expect("found");
            assert!(found.unreadable.is_empty() && found.too_large.is_empty());
            let texts = |body: &bytes::Bytes| String::from_utf8_lossy(body).into_owned();
            all.extend(found.bodies.into_iter().map(|(id, bodies)| (id, bodies.iter().map(texts).collect())));
            left = &left[found.messages..];
        }
    }
    all
}

/// Messages, and documents in two indices that belong to them: `of` says how many to each. By message in the order that
/// is expected.
async fn with_trail(
    bench: &Bench,
    messages: usize,
    of: fn(usize) -> usize,
) -> (Vec<String>, HashMap<String, Vec<String>>) {
    let ids: Vec<String> = (0..messages).map(|n| format!("m-{n}")).collect();
    let mut documents = Vec::new();
    for (n, message_id) in ids.iter().enumerate() {
        for part in 0..of(n) {
            let timestamp = format!("2024-07-01T00:00:{:02}Z", (part * 7) % 60);
            let body = json!({"message_id": message_id, "timestamp": timestamp, "part": part}).to_string();
            documents.push((timestamp, ["a", "b"][(n + part) % 2], format!("{n}-{part:03}"), message_id, body));
        }
    }
    bench
        .load(
            &documents.iter().map(|(_, index, id, _, body)| (*index, id.as_str(), body.as_bytes())).collect::<Vec<_>>(),
        )
        .await;
    documents.sort();
    let mut expected: HashMap<String, Vec<String>> = HashMap::new();
    for (.., message_id, body) in documents {
        expected.entry(message_id.clone()).or_default().push(body);
    }
    (ids, expected)
}

#[tokio::test]
async fn the_history_of_five_hundred_messages_is_one_search_after_the_first() {
    let bench = Bench::new("few-searches", &["a", "b"]).await;
    // 0 to 14 documents each: 3,675 in all, more than the first search may give.
    let (ids, expected) = with_trail(&bench, 525, |n| n % 15).await;
    let mut related = Related::open(&bench.source(), &bench.name).await.expect("opened");
    let before = searches(&bench).await;
    assert_eq!(all_related(&mut related, &ids).await, expected);
    let shards = 4;
    assert_eq!((searches(&bench).await - before) / shards, 2, "25 messages, then 500");
    bench.wipe().await;
}

#[tokio::test]
async fn more_history_of_many_messages_than_answers_hold_is_paged_through_and_none_is_missed() {
    let bench = Bench::new("many-pages", &["a", "b"]).await;
    // The first 25 have 6 each; of the others each has 25 and one has 4,000: 19,500 in all.
    let (ids, expected) = with_trail(&bench, 640, |n| match n {
        ..25 => 6,
        333 => 4000,
        _ => 25,
    })
    .await;
    let mut related = Related::open(&bench.source(), &bench.name).await.expect("opened");
    let found = all_related(&mut related, &ids).await;
    assert!(found == expected, "{} of {}", found.values().map(Vec::len).sum::<usize>(), 25 * 6 + 4000 + 614 * 25);
    bench.wipe().await;
}

#[tokio::test]
async fn a_thousand_ids_that_a_keyword_leaves_out_are_looked_for_at_once() {
    let bench = Bench::new("long-ids", &[]).await;
    let settings = json!({"aliases": {&bench.name: {}}});
    bench.call(reqwest::Method::PUT, &format!("{}-a", bench.name), settings.to_string().into()).await;
    let ids: Vec<String> = (0..1700).map(|n| format!("{} number {n}", "long ".repeat(60))).collect();
    let body = |id: &String| json!({"message_id": id, "timestamp": "2024-07-01T00:00:00Z"}).to_string();
    let bodies: Vec<(String, String)> = ids.iter().enumerate().map(|(n, id)| (n.to_string(), body(id))).collect();
    bench.load(&bodies.iter().map(|(id, body)| ("a", id.as_str(), body.as_bytes())).collect::<Vec<_>>()).await;
    let mut related = Related::open(&bench.source(), &bench.name).await.expect("opened");
    let expected = ids.iter().map(|id| (id.clone(), vec![body(id)])).collect();
    assert!(all_related(&mut related, &ids).await == expected);
    bench.wipe().await;
}

#[tokio::test]
async fn related_documents_are_found_in_indices_that_are_mapped_differently() {
    let bench = Bench::new("mixed", &["a"]).await;
    // As OpenSearch maps a text by itself, a keyword that is folded, and a new index without any mapping.
    let folded = json!({"settings": {"analysis": {"normalizer": {"lower": {"type": "custom", "filter": ["lowercase"]}}}},
        "mappings": {"properties": {"timestamp": {"type": "date"}, "message_id": {"type": "keyword", "normalizer": "lower"}}}});
    for (index, settings) in [("dynamic", json!({})), ("folded", folded), ("empty", json!({}))] {
        bench.call(reqwest::Method::PUT, &format!("{}-{index}", bench.name), settings.to_string().into()).await;
        let action = json!({"actions": [{"add": {"index": format!("{}-{index}", bench.name), "alias": bench.name}}]});
        bench.call(reqwest::Method::POST, "_aliases", action.to_string().into()).await;
    }
    let long = format!("Long {}", "x/".repeat(250));
    let body = |id: &str| json!({"message_id": id, "timestamp": "2024-07-01T00:00:00Z"}).to_string();
    let both = json!({"message_id": ["Some-1", long]}).to_string();
    let documents = [
        ("a", "1", body("Some-1")),
        ("dynamic", "2", body("Some-1")),
        ("folded", "3", body("Some-1")),
        ("folded", "4", body("SOME-1")),
        ("dynamic", "5", body("some 1")),
        ("dynamic", "6", body(&long)),
        ("dynamic", "7", body(&format!("{long} more"))),
        ("dynamic", "8", both.clone()),
    ];
    bench.load(&documents.iter().map(|(index, id, source)| (*index, *id, source.as_bytes())).collect::<Vec<_>>()).await;
    let source = bench.source();
    assert_eq!(
        source.check_mapping(&format!("{}-empty", bench.name)).await.expect("nothing is in it").keywords,
        Vec::<&str>::new()
    );
    let mut related = Related::open(&source, &bench.name).await.expect("opened");
    let found = related.of(&["Some-1", &long]).await.expect("found");
    let texts =
        |id: &str| found.bodies[id].iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect::<Vec<_>>();
    assert_eq!(texts("Some-1"), [body("Some-1"), body("Some-1"), body("Some-1"), both.clone()]);
    assert_eq!(texts(&long), [body(&long), both]);
    bench.wipe().await;
}

#[tokio::test]
async fn an_instant_that_no_calendar_reaches_disturbs_no_other_document() {
    let bench = Bench::new("reach", &["a", "empty"]).await;
    let documents = [
        ("fine", r#"{"timestamp":"2024-07-01"}"#),
        ("far-too", r#"{"timestamp":["2024-07-01",1719792000000000]}"#),
        ("micros", r#"{"timestamp":1719792000000000}"#),
        ("last-day", r#"{"timestamp":"9999-12-31T23:59:59Z"}"#),
        ("before-too", r#"{"timestamp":["2024-07-01",-900000000000000]}"#),
        ("missing", "{}"),
    ];
    bench.load(&documents.map(|(id, source)| ("a", id, source.as_bytes()))).await;
    let source = bench.source();
    let (from, to) = (instant::parse("2024-01-01").expect("from"), instant::parse("2025-01-01").expect("to"));
    let buckets = source.histogram(from, to, alerts::window::plan::Interval::Day).await.expect("counted");
    assert_eq!(
        buckets.iter().map(|bucket| (instant::date(bucket.from), bucket.count)).collect::<Vec<_>>(),
        [("2024-07-01".to_owned(), 3)]
    );
    let (found, matched) = drain(&source, &window("2024-07-01", "2024-07-02")).await;
    let own: HashSet<_> =
        found.iter().filter(|document| from <= document.at).map(|document| document.hit.id.as_str()).collect();
    assert_eq!((own, matched), (HashSet::from(["fine", "far-too"]), 3));
    assert_eq!(source.foreign(window("2024-07-01", "2024-07-02").from, to).await.expect("counted"), 1);
    assert_eq!(source.undated().await.expect("counted"), 4);
    bench.wipe().await;
}

#[tokio::test]
async fn a_missing_index_and_an_unusable_mapping_are_named() {
    let bench = Bench::new("mapping", &["a"]).await;
    let source = bench.source();
    assert_eq!(source.check_mapping("adapter-no-such-index").await.expect_err("missing").name(), "SourceIndexMissing");
    assert_eq!(source.check_mapping(&bench.name).await.expect("usable").keywords, ["message_id"]);
    let text = json!({"mappings": {"properties": {"timestamp": {"type": "date"}, "message_id": {"type": "text", "fields": {"keyword": {"type": "keyword"}}}}}});
    bench.call(reqwest::Method::PUT, &format!("{}-text", bench.name), text.to_string().into()).await;
    assert_eq!(
        source.check_mapping(&format!("{}-text", bench.name)).await.expect("usable").keywords,
        ["message_id.keyword"]
    );
    let long = json!({"mappings": {"properties": {"timestamp": {"type": "date"}, "message_id": {"type": "long"}}}});
    bench.call(reqwest::Method::PUT, &format!("{}-long", bench.name), long.to_string().into()).await;
    let fault = source.check_mapping(&format!("{}-long", bench.name)).await.expect_err("unusable");
    assert!(matches!(fault, SourceError::Mapping { field: "message_id", .. }), "{fault}");
    bench.wipe().await;
}

#[tokio::test]
async fn a_source_that_is_down_is_named_after_bounded_tries() {
    let indices = Indices { messages: "m".into(), history: "h".into(), audit: "a".into() };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let source =
        OpenSearch::connect("http://127.0.0.1:9", Auth::None, &aws_config::SdkConfig::builder().build(), indices)
            .expect("a URL");
    assert_eq!(source.undated().await.expect_err("nobody listens").name(), "SourceUnavailable");
}

#[tokio::test]
async fn the_history_of_one_message_that_fills_no_single_answer_is_paged_through_in_order() {
    let bench = Bench::new("paged", &["a", "b"]).await;
    let body = |n: u64| json!({"message_id": "m", "timestamp": "2024-07-01T00:00:00Z", "n": n}).to_string();
    let documents: Vec<(&str, String, String)> =
        (0..2500).map(|n| (if n % 2 == 0 { "a" } else { "b" }, format!("{n:04}"), body(n))).collect();
    for part in documents.chunks(500) {
        bench
            .load(&part.iter().map(|(index, id, body)| (*index, id.as_str(), body.as_bytes())).collect::<Vec<_>>())
            .await;
    }
    let mut related = Related::open(&bench.source(), &bench.name).await.expect("opened");
    let found = related.of(&["m"]).await.expect("found");
    let expected: Vec<String> = (0..2500).step_by(2).chain((1..2500).step_by(2)).map(body).collect();
    let texts: Vec<String> = found.bodies["m"].iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect();
    assert_eq!(texts, expected, "by instant, index and id");
    bench.wipe().await;
}

#[tokio::test]
async fn one_id_under_several_routings_is_told_apart_by_them() {
    let bench = Bench::new("routed", &["a"]).await;
    let body = json!({"message_id": "m", "timestamp": "2024-07-01T00:00:00Z"}).to_string();
    for routing in ["left", "right", "else", "more"] {
        let path = format!("{}-a/_doc/m?routing={routing}&refresh=true", bench.name);
        bench.call(reqwest::Method::PUT, &path, body.clone().into()).await;
    }
    let (source, day) = (bench.source(), window("2024-07-01", "2024-07-02"));
    let mut drain = Drain::open(&source, &day).await.expect("opened");
    drain.count().await.expect("counted");
    let page = drain.next_page().await.expect("a page");
    let mut ids: Vec<String> = page.iter().map(|document| document.hit.id.clone()).collect();
    ids.sort();
    drain.close().await;
    // On one shard they replace each other: each of the two shards keeps one.
    assert!(ids.len() > 1 && ids.iter().all(|id| id.starts_with("m (routing ")), "{ids:?}");
    bench.wipe().await;
}

#[tokio::test]
async fn what_belongs_to_an_id_that_a_keyword_alone_leaves_out_is_found_by_its_body() {
    let bench = Bench::new("left-out", &[]).await;
    let message_id = json!({"type": "keyword", "ignore_above": 20});
    let mapping = json!({
        "settings": {"number_of_shards": 2, "number_of_replicas": 0},
        "mappings": {"properties": {"message_id": message_id, "timestamp": {"type": "date"}}},
        "aliases": {&bench.name: {}},
    });
    bench.call(reqwest::Method::PUT, &format!("{}-a", bench.name), mapping.to_string().into()).await;
    let long = |n: u32| format!("{}-{n}", "m".repeat(30));
    let body = |id: &str| json!({"message_id": id, "timestamp": "2024-07-01T00:00:00Z"}).to_string();
    let ids = [long(1), long(2), "short".to_owned()];
    let bodies: Vec<String> = ids.iter().map(|id| body(id)).collect();
    let documents: Vec<_> = ids.iter().zip(&bodies).map(|(id, body)| ("a", id.as_str(), body.as_bytes())).collect();
    bench.load(&documents).await;
    let mut related = Related::open(&bench.source(), &bench.name).await.expect("opened");
    let found = related.of(&[&ids[0], "short"]).await.expect("found");
    for (id, body) in [(&ids[0], &bodies[0]), (&ids[2], &bodies[2])] {
        assert_eq!(found.bodies[id.as_str()], [body.as_bytes()], "{id}");
    }
    assert_eq!(found.bodies.len(), 2, "and of no other");
    bench.wipe().await;
}
