//! `SHA256SUMS`, in the form that `sha256sum --check` reads.

use std::{fs, path::Path};

use sha2::{Digest, Sha256};

use crate::{contents::names, error::PackageError};

/// The file's name.
pub const FILE: &str = "SHA256SUMS";

/// Of all files of the folder, by name.
pub fn write(dist: &Path) -> Result<(), PackageError> {
    let mut files = names(dist)?;
    files.retain(|name| name != FILE);
    files.sort();
    let mut lines = String::new();
    for name in files {
        lines += &format!("{}  {name}\n", sha256(&dist.join(&name))?);
    }
    let path = dist.join(FILE);
    fs::write(&path, lines).map_err(|error| PackageError::Unwritable(path, error))
}

/// The digest in hexadecimal digits.
pub fn sha256(file: &Path) -> Result<String, PackageError> {
    let bytes = fs::read(file).map_err(|error| PackageError::Unreadable(file.to_owned(), error))?;
    Ok(Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
