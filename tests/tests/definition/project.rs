//! What the definitions must agree with: packages as cargo names them, and what Terraform would deploy of them.

use crate::plan::{of_kind, short};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

#[derive(Clone)]
pub struct Project {
    /// State machines as they would be deployed, by name.
    pub machines: BTreeMap<String, Value>,
    /// Packages below `functions/`, by the name of their folder.
    pub packages: BTreeMap<String, Package>,
    /// Functions that would be deployed, by name.
    pub functions: BTreeMap<String, Function>,
    /// ARNs of the functions that a queue starts.
    pub queued: BTreeSet<String>,
    /// ARNs of the functions that a schedule starts.
    pub scheduled: BTreeSet<String>,
}

#[derive(Clone)]
pub struct Package {
    pub name: String,
    pub binaries: BTreeSet<String>,
    /// What its `main` tells `runtime::serve` that it is called.
    pub serves: String,
    /// The project's environment variables that it reads, or a crate that it depends on.
    pub reads: BTreeSet<String>,
    /// The names of errors that its own code raises.
    pub raises: BTreeSet<String>,
}

#[derive(Clone, Default)]
pub struct Function {
    pub arn: String,
    /// In seconds.
    pub timeout: u64,
    /// The project's environment variables that it is given.
    pub environment: BTreeSet<String>,
}

impl Project {
    /// Cargo and Terraform are asked once.
    pub fn read() -> Self {
        static READ: OnceLock<Project> = OnceLock::new();
        READ.get_or_init(Project::ask).clone()
    }

    fn ask() -> Self {
        let mut functions: BTreeMap<String, Function> = BTreeMap::new();
        for resource in of_kind("aws_lambda_function") {
            let name = resource.text("function_name");
            let function = functions.entry(short(name).to_owned()).or_default();
            function.arn = format!("arn:aws:lambda:us-east-1:123456789012:function:{name}");
            function.timeout = resource.values["timeout"].as_u64().expect("a timeout in seconds");
            let variables = resource.values["environment"][0]["variables"].as_object().into_iter().flatten();
            function.environment.extend(variables.map(|(name, _)| name.clone()).filter(|name| is_ours(name)));
        }
        let machines = of_kind("aws_sfn_state_machine");
        Project {
            machines: machines
                .map(|machine| (short(machine.text("name")).to_owned(), machine.json("definition")))
                .collect(),
            packages: packages(),
            functions,
            queued: of_kind("aws_lambda_event_source_mapping")
                .map(|mapping| mapping.text("function_name").to_owned())
                .collect(),
            scheduled: of_kind("aws_scheduler_schedule")
                .filter_map(|schedule| schedule.values["target"][0]["arn"].as_str().map(str::to_owned))
                .collect(),
        }
    }

    /// The definition of the archive's workflow.
    pub fn archive(&self) -> &Value {
        &self.machines["archive-alerts"]
    }

    fn archive_mut(&mut self) -> &mut Value {
        self.machines.get_mut("archive-alerts").expect("the archive's workflow")
    }

    /// Sets the value at a JSON pointer of the archive's definition; its parent must exist.
    pub fn set(&mut self, pointer: &str, value: Value) {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer starts with a slash");
        match self.archive_mut().pointer_mut(parent) {
            Some(Value::Object(fields)) => fields.insert(name.to_owned(), value),
            Some(Value::Array(elements)) => {
                Some(std::mem::replace(&mut elements[name.parse::<usize>().expect("an index")], value))
            }
            _ => panic!("the definition has nothing at {parent}"),
        };
    }

    pub fn remove(&mut self, parent: &str, name: &str) {
        let fields = self.archive_mut().pointer_mut(parent).and_then(Value::as_object_mut);
        assert!(fields.and_then(|fields| fields.remove(name)).is_some(), "the definition has no {parent}/{name}");
    }

    /// A package and its deployed function, as a test wants them broken.
    pub fn package(&mut self, name: &str) -> &mut Package {
        self.packages.get_mut(name).expect("a package")
    }

    pub fn function(&mut self, name: &str) -> &mut Function {
        self.functions.get_mut(name).expect("a function")
    }
}

/// The packages below `functions/`, as cargo describes them.
fn packages() -> BTreeMap<String, Package> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let described = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .expect("cargo");
    assert!(described.status.success(), "{}", String::from_utf8_lossy(&described.stderr));
    let metadata: Value = serde_json::from_slice(&described.stdout).expect("cargo describes in JSON");
    let all: BTreeMap<&str, &Value> = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|package| Some((package["name"].as_str()?, package)))
        .collect();
    let folder = |package: &Value| -> PathBuf {
        let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
        manifest.parent().expect("a manifest is in a folder").to_owned()
    };
    let functions =
        all.iter().filter(|(_, package)| folder(package).parent().is_some_and(|parent| parent.ends_with("functions")));
    let functions = functions.map(|(name, package)| {
        let binaries = package["targets"].as_array().into_iter().flatten().filter(|target| target["kind"][0] == "bin");
        let package_folder = folder(package);
        let described = Package {
            name: (*name).to_owned(),
            binaries: binaries.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect(),
            serves: served(&package_folder.join("src/main.rs")),
            reads: with_dependencies(name, &all)
                .into_iter()
                .flat_map(|name| variables(&folder(all[name]).join("src")))
                .collect(),
            raises: raised(&package_folder.join("src")),
        };
        (package_folder.file_name().and_then(|name| name.to_str()).expect("a name").to_owned(), described)
    });
    functions.collect()
}

/// The name in `runtime::serve("...", `; empty where there is none.
fn served(main: &Path) -> String {
    let text = fs::read_to_string(main).unwrap_or_default();
    let name = text.split_once("runtime::serve(\"").and_then(|(_, rest)| rest.split_once('"'));
    name.map(|(name, _)| name.to_owned()).unwrap_or_default()
}

/// A package, the packages of this workspace that it depends on, and so on.
fn with_dependencies<'a>(name: &'a str, all: &BTreeMap<&'a str, &'a Value>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![name];
    while let Some(name) = open.pop() {
        if !found.insert(name) {
            continue;
        }
        let dependencies = all[name]["dependencies"].as_array().into_iter().flatten();
        // `kind` is null for what the package itself needs, "dev" for what its tests do.
        let needed = dependencies.filter(|dependency| dependency["kind"].is_null());
        open.extend(needed.filter_map(|dependency| dependency["name"].as_str()).filter(|name| all.contains_key(name)));
    }
    found
}

/// The project's environment variables that the code below a folder names, tests aside.
fn variables(folder: &Path) -> BTreeSet<String> {
    let code = code(folder);
    let literals = code.iter().flat_map(|code| code.split('"'));
    literals.filter(|literal| is_ours(literal)).map(str::to_owned).collect()
}

/// The `Name::…` that the code below a folder names, tests aside.
fn raised(folder: &Path) -> BTreeSet<String> {
    let code = code(folder);
    let named = code.iter().flat_map(|code| code.split(|c: char| !c.is_alphanumeric() && c != ':'));
    named.filter_map(|word| word.strip_prefix("Name::")).map(str::to_owned).collect()
}

/// The code below a folder, by file, tests aside.
fn code(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.expect("a readable folder").path()) {
        if path.is_dir() {
            found.extend(code(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            found.push(text.split("#[cfg(test)]").next().unwrap_or_default().to_owned());
        }
    }
    found
}

fn is_ours(variable: &str) -> bool {
    let name = variable == "OPENSEARCH_URL" || variable.starts_with("ALERT_ARCHIVE_");
    name && variable.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}
