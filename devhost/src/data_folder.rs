//! The folder in which everything that was accepted outlives devhost.
//!
//! A marker file says that the folder is ours: `--fresh` empties no other. Its lock, which ends with the process that
//! holds it, keeps a second devhost out, and is taken before anything is written or emptied.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

const MARKER: &str = ".devhost";

/// The folder, ours as long as this lives.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _locked: File,
}

impl DataFolder {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the folder ready, empty if `fresh`; the error says what to do.
pub fn prepare(folder: &Path, fresh: bool) -> Result<DataFolder, String> {
    let failed = |error: io::Error| format!("the data folder `{}`: {error}", folder.display());
    let marker = folder.join(MARKER);
    let has_content =
        folder.is_dir() && std::fs::read_dir(folder).map_err(failed)?.next().is_some();
    if has_content && !marker.exists() {
        return Err(format!(
            "`{}` holds other things than devhost's; choose another folder with --data",
            folder.display()
        ));
    }
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut locked = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(&marker)
        .map_err(failed)?;
    locked.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => format!(
            "another devhost uses `{}`; end it, or choose another folder with --data",
            folder.display()
        ),
        TryLockError::Error(error) => failed(error),
    })?;
    if fresh {
        empty(folder).map_err(failed)?;
    }
    if locked.metadata().map_err(failed)?.len() == 0 {
        locked
            .write_all(b"The data of devhost; `--fresh` empties this folder.\n")
            .map_err(failed)?;
    }
    Ok(DataFolder {
        path: folder.canonicalize().map_err(failed)?,
        _locked: locked,
    })
}

/// Removes everything but the marker, whose lock is held.
fn empty(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() == MARKER {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
