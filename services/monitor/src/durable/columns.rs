//! Records as columns, and columns as records: what the files of the durable tier look like inside.
//!
//! The files are for others too, so ids are hex text, levels are words, times have a unit, and attributes are JSON.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray as _, BooleanBuilder, Float64Builder, RecordBatch, StringBuilder, StringDictionaryBuilder,
    TimestampNanosecondBuilder, UInt64Builder,
};
use arrow::datatypes::{
    DataType, Field, Float64Type, Int32Type, Schema, SchemaRef, TimeUnit, TimestampNanosecondType, UInt64Type,
};
use arrow::error::ArrowError;

use super::manifest::signed;
use crate::grammar::Part;
use crate::model::{
    Attributes, Kept, Level, Line, Measurement, Nanos, Origin, SeriesKey, Span, SpanId, SpanKind, Temporality, TraceId,
};
use crate::tier::Signal;

/// Place of a record in the order of arrival.
pub(crate) const SEQUENCE: &str = "sequence";
/// When it was written, or began.
pub(crate) const TIME: &str = "time";
/// Name of the service.
pub(crate) const SERVICE: &str = "service";
/// Id of the instance.
pub(crate) const INSTANCE: &str = "instance_id";
/// How grave a line is, as a word.
pub(crate) const LEVEL: &str = "level";
/// Text of a line.
pub(crate) const BODY: &str = "body";
/// The trace, in hex; empty for none.
pub(crate) const TRACE: &str = "trace_id";
/// Name of a span.
pub(crate) const NAME: &str = "name";
/// Attributes of a record, as a JSON object.
pub(crate) const ATTRIBUTES: &str = "attributes";
/// Attributes of its sender, as a JSON object.
pub(crate) const RESOURCE: &str = "resource";

/// Columns of a signal's files.
pub(crate) fn schema(signal: Signal) -> SchemaRef {
    let time = || DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let word = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let fields: &[(&str, DataType)] = match signal {
        Signal::Logs => &[
            (SEQUENCE, DataType::UInt64),
            (TIME, time()),
            (SERVICE, word()),
            (INSTANCE, word()),
            (LEVEL, word()),
            (BODY, DataType::Utf8),
            (TRACE, DataType::Utf8),
            ("span_id", DataType::Utf8),
            (ATTRIBUTES, DataType::Utf8),
            (RESOURCE, word()),
        ],
        Signal::Spans => &[
            (SEQUENCE, DataType::UInt64),
            (TIME, time()),
            ("end", time()),
            (TRACE, DataType::Utf8),
            ("span_id", DataType::Utf8),
            ("parent_span_id", DataType::Utf8),
            (NAME, word()),
            (SERVICE, word()),
            (INSTANCE, word()),
            ("kind", word()),
            ("failed", DataType::Boolean),
            ("status_message", DataType::Utf8),
            (ATTRIBUTES, DataType::Utf8),
            (RESOURCE, word()),
        ],
        Signal::Measurements => &[
            (SEQUENCE, DataType::UInt64),
            (TIME, time()),
            ("start", time()),
            ("metric", word()),
            (SERVICE, word()),
            (INSTANCE, word()),
            ("labels", word()),
            ("temporality", word()),
            ("value", DataType::Float64),
            ("count", DataType::UInt64),
        ],
    };
    Arc::new(Schema::new(fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), false)).collect::<Vec<_>>()))
}

/// Columns that are written without a dictionary, as differences.
pub(crate) const COUNTED: [&str; 4] = [SEQUENCE, TIME, "end", "start"];

/// Writes lines as columns.
pub(crate) fn of_lines(lines: &[Arc<Kept>]) -> Result<RecordBatch, ArrowError> {
    let mut columns = Columns::default();
    let mut resources = Resources::default();
    for kept in lines {
        let line = &kept.line;
        columns.number(0, kept.sequence);
        columns.time(1, line.time);
        columns.word(2, &line.origin.service);
        columns.word(3, &line.origin.instance_id);
        columns.word(4, line.level.word());
        columns.text(5, &line.body);
        columns.id(6, line.trace_id.as_ref().map_or(&[], |id| &id.0));
        columns.id(7, line.span_id.as_ref().map_or(&[], |id| &id.0));
        columns.object(8, &line.attributes);
        columns.word(9, resources.text(&line.origin));
    }
    columns.batch(Signal::Logs)
}

