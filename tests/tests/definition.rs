//! Checks what would be deployed without deploying it: neither the services nor the local cloud tell in advance that a
//! path leads nowhere, a timeout is too short, a retry hides a lasting error or a policy grants too much.

#[path = "definition/alarms.rs"]
mod alarms;
#[path = "definition/contract.rs"]
mod contract;
#[path = "definition/entries.rs"]
mod entries;
#[path = "definition/feeds.rs"]
mod feeds;
#[path = "definition/flow.rs"]
mod flow;
#[path = "definition/lint.rs"]
mod lint;
#[path = "definition/metrics.rs"]
mod metrics;
#[path = "definition/plan.rs"]
mod plan;
#[path = "definition/policies.rs"]
mod policies;
#[path = "definition/project.rs"]
mod project;

use project::{Function, Package, Project};
use serde_json::{Value, json};

#[test]
fn the_definitions_and_what_is_deployed_have_no_fault() {
    let faults = lint::faults(&Project::read());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Breaks a copy of the project and expects a fault that holds `expected`.
fn caught(expected: &str, damage: impl FnOnce(&mut Project)) {
    let mut project = Project::read();
    damage(&mut project);
    let faults = lint::faults(&project);
    assert!(
        faults.iter().any(|fault| fault.contains(expected)),
        "expected a fault with `{expected}`, found {faults:#?}"
    );
}

/// The same for damage at one place of the definition.
fn caught_at(pointer: &str, value: Value, expected: &str) {
    caught(expected, |project| project.set(pointer, value));
}

const CHILD: &str = "/States/Windows/ItemProcessor/States";

#[test]
fn a_transition_to_nowhere_is_caught() {
    caught_at("/States/PlanWindows/Next", json!("Nowhere"), "leads to `Nowhere`");
    caught_at("/States/AnyWindows?/Default", json!("Nowhere"), "leads to `Nowhere`");
    caught_at("/StartAt", json!("Nowhere"), "leads to `Nowhere`");
}

#[test]
fn a_state_that_nothing_reaches_is_caught() {
    caught_at(&format!("{CHILD}/Orphan"), json!({"Type": "Succeed"}), "`Orphan` is never reached");
}

#[test]
fn a_loop_without_an_exit_is_caught() {
    caught_at("/States/Retry?/Default", json!("AnyWindows?"), "`Retry?` never comes to an end");
}

#[test]
fn a_state_without_a_way_on_is_caught() {
    caught("neither Next nor End", |project| project.remove("/States/PlanWindows", "Next"));
}

#[test]
fn a_name_that_differs_between_state_folder_binary_and_terraform_is_caught() {
    caught("no folder functions/gate-run", |project| assert!(project.packages.remove("gate-run").is_some()));
    caught("functions/gate-run needs", |project| assert!(project.package("gate-run").binaries.remove("gate-run")));
    caught("functions/gate-run needs", |project| project.package("gate-run").name = "gate".into());
    caught("functions/gate-run/src/main.rs: its log would name `gate`", |project| {
        project.package("gate-run").serves = "gate".into()
    });
    caught("functions/gate-run: add `gate-run` to the map of functions in infra/archive.tf", |project| {
        assert!(project.functions.remove("gate-run").is_some())
    });
    caught("no function `gate-run` for the state `GateRun`", |project| {
        assert!(project.functions.remove("gate-run").is_some())
    });
    caught_at("/States/GateRun/Parameters/FunctionName", json!("arn:of:another"), "`GateRun` calls `arn:of:another`");
}

#[test]
fn a_function_that_nothing_starts_is_caught() {
    let spare = |project: &mut Project| {
        let (package, function) = (project.package("gate-run").clone(), project.function("gate-run").clone());
        let arn = "arn:spare".to_owned();
        project.packages.insert(
            "spare".into(),
            Package { name: "spare".into(), binaries: ["spare".into()].into(), serves: "spare".into(), ..package },
        );
        project.functions.insert("spare".into(), Function { arn: arn.clone(), ..function });
        arn
    };
    caught("nothing starts `spare`", |project| drop(spare(project)));
    for start in [
        |project: &mut Project, arn| project.queued.insert(arn),
        |project: &mut Project, arn| project.scheduled.insert(arn),
    ] {
        let mut project = Project::read();
        let arn = spare(&mut project);
        start(&mut project, arn);
        let faults = lint::faults(&project);
        assert!(!faults.iter().any(|fault| fault.contains("`spare`")), "{faults:#?}");
    }
}

#[test]
fn an_environment_that_differs_from_what_is_read_is_caught() {
    caught("infra/archive.tf: the environment of `gate-run` does not set ALERT_ARCHIVE_NEW", |project| {
        project.package("gate-run").reads.insert("ALERT_ARCHIVE_NEW".into());
    });
    caught("infra/archive.tf: the environment of `gate-run` sets ALERT_ARCHIVE_OLD", |project| {
        project.function("gate-run").environment.insert("ALERT_ARCHIVE_OLD".into());
    });
}

#[test]
fn a_timeout_not_above_the_functions_own_is_caught() {
    caught_at(&format!("{CHILD}/QueryMessages/TimeoutSeconds"), json!(900), "`QueryMessages` times out");
    caught("`GateRun` has no TimeoutSeconds", |project| project.remove("/States/GateRun", "TimeoutSeconds"));
    caught("no TimeoutSeconds of its own", |project| project.remove("", "TimeoutSeconds"));
}

#[test]
fn a_retry_that_is_not_for_passing_errors_is_caught() {
    let retry = |state: &str| format!("/States/{state}/Retry/0/ErrorEquals");
    caught_at(&retry("GateRun"), json!(["WindowsFailed"]), "retries `WindowsFailed`");
    caught_at(&retry("PlanWindows"), json!(["States.ALL"]), "retries `States.ALL`");
    caught_at(&retry("PlanWindows"), json!(["Lambda.ServiceException"]), "does not retry `LedgerUnavailable`");
    caught("`GateRun` does not retry `WindowBusy`: its function raises it", |project| {
        project.package("gate-run").raises.insert("WindowBusy".into());
    });
    caught("`SendSummary` has no Retry", |project| {
        project.remove("/States/Report/Branches/0/States/SendSummary", "Retry")
    });
}

#[test]
fn a_retry_without_jitter_or_bound_is_caught() {
    caught("without full jitter", |project| project.remove("/States/PlanWindows/Retry/0", "JitterStrategy"));
    caught("without MaxDelaySeconds", |project| project.remove("/States/PlanWindows/Retry/0", "MaxDelaySeconds"));
    caught_at("/States/PlanWindows/Retry/0/MaxAttempts", json!(0), "MaxAttempts");
}

#[test]
fn a_type_that_is_asked_of_an_absent_field_is_caught() {
    let choice = json!({"Variable": "$.input", "IsString": true, "Next": "CollectWindows"});
    caught_at("/States/AnyWindows?/Choices/0", choice, "`$.input` before IsPresent");
}

#[test]
fn functions_are_deployed_for_the_architecture_that_the_manifest_beside_the_zips_names() {
    for function in plan::of_kind("aws_lambda_function") {
        // What local/deploy.py writes for plans, which is not what a default would be.
        assert_eq!(function.values["architectures"], json!(["x86_64"]), "{}", function.address);
    }
}

#[test]
fn a_catch_in_front_of_the_gate_is_caught() {
    let catch = json!([{"ErrorEquals": ["States.ALL"], "Next": "CollectWindows"}]);
    caught_at("/States/Windows/Catch", catch.clone(), "`Windows` catches");
    caught_at(&format!("{CHILD}/ClassifyAlerts/Catch"), catch, "`ClassifyAlerts` catches");
}

#[test]
fn a_path_that_no_state_before_produced_is_caught() {
    caught_at("/States/CollectWindows/Parameters/Payload/mode.$", json!("$.modus"), "`$.modus`");
    caught_at("/States/AnyWindows?/Choices/0/Variable", json!("$.planned"), "`$.planned`");
    caught_at("/States/Windows/ItemReader/Parameters/Key.$", json!("$.key"), "`$.key`");
    caught_at("/States/Windows/ResultWriter/Parameters/Prefix.$", json!("States.Format('{}', $.run)"), "`$.run`");
    caught_at(
        "/States/PlanWindows/Parameters/Payload/run_id.$",
        json!("$$.Execution.RedriveCount"),
        "`$$.Execution.RedriveCount`",
    );
}

#[test]
fn a_payload_that_its_function_does_not_understand_is_caught() {
    caught("`PlanWindows` is not understood", |project| {
        project.remove("/States/PlanWindows/Parameters/Payload", "run_id.$")
    });
    caught("`QueryMessages` is not understood", |project| project.remove("/States/Windows/ItemSelector", "window.$"));
    caught("`v`", |project| project.remove("/States/Windows/ItemSelector", "v"));
    caught_at(
        "/States/GateRun/Parameters",
        json!({"FunctionName": "x", "Payload": {"v": 1}}),
        "`GateRun` is not understood",
    );
}

#[test]
fn the_payloads_of_the_log_report_are_followed_too() {
    let damaged = |pointer: &'static str, value: Value, expected: &str| {
        caught(expected, |project| {
            let machine = project.machines.get_mut("report-log-errors").expect("the log report's workflow");
            *machine.pointer_mut(pointer).expect("a place in the definition") = value;
        });
    };
    let key = "/States/Report/Branches/0/States/SendLogReport/Parameters/Payload/report_key.$";
    damaged(key, json!("$.key"), "statemachine/report-log-errors.asl.json: `SendLogReport` reads `$.key`");
    let parameters = "/States/SearchLogErrors/Parameters";
    damaged(parameters, json!({"Payload": {"v": 1}}), "`SearchLogErrors` is not understood");
    let output = "/States/SearchLogErrors/OutputPath";
    damaged(output, json!("$"), "statemachine/report-log-errors.asl.json: `SearchLogErrors` passes on more");
}

