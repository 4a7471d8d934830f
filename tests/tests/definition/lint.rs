//! The rules of the definitions, each as a function from the project to its faults.

use crate::{
    contract, entries, flow,
    project::{Function, Project},
};
use pipeline_tests::functions::FUNCTIONS;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub fn faults(project: &Project) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, definition) in &project.machines {
        let mut of_machine = unsound(definition);
        of_machine.extend(functions(project, definition));
        of_machine.extend(payloads(name, definition));
        if name == "archive-alerts" {
            of_machine.extend(archive(definition));
        }
        faults.extend(of_machine.into_iter().map(|fault| format!("statemachine/{name}.asl.json: {fault}")));
    }
    faults.extend(one_name(project));
    faults.extend(started(project));
    faults.extend(environments(project));
    faults.extend(breakable(project.archive()));
    faults
}

/// What only the archive's workflow promises.
fn archive(definition: &Value) -> Vec<String> {
    let machines = machines(definition);
    let mut faults = no_catch(&machines);
    faults.extend(maps(&machines));
    faults.extend(results(&machines));
    faults
}

/// Started by EventBridge with an event of its own, and most of its states call no function.
const NOT_FOLLOWED: &[&str] = &["mark-dead-run"];

/// Each function understands what it is handed, and what it returns is enough for those behind it.
fn payloads(name: &str, definition: &Value) -> Vec<String> {
    if NOT_FOLLOWED.contains(&name) {
        return Vec::new();
    }
    let Some(input) = contract::execution_input(name) else {
        return vec![
            "tests/tests/definition/contract.rs does not say what an execution is given (`execution_input`)".to_owned(),
        ];
    };
    let machines = machines(definition);
    let mut faults = passing(&machines);
    faults.extend(passed_on(&machines));
    faults.extend(flow::faults(definition, input));
    faults
}

/// The pipeline tests break each function of the archive's workflow.
fn breakable(definition: &Value) -> Vec<String> {
    let machines = machines(definition);
    let called: BTreeSet<String> = calls(&machines).map(|(state, _)| kebab(state)).collect();
    let missing = called.iter().filter(|name| !FUNCTIONS.contains(&name.as_str()));
    missing.map(|name| format!("tests/src/functions.rs: FUNCTIONS lacks `{name}`, so that no test breaks it")).collect()
}

/// What holds for any definition, whatever it calls.
fn unsound(definition: &Value) -> Vec<String> {
    let machines = machines(definition);
    let mut faults = transitions(&machines);
    faults.extend(bounded_retries(&machines));
    faults.extend(retried(&machines));
    faults.extend(type_tests(&machines));
    let timeless = all(&machines, "Task").filter(|(_, task)| !task["TimeoutSeconds"].is_u64());
    faults.extend(timeless.map(|(state, _)| format!("`{state}` has no TimeoutSeconds")));
    faults.extend(
        definition["TimeoutSeconds"].is_null().then(|| "the workflow has no TimeoutSeconds of its own".to_owned()),
    );
    faults
}

/// Errors of Lambda and Step Functions that each call of a function retries.
const PLATFORM: &[&str] = &[
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.TooManyRequestsException",
    "Lambda.Unknown",
    "Sandbox.Timedout",
    "Runtime.ExitError",
    "States.Timeout",
];

/// The service fails a Choice whose variable is absent, so what may be absent is asked for before its type.
fn type_tests(machines: &[Machine]) -> Vec<String> {
    let mut faults = Vec::new();
    for (state, choice) in all(machines, "Choice") {
        for rule in choice["Choices"].as_array().into_iter().flatten() {
            let alone = std::slice::from_ref(rule);
            let conditions = rule["And"].as_array().map_or(alone, Vec::as_slice);
            for (at, condition) in conditions.iter().enumerate() {
                let asks_type = ["IsString", "IsNumeric", "IsBoolean", "IsTimestamp", "IsNull"];
                let present =
                    |earlier: &Value| earlier["Variable"] == condition["Variable"] && earlier["IsPresent"] == true;
                if asks_type.iter().any(|test| !condition[*test].is_null()) && !conditions[..at].iter().any(present) {
                    let variable = condition["Variable"].as_str().unwrap_or_default();
                    faults.push(format!("`{state}` asks for the type of `{variable}` before IsPresent"));
                }
            }
        }
    }
    faults
}

