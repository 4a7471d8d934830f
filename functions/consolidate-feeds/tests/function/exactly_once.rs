//! Each record comes out once and in order, wherever a function dies and however often a message comes.

use crate::world::{ARCHIVE, FEEDS, World, lines};
use async_trait::async_trait;
use flate2::{Compression, write::GzEncoder};
use network::{Broken, Network, OneFault, Request, Strike};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    slice,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use storage::Objects;
use tokio::sync::Notify;

/// Files of two dates and ranks, one of them larger than a round, one with a bad line.
async fn catalogue() -> (World, Vec<Value>, BTreeMap<&'static str, Vec<String>>) {
    let mut world = World::new();
    world.limits.round_bytes = 3_000;
    world.limits.round_files = 3;
    world.partners("offers", &["first"], &[]).await;
    let (mut events, mut expected) = (Vec::new(), BTreeMap::new());
    for (name, key, count) in [
        ("a", "offers/acme/2026/11/20/a", 3),
        ("b", "offers/first/2026/11/20/b", 5),
        ("c", "offers/acme/2026/11/21/c", 1),
        ("d", "offers/acme/2026/11/20/d", 250),
        ("e", "offers/first/2026/11/21/e", 0),
        ("f", "offers/acme/2026/11/20/f", 4),
    ] {
        let records = lines(name, count);
        let text =
            records.iter().map(|line| format!("{line}\n")).collect::<String>() + if name == "f" { "bad\n" } else { "" };
        events.push(world.put(key, text).await);
        expected.insert(name, records);
    }
    (world, events, expected)
}

/// Every record of every file is there once, in order.
fn check(world: &World, expected: &BTreeMap<&str, Vec<String>>, what: &str) {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in world.records() {
        let value: Value = serde_json::from_str(&record).expect("JSON");
        found.entry(value["file"].as_str().expect("a name").to_owned()).or_default().push(record);
    }
    for (name, records) in expected {
        let found = found.remove(*name).unwrap_or_default();
        assert!(found == *records, "{what}: file {name}: {} records of {}", found.len(), records.len());
    }
    assert_eq!(world.quarantined().len(), 1, "{what}");
    for (key, body) in world.outputs() {
        let is_first = |line: &str| line.contains("\"b\"") || line.contains("\"e\"");
        let text = std::str::from_utf8(&body).expect("UTF-8");
        let ranks: BTreeSet<bool> = text.lines().map(is_first).collect();
        assert_eq!(ranks.len(), 1, "{what}: {key} mixes priority partners with others");
    }
}

/// What a reader may never see, at no moment: a record twice, or out of its file's order.
fn check_meanwhile(world: &World, what: &str) {
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for record in world.records() {
        let value: Value = serde_json::from_str(&record).expect("JSON");
        let Some((file, at)) = value["file"].as_str().zip(value["at"].as_i64()) else { continue };
        let file = file.to_owned();
        let before = last.insert(file.clone(), at);
        assert!(before.is_none_or(|before| before < at), "{what}: {file} has {at} after {before:?}");
    }
}

async fn deliver_until_done(world: &World, events: &[Value], what: &str) {
    for _ in 0..10 {
        world.a_minute_later();
        let messages: Vec<&[Value]> = events.chunks(2).collect();
        let failed = world.deliver(&messages).await;
        check_meanwhile(world, what);
        if failed.is_empty() {
            return;
        }
    }
    panic!("{what}: messages fail again and again");
}

#[tokio::test]
async fn a_function_that_fails_at_any_request_is_followed_by_one_that_makes_it_good() {
    let (world, events, _) = catalogue().await;
    let counting = OneFault::at(usize::MAX, Strike::Request);
    let messages: Vec<&[Value]> = events.chunks(2).collect();
    assert_eq!(world.deliver_through(counting.clone(), &messages).await, [0; 0]);
    let requests = counting.seen();
    assert!(requests > 60, "{requests} requests are few");
    for strike in [Strike::Request, Strike::Answer, Strike::AnswerThenRetry] {
        for nth in 0..requests {
            let what = format!("{strike:?} of request {nth}");
            let (world, events, expected) = catalogue().await;
            let messages: Vec<&[Value]> = events.chunks(2).collect();
            world.deliver_through(OneFault::at(nth, strike), &messages).await;
            check_meanwhile(&world, &what);
            deliver_until_done(&world, &events, &what).await;
            check(&world, &expected, &what);
        }
    }
}

