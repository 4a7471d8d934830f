//! The rules of the definition, each as a function from the project to its faults.

use crate::{contract, flow, project::Project};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub fn faults(project: &Project) -> Vec<String> {
    let machines = machines(&project.definition);
    let mut faults = unsound(&project.definition);
    faults.extend(one_name(project, &machines));
    faults.extend(timeouts(project, &machines));
    faults.extend(retries(project, &machines));
    faults.extend(no_catch(&machines));
    faults.extend(environments(project));
    faults.extend(explained(project));
    faults.extend(maps(&machines));
    faults.extend(results(&machines));
    faults.extend(flow::faults(&project.definition));
    faults
}

/// The rules that hold for any definition.
pub fn unsound(definition: &Value) -> Vec<String> {
    let machines = machines(definition);
    let mut faults = transitions(&machines);
    faults.extend(bounded_retries(&machines));
    let timeless = all(&machines, "Task").filter(|(_, task)| !task["TimeoutSeconds"].is_u64());
    faults.extend(timeless.map(|(state, _)| format!("`{state}` has no TimeoutSeconds")));
    faults.extend(definition["TimeoutSeconds"].is_null().then(|| "the workflow has no TimeoutSeconds of its own".to_owned()));
    faults
}

type States<'a> = BTreeMap<&'a str, &'a Value>;

struct Machine<'a> {
    start: &'a str,
    states: States<'a>,
}

/// The definition, the Map's children and the branches, each on its own.
fn machines(definition: &Value) -> Vec<Machine<'_>> {
    let states: States = definition["States"].as_object().into_iter().flatten().map(|(name, state)| (name.as_str(), state)).collect();
    let inner = states.values().flat_map(|state| {
        let branches = state["Branches"].as_array().into_iter().flatten();
        state.get("ItemProcessor").into_iter().chain(branches).flat_map(machines)
    });
    let inner: Vec<Machine> = inner.collect();
    let outer = Machine { start: definition["StartAt"].as_str().unwrap_or_default(), states };
    std::iter::once(outer).chain(inner).collect()
}

fn all<'a>(machines: &'a [Machine<'a>], kind: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let states = machines.iter().flat_map(|machine| machine.states.iter().map(|(name, state)| (*name, *state)));
    states.filter(move |(_, state)| state["Type"] == kind)
}

fn nexts(state: &Value) -> Vec<&str> {
    let choices = state["Choices"].as_array().into_iter().flatten();
    let catches = state["Catch"].as_array().into_iter().flatten();
    let mut nexts: Vec<&str> = choices.chain(catches).filter_map(|rule| rule["Next"].as_str()).collect();
    nexts.extend([&state["Next"], &state["Default"]].into_iter().filter_map(Value::as_str));
    nexts
}

fn reached<'a>(machine: &Machine<'a>, from: &'a str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(name) = open.pop() {
        if let Some(state) = machine.states.get(name)
            && reached.insert(name)
        {
            open.extend(nexts(state));
        }
    }
    reached
}

fn transitions(machines: &[Machine]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut names = BTreeSet::new();
    for machine in machines {
        let targets = machine.states.iter().flat_map(|(name, state)| nexts(state).into_iter().map(move |next| (*name, next)));
        for (name, next) in targets.chain([("StartAt", machine.start)]).filter(|(_, next)| !machine.states.contains_key(next)) {
            faults.push(format!("`{name}` leads to `{next}`, which does not exist"));
        }
        let reachable = reached(machine, machine.start);
        for (name, state) in &machine.states {
            let last = |state: &Value| state["End"] == true || state["Type"] == "Succeed" || state["Type"] == "Fail";
            if !names.insert(*name) || name.len() > 80 {
                faults.push(format!("`{name}` stands twice, or is longer than 80 characters"));
            }
            if !reachable.contains(name) {
                faults.push(format!("`{name}` is never reached"));
            }
            if !last(state) && nexts(state).is_empty() {
                faults.push(format!("`{name}` has neither Next nor End"));
            }
            if !reached(machine, name).iter().any(|name| last(machine.states[name])) {
                faults.push(format!("`{name}` never comes to an end"));
            }
        }
    }
    faults
}

/// `PlanWindows` is `plan-windows`.
fn kebab(state: &str) -> String {
    let letters = state.char_indices().flat_map(|(at, letter)| {
        let hyphen = (at > 0 && letter.is_ascii_uppercase()).then_some('-');
        hyphen.into_iter().chain([letter.to_ascii_lowercase()])
    });
    letters.collect()
}

fn one_name(project: &Project, machines: &[Machine]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut functions = BTreeSet::new();
    for (state, task) in all(machines, "Task") {
        let function = kebab(state);
        let places = [
            ("folder", project.folders.contains(&function)),
            ("binary", project.binaries.contains(&function)),
            ("role of", project.roles.contains(&function)),
            ("size of", project.timeouts.contains_key(&function)),
            ("environment of", project.environments.contains_key(&function)),
        ];
        let absent = places.iter().filter(|(_, present)| !present);
        faults.extend(absent.map(|(place, _)| format!("there is no {place} `{function}` for the state `{state}`")));
        let called = task["Parameters"]["FunctionName"].as_str().unwrap_or_default();
        if called != format!("${{{state}Arn}}") || task["Resource"] != "arn:aws:states:::lambda:invoke" {
            faults.push(format!("`{state}` calls `{called}`"));
        }
        functions.insert(function);
    }
    let folders = project.folders.difference(&functions);
    faults.extend(folders.map(|folder| format!("there is no state for folder `{folder}`")));
    faults
}

