//! The shapes of the tables that readers see, and the rows of dimensions.

use crate::{
    dimension::{NOT_APPLICABLE, UNKNOWN, Version, source_columns},
    schema::{Column, Dimension, Fact, Schema},
    time,
    value::{Type, Value},
};

/// A table for readers.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Such as `dim_patient`.
    pub name: String,
    pub columns: Vec<Column>,
}

fn column(name: impl Into<String>, of: Type) -> Column {
    Column { name: name.into(), of }
}

pub fn dimension(schema: &Schema, dimension: &Dimension) -> Shape {
    let table = &schema.tables[dimension.from];
    let mut columns = vec![column(format!("{}_key", dimension.name), Type::Bigint)];
    columns.extend(source_columns(table, dimension).into_iter().map(|at| table.columns[at].clone()));
    columns.push(column("is_deleted", Type::Boolean));
    if dimension.is_type2() {
        columns.push(column("valid_from", Type::Timestamptz));
        columns.push(column("valid_to", Type::Timestamptz));
        columns.push(column("is_current", Type::Boolean));
    }
    Shape { name: format!("dim_{}", dimension.name), columns }
}

pub fn fact(schema: &Schema, fact: &Fact) -> Shape {
    let table = &schema.tables[fact.from];
    let mut columns: Vec<_> = table.key.iter().map(|at| table.columns[*at].clone()).collect();
    columns.extend(fact.roles.iter().map(|role| column(format!("{}_key", role.name), Type::Bigint)));
    columns.extend(fact.dates.iter().map(|date| column(format!("{}_date_key", date.name), Type::Integer)));
    columns.extend(fact.columns.iter().map(|at| table.columns[*at].clone()));
    columns.push(column("is_deleted", Type::Boolean));
    Shape { name: format!("fact_{}", fact.name), columns }
}

pub fn date() -> Shape {
    let integers = ["year", "quarter", "month", "day", "iso_week", "day_of_week"];
    let mut columns = vec![column("date_key", Type::Integer), column("date", Type::Date)];
    columns.extend(integers.map(|name| column(name, Type::Integer)));
    columns.push(column("is_weekend", Type::Boolean));
    Shape { name: "dim_date".into(), columns }
}

/// The row of a version.
pub fn dimension_row(schema: &Schema, dimension: &Dimension, version: Version, surrogate: i64) -> Vec<Value> {
    let table = &schema.tables[dimension.from];
    let mut values = version.values;
    let mut row = vec![Value::Bigint(surrogate)];
    let columns = source_columns(table, dimension);
    row.extend(columns.into_iter().map(|at| std::mem::replace(&mut values[at], Value::Null)));
    row.push(Value::Boolean(version.is_deleted));
    if dimension.is_type2() {
        row.push(Value::Timestamp(version.valid_from));
        row.push(Value::Timestamp(version.valid_to));
        row.push(Value::Boolean(version.is_current));
    }
    row
}

/// The members that every dimension has: unknown, and not applicable.
pub fn special_members(schema: &Schema, dimension: &Dimension) -> [Vec<Value>; 2] {
    let columns = schema.tables[dimension.from].columns.len();
    [UNKNOWN, NOT_APPLICABLE].map(|surrogate| {
        let version = Version {
            valid_from: time::FIRST,
            valid_to: time::LAST,
            is_current: true,
            is_deleted: false,
            values: vec![Value::Null; columns],
        };
        dimension_row(schema, dimension, version, surrogate)
    })
}
