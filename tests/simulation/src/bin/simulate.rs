//! Goes through all small states of the ledger, stops two executors at every pair of their requests, then tries
//! histories by seed, on every processor. The last line says how many there were; the exit code is 1 when one of them
//! has a finding.

use clap::Parser;
use simulation::{
    breadth_first::Explored,
    history::{
        Plan,
        pairs::{self, Tried},
    },
    states, work,
};
use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// Goes through all small states of the ledger, then tries histories of runs that die, sleep, wake and meet
#[derive(Parser)]
#[command(after_help = "\
Examples:
  simulate --seeds 200000                 more of them
  simulate --from 5000 --seeds 5000       others
  SEED=36 simulate                        one history, request by request; what a finding needs of it is shown")]
struct Options {
    /// How many histories to try
    #[arg(long, default_value_t = 5000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Go through all states in which an executor dies and another sleeps too: half a minute more
    #[arg(long)]
    all_states: bool,
    /// Replay this history only
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let Options { seeds, from, all_states, seed } = Options::parse();
    if let Some(seed) = seed {
        return replay(seed);
    }
    let found = explore_all(if all_states { &states::ALL } else { &states::LIMITS }) + try_pairs();
    let findings = AtomicU64::new(found);
    let began = Instant::now();
    let (next, steps) = (AtomicU64::new(from), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(2, |threads| threads.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    let outcome = Plan::of(seed).run(false);
                    steps.fetch_add(outcome.steps, Ordering::Relaxed);
                    if !outcome.findings.is_empty() {
                        findings.fetch_add(1, Ordering::Relaxed);
                        println!("SEED={seed}: {}", outcome.findings.join("; "));
                    }
                }
            });
        }
    });
    let (steps, findings) = (steps.into_inner(), findings.into_inner());
    let a_second = seeds as f64 / began.elapsed().as_secs_f64();
    println!("histories: {seeds}, steps: {steps}, findings: {findings}, {a_second:.0} histories a second");
    if findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The number of findings.
fn explore_all(limits: &[states::Limits]) -> u64 {
    let (began, mut reached, mut findings) = (Instant::now(), 0, 0);
    let of_runs = std::thread::scope(|scope| {
        let explore = |limits: &states::Limits| (format!("{limits:?}"), states::explore(*limits));
        let threads: Vec<_> = limits.iter().map(|limits| scope.spawn(move || explore(limits))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect::<Vec<_>>()
    });
    let of_work = ("one piece of work".to_owned(), work::explore());
    for (about, Explored { states, finding }) in of_runs.into_iter().chain([of_work]) {
        reached += states;
        if let Some((what, way)) = finding {
            findings += 1;
            println!("{about}: {what}");
            way.iter().for_each(|step| println!("  {step}"));
        }
    }
    println!("states: {reached}, findings: {findings}, {:.1} s", began.elapsed().as_secs_f64());
    findings
}

/// The number of findings.
fn try_pairs() -> u64 {
    let began = Instant::now();
    let tried = std::thread::scope(|scope| {
        let threads = pairs::ALL.map(|meeting| scope.spawn(move || pairs::explore(meeting)));
        threads.map(|thread| thread.join().expect("it does not panic"))
    });
    let (mut reached, mut findings) = (0, 0);
    for Tried { pairs, finding } in tried {
        reached += pairs;
        if let Some(finding) = finding {
            findings += 1;
            println!("{finding}");
        }
    }
    println!("pairs of stops: {reached}, findings: {findings}, {:.1} s", began.elapsed().as_secs_f64());
    findings
}

fn replay(seed: u64) -> ExitCode {
    let plan = Plan::of(seed);
    let whole = plan.run(true);
    if whole.findings.is_empty() {
        whole.log.iter().for_each(|line| println!("{line}"));
        println!("histories: 1, steps: {}, findings: 0", whole.steps);
        return ExitCode::SUCCESS;
    }
    let shrunk = plan.shrunk();
    let outcome = shrunk.run(true);
    outcome.log.iter().for_each(|line| println!("{line}"));
    println!("documents: {:?}", shrunk.documents);
    println!("acts: {:?}; faults left out: {:?}", shrunk.acts, shrunk.left_out);
    outcome.findings.iter().for_each(|finding| println!("finding: {finding}"));
    println!("histories: 1, steps: {}, findings: {}", outcome.steps, outcome.findings.len());
    ExitCode::FAILURE
}
