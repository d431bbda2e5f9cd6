//! The sessions of one entity: which messages of each are ready, which are locked, who holds it, and its state.
//!
//! A session exists as long as it has messages that are ready or locked, is held, or has a state. Its lock is the lock of
//! all messages received under it. What is ready and locked follows from [`crate::entity::Entity::replace`]; the lock and
//! the state are changed by the broker, which also notes what was there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use crate::entity::Lock;

/// What of a session does not follow from its messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Held {
    pub(crate) lock: Option<Lock>,
    /// Outlives the process, unlike the lock.
    pub(crate) state: Option<Bytes>,
    /// When the state was last set.
    pub(crate) updated: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Session {
    held: Held,
    ready: BTreeSet<i64>,
    locked: BTreeSet<i64>,
    /// Its place in `available`.
    first_ready: Option<i64>,
}

#[derive(Debug, Default)]
pub(crate) struct Sessions {
    sessions: BTreeMap<Arc<str>, Session>,
    by_token: HashMap<Uuid, Arc<str>>,
    /// Those that nobody holds, by their first ready message.
    available: BTreeSet<(i64, Arc<str>)>,
}

impl Sessions {
    /// The one with the oldest message among those that nobody holds.
    pub(crate) fn next_available(&self) -> Option<Arc<str>> {
        self.available.first().map(|(_, id)| Arc::clone(id))
    }

    pub(crate) fn held(&self, id: &str) -> Held {
        self.sessions
            .get(id)
            .map(|session| session.held.clone())
            .unwrap_or_default()
    }

    /// The session that is held with that token.
    pub(crate) fn under(&self, token: Uuid) -> Option<&Arc<str>> {
        self.by_token.get(&token)
    }

    pub(crate) fn first_ready(&self, id: &str) -> Option<i64> {
        self.sessions.get(id)?.ready.first().copied()
    }

    /// The messages that are locked under the session.
    pub(crate) fn locked(&self, id: &str) -> Vec<i64> {
        self.sessions
            .get(id)
            .map(|session| session.locked.iter().copied().collect())
            .unwrap_or_default()
    }

    /// Sets lock and state; gives back what was there.
    pub(crate) fn hold(&mut self, id: &Arc<str>, held: Held) -> Held {
        let lock = held.lock;
        let previous = self.change(id, |session| std::mem::replace(&mut session.held, held));
        if let Some(previous) = previous.lock {
            self.by_token.remove(&previous.token);
        }
        if let Some(lock) = lock {
            self.by_token.insert(lock.token, Arc::clone(id));
        }
        previous
    }

    /// A message of the session has become ready (or not), locked (or not).
    pub(crate) fn place(&mut self, id: &Arc<str>, sequence: i64, ready: bool, locked: bool) {
        self.change(id, |session| {
            for (set, is_in) in [(&mut session.ready, ready), (&mut session.locked, locked)] {
                if is_in {
                    set.insert(sequence);
                } else {
                    set.remove(&sequence);
                }
            }
        });
    }

    /// Those with messages or a state, or those whose state was set after that time, by name.
    pub(crate) fn ids(&self, updated_since: Option<Timestamp>) -> impl Iterator<Item = &Arc<str>> {
        self.sessions
            .iter()
            .filter(move |(_, session)| match updated_since {
                Some(since) => session.held.updated.is_some_and(|updated| updated > since),
                None => {
                    !session.ready.is_empty()
                        || !session.locked.is_empty()
                        || session.held.state.is_some()
                }
            })
            .map(|(id, _)| id)
    }

    /// Lock and state of every session that has either.
    pub(crate) fn all_held(&self) -> impl Iterator<Item = (&Arc<str>, &Held)> {
        self.sessions
            .iter()
            .filter(|(_, session)| session.held != Held::default())
            .map(|(id, session)| (id, &session.held))
    }

    /// Until when each session is held that someone holds.
    pub(crate) fn locks(&self) -> impl Iterator<Item = (Arc<str>, Timestamp)> {
        self.by_token.values().filter_map(|id| {
            let lock = self.sessions.get(id)?.held.lock?;
            Some((Arc::clone(id), lock.until))
        })
    }

    fn change<T>(&mut self, id: &Arc<str>, change: impl FnOnce(&mut Session) -> T) -> T {
        let session = self.sessions.entry(Arc::clone(id)).or_default();
        let outcome = change(session);
        let first_ready = match session.held.lock {
            Some(_) => None,
            None => session.ready.first().copied(),
        };
        if session.first_ready != first_ready {
            if let Some(previous) = session.first_ready {
                self.available.remove(&(previous, Arc::clone(id)));
            }
            if let Some(first) = first_ready {
                self.available.insert((first, Arc::clone(id)));
            }
            session.first_ready = first_ready;
        }
        if session.ready.is_empty() && session.locked.is_empty() && session.held == Held::default()
        {
            self.sessions.remove(id);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::at;

    fn lock(token: u128) -> Held {
        Held {
            lock: Some(Lock {
                token: Uuid::from_u128(token),
                until: at(30),
            }),
            ..Held::default()
        }
    }

    #[test]
    fn the_next_session_is_the_free_one_with_the_oldest_message() {
        let mut sessions = Sessions::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        sessions.place(&b, 1, true, false);
        sessions.place(&a, 2, true, false);
        assert_eq!(sessions.next_available().as_deref(), Some("b"));
        sessions.hold(&b, lock(7));
        assert_eq!(sessions.next_available().as_deref(), Some("a"));
        assert_eq!(
            sessions.under(Uuid::from_u128(7)).map(|id| &**id),
            Some("b")
        );
        sessions.place(&b, 1, false, true);
        sessions.hold(&b, Held::default());
        assert_eq!(sessions.under(Uuid::from_u128(7)), None);
        assert_eq!(sessions.locked("b"), [1]);
        sessions.place(&b, 1, true, false);
        assert_eq!(sessions.next_available().as_deref(), Some("b"));
    }

    #[test]
    fn a_session_without_messages_lock_and_state_is_gone() {
        let mut sessions = Sessions::default();
        let id: Arc<str> = "a".into();
        sessions.place(&id, 1, true, false);
        sessions.hold(
            &id,
            Held {
                state: Some(Bytes::from_static(b"x")),
                updated: Some(at(5)),
                lock: None,
            },
        );
        sessions.place(&id, 1, false, false);
        assert_eq!(sessions.ids(None).count(), 1);
        assert_eq!(sessions.ids(Some(at(4))).count(), 1);
        assert_eq!(sessions.ids(Some(at(5))).count(), 0);
        sessions.hold(&id, Held::default());
        assert!(sessions.sessions.is_empty());
    }
}
