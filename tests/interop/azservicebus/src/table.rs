//! The results, for the table of steps and clients.

use std::collections::BTreeMap;

use serde_json::json;

/// Writes one client's column to `target/interop/servicebus-table/{name}.json`.
pub fn write(
    name: &str,
    client: &str,
    version: &str,
    steps: &BTreeMap<&str, &str>,
    notes: &BTreeMap<&str, &str>,
) {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../target/interop/servicebus-table"
    );
    let column = json!({ "client": client, "version": version, "steps": steps, "notes": notes });
    std::fs::create_dir_all(folder).expect("the target folder can be written");
    std::fs::write(format!("{folder}/{name}.json"), format!("{column:#}\n"))
        .expect("the target folder can be written");
}
