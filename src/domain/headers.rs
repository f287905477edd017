//! Request headers as a subscription may name them: which names, which values, how many.
//!
//! The HTTP library accepts far more (reserved names, bytes beyond ASCII); these rules are our own and
//! are applied when a subscription is created, so that building a request cannot fail over a header.

use http::HeaderValue;

use crate::domain::fault::Fault;
use crate::domain::secret::Secret;

/// The most headers one subscription may add.
pub const HEADERS_MAX: usize = 20;
/// The longest value of one header.
pub const VALUE_BYTES_MAX: usize = 4 * 1024;
/// The most bytes of all names and values together.
pub const TOTAL_BYTES_MAX: usize = 16 * 1024;
/// The longest name of a header.
pub const NAME_BYTES_MAX: usize = 128;

/// Headers that frame the message or steer the connection (RFC 9110 §7.6.1, §10.1.1; RFC 9112 §6) and so
/// belong to the HTTP library.
const CONNECTION: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
];
/// Families of names that belong to proxies and to us.
const RESERVED_PREFIXES: [&str; 2] = ["proxy-", "paperboy-"];
/// Names of Standard Webhooks, which only a signature may use.
const SIGNATURE_PREFIX: &str = "webhook-";
/// Default headers of every delivery that a signature must not repeat.
const DEFAULTS: [&str; 4] = ["webhook-id", "content-type", "user-agent", "traceparent"];

/// Checks the name of a header that a subscription adds. The fault's field is empty.
///
/// # Errors
/// A fault when it is no token (RFC 9110 §5.6.2) or something else owns the name.
pub fn check_name(name: &str) -> Result<(), Fault> {
    check_unowned(name)?;
    if starts_with_ignore_case(name, SIGNATURE_PREFIX) { Err(reserved(SIGNATURE_PREFIX)) } else { Ok(()) }
}

/// Checks the name of a header that carries part of a signature. The fault's field is empty.
///
/// `webhook-…` is allowed here: there are vendors whose own schemes use `Webhook-Signature` and
/// `Webhook-Timestamp`.
///
/// # Errors
/// A fault when it is no token or something else owns the name.
pub fn check_signature_name(name: &str) -> Result<(), Fault> {
    check_unowned(name)?;
    match DEFAULTS.iter().find(|default| default.eq_ignore_ascii_case(name)) {
        Some(default) => Err(Fault::new("", format!("`{default}` is a header of every delivery already"))),
        None => Ok(()),
    }
}

fn check_unowned(name: &str) -> Result<(), Fault> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_token_byte) {
        let message =
            format!("is not a header name: 1 to {NAME_BYTES_MAX} letters, digits or any of !#$%&'*+-.^_`|~");
        return Err(Fault::new("", message));
    }
    if CONNECTION.iter().any(|owned| owned.eq_ignore_ascii_case(name)) {
        return Err(Fault::new("", "is set by the HTTP connection and cannot be given"));
    }
    match RESERVED_PREFIXES.iter().find(|prefix| starts_with_ignore_case(name, prefix)) {
        Some(prefix) => Err(reserved(prefix)),
        None => Ok(()),
    }
}

fn reserved(prefix: &str) -> Fault {
    Fault::new("", format!("is reserved: names starting with `{prefix}` cannot be given"))
}

fn starts_with_ignore_case(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Checks a header's value, without ever repeating it. The fault's field is empty.
///
/// # Errors
/// A fault when the value is too long or holds anything but visible ASCII, spaces and tabs.
pub fn check_value(value: &str) -> Result<(), Fault> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(Fault::new("", format!("is longer than {VALUE_BYTES_MAX} bytes")));
    }
    if !is_value(value) {
        return Err(
            Fault::new("", "may hold visible ASCII, spaces and tabs only").hint("encode anything else")
        );
    }
    Ok(())
}

/// Whether a text can stand as a header's value: visible ASCII, spaces and tabs.
pub fn is_value(value: &str) -> bool {
    value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
}

/// A header's value that takes `text` over, hidden from whatever prints headers.
///
/// Every text that gets here has passed [`is_value`] when its subscription was made; one that has not is sent
/// empty, never repaired.
pub fn owned(text: String) -> HeaderValue {
    let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// Checks a subscription's whole list of headers; fields are the names.
pub fn check_list<'a>(headers: impl Iterator<Item = (&'a str, &'a Secret)>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    let mut total_bytes = 0;
    for (name, value) in headers {
        total_bytes += name.len() + value.expose().len();
        let lower = name.to_ascii_lowercase();
        let checked = if seen.contains(&lower) {
            Err(Fault::new("", "is given twice: upper and lower case are the same name"))
        } else {
            check_name(name).and_then(|()| check_value(value.expose()))
        };
        faults.extend(checked.err().map(|fault| fault.under(name)));
        seen.push(lower);
    }
    if seen.len() > HEADERS_MAX {
        faults.push(Fault::new(
            "",
            format!("holds {} headers; at most {HEADERS_MAX} can be given", seen.len()),
        ));
    }
    if total_bytes > TOTAL_BYTES_MAX {
        faults
            .push(Fault::new("", format!("is {total_bytes} bytes; at most {TOTAL_BYTES_MAX} can be given")));
    }
    faults
}

