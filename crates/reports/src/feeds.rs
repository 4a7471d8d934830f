//! What mail and page say of the partner feeds.

use crate::section::{Figure, Section, State};
use crate::words::{bytes, count};
use feeds::{BatchCounts, FeedsStatus};

/// `recent`: what came out in the last seven days.
pub fn section(status: &FeedsStatus, recent: &BatchCounts) -> Section {
    let attention = |number: u64| if number > 0 { State::Attention } else { State::Plain };
    let bad = |number: u64| if number > 0 { State::Bad } else { State::Plain };
    let lag = status.lag_seconds.map(|seconds| Figure::new("From file to output", time(seconds)).note("newest batch"));
    let mut figures = vec![
        Figure::count("Files", recent.objects),
        Figure::count("Records", recent.records),
        Figure::count("Objects written", recent.outputs).note(bytes(recent.bytes)),
        Figure::count("Lines in quarantine", recent.quarantined).state(attention(recent.quarantined)),
        Figure::count("Messages that failed", status.failed).state(bad(status.failed)).note("now"),
        Figure::count("Messages waiting", status.waiting).note("now"),
    ];
    figures.extend(lag);
    let all = format!("Since the beginning: {}, {}.", count(status.objects, "file"), count(status.records, "record"));
    let blocked = match status.blocked {
        0 => None,
        files => Some(format!("{} of blocked partners left where they are.", count(files, "file"))),
    };
    let commands = match status.failed {
        0 => Vec::new(),
        _ => vec!["alert-archive feeds replay-dlq --dry-run".to_owned(), "alert-archive feeds replay-dlq".to_owned()],
    };
    let section = Section::new("Partner feeds", "the last 7 days")
        .headline(state(status, recent), headline(status, recent))
        .figures(figures)
        .notes([Some(all), blocked].into_iter().flatten().collect());
    if commands.is_empty() {
        return section;
    }
    section.command("See why, and deliver again once the cause is gone:", commands)
}

fn state(status: &FeedsStatus, recent: &BatchCounts) -> State {
    match (status.failed, recent.quarantined, recent.objects) {
        (1.., ..) => State::Bad,
        (_, 1.., _) => State::Attention,
        (_, _, 0) => State::Plain,
        _ => State::Good,
    }
}

fn headline(status: &FeedsStatus, recent: &BatchCounts) -> String {
    let BatchCounts { objects, outputs, quarantined, .. } = *recent;
    let came = match objects {
        0 => "No files came in".to_owned(),
        _ => format!("{} came out as {}", count(objects, "file"), count(outputs, "object")),
    };
    match (status.failed, quarantined) {
        (0, 0) => format!("{came}."),
        (0, lines) => format!("{came}; {} in quarantine.", count(lines, "bad line")),
        (failed, _) => format!("{} failed ten times. {came}.", count(failed, "message")),
    }
}

fn time(seconds: i64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::section::Block;

    fn status(failed: u64) -> FeedsStatus {
        FeedsStatus {
            objects: 5_000,
            records: 70_000,
            failed,
            blocked: 3,
            lag_seconds: Some(130),
            ..FeedsStatus::default()
        }
    }

    fn recent() -> BatchCounts {
        BatchCounts { objects: 1_204, records: 9_000, bytes: 12_340_000, outputs: 88, quarantined: 0 }
    }

    #[test]
    fn a_good_week_says_what_came_out() {
        let section = section(&status(0), &recent());
        assert_eq!((section.state, section.headline.as_str()), (State::Good, "1,204 files came out as 88 objects."));
        let Block::Figures { figures } = &section.blocks[0] else { panic!("{section:?}") };
        let shown: Vec<_> = figures.iter().map(|figure| (figure.label.as_str(), figure.value.as_str())).collect();
        assert!(
            shown.contains(&("Records", "9,000")) && shown.contains(&("From file to output", "2 min")),
            "{shown:?}"
        );
        let Block::Notes { notes } = &section.blocks[1] else { panic!("{section:?}") };
        assert_eq!(notes[1], "3 files of blocked partners left where they are.");
    }

    #[test]
    fn what_failed_comes_first_and_with_the_command_for_it() {
        let section = section(&status(2), &recent());
        assert_eq!(section.headline, "2 messages failed ten times. 1,204 files came out as 88 objects.");
        assert_eq!(section.state, State::Bad);
        assert!(matches!(section.blocks.last(), Some(Block::Command { .. })));
    }

    #[test]
    fn bad_lines_and_silence_are_told() {
        let bad = BatchCounts { quarantined: 1, ..recent() };
        let headline = |status: &FeedsStatus, recent: &BatchCounts| section(status, recent).headline;
        assert_eq!(headline(&status(0), &bad), "1,204 files came out as 88 objects; 1 bad line in quarantine.");
        assert_eq!(headline(&FeedsStatus::default(), &BatchCounts::default()), "No files came in.");
    }
}
