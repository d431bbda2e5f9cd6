//! Rules over the management API: as they were written, and at work.

use crate::{atom::entry, namespace::Namespace};

const RULES: &str = "orders/subscriptions/all/rules";

fn rule(filter: &str, action: &str) -> String {
    entry("RuleDescription", &format!("{filter}{action}"))
}

fn sql(expression: &str) -> String {
    format!(r#"<Filter i:type="SqlFilter"><SqlExpression>{expression}</SqlExpression></Filter>"#)
}

#[tokio::test]
async fn a_sql_rule_is_shown_as_it_was_written_and_applied() {
    let namespace = Namespace::start().await;
    assert_eq!(namespace.get(RULES).await.titles(), ["$Default"]);
    assert_eq!(
        namespace.delete(&format!("{RULES}/$default")).await.status,
        200
    );
    let action = r#"<Action i:type="SqlRuleAction"><SqlExpression>SET  seen = 'yes';</SqlExpression></Action>"#;
    let path = format!("{RULES}/Large");
    let created = namespace
        .put(
            &path,
            rule(&sql("size &gt; 3   AND colour = 'red'"), action),
        )
        .await;
    assert_eq!(created.status, 201, "{}", created.text);
    for answer in [created, namespace.get(&path.to_lowercase()).await] {
        assert_eq!(
            answer.id_and_title(),
            (
                format!("{}/orders/Subscriptions/all/Rules/Large", namespace.url),
                "Large".to_owned()
            )
        );
        assert_eq!(answer.kind("Filter"), "SqlFilter");
        assert_eq!(answer.kind("Action"), "SqlRuleAction");
        answer.has(&[
            ("Filter/SqlExpression", "size > 3   AND colour = 'red'"),
            ("Action/SqlExpression", "SET  seen = 'yes';"),
            ("Name", "Large"),
        ]);
        assert!(answer.get("CreatedAt").unwrap().starts_with("20"));
    }
    for size in ["2", "4"] {
        let request = namespace.post("orders/messages").body(size);
        let request = request.header("size", size).header("colour", "\"red\"");
        assert_eq!(request.send().await.unwrap().status(), 201);
    }
    let taken = namespace.take("orders/subscriptions/all").await;
    assert_eq!(crate::namespace::header(&taken, "seen"), Some("\"yes\""));
    assert_eq!(taken.text().await.unwrap(), "4");
    assert!(namespace.is_empty("orders/subscriptions/all").await);
}

#[tokio::test]
async fn true_and_false_filters_have_their_sql() {
    let namespace = Namespace::start().await;
    for (kind, expression) in [("TrueFilter", "1=1"), ("FalseFilter", "1=0")] {
        let filter = format!(
            r#"<Filter i:type="{kind}"><SqlExpression>{expression}</SqlExpression></Filter>"#
        );
        let path = format!("{RULES}/{kind}");
        let body = rule(&filter, r#"<Action i:type="EmptyRuleAction" />"#);
        let created = namespace.put(&path, body).await;
        assert_eq!(created.kind("Filter"), kind);
        assert_eq!(created.kind("Action"), "EmptyRuleAction");
        created.has(&[("Filter/SqlExpression", expression)]);
    }
    // Without a filter it takes everything.
    let created = namespace.put(&format!("{RULES}/none"), rule("", "")).await;
    assert_eq!(created.kind("Filter"), "TrueFilter");
}

#[tokio::test]
async fn a_correlation_filter_keeps_its_properties_and_their_types() {
    let namespace = Namespace::start().await;
    let properties = [
        ("text", "string", "a b "),
        ("whole", "int", "-5"),
        ("long", "long", "5000000000"),
        ("broken", "double", "1.5"),
        ("flag", "boolean", "true"),
        ("when", "dateTime", "2026-01-02T03:04:05.0000000Z"),
        ("small", "unsignedByte", "255"),
    ];
    let pairs: String = properties
        .iter()
        .map(|(name, kind, value)| {
            format!(
                r#"<KeyValueOfstringanyType><Key>{name}</Key><Value i:type="l28:{kind}" xmlns:l28="http://www.w3.org/2001/XMLSchema">{value}</Value></KeyValueOfstringanyType>"#
            )
        })
        .collect();
    let filter = format!(
        r#"<Filter i:type="CorrelationFilter"><CorrelationId>c</CorrelationId><MessageId>m</MessageId><To>t</To>
           <ReplyTo>r</ReplyTo><Label>l</Label><SessionId>s</SessionId><ReplyToSessionId>rs</ReplyToSessionId>
           <ContentType>ct</ContentType><Properties>{pairs}</Properties></Filter>"#
    );
    let path = format!("{RULES}/all-of-it");
    assert_eq!(namespace.put(&path, rule(&filter, "")).await.status, 201);
    let got = namespace.get(&path).await;
    assert_eq!(got.kind("Filter"), "CorrelationFilter");
    got.has(&[
        ("Filter/CorrelationId", "c"),
        ("Filter/MessageId", "m"),
        ("Filter/To", "t"),
        ("Filter/ReplyTo", "r"),
        ("Filter/Label", "l"),
        ("Filter/SessionId", "s"),
        ("Filter/ReplyToSessionId", "rs"),
        ("Filter/ContentType", "ct"),
    ]);
    for (name, kind, value) in properties {
        // The prefixes are what JavaScript's client looks for.
        let written = format!(
            r#"<KeyValueOfstringanyType><Key>{name}</Key><Value xmlns:d6p1="http://www.w3.org/2001/XMLSchema" i:type="d6p1:{kind}">{value}</Value></KeyValueOfstringanyType>"#
        );
        assert!(got.text.contains(&written), "{written} in {}", got.text);
    }
}

#[tokio::test]
async fn a_rule_is_replaced_and_deleted() {
    let namespace = Namespace::start().await;
    let path = "orders/subscriptions/red/rules/RED";
    let updated = namespace
        .replace(path, rule(&sql("colour = 'blue'"), ""))
        .await;
    assert_eq!(updated.status, 200, "{}", updated.text);
    updated.has(&[("Filter/SqlExpression", "colour = 'blue'"), ("Name", "red")]);
    assert_eq!(updated.kind("Action"), "EmptyRuleAction");
    for colour in ["\"red\"", "\"blue\""] {
        let request = namespace.post("orders/messages").header("colour", colour);
        let sent = request.body(colour.to_owned()).send().await.unwrap();
        assert_eq!(sent.status(), 201);
    }
    let taken = namespace.take("orders/subscriptions/red").await;
    assert_eq!(taken.text().await.unwrap(), "\"blue\"");
    assert_eq!(namespace.delete(path).await.status, 200);
    let rules = namespace.get("orders/subscriptions/red/rules").await;
    assert!(rules.titles().is_empty());
    let request = namespace
        .post("orders/messages")
        .header("colour", "\"blue\"");
    assert_eq!(request.send().await.unwrap().status(), 201);
    assert!(namespace.is_empty("orders/subscriptions/red").await);
}

#[tokio::test]
async fn rules_are_listed_in_pages_in_the_order_in_which_they_were_added() {
    let namespace = Namespace::start().await;
    for name in ["c", "a", "b"] {
        let created = namespace
            .put(&format!("{RULES}/{name}"), rule(&sql("1=1"), ""))
            .await;
        assert_eq!(created.status, 201);
    }
    let first = namespace.get(&format!("{RULES}?$top=3")).await;
    assert_eq!(first.titles(), ["$Default", "c", "a"]);
    let next = first.next().unwrap();
    let next = next.strip_prefix(&format!("{}/", namespace.url)).unwrap();
    let second = namespace.get(next).await;
    assert_eq!(second.titles(), ["b"]);
    assert_eq!(second.next(), None);
}

#[tokio::test]
async fn a_subscription_is_created_with_the_rule_that_comes_with_it() {
    let namespace = Namespace::start().await;
    let default_rule = format!(
        "<DefaultRuleDescription>{}<Name>mine</Name></DefaultRuleDescription>",
        sql("colour = 'red'")
    );
    let path = "orders/subscriptions/made";
    namespace.create_subscription(path, &default_rule).await;
    let rules = namespace.get(&format!("{path}/rules")).await;
    assert_eq!(rules.titles(), ["mine"]);
    assert!(
        rules
            .text
            .contains("<SqlExpression>colour = 'red'</SqlExpression>")
    );
    let path = "orders/subscriptions/other";
    namespace.create_subscription(path, "").await;
    let rules = namespace.get(&format!("{path}/rules")).await;
    assert_eq!(rules.titles(), ["$Default"]);
    assert!(rules.text.contains(r#"<Filter i:type="TrueFilter">"#));
}
