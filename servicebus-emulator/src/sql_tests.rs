//! Tables of filters and actions with what they must give.

use crate::{
    Message, Value,
    sql::{parse_action, parse_filter},
};

fn order() -> Message {
    Message {
        label: Some("order.placed".to_owned()),
        message_id: Some("42:placed".to_owned()),
        properties: [
            ("colour", Value::String("red".to_owned())),
            ("first-seen", Value::String("today".to_owned())),
            ("Quantity", Value::Long(7)),
            ("price", Value::Double(2.5)),
            ("urgent", Value::Bool(true)),
            (
                "paid",
                Value::Timestamp("2026-11-22T10:00:00Z".parse().unwrap()),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        ..Message::default()
    }
}

#[track_caller]
fn filter(sql: &str) -> Option<bool> {
    parse_filter(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
        .evaluate(&order())
}

#[test]
fn a_filter_is_true_false_or_unknown() {
    let (yes, no, unknown) = (Some(true), Some(false), None);
    for (sql, expected) in [
        ("1 = 1", yes),
        ("1 = 1.0", yes),
        ("1=0", no),
        ("colour = 'red'", yes),
        ("COLOUR = 'red'", yes),
        ("colour = 'Red'", no),
        ("user.colour <> 'blue'", yes),
        ("colour != 'red'", no),
        ("colour > 'blue'", yes),
        ("[first-seen] = 'today'", yes),
        ("\"first-seen\" = 'today'", yes),
        ("sys.Label = 'order.placed'", yes),
        ("sys.label LIKE 'order.%'", yes),
        ("quantity >= 7 AND quantity <= 7", yes),
        ("quantity < 7.5", yes),
        ("quantity = '7'", unknown),
        ("urgent = TRUE", yes),
        ("urgent <> true", no),
        ("urgent > false", unknown),
        ("urgent = 1", unknown),
        ("paid = paid", yes),
        ("paid > '2026'", unknown),
        ("missing = 'x'", unknown),
        ("missing <> 'x'", unknown),
        ("NOT missing = 'x'", unknown),
        ("missing = missing", unknown),
        ("missing = NULL", unknown),
        ("missing IS NULL", yes),
        ("missing IS NOT NULL", no),
        ("colour IS NOT NULL", yes),
        ("sys.SessionId IS NULL", yes),
        ("EXISTS(colour)", yes),
        ("EXISTS ( [first-seen] )", yes),
        ("NOT EXISTS(missing)", yes),
        ("NOT EXISTS(colour) OR colour = 'red'", yes),
        ("not (exists(colour))", no),
        ("colour IN ('blue', 'red')", yes),
        ("colour IN (1, missing)", no),
        ("colour NOT IN ('blue')", yes),
        ("missing IN ('blue')", unknown),
        ("missing NOT IN ('blue')", unknown),
        ("quantity % 2 = 1", yes),
        ("quantity / 2 = 3", yes),
        ("quantity / 2.0 = 3.5", yes),
        ("quantity / 0 = 1", unknown),
        ("quantity / 0.0 = 1", unknown),
        ("9223372036854775807 + quantity > 0", unknown),
        ("2 + 3 * 4 = 14", yes),
        ("(2 + 3) * 4 = 20", yes),
        ("-quantity = - 7", yes),
        ("+price = 2.5", yes),
        ("-colour = 1", unknown),
        ("colour + 'dish' = 'reddish'", yes),
        ("colour + 1 = 'red1'", unknown),
        ("1.5E1 = 15", yes),
        ("property('colour') = 'red'", yes),
        ("p('col' + 'our') = 'red'", yes),
        ("p(1) = 'red'", unknown),
        ("newid() = newid()", no),
        ("colour = 'it''s'", no),
    ] {
        assert_eq!(filter(sql), expected, "{sql}");
    }
}

#[test]
fn and_and_or_follow_the_three_valued_tables() {
    let values = [
        ("1=1", Some(true)),
        ("1=0", Some(false)),
        ("missing=1", None),
    ];
    let and = [
        [Some(true), Some(false), None],
        [Some(false), Some(false), Some(false)],
        [None, Some(false), None],
    ];
    let or = [
        [Some(true), Some(true), Some(true)],
        [Some(true), Some(false), None],
        [Some(true), None, None],
    ];
    for (row, (left, value)) in values.iter().enumerate() {
        assert_eq!(filter(&format!("NOT {left}")), value.map(|value| !value));
        for (column, (right, _)) in values.iter().enumerate() {
            assert_eq!(filter(&format!("{left} AND {right}")), and[row][column]);
            assert_eq!(filter(&format!("{left} OR {right}")), or[row][column]);
        }
    }
}

#[test]
fn like_knows_wildcards_and_the_escape_character() {
    for (sql, expected) in [
        ("'ABC%' LIKE 'ABC\\%' ESCAPE '\\'", Some(true)),
        ("'ABCD' LIKE 'ABC\\%' ESCAPE '\\'", Some(false)),
        ("'ABCD' LIKE 'ABC%'", Some(true)),
        ("'ABC' LIKE 'A_C'", Some(true)),
        ("'AC' LIKE 'A_C'", Some(false)),
        ("'abc' LIKE 'ABC'", Some(false)),
        ("'' LIKE '%'", Some(true)),
        ("'' LIKE '_'", Some(false)),
        ("'aXbXc' LIKE '%X%X%'", Some(true)),
        ("'aaab' LIKE '%ab'", Some(true)),
        ("'aaab' LIKE '%aab%b'", Some(false)),
        ("'é' LIKE '_'", Some(true)),
        ("'x' NOT LIKE 'y%'", Some(true)),
        ("missing LIKE '%'", None),
        ("missing NOT LIKE '%'", None),
        ("'x' LIKE missing", None),
        ("quantity LIKE '7'", None),
        ("'x%' LIKE 'x|%' ESCAPE colour", None),
        ("'x' LIKE 'x|' ESCAPE '|'", Some(false)),
    ] {
        assert_eq!(filter(sql), expected, "{sql}");
    }
}

#[test]
fn what_service_bus_does_not_know_is_refused_with_the_reason() {
    for (sql, part_of_reason) in [
        ("", "expression"),
        ("colour", "compare it"),
        ("TRUE", "compare it"),
        ("1 = 1 extra", "unexpected `extra`"),
        ("a BETWEEN 1 AND 2", "not a condition"),
        ("a == 1", "`==`"),
        ("a = 1 -- or not", "comments"),
        ("a = @value", "parameters"),
        ("a ILIKE 'x'", "not a condition"),
        ("a IN (SELECT 1)", "not a condition"),
        ("EXISTS(SELECT 1)", "Expected"),
        ("a = CASE WHEN 1=1 THEN 1 ELSE 2 END", "unexpected"),
        ("upper(a) = 'X'", "newid() and property(name)"),
        ("a || 'x' = 'y'", "not a value"),
        ("a = CAST(1 AS INT)", "newid() and property(name)"),
        ("a = N'x'", "not a Service Bus constant"),
        ("a = 0x1F", "not a Service Bus constant"),
        ("a = 9223372036854775808", "64-bit"),
        ("a = b = c", "not a value"),
        ("a = (b AND c)", "not a value"),
        ("(a = 1) IS NULL", "only a property"),
        ("a IS TRUE", "not a condition"),
        ("sys.Colour = 'x'", "not a system property"),
        ("other.colour = 'x'", "scope `other`"),
        ("user.a.b = 'x'", "too many parts"),
        ("like = 'x'", "[like]"),
        ("a LIKE 'x' ESCAPE 'ab'", "one character"),
        ("a = 'open", "Unterminated"),
        ("_a = 1", "Expected"),
        ("a = 1; b = 2", "unexpected `;`"),
        ("a = 1::int", "not a value"),
    ] {
        let error = parse_filter(sql).expect_err(sql).to_string();
        assert!(error.contains(part_of_reason), "{sql}: {error}");
    }
}

#[test]
fn nesting_beyond_reason_is_refused_and_not_a_crash() {
    for (open, close) in [("(", ")"), ("NOT ", ""), ("-", "")] {
        let sql = format!("{}1=1{}", open.repeat(200), close.repeat(200));
        assert!(parse_filter(&sql).is_err(), "{sql}");
    }
}

#[test]
fn a_filter_or_an_action_has_the_documented_length_at_most() {
    let chain = |terms| vec!["a=1"; terms].join(" OR ");
    assert!(parse_filter(&chain(146)).is_ok());
    let error = parse_filter(&chain(147)).unwrap_err().to_string();
    assert_eq!(error, "it is longer than 1024 characters");
    let statements = |count| vec!["REMOVE a"; count].join(";");
    assert!(parse_action(&statements(32)).is_ok());
    let error = parse_action(&statements(33)).unwrap_err().to_string();
    assert_eq!(error, "an action has at most 32 statements");
}

#[track_caller]
fn after(action: &str) -> Message {
    let mut message = order();
    parse_action(action)
        .unwrap_or_else(|error| panic!("{action}: {error}"))
        .apply(&mut message);
    message
}

#[test]
fn an_action_sets_and_removes_in_order() {
    let message = after(
        "SET audience = 'vendors'; SET COLOUR = colour + 'dish', REMOVE [first-seen]; SET total = quantity * 2;",
    );
    let property = |name: &str| message.properties.get(name).cloned();
    assert_eq!(
        property("audience"),
        Some(Value::String("vendors".to_owned()))
    );
    assert_eq!(
        property("colour"),
        Some(Value::String("reddish".to_owned()))
    );
    assert_eq!(property("first-seen"), None);
    assert_eq!(property("total"), Some(Value::Long(14)));
    assert_eq!(message.properties.len(), order().properties.len() + 1);
}

#[test]
fn an_action_sets_system_properties_as_text_and_keeps_the_type_of_a_double() {
    let message = after("SET sys.To = 'x'");
    assert_eq!(message.to.as_deref(), Some("x"));
    assert_eq!(
        after("SET sys.CorrelationId = quantity")
            .correlation_id
            .as_deref(),
        Some("7")
    );
    assert_eq!(after("REMOVE sys.Label").label, None);
    assert_eq!(
        after("SET price = 3").properties["price"],
        Value::Double(3.0)
    );
    assert!(
        !after("SET colour = missing")
            .properties
            .contains_key("colour")
    );
    assert_ne!(
        after("SET sys.MessageId = newid()").message_id,
        order().message_id
    );
}

#[test]
fn what_is_no_action_is_refused_with_the_reason() {
    for (sql, part_of_reason) in [
        ("", "found nothing"),
        ("UPDATE x SET a = 1", "found `UPDATE`"),
        ("SET a == 1", "`==`"),
        ("SET a = 1 SET b = 2", "unexpected `SET`"),
        ("SET a > 1", "="),
        ("SET sys.Colour = 1", "not a system property"),
        ("SET sys.ScheduledEnqueueTimeUtc = 1", "cannot be set"),
        ("SET a = b = 1", "not a value"),
        ("SET a = EXISTS(b)", "not a value"),
        ("REMOVE 'a'", "name of a property"),
        ("REMOVE a b", "unexpected `b`"),
    ] {
        let error = parse_action(sql).expect_err(sql).to_string();
        assert!(error.contains(part_of_reason), "{sql}: {error}");
    }
}
