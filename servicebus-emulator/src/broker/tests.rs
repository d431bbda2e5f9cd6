//! One test for each thing that Service Bus promises, with the time in the test's hands.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::{Broker, random::Disk};
use crate::{
    EntityPath, Error, Limits, Message, MessageState, ReceiveMode, ReceivedMessage, Topology,
    Value,
    rule::Rule,
    sample::{at, counted_ids, forwarding, message, path, queue, queues, subscription, topic},
    topology::{Queue, Subscription},
};

const LIMITS: Limits = Limits {
    entity_quota: 1 << 20,
    max_message_size: 262_144,
};

fn rule(filter: &str, action: Option<&str>) -> Rule {
    Rule::sql(filter, filter, action).expect("valid SQL")
}

pub(super) struct Bus {
    pub(super) broker: Broker,
    pub(super) now: Timestamp,
}

impl Bus {
    pub(super) fn new(topology: &Topology) -> Self {
        Self {
            broker: Broker::new(topology, LIMITS, counted_ids()).expect("a valid topology"),
            now: at(0),
        }
    }

    pub(super) fn with_queue(queue: Queue) -> Self {
        Self::new(&queues([queue]))
    }

    pub(super) fn wait(&mut self, seconds: i64) {
        self.now += Duration::from_secs(seconds.unsigned_abs());
    }

    pub(super) fn send(&mut self, to: &str, message: Message) {
        self.broker
            .send(self.now, &path(to), vec![message])
            .expect("the message is accepted");
    }

    pub(super) fn refused(&mut self, to: &str, message: Message) -> Error {
        self.broker
            .send(self.now, &path(to), vec![message])
            .expect_err("the message is refused")
    }

    pub(super) fn lock(&mut self, from: &str) -> Option<ReceivedMessage> {
        self.broker
            .receive(self.now, &path(from), ReceiveMode::PeekLock)
            .expect("the entity can be received from")
    }

    pub(super) fn locked(&mut self, from: &str) -> ReceivedMessage {
        self.lock(from).expect("a message is there")
    }

    pub(super) fn token(&mut self, from: &str) -> Uuid {
        self.locked(from).lock_token.expect("a locked message")
    }

    pub(super) fn abandon(&mut self, from: &str, token: Uuid) -> Result<(), Error> {
        self.broker.abandon(self.now, &path(from), token)
    }

    pub(super) fn complete(&mut self, from: &str, token: Uuid) -> Result<(), Error> {
        self.broker.complete(self.now, &path(from), token)
    }

    pub(super) fn dead_letter(&mut self, from: &str) {
        let token = self.token(from);
        self.broker
            .dead_letter(self.now, &path(from), token, "why", "in detail")
            .expect("the lock is held");
    }

    pub(super) fn ids(&mut self, entity: &str, state: MessageState) -> Vec<String> {
        self.broker.advance(self.now);
        self.broker
            .browse(&path(entity), state)
            .expect("the entity exists")
            .into_iter()
            .filter_map(|message| message.message.message_id)
            .collect()
    }

    pub(super) fn active(&mut self, entity: &str) -> Vec<String> {
        self.ids(entity, MessageState::Active)
    }

    /// The messages of the dead-letter queue with their reasons.
    pub(super) fn dead(&mut self, entity: &str) -> Vec<(String, String)> {
        self.broker.advance(self.now);
        let entity: EntityPath = path(entity).dead_letter();
        self.broker
            .browse(&entity, MessageState::Active)
            .expect("the entity exists")
            .into_iter()
            .map(|message| {
                let reason = text(&message, "DeadLetterReason");
                (message.message.message_id.unwrap_or_default(), reason)
            })
            .collect()
    }
}

pub(super) fn text(message: &ReceivedMessage, property: &str) -> String {
    match message.message.properties.get(property) {
        Some(Value::String(text)) => text.clone(),
        other => format!("{other:?}"),
    }
}

pub(super) fn pair(id: &str, reason: &str) -> (String, String) {
    (id.to_owned(), reason.to_owned())
}

pub(super) fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

