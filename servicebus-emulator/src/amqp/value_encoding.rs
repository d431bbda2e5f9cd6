//! Writes AMQP values.
//!
//! Runs for every message and management response that goes to a client. Short forms are used where they are common
//! (numbers, texts); lists and maps always have the long one, because their size is known only when they are written.

use bytes::{BufMut, BytesMut};
use serde_amqp::{
    Value,
    descriptor::Descriptor,
    primitives::{Array, OrderedMap},
};

/// A length or a count as it goes before what it counts.
fn length(length: usize) -> u32 {
    u32::try_from(length).expect("nothing that the broker holds takes 4 GiB")
}

pub(crate) fn put_null(out: &mut BytesMut) {
    out.put_u8(0x40);
}

pub(crate) fn put_bool(out: &mut BytesMut, value: bool) {
    out.put_u8(if value { 0x41 } else { 0x42 });
}

pub(crate) fn put_uint(out: &mut BytesMut, value: u32) {
    match u8::try_from(value) {
        Ok(0) => out.put_u8(0x43),
        Ok(value) => out.put_slice(&[0x52, value]),
        Err(_) => {
            out.put_u8(0x70);
            out.put_u32(value);
        }
    }
}

pub(crate) fn put_ulong(out: &mut BytesMut, value: u64) {
    match u8::try_from(value) {
        Ok(0) => out.put_u8(0x44),
        Ok(value) => out.put_slice(&[0x53, value]),
        Err(_) => {
            out.put_u8(0x80);
            out.put_u64(value);
        }
    }
}

pub(crate) fn put_int(out: &mut BytesMut, value: i32) {
    if let Ok(value) = i8::try_from(value) {
        out.put_u8(0x54);
        out.put_i8(value);
    } else {
        out.put_u8(0x71);
        out.put_i32(value);
    }
}

pub(crate) fn put_long(out: &mut BytesMut, value: i64) {
    if let Ok(value) = i8::try_from(value) {
        out.put_u8(0x55);
        out.put_i8(value);
    } else {
        out.put_u8(0x81);
        out.put_i64(value);
    }
}

/// Milliseconds since 1970.
pub(crate) fn put_timestamp(out: &mut BytesMut, milliseconds: i64) {
    out.put_u8(0x83);
    out.put_i64(milliseconds);
}

pub(crate) fn put_string(out: &mut BytesMut, text: &str) {
    put_sized(out, 0xa1, text.as_bytes());
}

pub(crate) fn put_symbol(out: &mut BytesMut, text: &str) {
    put_sized(out, 0xa3, text.as_bytes());
}

pub(crate) fn put_binary(out: &mut BytesMut, bytes: &[u8]) {
    put_sized(out, 0xa0, bytes);
}

/// The long form's code is the short one's plus 0x10.
fn put_sized(out: &mut BytesMut, short: u8, bytes: &[u8]) {
    if let Ok(size) = u8::try_from(bytes.len()) {
        out.put_slice(&[short, size]);
    } else {
        out.put_u8(short + 0x10);
        out.put_u32(length(bytes.len()));
    }
    out.put_slice(bytes);
}

/// The descriptor of a described value, which comes next.
pub(crate) fn put_descriptor(out: &mut BytesMut, code: u8) {
    out.put_slice(&[0x00, 0x53, code]);
}

/// A list of these elements.
pub(crate) fn put_list(out: &mut BytesMut, elements: impl FnOnce(&mut BytesMut) -> usize) {
    put_compound(out, 0xd0, elements);
}

/// A map; keys and values are counted together.
pub(crate) fn put_map(out: &mut BytesMut, entries: impl FnOnce(&mut BytesMut) -> usize) {
    put_compound(out, 0xd1, entries);
}

fn put_compound(out: &mut BytesMut, code: u8, content: impl FnOnce(&mut BytesMut) -> usize) {
    out.put_u8(code);
    put_compound_content(out, content);
}

/// Size, count and content; the first two are filled in when the last is there.
fn put_compound_content(out: &mut BytesMut, content: impl FnOnce(&mut BytesMut) -> usize) {
    let start = out.len();
    out.put_u64(0);
    let count = content(out);
    let size = length(out.len() - start - 4);
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
    out[start + 4..start + 8].copy_from_slice(&length(count).to_be_bytes());
}

