//! Rules as the management API writes them: filters and actions by their `i:type`, property values with their XSD type.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use roxmltree::Node;

use crate::{
    Value,
    atom_xml::{INSTANCE, SCHEMA, Writer, bad_request, child, content, text},
    rest_error::RestError,
    rule::{CorrelationFilter, Filter, Rule},
    sql::{Action, parse_action},
    topology_limits,
};

/// Reads a `RuleDescription` or a `DefaultRuleDescription`.
pub(crate) fn read(node: Node<'_, '_>, name: &str) -> Result<Rule, RestError> {
    topology_limits::short_name(name).map_err(bad_request)?;
    let filter = match child(node, "Filter") {
        Some(filter) => read_filter(filter)?,
        None => Filter::True,
    };
    let action = match child(node, "Action") {
        Some(action) => read_action(action)?,
        None => None,
    };
    Ok(Rule::new(name, filter, action))
}

/// The type that an element says it has, without its prefix.
fn type_of<'a>(node: Node<'a, '_>) -> Option<&'a str> {
    let name = node.attribute((INSTANCE, "type"))?;
    Some(name.rsplit_once(':').map_or(name, |(_, name)| name))
}

fn read_filter(node: Node<'_, '_>) -> Result<Filter, RestError> {
    match type_of(node) {
        Some("TrueFilter") => Ok(Filter::True),
        Some("FalseFilter") => Ok(Filter::False),
        Some("SqlFilter") => {
            let expression = sql_expression(node)?
                .ok_or_else(|| bad_request("The SqlFilter has no SqlExpression."))?;
            Filter::sql(&expression)
                .map_err(|error| bad_request(format!("The SqlExpression is invalid: {error}.")))
        }
        Some("CorrelationFilter") => read_correlation_filter(node).map(Filter::Correlation),
        other => Err(bad_request(format!(
            "`{}` is none of SqlFilter, CorrelationFilter, TrueFilter and FalseFilter.",
            other.unwrap_or_default()
        ))),
    }
}

fn read_action(node: Node<'_, '_>) -> Result<Option<Action>, RestError> {
    match type_of(node) {
        None | Some("EmptyRuleAction") => Ok(None),
        Some("SqlRuleAction") => sql_expression(node)?
            .map(|sql| {
                parse_action(&sql)
                    .map_err(|error| bad_request(format!("The action is invalid: {error}.")))
            })
            .transpose(),
        Some(other) => Err(bad_request(format!(
            "`{other}` is neither SqlRuleAction nor EmptyRuleAction."
        ))),
    }
}

fn sql_expression(node: Node<'_, '_>) -> Result<Option<String>, RestError> {
    let has_parameters = child(node, "Parameters")
        .is_some_and(|parameters| child(parameters, "KeyValueOfstringanyType").is_some());
    if has_parameters {
        return Err(bad_request(
            "Parameters of SQL expressions are not supported here: write the values into the expression.",
        ));
    }
    Ok(text(node, "SqlExpression").filter(|sql| !sql.trim().is_empty()))
}

fn read_correlation_filter(node: Node<'_, '_>) -> Result<CorrelationFilter, RestError> {
    let text = |name| text(node, name).filter(|text| !text.is_empty());
    let mut filter = CorrelationFilter {
        content_type: text("ContentType"),
        correlation_id: text("CorrelationId"),
        label: text("Label"),
        message_id: text("MessageId"),
        reply_to: text("ReplyTo"),
        reply_to_session_id: text("ReplyToSessionId"),
        session_id: text("SessionId"),
        to: text("To"),
        properties: std::collections::BTreeMap::new(),
    };
    for pair in child(node, "Properties")
        .into_iter()
        .flat_map(|properties| properties.children())
        .filter(Node::is_element)
    {
        let name = child(pair, "Key").map(content).unwrap_or_default();
        let value = child(pair, "Value")
            .ok_or_else(|| bad_request(format!("The property `{name}` has no Value.")))?;
        let read = read_value(value).ok_or_else(|| {
            bad_request(format!(
                "The value of the property `{name}` is not of the type `{}`, or this type is not supported.",
                type_of(value).unwrap_or_default()
            ))
        })?;
        filter.properties.insert(name, read);
    }
    if filter == CorrelationFilter::default() {
        return Err(bad_request(
            "A correlation filter needs at least one property.",
        ));
    }
    Ok(filter)
}

