//! The IAM policies as they would be deployed: one role a function, no broad grants but those listed here.

use crate::plan::{Resource, of_kind, resources, short};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A grant that a rule forbids, and why it must be.
struct Exception {
    /// A function, or the local name of the policy in a module.
    holder: &'static str,
    sid: &'static str,
    why: &'static str,
}

/// `Resource: *`.
const EVERYWHERE: &[Exception] = &[Exception {
    holder: "states",
    sid: "LogDelivery",
    why: "log deliveries have no resource type: the service authorises these actions on * only",
}];

/// What deletes objects or rows.
const DELETES: &[Exception] = &[
    Exception {
        holder: "classify-alerts",
        sid: "MoveToItsIndex",
        why: "the index is a part of a row's key: a message of the API that an index has by now gets a new row for its old one",
    },
    Exception {
        holder: "write-partitions",
        sid: "MoveToItsIndex",
        why: "it stages messages anew that another window held",
    },
    Exception {
        holder: "plan-windows",
        sid: "Known",
        why: "a row of an index that another took the place of gets a new row under that index",
    },
    Exception {
        holder: "ingest-tables",
        sid: "KnownKeys",
        why: "the digests of what was written are replaced as a whole; no line is ever deleted",
    },
    Exception {
        holder: "build-warehouse",
        sid: "Tables",
        why: "earlier locations go when no reader may have them open; they are made anew from the JSON lines",
    },
    Exception {
        holder: "extract-log-errors",
        sid: "Commits",
        why: "staged parts go once they are in place, and what served an earlier version goes with it",
    },
    Exception { holder: "build-warehouse", sid: "Requests", why: "a request that was met is taken away" },
    Exception {
        holder: "consolidate-feeds",
        sid: "StagedBytesAreRemoved",
        why: "copies that are of no use once the outputs that they became are there",
    },
];

/// What a function must be given for its policy to speak of a service: a part of a variable's name.
const SERVICES: &[(&str, &str)] = &[
    ("s3", "_BUCKET"),
    ("dynamodb", "_TABLE"),
    ("ses", "_MAIL_FROM"),
    ("es", "OPENSEARCH_URL"),
    ("secretsmanager", "_SECRET"),
    ("ssm", "_PARAMETER"),
    ("sqs", "_QUEUE"),
    ("glue", "_DATABASE"),
    ("athena", "_WORKGROUP"),
];

/// One policy, with who holds it.
#[derive(Clone)]
struct Policy {
    text: Value,
    /// A function, or the local name of the policy in its module.
    holder: String,
    /// Where a function's own policy stands.
    file: Option<String>,
    /// Services that the holder may speak to; none where that is not bounded.
    services: Option<BTreeSet<&'static str>>,
}

