//! Reads the IAM policies as Terraform uses them: one role a function, no broad grants but those listed here.

use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// `Resource: *`, by policy and statement, and why there is nothing narrower.
const EVERYWHERE: &[(&str, &str, &str)] =
    &[("workflow", "LogDelivery", "log deliveries have no resource type: the service authorises these actions on * only")];

/// The services that each policy may speak of: one that leaves its own field is a mistake.
const SERVICES: &[(&str, &[&str])] = &[
    ("plan-windows", &["logs", "s3", "dynamodb", "states"]),
    ("query-messages", &["logs", "s3", "dynamodb"]),
    ("classify-alerts", &["logs", "s3", "dynamodb"]),
    ("write-partitions", &["logs", "s3", "dynamodb"]),
    ("collect-windows", &["logs", "s3", "dynamodb", "states"]),
    ("send-summary", &["logs", "s3", "dynamodb", "ses"]),
    ("aggregate-dashboard", &["logs", "s3", "dynamodb"]),
    ("gate-run", &["logs", "s3", "dynamodb", "states"]),
    ("source/plan-windows", &["es"]),
    ("source/query-messages", &["es"]),
    ("workflow", &["lambda", "s3", "states", "logs"]),
    ("scheduler", &["states"]),
    ("mark-dead-run", &["dynamodb"]),
    ("events", &["states"]),
];

