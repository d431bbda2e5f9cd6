//! Requests about the rules of a subscription: add, remove, list.

use jiff::Timestamp;
use serde_amqp::{
    Value as Amqp, described::Described, descriptor::Descriptor, primitives::OrderedMap,
};

use super::{
    errors::Refusal,
    management::{argument, count, done, no_content, required},
    management_message::{Request, Response},
    value,
};
use crate::{
    EntityPath, ServiceBus,
    rule::{CorrelationFilter, Filter, Rule},
    sql,
};

/// The descriptors of what is in a rule, as Service Bus numbers them: those of filters have a zero less.
const RULE: u64 = 0x0000_0137_0000_0004;
const NO_ACTION: u64 = 0x0000_0137_0000_0005;
const SQL_ACTION: u64 = 0x0000_0137_0000_0006;
const SQL_FILTER: u64 = 0x0000_0013_7000_0006;
const TRUE_FILTER: u64 = 0x0000_0013_7000_0007;
const FALSE_FILTER: u64 = 0x0000_0013_7000_0008;
const CORRELATION_FILTER: u64 = 0x0000_0013_7000_0009;

pub(crate) async fn add(
    bus: &ServiceBus,
    subscription: &EntityPath,
    request: &Request,
) -> Result<Response, Refusal> {
    let name = required(request, "rule-name", value::text)?;
    let description = required(request, "rule-description", Some)?;
    let filter = filter(description)?;
    let action = match expression(description, "sql-rule-action") {
        Some(text) if !text.is_empty() => {
            Some(sql::parse_action(text).map_err(|error| argument(error.0))?)
        }
        _ => None,
    };
    bus.add_rule(subscription, Rule::new(name, filter, action))
        .await?;
    Ok(done())
}

fn filter(description: &Amqp) -> Result<Filter, Refusal> {
    if let Some(text) = expression(description, "sql-filter") {
        return Filter::sql(text).map_err(|error| argument(error.0));
    }
    let Some(correlation) = value::get(description, "correlation-filter") else {
        return Err(argument(
            "the rule has neither a `sql-filter` nor a `correlation-filter`",
        ));
    };
    let text = |name| {
        let text = value::get(correlation, name).and_then(value::text)?;
        Some(text.to_owned())
    };
    let properties = value::get(correlation, "properties").map(value::properties);
    Ok(Filter::Correlation(CorrelationFilter {
        content_type: text("content-type"),
        correlation_id: text("correlation-id"),
        label: text("label"),
        message_id: text("message-id"),
        reply_to: text("reply-to"),
        reply_to_session_id: text("reply-to-session-id"),
        session_id: text("session-id"),
        to: text("to"),
        properties: properties.into_iter().flatten().collect(),
    }))
}

fn expression<'a>(description: &'a Amqp, what: &str) -> Option<&'a str> {
    let expression = value::get(description, what)?;
    value::get(expression, "expression").and_then(value::text)
}

pub(crate) async fn remove(
    bus: &ServiceBus,
    subscription: &EntityPath,
    request: &Request,
) -> Result<Response, Refusal> {
    let name = required(request, "rule-name", value::text)?;
    bus.remove_rule(subscription, name).await?;
    Ok(done())
}

pub(crate) async fn list(
    bus: &ServiceBus,
    subscription: &EntityPath,
    request: &Request,
) -> Result<Response, Refusal> {
    let skip = count(request, "skip")?;
    let most = count(request, "top")?;
    let rules = bus.rules(subscription).await?;
    let rules: Vec<Amqp> = rules
        .iter()
        .skip(skip)
        .take(most)
        .map(|rule| value::map([("rule-description", described_rule(rule))]))
        .collect();
    if rules.is_empty() {
        return Ok(no_content());
    }
    Ok(Response::ok(value::map([("rules", Amqp::List(rules))])))
}

fn described_rule(rule: &Rule) -> Amqp {
    let text = |text: &str| Amqp::String(text.to_owned());
    let filter = match &rule.filter {
        Filter::True => described(TRUE_FILTER, vec![]),
        Filter::False => described(FALSE_FILTER, vec![]),
        Filter::Sql(filter) => described(SQL_FILTER, vec![text(filter.text())]),
        Filter::Correlation(filter) => correlation(filter),
    };
    let action = match &rule.action {
        Some(action) => described(SQL_ACTION, vec![text(action.text())]),
        None => described(NO_ACTION, vec![]),
    };
    let created: Timestamp = rule.created_at;
    let fields = vec![filter, action, text(&rule.name), value::timestamp(created)];
    described(RULE, fields)
}

fn correlation(filter: &CorrelationFilter) -> Amqp {
    let texts = [
        &filter.correlation_id,
        &filter.message_id,
        &filter.to,
        &filter.reply_to,
        &filter.label,
        &filter.session_id,
        &filter.reply_to_session_id,
        &filter.content_type,
    ];
    let mut fields: Vec<Amqp> = texts
        .into_iter()
        .map(|text| text.clone().map_or(Amqp::Null, Amqp::String))
        .collect();
    let properties = filter
        .properties
        .iter()
        .map(|(name, wanted)| (Amqp::String(name.clone()), value::to_amqp(wanted)));
    let properties: OrderedMap<Amqp, Amqp> = properties.collect();
    fields.push(Amqp::Map(properties));
    described(CORRELATION_FILTER, fields)
}

fn described(code: u64, fields: Vec<Amqp>) -> Amqp {
    Amqp::Described(Box::new(Described {
        descriptor: Descriptor::Code(code),
        value: Amqp::List(fields),
    }))
}
