//! The table of docs/platforms.md: every row has a state, and the tests it names are there.

use crate::support::document::{read, root};

/// The rows of the table under this heading, as cells.
fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, rest) = document.split_once(heading).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| capability"));
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// Every Rust file of the project as one text.
fn code() -> String {
    let mut folders = vec![root().join("src"), root().join("tests")];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    text
}

#[test]
fn every_row_of_the_platforms_has_a_state_and_names_tests_that_are_there() {
    let (rows, code) = (rows(&read("docs/platforms.md"), "## Row by row"), code());
    assert!(rows.len() > 45, "{} rows", rows.len());
    let mut faults = Vec::new();
    for row in rows {
        let [capability, state, _, tests] = row.as_slice() else { panic!("{row:?}") };
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        match state.as_str() {
            "works" if tests.is_empty() => faults.push(format!("`{capability}` works and names no test")),
            "works" | "later" | "not offered" => {}
            _ => faults.push(format!("`{capability}` is {state}")),
        }
        for test in tests {
            if !code.contains(&format!("fn {test}(")) {
                faults.push(format!("`{capability}` names `{test}`, which is no test"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_preset_is_in_the_document() {
    let document = read("docs/platforms.md");
    for preset in paperboy::domain::preset::Preset::all() {
        assert!(document.contains(&format!("`{}`", preset.name)), "{}", preset.name);
    }
}