fn tagged(id: &str, property: &str, value: &str) -> Message {
    let mut message = message(id);
    message
        .properties
        .insert(property.to_owned(), Value::String(value.to_owned()));
    message
}

// Sending

#[test]
fn messages_are_delivered_in_the_order_of_their_sequence_numbers() {
    let mut bus = Bus::with_queue(queue("q"));
    for id in ["a", "b", "c"] {
        bus.send("q", message(id));
    }
    let received: Vec<_> = std::iter::from_fn(|| bus.lock("q")).collect();
    let ids: Vec<_> = received
        .iter()
        .filter_map(|message| message.message.message_id.as_deref())
        .collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert!(received.is_sorted_by(|one, next| one.sequence_number < next.sequence_number));
}

#[test]
fn entity_names_have_no_case() {
    let mut bus = Bus::with_queue(queue("Orders"));
    bus.send("oRDERS", message("a"));
    assert_eq!(bus.active("orders"), ["a"]);
}

#[test]
fn a_message_without_an_id_gets_one_of_32_hexadecimal_digits() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send("q", Message::default());
    let id = bus.locked("q").message.message_id.expect("an id");
    assert_eq!(id.len(), 32);
    assert!(id.chars().all(|digit| digit.is_ascii_hexdigit()));
}

#[test]
fn a_batch_with_one_bad_message_is_refused_as_a_whole() {
    let mut bus = Bus::with_queue(queue("q"));
    let bad = message(&"x".repeat(129));
    let outcome = bus
        .broker
        .send(at(0), &path("q"), vec![message("good"), bad]);
    assert!(matches!(outcome, Err(Error::InvalidMessage(_))));
    assert!(bus.active("q").is_empty());
}

#[test]
fn an_id_may_have_128_characters_however_many_bytes_they_take() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send("q", message(&"é".repeat(128)));
    assert!(matches!(
        bus.refused("q", message(&"e".repeat(129))),
        Error::InvalidMessage(_)
    ));
}

#[test]
fn a_message_may_be_as_large_as_the_limit_and_not_a_byte_larger() {
    let mut bus = Bus::with_queue(queue("q"));
    let sized = |body: usize| Message {
        body: vec![0; body].into(),
        ..message("1234")
    };
    bus.send("q", sized(262_144 - 4));
    assert_eq!(
        bus.refused("q", sized(262_144 - 3)),
        Error::MessageTooLarge {
            entity: "q".to_owned(),
            limit: 262_144
        }
    );
}

#[test]
fn properties_have_limits_of_their_own() {
    let mut bus = Bus::with_queue(queue("q"));
    let large = tagged("one", "p", &"x".repeat(32_769));
    assert!(matches!(bus.refused("q", large), Error::InvalidMessage(_)));
    let mut many = tagged("many", "p1", &"x".repeat(32_000));
    for name in ["p2", "p3"] {
        many.properties
            .insert(name.to_owned(), Value::String("x".repeat(32_000)));
    }
    assert!(matches!(bus.refused("q", many), Error::InvalidMessage(_)));
}

#[test]
fn a_session_id_and_a_partition_key_that_differ_are_refused() {
    let mut bus = Bus::with_queue(queue("q"));
    let message = Message {
        session_id: Some("one".to_owned()),
        partition_key: Some("other".to_owned()),
        ..Message::default()
    };
    assert!(matches!(
        bus.refused("q", message),
        Error::InvalidMessage(_)
    ));
}

#[test]
fn a_full_entity_refuses_messages_until_something_is_taken_out() {
    let mut bus = Bus::with_queue(queue("q"));
    let block = || Message {
        body: vec![0; 262_000].into(),
        ..message("id")
    };
    for _ in 0..4 {
        bus.send("q", block());
    }
    assert_eq!(
        bus.refused("q", block()),
        Error::QuotaExceeded("q".to_owned())
    );
    // Dead letters still take up room.
    bus.dead_letter("q");
    assert!(matches!(bus.refused("q", block()), Error::QuotaExceeded(_)));
    let token = bus.token("q");
    bus.complete("q", token).expect("the lock is held");
    bus.send("q", block());
}

