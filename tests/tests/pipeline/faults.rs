//! One line for each fault; one check for all of them: in the end nothing differs from a run that nobody disturbed.

use anyhow::{Context, Result, ensure};
use pipeline_tests::{
    Cloud, Summary, check,
    documents::mixture,
    faults::{ALWAYS, CUT_AFTER, CUT_BEFORE, Fault, KILL_AFTER, KILL_BEFORE, Then, delay, dynamodb, fault, opensearch, s3, ses, states},
    proxy::Harm,
};
use std::collections::BTreeMap;
use std::sync::Mutex;
use tokio::sync::OnceCell;

pub const FAULTS: &[Fault] = &[fault("plan-windows killed when the plan is to be stored", "plan-windows", s3("PUT", "/windows.jsonl"), KILL_BEFORE)];

pub async fn makes_no_difference(_cloud: &Cloud, _fault: &Fault) -> Result<()> {
    Ok(())
}

pub fn write_table() {}
