//! Histories by seed. CI tries more of them (`make simulate`); here stand those that once had a finding, and what the
//! machine promises of itself.

use simulation::history::Plan;

#[test]
fn some_hundred_histories_have_no_finding() {
    for seed in 0..200 {
        let outcome = Plan::of(seed).run(false);
        assert!(outcome.findings.is_empty(), "SEED={seed}: {:?}", outcome.findings);
    }
}

#[test]
fn a_history_happens_again_in_every_step() {
    let mut faults = 0;
    for seed in 1000..1020 {
        let (first, second) = (Plan::of(seed).run(true), Plan::of(seed).run(true));
        assert_eq!(first.log, second.log, "SEED={seed}");
        assert!(first.steps > 100, "SEED={seed}: {} steps", first.steps);
        faults += first.faults;
    }
    assert!(faults > 10, "only {faults} faults struck");
}
