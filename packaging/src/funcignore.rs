//! `.funcignore`, as Core Tools and git read it.
//!
//! Core Tools translates each line into a regular expression that has to match the *beginning* of a path, and what any
//! line with `!` matches is never ignored ([`GitIgnoreParser.cs`]). Git and what goes by its rules (azd, VS Code) match
//! whole names, and the last line that matches counts. Both mean the same by lines of three shapes, in this order, and
//! no others are taken: `/*` for all there is, `!/name` for a file, and `!/name/` for a folder.
//!
//! [`GitIgnoreParser.cs`]: https://github.com/Azure/azure-functions-core-tools/blob/501144195ea6cccf2cd03576a6d82b74419a25cf/src/Azure.Functions.Cli/Common/GitIgnoreParser.cs

use std::{fs, path::Path};

use crate::{
    contents::{Entry, names},
    error::PackageError,
};

const FILE: &str = ".funcignore";

/// What Core Tools leaves out whatever the file says.
const NEVER_UPLOADED: [&str; 6] = [
    ".funcignore",
    ".git",
    ".gitignore",
    ".vscode",
    "local.settings.json",
    "project.lock.json",
];

/// What is not ignored.
#[derive(Debug)]
pub struct FuncIgnore {
    files: Vec<String>,
    folders: Vec<String>,
}

impl FuncIgnore {
    /// Reads the app's.
    pub fn read(app: &Path) -> Result<Self, PackageError> {
        let path = app.join(FILE);
        let text = fs::read_to_string(&path)
            .map_err(|error| PackageError::Unreadable(path.clone(), error))?;
        Self::parse(&text).map_err(|reason| PackageError::Wrong(path, reason))
    }

    /// The error says which line is of no known shape.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        if lines.next() != Some("/*") {
            return Err("the first line is not `/*`".to_owned());
        }
        let mut ignore = Self {
            files: Vec::new(),
            folders: Vec::new(),
        };
        for line in lines {
            let Some(name) = line.strip_prefix("!/") else {
                return Err(format!("`{line}` is neither `!/name` nor `!/name/`"));
            };
            let (name, kind) = match name.strip_suffix('/') {
                Some(folder) => (folder, &mut ignore.folders),
                None => (name, &mut ignore.files),
            };
            if name.is_empty() || name.contains(['/', '*', '?', '[', '\\']) {
                return Err(format!("`{line}` is neither `!/name` nor `!/name/`"));
            }
            kind.push(name.to_owned());
        }
        Ok(ignore)
    }

    /// Whether what is left, by either reading, is the package. The handler need not be there.
    pub(crate) fn check(&self, app: &Path, entries: &[Entry]) -> Result<(), PackageError> {
        for entry in entries {
            if !self.keeps(&entry.name) {
                return Err(PackageError::Ignored(entry.name.clone()));
            }
        }
        // What is at the top decides: folders that are kept are the functions, which have one file each.
        for name in names(app)? {
            if NEVER_UPLOADED.contains(&name.as_str()) {
                continue;
            }
            let path = app.join(&name);
            let uploaded = if path.is_dir() {
                self.uploads(&format!("{name}/"))
            } else {
                self.uploads(&name)
            };
            let is_part = |entry: &Entry| entry.name.split('/').next() == Some(name.as_str());
            if uploaded && !entries.iter().any(is_part) {
                return Err(PackageError::NotIgnored(path));
            }
        }
        Ok(())
    }

    /// Whether git's reading keeps the file.
    fn keeps(&self, name: &str) -> bool {
        match name.split_once('/') {
            Some((folder, _)) => self.folders.iter().any(|kept| kept == folder),
            None => self.files.iter().any(|kept| kept == name),
        }
    }

    /// Whether Core Tools' reading, which asks for the beginning only, keeps the path; no less than git's does.
    fn uploads(&self, path: &str) -> bool {
        let folders = self.folders.iter().map(|folder| format!("{folder}/"));
        self.files
            .iter()
            .cloned()
            .chain(folders)
            .any(|kept| path.starts_with(&kept))
    }
}