/// Writes spans as columns; `first` is the sequence number of the first.
pub(crate) fn of_spans(spans: &[Arc<Span>], first: u64) -> Result<RecordBatch, ArrowError> {
    let mut columns = Columns::default();
    let mut resources = Resources::default();
    for (sequence, span) in (first..).zip(spans) {
        columns.number(0, sequence);
        columns.time(1, span.start);
        columns.time(2, span.end);
        columns.id(3, &span.trace_id.0);
        columns.id(4, &span.span_id.0);
        columns.id(5, span.parent.as_ref().map_or(&[], |id| &id.0));
        columns.word(6, &span.name);
        columns.word(7, &span.origin.service);
        columns.word(8, &span.origin.instance_id);
        columns.word(9, kind_word(span.kind));
        columns.flag(10, span.failed);
        columns.text(11, &span.status_message);
        columns.object(12, &span.attributes);
        columns.word(13, resources.text(&span.origin));
    }
    columns.batch(Signal::Spans)
}

/// Writes measurements as columns; `first` is the sequence number of the first.
pub(crate) fn of_measurements(measurements: &[Measurement], first: u64) -> Result<RecordBatch, ArrowError> {
    let mut columns = Columns::default();
    for (sequence, measured) in (first..).zip(measurements) {
        columns.number(0, sequence);
        columns.time(1, measured.time);
        columns.time(2, measured.start);
        columns.word(3, &measured.key.metric);
        columns.word(4, &measured.key.service);
        columns.word(5, &measured.key.instance_id);
        columns.word(6, &object(&measured.key.labels));
        columns.word(7, temporality_word(measured.temporality));
        columns.float(8, measured.value);
        columns.number(9, measured.count);
    }
    columns.batch(Signal::Measurements)
}

/// Columns while they are filled.
enum Column {
    Number(UInt64Builder),
    Float(Float64Builder),
    Time(TimestampNanosecondBuilder),
    Word(Box<StringDictionaryBuilder<Int32Type>>),
    Text(StringBuilder),
    Flag(BooleanBuilder),
}

#[derive(Default)]
struct Columns {
    columns: Vec<Column>,
    /// Room for a text that is made for its column.
    text: String,
}

impl Columns {
    fn at(&mut self, place: usize, make: impl FnOnce() -> Column) -> &mut Column {
        if self.columns.len() == place {
            self.columns.push(make());
        }
        &mut self.columns[place]
    }

    fn number(&mut self, place: usize, value: u64) {
        if let Column::Number(column) = self.at(place, || Column::Number(UInt64Builder::new())) {
            column.append_value(value);
        }
    }

    fn float(&mut self, place: usize, value: f64) {
        if let Column::Float(column) = self.at(place, || Column::Float(Float64Builder::new())) {
            column.append_value(value);
        }
    }

    fn time(&mut self, place: usize, time: Nanos) {
        if let Column::Time(column) = self.at(place, || Column::Time(TimestampNanosecondBuilder::new())) {
            column.append_value(signed(time.0));
        }
    }

    fn word(&mut self, place: usize, word: &str) {
        if let Column::Word(column) = self.at(place, || Column::Word(Box::default())) {
            column.append_value(word);
        }
    }

    fn text(&mut self, place: usize, text: &str) {
        if let Column::Text(column) = self.at(place, || Column::Text(StringBuilder::new())) {
            column.append_value(text);
        }
    }

    /// An id, in hex.
    fn id(&mut self, place: usize, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        for byte in bytes {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        self.text(place, &text);
        self.text = text;
    }

    fn object(&mut self, place: usize, attributes: &Attributes) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        put_object(attributes, &mut text);
        self.text(place, &text);
        self.text = text;
    }

    fn flag(&mut self, place: usize, value: bool) {
        if let Column::Flag(column) = self.at(place, || Column::Flag(BooleanBuilder::new())) {
            column.append_value(value);
        }
    }