#[test]
fn the_policies_grant_nothing_broad() {
    let faults = faults(&policies());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_function_has_a_role_a_policy_and_a_log_of_its_own() {
    let mut modules = BTreeMap::new();
    for function in of_kind("aws_lambda_function") {
        let name = function.text("function_name");
        let shares = modules.insert(function.module.as_str(), name).filter(|other| *other != name);
        assert_eq!(shares, None, "two functions stand in {}", function.module);
        let inside = |kind: &'static str| of_kind(kind).filter(|resource| resource.module == function.module);
        let roles: BTreeSet<&str> = inside("aws_iam_role").map(|role| role.text("name")).collect();
        assert_eq!(roles, [name].into(), "the roles in {}", function.module);
        assert!(
            inside("aws_iam_role_policy").any(|policy| policy.address.ends_with("[\"work\"]")),
            "{name} has no policy of its own"
        );
        assert!(
            inside("aws_cloudwatch_log_group").any(|log| log.text("name") == format!("/aws/lambda/{name}")),
            "{name} has no log"
        );
    }
    assert!(modules.len() >= 8, "the plan holds {} functions", modules.len());
}

/// Breaks a copy of a policy's first statement and expects a fault that holds `expected`.
fn caught(holder: &str, field: &str, value: Value, expected: &str) {
    let mut policies = policies();
    let policy = policies.values_mut().find(|policy| policy.holder == holder).expect("a known holder");
    policy.text["Statement"][0][field] = value;
    let faults = faults(&policies);
    assert!(
        faults.iter().any(|fault| fault.contains(expected)),
        "expected a fault with `{expected}`, found {faults:#?}"
    );
}

#[test]
fn broad_grants_are_caught() {
    caught("gate-run", "Action", json!("*"), "infra/policies/gate-run.json: Log: wildcard action `*`");
    caught("gate-run", "Action", json!(["s3:*"]), "wildcard action `s3:*`");
    caught("gate-run", "Action", json!(["dynamodb:Get*"]), "wildcard action `dynamodb:Get*`");
    caught("gate-run", "Resource", json!("*"), "resource `*`");
    caught(
        "gate-run",
        "Resource",
        json!([format!("arn:aws:s3:::{}/*", archive_bucket())]),
        "the whole of the archive's bucket",
    );
    caught("gate-run", "Resource", json!(["arn:aws:s3:::*"]), "resource `arn:aws:s3:::*`");
    caught("gate-run", "Resource", json!(["arn:aws:s3:::another-bucket/runs/*"]), "is no part of this project");
    caught("gate-run", "NotAction", json!(["s3:DeleteObject"]), "NotAction");
    caught(
        "scheduler",
        "Resource",
        json!(["arn:aws:states:us-east-1:123456789012:stateMachine:another"]),
        "is no part of this project",
    );
}

#[test]
fn grants_outside_a_functions_field_are_caught() {
    caught("classify-alerts", "Action", json!(["ses:SendRawEmail"]), "`ses`, of which its environment names nothing");
    caught("write-partitions", "Action", json!(["s3:DeleteObject"]), "may delete");
    caught("classify-alerts", "Action", json!(["dynamodb:DeleteItem"]), "may delete");
    caught("query-messages", "Action", json!(["es:ESHttpPut"]), "the source is only read");
}

#[test]
fn a_function_that_may_not_write_its_log_is_caught() {
    let expected = "infra/policies/gate-run.json: no statement lets the function write its log";
    caught("gate-run", "Action", json!(["logs:CreateLogStream"]), expected);
    let of_another = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/lambda/alert-archive-send-summary:*";
    caught("gate-run", "Resource", json!(of_another), expected);
}

#[test]
fn a_listing_of_the_whole_bucket_is_caught() {
    let is_caught = |condition: Value| {
        let mut policies = policies();
        let policy = policies.values_mut().find(|policy| policy.holder == "gate-run").expect("a known holder");
        policy.text["Statement"][1] = json!({
            "Sid": "List", "Effect": "Allow", "Action": ["s3:ListBucket"],
            "Resource": format!("arn:aws:s3:::{}", archive_bucket()), "Condition": condition,
        });
        let expected = "infra/policies/gate-run.json: List: lists the archive's bucket without a prefix";
        faults(&policies).iter().any(|fault| fault.contains(expected))
    };
    assert!(is_caught(json!({})));
    assert!(is_caught(json!({"StringLike": {"aws:PrincipalArn": ["x"]}})));
    assert!(!is_caught(json!({"StringLike": {"s3:prefix": ["runs/*"]}})));
    assert!(!is_caught(json!({"StringLikeIfExists": {"s3:prefix": ["runs/*"]}})));
}

#[test]
fn a_name_that_stands_twice_in_a_policy_is_caught() {
    caught("gate-run", "Sid", json!("JobRuns"), "stands twice");
}

#[test]
fn an_unused_exception_is_caught() {
    let mut policies = policies();
    for policy in policies.values_mut() {
        policy.text["Statement"]
            .as_array_mut()
            .expect("statements")
            .retain(|statement| statement["Sid"] != "LogDelivery");
    }
    assert!(faults(&policies).iter().any(|fault| fault.contains("no longer needed")));
}

fn faults(policies: &BTreeMap<String, Policy>) -> Vec<String> {
    let (ours, archive) = (names(), archive_bucket());
    let mut faults = Vec::new();
    let mut used: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (address, policy) in policies {
        if let Some(file) = policy.file.as_ref().filter(|_| !writes_its_log(policy)) {
            faults
                .push(format!("{file}: no statement lets the function write its log: begin with `Log`, as others do"));
        }
        let mut sids = BTreeSet::new();
        for statement in policy.text["Statement"].as_array().into_iter().flatten() {
            let sid = statement["Sid"].as_str().unwrap_or_default();
            let place = policy.file.as_ref().unwrap_or(address);
            let mut fault = |what: String| faults.push(format!("{place}: {sid}: {what}"));
            let mut excepted = |exceptions: &'static [Exception]| {
                let found =
                    exceptions.iter().find(|exception| exception.holder == policy.holder && exception.sid == sid);
                found.is_some_and(|exception| {
                    used.insert((exception.holder, exception.sid));
                    !exception.why.is_empty()
                })
            };
            if statement["Effect"] != "Allow" || sid.is_empty() {
                fault("every statement has a name and allows".to_owned());
            }
            if !sids.insert(sid) {
                fault("this name stands twice, and IAM refuses such a policy".to_owned());
            }
            for inverted in
                ["NotAction", "NotResource", "Principal"].iter().filter(|field| !statement[**field].is_null())
            {
                fault(format!("{inverted} grants more than it says"));
            }
            for action in strings(&statement["Action"]) {
                if action.contains('*') {
                    fault(format!("wildcard action `{action}`"));
                }
                let service = action.split(':').next().unwrap_or_default();
                if policy.services.as_ref().is_some_and(|services| !services.contains(service)) {
                    fault(format!(
                        "`{action}` speaks to `{service}`, of which its environment names nothing: SERVICES in \
                         tests/tests/definition/policies.rs says which variable would"
                    ));
                }
                let of_records = !["logs:", "sqs:", "es:"].iter().any(|service| action.starts_with(service));
                if of_records && action.contains(":Delete") && !excepted(DELETES) {
                    fault(format!(
                        "`{action}`: nothing may delete but what DELETES in tests/tests/definition/policies.rs lists"
                    ));
                }
                if action.starts_with("es:") && !["es:ESHttpGet", "es:ESHttpPost", "es:ESHttpDelete"].contains(&action)
                {
                    fault(format!("`{action}`: the source is only read"));
                }
            }
            for resource in strings(&statement["Resource"]) {
                if resource == "*" {
                    if !excepted(EVERYWHERE) {
                        fault(
                            "resource `*`: nothing but what EVERYWHERE in tests/tests/definition/policies.rs lists"
                                .to_owned(),
                        );
                    }
                    continue;
                }
                if resource == format!("arn:aws:s3:::{archive}/*") {
                    fault("the whole of the archive's bucket".to_owned());
                }
                if resource.contains(":domain/") && (resource.ends_with("/*") || resource.contains("/*/")) {
                    fault(format!("`{resource}` is more of the source than the three indices"));
                }
                // arn:partition:service:region:account:type/name, with ':' or '/' behind the type and behind the name.
                let parts = resource.splitn(6, ':').nth(5).unwrap_or_default().split(['/', ':']);
                if !parts.clone().any(|part| ours.contains(part)) {
                    fault(format!("resource `{resource}` is no part of this project"));
                }
            }
            if strings(&statement["Action"]).contains(&"s3:ListBucket")
                && strings(&statement["Resource"]).iter().any(|resource| resource.ends_with(archive))
                && policy.services.is_some()
                && ["StringLike", "StringLikeIfExists"]
                    .iter()
                    .all(|condition| statement["Condition"][*condition]["s3:prefix"].is_null())
            {
                fault(
                    "lists the archive's bucket without a prefix: give it a Condition, StringLike on `s3:prefix`"
                        .to_owned(),
                );
            }
        }
    }
    let listed = EVERYWHERE.iter().chain(DELETES).map(|exception| (exception.holder, exception.sid));
    // A policy stands in several planned variants.
    faults.sort();
    faults.dedup();
    let unused = listed.filter(|exception| !used.contains(exception));
    faults.extend(unused.map(|(holder, sid)| format!("{holder}/{sid}: the exception is no longer needed")));
    faults
}

