//! The zip: the same files give the same bytes, whenever and wherever it is made.
//!
//! Entries are sorted and have fixed permissions and the earliest time that the format knows. What deflate makes of a
//! file depends on the version of the compressor, which `Cargo.lock` pins.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use zip::{CompressionMethod, DateTime, System, ZipWriter, write::SimpleFileOptions};

use crate::{contents::Entry, error::PackageError};

/// What the handler may have in bytes: start-up is quick because it is small.
pub const HANDLER_BUDGET: u64 = 5_242_880;
/// What the zip may have in bytes: each new instance fetches it before its first answer.
pub const ZIP_BUDGET: u64 = 2_621_440;

/// Writes the zip. Nothing is left of it if it cannot be made.
pub fn write(path: &Path, entries: &[Entry]) -> Result<(), PackageError> {
    let written = write_entries(path, entries).and_then(|()| within(path, ZIP_BUDGET));
    if written.is_err() {
        drop(fs::remove_file(path));
    }
    written
}

fn write_entries(path: &Path, entries: &[Entry]) -> Result<(), PackageError> {
    let unwritable = |error| PackageError::Unwritable(path.to_owned(), error);
    let file = File::create(path).map_err(unwritable)?;
    let mut zip = ZipWriter::new(BufWriter::new(file));
    for entry in entries {
        let content = fs::read(&entry.source)
            .map_err(|error| PackageError::Unreadable(entry.source.clone(), error))?;
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .compression_level(Some(9))
            .last_modified_time(DateTime::default())
            .system(System::Unix)
            .unix_permissions(entry.mode);
        zip.start_file(entry.name.as_str(), options)?;
        zip.write_all(&content).map_err(unwritable)?;
    }
    zip.finish()?.flush().map_err(unwritable)
}

/// The size in bytes is within the budget.
pub fn within(path: &Path, budget: u64) -> Result<(), PackageError> {
    let size = fs::metadata(path)
        .map_err(|error| PackageError::Unreadable(path.to_owned(), error))?
        .len();
    if size > budget {
        return Err(PackageError::TooLarge {
            path: path.to_owned(),
            size,
            budget,
        });
    }
    Ok(())
}
