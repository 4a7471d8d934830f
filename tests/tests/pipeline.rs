//! Tests of the deployed workflow: every function as its own process, every table and object real.
//! The names of the tests are what they prove; `faults.rs` holds one line for each fault.

#[path = "pipeline/api.rs"]
mod api;
#[path = "pipeline/documentation.rs"]
mod documentation;
#[path = "pipeline/failures.rs"]
mod failures;
#[path = "pipeline/faults.rs"]
mod faults;
#[path = "pipeline/feeds.rs"]
mod feeds;
#[path = "pipeline/life.rs"]
mod life;
#[path = "pipeline/limits.rs"]
mod limits;
#[path = "pipeline/logs.rs"]
mod logs;
#[path = "pipeline/operators.rs"]
mod operators;
#[path = "pipeline/reruns.rs"]
mod reruns;
#[path = "pipeline/runs.rs"]
mod runs;
#[path = "pipeline/together.rs"]
mod together;
#[path = "pipeline/unresolved.rs"]
mod unresolved;
#[path = "pipeline/verify.rs"]
mod verify;
#[path = "pipeline/warehouse.rs"]
mod warehouse;
#[path = "pipeline/year.rs"]
mod year;

use libtest_mimic::{Arguments, Failed, Trial};
use pipeline_tests::{Cloud, functions};
use std::pin::Pin;
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// Connected by the first test that runs; none of them runs without.
type Shared = Arc<OnceCell<Result<Cloud, String>>>;

type Work<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// A list of tests, each under its own name.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub const TESTS: &[(&str, for<'a> fn(&'a pipeline_tests::Cloud) -> $crate::Work<'a>)] = &[$((stringify!($name), |cloud| Box::pin($name(cloud)))),*];
    };
}

fn main() {
    let mut arguments = Arguments::from_args();
    // One deployment: a fault meant for one run would meet another.
    arguments.test_threads = Some(1);
    let runtime = Arc::new(Runtime::new().expect("a tokio runtime"));
    let cloud: Shared = Arc::default();
    let mut trials = Vec::new();
    let lists = [
        // First: it looks at the whole archive, and no other test has written in it yet.
        documentation::TESTS,
        runs::TESTS,
        reruns::TESTS,
        failures::TESTS,
        life::TESTS,
        year::TESTS,
        operators::TESTS,
        together::TESTS,
        unresolved::TESTS,
        verify::TESTS,
        api::TESTS,
        warehouse::TESTS,
        feeds::TESTS,
        logs::TESTS,
    ];
    for (name, test) in lists.concat() {
        trials.push(trial(name, &runtime, &cloud, move |cloud| test(cloud)));
    }
    for fault in faults::FAULTS {
        let trial =
            trial(fault.name, &runtime, &cloud, move |cloud| Box::pin(faults::makes_no_difference(cloud, fault)));
        trials.push(trial.with_kind(faults::KIND).with_ignored_flag(!fault.quick));
    }
    // Last: what these leave in the tables slows down all that read them.
    for (name, test) in limits::TESTS {
        trials.push(trial(name, &runtime, &cloud, move |cloud| test(cloud)));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some(Ok(cloud)) = cloud.get() {
        if let Err(error) = runtime.block_on(functions::take_proxies_away(cloud)) {
            eprintln!("the functions could not be set back, `make down` and `make up` will: {error:#}");
        }
        faults::write_table();
    }
    conclusion.exit();
}

fn trial(
    name: &str,
    runtime: &Arc<Runtime>,
    cloud: &Shared,
    work: impl for<'a> Fn(&'a Cloud) -> Work<'a> + Send + 'static,
) -> Trial {
    let (runtime, cloud) = (runtime.clone(), cloud.clone());
    Trial::test(name.replace(' ', "_"), move || {
        runtime.block_on(async {
            let connected =
                cloud.get_or_init(async || Cloud::connect().await.map_err(|error| format!("{error:#}"))).await;
            let cloud = connected.as_ref().map_err(Failed::from)?;
            let began = std::time::Instant::now();
            let outcome = work(cloud).await;
            // What a failed test left armed must not meet the next one.
            let _ = cloud.proxies.disarm();
            eprintln!("    {:.1} s", began.elapsed().as_secs_f64());
            outcome.map_err(|error| Failed::from(format!("{error:#}")))
        })
    })
}
