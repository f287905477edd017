//! What a person decided about dead letters, or looks at before: every discard and every replay is told here.

use serde_json::json;

use super::{Common, output};
use crate::store::DeadState;

/// Tells how many letters a dry run found, for which action.
pub(super) fn would(common: &Common, action: &str, letters: u64) {
    if common.json {
        output::json_line(&json!({ "dry_run": true, "matched": letters }));
        return;
    }
    eprintln!(
        "would {action} {}",
        output::count(usize::try_from(letters).unwrap_or(usize::MAX), "dead letter")
    );
}

/// Tells how many letters were discarded or replayed.
pub(super) fn tell(common: &Common, state: DeadState, letters: u64) {
    if common.json {
        output::json_line(&json!({ state.as_str(): letters }));
        return;
    }
    let count = output::count(usize::try_from(letters).unwrap_or(usize::MAX), "dead letter");
    eprintln!("{} {count}", state.as_str());
}
