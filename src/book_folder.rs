//! The order book in a folder, for a machine of one's own: development, tests, a disk that all instances share.
//!
//! An object is a file, which is linked to its name when it is complete and on the disk: so it is there as a whole or not
//! at all, and stays after a loss of power. All of this blocks, and is called where that may be.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::book_path;
use crate::book_store::Listed;
use crate::store_error::StoreError;

/// Where files are until they are complete. No object's name begins with a dot.
const UNFINISHED: &str = ".unfinished";

/// An unfinished file of this age belongs to a process that was killed.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

pub struct BookFolder {
    root: PathBuf,
}

impl BookFolder {
    /// Creates the folder if it is missing.
    ///
    /// # Errors
    /// If it can't be created, or is no folder.
    pub fn open(root: &Path) -> io::Result<Self> {
        let unfinished = root.join(UNFINISHED);
        fs::create_dir_all(&unfinished)?;
        for entry in fs::read_dir(&unfinished)?.flatten() {
            let age = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok()
                .and_then(|modified| SystemTime::now().duration_since(modified).ok());
            if age.is_some_and(|age| age > ABANDONED) {
                // Another process may be doing the same.
                let _ = fs::remove_file(entry.path());
            }
        }
        Self::open_to_read(root)
    }

    /// The same without creating or clearing away anything.
    ///
    /// # Errors
    /// If there is no such folder, or it is none of ours.
    pub fn open_to_read(root: &Path) -> io::Result<Self> {
        // Whatever becomes of the working directory.
        let folder = Self {
            root: root.canonicalize()?,
        };
        fs::metadata(folder.root.join(UNFINISHED))?;
        Ok(folder)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// True if it was not there and is now.
    pub fn put_once(&self, path: &str, body: &[u8]) -> Result<bool, StoreError> {
        let target = self.root.join(path);
        let folder = target.parent().unwrap_or(&self.root);
        let unfinished = self.root.join(UNFINISHED).join(Uuid::new_v4().to_string());
        let is_new =
            write(&unfinished, body).and_then(|()| match fs::hard_link(&unfinished, &target) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    fs::create_dir_all(folder)?;
                    fs::hard_link(&unfinished, &target)
                }
                result => result,
            });
        let _ = fs::remove_file(&unfinished);
        let is_new = match is_new {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error.into()),
        };
        // The names as well. Also those of an object that somebody else has just put there, on whose being there the
        // caller relies.
        for folder in folder.ancestors() {
            File::open(folder)?.sync_all()?;
            if folder == self.root {
                break;
            }
        }
        Ok(is_new)
    }

    pub fn get(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        match fs::read(self.root.join(path)) {
            Ok(body) => Ok(Some(body.into())),
            Err(error) if is_absence(&error) => self.is_there().map(|()| None),
            Err(error) => Err(error.into()),
        }
    }

    pub fn delete(&self, path: &str) -> Result<(), StoreError> {
        match fs::remove_file(self.root.join(path)) {
            Ok(()) => Ok(()),
            Err(error) if is_absence(&error) => self.is_there(),
            Err(error) => Err(error.into()),
        }
    }

    /// The first `limit` by path of what begins with `prefix`, which is empty or ends with a slash.
    pub fn list(&self, prefix: &str, limit: usize) -> Result<Vec<Listed>, StoreError> {
        self.is_there()?;
        // A heap is less code in the program than a sort.
        let mut paths = BinaryHeap::new();
        let mut folders = vec![prefix.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(self.root.join(&folder)) {
                Ok(entries) => entries,
                Err(error) if is_absence(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                let Some(name) = name.to_str().filter(|name| book_path::is_segment(name)) else {
                    continue;
                };
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    folders.push(format!("{folder}{name}/"));
                } else if kind.is_file() {
                    paths.push(Reverse(format!("{folder}{name}")));
                }
            }
        }
        let mut listed = Vec::new();
        while listed.len() < limit
            && let Some(Reverse(path)) = paths.pop()
        {
            let metadata = match fs::metadata(self.root.join(&path)) {
                Ok(metadata) => metadata,
                // Deleted meanwhile.
                Err(error) if is_absence(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            listed.push(Listed {
                path,
                size: metadata.len(),
                last_modified: OffsetDateTime::from(metadata.modified()?),
            });
        }
        Ok(listed)
    }

    /// A book without its folder, a disk that is not mounted for one, is not empty but gone.
    pub fn is_there(&self) -> Result<(), StoreError> {
        fs::metadata(self.root.join(UNFINISHED))?;
        Ok(())
    }
}

fn write(path: &Path, body: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(body)?;
    file.sync_all()
}

/// A folder of that name, or a file where a folder would be, is no object either.
fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::NotADirectory
    )
}
