//! A runbook is read when there is no time to look for the right page: each link in the documentation leads somewhere, and the
//! index names each runbook.

use std::{collections::BTreeSet, fs, path::Path};

/// The pages of the repository that link to each other, by their paths below its root.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let in_docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        format!("docs/{name}")
    });
    in_docs
        .filter(|path| path.ends_with(".md"))
        .chain(["README.md".to_owned()])
        .map(|path| (fs::read_to_string(root.join(&path)).unwrap(), path))
        .map(|(text, path)| (path, text))
        .collect()
}

/// The text without what is code, in which brackets mean something else.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let lines = text.lines().filter(|line| {
        if line.starts_with("```") {
            is_code = !is_code;
        }
        !is_code && !line.starts_with("    ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Where the links of a page lead.
fn links(text: &str) -> Vec<String> {
    let targets = prose(text);
    let targets = targets.split("](").skip(1);
    targets
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.contains("://"))
        .map(str::to_owned)
        .collect()
}

/// What can stand behind `#`: the headings as GitHub writes them, and names that were set by hand.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose = prose(text);
    let headings = prose
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|rest| {
            let heading = rest.trim_start_matches('#').trim().to_lowercase();
            heading
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect::<String>()
        });
    let set = prose.split("<a name=\"").skip(1);
    let set = set.filter_map(|rest| rest.split('"').next().map(str::to_owned));
    headings.chain(set).collect()
}

#[test]
fn each_link_leads_somewhere() {
    let pages = pages();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut checked = 0;
    for (path, text) in &pages {
        for link in links(text) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = Path::new(path).parent().unwrap();
            let target = match file {
                "" => root.join(path),
                file => root.join(folder).join(file),
            };
            assert!(target.exists(), "{path} links to {link}");
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                assert!(anchors(&text).contains(anchor), "{path} links to {link}");
            }
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked} links were found");
}

#[test]
fn the_index_names_each_runbook() {
    let pages = pages();
    let (_, index) = pages
        .iter()
        .find(|(path, _)| path == "docs/RUNBOOKS.md")
        .unwrap();
    let named = links(index);
    for (path, text) in &pages {
        if text.starts_with("# Runbook: ") {
            let name = path.trim_start_matches("docs/");
            assert!(
                named
                    .iter()
                    .any(|link| link.split('#').next() == Some(name)),
                "{name} is in no row of RUNBOOKS.md"
            );
        }
    }
}
