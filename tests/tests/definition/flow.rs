//! Follows the payload along every path through the definition, calling the contract in place of the functions.

use crate::contract;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The service's limit for the input and the output of a state, with room for what samples do not foresee.
const LARGEST: usize = 192 * 1024;

pub fn faults(definition: &Value, input: Value) -> Vec<String> {
    let mut flow = Flow::default();
    flow.machine(definition, input);
    flow.faults.into_iter().collect()
}

#[derive(Default)]
struct Flow {
    faults: BTreeSet<String>,
}

impl Flow {
    /// Walks a machine from its start; returns the outputs that it can end with.
    fn machine(&mut self, machine: &Value, input: Value) -> Vec<Value> {
        let mut ends = Vec::new();
        let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
        let mut open = vec![(machine["StartAt"].as_str().unwrap_or_default().to_owned(), input)];
        while let Some((name, input)) = open.pop() {
            // Which fields there are decides whether a path exists, so values need not be told apart.
            let fields: Vec<&String> = input.as_object().map(|fields| fields.keys().collect()).unwrap_or_default();
            let state = &machine["States"][&name];
            if state.is_null() || !seen.insert((name.clone(), format!("{fields:?}"))) {
                continue;
            }
            self.bounded(&name, &input);
            let Some(output) = self.state(&name, state, input) else { continue };
            self.bounded(&name, &output);
            let mut nexts: Vec<&str> = state["Choices"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|choice| choice["Next"].as_str())
                .collect();
            nexts.extend([&state["Next"], &state["Default"]].into_iter().filter_map(Value::as_str));
            if nexts.is_empty() {
                ends.push(output.clone());
            }
            open.extend(nexts.into_iter().map(|next| (next.to_owned(), output.clone())));
        }
        ends
    }

    fn state(&mut self, name: &str, state: &Value, input: Value) -> Option<Value> {
        match state["Type"].as_str() {
            Some("Task") => {
                let payload =
                    self.template(name, &state["Parameters"], &input)?.get("Payload").cloned().unwrap_or_default();
                self.bounded(name, &payload);
                match contract::call(name, payload) {
                    Ok(output) => Some(output),
                    Err(why) => self.fault(format!("the payload of `{name}` is not understood: {why}")),
                }
            }
            Some("Choice") => {
                for choice in state["Choices"].as_array().into_iter().flatten() {
                    self.comparison(name, choice, &input);
                }
                Some(input)
            }
            Some("Map") => {
                for part in ["ItemReader", "ResultWriter"] {
                    self.template(name, &state[part]["Parameters"], &input);
                }
                let item = self.template(name, &state["ItemSelector"], &input)?;
                for end in self.machine(&state["ItemProcessor"], item) {
                    if end != json!({}) {
                        self.faults.insert(format!("a child of `{name}` ends with more than `{{}}`: {end}"));
                    }
                }
                Some(input)
            }
            Some("Parallel") => {
                for branch in state["Branches"].as_array().into_iter().flatten() {
                    self.machine(branch, input.clone());
                }
                Some(input)
            }
            Some("Pass") => Some(state.get("Result").cloned().unwrap_or(input)),
            _ => Some(input),
        }
    }

    /// Fills in a template as the service does: fields that end in `.$` are paths.
    fn template(&mut self, state: &str, template: &Value, input: &Value) -> Option<Value> {
        let Value::Object(fields) = template else { return Some(template.clone()) };
        let mut filled = Map::new();
        for (field, value) in fields {
            let (field, value) = match field.strip_suffix(".$") {
                Some(field) => (field, self.path(state, value.as_str().unwrap_or_default(), input)?),
                None => (field.as_str(), self.template(state, value, input)?),
            };
            filled.insert(field.to_owned(), value);
        }
        Some(Value::Object(filled))
    }

    fn path(&mut self, state: &str, path: &str, input: &Value) -> Option<Value> {
        if let Some(arguments) = path.strip_prefix("States.Format(") {
            for argument in arguments.trim_end_matches(')').split(',').skip(1) {
                self.path(state, argument.trim(), input)?;
            }
            return Some(json!("f".repeat(1024)));
        }
        let value = if path.starts_with("$$") { contract::context(path) } else { look_up(path, input) };
        if value.is_none() {
            self.faults.insert(format!("`{state}` reads `{path}`, which nothing before it produced"));
        }
        value
    }

    fn comparison(&mut self, state: &str, choice: &Value, input: &Value) {
        let path = choice["Variable"].as_str().unwrap_or_default();
        let Some(value) = self.path(state, path, input) else { return };
        let operators = choice.as_object().into_iter().flatten().map(|(operator, _)| operator.as_str());
        for operator in operators.filter(|operator| !["Variable", "Next", "Comment"].contains(operator)) {
            let fits = match operator {
                operator if operator.starts_with("Numeric") => value.is_number(),
                operator if operator.starts_with("Boolean") => value.is_boolean(),
                operator if operator.starts_with("String") => value.is_string(),
                _ => false,
            };
            if !fits {
                self.faults.insert(format!("`{state}` compares `{path}` by {operator}, which does not fit {value}"));
            }
        }
    }

    fn bounded(&mut self, state: &str, payload: &Value) {
        let size = payload.to_string().len();
        if size > LARGEST {
            self.faults.insert(format!("a payload of `{state}` can reach {} KiB", size / 1024));
        }
    }

    fn fault(&mut self, fault: String) -> Option<Value> {
        self.faults.insert(fault);
        None
    }
}

fn look_up(path: &str, input: &Value) -> Option<Value> {
    let steps = path.strip_prefix('$')?;
    steps.split('.').skip(1).try_fold(input, |value, step| value.get(step)).filter(|value| !value.is_null()).cloned()
}
