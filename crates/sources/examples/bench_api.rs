//! Reads a month from the fixture API at 50 ms latency: page after page as a script would, and as the product does,
//! under the server's limit of requests a second. Run: bench/api

use async_trait::async_trait;
use fixtures::api::{Message, Secret, Server, Settings};
use jiff::{SignedDuration, Timestamp};
use runtime::{Call, SystemClock};
use sources::{
    ReadSecret, SecretError,
    api::{Api, Listing, OwnPace, TimeRange, Turns},
};
use std::{
    error::Error,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

const LATENCY_MS: u64 = 50;

/// What is read, and how fast the server lets itself be asked.
struct Case {
    messages: u64,
    message_bytes: usize,
    page_size: u64,
    per_second: u32,
}

struct Fixed;

#[async_trait]
impl ReadSecret for Fixed {
    async fn read(&self) -> Result<String, SecretError> {
        Ok(r#"{"token":"bench"}"#.into())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    println!(
        "| message | page size | pages | limit a second | one after the other | in parallel | ratio | fastest second | refused |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for case in [
        Case { messages: 10_000, message_bytes: 2_000, page_size: 100, per_second: 1000 },
        Case { messages: 10_000, message_bytes: 2_000, page_size: 50, per_second: 1000 },
        Case { messages: 50_000, message_bytes: 2_000, page_size: 500, per_second: 1000 },
        Case { messages: 10_000, message_bytes: 25_000, page_size: 20, per_second: 1000 },
        Case { messages: 10_000, message_bytes: 25_000, page_size: 100, per_second: 400 },
        Case { messages: 10_000, message_bytes: 25_000, page_size: 500, per_second: 400 },
        Case { messages: 10_000, message_bytes: 2_000, page_size: 100, per_second: 20 },
    ] {
        measure(case).await?;
    }
    Ok(())
}

async fn measure(case: Case) -> Result<(), Box<dyn Error>> {
    let Case { messages, message_bytes, page_size, per_second } = case;
    let secret = Secret::Token { token: "bench".into() };
    let server = Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), secret, Settings::default()).await?;
    let from: Timestamp = "2026-10-01T00:00:00Z".parse()?;
    let span = TimeRange { from, to: from + SignedDuration::from_hours(31 * 24) };
    for number in 0..messages {
        let at = from + SignedDuration::from_secs(number as i64);
        let text = "lorem ipsum ".repeat(message_bytes / 12);
        let source = format!(r#"{{"message_id":"m-{number}","timestamp":"{at:.3}","text":"{text}"}}"#);
        server.state.messages().put(Message {
            at: at.as_millisecond(),
            id: format!("m-{number}"),
            source: source.into_bytes(),
        });
    }
    let pages = messages.div_ceil(page_size);

    server.state.set(Settings { latency_ms: LATENCY_MS, ..Settings::default() });
    let sequential = one_after_the_other(&server.url, span, page_size, pages).await?;

    server.state.set(Settings { latency_ms: LATENCY_MS, requests_per_second: Some(per_second), ..Settings::default() });
    server.state.take_asked();
    let began = Instant::now();
    let api = Api::connect(&server.url, page_size, Arc::new(Fixed), Turns::new(Box::new(OwnPace::new(per_second))))?;
    let call = Call::new(SystemClock::shared(), Duration::from_secs(600));
    let mut listing = Listing::new(&api, span, &call);
    let mut arrived = 0;
    while let Some(page) = listing.next_page().await? {
        arrived += page.len() as u64;
    }
    let parallel = began.elapsed();
    assert_eq!(arrived, messages);

    let asked = server.state.take_asked();
    let times: Vec<f64> = asked.iter().map(|asked| asked.at_ms).collect();
    let within = |at: &f64| times.iter().filter(|other| (*at..at + 1000.0).contains(*other)).count();
    let fastest = times.iter().map(within).max().unwrap_or(0);
    let refused = asked.iter().filter(|asked| asked.status == 429).count();
    println!(
        "| {message_bytes} B | {page_size} | {pages} | {per_second} | {:.2} s | {:.2} s | {:.1} | {fastest} | {refused} |",
        sequential.as_secs_f64(),
        parallel.as_secs_f64(),
        sequential.as_secs_f64() / parallel.as_secs_f64(),
    );
    Ok(())
}

/// A kept connection, each page awaited, its bytes thrown away.
async fn one_after_the_other(
    url: &str,
    span: TimeRange,
    page_size: u64,
    pages: u64,
) -> Result<Duration, Box<dyn Error>> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let began = Instant::now();
    for number in 1..=pages {
        let (from, to) = (span.from, span.to);
        let url = format!(
            "{url}/getMessages?start_time={from:.3}&end_time={to:.3}&status=all&page_size={page_size}&page_number={number}"
        );
        let answer = client.get(url).header("authorization", "Bearer bench").send().await?.error_for_status()?;
        answer.bytes().await?;
    }
    Ok(began.elapsed())
}
