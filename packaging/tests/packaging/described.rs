//! What is said of the binary: its crates, the bill of materials, the licences.

use std::collections::{BTreeMap, BTreeSet};

use packaging::{
    architecture::Architecture,
    dependencies::{Dependency, Id, Workspace, edges},
    licences, sbom,
    toolchain::Toolchain,
};
use serde_json::Value;

use crate::app::{App, project};

fn toolchain() -> Toolchain {
    Toolchain {
        rust: "1.90.0".to_owned(),
        zig: "0.17.1".to_owned(),
        std_licences: "std.html".into(),
        zig_licences: Vec::new(),
    }
}

fn orderups(architecture: Architecture) -> BTreeMap<Id, Dependency> {
    let workspace = Workspace::read(project(), architecture).unwrap();
    workspace.dependencies(project(), architecture).unwrap()
}

fn id(name: &str, version: &str) -> Id {
    (name.to_owned(), version.to_owned())
}

#[test]
fn the_tree_is_read_with_its_repetitions() {
    let tree = "0 orderup v0.1.0 (/a folder/of mine)\n1 a v1.0.0\n2 b v2.0.0\n1 c v3.0.0+x\n2 a v1.0.0 (*)\n";
    let edges = edges(tree).unwrap();
    assert_eq!(edges.len(), 4);
    assert_eq!(
        edges[&id("orderup", "0.1.0")],
        BTreeSet::from([id("a", "1.0.0"), id("c", "3.0.0+x")])
    );
    assert_eq!(
        edges[&id("c", "3.0.0+x")],
        BTreeSet::from([id("a", "1.0.0")])
    );
    assert_eq!(edges[&id("a", "1.0.0")], BTreeSet::from([id("b", "2.0.0")]));
}

#[test]
fn a_tree_of_another_form_is_an_error() {
    for line in ["orderup v0.1.0", "0 orderup 0.1.0", "1 orderup v0.1.0", "0"] {
        assert_eq!(edges(line), Err(line.to_owned()));
    }
}

#[test]
fn it_is_what_is_in_the_binary_and_nothing_else() {
    for architecture in [Architecture::X86_64, Architecture::Arm64] {
        let found = orderups(architecture);
        let has = |name: &str| found.keys().any(|id| id.0 == name);
        for name in [
            "orderup",
            "axum",
            "tokio",
            "ring",
            "azure_messaging_servicebus",
        ] {
            assert!(has(name), "{name}");
        }
        // Macros, build scripts, other platforms, tests, the local stack.
        for name in [
            "serde_derive",
            "syn",
            "cc",
            "windows-sys",
            "wasm-bindgen",
            "standardwebhooks",
            "devhost",
            "clap",
        ] {
            assert!(!has(name), "{name}");
        }
    }
}

#[test]
fn the_bill_of_materials_is_whole_and_the_same_each_time() {
    let found = orderups(Architecture::X86_64);
    let document = || sbom::document(&found, &toolchain(), Architecture::X86_64, "00");
    let bill = document();
    assert_eq!(bill, document());
    assert_eq!(bill["metadata"]["component"]["name"], "orderup");
    let list = |value: &Value| value.as_array().unwrap().clone();
    let components = list(&bill["components"]);
    assert_eq!(components.len(), found.len() - 1 + 2, "and std and zig");
    for component in &components {
        assert!(
            component["licenses"][0]["expression"].is_string(),
            "{component}"
        );
        let is_crate = component["purl"]
            .as_str()
            .unwrap()
            .starts_with("pkg:cargo/");
        assert_eq!(component["hashes"].is_array(), is_crate, "{component}");
        assert!(!component.to_string().contains(project().to_str().unwrap()));
    }
    let refs: BTreeSet<String> = components
        .iter()
        .chain([&bill["metadata"]["component"]])
        .map(|component| component["bom-ref"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(refs.len(), components.len() + 1);
    for link in list(&bill["dependencies"]) {
        for needed in list(&link["dependsOn"]).iter().chain([&link["ref"]]) {
            assert!(refs.contains(needed.as_str().unwrap()), "{needed}");
        }
    }
}

#[test]
fn every_crate_has_its_licence_and_each_text_is_there_once() {
    let found = orderups(Architecture::X86_64);
    let text = licences::document(&found, &toolchain(), Architecture::X86_64).unwrap();
    for (name, version) in found.keys().filter(|id| id.0 != "orderup") {
        assert!(text.contains(&format!("\n{name} {version} (")), "{name}");
    }
    assert_eq!(
        text.matches("Copyright (c) Microsoft Corporation.").count(),
        1
    );
    assert!(text.contains("see rust-std-licences.html"));
}

#[test]
fn a_crate_without_a_text_is_named() {
    let app = App::new("without_a_text");
    let dependency = Dependency {
        id: id("bare", "1.2.3"),
        licence: Some("MIT".to_owned()),
        repository: Some("https://example.net/bare".to_owned()),
        folder: app.0.join("src"),
        checksum: None,
        needs: BTreeSet::new(),
    };
    let mut found = BTreeMap::from([(dependency.id.clone(), dependency)]);
    let document = |found: &_| licences::document(found, &toolchain(), Architecture::X86_64);
    let why = document(&found).unwrap_err().to_string();
    assert!(
        why.contains("bare 1.2.3") && why.contains("packaging/licences"),
        "{why}"
    );
    // Further down counts as well.
    app.write("src/vendored/LICENSE.md", "Do as you like.\r\nReally.\r\n");
    assert!(
        document(&found)
            .unwrap()
            .ends_with("Do as you like.\nReally.\n")
    );
    app.remove("src/vendored/LICENSE.md");
    found.get_mut(&id("bare", "1.2.3")).unwrap().repository =
        Some("https://github.com/Azure/azure-sdk-for-rust".to_owned());
    assert!(document(&found).unwrap().contains("Microsoft Corporation"));
}
