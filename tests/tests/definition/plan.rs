//! What Terraform would deploy to AWS, asked of Terraform itself: plans with a mocked provider, for which no account is
//! needed. ARNs follow from names, so policies and definitions stand in a plan as they would be deployed.

use crate::entries;
use serde::Deserialize;
use serde_json::Value;
use std::{path::Path, process::Command, sync::OnceLock};

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
    // Asked once, also when it fails: every test then says why at once.
    static RESOURCES: OnceLock<Result<Vec<Resource>, String>> = OnceLock::new();
    let planned = RESOURCES.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let planned =
            Command::new("python3").args(["local/deploy.py", "plan"]).current_dir(root).output().expect("python3");
        if !planned.status.success() {
            let reasons: String = entries::faults().iter().map(|fault| format!("{fault}\n")).collect();
            return Err(format!(
                "terraform cannot plan infra/:\n{reasons}{}",
                String::from_utf8_lossy(&planned.stderr)
            ));
        }
        Ok(serde_json::from_slice(&planned.stdout).expect("local/deploy.py plan prints resources"))
    });
    planned.as_ref().unwrap_or_else(|why| panic!("{why}"))
}

pub fn of_kind(kind: &str) -> impl Iterator<Item = &'static Resource> {
    resources().iter().filter(move |resource| resource.kind == kind)
}

/// A name without the deployment's prefix.
pub fn short(name: &str) -> &str {
    const PREFIX: &str = "alert-archive-";
    name.strip_prefix(PREFIX).unwrap_or_else(|| panic!("`{name}` does not begin with the deployment's prefix"))
}
