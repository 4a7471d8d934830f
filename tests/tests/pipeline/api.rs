//! Messages that come from the REST API, alone or beside OpenSearch.

use crate::tests;
use anyhow::{Context, Result, ensure};
use fixtures::api::{Fault, Harm, Retry, Secret, Server, Settings};
use jiff::{SignedDuration, Timestamp};
use pipeline_tests::{Cloud, Message, Outcome, Stretch, archive::Archived, check_archive, documents::iso};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

tests![
    messages_of_the_api_alone_are_archived_once_each_and_history_is_reported_as_absent,
    the_api_at_its_worst_loses_nothing,
    what_stays_wrong_fails_the_window_by_name_and_a_redrive_archives_it,
    a_listing_that_never_holds_still_is_a_count_mismatch,
    a_wait_that_is_too_long_is_not_cut_short_by_the_workflow,
    elements_without_a_usable_id_or_instant_are_quarantined,
    a_range_over_the_border_loses_and_doubles_nothing,
    the_bytes_of_the_index_win_once_and_stay,
    a_message_that_no_index_had_gets_its_index_later_and_is_archived_once,
];

/// The functions that read the source.
const READERS: [&str; 2] = ["plan-windows", "query-messages"];

async fn server() -> Result<Server> {
    let secret = std::env::var("ALERT_ARCHIVE_API_SECRET").context("ALERT_ARCHIVE_API_SECRET is not set")?;
    let secret: Secret = serde_json::from_str(&secret)?;
    Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), secret, Settings::default()).await
}

fn load(server: &Server, messages: &[Message]) {
    for Message { id, at, source, .. } in messages {
        let (at, id, source) = (at.as_millisecond(), id.clone(), source.clone());
        server.state.messages().put(fixtures::api::Message { at, id, source });
    }
}

/// Does something while messages come from this server.
async fn with_source<T>(
    cloud: &Cloud,
    mode: &str,
    server: &Server,
    work: impl AsyncFnOnce() -> Result<T>,
) -> Result<T> {
    let mut before = BTreeMap::new();
    for function in READERS {
        let environment = cloud.environment(function).await?;
        let mut changed = environment.clone();
        changed.insert("ALERT_ARCHIVE_MESSAGE_SOURCE".into(), mode.into());
        changed.insert("ALERT_ARCHIVE_API_URL".into(), server.url.clone());
        changed.insert("ALERT_ARCHIVE_API_PAGE_SIZE".into(), "10".into());
        changed.insert("ALERT_ARCHIVE_API_REQUESTS_PER_SECOND".into(), "200".into());
        cloud.set_environment(function, &changed).await?;
        before.insert(function, environment);
    }
    let outcome = work().await;
    for (function, environment) in before {
        cloud.set_environment(function, &environment).await?;
    }
    outcome
}

/// Closed and open ones, some hours apart, as the API has them: in no index.
fn of_the_api(stretch: &Stretch, count: usize) -> Vec<Message> {
    let first = format!("{}-03-01T00:00:00Z", stretch.year).parse::<Timestamp>().expect("an instant");
    let message = |number: usize| {
        let at = iso(first + SignedDuration::from_hours(number as i64 * 7));
        let name = format!("api-{number:03}");
        let message =
            if number % 9 == 4 { Message::open(stretch, &name, &at) } else { Message::closed(stretch, &name, &at) };
        message.in_index("api")
    };
    (0..count).map(message).collect()
}

fn closed(messages: &[Message]) -> u64 {
    messages.iter().filter(|message| message.disposition == fixtures::Disposition::Closed).count() as u64
}

