//! What the handler asks of the system that it will run on: no library but those of glibc, and no newer one than the
//! oldest that the platform has.
//!
//! The images of Azure Functions are Debian 11 (glibc 2.31) or newer; 2.28 is also what Red Hat 8 and its kin have.

use std::{fs, path::Path};

use object::{
    Endianness,
    elf::{DT_NEEDED, FileHeader64, Machine},
    read::elf::{Dyn, ElfFile64, FileHeader},
};

use crate::{architecture::Architecture, error::PackageError};

/// The newest glibc that may be needed.
pub const GLIBC: (u32, u32) = (2, 28);

/// The parts of glibc, of which there is one set on every system that has it.
const LIBRARIES: [&str; 7] = [
    "libc.so.6",
    "libm.so.6",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
];

/// What a handler needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub libraries: Vec<String>,
    /// The newest version of glibc that one of its symbols has; none where it needs no glibc.
    pub glibc: Option<(u32, u32)>,
}

/// Reads what the handler needs; an error if it would not start where it is to run.
pub fn check(path: &Path, architecture: Architecture) -> Result<Needs, PackageError> {
    let bytes = fs::read(path).map_err(|error| PackageError::Unreadable(path.to_owned(), error))?;
    let not_portable = |reason: String| PackageError::NotPortable {
        path: path.to_owned(),
        reason,
    };
    let (machine, needs) = needs(&bytes)
        .map_err(|error| not_portable(format!("is no executable of 64-bit Linux: {error}")))?;
    if machine != architecture.machine() {
        return Err(not_portable(format!(
            "is for another processor ({machine:?}) than {}",
            architecture.target()
        )));
    }
    match needs.refusal() {
        Some(reason) => Err(not_portable(reason)),
        None => Ok(needs),
    }
}

impl Needs {
    /// What is not to be had everywhere, if anything.
    pub fn refusal(&self) -> Option<String> {
        let is_special = |library: &&String| !LIBRARIES.contains(&library.as_str());
        if let Some(library) = self.libraries.iter().find(is_special) {
            return Some(format!(
                "needs {library}, which is no part of glibc: build it with zig, as `just package` does"
            ));
        }
        let (major, minor) = self.glibc.filter(|version| *version > GLIBC)?;
        Some(format!(
            "needs glibc {major}.{minor}, and may need {}.{} at most: build it with zig, as `just package` does",
            GLIBC.0, GLIBC.1
        ))
    }
}

/// The processor, and what the dynamic linker will look for.
fn needs(bytes: &[u8]) -> object::Result<(Machine, Needs)> {
    let elf = ElfFile64::<Endianness>::parse(bytes)?;
    let endian = elf.endian();
    let header: &FileHeader64<Endianness> = elf.elf_header();
    let sections = header.sections(endian, bytes)?;
    let mut needs = Needs::default();
    if let Some((entries, link)) = sections.dynamic(endian, bytes)? {
        let strings = sections.strings(endian, bytes, link)?;
        for entry in entries
            .iter()
            .filter(|entry| entry.d_tag(endian) == DT_NEEDED)
        {
            let name = entry.string(endian, strings)?;
            needs
                .libraries
                .push(String::from_utf8_lossy(name).into_owned());
        }
    }
    if let Some((mut files, link)) = sections.gnu_verneed(endian, bytes)? {
        let strings = sections.strings(endian, bytes, link)?;
        while let Some((_, mut versions)) = files.next()? {
            while let Some(version) = versions.next()? {
                let name = String::from_utf8_lossy(version.name(endian, strings)?);
                needs.glibc = needs.glibc.max(glibc(&name));
            }
        }
    }
    Ok((header.e_machine(endian), needs))
}

/// The version in `GLIBC_2.28`; its patch level, as in `GLIBC_2.2.5`, never matters.
fn glibc(name: &str) -> Option<(u32, u32)> {
    let mut numbers = name.strip_prefix("GLIBC_")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
