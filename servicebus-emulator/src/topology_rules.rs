//! The rules in a topology file.
//!
//! Their filters and actions are parsed here, while the file is read, so that nothing is left to go wrong when a
//! message comes. A mistake is named with its place, as in `Topics[0].Subscriptions[1].Rules[0].Properties: …`.

use serde_json::Value as Json;

use crate::{
    Value,
    config_json::Object,
    rule::{CorrelationFilter, Filter, Rule},
    sql::parse_action,
    topology::{Names, short_name},
};

/// The rules of a subscription; without any it has the one that takes everything.
pub(crate) fn rules(subscription: &Object<'_>) -> Result<Vec<Rule>, String> {
    let mut names = Names::default();
    let mut rules = Vec::new();
    for object in subscription.objects("Rules")? {
        let rule = rule(&object)?;
        names.add(&object, &rule.name)?;
        rules.push(rule);
    }
    if rules.is_empty() {
        rules.push(Rule::default_rule());
    }
    Ok(rules)
}

fn rule(object: &Object<'_>) -> Result<Rule, String> {
    object.only(&["Name", "Properties"])?;
    let name = short_name(object)?;
    let properties = object.object("Properties")?;
    properties.only(&["FilterType", "SqlFilter", "CorrelationFilter", "Action"])?;
    let wants = |filter: &str, wanted: bool| match (properties.has(filter), wanted) {
        (true, false) => Err(properties.error(format_args!(
            "`{filter}` does not belong to this `FilterType`"
        ))),
        (false, true) => Err(properties.error(format_args!("`{filter}` is missing"))),
        _ => Ok(()),
    };
    let filter_type = properties.required_text("FilterType")?;
    wants("SqlFilter", filter_type == "Sql")?;
    wants("CorrelationFilter", filter_type == "Correlation")?;
    let filter = match filter_type {
        "Sql" => {
            let filter = properties.object("SqlFilter")?;
            let sql = sql_expression(&filter)?
                .ok_or_else(|| filter.error("`SqlExpression` is missing"))?;
            Filter::sql(sql).map_err(|error| filter.error_in("SqlExpression", error))?
        }
        "Correlation" => Filter::Correlation(correlation_filter(
            &properties.object("CorrelationFilter")?,
        )?),
        "True" => Filter::True,
        "False" => Filter::False,
        other => {
            return Err(properties.error_in(
                "FilterType",
                format_args!("`{other}` is none of Sql, Correlation, True and False"),
            ));
        }
    };
    let action = properties.object("Action")?;
    let action = sql_expression(&action)?
        .map(|sql| parse_action(sql).map_err(|error| action.error_in("SqlExpression", error)))
        .transpose()?;
    Ok(Rule::new(name, filter, action))
}

/// The text of a SQL filter or action. The other properties are those of Azure Resource Manager's, without effect.
fn sql_expression<'a>(object: &Object<'a>) -> Result<Option<&'a str>, String> {
    object.only(&[
        "SqlExpression",
        "CompatibilityLevel",
        "RequiresPreprocessing",
    ])?;
    Ok(object.text("SqlExpression")?.filter(|sql| !sql.is_empty()))
}

fn correlation_filter(object: &Object<'_>) -> Result<CorrelationFilter, String> {
    object.only(&[
        "ContentType",
        "CorrelationId",
        "Label",
        "MessageId",
        "ReplyTo",
        "ReplyToSessionId",
        "SessionId",
        "To",
        "Properties",
    ])?;
    let text = |name| Ok::<_, String>(object.text(name)?.map(str::to_owned));
    let custom = object.object("Properties")?;
    let filter = CorrelationFilter {
        content_type: text("ContentType")?,
        correlation_id: text("CorrelationId")?,
        label: text("Label")?,
        message_id: text("MessageId")?,
        reply_to: text("ReplyTo")?,
        reply_to_session_id: text("ReplyToSessionId")?,
        session_id: text("SessionId")?,
        to: text("To")?,
        properties: custom
            .members()
            .map(|(name, value)| {
                let value = match value {
                    Json::String(text) => Value::String(text.clone()),
                    Json::Bool(value) => Value::Bool(*value),
                    Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                        // The smaller type where it fits: over the management API JavaScript's client reads no other.
                        (Some(number), _) => match i32::try_from(number) {
                            Ok(number) => Value::Int(number),
                            Err(_) => Value::Long(number),
                        },
                        (None, Some(number)) => Value::Double(number),
                        (None, None) => return Err(custom.error_in(name, "not a number")),
                    },
                    Json::Null | Json::Array(_) | Json::Object(_) => {
                        return Err(
                            custom.error_in(name, "expected a string, a number or true or false")
                        );
                    }
                };
                Ok((name.clone(), value))
            })
            .collect::<Result<_, _>>()?,
    };
    if filter == CorrelationFilter::default() {
        return Err(object.error("a correlation filter needs at least one property"));
    }
    Ok(filter)
}
