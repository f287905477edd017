//! The forms in which a secret could be written somewhere.

use std::fmt::Write as _;

use data_encoding::{BASE64, BASE64URL, HEXLOWER, HEXUPPER};

/// Every form of a text that gives it away, each with its name.
pub(crate) fn traces(text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = text.as_bytes();
    let mut traces = vec![
        ("in clear", bytes.to_vec()),
        ("in hex", HEXLOWER.encode(bytes).into_bytes()),
        ("in HEX", HEXUPPER.encode(bytes).into_bytes()),
        ("as JSON", json(text)),
        ("as JSON within JSON", json(&String::from_utf8(json(text)).unwrap())),
        ("as Rust prints it", unquoted(&format!("{text:?}"))),
        ("percent-encoded", percent(bytes).into_bytes()),
        ("as a list of numbers", numbers(bytes)),
    ];
    for skip in 0..3 {
        // Of the whole groups of three; the characters around them depend on what stands there.
        let groups = &bytes[skip..skip + (bytes.len() - skip) / 3 * 3];
        traces.push(("in base64", BASE64.encode(groups).into_bytes()));
        traces.push(("in base64 for URLs", BASE64URL.encode(groups).into_bytes()));
    }
    traces
}

fn json(text: &str) -> Vec<u8> {
    unquoted(&serde_json::to_string(text).unwrap())
}

fn unquoted(text: &str) -> Vec<u8> {
    text.as_bytes()[1..text.len() - 1].to_vec()
}

fn percent(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut encoded, byte| {
        match byte {
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) => encoded.push(char::from(*byte)),
            byte => write!(encoded, "%{byte:02X}").unwrap(),
        }
        encoded
    })
}

fn numbers(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ").into_bytes()
}

mod tests {
    use super::*;

    const SECRET: &str = "canary \"in\" the \\ mine/+é?";

    fn is_traced(written: &[u8]) -> bool {
        traces(SECRET)
            .iter()
            .any(|(_, trace)| written.windows(trace.len()).any(|window| window == trace.as_slice()))
    }

    #[test]
    fn a_secret_is_traced_in_whatever_it_is_wrapped() {
        for before in ["", "a", "ab", "abc"] {
            let text = format!("{before}{SECRET} and more");
            for written in [
                text.clone(),
                BASE64.encode(text.as_bytes()),
                BASE64URL.encode(text.as_bytes()),
                HEXLOWER.encode(text.as_bytes()),
                HEXUPPER.encode(text.as_bytes()),
                serde_json::to_string(&text).unwrap(),
                serde_json::json!({ "fields": serde_json::to_string(&text).unwrap() }).to_string(),
                format!("{:?}", Some(&text)),
                format!("{:?}", text.as_bytes()),
                url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20"),
            ] {
                assert!(is_traced(written.as_bytes()), "{written}");
            }
        }
    }

    #[test]
    fn what_is_sealed_or_masked_is_not_traced() {
        assert!(!is_traced(b"***"));
        assert!(!is_traced(ring::digest::digest(&ring::digest::SHA256, SECRET.as_bytes()).as_ref()));
    }
}
