//! Alarms and dashboards name metrics that some function writes: CloudWatch takes any name, and shows nothing for ever.

use crate::plan::{Resource, of_kind};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A metric of this project, without the deployment that it is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Metric {
    name: String,
    /// Whose it is, as a dimension says: `Step` or `Function`, and a function's name.
    whose: Option<(String, String)>,
}

const NAMESPACE: &str = "AlertArchive";

#[test]
fn every_metric_that_an_alarm_or_a_dashboard_names_is_written_by_some_function() {
    let (written, alarms) = (written(), of_kind("aws_cloudwatch_metric_alarm"));
    let alarmed: BTreeSet<Metric> = alarms.filter_map(of_alarm).collect();
    let shown: BTreeSet<Metric> = of_kind("aws_cloudwatch_dashboard").flat_map(of_dashboard).collect();
    // Neither is empty: this test looks at something.
    assert!(alarmed.len() >= 4 && shown.len() >= 10, "{alarmed:#?} {shown:#?}");
    let unwritten: BTreeSet<&Metric> = alarmed.union(&shown).filter(|metric| !written.contains(metric)).collect();
    assert!(unwritten.is_empty(), "no function writes {unwritten:#?}");
}

#[test]
fn a_metric_that_no_function_writes_is_caught() {
    let alarm = of_kind("aws_cloudwatch_metric_alarm").find(|alarm| of_alarm(alarm).is_some()).expect("an alarm");
    let written = written();
    assert!(of_alarm(alarm).is_some_and(|metric| written.contains(&metric)));
    let mut renamed = alarm.clone();
    renamed.values["metric_name"] = "Gone".into();
    assert!(of_alarm(&renamed).is_some_and(|metric| !written.contains(&metric)));
    let board = of_kind("aws_cloudwatch_dashboard").find(|board| !of_dashboard(board).is_empty()).expect("a dashboard");
    let mut renamed = board.clone();
    renamed.values["dashboard_body"] = board.text("dashboard_body").replace("\"Step\"", "\"Stage\"").into();
    assert!(of_dashboard(&renamed).iter().all(|metric| !written.contains(metric)));
}

fn of_alarm(alarm: &Resource) -> Option<Metric> {
    let dimensions = alarm.values["dimensions"].as_object()?.iter();
    let dimensions = dimensions.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    let metric = metric(alarm.text("metric_name"), dimensions);
    (alarm.text("namespace") == NAMESPACE).then_some(metric)
}

fn of_dashboard(dashboard: &Resource) -> Vec<Metric> {
    let body = dashboard.json("dashboard_body");
    let widgets = body["widgets"].as_array().into_iter().flatten();
    let metrics = widgets.flat_map(|widget| widget["properties"]["metrics"].as_array().into_iter().flatten());
    let words = |line: &Value| -> Vec<String> {
        line.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let ours = metrics.map(words).filter(|words| words.first().is_some_and(|namespace| namespace == NAMESPACE));
    ours.map(|words| metric(&words[1], words[2..].chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())))).collect()
}

fn metric(name: &str, dimensions: impl Iterator<Item = (String, String)>) -> Metric {
    Metric { name: name.to_owned(), whose: dimensions.filter(|(name, _)| name != "Deployment").last() }
}

/// What the functions write, by their code: `Metrics::new()` up to its end, and `step_metrics`.
fn written() -> BTreeSet<Metric> {
    let functions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../functions");
    let mut written = BTreeSet::new();
    for function in folder(&functions) {
        for file in folder(&function.join("src")) {
            let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for line in code.split("Metrics::new()").skip(1) {
                let end = [".write()", "\n    }\n", "\n}\n"].iter().filter_map(|end| line.find(end)).min();
                let line = &line[..end.unwrap_or(line.len())];
                let dimension = line.split_once(".dimension(\"").map(|(_, rest)| literals(rest));
                let whose = dimension.map(|words| (words[0].clone(), words[1].clone()));
                let names = [".figure(\"", ".duration(\""].iter().flat_map(|call| line.split(call).skip(1));
                let names = names.filter_map(|rest| rest.split('"').next());
                written.extend(names.map(|name| Metric { name: name.to_owned(), whose: whose.clone() }));
            }
            if let Some((_, arguments)) = code.split_once(" step_metrics(") {
                let step = if arguments.starts_with("STEP") { code.split_once("const STEP: &str = ") } else { None };
                let step = literals(step.map_or(arguments, |(_, rest)| rest)).swap_remove(0);
                written.insert(Metric { name: "Duration".into(), whose: Some(("Step".into(), step)) });
            }
        }
    }
    written
}

/// The first two literals of a text.
fn literals(text: &str) -> Vec<String> {
    // A text that begins within a literal has its first one in front of the first quotation mark.
    let begins_within = !text.starts_with('"');
    text.split('"').skip(usize::from(!begins_within)).step_by(2).take(2).map(str::to_owned).collect()
}

fn folder(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries.map(|entry| entry.expect("a readable folder").path()).collect()
}
