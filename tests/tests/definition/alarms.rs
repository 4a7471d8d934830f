//! Alarms that can fire, and deliveries that cannot get lost unseen.

use crate::plan::{Resource, of_kind};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// CloudWatch evaluates a week at most.
const LONGEST_SECONDS: u64 = 7 * 86400;

#[test]
fn every_alarm_can_fire_and_reaches_the_operators() {
    let alarms: Vec<Resource> = of_kind("aws_cloudwatch_metric_alarm").cloned().collect();
    assert_eq!(faults(&alarms), Vec::<String>::new());
}

#[test]
fn what_alarms_watch_of_ours_is_written_by_the_function_that_they_name() {
    let figures = |folder: &str| -> String {
        let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder).join("src");
        let files = std::fs::read_dir(&sources).unwrap_or_else(|error| panic!("{}: {error}", sources.display()));
        files.map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("text")).collect()
    };
    let of_warehouse = of_kind("aws_cloudwatch_metric_alarm").filter(|alarm| {
        alarm.values["namespace"] == "AlertArchive" && alarm.values["dimensions"]["Function"].is_string()
    });
    let mut watched = 0;
    for alarm in of_warehouse {
        let function = alarm.values["dimensions"]["Function"].as_str().unwrap_or_default();
        let figure = format!(".figure(\"{}\"", alarm.text("metric_name"));
        assert!(figures(&format!("functions/{function}")).contains(&figure), "{function} writes no {figure}");
        watched += 1;
    }
    assert!(watched >= 4, "only {watched} alarms");
}

#[test]
fn an_alarm_that_cannot_fire_is_caught() {
    let caught = |attribute: &str, value: Value, expected: &str| {
        let mut alarm = of_kind("aws_cloudwatch_metric_alarm").next().expect("an alarm").clone();
        alarm.values[attribute] = value;
        let faults = faults(&[alarm]);
        assert!(faults.iter().any(|fault| fault.contains(expected)), "expected `{expected}`, found {faults:?}");
    };
    caught("evaluation_periods", json!(10_000), "more than a week");
    caught("alarm_actions", json!([]), "tells no operator");
    caught("dimensions", json!({"FunctionName": "alert-archive-gone"}), "`alert-archive-gone`");
}

#[test]
fn functions_tables_and_dead_letter_queues_are_watched() {
    let watched = |dimension: &str, name: &str| -> BTreeSet<&str> {
        let alarms =
            of_kind("aws_cloudwatch_metric_alarm").filter(|alarm| alarm.values["dimensions"][dimension] == name);
        alarms.map(|alarm| alarm.text("metric_name")).collect()
    };
    for function in of_kind("aws_lambda_function") {
        let name = function.text("function_name");
        assert_eq!(watched("FunctionName", name), ["Errors", "Throttles", "Duration"].into(), "{name}");
    }
    for table in of_kind("aws_dynamodb_table") {
        let name = table.text("name");
        assert_eq!(watched("TableName", name), ["ReadThrottleEvents", "WriteThrottleEvents"].into(), "{name}");
    }
    for queue in of_kind("aws_sqs_queue").filter(|queue| is_dead_letter(queue)) {
        let name = queue.text("name");
        assert!(
            watched("QueueName", name).contains("ApproximateNumberOfMessagesVisible"),
            "no operator hears of messages in {name}"
        );
    }
}

/// What a queue calls is called again when the message that it failed shows itself again, and no sooner.
#[test]
fn operators_hear_of_a_function_that_a_queue_calls_and_that_fails_each_time() {
    let mappings: Vec<&Resource> = of_kind("aws_lambda_event_source_mapping").collect();
    assert!(mappings.len() >= 3);
    for mapping in mappings {
        let queue = of_kind("aws_sqs_queue")
            .find(|queue| queue.module == mapping.module && queue.address.ends_with(".events"))
            .expect("the queue of the mapping");
        let hidden = queue.values["visibility_timeout_seconds"].as_u64().expect("seconds");
        let window = mapping.values["maximum_batching_window_in_seconds"].as_u64().unwrap_or_default();
        let function = mapping.text("function_name").rsplit(':').next().expect("a name");
        let alarm = of_kind("aws_cloudwatch_metric_alarm")
            .find(|alarm| {
                alarm.text("metric_name") == "Errors" && alarm.values["dimensions"]["FunctionName"] == function
            })
            .unwrap_or_else(|| panic!("no alarm on errors of {function}"));
        let number = |attribute: &str| alarm.values[attribute].as_u64().expect("a number");
        let failures = number("period") / (hidden + window);
        assert!(failures > number("threshold"), "{function} fails {failures} times in the period of its alarm");
        // One that fails once and then does its work is no news.
        assert!(number("evaluation_periods") >= 2, "{function}");
    }
}

