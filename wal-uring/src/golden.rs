//! Golden files: bytes of a released format, read forever. `GOLDEN_WRITE=1 cargo test` writes a
//! missing one; an existing one is never overwritten.

use std::path::Path;

/// Compares `bytes` with `testdata/<name>`.
pub(crate) fn check(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    let known = std::fs::read(&path).unwrap_or_default();
    if known.iter().all(|&byte| byte == 0) && std::env::var_os("GOLDEN_WRITE").is_some() {
        std::fs::write(&path, bytes).expect("testdata is writable");
        return;
    }
    assert_eq!(known, bytes, "{name}: the format changed; that needs a new version");
}
