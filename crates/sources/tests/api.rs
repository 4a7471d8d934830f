//! The API's client against the fixture API, in one process: what must arrive arrives, and what cannot has a name.

use async_trait::async_trait;
use errors::{Name, Named};
use fixtures::api::{Fault, Harm, Message, Retry, Secret, Server, Settings};
use jiff::{SignedDuration, Timestamp};
use runtime::{Call, SystemClock};
use sources::{
    ReadSecret, SecretError,
    api::{Api, ApiError, Element, Granted, Listing, OwnPace, Pace, TimeRange, Turns},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::task::JoinSet;

const TOKEN: &str = "token-of-the-tests";

/// Stands for Secrets Manager: its value, and how often it was read.
#[derive(Default)]
struct Held(Mutex<(String, u32)>);

impl Held {
    fn set(&self, value: &str) {
        self.0.lock().expect("lock").0 = value.to_owned();
    }

    fn reads(&self) -> u32 {
        self.0.lock().expect("lock").1
    }
}

#[async_trait]
impl ReadSecret for Held {
    async fn read(&self) -> Result<String, SecretError> {
        let mut held = self.0.lock().expect("lock");
        held.1 += 1;
        Ok(held.0.clone())
    }
}

struct Try {
    server: Server,
    secret: Arc<Held>,
    api: Api,
}

async fn start(page_size: u64) -> Try {
    with_secret(page_size, Secret::Token { token: TOKEN.into() }).await
}

async fn with_secret(page_size: u64, secret: Secret) -> Try {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), secret.clone(), Settings::default())
        .await
        .expect("a server");
    let held = Arc::new(Held::default());
    let mut value = serde_json::json!(secret);
    if matches!(secret, Secret::Client { .. }) {
        value["token_url"] = format!("{}/token", server.url).into();
    }
    held.set(&value.to_string());
    let api =
        Api::connect(&server.url, page_size, held.clone(), Turns::new(Box::new(OwnPace::new(5000)))).expect("an API");
    Try { server, secret: held, api }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

fn span() -> TimeRange {
    TimeRange { from: at("2026-10-01T00:00:00Z"), to: at("2026-11-01T00:00:00Z") }
}

/// A call that has a minute.
fn soon() -> Call {
    within(Duration::from_secs(60))
}

fn within(time: Duration) -> Call {
    Call::new(SystemClock::shared(), time)
}

/// Messages of different lengths, with bytes that only a copy keeps.
fn messages(count: usize) -> Vec<Message> {
    let message = |number: usize| {
        let at = span().from + SignedDuration::from_secs(number as i64);
        let blank = " ".repeat(number % 7);
        let source = format!(
            "{{ \"message_id\":\"m-{number:05}\",{blank}\"timestamp\" : \"{at:.3}\",\"n\":9007199254740993.0,\"t\":\"\\u00e9\\ud800 é\" }}"
        );
        Message { at: at.as_millisecond(), id: format!("m-{number:05}"), source: source.into_bytes() }
    };
    (0..count).map(message).collect()
}

impl Try {
    fn load(&self, messages: &[Message]) {
        messages.iter().for_each(|message| self.server.state.messages().put(message.clone()));
    }

    fn arm(&self, faults: impl IntoIterator<Item = Fault>) {
        self.server.state.arm(faults);
    }

    async fn list(&self) -> Result<Vec<Element>, ApiError> {
        let mut listing = Listing::new(&self.api, span(), &soon());
        let mut all = Vec::new();
        while let Some(page) = listing.next_page().await? {
            all.extend(page);
        }
        Ok(all)
    }

    async fn fails_with(&self, what: &str) -> (Name, String) {
        let error = self.list().await.expect_err(what);
        (error.name(), errors::describe(&error))
    }
}

