//! Rules of the house that a compiler does not know, checked by reading the files. No services.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each folder of `src` may name of the others: modules and items by the beginning of their path, and what
/// of that it may not. `cli` may name everything. Nothing points back.
const ARROWS: [(&str, &[&str], &[&str]); 9] = [
    ("domain", &[], &[]),
    ("broker", &["domain"], &[]),
    ("store", &["domain"], &[]),
    ("cache", &["domain", "store"], &[]),
    ("http", &["domain"], &[]),
    // Requests and answers only; what is done is at the desk. `broker::` and `store::` as plain data.
    ("api", &["domain", "desk", "broker", "store"], &SERVICES),
    // What people and programs may ask for, once for `api` and `cli`. It has the store, since most of what it does
    // is to write there; everything else stands behind traits.
    (
        "desk",
        &["domain", "broker", "http::Transport", "http::guard", "store", "worker::call"],
        &["broker::rabbitmq", "http::sender", "http::Sender"],
    ),
    ("config", &["domain", "http::guard", "store::StoreUrl"], &[]),
    // The engine knows the edges' traits and their plain data, never a service that stands behind one.
    ("worker", &["domain", "broker", "cache", "http::Transport", "store"], &SERVICES),
];

/// The real services: outside the folder that makes one, only `cli` chooses them.
const SERVICES: [&str; 6] =
    ["broker::rabbitmq", "cache::redis", "cache::directory", "store::Store", "http::sender", "http::Sender"];

/// What the pure core does without: waiting, services, logs, the clock, the environment and randomness.
const IMPURE: [&str; 19] = [
    "tokio",
    "futures_util",
    "lapin",
    "reqwest",
    "redis",
    "sqlx",
    "axum",
    "tracing",
    "metrics",
    "getrandom",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "std::env",
    "std::fs",
    "std::net::TcpStream",
    "std::thread",
    "Uuid::new_v4",
];

/// Crates that only the edge which translates for them may name.
const CRATES_OF_ONE_FOLDER: [(&str, &[&str]); 11] = [
    // The bench's floor is a worker without Paperboy: it speaks to RabbitMQ as anybody would.
    ("lapin", &["broker", "cli"]),
    ("sqlx", &["store"]),
    ("redis", &["cache", "cli"]),
    // The demo looks at its processes as anybody would, and its receiver is a server.
    ("reqwest", &["http", "cli"]),
    ("axum", &["api", "cli"]),
    ("hyper", &["api"]),
    ("hyper_util", &["api"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    // The built-in presets are data of the core, and reading a text that is always the same is pure.
    ("toml", &["config", "cli", "domain"]),
    ("metrics_exporter_prometheus", &["api", "cli"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()))
}

/// Every file below, but for what git ignores or is git's own.
fn files(folder: &Path) -> Vec<PathBuf> {
    let ignored = [".git", ".local", "target", "data"].map(|name| root().join(name));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if ignored.contains(&path) {
            continue;
        }
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The Rust files below a folder of the project, as paths from the root with their code.
fn sources(folder: &str) -> Vec<(String, String)> {
    let files = files(&root().join(folder)).into_iter();
    let rust = files.filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let sources: Vec<_> = rust.map(|path| (shown(&path), code(&read(&path)))).collect();
    assert!(!sources.is_empty(), "nothing to check in `{folder}`");
    sources
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The text without comments and without what stands in quotes.
fn code(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_string(rest, kept.chars().next_back()) {
            length
        } else if next == '"' {
            quoted(rest, '"')
        } else if next == '\'' && is_character(rest) {
            quoted(rest, '\'')
        } else {
            kept.push(next);
            rest = &rest[next.len_utf8()..];
            continue;
        };
        // So that what stood around it does not grow together.
        kept.push(' ');
        rest = &rest[skipped..];
    }
    kept
}

/// The length of `r"…"`, `r#"…"#` and so on, if one begins here.
fn raw_string(text: &str, before: Option<char>) -> Option<usize> {
    // `r` may also end a name; `br"…"` is a string all the same.
    if before.is_some_and(|char| char != 'b' && (char.is_alphanumeric() || char == '_')) {
        return None;
    }
    let hashes = text.strip_prefix('r')?;
    let count = hashes.bytes().take_while(|byte| *byte == b'#').count();
    let inside = hashes[count..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(count));
    Some(text.len() - inside.len() + inside.find(&close)? + close.len())
}

/// The length of a string or character, its quotes included.
fn quoted(text: &str, quote: char) -> usize {
    let mut characters = text.char_indices().skip(1);
    while let Some((place, character)) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            _ if character == quote => return place + 1,
            _ => {}
        }
    }
    text.len()
}

/// Tells `'a'` and `'\n'` from the lifetime `'a`.
fn is_character(text: &str) -> bool {
    text.starts_with("'\\") || text.chars().nth(2) == Some('\'')
}

/// Every path of ours that the code names, groups written out: `crate::a::{b, c::D}` is `a::b` and `a::c::D`.
fn our_paths(code: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (place, _) in code.match_indices("crate::") {
        let begins = code[..place].chars().next_back().is_none_or(|char| !is_word(char));
        if begins {
            tree(&code[place + "crate::".len()..], "", &mut paths);
        }
    }
    paths
}

/// Reads one path or group from the start of `code`; returns what follows it.
fn tree<'a>(code: &'a str, parent: &str, paths: &mut BTreeSet<String>) -> &'a str {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            match rest.strip_prefix('}') {
                Some(after) => return after,
                None if rest.is_empty() => return rest,
                None => {
                    let after = tree(rest, parent, paths);
                    // `as Name`, and anything that is no path.
                    rest = &after[after.find([',', '}']).unwrap_or(after.len())..];
                }
            }
        }
    }
    let word = &code[..code.find(|char| !is_word(char)).unwrap_or(code.len())];
    let path = [parent, word].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("::");
    let rest = &code[word.len()..];
    match rest.strip_prefix("::") {
        Some(more) if more.trim_start().starts_with(|char: char| is_word(char) || char == '{') => {
            tree(more, &path, paths)
        }
        _ => {
            paths.insert(path);
            rest
        }
    }
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// Whether a path is this one or lies below it.
fn is_under(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Whether the code names this path, however it begins, or this crate, not a module or a field of the name.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(place, _)| {
        let (before, after) = (&code[..place], &code[place + word.len()..]);
        if before.ends_with(is_word) || after.starts_with(is_word) {
            return false;
        }
        // `self.redis` and `cache::redis` are ours; a variable is not followed by `::`.
        let is_crate = !before.ends_with([':', '.']) && (after.starts_with("::") || used(before));
        word.contains("::") || is_crate
    })
}

