//! The fields of AMQP's composite types, read for what they can only mean.
//!
//! Every performative, delivery state, header and property section is one. Clients are not exact about types (rhea sends
//! strings where symbols are due, numbers in any width), so each reader takes all that is unambiguous. An error names
//! the field that cannot be meant.

use serde_amqp::{
    Value,
    primitives::{Array, OrderedMap, Symbol},
};

use super::value_decoding::{DecodeError, Reader};

/// The fields of a composite type, one after the other. Those that were left out at the end are null; those that no
/// version of the type has are not looked at.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl<'a> Fields<'a> {
    /// Of the content of a list, and the number of values that it says it has.
    pub(crate) fn new(reader: Reader<'a>, left: u32) -> Self {
        Self { reader, left }
    }

    pub(crate) fn value(&mut self) -> Result<Value, DecodeError> {
        if self.left == 0 {
            return Ok(Value::Null);
        }
        self.left -= 1;
        self.reader.value()
    }

    /// A string, or a symbol: clients take the one for the other.
    pub(crate) fn text(&mut self, name: &'static str) -> Result<Option<String>, DecodeError> {
        match self.value()? {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            Value::Symbol(Symbol(text)) => Ok(Some(text)),
            _ => Err(DecodeError::Type(name)),
        }
    }

    /// A whole number of any type that is in the range.
    pub(crate) fn number<T: TryFrom<u64>>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>, DecodeError> {
        let number = match self.value()? {
            Value::Null => return Ok(None),
            Value::Ubyte(number) => Some(number.into()),
            Value::Ushort(number) => Some(number.into()),
            Value::Uint(number) => Some(number.into()),
            Value::Ulong(number) => Some(number),
            Value::Byte(number) => number.try_into().ok(),
            Value::Short(number) => number.try_into().ok(),
            Value::Int(number) => number.try_into().ok(),
            Value::Long(number) => number.try_into().ok(),
            _ => None,
        };
        number
            .and_then(|number: u64| T::try_from(number).ok())
            .map(Some)
            .ok_or(DecodeError::Type(name))
    }

    pub(crate) fn flag(&mut self, name: &'static str) -> Result<Option<bool>, DecodeError> {
        match self.value()? {
            Value::Null => Ok(None),
            Value::Bool(flag) => Ok(Some(flag)),
            _ => Err(DecodeError::Type(name)),
        }
    }

    pub(crate) fn binary(&mut self, name: &'static str) -> Result<Option<Vec<u8>>, DecodeError> {
        match self.value()? {
            Value::Null => Ok(None),
            Value::Binary(bytes) => Ok(Some(bytes.into_vec())),
            _ => Err(DecodeError::Type(name)),
        }
    }

    /// One symbol, or any number of them.
    pub(crate) fn symbols(
        &mut self,
        name: &'static str,
    ) -> Result<Option<Array<Symbol>>, DecodeError> {
        let values = match self.value()? {
            Value::Null => return Ok(None),
            Value::Array(Array(values)) | Value::List(values) => values,
            value => vec![value],
        };
        let symbols = values.into_iter().map(|value| match value {
            Value::Symbol(symbol) => Ok(symbol),
            Value::String(text) => Ok(Symbol(text)),
            _ => Err(DecodeError::Type(name)),
        });
        symbols.collect::<Result<Vec<_>, _>>().map(Array).map(Some)
    }

    /// A map whose keys are symbols, or strings: rhea (Node) sends the latter in the information of an error.
    pub(crate) fn map(
        &mut self,
        name: &'static str,
    ) -> Result<Option<OrderedMap<Symbol, Value>>, DecodeError> {
        let entries = match self.value()? {
            Value::Null => return Ok(None),
            Value::Map(entries) => entries,
            _ => return Err(DecodeError::Type(name)),
        };
        let mut map = OrderedMap::new();
        for (key, value) in entries {
            match key {
                Value::Symbol(key) => map.insert(key, value),
                Value::String(key) => map.insert(Symbol(key), value),
                _ => return Err(DecodeError::Type(name)),
            };
        }
        Ok(Some(map))
    }

    /// A composite value: the number of its descriptor, and its fields.
    pub(crate) fn composite(&mut self) -> Result<Option<(u64, Fields<'a>)>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let mut reader = Reader::new(self.reader.encoded()?);
        if reader.rest() == [0x40] {
            return Ok(None);
        }
        Ok(Some((reader.descriptor()?, reader.fields()?)))
    }
}
