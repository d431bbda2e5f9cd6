//! OTLP 1.x, the form in which telemetry is exported: binary Protocol Buffers, written by hand.
//!
//! Only what we send: spans with attributes and links, and metrics. The numbers are those of `opentelemetry-proto`
//! (`trace/v1/trace.proto`, `metrics/v1/metrics.proto`); tests read them back with that crate. Pure.

use crate::{
    metrics::{Form, Labels, Point, Snapshot},
    span::{Recording, Value},
};

/// Whose spans and metrics these are.
pub type Resource = Vec<(String, String)>;

/// The semantic conventions whose names we use. Later ones call `messaging.system` something else, which Application Insights does not
/// know.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";

const STATUS_ERROR: u64 = 2;
const DELTA: u64 = 1;
const CUMULATIVE: u64 = 2;

/// An `ExportTraceServiceRequest`.
pub fn traces(resource: &Resource, spans: &[Recording]) -> Vec<u8> {
    request(resource, |scope| {
        for span in spans {
            scope.message(2, |message| write_span(message, span));
        }
    })
}

/// An `ExportMetricsServiceRequest`.
pub fn metrics(resource: &Resource, snapshot: &Snapshot) -> Vec<u8> {
    request(resource, |scope| {
        // The points of one figure come one after the other.
        for points in snapshot.points.chunk_by(|a, b| a.figure == b.figure) {
            let (name, unit, form) = points[0].figure.described();
            scope.message(2, |metric| {
                metric.text(1, name);
                metric.text(3, unit);
                let kind = match form {
                    Form::Gauge | Form::Glimpse => 5,
                    Form::Counter => 7,
                    Form::Histogram(_) => 9,
                };
                metric.message(kind, |data| {
                    for point in points {
                        data.message(1, |message| match form {
                            Form::Histogram(bounds) => {
                                write_histogram(message, snapshot, point, bounds);
                            }
                            Form::Counter | Form::Gauge | Form::Glimpse => {
                                write_number(message, snapshot, point, form);
                            }
                        });
                    }
                    if kind != 5 {
                        let temporality = if snapshot.is_delta { DELTA } else { CUMULATIVE };
                        data.integer(2, temporality);
                    }
                    if form == Form::Counter {
                        data.integer(3, 1);
                    }
                });
            });
        }
    })
}

/// How many the collector says that it has not taken, in the answer to a request that it has.
pub fn rejected(answer: &[u8]) -> u64 {
    // ExportTraceServiceResponse { partial_success = 1: { rejected_spans = 1 } }, and the same for metrics.
    let read = || {
        let (partial, _) = field(answer, 1)?;
        let (_, rejected) = field(partial, 1)?;
        Some(rejected)
    };
    read().unwrap_or(0)
}

/// The first field of that number: what it holds, or its value if it is a number.
fn field(mut message: &[u8], wanted: u64) -> Option<(&[u8], u64)> {
    loop {
        let tag = varint(&mut message)?;
        let (held, value) = match tag & 7 {
            0 => (&message[..0], varint(&mut message)?),
            1 => (split(&mut message, 8)?, 0),
            2 => {
                let length = varint(&mut message)?;
                (split(&mut message, length)?, 0)
            }
            5 => (split(&mut message, 4)?, 0),
            _ => return None,
        };
        if tag >> 3 == wanted {
            return Some((held, value));
        }
    }
}

fn split<'a>(message: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (held, rest) = message.split_at_checked(usize::try_from(length).ok()?)?;
    *message = rest;
    Some(held)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The three envelopes around what is sent, which are the same for both.
fn request(resource: &Resource, write: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut request = Message::default();
    request.message(1, |of_resource| {
        of_resource.message(1, |message| {
            for (name, value) in resource {
                write_text(message, 1, name, value);
            }
        });
        of_resource.message(2, |of_scope| {
            of_scope.message(1, |scope| {
                scope.text(1, "orderup");
                scope.text(2, env!("CARGO_PKG_VERSION"));
            });
            write(of_scope);
            of_scope.text(3, SCHEMA);
        });
        of_resource.text(3, SCHEMA);
    });
    request.0
}

fn write_span(message: &mut Message, span: &Recording) {
    message.bytes(1, &span.context.trace_id.to_be_bytes());
    message.bytes(2, &span.context.span_id.to_be_bytes());
    if let Some(parent) = span.parent {
        message.bytes(4, &parent.to_be_bytes());
    }
    message.text(5, &span.name);
    message.integer(6, span.kind as u64);
    message.fixed64(7, span.started);
    message.fixed64(8, span.ended);
    for (name, value) in &span.attributes {
        message.message(9, |attribute| {
            attribute.text(1, name);
            attribute.message(2, |any| match value {
                Value::Text(text) => any.text(1, text),
                Value::Bool(flag) => any.integer(2, u64::from(*flag)),
                // A negative number is written as its two's complement.
                Value::Integer(number) => any.integer(3, number.cast_unsigned()),
            });
        });
    }
    for link in &span.links {
        message.message(13, |message| {
            message.bytes(1, &link.trace_id.to_be_bytes());
            message.bytes(2, &link.span_id.to_be_bytes());
            message.fixed32(6, u32::from(link.is_sampled()));
        });
    }
    if span.has_failed {
        message.message(15, |status| status.integer(3, STATUS_ERROR));
    }
    message.fixed32(16, u32::from(span.context.is_sampled()));
}

fn write_number(message: &mut Message, snapshot: &Snapshot, point: &Point, form: Form) {
    if form == Form::Counter {
        message.fixed64(2, snapshot.since);
    }
    message.fixed64(3, snapshot.until);
    match form {
        // Whole ones, far below 2^53.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Form::Counter => message.fixed64(6, point.value as u64),
        Form::Gauge | Form::Glimpse | Form::Histogram(_) => message.double(4, point.value),
    }
    write_labels(message, 7, &point.labels);
}

fn write_histogram(message: &mut Message, snapshot: &Snapshot, point: &Point, bounds: &[f64]) {
    message.fixed64(2, snapshot.since);
    message.fixed64(3, snapshot.until);
    message.fixed64(4, point.count);
    message.double(5, point.value);
    let buckets = point.buckets.iter();
    message.bytes(
        6,
        &buckets
            .flat_map(|count| count.to_le_bytes())
            .collect::<Vec<_>>(),
    );
    let bounds = bounds.iter();
    message.bytes(
        7,
        &bounds
            .flat_map(|bound| bound.to_le_bytes())
            .collect::<Vec<_>>(),
    );
    write_labels(message, 9, &point.labels);
    message.double(11, point.least);
    message.double(12, point.most);
}

fn write_labels(message: &mut Message, field: u64, labels: &Labels) {
    for (name, value) in labels {
        write_text(message, field, name, value);
    }
}

/// An attribute that is text.
fn write_text(message: &mut Message, field: u64, name: &str, value: &str) {
    message.message(field, |attribute| {
        attribute.text(1, name);
        attribute.message(2, |any| any.text(1, value));
    });
}

/// A message of Protocol Buffers, as it is written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn integer(&mut self, field: u64, value: u64) {
        self.tag(field, 0);
        self.varint(value);
    }

    fn fixed64(&mut self, field: u64, value: u64) {
        self.tag(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn fixed32(&mut self, field: u64, value: u32) {
        self.tag(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn double(&mut self, field: u64, value: f64) {
        self.fixed64(field, value.to_bits());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.tag(field, 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }
}