/// `tchar` of RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn faults(headers: &[(&str, &str)]) -> Vec<String> {
        let owned: Vec<(String, Secret)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
        check_list(owned.iter().map(|(name, value)| (name.as_str(), value)))
            .iter()
            .map(Fault::to_string)
            .collect()
    }

    #[test]
    fn a_value_that_cannot_be_sent_is_sent_empty_and_none_is_ever_shown() {
        assert_eq!(owned("a\r\nx-b: 1".to_owned()), "");
        let value = owned("canary".to_owned());
        assert_eq!((value.to_str().unwrap(), format!("{value:?}")), ("canary", "Sensitive".to_owned()));
    }

    #[test]
    fn names_that_are_no_tokens_or_belong_to_others_are_refused() {
        let names = [
            "X Y",
            "x:y",
            "",
            "é",
            "Host",
            "HOST",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Keep-Alive",
            "TE",
            "Trailer",
            "Upgrade",
            "Expect",
            "Proxy-Authorization",
            "proxy-x",
            "webhook-id",
            "Webhook-Signature",
            "Paperboy-Attempt",
            "x\r\ny",
            "x\0",
        ];
        for name in names {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name(&"a".repeat(NAME_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn a_signature_may_use_the_names_of_standard_webhooks_but_not_repeat_a_default() {
        for name in ["Webhook-Signature", "webhook-request-id", "X-Signature"] {
            assert_eq!(check_signature_name(name), Ok(()), "{name}");
        }
        for name in ["Webhook-Id", "Content-Type", "Host", "paperboy-x", "", "a b"] {
            assert!(check_signature_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn ordinary_names_are_taken() {
        for name in
            ["X-Env", "authorization", "User-Agent", "x_y.z", "teapot", "hosts", "X-Webhook-Id", "webhook"]
        {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn values_beyond_visible_ascii_are_refused_and_never_repeated() {
        for value in ["x\r\nHost: evil", "café", "a\u{2028}b", "\u{7f}", "a\0b", "\n"] {
            let fault = check_value(value).unwrap_err();
            assert!(!format!("{fault:?}").contains(value), "{value:?} repeated");
        }
        for value in ["", "a\tb", "Bearer abc", " !~"] {
            assert_eq!(check_value(value), Ok(()), "{value:?}");
        }
    }

    #[test]
    fn a_list_is_bounded_in_number_and_bytes() {
        let names: Vec<String> = (0..200).map(|index| format!("X-{index}")).collect();
        let list: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
        assert_eq!(faults(&list[..HEADERS_MAX]), Vec::<String>::new());
        assert_eq!(faults(&list[..=HEADERS_MAX]), ["holds 21 headers; at most 20 can be given"]);
        assert_eq!(faults(&list), ["holds 200 headers; at most 20 can be given"]);
        assert_eq!(faults(&[("X-A", &"v".repeat(20_000))])[0], "`X-A` is longer than 4096 bytes");
        let wide = "v".repeat(VALUE_BYTES_MAX);
        assert_eq!(faults(&[("a", &wide), ("b", &wide), ("c", &wide)]), Vec::<String>::new());
        assert_eq!(
            faults(&[("a", &wide), ("b", &wide), ("c", &wide), ("d", &wide)]),
            ["is 16388 bytes; at most 16384 can be given"]
        );
    }

    #[test]
    fn a_name_is_given_once_whatever_its_case() {
        assert_eq!(faults(&[("X-Env", "a"), ("x-env", "b")]).len(), 1);
    }

    proptest! {
        #[test]
        fn what_passes_cannot_break_a_header_line(name in "\\PC{0,40}", value in "(?s).{0,80}") {
            if check_name(&name).is_ok() && check_value(&value).is_ok() {
                let line = format!("{name}: {value}");
                prop_assert!(line.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)));
                prop_assert_eq!(line.split_once(": "), Some((name.as_str(), value.as_str())));
            }
        }

        #[test]
        fn a_list_passes_only_within_every_bound(sizes in proptest::collection::vec(0_usize..6_000, 0..40)) {
            let owned: Vec<(String, String)> =
                sizes.iter().enumerate().map(|(index, size)| (format!("x{index}"), "v".repeat(*size))).collect();
            let list: Vec<(&str, &str)> = owned.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let total_bytes: usize = owned.iter().map(|(name, value)| name.len() + value.len()).sum();
            let within = sizes.len() <= HEADERS_MAX
                && sizes.iter().all(|size| *size <= VALUE_BYTES_MAX)
                && total_bytes <= TOTAL_BYTES_MAX;
            prop_assert_eq!(faults(&list).is_empty(), within);
        }
    }
}