/// Fails every request from the n-th on, as when the process is killed there.
struct Killed {
    left: AtomicUsize,
    /// The last request that arrives is carried out, or is not.
    is_carried_out: bool,
}

#[async_trait]
impl Network for Killed {
    async fn sent(&self, _: &Request) -> Result<(), Broken> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match left {
            Ok(1) if !self.is_carried_out => Err(Broken),
            Ok(_) => Ok(()),
            Err(_) => Err(Broken),
        }
    }
}

#[tokio::test]
async fn staged_bytes_that_are_not_those_of_their_intent_never_come_out() {
    let (mut found, all) = (0, catalogue().await.2.into_values().flatten().collect::<BTreeSet<_>>());
    for left in 1.. {
        let (world, events, _) = catalogue().await;
        let messages: Vec<&[Value]> = events.chunks(2).collect();
        let killed = Killed { left: AtomicUsize::new(left), is_carried_out: true };
        world.deliver_through(Arc::new(killed), &messages).await;
        if !world.outputs().is_empty() {
            break;
        }
        let staged = world.objects.contents(ARCHIVE).into_iter().filter(|(key, _)| key.starts_with("feeds/staged/"));
        let archive = Objects::over(world.objects.clone(), ARCHIVE);
        for (key, body) in staged {
            // The same length, and JSON still.
            let at = body.iter().position(u8::is_ascii_digit).expect("a number");
            let mut other = body.to_vec();
            other[at] = if other[at] == b'1' { b'2' } else { b'1' };
            archive.put(&key, other, "application/octet-stream").await.expect("written");
        }
        world.a_minute_later();
        // Before the intent is registered, other bytes are staged under another name.
        found += usize::from(!world.deliver(&messages).await.is_empty());
        assert!(world.records().iter().all(|record| all.contains(record)), "killed at request {left}");
    }
    assert!(found > 0, "no function met what another had staged");
}

#[tokio::test]
async fn a_function_that_is_killed_at_any_request_and_again_at_another_is_followed_by_one_that_makes_it_good() {
    let (world, events, _) = catalogue().await;
    let counting = OneFault::at(usize::MAX, Strike::Request);
    let messages: Vec<&[Value]> = events.chunks(2).collect();
    world.deliver_through(counting.clone(), &messages).await;
    let requests = counting.seen();
    for first in 1..requests {
        let second = 1 + first * 7 % 60;
        let what = format!("killed at request {first} and then at {second}");
        let (world, events, expected) = catalogue().await;
        let messages: Vec<&[Value]> = events.chunks(2).collect();
        for left in [first, second] {
            let killed = Killed { left: AtomicUsize::new(left), is_carried_out: first % 2 == 0 };
            world.deliver_through(Arc::new(killed), &messages).await;
            check_meanwhile(&world, &what);
            world.a_minute_later();
        }
        deliver_until_done(&world, &events, &what).await;
        check(&world, &expected, &what);
    }
}

#[tokio::test]
async fn a_batch_delivered_again_in_another_order_and_other_company_changes_nothing() {
    let (world, events, expected) = catalogue().await;
    assert_eq!(world.deliver(&[&events]).await, [0; 0]);
    let before = world.objects.contents(FEEDS);
    let mut reversed = events.clone();
    reversed.reverse();
    for event in &reversed {
        assert_eq!(world.deliver(&[slice::from_ref(event), slice::from_ref(event)]).await, [0; 0]);
    }
    assert_eq!(world.deliver(&[&reversed]).await, [0; 0]);
    assert!(world.objects.contents(FEEDS) == before);
    check(&world, &expected, "again");
}

