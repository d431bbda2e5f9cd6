//! Which files a package has: `host.json`, `vendors.json`, the `function.json` of each function, and the handler.
//!
//! A function is a folder beside `host.json` that has a `function.json`; in it nothing else may be. `.funcignore` must
//! leave exactly these files, so that `func azure functionapp publish` uploads the same package.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{error::PackageError, funcignore::FuncIgnore};

/// The handler's file, which `host.json` names.
pub const HANDLER: &str = "orderup";

/// One file of the package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path in the package, with slashes.
    pub name: String,
    /// Where its content is.
    pub source: PathBuf,
    /// The permissions it has when it is unpacked.
    pub mode: u32,
}

/// All files, sorted by name; the error names what is missing, extra or wrong.
pub fn contents(app: &Path, handler: &Path) -> Result<Vec<Entry>, PackageError> {
    let host = json(app, "host.json")?;
    let executable = &host["customHandler"]["description"]["defaultExecutablePath"];
    if executable != HANDLER {
        return Err(PackageError::Wrong(
            app.join("host.json"),
            format!("defaultExecutablePath is {executable}, and the handler is `{HANDLER}`"),
        ));
    }
    if !json(app, "vendors.json")?.is_array() {
        return Err(PackageError::Wrong(
            app.join("vendors.json"),
            "it is no list".to_owned(),
        ));
    }
    if !handler.is_file() {
        return Err(PackageError::Missing(handler.to_owned()));
    }
    let functions = functions(app)?;
    if functions.is_empty() {
        return Err(PackageError::Missing(app.join("*/function.json")));
    }
    let mut entries = vec![Entry {
        name: HANDLER.to_owned(),
        source: handler.to_owned(),
        mode: 0o755,
    }];
    let settings = functions
        .iter()
        .map(|function| format!("{function}/function.json"));
    for name in settings.chain(["host.json", "vendors.json"].map(str::to_owned)) {
        let source = app.join(&name);
        entries.push(Entry {
            name,
            source,
            mode: 0o644,
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let ignore = FuncIgnore::read(app)?;
    ignore.check(app, &entries)?;
    Ok(entries)
}

/// The names of the functions.
fn functions(app: &Path) -> Result<Vec<String>, PackageError> {
    let mut functions = Vec::new();
    for folder in names(app)? {
        let path = app.join(&folder);
        if !path.join("function.json").is_file() {
            continue;
        }
        if let Some(other) = names(&path)?
            .into_iter()
            .find(|name| name != "function.json")
        {
            return Err(PackageError::Extra(path.join(other)));
        }
        json(&path, "function.json")?;
        functions.push(folder);
    }
    Ok(functions)
}

/// The names of what a folder has.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, PackageError> {
    let unreadable = |error| PackageError::Unreadable(folder.to_owned(), error);
    fs::read_dir(folder)
        .map_err(unreadable)?
        .map(|entry| {
            let name = entry.map_err(unreadable)?.file_name();
            name.into_string()
                .map_err(|name| PackageError::Extra(folder.join(name)))
        })
        .collect()
}

fn json(folder: &Path, name: &str) -> Result<Value, PackageError> {
    let path = folder.join(name);
    if !path.is_file() {
        return Err(PackageError::Missing(path));
    }
    let text = fs::read(&path).map_err(|error| PackageError::Unreadable(path.clone(), error))?;
    serde_json::from_slice(&text).map_err(|error| PackageError::Wrong(path, error.to_string()))
}
