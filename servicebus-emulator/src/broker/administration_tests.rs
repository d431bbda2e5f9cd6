//! What creating and deleting entities means for the others, and how many there may be.

use super::tests::{Bus, seconds};
use crate::{
    Error, Topology,
    attributes::Status,
    description::Description,
    rule::Rule,
    sample::{at, forwarding, message, path, queue, queues, subscription, topic},
    topology::{Queue, Subscription},
};

fn rule(name: &str) -> Rule {
    Rule {
        name: name.to_owned(),
        ..Rule::default_rule()
    }
}

fn full(entity: &str) -> Error {
    Error::QuotaExceeded(entity.to_owned())
}

#[test]
fn there_are_as_many_queues_and_topics_as_azure_has_and_no_more() {
    let all: Vec<Queue> = (0..9_999)
        .map(|number| queue(&format!("q{number}")))
        .collect();
    let mut bus = Bus::new(&queues(all));
    let create = |bus: &mut Bus, description| bus.broker.create(bus.now, description).map(drop);
    let news = || Description::Topic(topic("news", Vec::new()));
    assert_eq!(create(&mut bus, news()), Ok(()));
    let one_more = Description::Queue(queue("more"));
    assert_eq!(
        create(&mut bus, one_more.clone()),
        Err(full("sbemulatorns"))
    );
    bus.broker.delete(bus.now, &path("q7")).unwrap();
    assert_eq!(create(&mut bus, one_more), Ok(()));
    assert_eq!(
        create(&mut bus, news()),
        Err(Error::EntityExists("news".to_owned()))
    );
}

#[test]
fn there_are_as_many_subscriptions_and_rules_as_azure_has_and_no_more() {
    let all = (0..1_999).map(|number| subscription(queue(&format!("s{number}"))));
    let mut bus = Bus::new(&Topology {
        queues: Vec::new(),
        topics: vec![topic("news", all.collect())],
    });
    let described = |name: &str, rules: Vec<Rule>| Description::Subscription {
        topic: "NEWS".to_owned(),
        subscription: Subscription {
            queue: queue(name),
            rules,
        },
    };
    let rules = (0..1_999).map(|number| rule(&format!("r{number}")));
    let made = described("made", rules.collect());
    bus.broker.create(bus.now, made).unwrap();
    let one_more = bus.broker.create(bus.now, described("more", Vec::new()));
    assert_eq!(one_more.map(drop), Err(full("news")));

    let made = path("news/subscriptions/made");
    let mut add = |name: &str| bus.broker.add_rule(bus.now, &made, rule(name)).map(drop);
    assert_eq!(add("last"), Ok(()));
    assert_eq!(add("more"), Err(full("news/Subscriptions/made")));
    assert!(matches!(add("R7"), Err(Error::EntityExists(_))));
    assert!(matches!(add("a/b"), Err(Error::NotSupported(_))));
}

#[test]
fn what_cannot_be_forwarded_is_a_dead_letter_and_later_messages_go_their_way_again() {
    let mut bus = Bus::new(&queues([forwarding("from", "to"), queue("to")]));
    bus.broker.delete(bus.now, &path("to")).unwrap();
    bus.send("from", message("gone"));
    let mut disabled = queue("to");
    disabled.attributes.status = Status::SendDisabled;
    bus.broker
        .create(bus.now, Description::Queue(disabled))
        .unwrap();
    bus.send("from", message("disabled"));
    bus.broker
        .update(bus.now, Description::Queue(queue("to")))
        .unwrap();
    bus.send("from", message("arrives"));
    let dead = |id: &str, reason: &str| (id.to_owned(), reason.to_owned());
    assert_eq!(
        bus.dead("from"),
        [
            dead("gone", "MessagingEntityNotFoundException"),
            dead("disabled", "MessagingEntityDisabledException")
        ]
    );
    assert_eq!(bus.active("to"), ["arrives"]);
}

