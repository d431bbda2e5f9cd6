//! AMQP values and the bus's own, and what is looked up in the maps of management requests.
//!
//! Clients differ in what they take for a key or a number (strings or symbols, ints or longs), so a lookup takes what
//! can only be meant; `None` means that the entry is missing, null or of another type.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use serde_amqp::{
    Value as Amqp,
    primitives::{Array, OrderedMap, Symbol},
};
use uuid::Uuid;

use crate::Value;

use super::{
    value_decoding::{DecodeError, Reader},
    value_encoding::{put_binary, put_string, put_symbol, put_timestamp, put_value},
};

/// The delivery tag that says the lock token of a message: clients make a .NET `Guid` of it.
pub(crate) fn delivery_tag(lock_token: Uuid) -> [u8; 16] {
    lock_token.to_bytes_le()
}

/// The value of an application property, from its encoding. What the bus has no type for stays as it is.
pub(crate) fn property(encoded: &[u8]) -> Result<Value, DecodeError> {
    let value = Reader::new(encoded).value()?;
    Ok(plain(value).unwrap_or_else(|_| Value::Encoded(Bytes::copy_from_slice(encoded))))
}

/// A value of the bus. What it has no type for is kept encoded.
pub(crate) fn from_amqp(value: Amqp) -> Value {
    plain(value).unwrap_or_else(|value| {
        let mut out = BytesMut::new();
        put_value(&mut out, &value);
        Value::Encoded(out.freeze())
    })
}

/// Gives the value back that the bus has no type for; a time that its calendar does not have is such a one.
fn plain(value: Amqp) -> Result<Value, Amqp> {
    Ok(match value {
        Amqp::Null => Value::Null,
        Amqp::Bool(value) => Value::Bool(value),
        Amqp::Ubyte(value) => Value::Byte(value),
        Amqp::Byte(value) => Value::SByte(value),
        Amqp::Ushort(value) => Value::UShort(value),
        Amqp::Short(value) => Value::Short(value),
        Amqp::Uint(value) => Value::UInt(value),
        Amqp::Int(value) => Value::Int(value),
        Amqp::Ulong(value) => Value::ULong(value),
        Amqp::Long(value) => Value::Long(value),
        Amqp::Float(value) => Value::Float(value.into_inner()),
        Amqp::Double(value) => Value::Double(value.into_inner()),
        Amqp::Char(value) => Value::Char(value),
        Amqp::Uuid(value) => Value::Uuid(Uuid::from_bytes(value.into_inner())),
        Amqp::Binary(bytes) => Value::Binary(bytes.into_vec().into()),
        Amqp::String(text) => Value::String(text),
        Amqp::Symbol(Symbol(text)) => Value::Symbol(text),
        Amqp::Timestamp(time) => match Timestamp::from_millisecond(time.milliseconds()) {
            Ok(time) => Value::Timestamp(time),
            Err(_) => return Err(Amqp::Timestamp(time)),
        },
        value @ (Amqp::Described(_)
        | Amqp::Decimal32(_)
        | Amqp::Decimal64(_)
        | Amqp::Decimal128(_)
        | Amqp::List(_)
        | Amqp::Map(_)
        | Amqp::Array(_)) => return Err(value),
    })
}

/// The AMQP value of one of the bus.
pub(crate) fn to_amqp(value: &Value) -> Amqp {
    match value {
        Value::Null => Amqp::Null,
        Value::Bool(value) => Amqp::Bool(*value),
        Value::Byte(value) => Amqp::Ubyte(*value),
        Value::SByte(value) => Amqp::Byte(*value),
        Value::UShort(value) => Amqp::Ushort(*value),
        Value::Short(value) => Amqp::Short(*value),
        Value::UInt(value) => Amqp::Uint(*value),
        Value::Int(value) => Amqp::Int(*value),
        Value::ULong(value) => Amqp::Ulong(*value),
        Value::Long(value) => Amqp::Long(*value),
        Value::Float(value) => Amqp::Float((*value).into()),
        Value::Double(value) => Amqp::Double((*value).into()),
        Value::Char(value) => Amqp::Char(*value),
        Value::Uuid(value) => uuid(*value),
        Value::Binary(bytes) => binary(bytes),
        Value::String(text) => Amqp::String(text.clone()),
        Value::Symbol(text) => Amqp::Symbol(Symbol(text.clone())),
        Value::Timestamp(time) => timestamp(*time),
        // It was read before it was kept.
        Value::Encoded(bytes) => Reader::new(bytes).value().unwrap_or_default(),
    }
}