fn timeouts(project: &Project, machines: &[Machine]) -> Vec<String> {
    let early = all(machines, "Task").filter_map(|(state, task)| {
        let own = project.timeouts.get(&kebab(state)).copied().unwrap_or_default();
        let seconds = task["TimeoutSeconds"].as_u64().filter(|seconds| *seconds <= own)?;
        Some(format!("`{state}` times out after {seconds} s, its function only after {own} s"))
    });
    early.collect()
}

fn bounded_retries(machines: &[Machine]) -> Vec<String> {
    let mut faults = Vec::new();
    for (state, retrier) in
        machines.iter().flat_map(|machine| &machine.states).flat_map(|(name, state)| retriers(state).map(move |retrier| (name, retrier)))
    {
        if retrier["JitterStrategy"] != "FULL" {
            faults.push(format!("`{state}` retries without full jitter"));
        }
        if !retrier["MaxDelaySeconds"].is_u64() {
            faults.push(format!("`{state}` retries without MaxDelaySeconds"));
        }
        if !(1..=10).contains(&retrier["MaxAttempts"].as_u64().unwrap_or_default()) {
            faults.push(format!("`{state}` retries with MaxAttempts {}, expected 1 to 10", retrier["MaxAttempts"]));
        }
    }
    faults
}

fn retriers(state: &Value) -> impl Iterator<Item = &Value> {
    state["Retry"].as_array().into_iter().flatten()
}

fn retries(project: &Project, machines: &[Machine]) -> Vec<String> {
    let mut faults = Vec::new();
    for (state, task) in machines.iter().flat_map(|machine| &machine.states) {
        let retried: BTreeSet<&str> =
            retriers(task).flat_map(|retrier| retrier["ErrorEquals"].as_array()).flatten().filter_map(Value::as_str).collect();
        for error in &retried {
            if errors::entry(error).is_none_or(|entry| entry.retried == errors::Retried::No) {
                faults.push(format!("`{state}` retries `{error}`, which does not pass by itself"));
            }
            if !project.explained.contains(*error) {
                faults.push(format!("the README does not explain `{error}`"));
            }
        }
        if task["Type"] == "Task" {
            if retriers(task).next().is_none() {
                faults.push(format!("`{state}` has no Retry"));
            }
            let wanted = contract::platform().chain(contract::passing(state).iter().copied());
            faults.extend(wanted.filter(|error| !retried.contains(error)).map(|error| format!("`{state}` does not retry `{error}`")));
        }
    }
    faults
}

/// Behind the gate there is nothing that could fail, so no state at all catches.
fn no_catch(machines: &[Machine]) -> Vec<String> {
    let states = machines.iter().flat_map(|machine| machine.states.iter());
    let catching = states.filter(|(_, state)| !state["Catch"].is_null());
    catching.map(|(name, _)| format!("`{name}` catches errors: Redrive would not find the gate any more")).collect()
}

/// A function is given what it reads and nothing else.
fn environments(project: &Project) -> Vec<String> {
    let mut faults = Vec::new();
    for (function, read) in &project.read {
        let set = project.environments.get(function).cloned().unwrap_or_default();
        faults.extend(read.difference(&set).map(|variable| format!("`{function}` reads {variable}, which Terraform does not set")));
        faults.extend(set.difference(read).map(|variable| format!("Terraform sets {variable}, which `{function}` does not read")));
    }
    faults
}

fn explained(project: &Project) -> Vec<String> {
    project.thrown.difference(&project.explained).map(|error| format!("the README does not explain `{error}`")).collect()
}

fn maps(machines: &[Machine]) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, map) in all(machines, "Map") {
        let label = map["Label"].as_str().unwrap_or_default();
        if label.is_empty() || label.len() > 40 {
            faults.push(format!("`{name}` has a Label of {} characters, expected 1 to 40", label.len()));
        }
        if map["ItemProcessor"]["ProcessorConfig"] != json!({"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}) {
            faults.push(format!("the children of `{name}` are not STANDARD executions of a DISTRIBUTED map"));
        }
        if map["ToleratedFailurePercentage"] != 100 {
            faults.push(format!("`{name}` tolerates {} % of failures, expected 100", map["ToleratedFailurePercentage"]));
        }
        if map["MaxConcurrency"].as_u64().unwrap_or_default() == 0 {
            faults.push(format!("`{name}` has no MaxConcurrency"));
        }
        if map["ResultWriter"]["Resource"] != "arn:aws:states:::s3:putObject" {
            faults.push(format!("`{name}` is without a ResultWriter: causes of failed children would count as payload"));
        }
        if map["ItemReader"]["ReaderConfig"]["InputType"] != "JSONL" {
            faults.push(format!("`{name}` does not read its items from JSON lines"));
        }
    }
    faults
}

/// Where results go: a Task's answer replaces the payload, Map and Parallel leave it as it is.
fn results(machines: &[Machine]) -> Vec<String> {
    let kept =
        ["Map", "Parallel"].into_iter().flat_map(|kind| all(machines, kind)).filter(|(_, state)| state.get("ResultPath") != Some(&Value::Null));
    let kept = kept.map(|(name, _)| format!("the payload keeps the results of `{name}`"));
    let answers = all(machines, "Task")
        .filter(|(_, task)| task["OutputPath"] != "$.Payload" || !task["ResultPath"].is_null() || !task["ResultSelector"].is_null());
    kept.chain(answers.map(|(name, _)| format!("`{name}` passes on more than what its function answered"))).collect()
}
