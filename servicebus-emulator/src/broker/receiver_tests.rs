//! What receivers can do beyond taking and completing messages: sessions, deferral, transactions, browsing, cancelling.

use bytes::Bytes;
use uuid::Uuid;

use super::tests::{Bus, pair, seconds, text};
use crate::{
    AcceptedSession, Changes, Error, Message, MessageState, Operation, ReceiveMode,
    ReceivedMessage, Settlement, Value,
    broker::random::Disk,
    description::Description,
    sample::{at, message, path, queue, queues, subscription, topic},
    topology::Queue,
};

fn rooms() -> Bus {
    Bus::with_queue(Queue {
        requires_session: true,
        max_delivery_count: 2,
        ..queue("rooms")
    })
}

fn in_session(session: &str, id: &str) -> Message {
    Message {
        session_id: Some(session.to_owned()),
        ..message(id)
    }
}

impl Bus {
    fn accept(&mut self, session: Option<&str>) -> Result<Option<AcceptedSession>, Error> {
        self.broker
            .accept_session(self.now, &path("rooms"), session)
    }

    fn accepted(&mut self, session: &str) -> AcceptedSession {
        let accepted = self.accept(Some(session));
        accepted.expect("it is free").expect("it was named")
    }

    fn in_session(&mut self, session: Uuid) -> Result<Vec<ReceivedMessage>, Error> {
        let mode = ReceiveMode::PeekLock;
        self.broker
            .receive_batch(self.now, &path("rooms"), mode, Some(session), 10)
    }

    fn settle(&mut self, from: &str, token: Uuid, settlement: Settlement) -> Result<(), Error> {
        self.broker.settle(self.now, &path(from), token, settlement)
    }

    fn deferred(&mut self, from: &str, numbers: &[i64]) -> Result<Vec<ReceivedMessage>, Error> {
        let mode = ReceiveMode::PeekLock;
        self.broker
            .receive_deferred(self.now, &path(from), mode, None, numbers)
    }
}

fn ids(messages: Vec<ReceivedMessage>) -> Vec<String> {
    let id = |message: ReceivedMessage| message.message.message_id.unwrap_or_default();
    messages.into_iter().map(id).collect()
}

fn changes(name: &str, value: &str) -> Changes {
    [(name.to_owned(), Value::String(value.to_owned()))].into()
}

#[test]
fn a_session_has_one_holder_who_gets_its_messages_in_order() {
    let mut bus = rooms();
    for (session, id) in [("a", "a1"), ("b", "b1"), ("a", "a2")] {
        bus.send("rooms", in_session(session, id));
    }
    let first = bus.accept(None).unwrap().expect("one is free");
    assert_eq!(first.session_id, "a");
    assert_eq!(first.locked_until, at(30));
    let second = bus.accept(None).unwrap().expect("another is free");
    assert_eq!(second.session_id, "b");
    assert_eq!(bus.accept(None), Ok(None));
    assert_eq!(
        bus.accept(Some("a")),
        Err(Error::SessionCannotBeLocked("a".to_owned()))
    );
    assert_eq!(ids(bus.in_session(first.token).unwrap()), ["a1", "a2"]);
    assert_eq!(ids(bus.in_session(second.token).unwrap()), ["b1"]);
}

#[test]
fn deliveries_count_when_the_session_lock_runs_out_and_not_when_its_holder_closes_it() {
    let mut bus = rooms();
    bus.send("rooms", in_session("a", "a1"));
    let session = bus.accepted("a");
    assert_eq!(bus.in_session(session.token).unwrap()[0].delivery_count, 1);
    bus.broker
        .release_session(bus.now, &path("rooms"), session.token);
    assert_eq!(
        bus.in_session(session.token),
        Err(Error::SessionLockLost),
        "the token is worth nothing any more"
    );
    for deliveries in [1, 2] {
        let session = bus.accepted("a");
        let received = bus.in_session(session.token).unwrap();
        assert_eq!(received[0].delivery_count, deliveries);
        bus.wait(30);
    }
    assert_eq!(
        bus.dead("rooms"),
        [pair("a1", "MaxDeliveryCountExceeded")],
        "dead letters are received without a session"
    );
    assert!(bus.lock("rooms/$deadletterqueue").is_some());
}

