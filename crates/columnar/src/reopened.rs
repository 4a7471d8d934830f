//! The list of archived rows that are not final: their messages were opened again after they were archived.

use crate::{
    ColumnarError, instant_type,
    writer::{self, Packing},
};
use alerts::keys::date_of;
use arrow_array::{
    Array, ArrayRef, RecordBatch, StringArray, TimestampMillisecondArray, cast::AsArray,
    types::TimestampMillisecondType,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use identity::Identity;
use jiff::Timestamp;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::sync::{Arc, LazyLock};

/// A row of the archive that a later version will replace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reopened {
    /// As the archive's row has it.
    pub identity: Identity,
    /// Key of the object that holds the row.
    pub object: String,
    /// When a run found it open again; to the millisecond.
    pub reopened_at: Option<Timestamp>,
    /// Since when the source has it no more: then no later version will come.
    pub gone_at: Option<Timestamp>,
}

/// The columns, in order. The first two are those by which `archive/parquet` is joined.
static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str, nullable: bool| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("message_id", false),
        text("source_index", false),
        text("date", true),
        text("object", false),
        Field::new("reopened_at", instant_type(), true),
        Field::new("gone_at", instant_type(), true),
    ]))
});

pub fn write(reopened: &[Reopened]) -> Result<Bytes, ColumnarError> {
    fn texts<'r>(reopened: &'r [Reopened], text: impl Fn(&'r Reopened) -> Option<&'r str>) -> ArrayRef {
        Arc::new(reopened.iter().map(text).collect::<StringArray>())
    }
    let instants = |instant: fn(&Reopened) -> Option<Timestamp>| -> ArrayRef {
        let millis = reopened.iter().map(|row| instant(row).map(|at| at.as_millisecond()));
        Arc::new(millis.collect::<TimestampMillisecondArray>().with_timezone("UTC"))
    };
    let columns = vec![
        texts(reopened, |row| Some(&row.identity.id)),
        texts(reopened, |row| Some(&row.identity.source_index)),
        texts(reopened, |row| date_of(&row.object)),
        texts(reopened, |row| Some(&row.object)),
        instants(|row| row.reopened_at),
        instants(|row| row.gone_at),
    ];
    let mut writer = writer::in_memory(SCHEMA.clone(), &[], Packing::BALANCED)?;
    writer.write(&RecordBatch::try_new(SCHEMA.clone(), columns)?)?;
    Ok(writer.into_inner()?.into())
}

pub fn read(object: Bytes) -> Result<Vec<Reopened>, ColumnarError> {
    let mut reopened = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(object)?.build()? {
        let batch = batch?;
        let texts = |name: &'static str| {
            let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            column.ok_or(ColumnarError::Column(name))
        };
        let instants = |name: &'static str| {
            let column = batch.column_by_name(name);
            let column = column.and_then(|column| column.as_primitive_opt::<TimestampMillisecondType>());
            column.ok_or(ColumnarError::Column(name))
        };
        let (ids, indices, objects) = (texts("message_id")?, texts("source_index")?, texts("object")?);
        let (reopened_at, gone_at) = (instants("reopened_at")?, instants("gone_at")?);
        let instant = |column: &TimestampMillisecondArray, row: usize| {
            column.is_valid(row).then(|| Timestamp::from_millisecond(column.value(row)).ok()).flatten()
        };
        reopened.extend((0..batch.num_rows()).map(|row| Reopened {
            identity: Identity::new(indices.value(row), ids.value(row)),
            object: objects.value(row).to_owned(),
            reopened_at: instant(reopened_at, row),
            gone_at: instant(gone_at, row),
        }));
    }
    Ok(reopened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_also_when_it_is_nothing() {
        let at = Timestamp::from_millisecond(1_719_900_000_123).ok();
        let row = |id: &str, gone_at| Reopened {
            identity: Identity::new("messages-1", id),
            object: "archive/parquet/date=2024-07-01/w.r.0000.parquet".into(),
            reopened_at: at,
            gone_at,
        };
        for rows in [vec![], vec![row("a", None), row("b", at), Reopened { reopened_at: None, ..row("c", None) }]] {
            assert_eq!(read(write(&rows).expect("Parquet")).expect("rows"), rows);
        }
    }
}
