//! Two executors that are stopped before each of their requests.

use simulation::history::pairs::{ALL, Meeting, explore};

#[test]
fn wherever_two_executors_are_stopped_nothing_is_lost_or_stands_twice() {
    let tried = std::thread::scope(|scope| {
        let threads = ALL.map(|meeting| scope.spawn(move || (meeting, explore(meeting))));
        threads.map(|thread| thread.join().expect("it does not panic"))
    });
    for (meeting, tried) in tried {
        assert_eq!(tried.finding, None);
        // A repair has little to do: it is one of the two.
        let least = if matches!(meeting, Meeting::Gone | Meeting::Returned) { 50 } else { 100 };
        assert!(tried.pairs > least, "{meeting:?}: only {} pairs", tried.pairs);
    }
}