pub(crate) fn put_value(out: &mut BytesMut, value: &Value) {
    match value {
        Value::Null => put_null(out),
        Value::Bool(value) => put_bool(out, *value),
        Value::Uint(value) => put_uint(out, *value),
        Value::Ulong(value) => put_ulong(out, *value),
        Value::Int(value) => put_int(out, *value),
        Value::Long(value) => put_long(out, *value),
        Value::String(text) => put_string(out, text),
        Value::Symbol(symbol) => put_symbol(out, symbol.as_str()),
        Value::Binary(bytes) => put_binary(out, bytes),
        Value::Described(described) => {
            out.put_u8(0x00);
            match &described.descriptor {
                Descriptor::Code(code) => put_ulong(out, *code),
                Descriptor::Name(name) => put_symbol(out, name.as_str()),
            }
            put_value(out, &described.value);
        }
        Value::List(elements) if elements.is_empty() => out.put_u8(0x45),
        value => match long_form(value) {
            Some(code) => {
                out.put_u8(code);
                put_content(out, value);
            }
            None => put_null(out),
        },
    }
}

/// The constructor under which every value of the type can be written, which the elements of an array share.
/// A described value has none.
fn long_form(value: &Value) -> Option<u8> {
    Some(match value {
        Value::Described(_) => return None,
        Value::Null => 0x40,
        Value::Bool(_) => 0x56,
        Value::Ubyte(_) => 0x50,
        Value::Byte(_) => 0x51,
        Value::Ushort(_) => 0x60,
        Value::Short(_) => 0x61,
        Value::Uint(_) => 0x70,
        Value::Int(_) => 0x71,
        Value::Float(_) => 0x72,
        Value::Char(_) => 0x73,
        Value::Decimal32(_) => 0x74,
        Value::Ulong(_) => 0x80,
        Value::Long(_) => 0x81,
        Value::Double(_) => 0x82,
        Value::Timestamp(_) => 0x83,
        Value::Decimal64(_) => 0x84,
        Value::Decimal128(_) => 0x94,
        Value::Uuid(_) => 0x98,
        Value::Binary(_) => 0xb0,
        Value::String(_) => 0xb1,
        Value::Symbol(_) => 0xb3,
        Value::List(_) => 0xd0,
        Value::Map(_) => 0xd1,
        // One whose elements differ goes as the list that it is.
        Value::Array(Array(elements)) => match element_form(elements) {
            Some(_) => 0xf0,
            None => 0xd0,
        },
    })
}

/// The constructor of an array's elements, if they have one in common. An empty array has one too, as the specification
/// will have it, though Python's client loses its place over it: answers to it hold empty lists, and no empty arrays.
fn element_form(elements: &[Value]) -> Option<u8> {
    let Some(first) = elements.first() else {
        return Some(0x40);
    };
    let form = long_form(first)?;
    elements
        .iter()
        .all(|element| long_form(element) == Some(form))
        .then_some(form)
}

/// What follows the constructor of the long form.
fn put_content(out: &mut BytesMut, value: &Value) {
    let put_bytes = |out: &mut BytesMut, bytes: &[u8]| {
        out.put_u32(length(bytes.len()));
        out.put_slice(bytes);
    };
    match value {
        Value::Described(_) | Value::Null => {}
        Value::Bool(value) => out.put_u8((*value).into()),
        Value::Ubyte(value) => out.put_u8(*value),
        Value::Byte(value) => out.put_i8(*value),
        Value::Ushort(value) => out.put_u16(*value),
        Value::Short(value) => out.put_i16(*value),
        Value::Uint(value) => out.put_u32(*value),
        Value::Int(value) => out.put_i32(*value),
        Value::Ulong(value) => out.put_u64(*value),
        Value::Long(value) => out.put_i64(*value),
        Value::Float(value) => out.put_f32(value.into_inner()),
        Value::Double(value) => out.put_f64(value.into_inner()),
        Value::Char(value) => out.put_u32((*value).into()),
        Value::Timestamp(value) => out.put_i64(value.milliseconds()),
        Value::Decimal32(value) => out.put_slice(&value.clone().into_inner()),
        Value::Decimal64(value) => out.put_slice(&value.clone().into_inner()),
        Value::Decimal128(value) => out.put_slice(&value.clone().into_inner()),
        Value::Uuid(value) => out.put_slice(value.as_inner()),
        Value::Binary(bytes) => put_bytes(out, bytes),
        Value::String(text) => put_bytes(out, text.as_bytes()),
        Value::Symbol(symbol) => put_bytes(out, symbol.as_str().as_bytes()),
        Value::List(elements) => put_compound_content(out, |out| put_elements(out, elements)),
        Value::Map(entries) => put_compound_content(out, |out| put_entries(out, entries)),
        Value::Array(Array(elements)) => {
            put_compound_content(out, |out| match element_form(elements) {
                Some(form) => {
                    out.put_u8(form);
                    for element in elements {
                        put_content(out, element);
                    }
                    elements.len()
                }
                None => put_elements(out, elements),
            });
        }
    }
}

fn put_elements(out: &mut BytesMut, elements: &[Value]) -> usize {
    for element in elements {
        put_value(out, element);
    }
    elements.len()
}

