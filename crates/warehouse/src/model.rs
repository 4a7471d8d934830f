//! The rules against a second opinion: a model that keeps whole states in lists and looks through all of them.

use crate::{
    dimension::{History, Members, Newest},
    fact,
    line::{Change, LineReader},
    schema::Schema,
    surrogate::{Identity, surrogate},
    time,
    value::Value,
};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc};

const SCHEMA: &str = "\
version: 1
tables:
  member: {key: id, cursor: at, soft_delete: gone, columns: {id: integer, one: integer, two: integer, gone: boolean, at: timestamptz}}
  event: {key: id, cursor: at, columns: {id: bigint, member: bigint, at: timestamptz}}
dimensions: {member: {from: member, type1: [one], type2: [two]}}
facts: {event: {from: event, as_of: at, dimensions: {member: member}}}
";

/// A change of a key: what a line says.
#[derive(Clone, Debug)]
enum Step {
    Row { one: i32, two: i32, gone: bool, at: Option<i64> },
    Gone { at: i64 },
}

fn steps() -> impl Strategy<Value = Vec<(i32, Step)>> {
    let row = (0..3, 0..3, any::<bool>(), prop::option::of(0_i64..20));
    let row = row.prop_map(|(one, two, gone, at)| Step::Row { one, two, gone, at });
    let step = prop_oneof![4 => row, 1 => (0_i64..20).prop_map(|at| Step::Gone { at })];
    prop::collection::vec((0..3, step), 0..30)
}

fn micros(at: i64) -> String {
    format!("1970-01-01T00:00:00.{at:06}+00:00")
}

fn line(id: i32, step: &Step) -> String {
    match step {
        Step::Row { one, two, gone, at } => {
            let at = at.map_or("null".into(), |at| format!("\"{}\"", micros(at)));
            format!(r#"{{"id":{id},"one":{one},"two":{two},"gone":{gone},"at":{at}}}"#)
        }
        Step::Gone { at } => format!(r#"{{"id":{id},"_deleted":true,"_deleted_at":"{}"}}"#, micros(*at)),
    }
}

/// What a member is after a step: (one, two), and whether it is deleted. Null where only its end is known.
#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    one: Option<i32>,
    two: Option<i32>,
    deleted: bool,
}

/// A version as the model sees it: from, to, state.
fn model(steps: &[(i32, Step)], id: i32, object_time: i64) -> Vec<(i64, i64, State)> {
    let mut states: Vec<(i64, State)> = Vec::new();
    for (_, step) in steps.iter().filter(|(other, _)| *other == id) {
        let before = states.last().map_or(State { one: None, two: None, deleted: false }, |(_, state)| *state);
        states.push(match step {
            Step::Row { one, two, gone, at } => {
                (at.unwrap_or(object_time), State { one: Some(*one), two: Some(*two), deleted: *gone })
            }
            Step::Gone { at } => (*at, State { deleted: true, ..before }),
        });
    }
    let newest = states.last().and_then(|(_, state)| state.one);
    states.dedup_by(|later, earlier| later.1.two == earlier.1.two && later.1.deleted == earlier.1.deleted);
    for at in 1..states.len() {
        states[at].0 = states[at].0.max(states[at - 1].0 + 1);
    }
    let ends: Vec<i64> = states.iter().map(|(from, _)| *from).skip(1).chain([time::LAST]).collect();
    states.into_iter().zip(ends).map(|((from, state), to)| (from, to, State { one: newest, ..state })).collect()
}

proptest! {
    #[test]
    fn versions_are_those_of_the_model(steps in steps()) {
        let schema = Schema::parse(SCHEMA.as_bytes()).expect("schema");
        let (table, dimension) = (&schema.tables[0], &schema.dimensions[0]);
        let mut reader = LineReader::new(table);
        let mut histories: BTreeMap<Vec<u8>, (i32, History)> = BTreeMap::new();
        for (id, step) in &steps {
            let line = reader.read(line(*id, step).as_bytes()).expect("line");
            histories.entry(line.key).or_insert_with(|| (*id, History::new(dimension))).1.push(line.change, 10);
        }
        for (id, history) in histories.into_values() {
            let expected = model(&steps, id, 10);
            let versions = history.finish();
            prop_assert_eq!(versions.iter().filter(|version| version.is_current).count(), 1);
            let whole = |value: &Value| match value { Value::Integer(n) => Some(*n), _ => None };
            let found: Vec<_> = versions.iter().map(|version| {
                let state = State { one: whole(&version.values[1]), two: whole(&version.values[2]), deleted: version.is_deleted };
                (version.valid_from, version.valid_to, state)
            }).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_fact_finds_the_version_that_the_model_finds(steps in steps(), member in 0..4, at in prop::option::of(-1_i64..40)) {
        let schema = Schema::parse(SCHEMA.as_bytes()).expect("schema");
        let mut reader = LineReader::new(&schema.tables[0]);
        let mut members = Members::default();
        let mut of_model = BTreeMap::new();
        for id in 0..3 {
            let mut history = History::new(&schema.dimensions[0]);
            let mut identity = None;
            for (_, step) in steps.iter().filter(|(other, _)| *other == id) {
                let line = reader.read(line(id, step).as_bytes()).expect("line");
                identity = Some(Identity::of(&line.key));
                history.push(line.change, 10);
            }
            let Some(identity) = identity else { continue };
            for version in history.finish() {
                members.push(identity, version.valid_from, surrogate(identity, version.valid_from, 0));
            }
            let versions = model(&steps, id, 10).into_iter();
            of_model.insert(id, versions.map(|(from, to, _)| (from, to, surrogate(identity, from, 0))).collect::<Vec<_>>());
        }
        members.seal();
        let expected = of_model.get(&member).map_or(-1, |versions| {
            let held = |at: i64| versions.iter().find(|(from, to, _)| *from <= at && at < *to);
            at.and_then(held).unwrap_or(&versions[0]).2
        });
        let values = vec![Value::Bigint(1), Value::Bigint(member.into()), at.map_or(Value::Null, Value::Timestamp)];
        let newest = Newest::first(Change::Row { values, at: None, is_deleted: false });
        let row = fact::row(&schema, &schema.facts[0], newest, &fact::Lookups { members: vec![Some(Arc::new(members))], calendar: None });
        prop_assert_eq!(&row[1], &Value::Bigint(expected));
    }
}