#[test]
fn a_renewed_session_keeps_its_messages_locked() {
    let mut bus = rooms();
    bus.send("rooms", in_session("a", "a1"));
    let session = bus.accepted("a");
    let token = bus.in_session(session.token).unwrap()[0]
        .lock_token
        .unwrap();
    bus.wait(20);
    let renewed = bus
        .broker
        .renew_session_lock(bus.now, &path("rooms"), session.token);
    assert_eq!(renewed, Ok(at(50)));
    bus.wait(29);
    assert_eq!(bus.settle("rooms", token, Settlement::Complete), Ok(()));
    bus.wait(1);
    assert_eq!(
        bus.broker
            .renew_session_lock(bus.now, &path("rooms"), session.token),
        Err(Error::SessionLockLost)
    );
}

#[test]
fn the_state_of_a_session_outlives_its_lock_its_messages_and_the_process() {
    let rooms = Queue {
        requires_session: true,
        ..queue("rooms")
    };
    let mut bus = Bus::with_queue(rooms.clone());
    let state = Bytes::from_static(b"half way");
    let set = |bus: &mut Bus, token, state| {
        bus.broker
            .set_session_state(bus.now, &path("rooms"), token, state)
    };
    assert_eq!(
        set(&mut bus, Uuid::nil(), Some(state.clone())),
        Err(Error::SessionLockLost)
    );
    let held = bus.accepted("a").token;
    assert_eq!(set(&mut bus, held, Some(state.clone())), Ok(()));
    let mut disk = Disk::default();
    disk.commit(&mut bus.broker);

    let mut bus = Bus::with_queue(rooms);
    bus.broker.load_all(disk.items()).unwrap();
    bus.broker.resume(bus.now);
    let held = bus.accepted("a").token;
    let read = |bus: &mut Bus| bus.broker.session_state(bus.now, &path("rooms"), held);
    assert_eq!(read(&mut bus), Ok(Some(state)));
    assert_eq!(set(&mut bus, held, None), Ok(()));
    assert_eq!(read(&mut bus), Ok(None));
    disk.commit(&mut bus.broker);
    assert!(disk.session_states.is_empty());
}

#[test]
fn what_has_no_session_is_refused_or_dead_lettered_where_sessions_are_required() {
    let mut bus = rooms();
    let refused = bus.refused("rooms", message("m"));
    assert!(matches!(refused, Error::InvalidMessage(_)), "{refused}");
    let received = bus
        .broker
        .receive(bus.now, &path("rooms"), ReceiveMode::PeekLock);
    assert!(matches!(received, Err(Error::NotSupported(_))));

    let mut bus = Bus::new(&crate::Topology {
        queues: Vec::new(),
        topics: vec![topic(
            "news",
            vec![subscription(Queue {
                requires_session: true,
                ..queue("s")
            })],
        )],
    });
    bus.send("news", message("m"));
    assert_eq!(
        bus.dead("news/subscriptions/s"),
        [pair("m", "Session ID is null")]
    );
}

#[test]
fn sessions_are_listed_by_their_messages_or_by_when_their_state_was_set() {
    let mut bus = rooms();
    for session in ["b", "a", "c"] {
        bus.send("rooms", in_session(session, session));
    }
    let held = bus.accepted("z").token;
    bus.wait(5);
    let state = Some(Bytes::from_static(b"x"));
    bus.broker
        .set_session_state(bus.now, &path("rooms"), held, state)
        .unwrap();
    let list = |since, skip, most| {
        bus.broker
            .sessions(&path("rooms"), since, skip, most)
            .unwrap()
    };
    assert_eq!(list(None, 0, 100), ["a", "b", "c", "z"]);
    assert_eq!(list(None, 1, 1), ["b"]);
    assert_eq!(list(Some(at(4)), 0, 100), ["z"]);
    assert!(list(Some(at(5)), 0, 100).is_empty());
}

#[test]
fn a_released_message_has_not_been_delivered() {
    let mut bus = Bus::with_queue(Queue {
        max_delivery_count: 1,
        ..queue("q")
    });
    bus.send("q", message("a"));
    for _ in 0..3 {
        let received = bus.locked("q");
        assert_eq!(received.delivery_count, 1);
        let token = received.lock_token.unwrap();
        assert_eq!(bus.settle("q", token, Settlement::Release), Ok(()));
    }
    assert_eq!(bus.active("q"), ["a"]);
    assert!(bus.dead("q").is_empty());
}

