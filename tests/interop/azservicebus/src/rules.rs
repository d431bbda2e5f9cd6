//! Step: rules through `$management`.

use azservicebus::administration::{
    CorrelationRuleFilter, FalseRuleFilter, RuleAction, RuleFilter, SqlRuleAction, SqlRuleFilter,
    TrueRuleFilter,
};
use fe2o3_amqp_types::primitives::{OrderedMap, SimpleValue, Value};

use crate::{
    messages::{property, string, text, with_properties},
    stage::{Stage, assert_empty, receiver, send, sender, take_one, until_empty},
};

pub async fn rules(stage: Stage) {
    let mut client = stage.client().await;
    let mut manager = client.create_rule_manager("ruled", "rules").await.unwrap();
    let first = manager.get_rules().await.unwrap();
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].name, "$Default");
    assert!(matches!(first[0].filters, RuleFilter::True(_)));
    manager.delete_rule("$Default").await.unwrap();
    let mut topic = sender(&mut client, "ruled").await;
    let mut subscription = receiver(&mut client, "ruled/rules").await;
    send(&mut topic, "no rule takes it").await;
    assert_empty(&mut subscription).await;

    let filter = SqlRuleFilter::new("colour = 'green' AND quantity >= 2");
    let action = SqlRuleAction::new("SET shade = 'dark'");
    manager
        .create_rule("green", (filter.clone(), action.clone()))
        .await
        .unwrap();
    let mut wanted = OrderedMap::new();
    wanted.insert("colour".to_owned(), Value::from("red"));
    let correlation = CorrelationRuleFilter::builder()
        .subject("paint")
        .properties(wanted)
        .build();
    manager
        .create_rule("red", correlation.clone())
        .await
        .unwrap();
    manager
        .create_rule("never", FalseRuleFilter::new())
        .await
        .unwrap();
    let again = manager
        .create_rule("red", TrueRuleFilter::new())
        .await
        .unwrap_err();
    assert!(format!("{again:?}").contains("409"), "{again:?}");
    let wrong = SqlRuleFilter::new("colour = = 'green'");
    manager.create_rule("wrong", wrong).await.unwrap_err();
    let missing = manager.delete_rule("no-such-rule").await.unwrap_err();
    assert!(format!("{missing:?}").contains("404"), "{missing:?}");

    let mut listed = manager.get_rules().await.unwrap();
    listed.sort_by(|one, other| one.name.cmp(&other.name));
    let names: Vec<&str> = listed.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["green", "never", "red"]);
    let RuleFilter::Sql(sql) = &listed[0].filters else {
        panic!("{:?}", listed[0]);
    };
    assert_eq!(sql.expression, filter.expression);
    let RuleAction::Sql(sql) = &listed[0].actions else {
        panic!("{:?}", listed[0]);
    };
    assert_eq!(sql.expression, action.expression);
    assert!(listed[0].created_at.is_some());
    // The crate puts it into SQL.
    let RuleFilter::Sql(never) = &listed[1].filters else {
        panic!("{:?}", listed[1]);
    };
    assert_eq!(never.expression, "1=0");
    let RuleFilter::Correlation(red) = &listed[2].filters else {
        panic!("{:?}", listed[2]);
    };
    assert_eq!(red, &correlation);
    assert!(matches!(listed[2].actions, RuleAction::Empty(_)));

    let paint = |body: &str, colour: &str, quantity: i32| {
        let colour = ("colour", SimpleValue::from(colour));
        let mut message = with_properties(body, [colour, ("quantity", quantity.into())]);
        message.set_subject("paint".to_owned());
        message
    };
    send(&mut topic, paint("too little", "green", 1)).await;
    send(&mut topic, paint("green", "green", 2)).await;
    let green = take_one(&mut subscription).await;
    assert_eq!(
        (text(&green), property(&green, "shade")),
        ("green", string("dark"))
    );
    send(&mut topic, paint("red", "red", 1)).await;
    let red = take_one(&mut subscription).await;
    assert_eq!((text(&red), property(&red, "shade")), ("red", None));
    for one in [&green, &red] {
        subscription.complete_message(one).await.unwrap();
    }
    until_empty(&mut subscription).await;
}