async fn messages_of_the_api_alone_are_archived_once_each_and_history_is_reported_as_absent(
    cloud: &Cloud,
) -> Result<()> {
    let (stretch, server) = (cloud.stretch(), server().await?);
    let messages = of_the_api(&stretch, 95);
    load(&server, &messages);
    with_source(cloud, "api", &server, async || {
        let first = cloud.run_stretch(&stretch).await?.completed()?;
        ensure!(first.count("source") == 95 && first.count("archived") == closed(&messages), "{}", first.report);
        ensure!(first.report["absent"] == serde_json::json!(["history", "audit"]), "{}", first.report);
        check_archive(cloud, &stretch, &messages).await?;
        let again = cloud.run_stretch(&stretch).await?.completed()?;
        ensure!(
            again.count("already_archived") == closed(&messages) && again.count("archived") == 0,
            "{}",
            again.report
        );
        check_archive(cloud, &stretch, &messages).await
    })
    .await
}

async fn the_api_at_its_worst_loses_nothing(cloud: &Cloud) -> Result<()> {
    let (stretch, server) = (cloud.stretch(), server().await?);
    let messages = of_the_api(&stretch, 95);
    load(&server, &messages);
    let harms = [
        Harm::Status { status: 429, retry_after: Some(Retry::Seconds(1)) },
        Harm::Status { status: 503, retry_after: Some(Retry::Date(1)) },
        Harm::Status { status: 500, retry_after: None },
        Harm::HangUp,
        Harm::Cut,
        Harm::NotJson,
        Harm::LoginPage,
        Harm::Repeat,
        Harm::Lose { messages: 2 },
    ];
    // Each strikes once, one behind the other, after the counts of the plan.
    let faults = (0u64..).zip(harms).map(|(turn, harm)| Fault { skip: 15 + turn * 3, ..harm.times(1) });
    server.state.arm(faults);
    with_source(cloud, "api", &server, async || {
        let outcome = cloud.run_stretch(&stretch).await?.completed()?;
        ensure!(outcome.count("source") == 95, "{}", outcome.report);
        check_archive(cloud, &stretch, &messages).await
    })
    .await
}

async fn what_stays_wrong_fails_the_window_by_name_and_a_redrive_archives_it(cloud: &Cloud) -> Result<()> {
    for (harm, name) in [
        (Harm::Redirect { to: "/login".into() }, "SourceRejected"),
        (Harm::Tell { body: "{\"messages\":[]}".into() }, "SourceUnreadable"),
    ] {
        let (stretch, server) = (cloud.stretch(), server().await?);
        let messages: Vec<Message> = of_the_api(&stretch, 12);
        load(&server, &messages);
        server.state.arm([harm.into()]);
        with_source(cloud, "api", &server, async || {
            let (from, to) = (format!("{}-03-01", stretch.year), format!("{}-03-20", stretch.year));
            let failed = cloud.run(&from, &to).await?.failed(1, &[name])?;
            server.state.arm([]);
            let redriven = cloud.redrive(failed.run_id()).await?.completed()?;
            ensure!(redriven.count("source") == 12, "{}", redriven.report);
            check_archive(cloud, &stretch, &messages).await
        })
        .await?;
    }
    Ok(())
}

async fn a_listing_that_never_holds_still_is_a_count_mismatch(cloud: &Cloud) -> Result<()> {
    let (stretch, server) = (cloud.stretch(), server().await?);
    load(&server, &of_the_api(&stretch, 25));
    server.state.arm([Fault { page: Some(2), ..Harm::WrongTotal { by: 1 }.into() }]);
    with_source(cloud, "api", &server, async || {
        let (from, to) = (format!("{}-03-01", stretch.year), format!("{}-03-20", stretch.year));
        cloud.run(&from, &to).await?.failed(1, &["CountMismatch"])?;
        let listings = server
            .state
            .take_asked()
            .iter()
            .filter(|asked| asked.page == Some(1) && asked.query.contains("page_size=10&"))
            .count();
        ensure!(listings == 4, "listed {listings} times");
        Ok(())
    })
    .await
}