fn writes_its_log(policy: &Policy) -> bool {
    let log = format!(":log-group:/aws/lambda/alert-archive-{}:*", policy.holder);
    policy.text["Statement"].as_array().into_iter().flatten().any(|statement| {
        let actions = strings(&statement["Action"]);
        ["logs:CreateLogStream", "logs:PutLogEvents"].iter().all(|action| actions.contains(action))
            && strings(&statement["Resource"]).iter().any(|resource| resource.ends_with(&log))
    })
}

fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
        value => value.as_str().into_iter().collect(),
    }
}

/// The policies of all roles, by address; those that differ between the planned variants stand once for each.
fn policies() -> BTreeMap<String, Policy> {
    let mut policies = BTreeMap::new();
    for (variant, resource) in of_kind("aws_iam_role_policy").enumerate() {
        let function = of_kind("aws_lambda_function").find(|function| function.module == resource.module);
        let local = resource.address.rsplit('.').next().and_then(|name| name.split('[').next()).unwrap_or_default();
        let own = function.filter(|_| resource.address.ends_with("[\"work\"]"));
        let policy = Policy {
            text: resource.json("policy"),
            holder: function.map_or(local, |function| short(function.text("function_name"))).to_owned(),
            file: own.map(|function| format!("infra/policies/{}.json", short(function.text("function_name")))),
            services: function.map(|_| services(resource)),
        };
        policies.insert(format!("{} ({variant})", resource.address), policy);
    }
    policies
}