#[test]
fn what_is_due_in_an_entity_that_is_gone_is_not_carried_out() {
    let mut bus = Bus::with_queue(queue("q"));
    let mut expires = message("expires");
    expires.time_to_live = seconds(5);
    bus.send("q", expires);
    let mut scheduled = message("scheduled");
    scheduled.scheduled_enqueue_time = Some(at(7));
    bus.send("q", scheduled);
    bus.send("q", message("locked"));
    bus.locked("q");
    bus.broker.delete(bus.now, &path("q")).unwrap();
    assert_eq!(bus.broker.next_due(), None);
    bus.broker
        .create(bus.now, Description::Queue(queue("q")))
        .unwrap();
    bus.wait(3_600);
    assert_eq!(bus.active("q"), Vec::<String>::new());
    assert_eq!(bus.dead("q"), []);
}

#[test]
fn slots_of_entities_that_came_and_went_are_given_back_after_the_commit() {
    let mut bus = Bus::with_queue(queue("q"));
    for _ in 0..3 {
        let made = Description::Queue(queue("made"));
        bus.broker.create(bus.now, made).unwrap();
        bus.send("made", message("1"));
        bus.broker.committed();
        assert_eq!(bus.broker.entities.len(), 4);
        bus.broker.delete(bus.now, &path("made")).unwrap();
        bus.broker.committed();
        assert_eq!(bus.broker.entities.len(), 2);
    }
}

#[test]
fn slots_between_entities_are_used_again_after_the_commit() {
    let mut bus = Bus::with_queue(queue("q"));
    let described = |name: &str| Description::Queue(queue(name));
    for round in 0..10 {
        let (new, old) = (format!("q{round}"), format!("q{}", round - 1));
        bus.broker.create(bus.now, described(&new)).unwrap();
        bus.send(&new, message(&new));
        if round > 0 {
            bus.broker.delete(bus.now, &path(&old)).unwrap();
            // Not yet: should the commit fail, it would be there again.
            bus.broker.create(bus.now, described("other")).unwrap();
            bus.broker.delete(bus.now, &path("other")).unwrap();
        }
        bus.broker.committed();
        assert!(bus.broker.entities.len() <= 8, "{round}");
        assert_eq!(bus.active(&new), std::slice::from_ref(&new));
    }
}

#[test]
fn the_slot_of_an_entity_that_could_not_be_stored_is_kept_until_nobody_waits_at_it() {
    let mut bus = Bus::with_queue(queue("q"));
    let made = Description::Queue(queue("made"));
    bus.broker.create(bus.now, made).unwrap();
    let at = bus.broker.named("made").unwrap();
    bus.broker.roll_back();
    // What the failed commit may have left behind is cleared; only after that are those sent away who wait.
    bus.broker.committed();
    assert_eq!(
        bus.broker.turns_away(at),
        Some(Error::EntityNotFound("made".to_owned()))
    );
    let other = Description::Queue(queue("other"));
    bus.broker.create(bus.now, other).unwrap();
    assert_ne!(bus.broker.named("other"), Some(at));
    bus.broker.delete(bus.now, &path("other")).unwrap();
    bus.broker.committed();
    assert_eq!(bus.broker.entities.len(), 2);
}

#[test]
fn an_entity_says_when_it_was_last_used() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.broker.resume(bus.now);
    let times = |bus: &Bus| {
        let listed = bus.broker.describe(&path("q")).unwrap().listed;
        (listed.created_at, listed.updated_at, listed.accessed_at)
    };
    assert_eq!(times(&bus), (at(0), at(0), at(0)));
    bus.wait(5);
    bus.send("q", message("1"));
    assert_eq!(times(&bus), (at(0), at(0), at(5)));
    bus.wait(5);
    bus.broker
        .update(bus.now, Description::Queue(queue("q")))
        .unwrap();
    assert_eq!(times(&bus), (at(0), at(10), at(5)));
    bus.wait(5);
    bus.lock("q");
    assert_eq!(times(&bus), (at(0), at(10), at(15)));
}