#[test]
fn an_unknown_entity_is_not_found() {
    let mut bus = Bus::with_queue(queue("q"));
    assert_eq!(
        bus.refused("other", message("a")),
        Error::EntityNotFound("other".to_owned())
    );
}

#[test]
fn subscriptions_and_dead_letter_queues_cannot_be_sent_to() {
    let mut bus = Bus::new(&Topology {
        queues: vec![queue("q")],
        topics: vec![topic("t", vec![subscription(queue("s"))])],
    });
    for to in ["t/Subscriptions/s", "q/$deadletterqueue"] {
        assert!(matches!(
            bus.refused(to, message("a")),
            Error::NotSupported(_)
        ));
    }
}

#[test]
fn topics_and_forwarding_queues_cannot_be_received_from() {
    let mut bus = Bus::new(&Topology {
        queues: vec![queue("q"), forwarding("f", "q")],
        topics: vec![topic("t", Vec::new())],
    });
    for from in ["t", "f"] {
        let outcome = bus
            .broker
            .receive(at(0), &path(from), ReceiveMode::PeekLock);
        assert!(matches!(outcome, Err(Error::NotSupported(_))));
    }
    assert_eq!(bus.lock("f/$DeadLetterQueue"), None);
}

// Locks

#[test]
fn a_locked_message_is_not_delivered_again() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send("q", message("a"));
    let message = bus.locked("q");
    assert_eq!(message.locked_until, Some(at(30)));
    assert_eq!(message.delivery_count, 1);
    assert_eq!(bus.lock("q"), None);
}

#[test]
fn an_abandoned_message_is_available_at_once_and_before_later_ones() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send("q", message("a"));
    bus.send("q", message("b"));
    let first = bus.locked("q");
    bus.abandon("q", first.lock_token.expect("a lock"))
        .expect("the lock is held");
    let again = bus.locked("q");
    assert_eq!(again.sequence_number, first.sequence_number);
    assert_eq!(again.delivery_count, 2);
    assert_ne!(again.lock_token, first.lock_token);
}

#[test]
fn a_completed_message_is_gone_and_its_lock_with_it() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send("q", message("a"));
    let token = bus.token("q");
    assert_eq!(bus.complete("q", token), Ok(()));
    assert_eq!(bus.complete("q", token), Err(Error::MessageLockLost));
    bus.wait(60);
    assert_eq!(bus.lock("q"), None);
}

#[test]
fn a_lock_ends_after_its_duration_and_cannot_be_used_any_more() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send("q", message("a"));
    let token = bus.token("q");
    assert_eq!(bus.broker.next_due(), Some(at(30)));
    bus.wait(29);
    assert_eq!(bus.lock("q"), None);
    bus.wait(1);
    assert_eq!(bus.complete("q", token), Err(Error::MessageLockLost));
    assert_eq!(bus.locked("q").delivery_count, 2);
}

#[test]
fn a_renewed_lock_lasts_another_duration_from_now() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send("q", message("a"));
    let token = bus.token("q");
    bus.wait(20);
    let until = bus.broker.renew_lock(bus.now, &path("q"), token);
    assert_eq!(until, Ok(at(50)));
    bus.wait(29);
    assert_eq!(bus.complete("q", token), Ok(()));
}

#[test]
fn a_lock_is_good_at_its_own_entity_only() {
    let mut bus = Bus::new(&queues([queue("q"), queue("other")]));
    bus.send("q", message("a"));
    let token = bus.token("q");
    assert_eq!(bus.complete("other", token), Err(Error::MessageLockLost));
    assert_eq!(bus.complete("q", token), Ok(()));
}

#[test]
fn receive_and_delete_removes_the_message_without_a_lock() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send("q", message("a"));
    let message = bus
        .broker
        .receive(at(0), &path("q"), ReceiveMode::ReceiveAndDelete)
        .expect("the queue exists")
        .expect("a message is there");
    assert_eq!((message.lock_token, message.locked_until), (None, None));
    assert_eq!(bus.broker.entities()[0].active, 0);
    assert_eq!(bus.lock("q"), None);
}