    fn batch(self, signal: Signal) -> Result<RecordBatch, ArrowError> {
        let schema = schema(signal);
        if self.columns.is_empty() {
            return Ok(RecordBatch::new_empty(schema));
        }
        let finish = |column: Column| -> ArrayRef {
            match column {
                Column::Number(mut column) => Arc::new(column.finish()),
                Column::Float(mut column) => Arc::new(column.finish()),
                Column::Time(column) => Arc::new(column.with_timezone("UTC").finish()),
                Column::Word(mut column) => Arc::new(column.finish()),
                Column::Text(mut column) => Arc::new(column.finish()),
                Column::Flag(mut column) => Arc::new(column.finish()),
            }
        };
        RecordBatch::try_new(schema, self.columns.into_iter().map(finish).collect())
    }
}

/// The attributes of senders as text, each written once.
#[derive(Default)]
struct Resources(HashMap<*const Origin, String>);

impl Resources {
    fn text(&mut self, origin: &Arc<Origin>) -> &str {
        self.0.entry(Arc::as_ptr(origin)).or_insert_with(|| object(&origin.attributes))
    }
}

/// Reads lines from whole rows of a log file.
pub(crate) fn lines(batch: &RecordBatch) -> Result<Vec<Kept>, ArrowError> {
    let rows = Rows::new(batch)?;
    let mut origins = Origins::default();
    let line = |row: usize| {
        Ok(Kept {
            sequence: rows.number(SEQUENCE, row)?,
            line: Line {
                time: rows.time(TIME, row)?,
                origin: origins.take(&rows, row)?,
                level: level_of_word(rows.text(LEVEL, row)?),
                body: rows.text(BODY, row)?.to_owned(),
                trace_id: TraceId::parse(rows.text(TRACE, row)?),
                span_id: SpanId::parse(rows.text("span_id", row)?),
                attributes: pairs(rows.text(ATTRIBUTES, row)?),
            },
        })
    };
    (0..batch.num_rows()).map(line).collect()
}

/// Reads of a row of a log file what is asked for; what is not is empty.
pub(crate) fn line_in_part(rows: &Rows, row: usize, parts: &BTreeSet<Part>) -> Result<Line, ArrowError> {
    let mut line = Line::default();
    let mut origin = Origin::default();
    for part in parts {
        match part {
            Part::Time => line.time = rows.time(TIME, row)?,
            Part::Level => line.level = level_of_word(rows.text(LEVEL, row)?),
            Part::Service => origin.service = rows.text(SERVICE, row)?.to_owned(),
            Part::Instance => origin.instance_id = rows.text(INSTANCE, row)?.to_owned(),
            Part::Body => line.body = rows.text(BODY, row)?.to_owned(),
            Part::Trace => line.trace_id = TraceId::parse(rows.text(TRACE, row)?),
            Part::Span => line.span_id = SpanId::parse(rows.text("span_id", row)?),
            Part::Attributes => {
                line.attributes = pairs(rows.text(ATTRIBUTES, row)?);
                origin.attributes = pairs(rows.text(RESOURCE, row)?);
            }
        }
    }
    line.origin = Arc::new(origin);
    Ok(line)
}

/// The columns that hold parts of lines.
pub(crate) fn columns_of(parts: &BTreeSet<Part>) -> Vec<&'static str> {
    let columns = |part: &Part| -> &[&'static str] {
        match part {
            Part::Time => &[TIME],
            Part::Level => &[LEVEL],
            Part::Service => &[SERVICE],
            Part::Instance => &[INSTANCE],
            Part::Body => &[BODY],
            Part::Trace => &[TRACE],
            Part::Span => &["span_id"],
            Part::Attributes => &[ATTRIBUTES, RESOURCE],
        }
    };
    parts.iter().flat_map(columns).copied().collect()
}