/// Writes the value of an application property.
pub(crate) fn put_property(out: &mut BytesMut, value: &Value) {
    match value {
        Value::String(text) => put_string(out, text),
        Value::Symbol(text) => put_symbol(out, text),
        Value::Binary(bytes) => put_binary(out, bytes),
        Value::Timestamp(time) => put_timestamp(out, time.as_millisecond()),
        Value::Encoded(bytes) => out.extend_from_slice(bytes),
        value => put_value(out, &to_amqp(value)),
    }
}

pub(crate) fn timestamp(time: Timestamp) -> Amqp {
    Amqp::Timestamp(time.as_millisecond().into())
}

pub(crate) fn uuid(value: Uuid) -> Amqp {
    Amqp::Uuid(value.into_bytes().into())
}

pub(crate) fn binary(bytes: &[u8]) -> Amqp {
    Amqp::Binary(bytes.to_vec().into())
}

/// A map with strings for keys, as the bodies of management responses are.
pub(crate) fn map<const N: usize>(entries: [(&str, Amqp); N]) -> Amqp {
    let entries = entries.map(|(key, value)| (Amqp::String(key.to_owned()), value));
    Amqp::Map(entries.into_iter().collect())
}

/// The entry of a map under this key, string or symbol. Nothing where the value is no map.
pub(crate) fn get<'a>(map: &'a Amqp, key: &str) -> Option<&'a Amqp> {
    let Amqp::Map(entries) = map else {
        return None;
    };
    entries
        .iter()
        .find(|(name, _)| text(name) == Some(key))
        .map(|(_, value)| value)
        .filter(|value| !matches!(value, Amqp::Null))
}

/// The entries of a map whose keys are strings or symbols, as properties of the bus: what a client sets on a message
/// that it gives back.
pub(crate) fn properties(map: &Amqp) -> Vec<(String, Value)> {
    let Amqp::Map(entries) = map else {
        return Vec::new();
    };
    entries
        .iter()
        .filter_map(|(name, value)| Some((text(name)?.to_owned(), from_amqp(value.clone()))))
        .collect()
}

/// The same of a map that has symbols for keys, as in delivery states.
pub(crate) fn symbol_properties(map: &OrderedMap<Symbol, Amqp>) -> Vec<(String, Value)> {
    map.iter()
        .map(|(Symbol(name), value)| (name.clone(), from_amqp(value.clone())))
        .collect()
}

/// A string or a symbol.
pub(crate) fn text(value: &Amqp) -> Option<&str> {
    match value {
        Amqp::String(text) => Some(text),
        Amqp::Symbol(symbol) => Some(symbol.as_str()),
        _ => None,
    }
}

/// A whole number of any type.
pub(crate) fn long(value: &Amqp) -> Option<i64> {
    Some(match value {
        Amqp::Ubyte(number) => (*number).into(),
        Amqp::Byte(number) => (*number).into(),
        Amqp::Ushort(number) => (*number).into(),
        Amqp::Short(number) => (*number).into(),
        Amqp::Uint(number) => (*number).into(),
        Amqp::Int(number) => (*number).into(),
        Amqp::Ulong(number) => (*number).try_into().ok()?,
        Amqp::Long(number) => *number,
        _ => return None,
    })
}

pub(crate) fn milliseconds(value: &Amqp) -> Option<Duration> {
    Some(Duration::from_millis(long(value)?.try_into().ok()?))
}

/// A time that the bus's calendar has.
pub(crate) fn time(value: &Amqp) -> Option<Timestamp> {
    match value {
        Amqp::Timestamp(time) => Timestamp::from_millisecond(time.milliseconds()).ok(),
        _ => None,
    }
}

/// A UUID in its own type or as text.
pub(crate) fn token(value: &Amqp) -> Option<Uuid> {
    match value {
        Amqp::Uuid(uuid) => Some(Uuid::from_bytes(*uuid.as_inner())),
        value => text(value)?.parse().ok(),
    }
}

pub(crate) fn bytes(value: &Amqp) -> Option<&[u8]> {
    match value {
        Amqp::Binary(bytes) => Some(bytes),
        _ => None,
    }
}

/// The elements of a list or an array.
pub(crate) fn elements(value: &Amqp) -> Option<&[Amqp]> {
    match value {
        Amqp::List(elements) | Amqp::Array(Array(elements)) => Some(elements),
        _ => None,
    }
}

/// A message or correlation id as text. Every client can show text; of the other types that AMQP allows each knows some.
pub(crate) fn id(value: Amqp) -> Result<Option<String>, DecodeError> {
    Ok(Some(match value {
        Amqp::Null => return Ok(None),
        Amqp::String(text) => text,
        Amqp::Symbol(Symbol(text)) => text,
        Amqp::Uuid(uuid) => Uuid::from_bytes(uuid.into_inner()).to_string(),
        Amqp::Binary(bytes) => match String::from_utf8(bytes.into_vec()) {
            Ok(text) => text,
            Err(error) => error
                .as_bytes()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        },
        // Clients whose numbers have no type send what fits.
        value => match (&value, long(&value)) {
            (_, Some(number)) => number.to_string(),
            (Amqp::Ulong(number), None) => number.to_string(),
            _ => return Err(DecodeError::Type("id")),
        },
    }))
}