#[test]
fn a_delivery_that_reached_nobody_does_not_count() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send("q", message("a"));
    let token = bus.token("q");
    bus.broker.lost_on_its_way(at(0), &path("q"), token);
    assert_eq!(bus.locked("q").delivery_count, 1);
}

// Dead letters

#[test]
fn the_last_allowed_delivery_that_is_abandoned_dead_letters_the_message() {
    let mut bus = Bus::with_queue(Queue {
        max_delivery_count: 2,
        ..queue("q")
    });
    bus.send("q", tagged("a", "kept", "yes"));
    for _ in 0..2 {
        let token = bus.token("q");
        bus.abandon("q", token).expect("the lock is held");
    }
    assert_eq!(bus.lock("q"), None);
    let dead = bus.locked("q/$deadletterqueue");
    assert_eq!(text(&dead, "DeadLetterReason"), "MaxDeliveryCountExceeded");
    assert_eq!(
        text(&dead, "DeadLetterErrorDescription"),
        "Message could not be consumed after 2 delivery attempts."
    );
    assert_eq!(text(&dead, "kept"), "yes");
    assert_eq!(dead.message.message_id.as_deref(), Some("a"));
    assert_eq!(dead.dead_letter_source, None);
    assert_eq!(dead.enqueued_time, at(0));
}

#[test]
fn the_last_allowed_delivery_whose_lock_ends_dead_letters_the_message() {
    let mut bus = Bus::with_queue(Queue {
        max_delivery_count: 1,
        ..queue("q")
    });
    bus.send("q", message("a"));
    bus.locked("q");
    bus.wait(30);
    assert_eq!(bus.dead("q"), [pair("a", "MaxDeliveryCountExceeded")]);
}

#[test]
fn a_receiver_may_dead_letter_a_message_with_its_own_reason() {
    let mut bus = Bus::new(&Topology {
        queues: Vec::new(),
        topics: vec![topic("t", vec![subscription(queue("s"))])],
    });
    bus.send("t", message("a"));
    bus.dead_letter("t/subscriptions/s");
    let dead = bus.locked("t/subscriptions/s/$deadletterqueue");
    assert_eq!(text(&dead, "DeadLetterReason"), "why");
    assert_eq!(text(&dead, "DeadLetterErrorDescription"), "in detail");
}

#[test]
fn dead_letters_stay_whatever_their_age_and_delivery_count() {
    let mut bus = Bus::with_queue(Queue {
        max_delivery_count: 1,
        default_message_time_to_live: seconds(60),
        dead_lettering_on_message_expiration: true,
        ..queue("q")
    });
    bus.send("q", message("a"));
    bus.dead_letter("q");
    bus.wait(1_000_000);
    for _ in 0..5 {
        let token = bus.token("q/$deadletterqueue");
        bus.abandon("q/$deadletterqueue", token)
            .expect("the lock is held");
    }
    let dead = bus.locked("q/$deadletterqueue");
    assert_eq!((dead.delivery_count, dead.expires_at), (7, None));
    let token = dead.lock_token.expect("a lock");
    let again = bus
        .broker
        .dead_letter(bus.now, &path("q/$deadletterqueue"), token, "", "");
    assert!(matches!(again, Err(Error::NotSupported(_))));
}

#[test]
fn a_reason_from_an_earlier_life_does_not_stay() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send("q", tagged("a", "DeadLetterErrorDescription", "old"));
    let token = bus.token("q");
    bus.broker
        .dead_letter(at(0), &path("q"), token, "new", "")
        .expect("the lock is held");
    let dead = bus.locked("q/$deadletterqueue");
    assert_eq!(text(&dead, "DeadLetterReason"), "new");
    assert!(
        !dead
            .message
            .properties
            .contains_key("DeadLetterErrorDescription")
    );
}

// Time to live

#[test]
fn an_expired_message_is_dropped() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send(
        "q",
        Message {
            time_to_live: seconds(10),
            ..message("a")
        },
    );
    assert_eq!(bus.broker.next_due(), Some(at(10)));
    bus.wait(10);
    assert_eq!(bus.lock("q"), None);
    assert_eq!(bus.broker.entities()[0].active, 0);
    assert!(bus.dead("q").is_empty());
}

