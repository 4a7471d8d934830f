//! A table as Parquet objects of one shape, written while its rows come, one object of a bounded size after the other.

use crate::Error;
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, ListArray,
    RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};
use storage::Objects;
use warehouse::{
    table::Shape,
    time,
    value::{Type, Value},
};

/// Rows in memory as values before they become columns.
const BATCH: usize = 4096;
/// Compressed bytes of a row group.
const GROUP_BYTES: usize = 8 << 20;
/// Rows of a row group at most: readers skip groups by their statistics.
const GROUP_ROWS: usize = 128 << 10;
/// Compressed bytes after which the next object begins.
const OBJECT_BYTES: usize = 32 << 20;

/// Bytes that the writers of all parts of a table may hold together.
const HELD_BYTES: usize = 96 << 20;
/// About what a value takes before it becomes part of a column.
const VALUE_BYTES: usize = 64;

/// A table whose rows lie below several prefixes, each written as its rows come. Memory has one bound for all of them:
/// where they hold too much, the largest begins its next object.
pub struct DividedWriter {
    shape: Shape,
    objects: Objects,
    prefix: String,
    /// The segment whose rows these are.
    segment: usize,
    writers: BTreeMap<String, TableWriter>,
    rows: u64,
}

/// What was written.
#[derive(Debug, Default)]
pub struct Written {
    pub rows: u64,
    /// Keys behind the table's prefix.
    pub objects: Vec<String>,
}

/// How many parts of a table are written side by side, each in memory.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl DividedWriter {
    /// `prefix` ends with a slash, and so does each that is behind it, or it is empty.
    pub fn new(shape: &Shape, objects: &Objects, prefix: &str, segment: usize) -> Self {
        let (shape, objects, prefix) = (shape.clone(), objects.clone(), prefix.to_owned());
        DividedWriter { shape, objects, prefix, segment, writers: BTreeMap::new(), rows: 0 }
    }

    pub async fn push(&mut self, below: String, row: Vec<Value>) -> Result<(), Error> {
        self.rows += 1;
        self.writer(below)?.push(row).await?;
        if self.rows.is_multiple_of(1024) && self.writers.len() > 1 {
            let held: usize = self.writers.values().map(TableWriter::held).sum();
            if held > HELD_BYTES / processors()
                && let Some(largest) = self.writers.values_mut().max_by_key(|writer| writer.held())
            {
                largest.flush()?;
                largest.put().await?;
            }
        }
        Ok(())
    }

    /// Writes what is left.
    pub async fn finish(self) -> Result<Written, Error> {
        let mut objects = Vec::new();
        for (below, writer) in self.writers {
            objects.extend(writer.finish().await?.objects.into_iter().map(|name| format!("{below}{name}")));
        }
        Ok(Written { rows: self.rows, objects })
    }

    fn writer(&mut self, below: String) -> Result<&mut TableWriter, Error> {
        Ok(match self.writers.entry(below) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => {
                let prefix = format!("{}{}", self.prefix, place.key());
                place.insert(TableWriter::new(&self.shape, &self.objects, prefix, self.segment)?)
            }
        })
    }
}

/// A table without rows is an object without rows, so that readers find its columns.
pub async fn write_empty(shape: &Shape, objects: &Objects, prefix: &str) -> Result<(), Error> {
    TableWriter::new(shape, objects, prefix.to_owned(), 0)?.put().await
}

pub struct TableWriter {
    table: String,
    columns: Vec<Type>,
    schema: Arc<Schema>,
    objects: Objects,
    prefix: String,
    segment: usize,
    rows: Vec<Vec<Value>>,
    writer: ArrowWriter<Vec<u8>>,
    /// Names of the objects that are written.
    names: Vec<String>,
    /// Rows of the object that is being filled.
    filling: u64,
    written: u64,
}

impl TableWriter {
    /// `prefix` ends with a slash.
    pub fn new(shape: &Shape, objects: &Objects, prefix: String, segment: usize) -> Result<Self, Error> {
        let field = |column: &warehouse::schema::Column| Field::new(&column.name, arrow_type(&column.of), true);
        let schema = Arc::new(Schema::new(shape.columns.iter().map(field).collect::<Vec<_>>()));
        Ok(TableWriter {
            table: shape.name.clone(),
            columns: shape.columns.iter().map(|column| column.of.clone()).collect(),
            writer: writer(&shape.name, &schema)?,
            schema,
            objects: objects.clone(),
            prefix,
            segment,
            rows: Vec::new(),
            names: Vec::new(),
            filling: 0,
            written: 0,
        })
    }

    pub async fn push(&mut self, row: Vec<Value>) -> Result<(), Error> {
        self.rows.push(row);
        self.filling += 1;
        self.written += 1;
        if self.rows.len() == BATCH {
            self.flush()?;
            if self.writer.bytes_written() + self.writer.in_progress_size() >= OBJECT_BYTES {
                self.put().await?;
            }
        }
        Ok(())
    }

