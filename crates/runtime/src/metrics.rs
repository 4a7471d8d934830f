use serde_json::{Map, Value, json};
use std::time::Duration;

/// How CloudWatch counts a figure.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    Count,
    Bytes,
    Milliseconds,
    None,
}

/// One line in the embedded metric format, from which CloudWatch makes metrics. Each value of a dimension costs a
/// metric, so what is different in each call (a run, a window, an object) is a property: searchable, and free.
/// The deployment is a dimension of every metric, so that two deployments in one account stay apart.
#[derive(Clone, Debug)]
pub struct Metrics {
    dimensions: Vec<&'static str>,
    figures: Vec<Value>,
    line: Map<String, Value>,
}

impl Metrics {
    /// Of the deployment that `ALERT_ARCHIVE_DEPLOYMENT` names.
    pub fn new() -> Self {
        Metrics::of(&std::env::var("ALERT_ARCHIVE_DEPLOYMENT").unwrap_or_default())
    }

    fn of(deployment: &str) -> Self {
        let metrics = Metrics { dimensions: Vec::new(), figures: Vec::new(), line: Map::new() };
        metrics.dimension("Deployment", deployment)
    }

    /// Something with few values, for example a step or a content type.
    pub fn dimension(mut self, name: &'static str, value: &str) -> Self {
        self.dimensions.push(name);
        self.property(name, value)
    }

    pub fn property(mut self, name: &'static str, value: &str) -> Self {
        self.line.insert(name.to_owned(), value.into());
        self
    }

    pub fn figure(mut self, name: &str, unit: Unit, value: u64) -> Self {
        let unit = match unit {
            Unit::Count => "Count",
            Unit::Bytes => "Bytes",
            Unit::Milliseconds => "Milliseconds",
            Unit::None => "None",
        };
        self.figures.push(json!({"Name": name, "Unit": unit}));
        self.line.insert(name.to_owned(), value.into());
        self
    }

    pub fn duration(self, name: &str, took: Duration) -> Self {
        self.figure(name, Unit::Milliseconds, u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
    }

    /// Writes the line to the function's log. Without a deployment, as in a test, no CloudWatch reads it.
    pub fn write(self) {
        if self.line.get("Deployment").is_none_or(|deployment| deployment == "") {
            return;
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        println!("{}", self.at(now));
    }

    fn at(mut self, since_1970: Duration) -> Value {
        let metrics = json!({"Namespace": "AlertArchive", "Dimensions": [self.dimensions], "Metrics": self.figures});
        let now = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        self.line.insert("_aws".into(), json!({"Timestamp": now, "CloudWatchMetrics": [metrics]}));
        Value::Object(self.line)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

/// What one step of the archive's workflow did to one window.
pub fn step_metrics(step: &str, run_id: &str, window_id: &str, took: Duration, figures: &[(&str, u64)]) {
    let metrics = Metrics::new().dimension("Step", step).property("RunId", run_id).property("WindowId", window_id);
    let metrics = figures.iter().fold(metrics.duration("Duration", took), |metrics, (name, value)| {
        let unit = if name.ends_with("Bytes") {
            Unit::Bytes
        } else if name.ends_with("Millis") {
            Unit::Milliseconds
        } else {
            Unit::Count
        };
        metrics.figure(name, unit, *value)
    });
    metrics.write();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_its_deployment_and_each_figure_and_keeps_properties_out_of_the_dimensions() {
        let metrics = Metrics::of("north").dimension("Pipeline", "feeds").property("Object", "a/b.jsonl");
        let line = metrics
            .figure("Records", Unit::Count, 7)
            .duration("Took", Duration::from_millis(31))
            .at(Duration::from_secs(1));
        let expected = json!({
            "Deployment": "north", "Pipeline": "feeds", "Object": "a/b.jsonl", "Records": 7, "Took": 31,
            "_aws": {"Timestamp": 1000, "CloudWatchMetrics": [{
                "Namespace": "AlertArchive",
                "Dimensions": [["Deployment", "Pipeline"]],
                "Metrics": [{"Name": "Records", "Unit": "Count"}, {"Name": "Took", "Unit": "Milliseconds"}],
            }]},
        });
        assert_eq!(line, expected);
    }
}
