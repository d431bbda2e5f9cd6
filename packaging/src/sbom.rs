//! The bill of materials: [CycloneDX 1.6](https://cyclonedx.org/docs/1.6/json/), of what is in the binary and nothing else.
//!
//! It has no time and no serial number, so that the same commit has the same.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    architecture::Architecture,
    contents::HANDLER,
    dependencies::{Dependency, Id},
    toolchain::Toolchain,
};

/// The document. `digest` is the SHA-256 of the binary, in hexadecimal digits.
pub fn document(
    dependencies: &BTreeMap<Id, Dependency>,
    toolchain: &Toolchain,
    architecture: Architecture,
    digest: &str,
) -> Value {
    let mut components = Vec::new();
    let mut links = Vec::new();
    let mut subject = Value::Null;
    for (id, dependency) in dependencies {
        let mut component = component(id, dependency);
        let mut needs: Vec<String> = dependency.needs.iter().map(purl).collect();
        if id.0 == HANDLER {
            component["type"] = json!("application");
            component["hashes"] = json!([{ "alg": "SHA-256", "content": digest }]);
            component["properties"] =
                json!([{ "name": "orderup:target", "value": architecture.target() }]);
            needs.extend([rust_purl(toolchain), zig_purl(toolchain)]);
            subject = component;
        } else {
            components.push(component);
        }
        links.push(json!({ "ref": purl(id), "dependsOn": needs }));
    }
    components.push(json!({
        "type": "library",
        "bom-ref": rust_purl(toolchain),
        "name": "rust-std",
        "version": toolchain.rust,
        "description": "The standard library, and the crates in it",
        "licenses": [{ "expression": "MIT OR Apache-2.0" }],
        "purl": rust_purl(toolchain),
    }));
    components.push(json!({
        "type": "library",
        "bom-ref": zig_purl(toolchain),
        "name": "ziglang",
        "version": toolchain.zig,
        "description": "Of the linker: compiler-rt, and LLVM's libunwind",
        "licenses": [{ "expression": "MIT AND Apache-2.0 WITH LLVM-exception" }],
        "purl": zig_purl(toolchain),
    }));
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": subject },
        "components": components,
        "dependencies": links,
    })
}

fn component(id: &Id, dependency: &Dependency) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": purl(id),
        "name": id.0,
        "version": id.1,
        "purl": purl(id),
    });
    if let Some(licence) = &dependency.licence {
        // The slash is how cargo once wrote it.
        component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
    }
    if let Some(checksum) = &dependency.checksum {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    if let Some(repository) = &dependency.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    component
}

fn purl((name, version): &Id) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

fn rust_purl(toolchain: &Toolchain) -> String {
    format!("pkg:github/rust-lang/rust@{}", toolchain.rust)
}

fn zig_purl(toolchain: &Toolchain) -> String {
    format!("pkg:pypi/ziglang@{}", toolchain.zig)
}
