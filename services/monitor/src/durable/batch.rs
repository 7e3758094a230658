//! Records as the journal writes them: one Protobuf message a batch, whose records name their origin by its place.
//!
//! It is no contract: only this node reads it, after a death. It grows as a contract does, so that a newer ninefold
//! reads what an older one left.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;

use crate::model::{
    Attributes, Level, Line, Measurement, Nanos, Origin, SeriesKey, Span, SpanId, SpanKind, Temporality, TraceId,
};

/// Records of one signal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Batch {
    /// Log lines.
    Lines(Vec<Line>),
    /// Spans.
    Spans(Vec<Span>),
    /// Measurements.
    Measurements(Vec<Measurement>),
}

impl Batch {
    /// How many records it has.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Lines(records) => records.len(),
            Self::Spans(records) => records.len(),
            Self::Measurements(records) => records.len(),
        }
    }

    /// What it takes in memory until it is in a file.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Lines(records) => records.iter().map(Line::bytes).sum(),
            Self::Spans(records) => records.iter().map(Span::bytes).sum(),
            Self::Measurements(records) => records.iter().map(Measurement::bytes).sum(),
        }
    }

    /// Writes it, as a message without copies of what is in the records.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (mut origins, mut out, mut record) = (Origins::default(), Out::default(), Out::default());
        match self {
            Self::Lines(lines) => {
                for line in lines {
                    record.line(line, origins.place(&line.origin));
                    out.take(2, &mut record);
                }
            }
            Self::Spans(spans) => {
                for span in spans {
                    record.span(span, origins.place(&span.origin));
                    out.take(3, &mut record);
                }
            }
            Self::Measurements(measurements) => {
                for measured in measurements {
                    record.measurement(measured);
                    out.take(4, &mut record);
                }
            }
        }
        for origin in &origins.known {
            record.origin(origin);
            out.take(1, &mut record);
        }
        out.0
    }

    /// Reads what [`Batch::encode`] wrote; `None` where it is something else. A batch without records is one of lines.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let message = BatchMessage::decode(bytes).ok()?;
        let origins: Vec<Arc<Origin>> = message.origins.into_iter().map(|known| Arc::new(known.into())).collect();
        let origin = |place: u32| origins.get(usize::try_from(place).ok()?).cloned();
        if !message.spans.is_empty() {
            let span = |record: SpanMessage| {
                let origin = origin(record.origin)?;
                record.into_span(origin)
            };
            return message.spans.into_iter().map(span).collect::<Option<_>>().map(Self::Spans);
        }
        if !message.measurements.is_empty() {
            return Some(Self::Measurements(message.measurements.into_iter().map(Into::into).collect()));
        }
        let line = |record: LineMessage| {
            let origin = origin(record.origin)?;
            Some(record.into_line(origin))
        };
        message.lines.into_iter().map(line).collect::<Option<_>>().map(Self::Lines)
    }
}