/// Whether what comes next is what a `use` names.
fn used(before: &str) -> bool {
    before.trim_end().ends_with("use")
}

/// All that is wrong, told together.
fn assert_tidy(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn arrows_between_folders_never_turn_back() {
    let mut faults = Vec::new();
    for (folder, allowed, except) in ARROWS {
        for (file, code) in sources(&format!("src/{folder}")) {
            for path in our_paths(&code) {
                let may = is_under(&path, folder) || allowed.iter().any(|parent| is_under(&path, parent));
                if !may || except.iter().any(|parent| is_under(&path, parent)) {
                    faults.push(format!("{file}: `{folder}` may not name `crate::{path}`"));
                }
            }
        }
    }
    assert_tidy(&faults);
}

#[test]
fn every_folder_has_its_arrows() {
    let mut folders: Vec<String> = std::fs::read_dir(root().join("src"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    folders.sort();
    let mut known: Vec<&str> = ARROWS.iter().map(|(folder, ..)| *folder).chain(["cli"]).collect();
    known.sort_unstable();
    assert_eq!(folders, known);
}

#[test]
fn only_the_command_line_chooses_real_services() {
    let mut faults = Vec::new();
    for (folder, ..) in ARROWS {
        for (file, code) in sources(&format!("src/{folder}")) {
            let services =
                SERVICES.iter().filter(|service| our_paths(&code).iter().any(|path| is_under(path, service)));
            for service in services {
                let owner = service.split("::").next();
                // The directory asks the store when Redis knows nothing; the desk reads and writes it.
                let is_lookup = ["cache", "desk"].contains(&folder) && *service == "store::Store";
                if owner != Some(folder) && !is_lookup {
                    faults.push(format!("{file}: names the service `{service}`"));
                }
            }
        }
    }
    assert_tidy(&faults);
}

#[test]
fn the_domain_is_pure() {
    let mut faults = Vec::new();
    for (file, code) in sources("src/domain") {
        let impure = IMPURE.iter().filter(|word| names(&code, word));
        faults.extend(impure.map(|word| format!("{file}: names `{word}`")));
    }
    assert_tidy(&faults);
}

#[test]
fn each_service_is_spoken_to_by_one_folder() {
    let mut faults = Vec::new();
    for (file, code) in sources("src") {
        let folder = file.split('/').nth(1).unwrap();
        for (name, folders) in CRATES_OF_ONE_FOLDER {
            if !folders.contains(&folder) && names(&code, name) {
                faults.push(format!("{file}: names the crate `{name}`, which belongs to {folders:?}"));
            }
        }
    }
    assert_tidy(&faults);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut faults = Vec::new();
    for (file, code) in [sources("src"), sources("tests")].concat() {
        for left in ["todo!(", "dbg!(", "unimplemented!(", "#[ignore"] {
            if code.contains(left) {
                faults.push(format!("{file}: holds `{left}`"));
            }
        }
    }
    assert_tidy(&faults);
}

#[test]
fn every_file_is_text_and_names_no_folder_of_somebodys_machine() {
    // Put together here, so that this file may be checked too.
    let folders = ["work", "root", "home", "Users"].map(|name| format!("/{name}/"));
    let mut faults = Vec::new();
    for path in files(root()) {
        let file = shown(&path);
        let Ok(text) = String::from_utf8(std::fs::read(&path).unwrap()) else {
            faults.push(format!("{file}: is not text"));
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            // Part of a longer path, such as `$dir/home/`, it is nobody's.
            let is_named = |folder: &String| {
                line.match_indices(folder.as_str()).any(|(place, _)| {
                    let before = line[..place].chars().next_back();
                    before.is_none_or(|char| {
                        !is_word(char) && !['.', '/', '-', '}', '"', ':', '*'].contains(&char)
                    })
                })
            };
            if folders.iter().any(is_named) {
                faults.push(format!("{file}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_tidy(&faults);
}

#[test]
fn every_setting_is_explained() {
    let manual = read(&root().join("config/default.toml"));
    let mut before = "";
    let mut settings = 0;
    for line in manual.lines() {
        if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            settings += 1;
            assert!(before.starts_with("# "), "`{key}` has no comment");
        }
        before = line;
    }
    assert!(settings > 20, "{settings} settings");
}

#[test]
fn the_documents_are_there() {
    let documents =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"];
    let missing = documents.iter().filter(|name| !root().join(name).is_file());
    assert_tidy(&missing.map(|name| format!("`{name}` is missing")).collect::<Vec<_>>());
}

/// A command as a document shows it: the words that lead to it, and the flags it is given.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shown {
    words: Vec<String>,
    flags: Vec<String>,
}

/// Every `paperboy …` in the code blocks of a document.
fn shown_commands(document: &str) -> BTreeSet<Shown> {
    let mut commands = BTreeSet::new();
    for (place, block) in document.split("```").enumerate() {
        if place % 2 == 0 {
            continue;
        }
        for line in block.replace("\\\n", " ").lines() {
            // A prompt, variables set for one command, a path and a pipe may stand before it; output may not.
            for command in line.split(['|', ';', '&', '#']) {
                let mut tokens =
                    command.split_whitespace().skip_while(|token| *token == "$" || token.contains('='));
                if tokens.next().is_none_or(|token| token.rsplit('/').next() != Some("paperboy")) {
                    continue;
                }
                let tokens: Vec<&str> = tokens.collect();
                let is_command = |token: &&&str| {
                    token.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
                        && !token.starts_with('-')
                };
                let words = tokens.iter().take_while(is_command).take(2).map(|token| (*token).to_owned());
                let flags = tokens.iter().filter(|token| token.starts_with("--") && token.len() > 2);
                let flags = flags.map(|flag| flag.split('=').next().unwrap_or(flag).to_owned());
                commands.insert(Shown { words: words.collect(), flags: flags.collect() });
            }
        }
    }
    commands
}

#[test]
fn what_the_documents_show_exists() {
    let mut faults = Vec::new();
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        for command in shown_commands(&read(&root().join(name))) {
            let help = Command::new(env!("CARGO_BIN_EXE_paperboy"))
                .args(&command.words)
                .arg("--help")
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&help.stdout);
            let line = format!("paperboy {}", command.words.join(" "));
            if !help.status.success() {
                faults.push(format!("{name}: `{line}` is no command"));
            }
            let unknown =
                command.flags.iter().filter(|flag| !text.contains(flag.as_str()) && help.status.success());
            faults.extend(unknown.map(|flag| format!("{name}: `{line}` has no `{flag}`")));
        }
    }
    assert_tidy(&faults);
}

mod tests {
    use super::*;

    #[test]
    fn comments_and_quotes_are_no_code() {
        let text = r##"a // todo!(
            b /* dbg!( */ c "crate::cli" d r#"x " y"# e '"' f 'a' g<'a>(br"z") "\"" h"##;
        let words: Vec<String> = code(text).split_whitespace().map(str::to_owned).collect();
        assert_eq!(words, ["a", "b", "c", "d", "e", "f", "g<'a>(b", ")", "h"]);
    }

    #[test]
    fn paths_are_written_out() {
        let paths = our_paths(
            "use crate::a::{b, c::{D, self}, e as f}; let x = crate::g::h(&crate::I::<u8>::j); my_crate::k",
        );
        assert_eq!(Vec::from_iter(paths), ["I", "a::b", "a::c::D", "a::c::self", "a::e", "g::h"]);
    }

    #[test]
    fn a_crate_is_told_from_a_field_and_from_a_module_of_ours() {
        assert!(
            names("std::time::Instant::now()", "Instant::now") && !names("MyInstant::now()", "Instant::now")
        );
        assert!(
            names("use redis::Client;", "redis")
                && names("use redis;", "redis")
                && names("a(redis::cmd())", "redis")
        );
        for ours in [
            "self.redis.get()",
            "use crate::cache::redis::Redis;",
            "let redis = 1;",
            "Some(redis)",
            "hiredis::x",
        ] {
            assert!(!names(ours, "redis"), "{ours}");
        }
    }

    #[test]
    fn commands_are_found_in_code_blocks_only() {
        let document = "run `paperboy nonsense`\n```sh\n$ A=1 ./target/release/paperboy dead list \\\n  --tenant acme # all\npaperboy publish events.ndjson | cat\n./deploy/local demo\n```\npaperboy x";
        let found = Vec::from_iter(shown_commands(document));
        let shown = |words: &[&str], flags: &[&str]| Shown {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        };
        assert_eq!(found, [shown(&["dead", "list"], &["--tenant"]), shown(&["publish"], &[])]);
    }
}
