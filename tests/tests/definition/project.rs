//! What the definition must agree with, read from the files of the project.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

#[derive(Clone)]
pub struct Project {
    pub definition: Value,
    /// Folders below `functions/`.
    pub folders: BTreeSet<String>,
    /// Package names in those folders.
    pub binaries: BTreeSet<String>,
    /// Functions with a policy of their own.
    pub roles: BTreeSet<String>,
    /// Lambda timeouts in seconds.
    pub timeouts: BTreeMap<String, u64>,
    /// The project's environment variables that Terraform sets, by function.
    pub environments: BTreeMap<String, BTreeSet<String>>,
    /// Those that a function reads.
    pub read: BTreeMap<String, BTreeSet<String>>,
    /// Errors that the README explains.
    pub explained: BTreeSet<String>,
    /// Errors that the functions can end with.
    pub thrown: BTreeSet<String>,
}

impl Project {
    pub fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folders = names(&root.join("functions"), "");
        let terraform = root.join("infra/modules/functions");
        let sizes: BTreeMap<String, Value> = serde_json::from_str(&text(&terraform.join("sizes.json"))).expect("sizes.json is a map");
        let binaries = folders.iter().map(|folder| {
            let manifest = text(&root.join("functions").join(folder).join("Cargo.toml"));
            let name = manifest.lines().find_map(|line| line.strip_prefix("name = ")).expect("a package has a name");
            name.trim_matches('"').to_owned()
        });
        let source_reads = variables(&sources(&root.join("crates/sources/src")));
        let read = folders.iter().map(|folder| {
            let own = variables(&sources(&root.join("functions").join(folder).join("src")));
            let through_source = if own.contains("OPENSEARCH_URL") { source_reads.clone() } else { BTreeSet::new() };
            (folder.clone(), own.into_iter().chain(through_source).collect())
        });
        let thrown = errors::Name::ALL.iter().map(|name| name.to_string()).collect();
        Project {
            definition: Project::definition("archive-alerts"),
            binaries: binaries.collect(),
            read: read.collect(),
            roles: names(&terraform.join("policies"), ".json"),
            timeouts: sizes.into_iter().map(|(name, size)| (name, size["timeout"].as_u64().expect("a timeout in seconds"))).collect(),
            environments: environments(&text(&terraform.join("main.tf"))),
            explained: text(&root.join("statemachine/README.md"))
                .lines()
                .filter(|line| line.starts_with("| `"))
                .filter_map(|row| row.split('|').nth(1).map(|cell| between(cell, "`", "`")))
                .flatten()
                .collect(),
            thrown,
            folders,
        }
    }

    pub fn definition(name: &str) -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../statemachine").join(format!("{name}.asl.json"));
        serde_json::from_str(&text(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Sets the value at a JSON pointer; its parent must exist.
    pub fn set(&mut self, pointer: &str, value: Value) {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer starts with a slash");
        match self.definition.pointer_mut(parent) {
            Some(Value::Object(fields)) => fields.insert(name.to_owned(), value),
            Some(Value::Array(elements)) => Some(std::mem::replace(&mut elements[name.parse::<usize>().expect("an index")], value)),
            _ => panic!("the definition has nothing at {parent}"),
        };
    }

    pub fn remove(&mut self, parent: &str, name: &str) {
        let fields = self.definition.pointer_mut(parent).and_then(Value::as_object_mut);
        assert!(fields.and_then(|fields| fields.remove(name)).is_some(), "the definition has no {parent}/{name}");
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("a readable folder").path()).collect()
}

/// Names in a folder that end in `suffix`, without it; folders only where there is no suffix.
fn names(folder: &Path, suffix: &str) -> BTreeSet<String> {
    let names = entries(folder).into_iter().filter(|path| path.is_dir() == suffix.is_empty()).filter_map(|path| {
        let name = path.file_name()?.to_str()?;
        name.strip_suffix(suffix).map(str::to_owned)
    });
    names.collect()
}

/// The text of all Rust files below a folder.
fn sources(folder: &Path) -> Vec<String> {
    let found = entries(folder).into_iter().flat_map(|path| match path.extension() {
        _ if path.is_dir() => sources(&path),
        Some(extension) if extension == "rs" => vec![text(&path)],
        _ => Vec::new(),
    });
    found.collect()
}

fn between(text: &str, before: &str, after: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, tail)) = rest.split_once(before) {
        let Some((name, tail)) = tail.split_once(after) else { break };
        found.push(name.to_owned());
        rest = tail;
    }
    found
}

/// The project's environment variables that Rust code names.
fn variables(sources: &[String]) -> BTreeSet<String> {
    let quoted = sources.iter().flat_map(|source| between(source, "\"", "\""));
    quoted.filter(|text| belongs(text)).collect()
}

fn belongs(variable: &str) -> bool {
    variable == "OPENSEARCH_URL" || variable.starts_with("ALERT_ARCHIVE_")
}

/// Which variables stand in which function's environment: `main.tf` merges named groups and literal maps.
fn environments(terraform: &str) -> BTreeMap<String, BTreeSet<String>> {
    let (_, locals) = terraform.split_once("locals {").expect("main.tf begins with its locals");
    let (groups, functions) = locals.split_once("environments = {").expect("the locals hold the environments");
    let variables = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
        words.filter(|word| belongs(word)).map(str::to_owned).collect()
    };
    let name = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c == '_');
    let entry = |line: &str| line.split_once(" = ").map(|(before, _)| before.trim().to_owned()).filter(|before| name(before));
    let mut by_group: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut group = String::new();
    for line in groups.lines().filter(|line| !line.trim().is_empty()) {
        if line.starts_with("  ")
            && !line.starts_with("   ")
            && let Some(name) = entry(line)
        {
            group = name;
        }
        by_group.entry(group.clone()).or_default().extend(variables(line));
    }
    let mut by_function: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut function = String::new();
    for line in functions.lines().take_while(|line| *line != "  }") {
        if line.starts_with("    ")
            && !line.starts_with("     ")
            && let Some(name) = entry(line)
        {
            function = name;
        }
        if function.is_empty() {
            continue;
        }
        let environment = by_function.entry(function.clone()).or_default();
        environment.extend(variables(line));
        for name in between(&format!("{} ", line.replace([',', ')'], " ")), "local.", " ") {
            environment.extend(by_group.get(&name).cloned().unwrap_or_default());
        }
    }
    let everywhere = by_group.remove("everywhere").unwrap_or_default();
    let everywhere: BTreeSet<String> = everywhere.into_iter().chain(by_group.remove("bucket").unwrap_or_default()).collect();
    by_function.values_mut().for_each(|environment| environment.extend(everywhere.iter().cloned()));
    by_function
}
