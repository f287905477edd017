//! How the demo speaks: plain lines on standard output, coloured on a terminal that wants it.
//!
//! A reader who is gone (`paperboy demo | head`) must not keep the demo from cleaning up, so nothing here fails.

use std::io::{IsTerminal as _, Write as _};

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const RED: &str = "31";
const CYAN: &str = "36";

fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Begins a part.
pub(super) fn heading(text: &str) {
    line("");
    line(&paint(BOLD, &format!("== {text}")));
}

/// One sentence of the story.
pub(super) fn say(text: &str) {
    line(&format!("   {text}"));
}

/// A command as one would type it.
pub(super) fn command(text: &str) {
    line(&paint(CYAN, &format!("$ {text}")));
}

/// What a command printed.
pub(super) fn output(text: &str) {
    text.lines().for_each(line);
}

/// Something that went as it should.
pub(super) fn good(text: &str) {
    line(&format!("   {}", paint(GREEN, text)));
}

/// Something that went wrong on purpose.
pub(super) fn bad(text: &str) {
    line(&format!("   {}", paint(RED, text)));
}

/// Background.
pub(super) fn aside(text: &str) {
    line(&format!("   {}", paint(DIM, text)));
}

/// The last line.
pub(super) fn done(text: &str) {
    line("");
    line(&paint(BOLD, text));
}

fn paint(code: &str, text: &str) -> String {
    if wants_colour() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

fn wants_colour() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    !is_set("NO_COLOR") && !is_dumb && std::io::stdout().is_terminal()
}
