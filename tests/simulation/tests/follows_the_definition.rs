//! The simulation calls the functions in the order in which the definition has its states.

use memory_cloud::Cloud;
use serde_json::{Value, json};
use simulation::{Archive, Watch};
use std::sync::Mutex;

#[derive(Default)]
struct Calls(Mutex<Vec<String>>);

impl Watch for Calls {
    fn before(&self, function: &str, _: &Value) {
        self.0.lock().expect("a lock").push(function.to_owned());
    }
}

/// `GateRun` is carried out by `gate-run`.
fn function_of(state: &str) -> String {
    let mut name = String::new();
    for letter in state.chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

/// The functions of the states from the first to the last, where every choice is for going on and nothing is repeated.
fn functions_of(machine: &Value) -> Vec<String> {
    let (mut functions, mut state) = (Vec::new(), machine["StartAt"].as_str());
    while let Some(name) = state {
        let definition = &machine["States"][name];
        match definition["Type"].as_str() {
            Some("Task") => functions.push(function_of(name)),
            Some("Map") => functions.extend(functions_of(&definition["ItemProcessor"])),
            Some("Parallel") => {
                functions.extend(definition["Branches"].as_array().into_iter().flatten().flat_map(functions_of));
            }
            _ => {}
        }
        let on =
            definition["Choices"].as_array().into_iter().flatten().find(|choice| choice["NumericGreaterThan"] == 0);
        let next = on.map(|choice| &choice["Next"]).unwrap_or(&definition["Next"]);
        state = next.as_str().or(definition["Default"].as_str());
    }
    functions
}

#[tokio::test]
async fn a_run_of_one_window_calls_every_state_once_and_in_order() {
    let definition = include_str!("../../../statemachine/archive-alerts.asl.json");
    let definition: Value = serde_json::from_str(definition).expect("a definition");
    let (cloud, calls) = (Cloud::default(), Calls::default());
    cloud.put_message("a", "2024-07-01T01:00:00Z", "closed");
    let archive = Archive { watch: &calls, ..Archive::new(cloud) };
    archive.run("r1", json!({"mode": "range", "from": "2024-07-01", "to": "2024-07-02"})).await.expect("a good end");
    let called = calls.0.into_inner().expect("a lock");
    assert_eq!(called.len(), 8, "{called:?}");
    assert_eq!(called, functions_of(&definition));
}
