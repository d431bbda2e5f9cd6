//! What filters and actions say about a message.
//!
//! Conditions have three values: `Some(true)`, `Some(false)` and `None`, unknown; a filter takes a message only when it
//! is true for it. An expression without a value is unknown too: a missing property, `NULL`, an operator whose
//! operands do not fit (numbers go with numbers, strings with strings), a division by zero, an overflow.

use std::cmp::Ordering;

use uuid::Uuid;

use crate::{
    Message, Value,
    sql::{
        Action, Comparison, Expression, Operator, Predicate, Property, Statement, SystemProperty,
    },
};

impl Predicate {
    pub(crate) fn evaluate(&self, message: &Message) -> Option<bool> {
        match self {
            Self::Not(operand) => operand.evaluate(message).map(|value| !value),
            Self::And(left, right) => match (left.evaluate(message), right.evaluate(message)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Or(left, right) => match (left.evaluate(message), right.evaluate(message)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Self::Compare(left, comparison, right) => compare(
                &left.evaluate(message)?,
                *comparison,
                &right.evaluate(message)?,
            ),
            Self::IsNull { property, negated } => {
                Some(read(message, property).is_none() != *negated)
            }
            Self::In {
                expression,
                list,
                negated,
            } => {
                let value = expression.evaluate(message)?;
                let found = list.iter().any(|candidate| {
                    candidate
                        .evaluate(message)
                        .is_some_and(|candidate| equal(&value, &candidate) == Some(true))
                });
                Some(found != *negated)
            }
            Self::Like {
                expression,
                pattern,
                escape,
                negated,
            } => {
                let text = expression.evaluate(message)?;
                let pattern = pattern.evaluate(message)?;
                let escape = match escape {
                    Some(escape) => Some(single_character(&escape.evaluate(message)?)?),
                    None => None,
                };
                let (Value::String(text), Value::String(pattern)) = (text, pattern) else {
                    return None;
                };
                Some(like(&text, &pattern, escape) != *negated)
            }
            Self::Exists(property) => Some(read(message, property).is_some()),
        }
    }
}

/// Whether two values are equal; unknown when their types cannot be compared.
pub(crate) fn equal(left: &Value, right: &Value) -> Option<bool> {
    compare(left, Comparison::Equal, right)
}

fn compare(left: &Value, comparison: Comparison, right: &Value) -> Option<bool> {
    let ordering = match (left, right) {
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Uuid(left), Value::Uuid(right)) => left.cmp(right),
        (Value::Timestamp(left), Value::Timestamp(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) => {
            return match comparison {
                Comparison::Equal => Some(left == right),
                Comparison::NotEqual => Some(left != right),
                _ => None,
            };
        }
        _ => match (whole(left), whole(right)) {
            (Some(left), Some(right)) => left.cmp(&right),
            _ => match number(left)?.partial_cmp(&number(right)?) {
                Some(ordering) => ordering,
                None => return Some(comparison == Comparison::NotEqual),
            },
        },
    };
    Some(match comparison {
        Comparison::Equal => ordering == Ordering::Equal,
        Comparison::NotEqual => ordering != Ordering::Equal,
        Comparison::Greater => ordering == Ordering::Greater,
        Comparison::GreaterOrEqual => ordering != Ordering::Less,
        Comparison::Less => ordering == Ordering::Less,
        Comparison::LessOrEqual => ordering != Ordering::Greater,
    })
}

/// A whole number of any type, wide enough for all of them.
fn whole(value: &Value) -> Option<i128> {
    Some(match value {
        Value::Byte(number) => i128::from(*number),
        Value::SByte(number) => i128::from(*number),
        Value::Short(number) => i128::from(*number),
        Value::UShort(number) => i128::from(*number),
        Value::Int(number) => i128::from(*number),
        Value::UInt(number) => i128::from(*number),
        Value::Long(number) => i128::from(*number),
        Value::ULong(number) => i128::from(*number),
        _ => return None,
    })
}

/// The number as C# would widen it for an operator with a double on the other side.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        Value::Float(number) => Some(f64::from(*number)),
        _ => whole(value).map(|number| number as f64),
    }
}