#[test]
fn an_expired_message_is_dead_lettered_where_the_entity_says_so() {
    let mut bus = Bus::with_queue(Queue {
        default_message_time_to_live: seconds(10),
        dead_lettering_on_message_expiration: true,
        ..queue("q")
    });
    bus.send("q", message("a"));
    bus.wait(10);
    assert_eq!(bus.dead("q"), [pair("a", "TTLExpiredException")]);
}

#[test]
fn the_entitys_time_to_live_is_the_ceiling() {
    let mut bus = Bus::with_queue(Queue {
        default_message_time_to_live: seconds(10),
        ..queue("q")
    });
    for (id, own) in [("longer", 100), ("shorter", 5)] {
        bus.send(
            "q",
            Message {
                time_to_live: seconds(own),
                ..message(id)
            },
        );
    }
    let longer = bus.locked("q");
    let shorter = bus.locked("q");
    assert_eq!(longer.expires_at, Some(at(10)));
    assert_eq!(longer.message.time_to_live, seconds(10));
    assert_eq!(shorter.expires_at, Some(at(5)));
}

#[test]
fn the_topics_time_to_live_holds_in_its_subscriptions() {
    let mut topic = topic("t", vec![subscription(queue("s"))]);
    topic.default_message_time_to_live = seconds(10);
    let mut bus = Bus::new(&Topology {
        queues: Vec::new(),
        topics: vec![topic],
    });
    bus.send("t", message("a"));
    assert_eq!(bus.locked("t/subscriptions/s").expires_at, Some(at(10)));
}

#[test]
fn a_message_does_not_expire_while_it_is_locked() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send(
        "q",
        Message {
            time_to_live: seconds(10),
            ..message("a")
        },
    );
    let token = bus.token("q");
    bus.wait(20);
    bus.broker
        .renew_lock(bus.now, &path("q"), token)
        .expect("the lock is held");
    bus.wait(20);
    bus.abandon("q", token).expect("the lock is held");
    let at = bus.broker.named("q").expect("q exists");
    assert!(!bus.broker.is_ready(at, None));
    assert_eq!(bus.lock("q"), None);
    assert!(bus.active("q").is_empty());
}

// Scheduled messages

#[test]
fn a_scheduled_message_waits_until_it_is_due_and_then_gets_a_new_number() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send(
        "q",
        Message {
            scheduled_enqueue_time: Some(at(60)),
            time_to_live: seconds(5),
            ..message("later")
        },
    );
    bus.send("q", message("now"));
    assert_eq!(bus.ids("q", MessageState::Scheduled), ["later"]);
    assert_eq!(bus.broker.next_due(), Some(at(60)));
    let now = bus.locked("q");
    assert_eq!(bus.lock("q"), None);
    bus.complete("q", now.lock_token.expect("a lock"))
        .expect("the lock is held");
    bus.wait(60);
    let later = bus.locked("q");
    assert!(later.sequence_number > now.sequence_number);
    assert_eq!(later.enqueued_time, at(60));
    assert_eq!(later.expires_at, Some(at(65)));
}

#[test]
fn a_scheduled_time_in_the_past_is_now() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send(
        "q",
        Message {
            scheduled_enqueue_time: Some(at(0)),
            ..message("a")
        },
    );
    assert_eq!(bus.active("q"), ["a"]);
}

#[test]
fn a_scheduled_message_waits_in_the_topic_and_fans_out_when_it_is_due() {
    let mut bus = Bus::new(&Topology {
        queues: Vec::new(),
        topics: vec![topic(
            "t",
            vec![subscription(queue("s1")), subscription(queue("s2"))],
        )],
    });
    bus.send(
        "t",
        Message {
            scheduled_enqueue_time: Some(at(60)),
            ..message("a")
        },
    );
    assert_eq!(bus.ids("t", MessageState::Scheduled), ["a"]);
    assert!(bus.active("t/subscriptions/s1").is_empty());
    bus.wait(60);
    assert_eq!(bus.active("t/subscriptions/s1"), ["a"]);
    assert_eq!(bus.active("t/subscriptions/s2"), ["a"]);
    assert!(bus.ids("t", MessageState::Scheduled).is_empty());
}

