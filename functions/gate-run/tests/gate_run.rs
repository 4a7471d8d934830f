//! The gate over a cloud in memory.

use alerts::{
    keys::looked_at_key,
    mode::Mode,
    run::{
        lock::Held,
        looked_at::LookedAt,
        payloads::{Collected, Version},
    },
    window::plan::Left,
};
use errors::Named;
use gate_run::{Deps, Error, handle};
use memory_cloud::{
    Cloud, fail_each_request,
    given::{RUN, arn, day, from, to},
};
use storage::LedgerError;

const FAILED: &str = "runs/r1/windows-failed-1.jsonl";

fn deps(cloud: &Cloud) -> Deps {
    Deps { objects: cloud.objects(), job_runs: cloud.job_runs(), workflow: cloud.workflow() }
}

fn collected(failed: u64) -> Collected {
    Collected {
        v: Version,
        run_id: RUN.into(),
        mode: Mode::Scheduled,
        execution_arn: arn(RUN),
        bucket: memory_cloud::BUCKET.into(),
        report_key: "runs/r1/report.json".into(),
        failed,
        windows: failed,
        windows_key: FAILED.into(),
        reported_at: 0,
        attempt: Some(1),
    }
}

/// A scheduled run that holds its range and whose second and third window failed.
async fn reported() -> Cloud {
    let cloud = Cloud::default();
    cloud.given_run("scheduled").await;
    cloud.given_list(FAILED, &[day(2), day(1)]).await;
    let report = serde_json::json!({"attempt": 1});
    cloud.objects().put_json("runs/r1/report.json", &report).await.expect("written");
    let held = Held { holder: RUN.into(), execution_arn: arn(RUN), from: from(), to: to(), until: None };
    assert!(take(&cloud, held).await);
    cloud
}

/// Whether the range was free, where every holder is taken for alive.
async fn take(cloud: &Cloud, held: Held) -> bool {
    let holder = cloud.job_runs().acquire(&held, cloud.call().now(), async |_| Ok::<_, LedgerError>(true)).await;
    holder.expect("asked").is_none()
}

async fn is_held(cloud: &Cloud) -> bool {
    let other = Held { holder: "other".into(), execution_arn: arn("other"), from: from(), to: to(), until: None };
    let is_free = take(cloud, other).await;
    cloud.job_runs().release("other", &arn("other")).await.expect("released");
    !is_free
}

#[tokio::test]
async fn a_run_without_failures_is_completed_and_moves_the_watermark_to_its_end() {
    let cloud = reported().await;
    let gate = handle(&deps(&cloud), collected(0), cloud.call()).await.expect("passed");
    assert!(!gate.retry);
    assert_eq!(cloud.job_run(RUN)["status"], "Completed");
    assert_eq!(cloud.job_runs().watermark().await.expect("read"), Some(to()));
    assert!(!is_held(&cloud).await);
}

#[tokio::test]
async fn a_capped_run_moves_the_watermark_to_where_the_next_one_begins_whatever_its_row_says() {
    for (failed, expected) in [(0, day(2).from), (2, day(1).from)] {
        let cloud = reported().await;
        let left = Some(Left { from: day(2).from, to: to(), messages: 3 });
        let looked_at = LookedAt { left, ..LookedAt::default() };
        cloud.objects().put_json(&looked_at_key(RUN), &looked_at).await.expect("stored");
        assert_eq!(handle(&deps(&cloud), collected(failed), cloud.call()).await.is_ok(), failed == 0);
        assert_eq!(cloud.job_runs().watermark().await.expect("read"), Some(expected));
    }
}

#[tokio::test]
async fn failed_windows_fail_the_execution_and_hold_the_watermark_at_the_first_of_them() {
    let cloud = reported().await;
    let error = handle(&deps(&cloud), collected(2), cloud.call()).await.expect_err("two windows failed");
    assert_eq!(error.name(), "WindowsFailed");
    assert_eq!(cloud.job_run(RUN)["status"], "Failed");
    assert_eq!(cloud.job_runs().watermark().await.expect("read"), Some(day(1).from));
    assert!(!is_held(&cloud).await);
}

