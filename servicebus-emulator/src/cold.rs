//! The messages of one entity that lie in the store only, in pages of neighbours.
//!
//! Of each page no more is kept in memory than what says when it is needed. A page is formed of messages that are stored
//! and that nobody holds; it is read again, whole, when one of its messages is to be delivered, is due or is asked for.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{MessageState, entity::Stored};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// The sequence number of its last message; that of the first is its key.
    pub(crate) last: i64,
    pub(crate) len: usize,
    ready: usize,
    deferred: usize,
    /// In bytes.
    size: u64,
    /// When time first changes one of its messages.
    pub(crate) due: Option<Timestamp>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Cold {
    pages: BTreeMap<i64, Page>,
    /// The first numbers of the pages with messages to deliver.
    ready_pages: BTreeSet<i64>,
    len: usize,
    ready: usize,
    deferred: usize,
    size: u64,
}

impl Page {
    pub(crate) fn new(sequence: i64) -> Self {
        Self {
            last: sequence,
            len: 0,
            ready: 0,
            deferred: 0,
            size: 0,
            due: None,
        }
    }

    pub(crate) fn push(&mut self, sequence: i64, stored: &Stored, due: Option<Timestamp>) {
        self.last = sequence;
        self.len += 1;
        self.size += stored.size;
        match stored.state() {
            MessageState::Active => self.ready += 1,
            MessageState::Deferred => self.deferred += 1,
            MessageState::Scheduled | MessageState::Locked => {}
        }
        self.due = self.due.into_iter().chain(due).min();
    }
}

impl Cold {
    pub(crate) fn insert(&mut self, first: i64, page: Page) {
        self.len += page.len;
        self.ready += page.ready;
        self.deferred += page.deferred;
        self.size += page.size;
        if page.ready > 0 {
            self.ready_pages.insert(first);
        }
        self.pages.insert(first, page);
    }

    pub(crate) fn remove(&mut self, first: i64) -> Option<Page> {
        let page = self.pages.remove(&first)?;
        self.len -= page.len;
        self.ready -= page.ready;
        self.deferred -= page.deferred;
        self.size -= page.size;
        self.ready_pages.remove(&first);
        Some(page)
    }

    pub(crate) fn first_ready_page(&self) -> Option<i64> {
        self.ready_pages.first().copied()
    }

    /// The page that may hold a message with that number.
    pub(crate) fn page_with(&self, sequence: i64) -> Option<i64> {
        let (first, page) = self.pages.range(..=sequence).next_back()?;
        (sequence <= page.last).then_some(*first)
    }

    /// The first page that ends at that number or later.
    pub(crate) fn page_from(&self, sequence: i64) -> Option<i64> {
        self.page_with(sequence)
            .or_else(|| self.pages.range(sequence..).next().map(|(first, _)| *first))
    }

    pub(crate) fn last_page(&self) -> Option<(i64, &Page)> {
        self.pages
            .last_key_value()
            .map(|(first, page)| (*first, page))
    }

    #[cfg(test)]
    pub(crate) fn pages(&self) -> impl Iterator<Item = (i64, &Page)> {
        self.pages.iter().map(|(first, page)| (*first, page))
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn ready(&self) -> usize {
        self.ready
    }

    pub(crate) fn deferred(&self) -> usize {
        self.deferred
    }

    /// In bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}
