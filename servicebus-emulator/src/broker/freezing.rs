//! Which messages are in memory: those that are delivered next or held, and no more than some thousands of each entity.
//!
//! After a commit what lies behind them is left to the store alone ([`crate::cold`]); it is read again, a page at a time,
//! before it is needed. A broker without a store keeps everything. Messages of entities with sessions stay in memory,
//! because which session is next depends on all of them.

use jiff::Timestamp;

use super::Broker;
use crate::{
    Error,
    cold::Page,
    entity::{EntityId, Record, Stored},
};

/// Reads the records of an entity, by its key, from one sequence number to another.
pub(crate) type ReadRecords =
    Box<dyn FnMut(&str, i64, i64) -> Result<Vec<(i64, Record)>, String> + Send>;

/// Where messages lie that are not in memory, and how many are.
pub(crate) struct Frozen {
    pub(crate) read: ReadRecords,
    /// How many messages of an entity that nobody holds stay in memory.
    pub(crate) kept: usize,
    pub(crate) page: usize,
    /// Why the store could not be read, until it is known to the owner.
    pub(crate) failure: Option<String>,
}

impl Frozen {
    pub(crate) fn new(read: ReadRecords) -> Self {
        Self {
            read,
            kept: 1_000,
            page: 250,
            failure: None,
        }
    }
}

impl Broker {
    /// From now on what has been committed may be left to the store.
    pub(crate) fn freeze_into(&mut self, frozen: Frozen) {
        self.frozen = Some(frozen);
    }

    /// Why something that was due could not be carried out: the store could not be read.
    pub(crate) fn read_failure(&mut self) -> Option<String> {
        self.frozen.as_mut()?.failure.take()
    }

    /// Leaves to the store what nobody will need soon; everything has been committed.
    pub(crate) fn freeze(&mut self) {
        let Some(frozen) = &self.frozen else { return };
        let (kept, size) = (frozen.kept, frozen.page);
        for at in (0..self.entities.len()).map(EntityId) {
            if self.entities[at.0].unheld() >= kept + size {
                self.freeze_behind(at, kept, size);
            }
        }
    }

    fn freeze_behind(&mut self, at: EntityId, kept: usize, size: usize) {
        let entity = &self.entities[at.0];
        let mut pages: Vec<Vec<i64>> = Vec::new();
        let mut run = Vec::new();
        let mut passed = 0;
        for (sequence, stored) in entity.messages() {
            if stored.lock.is_some() {
                run.clear();
                continue;
            }
            // A page has nothing between its messages, and so no other page either.
            let previous = run.last().copied().unwrap_or(sequence);
            if entity
                .cold
                .page_from(previous)
                .is_some_and(|first| first < sequence)
            {
                run.clear();
            }
            passed += 1;
            if passed > kept {
                run.push(sequence);
            }
            if run.len() == size {
                pages.push(std::mem::take(&mut run));
            }
        }
        for numbers in pages {
            self.freeze_page(at, &numbers);
        }
    }

    fn freeze_page(&mut self, at: EntityId, numbers: &[i64]) {
        let Some(&first) = numbers.first() else {
            return;
        };
        let entity = &mut self.entities[at.0];
        let mut page = Page::new(first);
        for &sequence in numbers {
            if let Some(stored) = entity.replace(sequence, None) {
                let due = entity.due(&stored);
                page.push(sequence, &stored, due);
                if let Some(due) = due {
                    self.due.remove(&(due, at, sequence));
                }
            }
        }
        self.add_page(at, first, page);
    }

    fn add_page(&mut self, at: EntityId, first: i64, page: Page) {
        if let Some(due) = page.due {
            self.page_due.insert((due, at, first));
        }
        self.entities[at.0].cold.insert(first, page);
    }

    /// A message as the namespace is opened: left where it is, if that is possible. They come by number.
    pub(super) fn load_frozen(&mut self, at: EntityId, sequence: i64, stored: &Stored) -> bool {
        let Some(frozen) = &self.frozen else {
            return false;
        };
        let size = frozen.page;
        let entity = &mut self.entities[at.0];
        if entity.settings.requires_session {
            return false;
        }
        let due = entity.due(stored);
        let is_neighbour = |last: i64| entity.messages_from(last).next().is_none();
        let open = match entity.cold.last_page() {
            Some((first, page)) if page.len < size && is_neighbour(page.last) => Some(first),
            _ => None,
        };
        let first = open.unwrap_or(sequence);
        let mut page = match open.and_then(|first| entity.cold.remove(first)) {
            Some(page) => {
                if let Some(due) = page.due {
                    self.page_due.remove(&(due, at, first));
                }
                page
            }
            None => Page::new(first),
        };
        page.push(sequence, stored, due);
        self.usage[entity.quota.0] += stored.size;
        self.add_page(at, first, page);
        true
    }

    /// Reads one page back into memory.
    pub(super) fn thaw(&mut self, at: EntityId, first: i64) -> Result<(), Error> {
        let entity = &mut self.entities[at.0];
        let Some(frozen) = &mut self.frozen else {
            return Ok(());
        };
        let Some(page) = entity.cold.remove(first) else {
            return Ok(());
        };
        let records = match (frozen.read)(&entity.key, first, page.last) {
            Ok(records) => records,
            Err(reason) => {
                entity.cold.insert(first, page);
                frozen.failure = Some(reason.clone());
                return Err(Error::Store(reason));
            }
        };
        if let Some(due) = page.due {
            self.page_due.remove(&(due, at, first));
        }
        // What changed since the last commit is in memory, or not there any more, whatever the store says.
        let touched = self.journal.touched(at, first, page.last);
        for (sequence, record) in records {
            if touched.contains(&sequence) || entity.get(sequence).is_some() {
                continue;
            }
            let stored = Stored::new(record);
            if let Some(due) = entity.due(&stored) {
                self.due.insert((due, at, sequence));
            }
            entity.replace(sequence, Some(stored));
        }
        Ok(())
    }

    /// Reads back the page with that message, if it is in one.
    pub(super) fn thaw_message(&mut self, at: EntityId, sequence: i64) -> Result<(), Error> {
        match self.entities[at.0].cold.page_with(sequence) {
            Some(first) => self.thaw(at, first),
            None => Ok(()),
        }
    }

    /// Reads back all messages of the entity.
    pub(crate) fn thaw_all(&mut self, at: EntityId) -> Result<(), Error> {
        while let Some(first) = self.entities[at.0].cold.page_from(i64::MIN) {
            self.thaw(at, first)?;
        }
        Ok(())
    }

    /// Reads back the page with the first message from that number on, unless one in memory comes first.
    pub(super) fn thaw_up_to_next(&mut self, at: EntityId, sequence: i64) -> Result<(), Error> {
        let entity = &self.entities[at.0];
        let next = entity.messages_from(sequence).next().map(|(next, _)| next);
        match entity.cold.page_from(sequence) {
            Some(first) if next.is_none_or(|next| first < next) => self.thaw(at, first),
            _ => Ok(()),
        }
    }

    /// The number of the first message that is ready, in memory now.
    pub(super) fn thaw_first_ready(&mut self, at: EntityId) -> Result<Option<i64>, Error> {
        loop {
            let entity = &self.entities[at.0];
            let ready = entity.first_ready();
            match entity.cold.first_ready_page() {
                Some(first) if ready.is_none_or(|ready| first < ready) => self.thaw(at, first)?,
                _ => return Ok(ready),
            }
        }
    }

    /// When the first page has something due.
    pub(super) fn next_page_due(&self) -> Option<(Timestamp, EntityId, i64)> {
        self.page_due.first().copied()
    }
}
