//! Stretches of time, and what is left of some without others.

use identity::instant;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `[from, to)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    #[serde(with = "instant::serde_iso")]
    pub from: Timestamp,
    #[serde(with = "instant::serde_iso")]
    pub to: Timestamp,
}

/// In order, with what touches or overlaps made one.
pub fn joined(spans: impl IntoIterator<Item = Span>) -> Vec<Span> {
    let mut spans: Vec<Span> = spans.into_iter().filter(|span| span.from < span.to).collect();
    spans.sort_by_key(|span| (span.from, span.to));
    let mut out: Vec<Span> = Vec::new();
    for span in spans {
        match out.last_mut() {
            Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
            _ => out.push(span),
        }
    }
    out
}

/// What is left of each of `spans` without what lies in `taken`, which is joined.
pub fn without(spans: Vec<Span>, taken: &[Span]) -> Vec<Span> {
    let mut out = Vec::new();
    for Span { mut from, to } in spans {
        for gone in taken.iter().filter(|gone| gone.from < to) {
            if gone.to <= from {
                continue;
            }
            if from < gone.from {
                out.push(Span { from, to: gone.from });
            }
            from = from.max(gone.to);
        }
        if from < to {
            out.push(Span { from, to });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(bounds: &[(i64, i64)]) -> Vec<Span> {
        let at = |second| Timestamp::from_second(second).expect("in range");
        bounds.iter().map(|&(from, to)| Span { from: at(from), to: at(to) }).collect()
    }

    #[test]
    fn spans_that_touch_or_overlap_are_one_and_empty_ones_are_none() {
        assert_eq!(joined(spans(&[(5, 9), (0, 2), (2, 3), (4, 4), (6, 7)])), spans(&[(0, 3), (5, 9)]));
    }

    #[test]
    fn what_is_taken_from_a_span_leaves_what_lies_before_between_and_behind_it() {
        let left = |taken: &[(i64, i64)]| without(spans(&[(10, 20), (30, 40)]), &spans(taken));
        assert_eq!(left(&[]), spans(&[(10, 20), (30, 40)]));
        assert_eq!(left(&[(0, 12), (14, 15), (18, 33)]), spans(&[(12, 14), (15, 18), (33, 40)]));
        assert_eq!(left(&[(20, 30)]), spans(&[(10, 20), (30, 40)]), "the end is not within");
        assert_eq!(left(&[(5, 50)]), spans(&[]));
    }
}