// Duplicate detection

fn detecting(name: &str) -> Queue {
    Queue {
        duplicate_detection: seconds(600),
        ..queue(name)
    }
}

#[test]
fn a_duplicate_is_accepted_and_dropped_even_after_the_first_was_consumed() {
    let mut bus = Bus::with_queue(detecting("q"));
    bus.send("q", message("a"));
    let token = bus.token("q");
    bus.complete("q", token).expect("the lock is held");
    bus.wait(599);
    bus.send("q", message("a"));
    assert!(bus.active("q").is_empty());
    // The window is counted from the first one: the duplicate has not made it longer.
    bus.wait(1);
    bus.send("q", message("a"));
    assert_eq!(bus.active("q"), ["a"]);
}

#[test]
fn an_id_from_before_the_clock_was_set_back_is_remembered_for_one_window_only() {
    let topology = queues([detecting("q")]);
    let mut bus = Bus::new(&topology);
    bus.wait(1_000_000);
    bus.send("q", message("a"));
    let mut disk = Disk::default();
    disk.commit(&mut bus.broker);
    for start in [0, 100] {
        bus = Bus::new(&topology);
        bus.broker.load_all(disk.items()).expect("q is there");
        bus.wait(start);
        bus.broker.resume(bus.now);
        disk.commit(&mut bus.broker);
    }
    // The second start is not a second beginning.
    bus.wait(499);
    bus.send("q", message("a"));
    assert_eq!(bus.active("q"), ["a"]);
    bus.wait(1);
    bus.send("q", message("a"));
    assert_eq!(bus.active("q"), ["a", "a"]);
}

#[test]
fn without_duplicate_detection_an_id_may_come_again() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send("q", message("a"));
    bus.send("q", message("a"));
    assert_eq!(bus.active("q"), ["a", "a"]);
}

#[test]
fn a_batch_may_not_repeat_an_id_either() {
    let mut bus = Bus::with_queue(detecting("q"));
    let batch = vec![message("a"), message("b"), message("a")];
    assert_eq!(bus.broker.send(at(0), &path("q"), batch), Ok(()));
    assert_eq!(bus.active("q"), ["a", "b"]);
}

#[test]
fn a_scheduled_message_counts_when_it_is_sent() {
    let mut bus = Bus::with_queue(detecting("q"));
    let scheduled = || Message {
        scheduled_enqueue_time: Some(at(60)),
        ..message("a")
    };
    bus.send("q", scheduled());
    bus.send("q", message("a"));
    bus.send("q", scheduled());
    assert!(bus.active("q").is_empty());
    bus.wait(60);
    assert_eq!(bus.active("q"), ["a"]);
}

#[test]
fn a_refused_batch_leaves_no_ids_behind() {
    let mut bus = Bus::with_queue(detecting("q"));
    let batch = vec![message("a"), message("")];
    assert!(bus.broker.send(at(0), &path("q"), batch).is_err());
    bus.send("q", message("a"));
    assert_eq!(bus.active("q"), ["a"]);
}

#[test]
fn forwarding_into_an_entity_that_detects_duplicates_drops_them() {
    let mut bus = Bus::new(&queues([detecting("q"), forwarding("f", "q")]));
    bus.send("q", message("a"));
    bus.send("f", message("a"));
    bus.send("f", message("b"));
    assert_eq!(bus.active("q"), ["a", "b"]);
    assert!(bus.dead("f").is_empty());
}

// Topics

fn rules(name: &str, rules: Vec<Rule>) -> Subscription {
    Subscription {
        queue: queue(name),
        rules,
    }
}

#[test]
fn a_subscription_gets_what_its_rules_take() {
    let red = rule("colour = 'red'", None);
    let mut bus = Bus::new(&Topology {
        queues: Vec::new(),
        topics: vec![topic(
            "t",
            vec![subscription(queue("all")), rules("red", vec![red])],
        )],
    });
    bus.send("t", tagged("a", "colour", "red"));
    bus.send("t", tagged("b", "colour", "blue"));
    assert_eq!(bus.active("t/subscriptions/all"), ["a", "b"]);
    assert_eq!(bus.active("t/subscriptions/red"), ["a"]);
}

