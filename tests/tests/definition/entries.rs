//! Where in infra/ a function is deployed, read from the files' text: also when Terraform cannot plan them, and so that
//! a fault can name the file to change.

use crate::lint::kebab;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// Files of a folder whose names end so, by their path from the root, with their text.
fn files(name: &str, end: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    let texts = paths.filter_map(|path| {
        let file = path.file_name()?.to_str()?.to_owned();
        file.ends_with(end).then(|| (format!("{name}/{file}"), fs::read_to_string(&path).expect("a readable file")))
    });
    texts.collect()
}

/// The file with a function's entry in a map, or with a module of its own.
fn found(name: &str) -> Option<String> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let entries = [words(&format!("{name} = {{")), words(&format!("name = \"{name}\""))];
    let mut files = files("infra", ".tf").into_iter();
    files.find(|(_, text)| text.lines().any(|line| entries.contains(&words(line)))).map(|(file, _)| file)
}

pub fn file_of(name: &str) -> String {
    found(name).unwrap_or_else(|| "infra/".to_owned())
}

/// What to do for a function that is not deployed.
pub fn wanted(name: &str) -> String {
    format!("add `{name}` to the map of functions in {}", maps(name).join(" or "))
}

/// The file of the workflow whose definition calls the function; all that hold a map, as long as none does.
fn maps(name: &str) -> Vec<String> {
    let variable: String = name.split('-').map(capitalised).collect();
    let definitions = files("statemachine", ".asl.json").into_iter();
    let mut calling = definitions.filter(|(_, text)| text.contains(&format!("${{{variable}Arn}}")));
    let infra = files("infra", ".tf");
    let of = |part: &str| -> Vec<String> {
        infra.iter().filter(|(_, text)| text.contains(part)).map(|(file, _)| file.clone()).collect()
    };
    match calling.next() {
        Some((definition, _)) => of(&definition),
        None => of("_functions = {"),
    }
}

fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(word.len().min(1));
    first.to_uppercase() + rest
}

/// Functions that have a folder or that a definition calls, and that are not deployed: why Terraform cannot plan.
pub fn faults() -> Vec<String> {
    let folders = fs::read_dir(folder("functions")).expect("functions/");
    let folders = folders.filter_map(|entry| entry.expect("a readable folder").file_name().into_string().ok());
    let mut faults: BTreeMap<String, String> =
        folders.map(|name| (name.clone(), format!("functions/{name}"))).collect();
    for (definition, text) in files("statemachine", ".asl.json") {
        let called = text.split("\"FunctionName\": \"${").skip(1).filter_map(|rest| rest.split_once("Arn}"));
        for name in called.map(|(state, _)| kebab(state)) {
            let unknown = format!("{definition} calls `{name}`, there is no folder functions/{name}, and it");
            faults.entry(name).or_insert(unknown);
        }
    }
    let missing = faults.into_iter().filter(|(name, _)| found(name).is_none());
    missing.map(|(name, what)| format!("{what} is not deployed: {}", wanted(&name))).collect()
}
