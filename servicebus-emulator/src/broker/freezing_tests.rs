//! Messages that lie in the store only: in order, on time, counted, and never back from the dead.

use std::sync::{Arc, Mutex};

use super::{
    Frozen,
    random::{Disk, apply},
    tests::{Bus, pair, seconds},
};
use crate::{
    Error, Message, MessageState, ReceiveMode,
    sample::{at, message, path, queue},
    topology::Queue,
};

struct Freezer {
    bus: Bus,
    disk: Arc<Mutex<Disk>>,
    broken: Arc<Mutex<bool>>,
}

impl Freezer {
    fn new(queue: Queue, kept: usize, page: usize) -> Self {
        let mut bus = Bus::with_queue(queue);
        let disk: Arc<Mutex<Disk>> = Arc::default();
        let broken: Arc<Mutex<bool>> = Arc::default();
        let (from, is_broken) = (Arc::clone(&disk), Arc::clone(&broken));
        bus.broker.freeze_into(Frozen {
            read: Box::new(move |entity, first, last| {
                if *is_broken.lock().unwrap() {
                    return Err("no such device".to_owned());
                }
                let disk = from.lock().unwrap();
                let range = (entity.to_owned(), first)..=(entity.to_owned(), last);
                let records = disk.messages.range(range);
                Ok(records
                    .map(|((_, sequence), record)| (*sequence, record.clone()))
                    .collect())
            }),
            kept,
            page,
            failure: None,
        });
        Self { bus, disk, broken }
    }

    fn send(&mut self, message: Message) {
        self.bus.send("q", message);
        self.commit();
    }

    fn commit(&mut self) {
        for change in self.bus.broker.changes() {
            apply(&mut self.disk.lock().unwrap(), change);
        }
        self.bus.broker.committed();
    }

    fn in_memory(&self) -> usize {
        let at = self.bus.broker.named("q").unwrap();
        self.bus.broker.entities[at.0].messages().count()
    }

    fn counts(&self) -> (usize, usize, usize) {
        let counts = self.bus.broker.entities().remove(0);
        (counts.active, counts.locked, counts.scheduled)
    }
}

#[test]
fn few_of_many_messages_are_in_memory_and_all_are_delivered_in_order() {
    let mut freezer = Freezer::new(queue("q"), 10, 5);
    for number in 0..500 {
        freezer.send(message(&number.to_string()));
        assert!(freezer.in_memory() < 15);
    }
    assert_eq!(freezer.counts(), (500, 0, 0));
    for number in 0..500 {
        let received = freezer.bus.locked("q");
        assert_eq!(received.message.message_id, Some(number.to_string()));
        freezer
            .bus
            .complete("q", received.lock_token.unwrap())
            .unwrap();
        freezer.commit();
        assert!(freezer.in_memory() < 20);
    }
    assert_eq!(freezer.counts(), (0, 0, 0));
    assert!(freezer.disk.lock().unwrap().messages.is_empty());
}

#[test]
fn what_is_scheduled_or_expires_is_on_time_wherever_it_lies() {
    let mut freezer = Freezer::new(
        Queue {
            dead_lettering_on_message_expiration: true,
            ..queue("q")
        },
        1,
        2,
    );
    for number in 0..20 {
        let time_to_live = (number == 7).then_some(seconds(30)).flatten();
        let scheduled_enqueue_time = (number >= 15).then(|| at(60 + number));
        freezer.send(Message {
            time_to_live,
            scheduled_enqueue_time,
            ..message(&number.to_string())
        });
    }
    assert!(freezer.in_memory() < 4);
    assert_eq!(freezer.counts(), (15, 0, 5));
    assert_eq!(freezer.bus.broker.next_due(), Some(at(30)));
    freezer.bus.wait(30);
    assert_eq!(freezer.bus.dead("q"), [pair("7", "TTLExpiredException")]);
    freezer.commit();
    assert_eq!(freezer.bus.broker.next_due(), Some(at(75)));
    freezer.bus.wait(47);
    freezer.bus.broker.advance(freezer.bus.now);
    freezer.commit();
    assert_eq!(freezer.counts(), (17, 0, 2));
}

#[test]
fn messages_are_browsed_and_cancelled_wherever_they_lie() {
    let mut freezer = Freezer::new(queue("q"), 1, 2);
    for number in 0..9 {
        freezer.send(Message {
            scheduled_enqueue_time: Some(at(60)),
            ..message(&number.to_string())
        });
    }
    let peeked = freezer
        .bus
        .broker
        .peek_batch(&path("q"), 4, 3, None)
        .unwrap();
    let numbers: Vec<i64> = peeked.iter().map(|peeked| peeked.sequence_number).collect();
    assert_eq!(numbers, [4, 5, 6]);
    freezer.commit();
    let now = freezer.bus.now;
    let cancelled = freezer.bus.broker.cancel_scheduled(now, &path("q"), &[5]);
    assert_eq!(cancelled, Ok(()));
    freezer.commit();
    assert_eq!(freezer.counts(), (0, 0, 8));
    let left = freezer.bus.ids("q", MessageState::Scheduled);
    assert_eq!(left, ["0", "1", "2", "3", "5", "6", "7", "8"]);
}

