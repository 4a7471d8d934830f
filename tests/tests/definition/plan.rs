//! What Terraform would deploy to AWS, asked of Terraform itself: plans with a mocked provider, for which no account is
//! needed. ARNs follow from names, so policies and definitions stand in a plan as they would be deployed.

use crate::entries;
use serde::Deserialize;
use serde_json::Value;
use std::{io::Write, path::Path, process::Command, sync::OnceLock};

#[derive(Clone, Deserialize)]
pub struct Resource {
    /// For example `module.archive_function["gate-run"].aws_iam_role.function`.
    pub address: String,
    /// `module.archive_function["gate-run"]`; empty in the root.
    #[serde(default, rename = "module_address")]
    pub module: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// The attributes that are known before anything exists.
    pub values: Value,
}

impl Resource {
    pub fn text(&self, attribute: &str) -> &str {
        self.values[attribute].as_str().unwrap_or_default()
    }

    /// An attribute that holds JSON as text.
    pub fn json(&self, attribute: &str) -> Value {
        serde_json::from_str(self.text(attribute))
            .unwrap_or_else(|error| panic!("{}: {attribute}: {error}", self.address))
    }
}

/// The resources of all variants in `infra/tests/production.tftest.hcl`; one whose settings differ stands several
/// times.
pub fn resources() -> &'static [Resource] {
    static RESOURCES: OnceLock<Vec<Resource>> = OnceLock::new();
    RESOURCES.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let planned =
            Command::new("python3").args(["local/deploy.py", "plan"]).current_dir(root).output().expect("python3");
        if !planned.status.success() {
            let reasons: String = entries::faults().iter().map(|fault| format!("{fault}\n")).collect();
            let why = String::from_utf8_lossy(&planned.stderr);
            // Every test needs the plan. So the reason is told here, past the harness, and not once by each of them.
            let told = writeln!(std::io::stderr(), "terraform cannot plan infra/:\n{reasons}{why}");
            std::process::exit(if told.is_ok() { 1 } else { 2 });
        }
        serde_json::from_slice(&planned.stdout).expect("local/deploy.py plan prints resources")
    })
}

pub fn of_kind(kind: &str) -> impl Iterator<Item = &'static Resource> {
    resources().iter().filter(move |resource| resource.kind == kind)
}

/// A name without the deployment's prefix.
pub fn short(name: &str) -> &str {
    const PREFIX: &str = "alert-archive-";
    name.strip_prefix(PREFIX).unwrap_or_else(|| panic!("`{name}` does not begin with the deployment's prefix"))
}