/// Reads spans from whole rows of a span file.
pub(crate) fn spans(batch: &RecordBatch) -> Result<Vec<Span>, ArrowError> {
    let rows = Rows::new(batch)?;
    let mut origins = Origins::default();
    let missing = |what: &str| ArrowError::ParseError(format!("a row of the spans has no {what}"));
    let span = |row: usize| {
        Ok(Span {
            trace_id: TraceId::parse(rows.text(TRACE, row)?).ok_or_else(|| missing("trace id"))?,
            span_id: SpanId::parse(rows.text("span_id", row)?).ok_or_else(|| missing("span id"))?,
            parent: SpanId::parse(rows.text("parent_span_id", row)?),
            name: rows.text("name", row)?.to_owned(),
            origin: origins.take(&rows, row)?,
            kind: kind_of_word(rows.text("kind", row)?),
            start: rows.time(TIME, row)?,
            end: rows.time("end", row)?,
            failed: rows.flag("failed", row)?,
            status_message: rows.text("status_message", row)?.to_owned(),
            attributes: pairs(rows.text(ATTRIBUTES, row)?),
        })
    };
    (0..batch.num_rows()).map(span).collect()
}

/// Reads measurements from whole rows of a metrics file.
pub(crate) fn measurements(batch: &RecordBatch) -> Result<Vec<Measurement>, ArrowError> {
    let rows = Rows::new(batch)?;
    let measured = |row: usize| {
        Ok(Measurement {
            key: SeriesKey {
                metric: rows.text("metric", row)?.to_owned(),
                service: rows.text(SERVICE, row)?.to_owned(),
                instance_id: rows.text(INSTANCE, row)?.to_owned(),
                labels: pairs(rows.text("labels", row)?),
            },
            temporality: temporality_of_word(rows.text("temporality", row)?),
            value: rows.float("value", row)?,
            count: rows.number("count", row)?,
            start: rows.time("start", row)?,
            time: rows.time(TIME, row)?,
        })
    };
    (0..batch.num_rows()).map(measured).collect()
}

/// Rows of a batch, by the names of columns. Dictionaries are read through, whatever kind of text they hold.
pub(crate) struct Rows {
    /// So few that going through them is quicker than a map.
    columns: Vec<(String, ArrayRef)>,
}

impl Rows {
    /// Looks into a batch.
    pub(crate) fn new(batch: &RecordBatch) -> Result<Self, ArrowError> {
        let schema = batch.schema();
        let names = schema.fields().iter().map(|field| field.name().clone());
        Ok(Self { columns: names.zip(batch.columns().iter().cloned()).collect() })
    }

    fn column(&self, name: &str) -> Result<&ArrayRef, ArrowError> {
        let column = self.columns.iter().find(|(known, _)| known == name).map(|(_, column)| column);
        column.ok_or_else(|| ArrowError::SchemaError(format!("there is no column {name}")))
    }

    /// All numbers of a column.
    pub(crate) fn numbers(&self, name: &str) -> Result<&[u64], ArrowError> {
        Ok(self.column(name)?.as_primitive_opt::<UInt64Type>().ok_or_else(|| strange(name))?.values())
    }

    /// All times of a column, as nanoseconds.
    pub(crate) fn times(&self, name: &str) -> Result<&[i64], ArrowError> {
        Ok(self.column(name)?.as_primitive_opt::<TimestampNanosecondType>().ok_or_else(|| strange(name))?.values())
    }

    /// For each row the place of its word among those of the column, and how many words there are.
    pub(crate) fn places(&self, name: &str) -> Result<(&[i32], usize), ArrowError> {
        let words = self.column(name)?.as_dictionary_opt::<Int32Type>().ok_or_else(|| strange(name))?;
        Ok((words.keys().values(), words.values().len()))
    }

    /// A whole number.
    pub(crate) fn number(&self, name: &str, row: usize) -> Result<u64, ArrowError> {
        let column = self.column(name)?.as_primitive_opt::<UInt64Type>().ok_or_else(|| strange(name))?;
        Ok(column.value(row))
    }

    fn float(&self, name: &str, row: usize) -> Result<f64, ArrowError> {
        let column = self.column(name)?.as_primitive_opt::<Float64Type>().ok_or_else(|| strange(name))?;
        Ok(column.value(row))
    }