#[test]
fn what_is_gone_from_memory_does_not_come_back_with_its_neighbours() {
    let mut freezer = Freezer::new(queue("q"), 0, 2);
    let now = freezer.bus.now;
    for number in ["1", "2", "3"] {
        freezer.bus.send(
            "q",
            Message {
                time_to_live: (number == "2").then_some(seconds(10)).flatten(),
                ..message(number)
            },
        );
    }
    let first = freezer.bus.token("q");
    let from = path("q");
    let mode = ReceiveMode::ReceiveAndDelete;
    let second = freezer.bus.broker.receive_batch(now, &from, mode, None, 1);
    freezer.bus.abandon("q", first).unwrap();
    freezer.commit();
    assert_eq!(freezer.in_memory(), 0, "a page of 1 and 3");
    freezer.bus.broker.undelivered(now, &from, second.unwrap());
    freezer.commit();
    freezer.bus.wait(10);
    // Number 2 expires, which is not stored yet when the page is read.
    assert_eq!(freezer.bus.active("q"), ["1", "3"]);
}

#[test]
fn a_store_that_cannot_be_read_is_an_error_and_what_is_due_waits() {
    let mut freezer = Freezer::new(queue("q"), 0, 2);
    for number in ["1", "2"] {
        freezer.send(Message {
            time_to_live: seconds(10),
            ..message(number)
        });
    }
    assert_eq!(freezer.in_memory(), 0);
    *freezer.broken.lock().unwrap() = true;
    let now = freezer.bus.now;
    let received = freezer
        .bus
        .broker
        .receive(now, &path("q"), ReceiveMode::PeekLock);
    assert_eq!(received, Err(Error::Store("no such device".to_owned())));
    assert!(freezer.bus.broker.read_failure().is_some());
    freezer.bus.wait(10);
    freezer.bus.broker.advance(freezer.bus.now);
    assert!(freezer.bus.broker.read_failure().is_some());
    assert_eq!(freezer.counts(), (2, 0, 0));
    *freezer.broken.lock().unwrap() = false;
    freezer.bus.broker.advance(freezer.bus.now);
    assert_eq!(freezer.bus.broker.read_failure(), None);
    assert_eq!(freezer.counts(), (0, 0, 0));
}

#[test]
fn a_page_that_has_lost_a_message_is_left_to_the_store_again() {
    let mut freezer = Freezer::new(queue("q"), 4, 5);
    for number in 0..100 {
        freezer.send(Message {
            time_to_live: (number % 5 == 0).then_some(seconds(10)).flatten(),
            ..message(&number.to_string())
        });
    }
    freezer.bus.wait(10);
    freezer.bus.broker.advance(freezer.bus.now);
    freezer.commit();
    assert_eq!(freezer.counts(), (80, 0, 0));
    assert!(freezer.in_memory() < 9, "{}", freezer.in_memory());
    assert_eq!(freezer.bus.active("q").len(), 80);
}

#[test]
fn what_was_taken_before_a_page_that_cannot_be_read_is_handed_out() {
    let mut freezer = Freezer::new(queue("q"), 2, 2);
    for number in 0..6 {
        freezer.send(message(&number.to_string()));
    }
    let taken = freezer.in_memory();
    assert!(taken < 6);
    *freezer.broken.lock().unwrap() = true;
    let (now, mode) = (freezer.bus.now, ReceiveMode::ReceiveAndDelete);
    let mut receive = || {
        let from = path("q");
        let broker = &mut freezer.bus.broker;
        let received = broker.receive_batch(now, &from, mode, None, 10);
        received.map(|received| received.len())
    };
    assert_eq!(receive(), Ok(2));
    assert!(matches!(receive(), Err(Error::Store(_))));
    *freezer.broken.lock().unwrap() = false;
    assert_eq!(freezer.counts(), (4, 0, 0));
}

#[test]
fn what_is_due_is_carried_out_in_portions() {
    let mut freezer = Freezer::new(queue("q"), 1, 2);
    for number in 0..20 {
        freezer.send(Message {
            time_to_live: seconds(10),
            ..message(&number.to_string())
        });
    }
    let now = at(10);
    let mut portions = 0;
    while freezer.bus.broker.advance_part(now, 5) {
        freezer.commit();
        portions += 1;
    }
    assert!(portions >= 4, "{portions}");
    assert_eq!(freezer.counts(), (0, 0, 0));
}