#[derive(Clone, PartialEq, Message)]
struct BatchMessage {
    #[prost(message, repeated, tag = "1")]
    origins: Vec<OriginMessage>,
    #[prost(message, repeated, tag = "2")]
    lines: Vec<LineMessage>,
    #[prost(message, repeated, tag = "3")]
    spans: Vec<SpanMessage>,
    #[prost(message, repeated, tag = "4")]
    measurements: Vec<MeasurementMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct OriginMessage {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    instance_id: String,
    #[prost(string, repeated, tag = "3")]
    attributes: Vec<String>,
}

/// Attributes are names and values by turns.
#[derive(Clone, PartialEq, Message)]
struct LineMessage {
    #[prost(fixed64, tag = "1")]
    time: u64,
    #[prost(uint32, tag = "2")]
    origin: u32,
    #[prost(uint32, tag = "3")]
    level: u32,
    #[prost(string, tag = "4")]
    body: String,
    #[prost(bytes = "vec", tag = "5")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    span_id: Vec<u8>,
    #[prost(string, repeated, tag = "7")]
    attributes: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct SpanMessage {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    parent: Vec<u8>,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(uint32, tag = "5")]
    origin: u32,
    #[prost(uint32, tag = "6")]
    kind: u32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(bool, tag = "9")]
    failed: bool,
    #[prost(string, tag = "10")]
    status_message: String,
    #[prost(string, repeated, tag = "11")]
    attributes: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct MeasurementMessage {
    #[prost(string, tag = "1")]
    metric: String,
    #[prost(string, tag = "2")]
    service: String,
    #[prost(string, tag = "3")]
    instance_id: String,
    #[prost(string, repeated, tag = "4")]
    labels: Vec<String>,
    #[prost(uint32, tag = "5")]
    temporality: u32,
    #[prost(double, tag = "6")]
    value: f64,
    #[prost(uint64, tag = "7")]
    count: u64,
    #[prost(fixed64, tag = "8")]
    start: u64,
    #[prost(fixed64, tag = "9")]
    time: u64,
}

/// The origins of a batch, each once. Records of one sender follow each other, so the last is looked at first.
#[derive(Default)]
struct Origins<'a> {
    places: HashMap<&'a Origin, u32>,
    last: Option<(&'a Arc<Origin>, u32)>,
    known: Vec<&'a Origin>,
}

impl<'a> Origins<'a> {
    fn place(&mut self, origin: &'a Arc<Origin>) -> u32 {
        if let Some((last, place)) = self.last
            && Arc::ptr_eq(last, origin)
        {
            return place;
        }
        let next = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        let place = *self.places.entry(origin).or_insert(next);
        if place == next {
            self.known.push(origin);
        }
        self.last = Some((origin, place));
        place
    }
}

/// A message while it is written: the fields of the messages above, whose tags are below 16. Nothing is written for what
/// is empty, but for parts of a list.
#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn line(&mut self, line: &Line, origin: u32) {
        self.fixed(1, line.time.0);
        self.number(2, u64::from(origin));
        self.number(3, u64::from(level_number(line.level)));
        self.bytes(4, line.body.as_bytes());
        self.bytes(5, line.trace_id.as_ref().map_or(&[], |id| &id.0));
        self.bytes(6, line.span_id.as_ref().map_or(&[], |id| &id.0));
        self.attributes(7, &line.attributes);
    }

    fn span(&mut self, span: &Span, origin: u32) {
        self.bytes(1, &span.trace_id.0);
        self.bytes(2, &span.span_id.0);
        self.bytes(3, span.parent.as_ref().map_or(&[], |id| &id.0));
        self.bytes(4, span.name.as_bytes());
        self.number(5, u64::from(origin));
        self.number(6, u64::from(kind_number(span.kind)));
        self.fixed(7, span.start.0);
        self.fixed(8, span.end.0);
        self.number(9, u64::from(span.failed));
        self.bytes(10, span.status_message.as_bytes());
        self.attributes(11, &span.attributes);
    }

    fn measurement(&mut self, measured: &Measurement) {
        self.bytes(1, measured.key.metric.as_bytes());
        self.bytes(2, measured.key.service.as_bytes());
        self.bytes(3, measured.key.instance_id.as_bytes());
        self.attributes(4, &measured.key.labels);
        self.number(
            5,
            match measured.temporality {
                Temporality::Gauge => 0,
                Temporality::Cumulative => 1,
                Temporality::Delta => 2,
            },
        );
        self.fixed(6, measured.value.to_bits());
        self.number(7, measured.count);
        self.fixed(8, measured.start.0);
        self.fixed(9, measured.time.0);
    }

    fn origin(&mut self, origin: &Origin) {
        self.bytes(1, origin.service.as_bytes());
        self.bytes(2, origin.instance_id.as_bytes());
        self.attributes(3, &origin.attributes);
    }

    /// Writes another message, which is empty after that.
    fn take(&mut self, tag: u8, message: &mut Self) {
        self.part(tag, &message.0);
        message.0.clear();
    }

    fn attributes(&mut self, tag: u8, attributes: &Attributes) {
        for (name, value) in attributes {
            self.part(tag, name.as_bytes());
            self.part(tag, value.as_bytes());
        }
    }

    fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.part(tag, bytes);
        }
    }

    fn part(&mut self, tag: u8, bytes: &[u8]) {
        self.0.push(tag << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn fixed(&mut self, tag: u8, number: u64) {
        if number != 0 {
            self.0.push(tag << 3 | 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn number(&mut self, tag: u8, number: u64) {
        if number != 0 {
            self.0.push(tag << 3);
            self.varint(number);
        }
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }
}

impl From<OriginMessage> for Origin {
    fn from(message: OriginMessage) -> Self {
        let attributes = pairs(message.attributes);
        Self { service: message.service, instance_id: message.instance_id, attributes }
    }
}

impl LineMessage {
    fn into_line(self, origin: Arc<Origin>) -> Line {
        Line {
            time: Nanos(self.time),
            origin,
            level: level(self.level),
            body: self.body,
            trace_id: TraceId::from_bytes(&self.trace_id),
            span_id: SpanId::from_bytes(&self.span_id),
            attributes: pairs(self.attributes),
        }
    }
}

impl SpanMessage {
    fn into_span(self, origin: Arc<Origin>) -> Option<Span> {
        Some(Span {
            trace_id: TraceId::from_bytes(&self.trace_id)?,
            span_id: SpanId::from_bytes(&self.span_id)?,
            parent: SpanId::from_bytes(&self.parent),
            name: self.name,
            origin,
            kind: kind(self.kind),
            start: Nanos(self.start),
            end: Nanos(self.end),
            failed: self.failed,
            status_message: self.status_message,
            attributes: pairs(self.attributes),
        })
    }
}

impl From<MeasurementMessage> for Measurement {
    fn from(message: MeasurementMessage) -> Self {
        Self {
            key: SeriesKey {
                metric: message.metric,
                service: message.service,
                instance_id: message.instance_id,
                labels: pairs(message.labels),
            },
            temporality: match message.temporality {
                1 => Temporality::Cumulative,
                2 => Temporality::Delta,
                _ => Temporality::Gauge,
            },
            value: message.value,
            count: message.count,
            start: Nanos(message.start),
            time: Nanos(message.time),
        }
    }
}

fn pairs(flat: Vec<String>) -> Attributes {
    let mut attributes = Attributes::with_capacity(flat.len() / 2);
    let mut parts = flat.into_iter();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        attributes.push((name, value));
    }
    attributes
}

const fn level_number(level: Level) -> u32 {
    match level {
        Level::Unknown => 0,
        Level::Trace => 1,
        Level::Debug => 2,
        Level::Info => 3,
        Level::Warn => 4,
        Level::Error => 5,
        Level::Fatal => 6,
    }
}

const fn level(number: u32) -> Level {
    match number {
        1 => Level::Trace,
        2 => Level::Debug,
        3 => Level::Info,
        4 => Level::Warn,
        5 => Level::Error,
        6 => Level::Fatal,
        _ => Level::Unknown,
    }
}

const fn kind_number(kind: SpanKind) -> u32 {
    match kind {
        SpanKind::Unknown => 0,
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

const fn kind(number: u32) -> SpanKind {
    match number {
        1 => SpanKind::Internal,
        2 => SpanKind::Server,
        3 => SpanKind::Client,
        4 => SpanKind::Producer,
        5 => SpanKind::Consumer,
        _ => SpanKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_as_it_was() {
        let attributes = vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())];
        let origin = Arc::new(Origin { service: "pump".into(), instance_id: "p-1".into(), attributes });
        let line = Line {
            time: Nanos(7),
            origin: origin.clone(),
            level: Level::Warn,
            body: "drip".into(),
            trace_id: Some(TraceId([1; 16])),
            span_id: Some(SpanId([2; 8])),
            attributes: vec![("c".into(), "ä\n".into())],
        };
        let other = Line { origin: Arc::new(Origin::default()), ..Line::default() };
        let span = Span {
            trace_id: TraceId([1; 16]),
            span_id: SpanId([2; 8]),
            parent: None,
            name: "step".into(),
            origin,
            kind: SpanKind::Server,
            start: Nanos(1),
            end: Nanos(9),
            failed: true,
            status_message: "broke".into(),
            attributes: Vec::new(),
        };
        let key = SeriesKey {
            metric: "m".into(),
            service: "pump".into(),
            instance_id: "p-1".into(),
            labels: vec![("mode".into(), "user".into())],
        };
        let measured =
            Measurement { key, temporality: Temporality::Delta, value: 0.5, count: 3, start: Nanos(1), time: Nanos(2) };
        for batch in [
            Batch::Lines(vec![line.clone(), other, line]),
            Batch::Spans(vec![span]),
            Batch::Measurements(vec![measured]),
        ] {
            assert_eq!(Batch::decode(&batch.encode()), Some(batch));
        }
        assert_eq!(Batch::decode(b"\xff\xff"), None);
    }
}