fn put_entries(out: &mut BytesMut, entries: &OrderedMap<Value, Value>) -> usize {
    for (key, value) in entries.iter() {
        put_value(out, key);
        put_value(out, value);
    }
    entries.len() * 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_amqp::{
        described::Described,
        primitives::{Symbol, Timestamp, Uuid},
    };

    use super::{super::value_decoding::Reader, *};

    fn encoded(value: &Value) -> BytesMut {
        let mut out = BytesMut::new();
        put_value(&mut out, value);
        out
    }

    fn plain() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<u8>().prop_map(Value::Ubyte),
            any::<i8>().prop_map(Value::Byte),
            any::<u16>().prop_map(Value::Ushort),
            any::<i16>().prop_map(Value::Short),
            prop_oneof![any::<u32>(), 0..300u32].prop_map(Value::Uint),
            prop_oneof![any::<i32>(), -300..300i32].prop_map(Value::Int),
            prop_oneof![any::<u64>(), 0..300u64].prop_map(Value::Ulong),
            prop_oneof![any::<i64>(), -300..300i64].prop_map(Value::Long),
            any::<f32>().prop_map(|value| Value::Float(value.into())),
            any::<f64>().prop_map(|value| Value::Double(value.into())),
            any::<char>().prop_map(Value::Char),
            any::<i64>().prop_map(|value| Value::Timestamp(Timestamp::from(value))),
            any::<[u8; 16]>().prop_map(|value| Value::Uuid(Uuid::from(value))),
            any::<[u8; 16]>().prop_map(|value| Value::Decimal128(value.into())),
            any::<[u8; 4]>().prop_map(|value| Value::Decimal32(value.into())),
            proptest::collection::vec(any::<u8>(), 0..300)
                .prop_map(|value| Value::Binary(value.into())),
            ".{0,100}".prop_map(Value::String),
            "[a-z:.-]{0,300}".prop_map(|text| Value::Symbol(Symbol(text))),
        ]
    }

    fn any_value() -> impl Strategy<Value = Value> {
        plain().prop_recursive(4, 40, 6, |inner| {
            let pair = (inner.clone(), inner.clone());
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
                proptest::collection::vec(pair, 0..6)
                    .prop_map(|entries| Value::Map(entries.into_iter().collect())),
                (inner.clone(), 0..6usize)
                    .prop_filter("has a form", |(value, _)| long_form(value).is_some())
                    .prop_map(|(value, count)| Value::Array(Array(vec![value; count]))),
                (any::<u64>(), inner).prop_map(|(code, value)| Value::Described(Box::new(
                    Described {
                        descriptor: Descriptor::Code(code),
                        value,
                    }
                ))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_value_is_read_as_it_was_written(value in any_value()) {
            let bytes = encoded(&value);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.value(), Ok(value));
            prop_assert!(reader.is_empty());
        }
    }

    #[test]
    fn what_serde_amqp_writes_is_read_and_it_reads_what_is_written() {
        let longs = Value::Array(Array(vec![Value::Long(1), Value::Long(-500)]));
        let times = Value::Array(Array(vec![Value::Timestamp(Timestamp::from(1_700_000))]));
        let mut map = OrderedMap::new();
        map.insert(Value::String("sequence-numbers".to_owned()), longs);
        map.insert(Value::Symbol(Symbol::from("expirations")), times);
        map.insert(
            Value::Uint(7),
            Value::List(vec![Value::Null, Value::Bool(true)]),
        );
        let value = Value::Map(map);
        let theirs = serde_amqp::to_vec(&value).unwrap();
        assert_eq!(Reader::new(&theirs).value(), Ok(value.clone()));
        let ours = encoded(&value);
        assert_eq!(serde_amqp::from_slice::<Value>(&ours).unwrap(), value);
    }

    #[test]
    fn the_short_forms_are_the_specifications() {
        let hex = |value: Value| encoded(&value)[..].to_vec();
        assert_eq!(hex(Value::Uint(0)), [0x43]);
        assert_eq!(hex(Value::Ulong(255)), [0x53, 255]);
        assert_eq!(hex(Value::Int(-1)), [0x54, 255]);
        assert_eq!(hex(Value::Long(128)), [0x81, 0, 0, 0, 0, 0, 0, 0, 128]);
        assert_eq!(hex(Value::String("é".to_owned())), [0xa1, 2, 0xc3, 0xa9]);
        assert_eq!(hex(Value::List(Vec::new())), [0x45]);
        let empty = Value::Array(Array(Vec::new()));
        assert_eq!(hex(empty), [0xf0, 0, 0, 0, 5, 0, 0, 0, 0, 0x40]);
    }
}