/// The whole number as the one type that arithmetic has.
fn long(value: &Value) -> Option<i64> {
    whole(value)?.try_into().ok()
}

impl Expression {
    pub(crate) fn evaluate(&self, message: &Message) -> Option<Value> {
        match self {
            Self::Constant(value) => Some(value.clone()),
            Self::Null => None,
            Self::Property(property) => read(message, property),
            Self::PropertyNamed(name) => match name.evaluate(message)? {
                Value::String(name) => read(message, &Property::User(name)),
                _ => None,
            },
            Self::NewId => Some(Value::String(Uuid::new_v4().to_string())),
            Self::Arithmetic(left, operator, right) => {
                arithmetic(left.evaluate(message)?, *operator, right.evaluate(message)?)
            }
            Self::Negative(operand) => {
                let operand = operand.evaluate(message)?;
                match long(&operand) {
                    Some(operand) => operand.checked_neg().map(Value::Long),
                    None => number(&operand).map(|operand| Value::Double(-operand)),
                }
            }
            Self::Positive(operand) => operand
                .evaluate(message)
                .filter(|value| number(value).is_some()),
        }
    }
}

fn arithmetic(left: Value, operator: Operator, right: Value) -> Option<Value> {
    if let (Some(left), Some(right)) = (long(&left), long(&right)) {
        return match operator {
            Operator::Add => left.checked_add(right),
            Operator::Subtract => left.checked_sub(right),
            Operator::Multiply => left.checked_mul(right),
            Operator::Divide => left.checked_div(right),
            Operator::Remainder => left.checked_rem(right),
        }
        .map(Value::Long);
    }
    match (left, right) {
        (Value::String(left), Value::String(right)) if operator == Operator::Add => {
            Some(Value::String(left + &right))
        }
        (left, right) => {
            let (left, right) = (number(&left)?, number(&right)?);
            let result = match operator {
                Operator::Add => left + right,
                Operator::Subtract => left - right,
                Operator::Multiply => left * right,
                Operator::Divide => left / right,
                Operator::Remainder => left % right,
            };
            // Infinity and NaN are not values that a property can have over REST.
            result.is_finite().then_some(Value::Double(result))
        }
    }
}

fn single_character(value: &Value) -> Option<char> {
    let Value::String(text) = value else {
        return None;
    };
    let mut characters = text.chars();
    characters.next().filter(|_| characters.next().is_none())
}

enum Pattern {
    Any,
    One,
    Character(char),
}

/// `%` stands for any text, `_` for one character; what follows the escape character stands for itself.
fn like(text: &str, pattern: &str, escape: Option<char>) -> bool {
    let mut parts = Vec::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        parts.push(match character {
            _ if Some(character) == escape => match characters.next() {
                Some(literal) => Pattern::Character(literal),
                None => return false,
            },
            '%' => Pattern::Any,
            '_' => Pattern::One,
            _ => Pattern::Character(character),
        });
    }
    let text: Vec<char> = text.chars().collect();
    // Greedy with one step back to the last `%`: linear in memory, and never exponential.
    let (mut at, mut part) = (0, 0);
    let mut last_any = None;
    while at < text.len() {
        match parts.get(part) {
            Some(Pattern::Any) => {
                last_any = Some((part, at));
                part += 1;
                continue;
            }
            Some(Pattern::One) => {
                (at, part) = (at + 1, part + 1);
                continue;
            }
            Some(Pattern::Character(character)) if *character == text[at] => {
                (at, part) = (at + 1, part + 1);
                continue;
            }
            Some(Pattern::Character(_)) | None => {}
        }
        let Some((any, start)) = last_any else {
            return false;
        };
        last_any = Some((any, start + 1));
        (part, at) = (any + 1, start + 1);
    }
    parts[part..]
        .iter()
        .all(|part| matches!(part, Pattern::Any))
}