type States<'a> = BTreeMap<&'a str, &'a Value>;

struct Machine<'a> {
    start: &'a str,
    states: States<'a>,
}

/// The definition, the Map's children and the branches, each on its own.
fn machines(definition: &Value) -> Vec<Machine<'_>> {
    let states: States =
        definition["States"].as_object().into_iter().flatten().map(|(name, state)| (name.as_str(), state)).collect();
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
        let targets =
            machine.states.iter().flat_map(|(name, state)| nexts(state).into_iter().map(move |next| (*name, next)));
        for (name, next) in
            targets.chain([("StartAt", machine.start)]).filter(|(_, next)| !machine.states.contains_key(next))
        {
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
pub fn kebab(state: &str) -> String {
    let letters = state.char_indices().flat_map(|(at, letter)| {
        let hyphen = (at > 0 && letter.is_ascii_uppercase()).then_some('-');
        hyphen.into_iter().chain([letter.to_ascii_lowercase()])
    });
    letters.collect()
}

const INVOKE: &str = "arn:aws:states:::lambda:invoke";

/// Tasks that call a function.
fn calls<'a>(machines: &'a [Machine<'a>]) -> impl Iterator<Item = (&'a str, &'a Value)> {
    all(machines, "Task").filter(|(_, task)| task["Resource"] == INVOKE)
}

/// A Task and its function share a name, the function ends before the Task does, and what passes by itself is retried.
fn functions(project: &Project, definition: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let machines = machines(definition);
    for (state, task) in calls(&machines) {
        let called = task["Parameters"]["FunctionName"].as_str().unwrap_or_default();
        let Some(function) = project.functions.get(&kebab(state)) else {
            let name = kebab(state);
            faults.push(format!("there is no function `{name}` for the state `{state}`: {}", entries::wanted(&name)));
            continue;
        };
        if called != function.arn {
            faults.push(format!("`{state}` calls `{called}`"));
        }
        let (seconds, own) = (task["TimeoutSeconds"].as_u64().unwrap_or_default(), function.timeout);
        if seconds <= own {
            faults.push(format!("`{state}` times out after {seconds} s, its function only after {own} s"));
        }
        let retried = retried_names(task);
        let wanted = PLATFORM.iter().filter(|error| !retried.contains(**error));
        faults.extend(wanted.map(|error| format!("`{state}` does not retry `{error}`")));
        let raised = project.packages.get(&kebab(state)).into_iter().flat_map(|package| &package.raises);
        let passing = raised.filter(|error| {
            errors::entry(error).is_some_and(|entry| entry.retried != errors::Retried::No)
                && !retried.contains(error.as_str())
        });
        faults.extend(passing.map(|error| {
            format!(
                "`{state}` does not retry `{error}`: its function raises it, and crates/errors/src/registry.rs says that \
                 it is retried"
            )
        }));
    }
    faults
}

/// Folder, package, binary and deployed function share one name.
fn one_name(project: &Project) -> Vec<String> {
    let mut faults = Vec::new();
    for (folder, package) in &project.packages {
        if package.name != *folder || !package.binaries.contains(folder) {
            faults.push(format!("functions/{folder} needs a package and a binary of the name `{folder}`"));
        }
        if package.serves != *folder {
            let serves = &package.serves;
            faults.push(format!("functions/{folder}/src/main.rs: its log would name `{serves}` and not `{folder}`"));
        }
        if !project.functions.contains_key(folder) {
            faults.push(format!("no function is deployed for functions/{folder}: {}", entries::wanted(folder)));
        }
    }
    let deployed = project.functions.keys().filter(|name| !project.packages.contains_key(*name));
    faults.extend(
        deployed.map(|name| {
            format!("{} deploys `{name}`, and there is no folder functions/{name}", entries::file_of(name))
        }),
    );
    faults
}

/// By a state, a queue or a schedule.
fn started(project: &Project) -> Vec<String> {
    let definitions: Vec<Vec<Machine>> = project.machines.values().map(machines).collect();
    let called = definitions.iter().flat_map(|machines| calls(machines));
    let called: BTreeSet<&str> = called.filter_map(|(_, task)| task["Parameters"]["FunctionName"].as_str()).collect();
    let idle = project.functions.iter().filter(|(_, function)| {
        !called.contains(function.arn.as_str())
            && !project.queued.contains(&function.arn)
            && !project.scheduled.contains(&function.arn)
    });
    idle.map(|(name, _)| format!("nothing starts `{name}`: no state of statemachine/*.asl.json, no queue, no schedule"))
        .collect()
}

fn bounded_retries(machines: &[Machine]) -> Vec<String> {
    let mut faults = Vec::new();
    for (state, retrier) in machines
        .iter()
        .flat_map(|machine| &machine.states)
        .flat_map(|(name, state)| retriers(state).map(move |retrier| (name, retrier)))
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

/// Only what passes by itself is retried.
fn retried(machines: &[Machine]) -> Vec<String> {
    let mut faults = Vec::new();
    for (state, task) in machines.iter().flat_map(|machine| &machine.states) {
        for error in retried_names(task) {
            // A service that a state calls without a function has its own names.
            let of_a_service = task["Resource"] != INVOKE && !error.starts_with("States.") && error.contains('.');
            if !of_a_service && errors::entry(error).is_none_or(|entry| entry.retried == errors::Retried::No) {
                faults.push(format!("`{state}` retries `{error}`, which does not pass by itself"));
            }
        }
        if task["Type"] == "Task" && retriers(task).next().is_none() {
            faults.push(format!("`{state}` has no Retry"));
        }
    }
    faults
}

fn retried_names(state: &Value) -> BTreeSet<&str> {
    retriers(state).flat_map(|retrier| retrier["ErrorEquals"].as_array()).flatten().filter_map(Value::as_str).collect()
}

/// A step retries each error that passes by itself of the crates that its function uses.
fn passing(machines: &[Machine]) -> Vec<String> {
    let mut faults = Vec::new();
    for (state, task) in all(machines, "Task") {
        let retried = retried_names(task);
        let wanted = contract::passing(state).iter().filter(|error| !retried.contains(**error));
        faults.extend(wanted.map(|error| format!("`{state}` does not retry `{error}`")));
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
    for (name, package) in &project.packages {
        let Some(Function { environment: given, .. }) = project.functions.get(name) else { continue };
        let file = entries::file_of(name);
        faults.extend(package.reads.difference(given).map(|variable| {
            format!("{file}: the environment of `{name}` does not set {variable}, which its code reads")
        }));
        faults.extend(given.difference(&package.reads).map(|variable| {
            format!("{file}: the environment of `{name}` sets {variable}, which its code does not read")
        }));
    }
    faults
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
            faults
                .push(format!("`{name}` tolerates {} % of failures, expected 100", map["ToleratedFailurePercentage"]));
        }
        if map["MaxConcurrency"].as_u64().unwrap_or_default() == 0 {
            faults.push(format!("`{name}` has no MaxConcurrency"));
        }
        if map["ResultWriter"]["Resource"] != "arn:aws:states:::s3:putObject" {
            faults
                .push(format!("`{name}` is without a ResultWriter: causes of failed children would count as payload"));
        }
        if map["ItemReader"]["ReaderConfig"]["InputType"] != "JSONL" {
            faults.push(format!("`{name}` does not read its items from JSON lines"));
        }
    }
    faults
}

/// Map and Parallel leave the payload as it is.
fn results(machines: &[Machine]) -> Vec<String> {
    let kept = ["Map", "Parallel"]
        .into_iter()
        .flat_map(|kind| all(machines, kind))
        .filter(|(_, state)| state.get("ResultPath") != Some(&Value::Null));
    kept.map(|(name, _)| format!("the payload keeps the results of `{name}`")).collect()
}

/// What a Task's function returned replaces the payload.
fn passed_on(machines: &[Machine]) -> Vec<String> {
    let passed_on = all(machines, "Task").filter(|(_, task)| {
        task["OutputPath"] != "$.Payload" || !task["ResultPath"].is_null() || !task["ResultSelector"].is_null()
    });
    let fault = |name| {
        format!(
            "`{name}` passes on more than what its function returned: give it an OutputPath of `$.Payload`, and neither \
             ResultPath nor ResultSelector"
        )
    };
    passed_on.map(|(name, _)| fault(name)).collect()
}