/// What the function that holds a policy may speak to: it writes its log, and reads states where it runs in a workflow.
fn services(policy: &Resource) -> BTreeSet<&'static str> {
    let given = of_kind("aws_lambda_function").filter(|function| function.module == policy.module);
    let variables: Vec<&String> = given
        .flat_map(|function| function.values["environment"][0]["variables"].as_object())
        .flatten()
        .map(|(name, _)| name)
        .collect();
    let named = SERVICES.iter().filter(|(_, part)| variables.iter().any(|variable| variable.contains(part)));
    // Lambda receives for a function that a queue starts, with the function's own role.
    let is_queued = of_kind("aws_lambda_event_source_mapping").any(|mapping| {
        let mut functions = of_kind("aws_lambda_function").filter(|function| function.module == policy.module);
        functions.any(|function| mapping.text("function_name").ends_with(function.text("function_name")))
    });
    let receives = is_queued.then_some("sqs");
    ["logs", "states", "kms"].into_iter().chain(receives).chain(named.map(|(service, _)| *service)).collect()
}

fn archive_bucket() -> &'static str {
    let bucket = of_kind("aws_s3_bucket").find(|bucket| bucket.module.starts_with("module.storage"));
    bucket.expect("the archive's bucket").text("bucket")
}

/// Everything by which an ARN can name a part of this project, and of the account that it is told to use.
fn names() -> BTreeSet<&'static str> {
    let named = ["bucket", "name", "function_name", "email", "family"];
    let deployed = resources().iter().flat_map(|resource| named.map(|attribute| resource.text(attribute)));
    let logs = of_kind("aws_lambda_function").map(|function| function.text("function_name"));
    let mails = of_kind("aws_lambda_function").filter_map(|function| {
        let variables = &function.values["environment"][0]["variables"];
        variables["ALERT_ARCHIVE_MAIL_FROM"].as_str()
    });
    let recipients = of_kind("aws_ssm_parameter").flat_map(|parameter| parameter.text("value").split(','));
    let mails = mails.chain(recipients).flat_map(|mail| [mail, mail.rsplit('@').next().unwrap_or(mail)]);
    // A secret of someone else's, which the functions are told of.
    let secrets = of_kind("aws_lambda_function").flat_map(|function| {
        let variables = function.values["environment"][0]["variables"].as_object().into_iter().flatten();
        let secrets = variables.filter(|(name, _)| name.contains("_SECRET")).filter_map(|(_, value)| value.as_str());
        secrets.filter_map(|arn| arn.rsplit(':').next())
    });
    deployed.chain(logs).chain(mails).chain(secrets).chain(["messages"]).filter(|name| !name.is_empty()).collect()
}