fn read(message: &Message, property: &Property) -> Option<Value> {
    let text = |text: &Option<String>| text.clone().map(Value::String);
    match property {
        // A property that is null has no value.
        Property::User(name) => user_property(message, name)
            .filter(|value| **value != Value::Null)
            .cloned(),
        Property::System(property) => match property {
            SystemProperty::ContentType => text(&message.content_type),
            SystemProperty::CorrelationId => text(&message.correlation_id),
            SystemProperty::Label => text(&message.label),
            SystemProperty::MessageId => text(&message.message_id),
            SystemProperty::PartitionKey => text(&message.partition_key),
            SystemProperty::ReplyTo => text(&message.reply_to),
            SystemProperty::ReplyToSessionId => text(&message.reply_to_session_id),
            SystemProperty::ScheduledEnqueueTimeUtc => {
                message.scheduled_enqueue_time.map(Value::Timestamp)
            }
            SystemProperty::SessionId => text(&message.session_id),
            SystemProperty::To => text(&message.to),
        },
    }
}

/// The property of that name, in any case.
pub(crate) fn user_property<'a>(message: &'a Message, name: &str) -> Option<&'a Value> {
    message
        .properties
        .get(name)
        .or_else(|| message.properties.get(&existing_name(message, name)?))
}

fn existing_name(message: &Message, name: &str) -> Option<String> {
    let lower_case = name.to_lowercase();
    message
        .properties
        .keys()
        .find(|key| key.to_lowercase() == lower_case)
        .cloned()
}

impl Action {
    /// Runs the statements in order; each sees what those before it did.
    pub(crate) fn apply(&self, message: &mut Message) {
        for statement in &self.statements {
            match statement {
                // A property set to an unknown value has no value afterwards: `IS NULL` is true for it.
                Statement::Set(property, expression) => {
                    let value = expression.evaluate(message);
                    write(message, property, value);
                }
                Statement::Remove(property) => write(message, property, None),
            }
        }
    }
}

fn write(message: &mut Message, property: &Property, value: Option<Value>) {
    match property {
        Property::User(name) => {
            let name = existing_name(message, name).unwrap_or_else(|| name.clone());
            let existing = message.properties.remove(&name);
            if let Some(value) = value {
                message
                    .properties
                    .insert(name, like_existing(value, existing));
            }
        }
        Property::System(property) => {
            let text = value.and_then(as_text);
            let field = match property {
                SystemProperty::ContentType => &mut message.content_type,
                SystemProperty::CorrelationId => &mut message.correlation_id,
                SystemProperty::Label => &mut message.label,
                SystemProperty::MessageId => &mut message.message_id,
                SystemProperty::PartitionKey => &mut message.partition_key,
                SystemProperty::ReplyTo => &mut message.reply_to,
                SystemProperty::ReplyToSessionId => &mut message.reply_to_session_id,
                SystemProperty::SessionId => &mut message.session_id,
                SystemProperty::To => &mut message.to,
                // Refused when the topology is read.
                SystemProperty::ScheduledEnqueueTimeUtc => return,
            };
            *field = text;
        }
    }
}

/// `SET` converts to the type that the property has already, where C# does so implicitly.
fn like_existing(value: Value, existing: Option<Value>) -> Value {
    match (&value, existing) {
        (Value::Long(number), Some(Value::Double(_))) => Value::Double(*number as f64),
        (Value::Long(number), Some(Value::Int(_))) => {
            i32::try_from(*number).map_or(value, Value::Int)
        }
        _ => value,
    }
}

fn as_text(value: Value) -> Option<String> {
    Some(match value {
        Value::String(text) | Value::Symbol(text) => text,
        Value::Bool(value) => value.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Timestamp(time) => time.to_string(),
        Value::Char(character) => character.to_string(),
        Value::Uuid(uuid) => uuid.to_string(),
        value => whole(&value)?.to_string(),
    })
}