#[test]
fn a_deferred_message_is_received_by_its_number_only() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send("q", message("a"));
    bus.send("q", message("b"));
    let received = bus.locked("q");
    let token = received.lock_token.unwrap();
    let changes = changes("why", "later");
    bus.settle("q", token, Settlement::Defer { changes })
        .unwrap();
    assert_eq!(bus.ids("q", MessageState::Deferred), ["a"]);
    assert_eq!(bus.locked("q").message.message_id.as_deref(), Some("b"));
    assert_eq!(bus.lock("q"), None);

    let missing = bus.deferred("q", &[received.sequence_number, 99]);
    assert!(matches!(missing, Err(Error::MessageNotFound(_))));
    let number = received.sequence_number;
    let again = bus.deferred("q", &[number, number]).unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].delivery_count, 2);
    assert_eq!(text(&again[0], "why"), "later");
    let token = again[0].lock_token.unwrap();
    // Given back, it is deferred as before.
    bus.abandon("q", token).unwrap();
    assert_eq!(bus.ids("q", MessageState::Deferred), ["a"]);
    let again = bus.deferred("q", &[received.sequence_number]).unwrap();
    assert_eq!(again[0].delivery_count, 3);
    bus.complete("q", again[0].lock_token.unwrap()).unwrap();
    assert!(bus.ids("q", MessageState::Deferred).is_empty());
}

#[test]
fn a_deferred_message_expires_like_any_other_and_stays_deferred_through_a_restart() {
    let expiring = Queue {
        default_message_time_to_live: seconds(60),
        dead_lettering_on_message_expiration: true,
        ..queue("q")
    };
    let mut bus = Bus::with_queue(expiring.clone());
    bus.send("q", message("a"));
    let token = bus.token("q");
    let changes = Changes::new();
    bus.settle("q", token, Settlement::Defer { changes })
        .unwrap();
    let mut disk = Disk::default();
    disk.commit(&mut bus.broker);
    let mut bus = Bus::with_queue(expiring);
    bus.broker.load_all(disk.items()).unwrap();
    bus.broker.resume(bus.now);
    assert_eq!(bus.ids("q", MessageState::Deferred), ["a"]);
    bus.wait(60);
    assert_eq!(bus.dead("q"), [pair("a", "TTLExpiredException")]);
}

#[test]
fn properties_are_changed_by_whoever_gives_a_message_back_or_buries_it() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send("q", message("a"));
    let token = bus.token("q");
    let changes_of = |value| changes("attempt", value);
    let changes = changes_of("1");
    bus.settle("q", token, Settlement::Abandon { changes })
        .unwrap();
    let again = bus.locked("q");
    assert_eq!(text(&again, "attempt"), "1");
    let too_long = "x".repeat(40_000);
    let changes = changes_of(&too_long);
    let token = again.lock_token.unwrap();
    let refused = bus.settle("q", token, Settlement::Abandon { changes });
    assert!(matches!(refused, Err(Error::InvalidMessage(_))));
    let changes = changes_of("2");
    let settlement = Settlement::DeadLetter {
        reason: Some("because".to_owned()),
        description: None,
        changes,
    };
    bus.settle("q", token, settlement).unwrap();
    let dead = bus.locked("q/$deadletterqueue");
    assert_eq!(text(&dead, "attempt"), "2");
    assert_eq!(text(&dead, "DeadLetterReason"), "because");
    assert_eq!(text(&dead, "DeadLetterErrorDescription"), "None");
}

#[test]
fn a_transaction_is_carried_out_whole_or_not_at_all() {
    let mut bus = Bus::new(&queues([queue("one"), queue("two")]));
    bus.send("one", message("a"));
    let token = bus.token("one");
    let operations = |lock_token| {
        vec![
            Operation::Send {
                to: path("two"),
                messages: vec![message("b")],
            },
            Operation::Settle {
                from: path("one"),
                lock_token,
                settlement: Settlement::Complete,
            },
        ]
    };
    let refused = bus.broker.transact(bus.now, operations(Uuid::nil()));
    assert_eq!(refused, Err(Error::MessageLockLost));
    assert!(bus.active("two").is_empty());
    assert_eq!(bus.broker.transact(bus.now, operations(token)), Ok(()));
    assert_eq!(bus.active("two"), ["b"]);
    assert!(bus.ids("one", MessageState::Locked).is_empty());
}

