//! A helper process of a stage does not outlive the command that started it, however that ended.

use std::io::Read as _;

/// Exits when standard input ends: it is the parent's, and the system closes it even after kill -9.
pub(in crate::cli) fn end_with_parent() {
    // A thread of its own: a read by the runtime would hold up every other way out.
    std::thread::spawn(|| {
        let mut bytes = [0; 64];
        while std::io::stdin().read(&mut bytes).is_ok_and(|read| read > 0) {}
        std::process::exit(0);
    });
}