#[test]
fn the_policies_grant_nothing_broad() {
    let faults = faults(&policies());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_function_has_a_role_and_a_policy_of_its_own() {
    let terraform = read("infra/modules/functions/main.tf");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../functions");
    let folders: BTreeSet<String> = fs::read_dir(folder).expect("functions/").map(|entry| name(&entry.expect("an entry").path())).collect();
    let policies: BTreeSet<String> = policies().into_keys().filter(|name| folders.contains(name)).collect();
    assert_eq!(policies, folders);
    for (resource, argument) in [
        ("\"aws_iam_role\" \"function\"", "for_each = local.environments"),
        ("\"aws_iam_role_policy\" \"function\"", "role = aws_iam_role.function[each.key].id"),
        ("\"aws_lambda_function\" \"function\"", "role = aws_iam_role.function[each.key].arn"),
        ("\"aws_cloudwatch_log_group\" \"function\"", "for_each = local.environments"),
    ] {
        let (_, block) = terraform.split_once(resource).unwrap_or_else(|| panic!("no resource {resource}"));
        let block = block.split("\n}").next().unwrap_or_default();
        let words: Vec<String> = block.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert!(words.iter().any(|line| line == argument), "{resource} has no `{argument}`");
    }
}

/// Breaks a copy of a policy's first statement and expects a fault that holds `expected`.
fn caught(policy: &str, field: &str, value: Value, expected: &str) {
    let mut policies = policies();
    policies.get_mut(policy).expect("a known policy")["Statement"][0][field] = value;
    let faults = faults(&policies);
    assert!(faults.iter().any(|fault| fault.contains(expected)), "expected a fault with `{expected}`, found {faults:#?}");
}

#[test]
fn broad_grants_are_caught() {
    caught("gate-run", "Action", json!("*"), "wildcard action `*`");
    caught("gate-run", "Action", json!(["s3:*"]), "wildcard action `s3:*`");
    caught("gate-run", "Action", json!(["dynamodb:Get*"]), "wildcard action `dynamodb:Get*`");
    caught("gate-run", "Resource", json!("*"), "resource `*`");
    caught("gate-run", "Resource", json!(["${bucket}/*"]), "the whole of `${bucket}`");
    caught("gate-run", "Resource", json!(["arn:aws:s3:::*"]), "resource `arn:aws:s3:::*`");
    caught("source/query-messages", "Action", json!(["es:ESHttpPut"]), "`es:ESHttpPut`");
    caught("gate-run", "NotAction", json!(["s3:DeleteObject"]), "NotAction");
}

#[test]
fn grants_outside_a_policys_field_are_caught() {
    caught("query-messages", "Action", json!(["ses:SendRawEmail"]), "has no business with `ses`");
    caught("write-partitions", "Action", json!(["s3:DeleteObject"]), "may delete");
    caught("classify-alerts", "Action", json!(["dynamodb:DeleteItem"]), "may delete");
}

#[test]
fn an_unused_exception_is_caught() {
    let mut policies = policies();
    let statements = policies.get_mut("workflow").and_then(|policy| policy["Statement"].as_array_mut()).expect("statements");
    statements.retain(|statement| statement["Sid"] != "LogDelivery");
    assert!(faults(&policies).iter().any(|fault| fault.contains("no longer needed")));
}

fn faults(policies: &BTreeMap<String, Value>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut unused: BTreeSet<(&str, &str)> = EVERYWHERE.iter().map(|(policy, statement, _)| (*policy, *statement)).collect();
    for (name, policy) in policies {
        let services = SERVICES.iter().find(|(policy, _)| policy == name).map(|(_, services)| *services).unwrap_or_default();
        for statement in policy["Statement"].as_array().into_iter().flatten() {
            let sid = statement["Sid"].as_str().unwrap_or_default();
            let mut fault = |what: String| faults.push(format!("{name}/{sid}: {what}"));
            if statement["Effect"] != "Allow" || sid.is_empty() {
                fault("every statement has a name and allows".to_owned());
            }
            for inverted in ["NotAction", "NotResource", "Principal"].iter().filter(|field| !statement[**field].is_null()) {
                fault(format!("{inverted} grants more than it says"));
            }
            for action in strings(&statement["Action"]) {
                if action.contains('*') {
                    fault(format!("wildcard action `{action}`"));
                }
                let service = action.split(':').next().unwrap_or_default();
                if !services.contains(&service) {
                    fault(format!("has no business with `{service}`"));
                }
                // The one thing that is deleted on purpose is a spool that a newer attempt replaces.
                if action.contains(":Delete") && action != "logs:DeleteLogDelivery" && (name, sid) != (&"query-messages".to_owned(), "Spool") {
                    fault(format!("`{action}`: nobody but query-messages in its spool may delete"));
                }
                if action.starts_with("es:") && !["es:ESHttpGet", "es:ESHttpPost", "es:ESHttpDelete"].contains(&action) {
                    fault(format!("`{action}`: the source is only read"));
                }
            }
            for resource in strings(&statement["Resource"]) {
                if resource == "*" && unused.remove(&(name.as_str(), sid)) {
                    continue;
                }
                if resource == "${bucket}/*" || (resource == "${domain}/*" && statement["Action"] != json!(["es:ESHttpGet"])) {
                    fault(format!("the whole of `{}`", resource.trim_end_matches("/*")));
                }
                // Every resource is a name that Terraform fills in.
                if !resource.starts_with("${") {
                    fault(format!("resource `{resource}` is no part of this project"));
                }
            }
            if strings(&statement["Action"]).contains(&"s3:ListBucket") && statement["Condition"]["StringLikeIfExists"]["s3:prefix"].is_null() {
                fault("lists the bucket without a prefix".to_owned());
            }
        }
    }
    faults.extend(unused.into_iter().map(|(policy, statement)| format!("{policy}/{statement}: the exception is no longer needed")));
    faults
}

fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
        value => value.as_str().into_iter().collect(),
    }
}

/// The policy templates: variables stand in strings only, so each is JSON as it is.
fn policies() -> BTreeMap<String, Value> {
    let mut policies = BTreeMap::new();
    for (folder, prefix) in [
        ("infra/modules/functions/policies", ""),
        ("infra/modules/functions/policies/source", "source/"),
        ("infra/modules/workflow/policies", ""),
        ("infra/modules/monitoring/policies", ""),
    ] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
        for entry in fs::read_dir(&root).unwrap_or_else(|error| panic!("{folder}: {error}")) {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let text = fs::read_to_string(&path).expect("a readable policy");
                let policy = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                policies.insert(format!("{prefix}{}", name(&path)), policy);
            }
        }
    }
    policies
}

fn name(path: &Path) -> String {
    path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