    /// A time.
    pub(crate) fn time(&self, name: &str, row: usize) -> Result<Nanos, ArrowError> {
        let column = self.column(name)?.as_primitive_opt::<TimestampNanosecondType>().ok_or_else(|| strange(name))?;
        Ok(Nanos(u64::try_from(column.value(row)).unwrap_or(0)))
    }

    /// Yes or no.
    pub(crate) fn flag(&self, name: &str, row: usize) -> Result<bool, ArrowError> {
        Ok(self.column(name)?.as_boolean_opt().ok_or_else(|| strange(name))?.value(row))
    }

    /// A text, or a word.
    pub(crate) fn text(&self, name: &str, row: usize) -> Result<&str, ArrowError> {
        text_at(self.column(name)?, row).ok_or_else(|| strange(name))
    }
}

/// A text of a column of texts or words.
pub(crate) fn text_at(column: &ArrayRef, row: usize) -> Option<&str> {
    if let Some(words) = column.as_dictionary_opt::<Int32Type>() {
        let place = usize::try_from(words.keys().value(row)).ok()?;
        let values = words.values().as_string_opt::<i32>()?;
        return (place < values.len()).then(|| values.value(place));
    }
    column.as_string_opt::<i32>().map(|texts| texts.value(row))
}

fn strange(name: &str) -> ArrowError {
    ArrowError::SchemaError(format!("the column {name} is of another kind"))
}

/// Senders of a batch, each made once.
#[derive(Default)]
struct Origins(HashMap<(String, String, String), Arc<Origin>>);

impl Origins {
    fn take(&mut self, rows: &Rows, row: usize) -> Result<Arc<Origin>, ArrowError> {
        let (service, instance, resource) =
            (rows.text(SERVICE, row)?, rows.text(INSTANCE, row)?, rows.text(RESOURCE, row)?);
        let key = (service.to_owned(), instance.to_owned(), resource.to_owned());
        let make = || {
            let attributes = pairs(resource);
            Arc::new(Origin { service: service.to_owned(), instance_id: instance.to_owned(), attributes })
        };
        Ok(self.0.entry(key).or_insert_with(make).clone())
    }
}

/// Attributes as a JSON object, in their order.
pub(crate) fn object(attributes: &Attributes) -> String {
    let mut text = String::new();
    put_object(attributes, &mut text);
    text
}

fn put_object(attributes: &Attributes, out: &mut String) {
    out.push('{');
    for (place, (name, value)) in attributes.iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        put_quoted(name, out);
        out.push(':');
        put_quoted(value, out);
    }
    out.push('}');
}

fn put_quoted(text: &str, out: &mut String) {
    // Most texts are written as they are.
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(text).expect("a text is JSON"));
    }
}

/// Reads what [`object`] wrote.
pub(crate) fn pairs(object: &str) -> Attributes {
    if object == "{}" {
        return Attributes::new();
    }
    let read: Result<std::collections::BTreeMap<String, String>, _> = serde_json::from_str(object);
    read.map(|known| known.into_iter().collect()).unwrap_or_default()
}

/// Reads what [`Level::word`] wrote.
pub(crate) fn level_of_word(word: &str) -> Level {
    Level::of_word(word).unwrap_or_default()
}

/// The word for a kind.
pub(crate) const fn kind_word(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Unknown => "unknown",
        SpanKind::Internal => "internal",
        SpanKind::Server => "server",
        SpanKind::Client => "client",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
    }
}

fn kind_of_word(word: &str) -> SpanKind {
    match word {
        "internal" => SpanKind::Internal,
        "server" => SpanKind::Server,
        "client" => SpanKind::Client,
        "producer" => SpanKind::Producer,
        "consumer" => SpanKind::Consumer,
        _ => SpanKind::Unknown,
    }
}

const fn temporality_word(temporality: Temporality) -> &'static str {
    match temporality {
        Temporality::Gauge => "gauge",
        Temporality::Cumulative => "cumulative",
        Temporality::Delta => "delta",
    }
}

fn temporality_of_word(word: &str) -> Temporality {
    match word {
        "cumulative" => Temporality::Cumulative,
        "delta" => Temporality::Delta,
        _ => Temporality::Gauge,
    }
}
