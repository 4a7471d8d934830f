//! The mail of a run over a cloud in memory.

use alerts::run::payloads::{ReportRequest, Version};
use async_trait::async_trait;
use errors::Named;
use memory_cloud::{
    Cloud, fail_each_request,
    given::{RUN, from, to},
};
use network::{Broken, Network, OneFault, Request, Strike};
use send_summary::{Deps, handle};
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

fn deps(cloud: &Cloud) -> Deps {
    Deps {
        objects: cloud.objects(),
        job_runs: cloud.job_runs(),
        mailer: cloud.mailer(),
        from: "archive@example.com".into(),
        to: cloud.recipients("operations@example.com, support@example.com"),
        dashboard: None,
    }
}

fn request() -> ReportRequest {
    ReportRequest { v: Version, run_id: RUN.into(), report_key: "runs/r1/report.json".into(), reported_at: 0 }
}

async fn given_report(cloud: &Cloud, attempt: u64) {
    let report = json!({
        "run_id": RUN, "mode": "range", "from": from(), "to": to(), "status": "Completed", "attempt": attempt,
        "windows": {"planned": 1, "succeeded": 1, "failed": 0},
        "messages": {"source": 3, "archived": 3, "open": 0, "quarantined": 0, "already_archived": 0, "no_alerts": 0},
        "recheck": {"looked_at": 0, "closed": 0, "open": 0, "gone": 0},
        "sweep": {"late": 0, "changed": 0, "reopened": 0}, "collisions": 0, "undated": 0, "backlog": 0,
        "bytes": {"source": 9, "archive": 3}, "reconciled": true, "failures": [], "unresolved": [],
        "reported_at": to(),
    });
    let objects = cloud.objects();
    objects.put_json("runs/r1/report.json", &report).await.expect("written");
    let details = json!({"oldest_open": [], "quarantine_reasons": []});
    objects.put_json("runs/r1/details.json", &details).await.expect("written");
}

async fn reported() -> Cloud {
    let cloud = Cloud::default();
    cloud.given_run("range").await;
    given_report(&cloud, 1).await;
    cloud
}

fn subjects(cloud: &Cloud) -> Vec<(String, String)> {
    cloud.mails.sent().iter().map(|mail| (mail.to.clone(), mail.header("Subject").expect("a subject"))).collect()
}

#[tokio::test]
async fn each_attempt_of_a_run_mails_each_recipient_once() {
    let cloud = reported().await;
    for _ in 0..2 {
        handle(&deps(&cloud), request(), cloud.call()).await.expect("sent");
    }
    let first = cloud.mails.sent();
    assert_eq!(
        first.iter().map(|mail| mail.to.as_str()).collect::<Vec<_>>(),
        ["operations@example.com", "support@example.com"]
    );
    assert!(first[0].header("Message-ID").expect("an id").starts_with("<r1.1@"));
    given_report(&cloud, 2).await;
    cloud.job_runs().change(RUN, |row| row.attempt = 2).await.expect("noted");
    handle(&deps(&cloud), request(), cloud.call()).await.expect("sent");
    assert_eq!(cloud.mails.sent().len(), 4);
}

/// The next attempt of the run begins before its row is written for the first time.
struct NextAttempt(Cloud, AtomicBool);

#[async_trait]
impl Network for NextAttempt {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        if request.operation == "PutItem" && !self.1.swap(true, Ordering::SeqCst) {
            self.0.job_runs().change(RUN, |row| row.attempt = 2).await.expect("noted");
        }
        Ok(())
    }
}

#[tokio::test]
async fn an_attempt_that_is_not_the_last_any_more_is_not_mailed() {
    let cloud = reported().await;
    let next = Arc::new(NextAttempt(cloud.clone(), AtomicBool::new(false)));
    for seen in [cloud.through(next), cloud.clone()] {
        handle(&deps(&seen), request(), seen.call()).await.expect("nothing to do");
        assert_eq!(cloud.job_run(RUN)["attempt"], 2);
        assert_eq!(subjects(&cloud), []);
    }
}

#[tokio::test]
async fn a_recipient_whom_ses_refuses_loses_nobody_else_s_mail() {
    let cloud = reported().await;
    let cloud = Cloud { mails: cloud.mails.clone().refusing("operations@example.com"), ..cloud };
    handle(&deps(&cloud), request(), cloud.call()).await.expect("one got it");
    assert_eq!(cloud.mails.sent().len(), 1);
    let mut nobody = deps(&cloud);
    nobody.to = cloud.recipients("operations@example.com");
    let error = handle(&nobody, request(), cloud.call()).await.expect_err("nobody got it");
    assert_eq!(error.name(), "MailRejected");
}

