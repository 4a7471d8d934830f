//! Where in infra/ a function is deployed, read from the files' text: also when Terraform cannot plan them, and so that
//! a fault can name the file to change.

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

/// Why Terraform cannot plan, as far as a function's entry or its policy are missing.
pub fn faults() -> Vec<String> {
    let functions = fs::read_dir(folder("functions")).expect("functions/");
    let names = functions.filter_map(|entry| entry.expect("a readable folder").file_name().into_string().ok());
    let mut faults: Vec<String> = names
        .filter_map(|name| {
            let policy = format!("infra/policies/{name}.json");
            match found(&name) {
                None => Some(format!("functions/{name} is not deployed: {}", wanted(&name))),
                Some(file) if !folder(&policy).exists() => {
                    Some(format!("{policy} is missing: what `{name}`, which {file} deploys, may do"))
                }
                Some(_) => None,
            }
        })
        .collect();
    faults.sort();
    faults
}
