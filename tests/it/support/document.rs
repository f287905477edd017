//! Documents as tests read them: their code blocks, and the commands of ours in them.

use std::path::{Path, PathBuf};

/// The project's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the project as text.
#[track_caller]
pub(crate) fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("`{name}`: {error}"))
}

/// Every document for operators, producers and receivers, by its path from the root.
pub(crate) fn documents() -> Vec<String> {
    let folder = std::fs::read_dir(root().join("docs")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut found: Vec<String> =
        names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    found.push("deploy/README.md".into());
    found.sort();
    found
}

/// The code blocks of one language, in order.
pub(crate) fn blocks(document: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in document.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(opened)) => open = Some((opened.trim() == language, String::new())),
            (None, None) => {}
            (Some(_), Some(_)) => {
                if let Some((true, text)) = open.take() {
                    found.push(text);
                }
            }
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a code block is not closed");
    found
}

/// The one code block of a language.
#[track_caller]
pub(crate) fn block(document: &str, language: &str) -> String {
    let mut found = blocks(document, language);
    assert_eq!(found.len(), 1, "blocks of `{language}`");
    found.remove(0)
}

/// A command of ours: the words that lead to it, and its long flags.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shown {
    pub(crate) words: Vec<String>,
    pub(crate) flags: Vec<String>,
}

/// Every `paperboy …` in blocks of `sh` and in code within the text, through `docker compose exec` and `run` too.
pub(crate) fn shown_commands(document: &str) -> Vec<Shown> {
    let mut lines: Vec<String> = Vec::new();
    for block in blocks(document, "sh") {
        lines.extend(block.replace("\\\n", " ").lines().map(str::to_owned));
    }
    let mut is_code = false;
    for line in document.lines() {
        is_code ^= line.starts_with("```");
        if !is_code {
            let spans = line.split('`').skip(1).step_by(2);
            lines.extend(spans.filter(|span| span.starts_with("paperboy ")).map(str::to_owned));
        }
    }
    let mut found: Vec<Shown> = lines.iter().filter_map(|line| shown_command(line)).collect();
    found.sort();
    found.dedup();
    found
}

fn shown_command(line: &str) -> Option<Shown> {
    let tokens: Vec<&str> = line.split_whitespace().take_while(|token| !token.starts_with('#')).collect();
    let place = match *tokens.first()? {
        "paperboy" => 0,
        // The image's entry point is the program: it follows the service's name, or its arguments do.
        "docker" => {
            let service = tokens.iter().position(|token| ["api", "worker"].contains(token))?;
            match *tokens.get(service + 1)? {
                "paperboy" => service + 1,
                _ if tokens.contains(&"run") => service,
                _ => return None,
            }
        }
        _ => return None,
    };
    let rest = &tokens[place + 1..];
    let is_word = |token: &&&str| {
        !token.starts_with('-') && token.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    };
    // `rotate-secret` is a word, `--tenant` and `dl_1` end them.
    let words = rest.iter().take_while(is_word).take(2).map(|token| (*token).to_owned()).collect();
    let flags = rest.iter().filter(|token| token.starts_with("--") && token.len() > 2);
    let flags = flags.map(|flag| flag.split('=').next().unwrap_or(flag).to_owned()).collect();
    Some(Shown { words, flags })
}

/// Every name of a variable of ours in a text, such as `PAPERBOY__BROKER__URL`.
pub(crate) fn variables(text: &str) -> Vec<&str> {
    let is_name = |char: char| char.is_ascii_uppercase() || char.is_ascii_digit() || char == '_';
    let names = text.split(|char| !is_name(char)).filter(|name| name.starts_with("PAPERBOY__"));
    // `PAPERBOY__…` stands for all of them.
    names.filter(|name| name.len() > "PAPERBOY__".len()).collect()
}

/// A file that no test made, beside the test program: an example.
pub(crate) fn example(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let path = program.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    if !path.exists() {
        // `cargo test --test it` builds no examples.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let arguments = ["build", "--locked", "--example", name];
        let built = std::process::Command::new(cargo).args(arguments).current_dir(root()).status().unwrap();
        assert!(built.success() && path.exists(), "the example `{name}` cannot be built");
    }
    path
}

mod tests {
    use super::*;

    #[test]
    fn blocks_are_told_by_their_language() {
        let document = "```sh\na\n```\ntext\n```text\nb\n```\n```sh\nc\nd\n```\n";
        assert_eq!(blocks(document, "sh"), ["a\n", "c\nd\n"]);
    }

    #[test]
    fn commands_are_found_in_shell_blocks_and_in_code_within_the_text() {
        let document = "run `paperboy dead list --kind event`, `paperboy.events`\n```text\npaperboy is running\n```\n```sh\n\
            docker compose exec api paperboy subscription add --tenant=acme\ndocker compose run --rm api store migrate # now\n\
            docker compose up api\n```\n";
        let shown = |words: &[&str], flags: &[&str]| Shown {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        };
        let expected = [
            shown(&["dead", "list"], &["--kind"]),
            shown(&["store", "migrate"], &[]),
            shown(&["subscription", "add"], &["--tenant"]),
        ];
        assert_eq!(shown_commands(document), expected);
    }

    #[test]
    fn variables_are_whole_names() {
        let text = "PAPERBOY__…, `PAPERBOY__API__KEYS=`, ${PAPERBOY__STORE__URL:-}, PAPERBOY_CONFIG";
        assert_eq!(variables(text), ["PAPERBOY__API__KEYS", "PAPERBOY__STORE__URL"]);
    }
}
