//! Reads AMQP values from bytes that anyone may have sent.
//!
//! Runs for every performative, every section of a message and every management request. It never panics, takes no more
//! memory than the bytes can fill, and refuses what is nested deeper than any client nests: an error means that the
//! bytes are not AMQP 1.0 (part 1 of the specification), and the frame or message they are in cannot be used.

use serde_amqp::{
    Value,
    described::Described,
    descriptor::Descriptor,
    primitives::{Array, OrderedMap, Symbol, Timestamp, Uuid},
};

use super::fields::Fields;

/// How deep lists, maps, arrays and described values may be nested. Clients nest about eight deep.
const MAX_DEPTH: usize = 32;
/// How many elements an array may have whose elements take no bytes, so that no size limits them.
const MAX_EMPTY_ELEMENTS: u32 = 16;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("the value is longer than the bytes that hold it")]
    Truncated,
    #[error("0x{0:02x} begins no AMQP value")]
    Constructor(u8),
    #[error("values are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("the number of elements does not fit their size")]
    Count,
    #[error("text is not UTF-8, or a character or boolean has an invalid value")]
    Text,
    #[error("a descriptor is neither a ulong nor a symbol")]
    Descriptor,
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} has the wrong type or is out of range")]
    Type(&'static str),
}

/// A place in encoded bytes; every call takes what it reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// What has not been read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self
            .bytes
            .split_first_chunk()
            .ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// A size or a count: of one byte in the short forms, of four in the long ones.
    fn length(&mut self, short: bool) -> Result<u32, DecodeError> {
        if short {
            self.byte().map(u32::from)
        } else {
            self.array().map(u32::from_be_bytes)
        }
    }

    /// The bytes of a value whose size goes before it.
    pub(crate) fn sized(&mut self, short: bool) -> Result<&'a [u8], DecodeError> {
        let size = self.length(short)?;
        self.take(usize::try_from(size).map_err(|_| DecodeError::Truncated)?)
    }

    /// The content of a list, a map or an array, and how many elements it says it has.
    fn compound(&mut self, short: bool) -> Result<(Self, u32), DecodeError> {
        let mut content = Self::new(self.sized(short)?);
        let count = content.length(short)?;
        Ok((content, count))
    }

    /// The next value.
    pub(crate) fn value(&mut self) -> Result<Value, DecodeError> {
        self.value_at(0)
    }

    /// The next value, as the bytes that encode it, and checked no further than to find its end.
    pub(crate) fn encoded(&mut self) -> Result<&'a [u8], DecodeError> {
        let start = self.bytes;
        let mut code = self.byte()?;
        // A described value is a descriptor and a value, and so may each of them be.
        let mut values = 1usize;
        let mut described = 0;
        loop {
            if code == 0x00 {
                described += 1;
                if described > MAX_DEPTH {
                    return Err(DecodeError::TooDeep);
                }
                values += 1;
            } else {
                values -= 1;
                match code >> 4 {
                    0x4 => {}
                    0x5 => drop(self.take(1)?),
                    0x6 => drop(self.take(2)?),
                    0x7 => drop(self.take(4)?),
                    0x8 => drop(self.take(8)?),
                    0x9 => drop(self.take(16)?),
                    0xa | 0xc | 0xe => drop(self.sized(true)?),
                    0xb | 0xd | 0xf => drop(self.sized(false)?),
                    _ => return Err(DecodeError::Constructor(code)),
                }
            }
            if values == 0 {
                return Ok(&start[..start.len() - self.bytes.len()]);
            }
            code = self.byte()?;
        }
    }

    fn value_at(&mut self, depth: usize) -> Result<Value, DecodeError> {
        let code = self.byte()?;
        self.value_of(code, depth)
    }

    /// The value that follows its constructor.
    fn value_of(&mut self, code: u8, depth: usize) -> Result<Value, DecodeError> {
        if depth > MAX_DEPTH {
            return Err(DecodeError::TooDeep);
        }
        Ok(match code {
            0x00 => {
                let descriptor = self.descriptor_value()?;
                let value = self.value_at(depth + 1)?;
                Value::Described(Box::new(Described { descriptor, value }))
            }
            0x40 => Value::Null,
            0x41 => Value::Bool(true),
            0x42 => Value::Bool(false),
            0x56 => match self.byte()? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                _ => return Err(DecodeError::Text),
            },
            0x50 => Value::Ubyte(self.byte()?),
            0x51 => Value::Byte(i8::from_be_bytes(self.array()?)),
            0x60 => Value::Ushort(u16::from_be_bytes(self.array()?)),
            0x61 => Value::Short(i16::from_be_bytes(self.array()?)),
            0x43 => Value::Uint(0),
            0x52 => Value::Uint(self.byte()?.into()),
            0x70 => Value::Uint(u32::from_be_bytes(self.array()?)),
            0x54 => Value::Int(i8::from_be_bytes(self.array()?).into()),
            0x71 => Value::Int(i32::from_be_bytes(self.array()?)),
            0x44 => Value::Ulong(0),
            0x53 => Value::Ulong(self.byte()?.into()),
            0x80 => Value::Ulong(u64::from_be_bytes(self.array()?)),
            0x55 => Value::Long(i8::from_be_bytes(self.array()?).into()),
            0x81 => Value::Long(i64::from_be_bytes(self.array()?)),
            0x72 => Value::Float(f32::from_be_bytes(self.array()?).into()),
            0x82 => Value::Double(f64::from_be_bytes(self.array()?).into()),
            0x73 => {
                let code = u32::from_be_bytes(self.array()?);
                Value::Char(char::from_u32(code).ok_or(DecodeError::Text)?)
            }
            0x83 => Value::Timestamp(Timestamp::from(i64::from_be_bytes(self.array()?))),
            0x74 => Value::Decimal32(self.array::<4>()?.into()),
            0x84 => Value::Decimal64(self.array::<8>()?.into()),
            0x94 => Value::Decimal128(self.array::<16>()?.into()),
            0x98 => Value::Uuid(Uuid::from(self.array::<16>()?)),
            0xa0 | 0xb0 => Value::Binary(self.sized(code == 0xa0)?.to_vec().into()),
            0xa1 | 0xb1 => Value::String(text(self.sized(code == 0xa1)?)?.to_owned()),
            0xa3 | 0xb3 => Value::Symbol(Symbol::from(text(self.sized(code == 0xa3)?)?)),
            0x45 => Value::List(Vec::new()),
            0xc0 | 0xd0 => {
                let (mut content, count) = self.compound(code == 0xc0)?;
                // Grown as they are read: what the count claims may not be there.
                let mut elements = Vec::new();
                for _ in 0..count {
                    elements.push(content.value_at(depth + 1)?);
                }
                content.at_end()?;
                Value::List(elements)
            }
            0xc1 | 0xd1 => {
                let (mut content, count) = self.compound(code == 0xc1)?;
                if count % 2 != 0 {
                    return Err(DecodeError::Count);
                }
                let mut entries = OrderedMap::new();
                for _ in 0..count / 2 {
                    let key = content.value_at(depth + 1)?;
                    entries.insert(key, content.value_at(depth + 1)?);
                }
                content.at_end()?;
                Value::Map(entries)
            }
            0xe0 | 0xf0 => {
                let (content, count) = self.compound(code == 0xe0)?;
                Value::Array(Array(content.elements(count, depth + 1)?))
            }
            _ => return Err(DecodeError::Constructor(code)),
        })
    }

    /// The elements of an array, which share one constructor.
    fn elements(mut self, count: u32, depth: usize) -> Result<Vec<Value>, DecodeError> {
        let mut descriptors = Vec::new();
        let code = loop {
            match self.byte() {
                // Without elements some encoders leave out the constructor too.
                Err(_) if count == 0 => return Ok(Vec::new()),
                Ok(0x00) if descriptors.len() + depth < MAX_DEPTH => {
                    descriptors.push(self.descriptor_value()?);
                }
                Ok(0x00) => return Err(DecodeError::TooDeep),
                code => break code?,
            }
        };
        if code >> 4 == 0x4 && count > MAX_EMPTY_ELEMENTS {
            return Err(DecodeError::Count);
        }
        let mut elements = Vec::new();
        for _ in 0..count {
            let mut value = self.value_of(code, depth + descriptors.len())?;
            for descriptor in descriptors.iter().rev() {
                value = Value::Described(Box::new(Described {
                    descriptor: descriptor.clone(),
                    value,
                }));
            }
            elements.push(value);
        }
        self.at_end()?;
        Ok(elements)
    }

    fn at_end(&self) -> Result<(), DecodeError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Count)
        }
    }

    fn descriptor_value(&mut self) -> Result<Descriptor, DecodeError> {
        match self.byte()? {
            0x44 => Ok(Descriptor::Code(0)),
            0x53 => Ok(Descriptor::Code(self.byte()?.into())),
            0x80 => Ok(Descriptor::Code(u64::from_be_bytes(self.array()?))),
            code @ (0xa3 | 0xb3) => Ok(Descriptor::Name(Symbol::from(text(
                self.sized(code == 0xa3)?,
            )?))),
            _ => Err(DecodeError::Descriptor),
        }
    }

    /// The descriptor of a described value, as a number: the value itself comes next.
    pub(crate) fn descriptor(&mut self) -> Result<u64, DecodeError> {
        match self.byte()? {
            0x00 => {}
            code => return Err(DecodeError::Constructor(code)),
        }
        match self.descriptor_value()? {
            Descriptor::Code(code) => Ok(code),
            Descriptor::Name(name) => descriptor_code(name.as_str()),
        }
    }

    /// The fields of a composite type whose descriptor has been read.
    pub(crate) fn fields(&mut self) -> Result<Fields<'a>, DecodeError> {
        let (content, count) = match self.byte()? {
            0x45 => (Self::new(&[]), 0),
            code @ (0xc0 | 0xd0) => self.compound(code == 0xc0)?,
            code => return Err(DecodeError::Constructor(code)),
        };
        Ok(Fields::new(content, count))
    }

    /// The content of a map, and how many values (keys and values) it says it has.
    pub(crate) fn map(&mut self) -> Result<(Self, u32), DecodeError> {
        match self.byte()? {
            code @ (0xc1 | 0xd1) => self.compound(code == 0xc1),
            code => Err(DecodeError::Constructor(code)),
        }
    }
}

fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Text)
}

/// The number of a descriptor that was given by its name. No client is known that does so, and the specification lets it.
fn descriptor_code(name: &str) -> Result<u64, DecodeError> {
    Ok(match name {
        "amqp:open:list" => 0x10,
        "amqp:begin:list" => 0x11,
        "amqp:attach:list" => 0x12,
        "amqp:flow:list" => 0x13,
        "amqp:transfer:list" => 0x14,
        "amqp:disposition:list" => 0x15,
        "amqp:detach:list" => 0x16,
        "amqp:end:list" => 0x17,
        "amqp:close:list" => 0x18,
        "amqp:error:list" => 0x1d,
        "amqp:received:list" => 0x23,
        "amqp:accepted:list" => 0x24,
        "amqp:rejected:list" => 0x25,
        "amqp:released:list" => 0x26,
        "amqp:modified:list" => 0x27,
        "amqp:source:list" => 0x28,
        "amqp:target:list" => 0x29,
        "amqp:coordinator:list" => 0x30,
        "amqp:declare:list" => 0x31,
        "amqp:discharge:list" => 0x32,
        "amqp:declared:list" => 0x33,
        "amqp:transactional-state:list" => 0x34,
        "amqp:sasl-init:list" => 0x41,
        "amqp:sasl-response:list" => 0x43,
        "amqp:header:list" => 0x70,
        "amqp:delivery-annotations:map" => 0x71,
        "amqp:message-annotations:map" => 0x72,
        "amqp:properties:list" => 0x73,
        "amqp:application-properties:map" => 0x74,
        "amqp:data:binary" => 0x75,
        "amqp:amqp-sequence:list" => 0x76,
        "amqp:amqp-value:*" => 0x77,
        "amqp:footer:map" => 0x78,
        _ => return Err(DecodeError::Descriptor),
    })
}