#[tokio::test]
async fn a_run_without_a_row_or_a_report_has_no_mail() {
    let cloud = Cloud::default();
    given_report(&cloud, 1).await;
    assert_eq!(handle(&deps(&cloud), request(), cloud.call()).await.expect_err("no row").name(), "PlanMissing");
    let cloud = Cloud::default();
    cloud.given_run("range").await;
    assert_eq!(handle(&deps(&cloud), request(), cloud.call()).await.expect_err("no report").name(), "ObjectMissing");
    assert!(cloud.mails.sent().is_empty());
}

#[tokio::test]
async fn a_run_that_died_before_its_report_is_mailed_once_with_its_cause() {
    let cloud = Cloud::default();
    cloud.given_run("range").await;
    let job_runs = cloud.job_runs();
    let died = job_runs.change(RUN, |row| {
        row.status = alerts::run::job_run::RunStatus::Failed;
        row.error = Some("SourceUnavailable".into());
        row.message = Some("no answer within 30 s".into());
    });
    died.await.expect("noted");
    for _ in 0..2 {
        handle(&deps(&cloud), request(), cloud.call()).await.expect("sent");
    }
    let mails = cloud.mails.sent();
    assert_eq!(mails.len(), 2, "one a recipient");
    assert!(mails[0].message.contains("SourceUnavailable") && mails[0].message.contains("no answer within 30 s"));
    assert!(mails[0].header("Subject").expect("a subject").contains("Failed before its report"));
}

#[tokio::test]
async fn a_redrive_that_dies_after_a_report_is_mailed_with_what_that_report_says() {
    let cloud = reported().await;
    let mut report = cloud.json("runs/r1/report.json");
    let failure = json!({"window_id": "w1", "error": "CountMismatch", "message": "5 counted, 4 read", "messages": 433});
    report["failures"] = json!([failure]);
    (report["status"], report["windows"]) = (json!("Failed"), json!({"planned": 2, "succeeded": 1, "failed": 1}));
    cloud.objects().put_json("runs/r1/report.json", &report).await.expect("written");
    let job_runs = cloud.job_runs();
    let died = job_runs.change(RUN, |row| {
        row.status = alerts::run::job_run::RunStatus::Failed;
        row.attempt = 2;
        row.error = Some("ExecutionDied".into());
    });
    died.await.expect("noted");
    handle(&deps(&cloud), request(), cloud.call()).await.expect("sent");
    let mail = &cloud.mails.sent()[0];
    assert!(mail.header("Message-ID").expect("an id").starts_with("<r1.2-ExecutionDied@"));
    for said in ["CountMismatch", "ExecutionDied", "433"] {
        assert!(mail.message.contains(said), "{said}: {}", mail.message);
    }
    assert!(!mail.message.contains("Nothing was counted"));
}

#[tokio::test]
async fn the_release_of_one_message_is_not_mailed_to_everybody() {
    let cloud = reported().await;
    let mut report = cloud.json("runs/r1/report.json");
    report["to"] = report["from"].clone();
    cloud.objects().put_json("runs/r1/report.json", &report).await.expect("written");
    handle(&deps(&cloud), request(), cloud.call()).await.expect("nothing to do");
    assert!(cloud.mails.sent().is_empty());
}

#[tokio::test]
async fn whatever_request_fails_the_mail_goes_out_and_only_a_marked_one_twice() {
    let send = async |cloud: &Cloud| handle(&deps(cloud), request(), cloud.call()).await;
    let outbox = |cloud: &Cloud| {
        let outbox = cloud.job_run(RUN)["outbox"].clone();
        outbox
            .as_object()
            .map(|notes| notes.iter().map(|(note, once)| (note.clone(), once["sent"].clone())).collect::<Vec<_>>())
    };
    let requests = fail_each_request(reported, send, outbox).await;
    for strike in [Strike::Request, Strike::Answer] {
        for nth in 0..requests {
            let cloud = reported().await;
            let _ = send(&cloud.through(OneFault::at(nth, strike))).await;
            send(&cloud).await.expect("sent");
            for recipient in ["operations@example.com", "support@example.com"] {
                let mails: Vec<String> = subjects(&cloud)
                    .into_iter()
                    .filter(|(to, _)| to == recipient)
                    .map(|(_, subject)| subject)
                    .collect();
                let first_is_whole = !mails.is_empty() && mails.len() <= 2;
                let second_says_so = mails.get(1).is_none_or(|subject| subject.starts_with("[duplicate]"));
                assert!(first_is_whole && second_says_so, "{strike:?} {nth}: {mails:?}");
            }
        }
    }
}
