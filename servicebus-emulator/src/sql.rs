//! SQL filters and SQL actions of rules, as Service Bus documents them.
//!
//! [`parse_filter`] and [`parse_action`] run when the topology is read ([`crate::sql_parser`]): what they accept can be
//! evaluated for any message ([`crate::sql_evaluation`]), and what Service Bus would not take is refused with the reason.
//! The grammar: <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-messaging-sql-filter> and
//! `…/service-bus-messaging-sql-rule-action`.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Value;
pub(crate) use crate::sql_parser::{parse_action, parse_filter};

/// Why a filter or an action is not Service Bus SQL.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub(crate) struct SqlError(pub(crate) String);

/// What is true, false or unknown for a message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Predicate {
    Not(Box<Predicate>),
    And(Box<Predicate>, Box<Predicate>),
    Or(Box<Predicate>, Box<Predicate>),
    Compare(Expression, Comparison, Expression),
    IsNull {
        property: Property,
        negated: bool,
    },
    In {
        expression: Expression,
        list: Vec<Expression>,
        negated: bool,
    },
    Like {
        expression: Expression,
        pattern: Expression,
        escape: Option<Expression>,
        negated: bool,
    },
    Exists(Property),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// What has a value for a message, or none: a missing property, `NULL`, or operands that do not fit the operator.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expression {
    Constant(Value),
    Null,
    Property(Property),
    /// `property(name)`: the user property whose name is computed.
    PropertyNamed(Box<Expression>),
    /// `newid()`: a new GUID, as a string.
    NewId,
    Arithmetic(Box<Expression>, Operator, Box<Expression>),
    Negative(Box<Expression>),
    Positive(Box<Expression>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Property {
    System(SystemProperty),
    /// Names are compared without case.
    User(String),
}

/// The system properties that a filter or action can name with `sys.`: those a sender sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SystemProperty {
    ContentType,
    CorrelationId,
    Label,
    MessageId,
    PartitionKey,
    ReplyTo,
    ReplyToSessionId,
    ScheduledEnqueueTimeUtc,
    SessionId,
    To,
}

impl SystemProperty {
    const ALL: [Self; 10] = [
        Self::ContentType,
        Self::CorrelationId,
        Self::Label,
        Self::MessageId,
        Self::PartitionKey,
        Self::ReplyTo,
        Self::ReplyToSessionId,
        Self::ScheduledEnqueueTimeUtc,
        Self::SessionId,
        Self::To,
    ];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|property| property.name().eq_ignore_ascii_case(name))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ContentType => "ContentType",
            Self::CorrelationId => "CorrelationId",
            Self::Label => "Label",
            Self::MessageId => "MessageId",
            Self::PartitionKey => "PartitionKey",
            Self::ReplyTo => "ReplyTo",
            Self::ReplyToSessionId => "ReplyToSessionId",
            Self::ScheduledEnqueueTimeUtc => "ScheduledEnqueueTimeUtc",
            Self::SessionId => "SessionId",
            Self::To => "To",
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(property) => write!(f, "sys.{}", property.name()),
            Self::User(name) => write!(f, "[{name}]"),
        }
    }
}

/// A condition with the text it was read from, which is what rules are listed and stored with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct SqlFilter {
    text: String,
    pub(crate) predicate: Predicate,
}

impl SqlFilter {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl TryFrom<String> for SqlFilter {
    type Error = SqlError;

    fn try_from(text: String) -> Result<Self, SqlError> {
        let predicate = parse_filter(&text)?;
        Ok(Self { text, predicate })
    }
}

impl From<SqlFilter> for String {
    fn from(filter: SqlFilter) -> Self {
        filter.text
    }
}

/// The statements of an action, in order, with the text they were read from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Action {
    text: String,
    pub(crate) statements: Vec<Statement>,
}

impl Action {
    pub(crate) fn new(text: &str, statements: Vec<Statement>) -> Self {
        Self {
            text: text.to_owned(),
            statements,
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl TryFrom<String> for Action {
    type Error = SqlError;

    fn try_from(text: String) -> Result<Self, SqlError> {
        parse_action(&text)
    }
}

impl From<Action> for String {
    fn from(action: Action) -> Self {
        action.text
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Statement {
    Set(Property, Expression),
    Remove(Property),
}