#[test]
fn scheduled_messages_are_cancelled_by_their_numbers_all_or_none() {
    let mut bus = Bus::with_queue(queue("q"));
    let later = |id: &str| Message {
        scheduled_enqueue_time: Some(at(60)),
        ..message(id)
    };
    let messages = vec![later("a"), later("b"), later("c")];
    let numbers = bus.broker.schedule(bus.now, &path("q"), messages).unwrap();
    assert_eq!(numbers, [1, 2, 3]);
    let cancel =
        |bus: &mut Bus, numbers: &[i64]| bus.broker.cancel_scheduled(bus.now, &path("q"), numbers);
    let refused = cancel(&mut bus, &[1, 9]);
    assert!(matches!(refused, Err(Error::MessageNotFound(_))));
    assert_eq!(cancel(&mut bus, &[1, 3]), Ok(()));
    bus.wait(60);
    assert_eq!(bus.active("q"), ["b"]);
    let late = cancel(&mut bus, &[2]);
    assert!(matches!(late, Err(Error::MessageNotFound(_))));
}

#[test]
fn browsing_shows_messages_in_every_state_by_number_and_no_lock_tokens() {
    let mut bus = Bus::with_queue(queue("q"));
    for id in ["locked", "deferred", "active"] {
        bus.send("q", message(id));
    }
    bus.locked("q");
    let token = bus.token("q");
    let changes = Changes::new();
    bus.settle("q", token, Settlement::Defer { changes })
        .unwrap();
    let scheduled = Message {
        scheduled_enqueue_time: Some(at(60)),
        ..message("scheduled")
    };
    bus.send("q", scheduled);
    let all = bus.broker.peek_batch(&path("q"), 0, 100, None).unwrap();
    assert!(all.iter().all(|message| message.lock_token.is_none()));
    let states: Vec<_> = all.iter().map(|message| message.state).collect();
    assert_eq!(
        states,
        [
            MessageState::Locked,
            MessageState::Deferred,
            MessageState::Active,
            MessageState::Scheduled
        ]
    );
    let some = bus.broker.peek_batch(&path("q"), 2, 2, None).unwrap();
    assert_eq!(ids(some), ["deferred", "active"]);
}

#[test]
fn several_messages_are_received_at_once_up_to_a_number_and_a_size() {
    let mut bus = Bus::new(&queues([queue("q")]));
    for id in ["a", "b", "c"] {
        bus.send("q", message(id));
    }
    let receive = |bus: &mut Bus, most| {
        let mode = ReceiveMode::ReceiveAndDelete;
        let from = path("q");
        bus.broker.receive_batch(bus.now, &from, mode, None, most)
    };
    assert_eq!(ids(receive(&mut bus, 2).unwrap()), ["a", "b"]);
    assert_eq!(ids(receive(&mut bus, 2).unwrap()), ["c"]);
    assert_eq!(ids(receive(&mut bus, 2).unwrap()), [""; 0]);
}

#[test]
fn a_deleted_message_that_reached_nobody_is_back_in_its_place() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send("q", message("a"));
    bus.send("q", message("b"));
    let mode = ReceiveMode::ReceiveAndDelete;
    let received = bus
        .broker
        .receive_batch(bus.now, &path("q"), mode, None, 1)
        .unwrap();
    assert_eq!(received[0].delivery_count, 1);
    bus.broker.undelivered(bus.now, &path("q"), received);
    let again = bus.locked("q");
    assert_eq!(again.message.message_id.as_deref(), Some("a"));
    assert_eq!((again.sequence_number, again.delivery_count), (1, 1));
}

#[test]
fn a_message_that_reached_nobody_does_not_replace_one_in_another_entity_of_that_name() {
    let mut bus = Bus::with_queue(queue("q"));
    bus.send("q", message("old"));
    let (now, from) = (bus.now, path("q"));
    let mode = ReceiveMode::ReceiveAndDelete;
    let received = bus.broker.receive_batch(now, &from, mode, None, 1).unwrap();
    bus.broker.delete(now, &from).unwrap();
    let again = Description::Queue(queue("q"));
    bus.broker.create(now, again).unwrap();
    bus.broker.undelivered(now, &from, received.clone());
    assert!(bus.active("q").is_empty());
    bus.send("q", message("new"));
    bus.broker.undelivered(now, &from, received);
    assert_eq!(bus.active("q"), ["new"]);
}