#[test]
fn operators_hear_of_each_workflow_that_ends_badly() {
    let rules: BTreeSet<&str> = of_kind("aws_cloudwatch_event_rule").map(|rule| rule.text("name")).collect();
    let machines = of_kind("aws_sfn_state_machine").map(|machine| machine.text("name"));
    let unheard: BTreeSet<&str> =
        machines.filter(|name| !rules.contains(format!("{name}-ended-badly").as_str())).collect();
    // What is itself started by such an end.
    let expected = BTreeSet::from(["alert-archive-mark-dead-run"]);
    assert_eq!(unheard, expected, "infra/main.tf: `workflows` of module.monitoring lacks the others on the left");
}

#[test]
fn what_a_schedule_or_a_rule_cannot_deliver_is_kept() {
    let group = of_kind("aws_scheduler_schedule_group").next().expect("a schedule group").text("name");
    for schedule in of_kind("aws_scheduler_schedule") {
        assert_eq!(schedule.text("group_name"), group, "{} is in the group of all schedules", schedule.address);
        assert!(
            schedule.values["target"][0]["dead_letter_config"][0]["arn"].is_string(),
            "{} has no dead-letter queue",
            schedule.address
        );
    }
    let queue = of_kind("aws_sqs_queue_policy").find(|policy| policy.address.ends_with(".undelivered"));
    let policy = queue.expect("the policy of the queue").json("policy");
    let rules = policy["Statement"][0]["Condition"]["ArnLike"]["aws:SourceArn"].as_str().expect("whose rules");
    let prefix = rules.split_once(":rule/").expect("rules").1.strip_suffix('*').expect("all of a prefix");
    for target in of_kind("aws_cloudwatch_event_target") {
        assert!(target.text("rule").starts_with(prefix), "{} may not send to the queue", target.address);
        assert_eq!(
            target.values["dead_letter_config"].as_array().map(Vec::len),
            Some(1),
            "{} has no dead-letter queue",
            target.address
        );
    }
}

#[test]
fn event_bridge_may_publish_without_a_condition() {
    let policy = of_kind("aws_sns_topic_policy").next().expect("the policy of the topic").json("policy");
    let statements = policy["Statement"].as_array().expect("statements");
    let events = statements.iter().find(|statement| statement["Principal"]["Service"] == "events.amazonaws.com");
    assert!(events.expect("a statement for EventBridge")["Condition"].is_null(), "EventBridge would be refused");
}

/// A queue without a redrive policy of its own is where other queues and services put what failed.
fn is_dead_letter(queue: &Resource) -> bool {
    queue.text("name").ends_with("-dlq") || queue.text("name").ends_with("-undelivered")
}

fn faults(alarms: &[Resource]) -> Vec<String> {
    const NAMED: [(&str, &str); 4] = [
        ("FunctionName", "aws_lambda_function"),
        ("TableName", "aws_dynamodb_table"),
        ("QueueName", "aws_sqs_queue"),
        ("ScheduleGroup", "aws_scheduler_schedule_group"),
    ];
    let mut faults = Vec::new();
    for alarm in alarms {
        let mut fault = |what: String| faults.push(format!("{}: {what}", alarm.address));
        let number = |attribute: &str| alarm.values[attribute].as_u64().unwrap_or_default();
        if number("period") * number("evaluation_periods") > LONGEST_SECONDS {
            fault("looks back for more than a week, which CloudWatch refuses".to_owned());
        }
        if alarm.values["alarm_actions"].as_array().is_none_or(Vec::is_empty) {
            fault("tells no operator".to_owned());
        }
        for (dimension, kind) in NAMED {
            let Some(name) = alarm.values["dimensions"][dimension].as_str() else { continue };
            let exists =
                of_kind(kind).any(|resource| resource.text("name") == name || resource.text("function_name") == name);
            if !exists {
                fault(format!("watches `{name}`, which is not deployed"));
            }
        }
    }
    faults
}