#[tokio::test]
async fn the_damage_of_a_file_is_quarantined_once_also_when_it_fills_the_last_round_of_a_call() {
    let mut damaged = GzEncoder::new(Vec::new(), Compression::fast());
    damaged.write_all(b"{\"a\":1}\n{\"a\":2}\n").and_then(|()| damaged.flush()).expect("into memory");
    for left in 1..80 {
        let mut world = World::new();
        world.limits.round_bytes = 1;
        world.partners("offers", &[], &[]).await;
        let file = world.put("offers/acme/2026/11/20/cut", damaged.get_ref().clone()).await;
        let killed = Killed { left: AtomicUsize::new(left), is_carried_out: true };
        world.deliver_through(Arc::new(killed), &[slice::from_ref(&file)]).await;
        deliver_until_done(&world, slice::from_ref(&file), &format!("killed at request {left}")).await;
        assert_eq!(world.records(), ["{\"a\":1}", "{\"a\":2}"], "killed at request {left}");
        assert_eq!(world.quarantined().len(), 1, "killed at request {left}");
    }
}

#[tokio::test]
async fn an_output_never_takes_the_place_of_another_object() {
    let (world, events, _) = catalogue().await;
    assert_eq!(world.deliver(&[&events[..1]]).await, [0; 0]);
    let outputs = world.outputs();
    let [key] = &outputs.keys().collect::<Vec<_>>()[..] else { panic!("{outputs:?}") };
    // The clock stands still: in another world the same key comes next.
    let (world, events, _) = catalogue().await;
    let feeds = Objects::over(world.objects.clone(), FEEDS);
    feeds.put(key, "{\"whose\":\"another's\"}\n", "application/x-ndjson").await.expect("written");
    let before = world.outputs();
    for _ in 0..2 {
        assert_eq!(world.deliver(&[&events[..1]]).await, [0]);
        world.a_minute_later();
    }
    assert!(world.outputs() == before, "it was overwritten");
}

/// Sleeps before it stages its first intent, until it is woken.
#[derive(Default)]
struct Overslept {
    has_slept: AtomicBool,
    asleep: Notify,
    awake: Notify,
}

#[async_trait]
impl Network for Overslept {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        let is_stage = request.operation == "PutObject" && request.subject.starts_with(ARCHIVE);
        if is_stage && !self.has_slept.swap(true, Ordering::SeqCst) {
            self.asleep.notify_one();
            self.awake.notified().await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_function_that_overslept_brings_out_the_files_that_nobody_else_took() {
    let (world, events, expected) = catalogue().await;
    let messages: Vec<&[Value]> = events.chunks(1).collect();
    let overslept = Arc::new(Overslept::default());
    // Its first round holds files b, e and a; the other function takes b from it, and no more.
    let other = async {
        overslept.asleep.notified().await;
        world.a_minute_later();
        let failed = world.deliver(&[slice::from_ref(&events[1])]).await;
        overslept.awake.notify_one();
        failed
    };
    let (failed, failed_of_other) = tokio::join!(world.deliver_through(overslept.clone(), &messages), other);
    assert_eq!((failed, failed_of_other), (Vec::new(), Vec::new()));
    check(&world, &expected, "overslept");
}

/// Lets the other callers go on at each request.
struct Yielding;

#[async_trait]
impl Network for Yielding {
    async fn sent(&self, _: &Request) -> Result<(), Broken> {
        tokio::task::yield_now().await;
        Ok(())
    }
}

#[tokio::test]
async fn functions_at_once_with_the_same_files_bring_each_record_out_once() {
    for round in 0..20 {
        let (world, events, expected) = catalogue().await;
        let mut calls = Vec::new();
        for shift in 0..4 {
            let (world, mut events) = (world.clone(), events.clone());
            events.rotate_left((shift + round) % 6);
            calls.push(async move {
                let messages: Vec<&[Value]> = events.chunks(1).collect();
                world.deliver_through(Arc::new(Yielding), &messages).await
            });
        }
        futures::future::join_all(calls).await;
        let what = format!("round {round}");
        check_meanwhile(&world, &what);
        deliver_until_done(&world, &events, &what).await;
        check(&world, &expected, &what);
    }
}