async fn a_wait_that_is_too_long_is_not_cut_short_by_the_workflow(cloud: &Cloud) -> Result<()> {
    let (stretch, server) = (cloud.stretch(), server().await?);
    let messages = of_the_api(&stretch, 25);
    load(&server, &messages);
    server
        .state
        .arm([Fault { page: Some(2), ..Harm::Status { status: 429, retry_after: Some(Retry::Seconds(3600)) }.into() }]);
    with_source(cloud, "api", &server, async || {
        let (from, to) = (format!("{}-03-01", stretch.year), format!("{}-03-20", stretch.year));
        let failed = cloud.run(&from, &to).await?.failed(1, &["SourceUnavailable"])?;
        let refused = server.state.take_asked().iter().filter(|asked| asked.page == Some(2)).count();
        ensure!(refused == 1, "asked {refused} times");
        server.state.arm([]);
        cloud.redrive(failed.run_id()).await?.completed()?;
        check_archive(cloud, &stretch, &messages).await
    })
    .await
}

async fn elements_without_a_usable_id_or_instant_are_quarantined(cloud: &Cloud) -> Result<()> {
    let (stretch, server) = (cloud.stretch(), server().await?);
    let at = format!("{}-03-05T00:00:00Z", stretch.year);
    let elements = [
        (format!(r#"{{"timestamp":"{at}","alerts":[{{"status":"open"}}]}}"#), "message_id_unusable"),
        (format!(r#"{{"message_id":7,"timestamp":"{at}"}}"#), "message_id_not_a_string"),
        (
            format!(r#"{{"message_id":"{}-undated","alerts":[{{"status":"open"}}]}}"#, stretch.prefix),
            "timestamp_unusable",
        ),
        ("[1, 2]".to_owned(), "unreadable_document"),
    ];
    let listed = elements.iter().map(|(element, _)| element.as_str()).collect::<Vec<_>>().join(", ");
    server.state.arm([Harm::Tell { body: format!(r#"{{"messages":[{listed}],"total":4,"total_pages":1}}"#) }.into()]);
    with_source(cloud, "api", &server, async || {
        let outcome =
            cloud.run(&format!("{}-03-05", stretch.year), &format!("{}-03-06", stretch.year)).await?.completed()?;
        ensure!(outcome.count("source") == 4 && outcome.count("quarantined") == 4, "{}", outcome.report);
        let mut reasons: Vec<String> = cloud.quarantined(&stretch).await?.into_iter().map(|line| line.reason).collect();
        let mut expected = elements.map(|(_, reason)| reason.to_owned());
        reasons.sort();
        expected.sort();
        ensure!(reasons == expected, "{reasons:?}");
        Ok(())
    })
    .await
}

/// A stretch of days around the border. It is no year of its own: the border moves with the clock.
struct Recent {
    stretch: Stretch,
    border: Timestamp,
}

impl Recent {
    fn new(prefix: &str) -> Self {
        let border = Timestamp::now() - SignedDuration::from_hours(45 * 24);
        Recent { stretch: Stretch { year: 0, prefix: prefix.to_owned() }, border }
    }

    fn message(&self, name: &str, hours: i64) -> Message {
        Message::closed(&self.stretch, name, &iso(self.border + SignedDuration::from_hours(hours)))
    }

    async fn archived(&self, cloud: &Cloud) -> Result<Vec<Archived>> {
        // No message lies further from the border than 17 days.
        let month = |days: i64| (self.border + SignedDuration::from_hours(days * 24)).strftime("%Y-%m").to_string();
        let mut rows = Vec::new();
        for month in BTreeSet::from([month(-17), month(0), month(17)]) {
            rows.extend(cloud.parquet(&format!("archive/parquet/date={month}")).await?);
        }
        rows.retain(|row| row.message_id.starts_with(&format!("{}-", self.stretch.prefix)));
        rows.sort_by(|left, right| left.message_id.cmp(&right.message_id));
        Ok(rows)
    }

    async fn run(&self, cloud: &Cloud, from_hours: i64, to_hours: i64) -> Result<Outcome> {
        let edge = |hours| iso(self.border + SignedDuration::from_hours(hours));
        cloud.run(&edge(from_hours), &edge(to_hours)).await
    }
}

async fn a_range_over_the_border_loses_and_doubles_nothing(cloud: &Cloud) -> Result<()> {
    let (recent, server) = (Recent::new("border"), server().await?);
    let messages: Vec<Message> =
        (-60..60).map(|number| recent.message(&format!("{:04}", number + 1000), number * 5)).collect();
    cloud.load(&messages).await?;
    load(&server, &messages);
    server.state.set(Settings { keep_days: Some(60), ..Settings::default() });
    with_source(cloud, "hybrid", &server, async || {
        for (archived, already) in [(120, 0), (0, 120)] {
            let outcome = recent.run(cloud, -400, 400).await?.completed()?;
            ensure!(outcome.count("source") == 120, "{}", outcome.report);
            ensure!(
                outcome.count("archived") == archived && outcome.count("already_archived") == already,
                "{}",
                outcome.report
            );
            let rows = recent.archived(cloud).await?;
            ensure!(rows.len() == 120, "{} rows", rows.len());
            for (row, message) in rows.iter().zip(&messages) {
                ensure!(row.message_id == message.id && row.message.as_bytes() == message.source, "{}", row.message_id);
                ensure!(row.source_index == message.index, "{} of {}", row.message_id, row.source_index);
            }
        }
        Ok(())
    })
    .await
}

async fn the_bytes_of_the_index_win_once_and_stay(cloud: &Cloud) -> Result<()> {
    let (recent, server) = (Recent::new("spelling"), server().await?);
    let indexed: Vec<Message> = (1..8).map(|number| recent.message(&format!("{number:04}"), number * 5)).collect();
    let spelled: Vec<Message> = indexed.iter().map(|message| message.changed("as the API spells it")).collect();
    cloud.load(&indexed).await?;
    load(&server, &spelled);
    let holds = async |messages: &[Message]| -> Result<()> {
        let rows = recent.archived(cloud).await?;
        ensure!(rows.len() == messages.len(), "{} rows", rows.len());
        ensure!(
            rows.iter().zip(messages).all(|(row, message)| row.message.as_bytes() == message.source),
            "{:?}",
            rows[0]
        );
        Ok(())
    };
    with_source(cloud, "hybrid", &server, async || {
        recent.run(cloud, 0, 40).await?.completed()?;
        holds(&spelled).await
    })
    .await?;
    let from_index = recent.run(cloud, 0, 40).await?.completed()?;
    ensure!(from_index.count("archived") == 7, "{}", from_index.report);
    holds(&indexed).await?;
    with_source(cloud, "hybrid", &server, async || {
        let again = recent.run(cloud, 0, 40).await?.completed()?;
        ensure!(again.count("already_archived") == 7, "{}", again.report);
        holds(&indexed).await
    })
    .await
}

async fn a_message_that_no_index_had_gets_its_index_later_and_is_archived_once(cloud: &Cloud) -> Result<()> {
    let (recent, server) = (Recent::new("rekeyed"), server().await?);
    let messages: Vec<Message> = (1..8).map(|number| recent.message(&format!("{number:04}"), number * 5)).collect();
    load(&server, &messages);
    with_source(cloud, "hybrid", &server, async || {
        recent.run(cloud, 0, 40).await?.completed()?;
        ensure!(recent.archived(cloud).await?.iter().all(|row| row.source_index == "api"), "an index knows them");
        cloud.load(&messages).await?;
        for _ in 0..2 {
            let again = recent.run(cloud, 0, 40).await?.completed()?;
            ensure!(again.count("already_archived") == 7 && again.count("archived") == 0, "{}", again.report);
            ensure!(recent.archived(cloud).await?.len() == 7, "archived twice");
        }
        for message in &messages {
            let rows = cloud.ledger_rows(&message.id).await?;
            ensure!(rows == [message.index.clone()], "{} is known as {rows:?}", message.id);
        }
        Ok(())
    })
    .await
}
