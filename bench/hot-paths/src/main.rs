//! Runs hot paths of the archive over services in memory, so that neither a network nor a store hides what they cost.
//! `bench/instructions` counts its instructions under valgrind, `bench/parts` its CPU time with release binaries, and
//! `bench/requests` what it asks the source for. What is measured is all that [`counted`] calls; making the documents
//! is not.

mod paths;
mod recorded;

use clap::Parser;
use serde_json::json;
use std::{fs, hint::black_box, path::PathBuf};

#[derive(Parser)]
#[command(
    about = "Runs hot paths of the archive in memory",
    after_help = "Example: hot-paths spool parquet --messages 2000"
)]
struct Cli {
    /// What to run, one after the other; a line of JSON each.
    #[arg(value_enum, required = true)]
    paths: Vec<paths::Path>,
    /// Messages of 25 KB, whose history and audit come to about 6 KB more.
    #[arg(long, default_value_t = 100)]
    messages: u64,
    /// Messages without history and audit.
    #[arg(long)]
    alone: bool,
    /// Parquet is packed for cold storage.
    #[arg(long)]
    cold: bool,
    /// Where to keep the object that `parquet` makes.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// The name by which valgrind knows where to count.
#[inline(never)]
fn counted<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

/// Of this thread, which is the only one that works. As Linux tells it: what asks the clock cannot run under valgrind.
fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse::<u64>().ok());
    nanoseconds.expect("time on the processor") as f64 / 1e9
}

fn main() {
    let Cli { paths, messages, alone, cold, out } = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let corpus = paths::Corpus::new(messages, alone, cold);
    for path in paths {
        let work = path.prepare(&corpus, &runtime);
        let before = cpu_seconds();
        let made = counted(work);
        let cpu = cpu_seconds() - before;
        println!(
            "{}",
            json!({
                "messages": messages, "source_bytes": corpus.bytes(), "made_bytes": made.bytes, "cpu_seconds": cpu,
                "requests": made.requests,
            })
        );
        if let (Some(object), Some(out)) = (made.object, &out) {
            fs::write(out, object).expect("a file");
        }
    }
}
