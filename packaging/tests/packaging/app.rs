//! A small app in a folder of its own.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folder, removed at the end.
pub(crate) struct App(pub(crate) PathBuf);

impl App {
    /// Two functions, and a handler in `target`. The name is that of the test.
    pub(crate) fn new(name: &str) -> Self {
        let app = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        drop(fs::remove_dir_all(&app.0));
        app.write(
            "host.json",
            r#"{"customHandler":{"description":{"defaultExecutablePath":"orderup"}}}"#,
        );
        app.write("vendors.json", "[]");
        app.write("checkout/function.json", r#"{"bindings":[]}"#);
        app.write("notify/function.json", r#"{"bindings":[]}"#);
        app.write("src/main.rs", "fn main() {}");
        app.write("target/orderup", "the handler");
        app.write(
            ".funcignore",
            "# All but\n/*\n!/host.json\n!/vendors.json\n!/orderup\n!/checkout/\n!/notify/\n",
        );
        app
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.0.join(path)).unwrap();
    }

    pub(crate) fn handler(&self) -> PathBuf {
        self.0.join("target/orderup")
    }
}

impl Drop for App {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// The folder of this project.
pub(crate) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