#[test]
fn rules_without_an_action_make_one_copy_and_each_with_one_makes_another() {
    let mut bus = Bus::new(&Topology {
        queues: Vec::new(),
        topics: vec![topic(
            "t",
            vec![rules(
                "s",
                vec![
                    rule("colour = 'red'", None),
                    Rule::default_rule(),
                    rule("colour = 'red'", Some("SET audience = 'first'")),
                    rule("colour = 'red'", Some("SET audience = 'second'")),
                    rule("colour = 'blue'", Some("SET audience = 'never'")),
                ],
            )],
        )],
    });
    bus.send("t", tagged("a", "colour", "red"));
    let audiences: Vec<String> = std::iter::from_fn(|| bus.lock("t/subscriptions/s"))
        .map(|message| text(&message, "audience"))
        .collect();
    assert_eq!(audiences, ["None", "first", "second"]);
}

#[test]
fn copies_of_one_message_share_the_number_it_got_at_the_topic() {
    let mut bus = Bus::new(&Topology {
        queues: vec![queue("q")],
        topics: vec![topic(
            "t",
            vec![subscription(queue("s")), subscription(forwarding("f", "q"))],
        )],
    });
    for id in ["a", "b"] {
        bus.send("t", message(id));
    }
    bus.locked("q");
    bus.locked("t/subscriptions/s");
    let (forwarded, kept) = (bus.locked("q"), bus.locked("t/subscriptions/s"));
    assert_eq!(forwarded.enqueued_sequence_number, 2);
    assert_eq!(kept.enqueued_sequence_number, 2);
}

// Forwarding

#[test]
fn a_forwarded_message_starts_over_at_its_target() {
    let mut bus = Bus::new(&Topology {
        queues: vec![queue("q")],
        topics: vec![topic("t", vec![subscription(forwarding("s", "Q"))])],
    });
    bus.send("t", tagged("a", "kept", "yes"));
    let message = bus.locked("q");
    assert_eq!(message.delivery_count, 1);
    assert_eq!(message.message.message_id.as_deref(), Some("a"));
    assert_eq!(text(&message, "kept"), "yes");
}

#[test]
fn four_hops_are_allowed_and_the_fifth_dead_letters_the_message() {
    let chain = |length: usize| {
        let mut chain: Vec<Queue> = (0..length)
            .map(|link| forwarding(&format!("q{link}"), &format!("q{}", link + 1)))
            .collect();
        chain.push(queue(&format!("q{length}")));
        queues(chain)
    };
    let mut bus = Bus::new(&chain(4));
    bus.send("q0", message("a"));
    assert_eq!(bus.active("q4"), ["a"]);

    let mut bus = Bus::new(&chain(5));
    bus.send("q0", message("a"));
    assert!(bus.active("q5").is_empty());
    assert_eq!(bus.dead("q4"), [pair("a", "MaxTransferHopCountExceeded")]);
}

#[test]
fn a_circle_ends_in_a_dead_letter_queue() {
    let mut bus = Bus::new(&queues([forwarding("a", "b"), forwarding("b", "a")]));
    bus.send("a", message("m"));
    assert_eq!(bus.dead("a"), [pair("m", "MaxTransferHopCountExceeded")]);
}

#[test]
fn a_missing_target_or_a_subscription_as_target_dead_letters_the_message() {
    let mut bus = Bus::new(&Topology {
        queues: vec![
            forwarding("f", "nowhere"),
            forwarding("g", "t/subscriptions/s"),
        ],
        topics: vec![topic("t", vec![subscription(queue("s"))])],
    });
    for from in ["f", "g"] {
        bus.send(from, message("a"));
        assert_eq!(
            bus.dead(from),
            [pair("a", "MessagingEntityNotFoundException")]
        );
    }
}

