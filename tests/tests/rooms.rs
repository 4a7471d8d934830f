//! Which crate may know which: no circle between modules of a crate, and no pipeline in the crates that all share.
//! ARCHITECTURE.md says why; what fails here names the file to change.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Crates that only one pipeline has a use for.
const PIPELINES: &[&str] =
    &["alerts", "archive", "feeds", "lines", "log-entries", "logs", "warehouse", "warehouse-state"];
/// Crates that all pipelines share, and the pure ones below them.
const SHARED: &[&str] = &[
    "errors",
    "events",
    "identity",
    "ledger",
    "mail",
    "network",
    "parameters",
    "queue",
    "runtime",
    "storage",
    "workflow",
];
/// Crates in which several pipelines meet, and that may name each of them.
const MEETING: &[&str] = &["columnar", "reports", "sources", "verify"];
/// Crates without I/O: none of them needs a runtime, a network or an SDK.
const PURE: &[&str] = &["alerts", "errors", "feeds", "identity", "ledger", "lines", "logs", "warehouse"];

#[test]
fn no_module_imports_itself_through_others() {
    let packages = packages();
    let product = packages.iter().filter(|package| package.name != env!("CARGO_PKG_NAME"));
    let circles: Vec<String> =
        product.flat_map(|package| Modules::read(&package.folder).circles(&package.name)).collect();
    assert!(
        circles.is_empty(),
        "modules that import in a circle; move what both need below both:\n{}",
        circles.join("\n")
    );
}