#[cfg(test)]
mod tests {
    use serde_amqp::primitives::Uuid as AmqpUuid;

    use super::*;

    #[test]
    fn a_delivery_tag_is_a_guid_of_dot_net() {
        let token: Uuid = "00112233-4455-6677-8899-aabbccddeeff".parse().unwrap();
        let tag = delivery_tag(token);
        // What `Guid.ToByteArray` gives: the first three groups turned round.
        let expected = [
            0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
            0xee, 0xff,
        ];
        assert_eq!(tag, expected);
    }

    #[test]
    fn a_property_keeps_its_type_both_ways() {
        let time = Timestamp::from_millisecond(1_700_000_000_123).unwrap();
        let values = [
            Value::Null,
            Value::Bool(true),
            Value::Byte(200),
            Value::SByte(-100),
            Value::Short(-30_000),
            Value::UShort(60_000),
            Value::Int(5),
            Value::Int(i32::MIN),
            Value::UInt(u32::MAX),
            Value::Long(5),
            Value::ULong(u64::MAX),
            Value::Float(1.5),
            Value::Double(f64::NEG_INFINITY),
            Value::Char('é'),
            Value::Uuid(Uuid::from_u128(7)),
            Value::Binary(Bytes::from_static(&[0, 255])),
            Value::String("x".repeat(300)),
            Value::Symbol("s".to_owned()),
            Value::Timestamp(time),
            // A decimal64, and a TimeSpan as .NET sends it.
            Value::Encoded(Bytes::from_static(&[0x84, 1, 2, 3, 4, 5, 6, 7, 8])),
            Value::Encoded(Bytes::from_static(
                b"\x00\xa3\x16com.microsoft:timespan\x55\x07",
            )),
            // DateTime.MaxValue.
            Value::Encoded(Bytes::from_static(&[
                0x83, 0, 0, 0xe6, 0x77, 0xd2, 0x1f, 0xdb, 0xff,
            ])),
        ];
        for value in values {
            let mut out = BytesMut::new();
            put_property(&mut out, &value);
            assert_eq!(property(&out), Ok(value.clone()));
            assert_eq!(from_amqp(to_amqp(&value)), value);
        }
    }

    #[test]
    fn lookups_take_what_can_only_be_meant() {
        let request = Amqp::Map(
            [
                (Amqp::Symbol(Symbol::from("a")), Amqp::Int(5)),
                (Amqp::String("b".to_owned()), Amqp::Null),
            ]
            .into_iter()
            .collect(),
        );
        assert_eq!(get(&request, "a").and_then(long), Some(5));
        assert_eq!(get(&request, "b"), None);
        assert_eq!(get(&Amqp::Null, "a"), None);
        assert_eq!(long(&Amqp::Ulong(u64::MAX)), None);
        assert_eq!(milliseconds(&Amqp::Int(-1)), None);
        assert_eq!(milliseconds(&Amqp::Uint(5)), Some(Duration::from_millis(5)));
        let far = Amqp::Timestamp(i64::MAX.into());
        assert_eq!(time(&far), None);
        let token_text = Amqp::String(Uuid::from_u128(9).to_string());
        assert_eq!(token(&token_text), Some(Uuid::from_u128(9)));
        assert_eq!(
            properties(&request),
            [
                ("a".to_owned(), Value::Int(5)),
                ("b".to_owned(), Value::Null)
            ]
        );
    }

    #[test]
    fn ids_of_every_type_become_text() {
        let text = |value| id(value).unwrap();
        assert_eq!(text(Amqp::Null), None);
        assert_eq!(text(Amqp::Ulong(u64::MAX)).unwrap(), "18446744073709551615");
        assert_eq!(text(Amqp::Int(-3)).unwrap(), "-3");
        let uuid = AmqpUuid::from([0x11; 16]);
        assert_eq!(
            text(Amqp::Uuid(uuid)).unwrap(),
            "11111111-1111-1111-1111-111111111111"
        );
        assert_eq!(text(Amqp::Binary(b"ab".to_vec().into())).unwrap(), "ab");
        assert_eq!(text(Amqp::Binary(vec![0xff, 1].into())).unwrap(), "ff01");
        assert_eq!(id(Amqp::Bool(true)), Err(DecodeError::Type("id")));
    }
}
