//! The rules of a subscription: which messages it gets, and what is changed on its copies.
//!
//! A rule is read and checked with the topology and then asked for every message that is sent to the topic. It holds a
//! filter, and an action that is applied to the copy of a message that the filter takes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Message, Value,
    sql::{Action, SqlError, SqlFilter},
    sql_evaluation::{equal, user_property},
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    pub name: String,
    pub(crate) filter: Filter,
    pub(crate) action: Option<Action>,
    /// The start of Unix time until the rule is in a namespace that runs.
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Filter {
    True,
    False,
    Sql(SqlFilter),
    Correlation(CorrelationFilter),
}

/// Takes a message when every property that is given here equals the message's, case included.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CorrelationFilter {
    pub(crate) content_type: Option<String>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) label: Option<String>,
    pub(crate) message_id: Option<String>,
    pub(crate) reply_to: Option<String>,
    pub(crate) reply_to_session_id: Option<String>,
    pub(crate) session_id: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) properties: BTreeMap<String, Value>,
}

impl Filter {
    pub(crate) fn sql(expression: &str) -> Result<Self, SqlError> {
        SqlFilter::try_from(expression.to_owned()).map(Self::Sql)
    }

    /// The filter as SQL: what a true and a false filter are listed with. A correlation filter has none.
    pub(crate) fn expression(&self) -> Option<&str> {
        match self {
            Self::True => Some("1=1"),
            Self::False => Some("1=0"),
            Self::Sql(filter) => Some(filter.text()),
            Self::Correlation(_) => None,
        }
    }

    fn matches(&self, message: &Message) -> bool {
        match self {
            Self::True => true,
            Self::False => false,
            Self::Sql(filter) => filter.predicate.evaluate(message) == Some(true),
            Self::Correlation(filter) => filter.matches(message),
        }
    }
}

impl CorrelationFilter {
    fn matches(&self, message: &Message) -> bool {
        let system = [
            (&self.content_type, &message.content_type),
            (&self.correlation_id, &message.correlation_id),
            (&self.label, &message.label),
            (&self.message_id, &message.message_id),
            (&self.reply_to, &message.reply_to),
            (&self.reply_to_session_id, &message.reply_to_session_id),
            (&self.session_id, &message.session_id),
            (&self.to, &message.to),
        ];
        system
            .into_iter()
            .all(|(wanted, actual)| wanted.is_none() || wanted == actual)
            && self.properties.iter().all(|(name, wanted)| {
                user_property(message, name)
                    .is_some_and(|actual| equal(wanted, actual) == Some(true))
            })
    }
}

impl Rule {
    pub(crate) fn new(name: impl Into<String>, filter: Filter, action: Option<Action>) -> Self {
        Self {
            name: name.into(),
            filter,
            action,
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    /// A rule with a SQL filter and, if given, a SQL action.
    #[cfg(test)]
    pub(crate) fn sql(name: &str, filter: &str, action: Option<&str>) -> Result<Self, SqlError> {
        let action = action.map(crate::sql::parse_action).transpose()?;
        Ok(Self::new(name, Filter::sql(filter)?, action))
    }

    /// The rule that a subscription without rules of its own has: it takes every message.
    pub fn default_rule() -> Self {
        Self::new("$Default", Filter::True, None)
    }

    /// Whether the filter takes the message.
    pub fn matches(&self, message: &Message) -> bool {
        self.filter.matches(message)
    }

    /// Whether the rule has an action: each matching rule with one makes a copy of its own.
    pub fn has_action(&self) -> bool {
        self.action.is_some()
    }

    /// Applies the action, if there is one, to the subscription's copy.
    pub fn apply(&self, message: &mut Message) {
        if let Some(action) = &self.action {
            action.apply(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(colour: &str) -> Message {
        Message {
            label: Some("order.placed".to_owned()),
            properties: [("colour".to_owned(), Value::String(colour.to_owned()))].into(),
            ..Message::default()
        }
    }

    #[test]
    fn the_default_rule_takes_everything_and_changes_nothing() {
        let rule = Rule::default_rule();
        let mut copy = message("red");
        rule.apply(&mut copy);
        assert!(rule.matches(&copy) && !rule.has_action());
        assert_eq!(copy, message("red"));
    }

    #[test]
    fn a_filter_that_is_unknown_does_not_take_the_message() {
        let rule = |filter| Rule::sql("rule", filter, None).unwrap();
        assert!(rule("colour = 'red'").matches(&message("red")));
        assert!(!rule("size = 'L'").matches(&message("red")));
        assert!(!rule("NOT size = 'L'").matches(&message("red")));
        assert!(!Rule::new("never", Filter::False, None).matches(&message("red")));
    }

    #[test]
    fn an_audience_rule_takes_what_has_no_audience_or_its_own_and_names_it() {
        let rule = Rule::sql(
            "vendors",
            "NOT EXISTS(audience) OR audience = 'vendors'",
            Some("SET audience = 'vendors'"),
        )
        .unwrap();
        assert!(rule.has_action());
        let mut copy = message("red");
        assert!(rule.matches(&copy));
        rule.apply(&mut copy);
        assert_eq!(
            copy.properties["audience"],
            Value::String("vendors".to_owned())
        );
        assert!(rule.matches(&copy));
        copy.properties
            .insert("audience".to_owned(), Value::String("customers".to_owned()));
        assert!(!rule.matches(&copy));
    }

    #[test]
    fn a_correlation_filter_wants_all_of_its_properties_equal() {
        let filter = |label: &str, colour: &str| {
            Rule::new(
                "rule",
                Filter::Correlation(CorrelationFilter {
                    label: Some(label.to_owned()),
                    properties: [("Colour".to_owned(), Value::String(colour.to_owned()))].into(),
                    ..CorrelationFilter::default()
                }),
                None,
            )
        };
        assert!(filter("order.placed", "red").matches(&message("red")));
        assert!(!filter("order.placed", "red").matches(&message("Red")));
        assert!(!filter("order.cancelled", "red").matches(&message("red")));
        assert!(!filter("order.placed", "red").matches(&Message::default()));
    }
}