#[test]
fn what_the_contract_does_not_know_of_is_caught() {
    caught("tests/tests/definition/contract.rs does not say what `TidySpools` takes", |project| {
        let mut task = project.archive()["States"]["GateRun"].clone();
        task["Next"] = json!("GateRun");
        project.set("/States/TidySpools", task);
        project.set("/States/Report/Next", json!("TidySpools"));
    });
    caught("statemachine/another.asl.json: tests/tests/definition/contract.rs does not say", |project| {
        project.machines.insert("another".into(), project.archive().clone());
    });
    caught("tests/src/functions.rs: FUNCTIONS lacks `tidy-spools`", |project| {
        let task = project.archive()["States"]["GateRun"].clone();
        project.set("/States/TidySpools", task);
    });
}

#[test]
fn an_operator_that_does_not_fit_its_value_is_caught() {
    caught_at(
        "/States/Retry?/Choices/0",
        json!({"Variable": "$.retry", "StringEquals": "true", "Next": "AnyWindows?"}),
        "`$.retry`",
    );
}

#[test]
fn a_result_that_would_replace_the_runs_payload_is_caught() {
    caught("keeps the results of `Windows`", |project| project.remove("/States/Windows", "ResultPath"));
    caught("keeps the results of `Report`", |project| project.remove("/States/Report", "ResultPath"));
    caught("`GateRun` passes on", |project| project.remove("/States/GateRun", "OutputPath"));
}

#[test]
fn a_child_that_returns_more_than_nothing_is_caught() {
    caught("more than `{}`", |project| project.remove(&format!("{CHILD}/WindowDone"), "Result"));
    caught("without a ResultWriter", |project| project.remove("/States/Windows", "ResultWriter"));
}

#[test]
fn a_map_that_is_not_the_agreed_one_is_caught() {
    caught_at("/States/Windows/Label", json!("W".repeat(41)), "Label");
    caught_at("/States/Windows/ToleratedFailurePercentage", json!(99), "tolerates");
    caught_at("/States/Windows/MaxConcurrency", json!(0), "MaxConcurrency");
    caught_at("/States/Windows/ItemProcessor/ProcessorConfig/ExecutionType", json!("EXPRESS"), "STANDARD");
}

#[test]
fn a_payload_near_the_limit_is_caught() {
    caught("KiB", |project| {
        let plan = "/States/PlanWindows/Parameters/Payload/notes";
        project.set(plan, json!("x".repeat(250 * 1024)));
    });
}
