//! Rows of facts: the newest values of a key, and the members that they refer to.

use crate::{
    calendar::Calendar,
    dimension::{Members, NOT_APPLICABLE, Newest, UNKNOWN},
    schema::{Fact, Schema},
    surrogate::Identity,
    time,
    value::{Value, write_key},
};
use std::sync::Arc;

/// What a fact needs to know of the dimensions: one entry for each of [`Schema::dimensions`] that it refers to.
pub struct Lookups {
    pub members: Vec<Option<Arc<Members>>>,
    pub calendar: Option<Arc<Calendar>>,
}

/// The time as of which a row's members are looked for, in microseconds since 1970.
pub fn as_of(fact: &Fact, newest: &Newest) -> Option<i64> {
    fact.as_of.and_then(|column| moment(&newest.values[column]))
}

/// Makes the row of a fact's table, in the order of [`crate::table::fact`].
pub fn row(schema: &Schema, fact: &Fact, newest: Newest, lookups: &Lookups) -> Vec<Value> {
    let table = &schema.tables[fact.from];
    let as_of = as_of(fact, &newest);
    let Newest { mut values, is_deleted } = newest;
    let mut row: Vec<Value> = table.key.iter().map(|column| values[*column].clone()).collect();
    for role in &fact.roles {
        let members = &lookups.members[role.dimension];
        row.push(Value::Bigint(if role.columns.iter().any(|column| values[*column].is_null()) {
            NOT_APPLICABLE
        } else {
            let mut key = Vec::new();
            for column in &role.columns {
                write_key(&values[*column], &table.columns[*column].of, &mut key);
            }
            members.as_ref().map_or(UNKNOWN, |members| members.find(Identity::of(&key), as_of))
        }));
    }
    for date in &fact.dates {
        row.push(Value::Integer(lookups.calendar.as_ref().map_or(-1, |calendar| calendar.key(&values[date.column]))));
    }
    row.extend(fact.columns.iter().map(|column| std::mem::replace(&mut values[*column], Value::Null)));
    row.push(Value::Boolean(is_deleted));
    row
}

/// The prefix of a row's month, such as `sold_month=202407/`; -1 and -2 as in the date's key. Empty where the fact is
/// not divided.
pub fn partition(schema: &Schema, fact: &Fact, row: &[Value]) -> String {
    let Some(at) = fact.partition else { return String::new() };
    let month = match row.get(schema.tables[fact.from].key.len() + fact.roles.len() + at) {
        Some(Value::Integer(date)) if *date > 0 => date / 100,
        Some(Value::Integer(special)) => *special,
        _ => -1,
    };
    format!("{}_month={month}/", fact.dates[at].name)
}

/// Microseconds since 1970 of a time, or of a date at midnight UTC.
fn moment(value: &Value) -> Option<i64> {
    match value {
        Value::Timestamp(micros) => Some(*micros),
        Value::Date(days) => Some(time::midnight(*days)),
        _ => None,
    }
}
