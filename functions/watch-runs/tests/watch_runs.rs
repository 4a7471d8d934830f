//! The count of days, and the mail about them, over a cloud in memory.

use alerts::run::job_run::{JobRun, RunStatus};
use memory_cloud::{Cloud, fail_each_request, given::RUN};
use std::time::Duration;
use watch_runs::{Deps, Request, Silence, handle};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn deps(cloud: &Cloud) -> Deps {
    Deps {
        job_runs: cloud.job_runs(),
        mailer: cloud.mailer(),
        from: "archive@example.com".into(),
        to: cloud.recipients("operations@example.com"),
        dashboard: None,
        silent_days: 8,
    }
}

async fn days(cloud: &Cloud) -> Option<u64> {
    handle(&deps(cloud), Request {}, cloud.call()).await.expect("a count").days
}

async fn complete(cloud: &Cloud) {
    let now = cloud.call().now();
    let job_runs = cloud.job_runs();
    let completed = job_runs.runs.update(RUN, None, |run| {
        let run = run.expect("a run").clone();
        Ok::<_, storage::LedgerError>(Some(JobRun { status: RunStatus::Completed, updated_at: now, ..run }))
    });
    completed.await.expect("written");
}

#[tokio::test]
async fn days_without_a_completed_run_are_counted_from_the_row_of_the_last_one() {
    let cloud = Cloud::default();
    assert_eq!(days(&cloud).await, None, "no run yet");
    cloud.given_run("scheduled").await;
    cloud.clock.advance(3 * DAY);
    assert_eq!(days(&cloud).await, Some(3), "since the first was planned");
    complete(&cloud).await;
    assert_eq!(days(&cloud).await, Some(0));
    cloud.clock.advance(9 * DAY);
    assert_eq!(days(&cloud).await, Some(9));
}

#[tokio::test]
async fn a_request_that_fails_is_an_error_and_the_next_call_counts_the_same() {
    let set_up = async || {
        let cloud = Cloud::default();
        cloud.given_run("scheduled").await;
        cloud.clock.advance(2 * DAY);
        cloud
    };
    let work = async |cloud: &Cloud| {
        let silence = handle(&deps(cloud), Request {}, cloud.call()).await?;
        assert_eq!(silence, Silence { days: Some(2) });
        Ok::<_, watch_runs::Error>(())
    };
    assert_eq!(fail_each_request(set_up, work, |cloud| cloud.job_run(RUN)).await, 1);
}

#[tokio::test]
async fn runs_that_stay_away_are_mailed_once_a_week_until_one_completes() {
    let cloud = Cloud::default();
    cloud.given_run("scheduled").await;
    complete(&cloud).await;
    let mails_after_each_of = async |number: u32| {
        let mut mails = Vec::new();
        for _ in 0..number {
            cloud.clock.advance(DAY);
            for _ in 0..4 {
                days(&cloud).await;
            }
            mails.push(cloud.mails.sent().len());
        }
        mails
    };
    // Nothing for eight days, one mail for the rest of the second week, another with the third.
    assert_eq!(mails_after_each_of(15).await, [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2]);
    let mails = cloud.mails.sent();
    assert_eq!(mails[0].header("Subject").as_deref(), Some("Alert archive: no run for 9 days"));
    assert!(mails[0].message.contains("alert-archive doctor"), "{}", mails[0].message);
    assert_eq!(mails[0].header("References"), mails[1].header("References"), "one thread");
    complete(&cloud).await;
    assert_eq!(mails_after_each_of(9).await, [2, 2, 2, 2, 2, 2, 2, 2, 3], "another silence");
}

#[tokio::test]
async fn a_mail_that_cannot_go_out_now_is_an_error_and_goes_out_later() {
    let cloud = Cloud::default();
    cloud.given_run("scheduled").await;
    cloud.clock.advance(9 * DAY);
    let refusing = Cloud { mails: cloud.mails.clone().refusing("operations@example.com"), ..cloud.clone() };
    assert!(handle(&deps(&refusing), Request {}, cloud.call()).await.is_err());
    days(&cloud).await;
    assert_eq!(cloud.mails.sent().len(), 1);
}