#[test]
fn a_full_target_dead_letters_the_message_at_its_source() {
    let mut bus = Bus::new(&queues([queue("q"), forwarding("f", "q")]));
    for _ in 0..4 {
        bus.send(
            "q",
            Message {
                body: vec![0; 262_000].into(),
                ..Message::default()
            },
        );
    }
    bus.send(
        "f",
        Message {
            body: vec![0; 4_000].into(),
            ..message("a")
        },
    );
    assert_eq!(bus.dead("f"), [pair("a", "QuotaExceededException")]);
}

#[test]
fn dead_letters_are_forwarded_where_the_entity_says_so() {
    let mut bus = Bus::new(&queues([
        queue("graveyard"),
        Queue {
            forward_dead_lettered_messages_to: Some("graveyard".to_owned()),
            ..queue("q")
        },
    ]));
    bus.send("q", message("a"));
    bus.dead_letter("q");
    assert!(bus.dead("q").is_empty());
    let dead = bus.locked("graveyard");
    assert_eq!(text(&dead, "DeadLetterReason"), "why");
    assert_eq!(dead.dead_letter_source.as_deref(), Some("q"));
    assert_eq!(dead.delivery_count, 1);
}

#[test]
fn a_forwarded_dead_letter_says_which_subscription_it_died_in_even_when_it_dies_again() {
    let mut bus = Bus::new(&Topology {
        queues: vec![queue("graveyard")],
        topics: vec![topic(
            "t",
            vec![subscription(Queue {
                forward_dead_lettered_messages_to: Some("graveyard".to_owned()),
                ..queue("s")
            })],
        )],
    });
    bus.send("t", message("a"));
    bus.dead_letter("t/subscriptions/s");
    bus.dead_letter("graveyard");
    let dead = bus.locked("graveyard/$deadletterqueue");
    assert_eq!(
        dead.dead_letter_source.as_deref(),
        Some("t/Subscriptions/s")
    );
}

#[test]
fn a_dead_letter_that_cannot_be_forwarded_stays_in_the_dead_letter_queue() {
    let mut bus = Bus::with_queue(Queue {
        forward_dead_lettered_messages_to: Some("nowhere".to_owned()),
        ..queue("q")
    });
    bus.send("q", message("a"));
    bus.dead_letter("q");
    assert_eq!(bus.dead("q"), [pair("a", "why")]);
    // Nothing else would ever get it out.
    assert_eq!(bus.locked("q/$deadletterqueue").dead_letter_source, None);
}

// Browsing and size

#[test]
fn peeking_shows_the_next_message_and_touches_nothing() {
    let mut bus = Bus::new(&Topology {
        queues: vec![queue("q")],
        topics: vec![topic("t", Vec::new())],
    });
    assert_eq!(bus.broker.peek(&path("q")), Ok(None));
    bus.send("q", message("a"));
    bus.send("q", message("b"));
    bus.locked("q");
    for _ in 0..2 {
        let peeked = bus.broker.peek(&path("q")).expect("q exists");
        let peeked = peeked.expect("b is there");
        assert_eq!(peeked.message.message_id.as_deref(), Some("b"));
        assert_eq!((peeked.lock_token, peeked.delivery_count), (None, 0));
    }
    assert_eq!(bus.locked("q").delivery_count, 1);
    assert!(matches!(
        bus.broker.peek(&path("t")),
        Err(Error::NotSupported(_))
    ));
}

#[test]
fn browsing_shows_each_state_and_touches_nothing() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send("q", message("locked"));
    bus.send("q", message("active"));
    bus.send(
        "q",
        Message {
            scheduled_enqueue_time: Some(at(60)),
            ..message("scheduled")
        },
    );
    bus.locked("q");
    for (state, id) in [
        (MessageState::Locked, "locked"),
        (MessageState::Active, "active"),
        (MessageState::Scheduled, "scheduled"),
    ] {
        let found = bus.broker.browse(&path("q"), state).expect("q exists");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].message.message_id.as_deref(), Some(id));
        assert_eq!((found[0].lock_token, found[0].state), (None, state));
    }
    let counts = &bus.broker.entities()[0];
    assert_eq!((counts.active, counts.locked, counts.scheduled), (1, 1, 1));
    assert_eq!(bus.locked("q").delivery_count, 1);
}
