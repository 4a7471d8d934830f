//! The exploration that `make simulate` begins with.

use simulation::{
    states::{LIMITS, explore},
    work,
};

#[test]
fn no_state_that_two_runs_can_reach_breaks_a_rule_or_is_left_for_ever() {
    for limits in LIMITS {
        let explored = explore(limits);
        assert!(explored.finding.is_none(), "{limits:?}: {:#?}", explored.finding);
        assert!(explored.states > 1_000, "{limits:?}: only {} states", explored.states);
    }
}

#[test]
fn no_state_of_one_piece_of_work_or_of_a_mail_breaks_the_protocol() {
    let explored = work::explore();
    assert!(explored.finding.is_none(), "{:#?}", explored.finding);
    assert!(explored.states > 1_000, "only {} states", explored.states);
}