/// Byte for byte, in order, each once.
fn assert_same(arrived: &[Element], expected: &[Message]) {
    assert_eq!(arrived.len(), expected.len());
    for (element, message) in arrived.iter().zip(expected) {
        assert_eq!((&element.id, element.source.as_ref()), (&message.id, message.source.as_slice()));
        assert_eq!(element.at.map(Timestamp::as_millisecond), Some(message.at));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_arrives_once_and_byte_for_byte() {
    for (count, page_size) in [(0, 500), (1, 1), (7, 3), (100, 100), (101, 100), (230, 9)] {
        let one = start(page_size).await;
        let expected = messages(count);
        one.load(&expected);
        assert_same(&one.list().await.expect("whole"), &expected);
        assert_eq!(one.api.count(span(), &soon()).await.expect("a count"), count as u64);
        let asked = one.server.state.take_asked();
        assert_eq!(asked.len(), count.div_ceil(page_size as usize).max(1) + 1, "no page is asked for twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_in_passing_is_tried_again() {
    let html = Harm::ContentType { content_type: "text/html".into() };
    for harm in [
        Harm::Status { status: 429, retry_after: None },
        Harm::Status { status: 429, retry_after: Some(Retry::Seconds(0)) },
        Harm::Status { status: 500, retry_after: None },
        Harm::Status { status: 502, retry_after: None },
        Harm::Status { status: 503, retry_after: Some(Retry::Date(0)) },
        Harm::Slow { millis: 50 },
        Harm::HangUp,
        Harm::Cut,
        Harm::NotJson,
        Harm::Empty,
        Harm::LoginPage,
        html,
        Harm::Tell { body: r#"{"messages":[]}"#.into() },
    ] {
        let one = start(10).await;
        let expected = messages(45);
        one.load(&expected);
        one.arm([harm.clone().on_page(1, 1), harm.clone().on_page(3, 2)]);
        let arrived = one.list().await.unwrap_or_else(|error| panic!("{harm:?}: {}", errors::describe(&error)));
        assert_same(&arrived, &expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stays_wrong_ends_with_its_name_and_never_as_an_empty_page() {
    let mut cases = JoinSet::new();
    for (harm, name, requests) in [
        (Harm::Status { status: 429, retry_after: None }, Name::SourceUnavailable, 6),
        (Harm::Status { status: 500, retry_after: None }, Name::SourceUnavailable, 6),
        (Harm::HangUp, Name::SourceUnavailable, 6),
        (Harm::Cut, Name::SourceUnreadable, 6),
        (Harm::NotJson, Name::SourceUnreadable, 6),
        (Harm::Empty, Name::SourceUnreadable, 6),
        (Harm::LoginPage, Name::SourceUnreadable, 6),
        (Harm::ContentType { content_type: "text/plain".into() }, Name::SourceUnreadable, 6),
        (Harm::Tell { body: r#"{"messages":[],"total":0}"#.into() }, Name::SourceUnreadable, 6),
        (Harm::Status { status: 400, retry_after: None }, Name::SourceRejected, 1),
        (Harm::Status { status: 403, retry_after: None }, Name::SourceRejected, 1),
        (Harm::Status { status: 404, retry_after: None }, Name::SourceRejected, 1),
        (Harm::Redirect { to: "/login".into() }, Name::SourceRejected, 1),
        (Harm::WrongTotal { by: 1 }, Name::CountMismatch, 0),
    ] {
        cases.spawn(async move {
            let one = start(10).await;
            one.load(&messages(15));
            one.arm([harm.clone().into()]);
            let (found, text) = one.fails_with(&format!("{harm:?}")).await;
            assert_eq!(found, name, "{harm:?}: {text}");
            assert!(!text.contains(TOKEN), "{text}");
            let asked = one.server.state.take_asked().len();
            // A kept connection that ends without an answer may be tried once more below us.
            let is_right = asked == requests || (harm == Harm::HangUp && asked >= requests);
            assert!(requests == 0 || is_right, "{harm:?}: {asked} requests");
        });
    }
    while let Some(case) = cases.join_next().await {
        case.expect("a case");
    }
    let gone = start(10).await;
    let Try { server, api, .. } = gone;
    drop(server);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = api.count(span(), &soon()).await.expect_err("nobody listens");
    assert_eq!(error.name(), Name::SourceUnavailable, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_repeated_before_the_server_allows_it() {
    for (status, retry_after, least) in
        [(429, Retry::Seconds(1), 1000.0), (503, Retry::Seconds(1), 1000.0), (429, Retry::Date(1), 1000.0)]
    {
        let one = start(10).await;
        let expected = messages(45);
        one.load(&expected);
        one.arm([Harm::Status { status, retry_after: Some(retry_after) }.on_page(2, 1)]);
        assert_same(&one.list().await.expect("whole"), &expected);
        let times: Vec<f64> = one
            .server
            .state
            .take_asked()
            .iter()
            .filter(|asked| asked.page == Some(2))
            .map(|asked| asked.at_ms)
            .collect();
        assert!(times.len() == 2 && times[1] - times[0] >= least, "{status} {retry_after:?}: {times:?}");
    }
}

/// Counts the waits that all functions are told of.
struct Pauses(OwnPace, Arc<Mutex<u32>>);

#[async_trait]
impl Pace for Pauses {
    async fn reserve(&self, wanted: usize, now: Timestamp) -> Result<Granted, String> {
        self.0.reserve(wanted, now).await
    }

    async fn pause(&self, until: Timestamp) -> Result<(), String> {
        *self.1.lock().expect("lock") += 1;
        self.0.pause(until).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wait_that_follows_the_last_try_holds_for_the_other_functions_too() {
    let (one, pauses) = (start(10).await, Arc::new(Mutex::new(0)));
    let turns = Turns::new(Box::new(Pauses(OwnPace::new(5000), pauses.clone())));
    let api = Api::connect(&one.server.url, 10, one.secret.clone(), turns).expect("an API");
    one.arm([Harm::Status { status: 429, retry_after: Some(Retry::Seconds(0)) }.into()]);
    let error = api.count(span(), &soon()).await.expect_err("refused each time");
    assert_eq!(error.name(), Name::SourceUnavailable, "{error}");
    assert_eq!(*pauses.lock().expect("lock") as usize, one.server.state.take_asked().len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_is_too_long_ends_the_window_at_once() {
    let one = start(10).await;
    one.load(&messages(15));
    for retry_after in [Retry::Seconds(3600), Retry::Seconds(u64::MAX), Retry::Date(7200)] {
        one.arm([Harm::Status { status: 429, retry_after: Some(retry_after) }.into()]);
        let (name, text) = one.fails_with("too long").await;
        assert_eq!((name, one.server.state.take_asked().len()), (Name::SourceUnavailable, 1), "{text}");
    }
    // Shorter than that, but longer than what is left of the call.
    one.arm([Harm::Status { status: 503, retry_after: Some(Retry::Seconds(50)) }.into()]);
    let error = one.api.count(span(), &within(Duration::from_secs(20))).await.expect_err("no time");
    assert!(matches!(error, ApiError::WaitTooLong { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_refused_is_read_again_and_a_fresh_one_twice_is_the_end() {
    let one = start(10).await;
    let expected = messages(95);
    one.load(&expected);
    one.list().await.expect("whole");
    assert_eq!(one.secret.reads(), 1, "one token serves all requests");
    one.server.state.set_token("rotated");
    one.secret.set(r#"{"token":"rotated"}"#);
    assert_same(&one.list().await.expect("whole"), &expected);
    assert_eq!(one.secret.reads(), 2);
    one.server.state.set_token("nobody has it");
    one.server.state.take_asked();
    let (name, text) = one.fails_with("refused").await;
    assert_eq!((name, one.server.state.take_asked().len(), one.secret.reads()), (Name::SourceRejected, 3, 4), "{text}");
    for secret in ["", "{}", "not json", r#"{"token":5}"#, r#"{"token":"a\nb"}"#] {
        one.secret.set(secret);
        let again = Api::connect(&one.server.url, 10, one.secret.clone(), Turns::new(Box::new(OwnPace::new(5000))))
            .expect("an API");
        let error = again.count(span(), &soon()).await.expect_err("no token");
        assert_eq!(error.name(), Name::SourceUnavailable, "{secret}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_credentials_are_changed_into_tokens_that_are_renewed() {
    let secret = Secret::Client {
        token_url: None,
        client_id: "archive".into(),
        client_secret: "s3cret&+".into(),
        expires_in: 1,
    };
    let one = with_secret(10, secret).await;
    let expected = messages(25);
    one.load(&expected);
    assert_same(&one.list().await.expect("whole"), &expected);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    one.arm([Harm::ExpireToken.on_page(2, 1)]);
    assert_same(&one.list().await.expect("whole"), &expected);
    let asked = one.server.state.take_asked();
    let refused: Vec<_> = asked.iter().filter(|asked| asked.status == 401).collect();
    assert!(
        !refused.is_empty() && refused.iter().all(|asked| asked.page != Some(1)),
        "the token is renewed before it expires: {asked:?}"
    );
    one.secret
        .set(&format!(r#"{{"token_url":"{}/token","client_id":"archive","client_secret":"no"}}"#, one.server.url));
    one.arm([Harm::ExpireToken.times(1)]);
    let (name, text) = one.fails_with("a wrong secret").await;
    assert_eq!(name, Name::SourceUnavailable, "{text}");
    assert!(!text.contains("s3cret"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_goes_to_no_other_host() {
    let (one, other) = (start(10).await, start(10).await);
    one.load(&messages(5));
    one.arm([Harm::Redirect { to: format!("{}/getMessages", other.server.url) }.into()]);
    assert_eq!(one.fails_with("redirected").await.0, Name::SourceRejected);
    assert!(other.server.state.take_asked().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_that_changed_while_it_was_read_is_not_whole() {
    for harm in [
        Harm::Arrive { messages: 1 },
        Harm::Arrive { messages: 25 },
        Harm::Vanish { messages: 1 },
        Harm::Vanish { messages: 12 },
        Harm::Repeat,
        Harm::Lose { messages: 3 },
        Harm::WrongTotal { by: -4 },
        Harm::WrongTotal { by: 1_000_000 },
    ] {
        for page in [2, 4] {
            let one = start(10).await;
            one.load(&messages(45));
            one.arm([harm.clone().on_page(page, 1)]);
            let error = match one.list().await {
                Err(error) => error,
                // What changes after the last page was told changes nothing of this listing.
                Ok(all) if matches!(harm, Harm::Arrive { .. } | Harm::Vanish { .. }) => {
                    assert_same(&all, &messages(45));
                    continue;
                }
                Ok(_) => panic!("{harm:?} on page {page} went unnoticed"),
            };
            assert!(matches!(error, ApiError::NotWhole { .. }), "{harm:?} on page {page}: {error}");
            // Listed again, all is well.
            one.arm([]);
            one.list().await.expect("whole");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_message_with_two_contents_is_not_whole_and_the_same_twice_is_one() {
    let page = |second: &str, total: u64| {
        format!(
            r#"{{"messages":[{{"message_id":"a"}},{{"message_id":"b"}},{second}],"total":{total},"total_pages":1}}"#
        )
    };
    let one = start(10).await;
    one.arm([Harm::Tell { body: page(r#"{"message_id":"a"}"#, 2) }.into()]);
    assert_eq!(one.list().await.expect("whole").len(), 2);
    one.arm([Harm::Tell { body: page(r#"{"message_id":"a","more":1}"#, 2) }.into()]);
    assert_eq!(one.fails_with("two contents").await.0, Name::CountMismatch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_may_be_short_although_others_follow() {
    let one = start(10).await;
    let expected = messages(45);
    one.load(&expected);
    one.arm([Harm::Short { messages: 4 }.into()]);
    assert_same(&one.list().await.expect("whole"), &expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_may_be_empty_although_others_follow_and_be_more_than_the_messages() {
    let one = start(10).await;
    let page = |number: u64, message: &str, total: u64| {
        let body = format!(r#"{{"messages":[{message}],"total":{total},"total_pages":30}}"#);
        Harm::Tell { body }.on_page(number, 1)
    };
    let message = |number: u64| if number == 30 { r#"{"message_id":"a"}"# } else { "" };
    one.arm((1..=30).map(|number| page(number, message(number), 1)));
    assert_eq!(one.list().await.expect("whole").len(), 1);
    one.arm((1..=30).map(|number| page(number, "", 0)));
    assert!(one.list().await.expect("whole").is_empty());
    one.arm((1..=30).map(|number| page(number, "", 1)));
    assert_eq!(one.fails_with("one is missing").await.0, Name::CountMismatch);
    one.arm((1..=30).map(|number| page(number, &format!(r#"{{"message_id":"{number}"}}"#), 1)));
    assert_eq!(one.fails_with("too many").await.0, Name::CountMismatch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_goes_on_in_another_process() {
    let one = start(10).await;
    let expected = messages(85);
    one.load(&expected);
    let mut first = Listing::new(&one.api, span(), &soon());
    let mut all = first.next_page().await.expect("a page").expect("messages");
    all.extend(first.next_page().await.expect("a page").expect("messages"));
    let saved = serde_json::to_vec(first.cursor()).expect("JSON");
    drop(first);
    let mut second = Listing::resume(&one.api, span(), serde_json::from_slice(&saved).expect("a cursor"), &soon());
    while let Some(page) = second.next_page().await.expect("a page") {
        all.extend(page);
    }
    assert_same(&all, &expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_too_large_is_asked_for_in_smaller_ones() {
    let one = start(4).await;
    let large = |number: usize| {
        let at = span().from + SignedDuration::from_secs(number as i64);
        let source = format!(r#"{{"message_id":"m-{number}","timestamp":"{at:.3}","x":"{}"}}"#, "x".repeat(18 << 20));
        Message { at: at.as_millisecond(), id: format!("m-{number}"), source: source.into_bytes() }
    };
    let expected: Vec<Message> = (0..5).map(large).collect();
    one.load(&expected);
    assert_same(&one.list().await.expect("whole"), &expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_requests_a_second_holds() {
    let one = start(1).await;
    let expected = messages(150);
    one.load(&expected);
    one.server.state.set(Settings { requests_per_second: Some(100), ..Settings::default() });
    let turns = Turns::new(Box::new(OwnPace::new(100)));
    let api = Api::connect(&one.server.url, 1, one.secret.clone(), turns).expect("an API");
    let one = Try { api, ..one };
    assert_same(&one.list().await.expect("whole"), &expected);
    let statuses = one.server.state.take_asked().into_iter().fold(BTreeMap::new(), |mut counts, asked| {
        *counts.entry(asked.status).or_insert(0) += 1;
        counts
    });
    assert_eq!(statuses, BTreeMap::from([(200, 150)]), "no request was refused for coming too early");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_without_end_are_not_read_for_ever() {
    let one = start(10).await;
    let huge = u64::MAX;
    let body = format!(r#"{{"messages":[{{"message_id":"a"}}],"total":{huge},"total_pages":{huge}}}"#);
    one.arm([Harm::Tell { body }.into()]);
    assert_eq!(one.fails_with("no end").await.0, Name::CountMismatch);
    assert!(one.server.state.take_asked().len() < 200);
}

/// The steps of splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    /// What may pass when it is tried again.
    fn passing(&mut self) -> Harm {
        match self.below(10) {
            0 => Harm::Status { status: 429, retry_after: Some(Retry::Seconds(self.below(2))) },
            1 => Harm::Status { status: 500 + self.below(5) as u16, retry_after: None },
            2 => Harm::Status { status: 503, retry_after: Some(Retry::Date(self.below(2))) },
            3 => Harm::Slow { millis: self.below(80) },
            4 => Harm::HangUp,
            5 => Harm::Cut,
            6 => Harm::NotJson,
            7 => Harm::Empty,
            8 => Harm::LoginPage,
            _ => Harm::ContentType { content_type: "text/html".into() },
        }
    }

    /// What makes a listing untrue, or changes what is listed.
    fn untrue(&mut self) -> Harm {
        let some = 1 + self.below(12);
        match self.below(6) {
            0 => Harm::Arrive { messages: some },
            1 => Harm::Vanish { messages: some as usize },
            2 => Harm::Lose { messages: some as usize },
            3 => Harm::WrongTotal { by: self.below(9) as i64 - 4 },
            4 => Harm::Repeat,
            _ => Harm::Short { messages: some },
        }
    }
}

/// A server that does harm by chance, and one listing of it: `None` when that failed, with one of the names.
async fn listed_by_chance(seed: u64) -> Option<usize> {
    let mut dice = Dice(seed);
    let (count, page_size) = (dice.below(120) as usize, 1 + dice.below(40));
    let one = start(page_size).await;
    let before = messages(count);
    one.load(&before);
    let pages = count as u64 / page_size + 1;
    let mut faults = Vec::new();
    for _ in 0..dice.below(6) {
        let (page, times) = (1 + dice.below(pages), 1 + dice.below(2));
        faults.push(dice.passing().on_page(page, times));
    }
    // One kind of untruth at a time: two can hide each other from any totals.
    if dice.below(2) == 0 {
        let (page, times) = (1 + dice.below(pages), 1 + dice.below(3));
        let at = dice.below(faults.len() as u64 + 1) as usize;
        faults.insert(at, dice.untrue().on_page(page, times));
    }
    let told = format!("seed {seed}: {count} messages in pages of {page_size}, {faults:?}");
    one.arm(faults);
    let arrived = match one.list().await {
        Ok(arrived) => arrived,
        Err(error) => {
            let names = [Name::SourceUnavailable, Name::SourceUnreadable, Name::SourceRejected, Name::CountMismatch];
            assert!(names.contains(&error.name()), "{told}: {error}");
            return None;
        }
    };
    let mut by_id: BTreeMap<&str, &[u8]> = BTreeMap::new();
    for element in &arrived {
        assert_eq!(by_id.insert(&element.id, &element.source), None, "{told}: {} came twice", element.id);
    }
    let held = one.server.state.messages();
    for message in &before {
        let is_still_there = held.source_of(&message.id).is_some();
        match by_id.remove(message.id.as_str()) {
            Some(source) => assert_eq!(source, message.source, "{told}"),
            None => assert!(!is_still_there, "{told}: {} was lost", message.id),
        }
    }
    for (id, source) in by_id {
        assert_eq!(held.source_of(id).as_deref(), Some(source), "{told}: {id} was never there");
    }
    Some(arrived.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_server_does_by_chance_all_arrives_or_the_listing_fails_with_a_name() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match (number("SEED"), number("SEEDS")) {
        (Some(seed), _) => seed..=seed,
        (None, seeds) => 1..=seeds.unwrap_or(100),
    };
    let (mut whole, mut failed, mut listings) = (0, 0, JoinSet::new());
    let mut note = |listing: Option<usize>| if listing.is_some() { whole += 1 } else { failed += 1 };
    for seed in seeds.clone() {
        listings.spawn(listed_by_chance(seed));
        if listings.len() == 50 {
            listings.join_next().await.into_iter().for_each(|listing| note(listing.expect("a listing")));
        }
    }
    while let Some(listing) = listings.join_next().await {
        note(listing.expect("a listing"));
    }
    println!("{whole} listings were whole, {failed} failed with a name");
    assert!(seeds.count() == 1 || (whole > failed && failed > 0), "{whole} were whole, {failed} failed");
}

/// A server that answers everything with the same bytes, and then ends the connection, or stays silent.
async fn says(answer: &'static str, ends: bool) -> Api {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut asked, mut piece) = (Vec::new(), [0; 1024]);
                while !asked.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut piece).await {
                        Ok(0) | Err(_) => return,
                        Ok(read) => asked.extend_from_slice(&piece[..read]),
                    }
                }
                let _ = stream.write_all(answer.as_bytes()).await;
                if !ends {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    let held = Arc::new(Held::default());
    held.set(&format!(r#"{{"token":"{TOKEN}"}}"#));
    Api::connect(&url, 10, held, Turns::new(Box::new(OwnPace::new(5000)))).expect("an API")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_no_page_looks_like_have_their_names() {
    const SILENT: bool = false;
    let mut cases = JoinSet::new();
    for (answer, ends, expected) in [
        // Ends in the middle of a chunk, before its length, after too little.
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{\"mess",
            true,
            Name::SourceUnreadable,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{\"messages\":[",
            true,
            Name::SourceUnreadable,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{\"messages\":[],\"total\":0,\"total_pages\":0}",
            true,
            Name::SourceUnreadable,
        ),
        // Says nothing more, before or in the middle of its body.
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{",
            SILENT,
            Name::SourceUnavailable,
        ),
        ("", SILENT, Name::SourceUnavailable),
        ("no HTTP at all\r\n\r\n", true, Name::SourceUnavailable),
        ("HTTP/1.1 204 No Content\r\n\r\n", true, Name::SourceUnreadable),
        (
            "HTTP/1.1 206 Partial Content\r\ncontent-type: application/json\r\ncontent-length: 41\r\n\r\n{\"messages\":[],\"total\":0,\"total_pages\":0}",
            true,
            Name::SourceUnreadable,
        ),
        (
            "HTTP/1.1 301 Moved\r\nlocation: https://login.example.com/\r\ncontent-length: 0\r\n\r\n",
            true,
            Name::SourceRejected,
        ),
        ("HTTP/1.1 307 Moved\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n", true, Name::SourceRejected),
        ("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", true, Name::SourceRejected),
        ("HTTP/1.1 407 Proxy\r\ncontent-length: 0\r\n\r\n", true, Name::SourceRejected),
        (
            "HTTP/1.1 429 Slow\r\nretry-after: 99999999999999999999\r\ncontent-length: 0\r\n\r\n",
            true,
            Name::SourceUnavailable,
        ),
        ("HTTP/1.1 429 Slow\r\nretry-after: -5\r\ncontent-length: 0\r\n\r\n", true, Name::SourceUnavailable),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: br\r\ncontent-length: 41\r\n\r\n{\"messages\":[],\"total\":0,\"total_pages\":0}",
            true,
            Name::SourceUnreadable,
        ),
        // Whole, and JSON, and no page all the same.
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{\"messages\":[NaN],\"total\":1,\"total_pages\":1}",
            true,
            Name::SourceUnreadable,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{\"messages\":[],\"total\":0.0,\"total_pages\":0}",
            true,
            Name::SourceUnreadable,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n<html>{\"messages\":[],\"total\":0,\"total_pages\":0}",
            true,
            Name::SourceUnreadable,
        ),
        // A page that contradicts itself.
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{\"messages\":[{\"message_id\":\"a\"}],\"total\":0,\"total_pages\":0}",
            true,
            Name::CountMismatch,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{\"messages\":[],\"total\":5,\"total_pages\":1}",
            true,
            Name::CountMismatch,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{\"messages\":[],\"total\":5,\"total_pages\":0}",
            true,
            Name::CountMismatch,
        ),
    ] {
        cases.spawn(async move {
            let api = says(answer, ends).await;
            let time = Duration::from_secs(if ends { 60 } else { 4 });
            let mut listing = Listing::new(&api, span(), &within(time));
            let error = loop {
                match listing.next_page().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("taken for a whole listing: {answer}"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.name(), expected, "{answer}: {error}");
            assert!(!errors::describe(&error).contains(TOKEN));
        });
    }
    while let Some(case) = cases.join_next().await {
        case.expect("a case");
    }
    let page = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{\"messages\":[null,5,{\"message_id\":7}],\"total\":3,\"total_pages\":1}";
    let api = says(page, true).await;
    let elements = Listing::new(&api, span(), &soon()).next_page().await.expect("a page").expect("elements");
    assert!(elements.len() == 3 && elements.iter().all(|element| !element.has_usable_id), "they go to quarantine");
}