fn read_value(node: Node<'_, '_>) -> Option<Value> {
    let text = content(node);
    let number = text.trim();
    Some(match type_of(node)? {
        "string" => Value::String(text),
        "boolean" => Value::Bool(match number.to_ascii_lowercase().as_str() {
            "true" | "1" => true,
            "false" | "0" => false,
            _ => return None,
        }),
        "byte" => Value::SByte(number.parse().ok()?),
        "unsignedByte" => Value::Byte(number.parse().ok()?),
        "short" => Value::Short(number.parse().ok()?),
        "unsignedShort" => Value::UShort(number.parse().ok()?),
        "int" => Value::Int(number.parse().ok()?),
        "unsignedInt" => Value::UInt(number.parse().ok()?),
        "long" => Value::Long(number.parse().ok()?),
        "unsignedLong" => Value::ULong(number.parse().ok()?),
        "float" => Value::Float(number.parse().ok().filter(|it: &f32| it.is_finite())?),
        "double" => Value::Double(number.parse().ok().filter(|it: &f64| it.is_finite())?),
        "dateTime" => Value::Timestamp(read_time(number)?),
        "guid" => Value::Uuid(number.parse().ok()?),
        _ => return None,
    })
}

/// Without an offset it is UTC: .NET leaves it out of a time whose kind it does not know.
fn read_time(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| {
        let time: DateTime = text.parse().ok()?;
        Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })
}

/// Writes a `RuleDescription` into the entry.
pub(crate) fn write(xml: &mut Writer, rule: &Rule) {
    match &rule.filter {
        Filter::Correlation(filter) => write_correlation_filter(xml, filter),
        filter => {
            let kind = match filter {
                Filter::True => "TrueFilter",
                Filter::False => "FalseFilter",
                _ => "SqlFilter",
            };
            let sql = filter.expression().unwrap_or_default();
            xml.within("Filter", &[("i:type", kind)], |xml| write_sql(xml, sql));
        }
    }
    match &rule.action {
        Some(action) => xml.within("Action", &[("i:type", "SqlRuleAction")], |xml| {
            write_sql(xml, action.text());
        }),
        None => xml.empty("Action", &[("i:type", "EmptyRuleAction")]),
    }
    xml.text("CreatedAt", time(rule.created_at));
    xml.text("Name", &rule.name);
}

fn write_sql(xml: &mut Writer, sql: &str) {
    xml.text("SqlExpression", sql);
    xml.text("CompatibilityLevel", "20");
}

fn write_correlation_filter(xml: &mut Writer, filter: &CorrelationFilter) {
    xml.within("Filter", &[("i:type", "CorrelationFilter")], |xml| {
        for (name, text) in [
            ("CorrelationId", &filter.correlation_id),
            ("MessageId", &filter.message_id),
            ("To", &filter.to),
            ("ReplyTo", &filter.reply_to),
            ("Label", &filter.label),
            ("SessionId", &filter.session_id),
            ("ReplyToSessionId", &filter.reply_to_session_id),
            ("ContentType", &filter.content_type),
        ] {
            xml.optional(name, text.as_deref());
        }
        xml.within("Properties", &[], |xml| {
            for (name, value) in &filter.properties {
                xml.within("KeyValueOfstringanyType", &[], |xml| {
                    xml.text("Key", name);
                    let (kind, text) = written(value);
                    let kind = format!("d6p1:{kind}");
                    let attributes = [("xmlns:d6p1", SCHEMA), ("i:type", kind.as_str())];
                    xml.text_with("Value", &attributes, text);
                });
            }
        });
    });
}

/// The XSD type of a value, and its text.
fn written(value: &Value) -> (&'static str, String) {
    match value {
        Value::String(text) | Value::Symbol(text) => ("string", text.clone()),
        Value::Char(character) => ("string", character.to_string()),
        Value::Bool(value) => ("boolean", value.to_string()),
        Value::SByte(number) => ("byte", number.to_string()),
        Value::Byte(number) => ("unsignedByte", number.to_string()),
        Value::Short(number) => ("short", number.to_string()),
        Value::UShort(number) => ("unsignedShort", number.to_string()),
        Value::Int(number) => ("int", number.to_string()),
        Value::UInt(number) => ("unsignedInt", number.to_string()),
        Value::Long(number) => ("long", number.to_string()),
        Value::ULong(number) => ("unsignedLong", number.to_string()),
        Value::Float(number) => ("float", number.to_string()),
        Value::Double(number) => ("double", number.to_string()),
        Value::Timestamp(at) => ("dateTime", time(*at)),
        Value::Uuid(id) => ("string", id.to_string()),
        // None of these equals anything in a filter, or can be put into one over this API.
        Value::Null | Value::Binary(_) | Value::Encoded(_) => ("string", String::new()),
    }
}

/// To a tenth of a microsecond, which is as fine as .NET has it.
pub(crate) fn time(at: Timestamp) -> String {
    format!("{at:.7}")
}
