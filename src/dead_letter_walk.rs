//! One walk through a dead-letter queue, from its head to its end.
//!
//! REST has no way to look at the messages behind the first: what was looked at stays locked, so that the next one comes
//! to the head, and is unlocked at the end. A lock may expire before that. Its message then comes to the head
//! again, is known by its sequence number, and is locked anew. When more have come again in a row than are held, a
//! round takes longer than a lock lives: the walk can't get further, and [`Walk::may_be_more`] says so.

use std::{cell::Cell, collections::HashMap};

use futures_util::{StreamExt, stream};

use crate::{
    dead_letter::DeadLetter,
    dead_letter_queue::{DeadLetterQueue, Lock, QueueError},
};

/// So many locks are given back at the same time.
const UNLOCKS: usize = 8;

pub struct Walk {
    pub queue: DeadLetterQueue,
    held: HashMap<i64, Lock>,
    stuck: bool,
}

impl Walk {
    pub fn new(queue: DeadLetterQueue) -> Self {
        Self {
            queue,
            held: HashMap::new(),
            stuck: false,
        }
    }

    /// The next dead letter that this walk has not seen, locked; nothing at the end.
    ///
    /// # Errors
    /// If the queue can't be asked. The walk holds what it held.
    pub async fn next(&mut self) -> Result<Option<DeadLetter>, QueueError> {
        let mut again = 0;
        while let Some(locked) = self.queue.lock_next().await? {
            let sequence_number = locked.dead_letter.sequence_number;
            if self.held.insert(sequence_number, locked.lock).is_none() {
                return Ok(Some(locked.dead_letter));
            }
            again += 1;
            if again > self.held.len() {
                self.stuck = true;
                break;
            }
        }
        Ok(None)
    }

    /// Removes a message that the walk has come to.
    ///
    /// # Errors
    /// See [`DeadLetterQueue::complete`]. It stays known, and does not come again in this walk.
    pub async fn complete(&mut self, dead_letter: &DeadLetter) -> Result<(), QueueError> {
        let Some(lock) = self.held.get(&dead_letter.sequence_number) else {
            return Err(QueueError::LockLost);
        };
        self.queue.complete(lock).await?;
        self.held.remove(&dead_letter.sequence_number);
        Ok(())
    }

    /// Whether the walk ended before the queue did.
    pub fn may_be_more(&self) -> bool {
        self.stuck || self.queue.may_hide_a_message()
    }

    /// Unlocks everything; answers how many locks could not be given back, which then end by themselves.
    pub async fn end(self) -> usize {
        let (queue, failed) = (&self.queue, Cell::new(0));
        stream::iter(self.held.values())
            .for_each_concurrent(UNLOCKS, async |lock| {
                // Once the service can't be reached, asking on and on for each of them helps nobody.
                let unlocked = match failed.get() {
                    0 => queue.unlock(lock).await,
                    _ => return failed.set(failed.get() + 1),
                };
                match unlocked {
                    Ok(()) | Err(QueueError::LockLost) => {}
                    Err(_) => failed.set(failed.get() + 1),
                }
            })
            .await;
        failed.get()
    }
}