#[test]
fn no_shared_crate_knows_a_pipeline() {
    let packages = packages();
    let shared = packages.iter().filter(|package| SHARED.contains(&package.name.as_str()));
    let faults: Vec<String> = shared
        .flat_map(|package| {
            let known = package.needs.iter().filter(|name| PIPELINES.contains(&name.as_str()));
            known.map(|name| {
                format!("{}/Cargo.toml: `{}` must not depend on `{name}`", package.folder.display(), package.name)
            })
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // The writer that others share is a module of a crate that also holds the archive's schema.
    let columnar = packages.iter().find(|package| package.name == "columnar").expect("crates/columnar");
    let text = fs::read_to_string(columnar.folder.join("src/writer.rs")).expect("crates/columnar/src/writer.rs");
    let named: Vec<_> = PIPELINES.iter().filter(|name| code(&text).contains(&format!("{name}::"))).collect();
    assert!(named.is_empty(), "crates/columnar/src/writer.rs names {named:?}");
}

#[test]
fn each_crate_is_of_one_pipeline_or_of_all_or_where_they_meet() {
    let packages = packages();
    let faults: Vec<String> =
        packages.iter().filter(|package| package.is_crate()).filter_map(|package| unplaced(&package.name)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(unplaced("storage"), None);
    assert!(unplaced("new").is_some_and(|fault| fault.contains("`new`")));
}

/// What to do about a crate that does not stand in exactly one of the lists above.
fn unplaced(name: &str) -> Option<String> {
    let lists = [PIPELINES, SHARED, MEETING].iter().filter(|list| list.contains(&name)).count();
    (lists != 1).then(|| {
        format!(
            "tests/tests/rooms.rs: `{name}` must stand in one of PIPELINES, SHARED and MEETING, and, if it has no I/O, \
             in PURE"
        )
    })
}

#[test]
fn the_pure_crates_need_no_runtime_and_no_network() {
    let impure = |name: &&String| {
        name.starts_with("aws-") || ["tokio", "reqwest", "opensearch", "hyper", "runtime"].contains(&name.as_str())
    };
    let packages = packages();
    let faults: Vec<String> = packages
        .iter()
        .filter(|package| PURE.contains(&package.name.as_str()))
        .flat_map(|package| {
            package.needs.iter().filter(impure).map(|name| format!("`{}` must not depend on `{name}`", package.name))
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn crates_know_only_crates_before_them_in_the_table_of_the_architecture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let faults = misplaced(&table(&text), &packages());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_crate_that_knows_a_later_one_or_is_not_in_the_table_is_found() {
    let crates = |name: &str, needs: &[&str]| Package {
        name: name.to_owned(),
        folder: Path::new("crates").join(name),
        needs: needs.iter().map(|name| (*name).to_owned()).collect(),
    };
    let packages = [crates("low", &["high", "serde"]), crates("high", &["low"]), crates("new", &[])];
    let table =
        table("| crate | holds |\n|---|---|\n| `low` | x of `high` |\n| `high`, `gone` | y |\n\n| `new` | z |\n");
    let faults = misplaced(&table, &packages);
    assert_eq!(faults.len(), 3, "{faults:#?}");
    assert!(faults[0].contains("crates/low/Cargo.toml: `low` stands before `high`"), "{faults:#?}");
    assert!(faults[1].contains("`new`") && faults[2].contains("`gone`"), "{faults:#?}");
}

/// Names in the first column of the table of crates, in its order.
fn table(text: &str) -> Vec<String> {
    let rows = text.lines().skip_while(|line| !line.starts_with("| crate |")).take_while(|line| line.starts_with('|'));
    let names = rows.skip(2).flat_map(|row| row.split('|').nth(1).unwrap_or_default().split(','));
    names.map(|name| name.trim().trim_matches('`').to_owned()).collect()
}

/// What the table and the crates do not agree about.
fn misplaced(table: &[String], packages: &[Package]) -> Vec<String> {
    let crates = packages.iter().filter(|package| package.is_crate());
    let place = |name: &str| table.iter().position(|crate_name| crate_name == name);
    let mut faults = Vec::new();
    let mut gone: BTreeSet<&str> = table.iter().map(String::as_str).collect();
    for package in crates {
        let name = package.name.as_str();
        gone.remove(name);
        let Some(own) = place(name) else {
            faults.push(format!("ARCHITECTURE.md: `{name}` stands in crates/ and not in the table of crates"));
            continue;
        };
        let later = package.needs.iter().filter(|needed| place(needed).is_some_and(|place| place >= own));
        faults.extend(later.map(|needed| {
            format!(
                "{}/Cargo.toml: `{name}` stands before `{needed}` in the table of ARCHITECTURE.md, so it may not \
                 need it",
                package.folder.display()
            )
        }));
    }
    faults.extend(gone.into_iter().map(|name| format!("ARCHITECTURE.md: there is no crate `{name}` in crates/")));
    faults
}

#[test]
fn functions_never_depend_on_functions() {
    let packages = packages();
    let functions: BTreeSet<&str> =
        packages.iter().filter(|package| package.is_function()).map(|package| package.name.as_str()).collect();
    let faults: Vec<String> = packages
        .iter()
        .filter(|package| package.is_function())
        .flat_map(|package| {
            let needed = package.needs.iter().filter(|name| functions.contains(name.as_str()));
            needed.map(|name| {
                format!("functions/{} depends on functions/{name}: move what both need into a crate", package.name)
            })
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_circle_is_found_and_told_by_its_modules() {
    let files = [
        ("", "pub mod window; mod report;\npub use report::{Report, Totals};"),
        ("window", "use crate::{run::Mode, Totals};"),
        ("report", "fn of(window: &crate::window::Window) {}"),
        ("run", "use super::window;"),
        ("run/lock", "// use crate::report::Report;\nuse super::job; use crate::run::Mode;"),
        ("run/job", "#[cfg(test)]\nmod tests {\n    use crate::run::lock::Lock;\n}\n"),
    ];
    let files = files.map(|(path, text)| {
        (path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect(), text.to_owned())
    });
    let circles = Modules(files.into_iter().collect()).circles("core");
    assert_eq!(circles, ["core: report -> window -> report", "core: run -> window -> run"]);
}

struct Package {
    name: String,
    folder: PathBuf,
    /// What it is built with; what only its tests need is left out.
    needs: BTreeSet<String>,
}

impl Package {
    fn is_crate(&self) -> bool {
        self.folder.parent().is_some_and(|parent| parent.ends_with("crates"))
    }

    fn is_function(&self) -> bool {
        self.folder.parent().is_some_and(|parent| parent.ends_with("functions"))
    }
}

fn packages() -> Vec<Package> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut described = Command::new(cargo);
    described.args(["metadata", "--format-version=1", "--no-deps", "--offline"]).current_dir(root);
    let described = described.output().expect("cargo");
    assert!(described.status.success(), "{}", String::from_utf8_lossy(&described.stderr));
    let metadata: Value = serde_json::from_slice(&described.stdout).expect("cargo describes in JSON");
    let package = |package: &Value| {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let needed = dependencies.filter(|dependency| dependency["kind"] != "dev");
        Package {
            name: package["name"].as_str().expect("a name").to_owned(),
            folder: Path::new(package["manifest_path"].as_str().expect("a path"))
                .parent()
                .expect("a folder")
                .to_owned(),
            needs: needed.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned)).collect(),
        }
    };
    metadata["packages"].as_array().into_iter().flatten().map(package).collect()
}

type ModulePath = Vec<String>;

/// The text of each module of a crate, by its path; the root's is empty.
struct Modules(BTreeMap<ModulePath, String>);

impl Modules {
    fn read(package: &Path) -> Self {
        let mut modules = BTreeMap::new();
        let mut folders = vec![(package.join("src"), ModulePath::new())];
        while let Some((folder, path)) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten() {
                let file = entry.expect("a readable folder").path();
                let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
                let inside = || path.iter().cloned().chain([name.clone()]).collect::<ModulePath>();
                if file.is_dir() {
                    folders.push((file, inside()));
                } else if file.extension().is_some_and(|extension| extension == "rs") {
                    let of_folder = matches!(name.as_str(), "lib" | "main" | "mod");
                    let text = fs::read_to_string(&file).expect("a readable file");
                    *modules.entry(if of_folder { path.clone() } else { inside() }).or_default() += text.as_str();
                }
            }
        }
        Modules(modules)
    }

    /// Circles between modules that stand beside each other. A module and those inside it are one place.
    fn circles(&self, name: &str) -> Vec<String> {
        let mut imports: BTreeMap<ModulePath, BTreeSet<ModulePath>> = BTreeMap::new();
        for (from, text) in &self.0 {
            for to in paths(&code(text), from).iter().map(|path| self.module_of(path)) {
                let shared = from.iter().zip(&to).take_while(|(left, right)| left == right).count();
                if shared < from.len() && shared < to.len() {
                    imports.entry(from[..=shared].to_vec()).or_default().insert(to[..=shared].to_vec());
                }
            }
        }
        let mut circles = BTreeSet::new();
        for start in imports.keys() {
            let mut ways = vec![vec![start]];
            let mut seen = BTreeSet::new();
            while let Some(way) = ways.pop() {
                for next in way.last().and_then(|last| imports.get(*last)).into_iter().flatten() {
                    if next == start && way.iter().min() == Some(&start) {
                        let way: Vec<String> = way.iter().chain([&start]).map(|path| path.join("::")).collect();
                        circles.insert(format!("{name}: {}", way.join(" -> ")));
                    } else if next != start && seen.insert(next) {
                        ways.push(way.iter().copied().chain([next]).collect());
                    }
                }
            }
        }
        circles.into_iter().collect()
    }

    /// The module that a path leads to, through what the root exports again.
    fn module_of(&self, path: &[String]) -> ModulePath {
        let module = (0..=path.len()).rev().find(|length| self.0.contains_key(&path[..*length])).unwrap_or_default();
        if module > 0 {
            return path[..module].to_vec();
        }
        let Some((item, root)) = path.first().zip(self.0.get(&ModulePath::new())) else { return ModulePath::new() };
        let exported = declarations(&code(root)).into_iter().filter(|path| path.last() == Some(item));
        exported
            .map(|path| path[..path.len() - 1].to_vec())
            .find(|module| self.0.contains_key(module))
            .unwrap_or_default()
    }
}

/// Without comments and without tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Paths within the crate that a module names, from the crate's root.
fn paths(text: &str, module: &[String]) -> BTreeSet<ModulePath> {
    let words = declarations(text).into_iter().chain(inline(text));
    words
        .filter_map(|path| {
            let above = path.iter().take_while(|part| *part == "super").count();
            match path.first().map(String::as_str) {
                Some("crate") => Some(path[1..].to_vec()),
                Some("super") if above <= module.len() => {
                    Some(module[..module.len() - above].iter().chain(&path[above..]).cloned().collect())
                }
                _ => None,
            }
        })
        .collect()
}

/// What `use` declarations name, each path whole.
fn declarations(text: &str) -> Vec<ModulePath> {
    let mut found = Vec::new();
    for rest in text.split("use ").skip(1) {
        let Some((tree, _)) = rest.split_once(';') else { continue };
        flatten(tree, &[], &mut found);
    }
    found
}

fn flatten(tree: &str, before: &[String], found: &mut Vec<ModulePath>) {
    let (head, group) = tree.split_once('{').map_or((tree, None), |(head, group)| (head, group.rsplit_once('}')));
    let head = head.split(" as ").next().unwrap_or_default();
    let parts = head.split("::").map(str::trim).filter(|part| !part.is_empty() && *part != "self").map(str::to_owned);
    let path: ModulePath = before.iter().cloned().chain(parts).collect();
    let Some((group, _)) = group else { return found.push(path) };
    let mut depth = 0;
    let parts = group.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    parts.filter(|part| !part.trim().is_empty()).for_each(|part| flatten(part, &path, found));
}

/// Paths that stand in the middle of code.
fn inline(text: &str) -> Vec<ModulePath> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c| !is_part(c)).filter(|word| word.starts_with("crate::") || word.starts_with("super::"));
    words.map(|word| word.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()).collect()
}
