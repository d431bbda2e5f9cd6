//! The handler is built by cargo before it is started; here a script stands in for cargo.
#![cfg(unix)]

use std::os::unix::fs::PermissionsExt;

use crate::app::{App, handler};

/// An app to be built by a script that ends with the status.
fn app_with_cargo(status: u8) -> (App, String) {
    let app = App::new();
    app.host_json(|host| {
        host["customHandler"]["description"]["defaultExecutablePath"] = "shop".into()
    });
    app.write("Cargo.toml", "");
    let artifact = serde_json::json!({
        "reason": "compiler-artifact",
        "target": { "name": "shop", "kind": ["bin"] },
        "executable": handler(),
    });
    app.write(
        "cargo.sh",
        &format!(
            "#!/bin/sh\necho \"built with $@ for ${{CARGO_PKG_NAME:-nobody}}\" >&2\n\
             echo '{{\"reason\":\"build-finished\"}}'\necho '{artifact}'\nexit {status}\n"
        ),
    );
    let cargo = app.path().join("cargo.sh");
    std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).unwrap();
    (app, cargo.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn the_handler_is_built_and_its_path_taken_from_cargo() {
    let (app, cargo) = app_with_cargo(0);
    let mut devhost = app.start(&[], &[("CARGO", &cargo), ("CARGO_PKG_NAME", "devhost")]);
    devhost.wait_until_ready().await;
    assert_eq!(devhost.get("/api/echo/x").await.status(), 418);
    devhost.child.start_kill().unwrap();
    let (_, stderr) = devhost.ended().await;
    assert!(
        stderr.contains(
            "built with build -p shop --message-format=json-render-diagnostics for nobody"
        ),
        "{stderr}"
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_signal_ends_devhost_well_while_the_handler_is_built() {
    let (app, cargo) = app_with_cargo(0);
    app.write("cargo.sh", "#!/bin/sh\necho building >&2\nexec sleep 600\n");
    let mut devhost = app.start(&[], &[("CARGO", &cargo)]);
    // Only cargo writes to it here.
    let mut stderr = devhost.child.stderr.take().unwrap();
    let mut word = [0; 8];
    tokio::io::AsyncReadExt::read_exact(&mut stderr, &mut word)
        .await
        .unwrap();
    let pid =
        rustix::process::Pid::from_raw(devhost.child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    devhost.line("Stopping").await;
    let status = tokio::time::timeout(crate::app::GIVE_UP, devhost.child.wait());
    assert_eq!(status.await.unwrap().unwrap().code(), Some(0));
    assert!(!devhost.has_printed("in flight"));
}

#[tokio::test]
async fn a_build_that_fails_ends_devhost() {
    let (app, cargo) = app_with_cargo(101);
    let (code, stderr) = app.start(&[], &[("CARGO", &cargo)]).ended().await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("`cargo build -p shop` failed"), "{stderr}");
}

#[tokio::test]
async fn an_executable_that_a_setting_names_is_not_built() {
    let (app, cargo) = app_with_cargo(101);
    let executable = handler();
    let name = "AzureFunctionsJobHost__customHandler__description__defaultExecutablePath";
    let mut devhost = app.start(
        &[],
        &[("CARGO", &cargo), (name, executable.to_str().unwrap())],
    );
    devhost.wait_until_ready().await;
}
