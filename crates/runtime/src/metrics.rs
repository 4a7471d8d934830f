use serde_json::{Map, Value, json};
use std::time::Duration;

/// One line in the embedded metric format, from which CloudWatch makes metrics: what one step did to one window.
/// The run and the window are properties and no dimensions, because each dimension value costs a metric.
pub fn step_metrics(step: &str, run_id: &str, window_id: &str, took: Duration, figures: &[(&str, u64)]) {
    let mut metrics = vec![json!({"Name": "Duration", "Unit": "Milliseconds"})];
    let mut line = Map::new();
    for (name, value) in figures {
        let unit = if name.ends_with("Bytes") {
            "Bytes"
        } else if name.ends_with("Millis") {
            "Milliseconds"
        } else {
            "Count"
        };
        metrics.push(json!({"Name": name, "Unit": unit}));
        line.insert((*name).to_owned(), Value::from(*value));
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    line.insert("Duration".into(), Value::from(took.as_millis() as u64));
    line.insert("Step".into(), step.into());
    line.insert("RunId".into(), run_id.into());
    line.insert("WindowId".into(), window_id.into());
    line.insert(
        "_aws".into(),
        json!({"Timestamp": now.as_millis() as u64, "CloudWatchMetrics": [{"Namespace": "AlertArchive", "Dimensions": [["Step"]], "Metrics": metrics}]}),
    );
    println!("{}", Value::Object(line));
}