#[tokio::test]
async fn a_redrive_sends_the_failed_windows_round_again_and_a_retry_does_not() {
    let cloud = reported().await;
    for _ in 0..2 {
        handle(&deps(&cloud), collected(2), cloud.call()).await.expect_err("a Retry is no redrive");
    }
    cloud.executions.end(&arn(RUN), "FAILED", Some("WindowsFailed"));
    cloud.workflow().redrive(&arn(RUN)).await.expect("redriven");
    for _ in 0..2 {
        // The second time is a Retry after a lost answer: the same redrive counts once.
        let gate = handle(&deps(&cloud), collected(2), cloud.call()).await.expect("round again");
        assert!(gate.retry);
        assert_eq!((&cloud.job_run(RUN)["attempt"], &cloud.job_run(RUN)["status"]), (&2.into(), &"Running".into()));
        assert!(is_held(&cloud).await);
    }
    let done = Collected { reported_at: 1, attempt: Some(2), ..collected(0) };
    assert!(!handle(&deps(&cloud), done, cloud.call()).await.expect("passed").retry);
}

#[tokio::test]
async fn a_redrive_before_the_death_was_noted_is_an_attempt_of_its_own_so_that_it_is_mailed() {
    let cloud = reported().await;
    // Aborted between the report and the gate: the row still says Running.
    cloud.executions.end(&arn(RUN), "ABORTED", None);
    cloud.workflow().redrive(&arn(RUN)).await.expect("redriven");
    for _ in 0..2 {
        assert!(handle(&deps(&cloud), collected(2), cloud.call()).await.expect("round again").retry);
        assert_eq!(cloud.job_run(RUN)["attempt"], 2);
    }
}

#[tokio::test]
async fn what_another_execution_of_the_run_goes_on_with_is_neither_ended_nor_released() {
    let cloud = reported().await;
    cloud.executions.end(&arn(RUN), "ABORTED", None);
    let other = cloud.start("f1", &serde_json::json!({})).await;
    cloud.job_runs().change(RUN, |row| row.take_over(&other, row.updated_at)).await.expect("taken over");
    let held = Held { holder: RUN.into(), execution_arn: other.clone(), from: from(), to: to(), until: None };
    cloud.job_runs().release(RUN, &arn(RUN)).await.expect("released");
    assert!(take(&cloud, held).await);
    let before = cloud.rows("job-runs");
    // Late, then redriven while the other is at work.
    for failed in [0, 2, 0, 2] {
        let error = handle(&deps(&cloud), collected(failed), cloud.call()).await.expect_err("the other goes on");
        assert_eq!((error.name().as_str(), cloud.rows("job-runs") == before), ("RangeBusy", true), "{error}");
        if failed == 2 {
            let _ = cloud.workflow().redrive(&arn(RUN)).await;
        }
    }
    // The other dies: whatever this one had reported is reported anew, as one attempt more.
    cloud.executions.end(&other, "ABORTED", None);
    for _ in 0..2 {
        assert!(handle(&deps(&cloud), collected(0), cloud.call()).await.expect("round again").retry);
        assert_eq!(
            (&cloud.job_run(RUN)["attempt"], &cloud.job_run(RUN)["execution_arn"]),
            (&3.into(), &arn(RUN).into())
        );
    }
}

#[tokio::test]
async fn a_range_that_another_run_has_taken_meanwhile_is_not_taken_back() {
    let cloud = reported().await;
    handle(&deps(&cloud), collected(2), cloud.call()).await.expect_err("two windows failed");
    let other = cloud.start("other", &serde_json::json!({})).await;
    let held = Held { holder: "other".into(), execution_arn: other, from: from(), to: to(), until: None };
    assert!(take(&cloud, held).await);
    cloud.executions.end(&arn(RUN), "FAILED", None);
    cloud.workflow().redrive(&arn(RUN)).await.expect("redriven");
    let error = handle(&deps(&cloud), collected(2), cloud.call()).await.expect_err("the range is taken");
    assert_eq!(error.name(), "RangeBusy");
}

#[tokio::test]
async fn whatever_request_fails_the_gate_can_be_passed_again() {
    let look = |cloud: &Cloud| {
        let mut rows = cloud.rows("job-runs");
        for row in &mut rows {
            row["revision"] = 0.into();
        }
        rows
    };
    let pass = async |cloud: &Cloud| handle(&deps(cloud), collected(0), cloud.call()).await;
    assert!(fail_each_request(reported, pass, look).await >= 8);
    // Failed windows are the end of this one, too.
    let fail = async |cloud: &Cloud| match handle(&deps(cloud), collected(2), cloud.call()).await {
        Err(Error::WindowsFailed { .. }) => Ok(()),
        other => Err(other),
    };
    assert!(fail_each_request(reported, fail, look).await >= 9);
}
