//! Tables as a reader finds them: each value as text, in a spelling that PostgreSQL can be asked for too.

use arrow_array::{Array, RecordBatch, cast::AsArray, types};
use arrow_schema::{DataType, TimeUnit};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;

/// Columns by name; `None` is null.
pub type Row = BTreeMap<String, Option<String>>;

pub fn rows(object: Bytes) -> Vec<Row> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(object).expect("parquet").build().expect("reader");
    reader.flat_map(|batch| rows_of(&batch.expect("batch"))).collect()
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let schema = batch.schema();
    let row = |at| {
        let columns = schema.fields().iter().zip(batch.columns());
        columns.map(|(field, array)| (field.name().clone(), text(array, at))).collect()
    };
    (0..batch.num_rows()).map(row).collect()
}

/// Dates are days, times are microseconds since 1970, bytes are hex digits.
fn text(array: &dyn Array, at: usize) -> Option<String> {
    if array.is_null(at) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Boolean => array.as_boolean().value(at).to_string(),
        DataType::Int32 => array.as_primitive::<types::Int32Type>().value(at).to_string(),
        DataType::Int64 => array.as_primitive::<types::Int64Type>().value(at).to_string(),
        DataType::Decimal128(..) => array.as_primitive::<types::Decimal128Type>().value_as_string(at),
        DataType::Float64 => double(array.as_primitive::<types::Float64Type>().value(at)),
        DataType::Utf8 => array.as_string::<i32>().value(at).to_owned(),
        DataType::Date32 => array.as_primitive::<types::Date32Type>().value(at).to_string(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            array.as_primitive::<types::TimestampMicrosecondType>().value(at).to_string()
        }
        DataType::Binary => hex::encode(array.as_binary::<i32>().value(at)),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(at);
            let items = (0..items.len()).map(|at| text(&items, at).unwrap_or_else(|| "null".into()));
            format!("[{}]", items.collect::<Vec<_>>().join(","))
        }
        other => panic!("no column of the warehouse is {other}"),
    })
}

/// The same text for the same double, and for every NaN.
pub fn double(value: f64) -> String {
    if value.is_nan() { "NaN".into() } else { format!("{value:e}") }
}