    /// Writes what is left.
    pub async fn finish(mut self) -> Result<Written, Error> {
        self.flush()?;
        if self.filling > 0 {
            self.put().await?;
        }
        Ok(Written { rows: self.written, objects: self.names })
    }

    /// Bytes in memory.
    fn held(&self) -> usize {
        self.rows.len() * self.columns.len() * VALUE_BYTES + self.writer.memory_size() + self.writer.bytes_written()
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        let columns = self.columns.iter().enumerate();
        let arrays = columns.map(|(at, of)| array(of, rows.iter().map(|row| &row[at]).collect()));
        let arrays = arrays.collect::<Result<Vec<_>, _>>();
        let batch = arrays.and_then(|arrays| RecordBatch::try_new(self.schema.clone(), arrays));
        let written = batch.map_err(|error| error.to_string()).and_then(|batch| {
            self.writer.write(&batch).map_err(|error| error.to_string())?;
            if self.writer.in_progress_size() >= GROUP_BYTES {
                self.writer.flush().map_err(|error| error.to_string())?;
            }
            Ok(())
        });
        written.map_err(|what| Error::NotWritten { table: self.table.clone(), what })
    }

    async fn put(&mut self) -> Result<(), Error> {
        let full = std::mem::replace(&mut self.writer, writer(&self.table, &self.schema)?);
        let bytes = full.into_inner();
        let bytes = bytes.map_err(|error| Error::NotWritten { table: self.table.clone(), what: error.to_string() })?;
        let name = format!("part-{:05}-{:05}.parquet", self.segment, self.names.len());
        self.objects.put(&format!("{}{name}", self.prefix), bytes, "application/vnd.apache.parquet").await?;
        self.names.push(name);
        self.filling = 0;
        Ok(())
    }
}

fn writer(table: &str, schema: &Arc<Schema>) -> Result<ArrowWriter<Vec<u8>>, Error> {
    let failed = |what: String| Error::NotWritten { table: table.to_owned(), what };
    let level = ZstdLevel::try_new(3).map_err(|error| failed(error.to_string()))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let writer = ArrowWriter::try_new_with_options(Vec::new(), schema.clone(), options);
    writer.map_err(|error| failed(error.to_string()))
}

fn arrow_type(of: &Type) -> DataType {
    match of {
        Type::Boolean => DataType::Boolean,
        Type::Integer => DataType::Int32,
        Type::Bigint => DataType::Int64,
        Type::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale as i8),
        Type::Double => DataType::Float64,
        Type::Text | Type::Json => DataType::Utf8,
        Type::Date => DataType::Date32,
        Type::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Type::Bytes => DataType::Binary,
        Type::List(element) => DataType::List(Arc::new(Field::new("element", arrow_type(element), true))),
    }
}

/// A column of values, each of the type or null.
fn array(of: &Type, values: Vec<&Value>) -> Result<ArrayRef, arrow_schema::ArrowError> {
    macro_rules! collect {
        ($array:ty, $($pattern:pat => $value:expr),+) => {
            values.iter().map(|value| match value { $($pattern => Some($value),)+ _ => None }).collect::<$array>()
        };
    }
    Ok(match of {
        Type::Boolean => Arc::new(collect!(BooleanArray, Value::Boolean(value) => *value)),
        Type::Integer => Arc::new(collect!(Int32Array, Value::Integer(value) => *value)),
        Type::Bigint => Arc::new(collect!(Int64Array, Value::Bigint(value) => *value)),
        Type::Decimal { precision, scale } => {
            let numbers = collect!(Decimal128Array, Value::Decimal(value) => *value);
            Arc::new(numbers.with_precision_and_scale(*precision, *scale as i8)?)
        }
        Type::Double => Arc::new(collect!(Float64Array, Value::Double(value) => *value)),
        Type::Text | Type::Json => Arc::new(collect!(StringArray, Value::Text(value) => value.as_str())),
        Type::Date => Arc::new(collect!(Date32Array, Value::Date(value) => time::shown_date(*value))),
        Type::Timestamp => {
            Arc::new(collect!(TimestampMicrosecondArray, Value::Timestamp(value) => time::shown(*value)))
        }
        Type::Timestamptz => {
            let instants = collect!(TimestampMicrosecondArray, Value::Timestamp(value) => time::shown(*value));
            Arc::new(instants.with_timezone("UTC"))
        }
        Type::Bytes => Arc::new(collect!(BinaryArray, Value::Bytes(value) => value.as_slice())),
        Type::List(element) => {
            let (mut items, mut lengths, mut valid) = (Vec::new(), Vec::new(), Vec::new());
            for value in &values {
                let list = match value {
                    Value::List(list) => Some(list),
                    _ => None,
                };
                valid.push(list.is_some());
                lengths.push(list.map_or(0, Vec::len));
                items.extend(list.into_iter().flatten());
            }
            let field = Arc::new(Field::new("element", arrow_type(element), true));
            let offsets = OffsetBuffer::from_lengths(lengths);
            let nulls = NullBuffer::from(valid);
            Arc::new(ListArray::try_new(field, offsets, array(element, items)?, Some(nulls))?)
        }
    })
}
