//! What a command that fails says: its exit code, its errors and its hints, and nothing else.

use super::App;

/// The world disagrees.
pub(crate) const WORLD: i32 = 1;
/// The command was called wrong.
pub(crate) const USAGE: i32 = 2;
/// The configuration is wrong by itself.
pub(crate) const CONFIG: i32 = 64;

/// Runs a command that must fail with this code and write nothing but errors and hints; those, a line each.
pub(crate) async fn failure(app: &App, arguments: &[&str], code: i32) -> Vec<String> {
    let output = app.run(arguments).await;
    let (data, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "`paperboy {}`:\n{error}", arguments.join(" "));
    assert_eq!(data, "", "`paperboy {}` failed and wrote data", arguments.join(" "));
    let lines: Vec<String> = error.lines().map(str::to_owned).collect();
    let is_told = |line: &String| line.starts_with("error: ") || line.starts_with("hint: ");
    assert!(lines.iter().all(is_told), "only errors and hints:\n{error}");
    lines
}

/// As [`failure`], for exactly one error with one hint.
pub(crate) async fn one_error(app: &App, arguments: &[&str], code: i32) -> (String, String) {
    let lines = failure(app, arguments, code).await;
    let [error, hint] = lines.as_slice() else { panic!("one error, one hint: {lines:#?}") };
    (error["error: ".len()..].to_owned(), hint["hint: ".len()..].to_owned())
}
