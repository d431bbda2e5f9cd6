//! What a stand-in has accepted, kept in a file so that it survives `kill -9`.
//!
//! One JSON line per entry, written before the stand-in answers. The operating system keeps what was written even if
//! the process dies the moment after; a line that was cut short was never answered, and is removed when the file
//! is opened again. Clearing drops the entries and keeps their keys: what was accepted stays known, for idempotency.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What a journal keeps.
pub trait Entry: Serialize + DeserializeOwned {
    /// The key by which the same thing is known when it comes again, and what is remembered about it, even after
    /// the entry itself has been dropped. `None` is never known.
    fn key(&self) -> Option<(String, String)>;
}

/// What was ever accepted, by key.
pub type Known = BTreeMap<String, String>;

/// Entries of one kind.
#[derive(Debug)]
pub struct Journal<T>(Mutex<Entries<T>>);

#[derive(Debug)]
struct Entries<T> {
    path: PathBuf,
    file: File,
    /// The length of the file in bytes, all of it whole lines.
    length: u64,
    known: Known,
    shown: Vec<Arc<T>>,
}

/// The line that stands for an entry that was dropped.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dropped {
    known: (String, String),
}

impl<T: Entry> Journal<T> {
    /// Opens the file, or makes it; the error names it.
    pub fn open(path: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let text = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let whole = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let (mut known, mut shown) = (Known::new(), Vec::new());
        for (index, line) in text[..whole].split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            if let Ok(dropped) = serde_json::from_slice::<Dropped>(line) {
                known.extend([dropped.known]);
                continue;
            }
            let entry: T = serde_json::from_slice(line).map_err(|error| {
                format!(
                    "{}, line {}: {error}; delete this file: accepted orders stay",
                    path.display(),
                    index + 1
                )
            })?;
            known.extend(entry.key());
            shown.push(Arc::new(entry));
        }
        let file = open_to_append(path).map_err(failed)?;
        let length = whole as u64;
        file.set_len(length).map_err(failed)?;
        Ok(Self(Mutex::new(Entries {
            path: path.to_owned(),
            file,
            length,
            known,
            shown,
        })))
    }

    /// Gives `make` what is known so far, and writes and keeps what it makes of it; nothing else is accepted in
    /// between.
    pub fn accept<R>(&self, make: impl FnOnce(&Known) -> (Option<T>, R)) -> io::Result<R> {
        let mut entries = self.lock();
        let (entry, result) = make(&entries.known);
        if let Some(entry) = entry {
            let mut line = serde_json::to_string(&entry)?;
            line.push('\n');
            entries.append(line.as_bytes())?;
            entries.known.extend(entry.key());
            entries.shown.push(Arc::new(entry));
        }
        Ok(result)
    }

    /// The entries since the last clearing.
    pub fn shown(&self) -> Vec<Arc<T>> {
        self.lock().shown.clone()
    }

    /// Drops the entries so far; they stay known.
    pub fn clear(&self) -> io::Result<()> {
        let mut entries = self.lock();
        let mut text = String::new();
        for (key, value) in &entries.known {
            let known = (key.clone(), value.clone());
            text.push_str(&serde_json::to_string(&Dropped { known })?);
            text.push('\n');
        }
        // A file of its own that takes the other's place: a kill in between leaves one or the other whole.
        let rewritten = entries.path.with_extension("rewritten");
        std::fs::write(&rewritten, &text)?;
        let file = open_to_append(&rewritten)?;
        std::fs::rename(&rewritten, &entries.path)?;
        entries.file = file;
        entries.length = text.len() as u64;
        entries.shown.clear();
        Ok(())
    }

    /// A panic elsewhere leaves the entries whole: they change only after all that can fail.
    fn lock(&self) -> MutexGuard<'_, Entries<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Entries<T> {
    /// Writes the line whole or not at all: half a line in the middle would make the file unreadable.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(line) {
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }
}

fn open_to_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}
