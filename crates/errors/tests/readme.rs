use std::{fs, path::Path};

#[test]
fn the_readme_explains_each_error_as_the_registry_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../statemachine/README.md");
    let readme = fs::read_to_string(path).expect("statemachine/README.md");
    let wanted = errors::explained(&readme).expect("the README has marks for the tables");
    assert!(readme == wanted, "statemachine/README.md is behind the registry: cargo run -p errors --example readme");
}
