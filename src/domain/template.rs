//! The URL of a subscription: fixed text with places that an event fills.
//!
//! Places stand in the path and in the query only: `:id` as a whole segment or a whole query value, and
//! `{event.id}` `{event.type}` `{tenant}` `{document_id}` `{batch_id}` `{scope.KEY}` `{data./json/pointer}`
//! anywhere there. Every value is percent-encoded so that it stays inside its segment: no event can reach
//! another path, another host or another parameter than the subscriber meant.
//!
//! Which addresses may be called is not decided here: addresses in every spelling are taken, because only
//! the guard at the time of sending knows where a host really leads.

use std::borrow::Cow;
use std::fmt;

use url::{Host, Url};

use crate::domain::event::Event;
use crate::domain::fault::Fault;
use crate::domain::placeholder::{Placeholder, VALUE_BYTES_MAX};
use crate::domain::secret::Secret;

/// The longest URL text of a subscription.
pub const TEXT_BYTES_MAX: usize = 2048;
/// The longest URL after an event filled it in.
pub const RENDERED_BYTES_MAX: usize = 8192;

/// A checked URL with placeholders; [`UrlTemplate::render`] makes the address of one delivery of it.
#[derive(Clone)]
pub struct UrlTemplate {
    /// As it was written, without credentials.
    text: String,
    /// Scheme, host and port: what no event can change.
    origin: Url,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// No placeholders: parsed once.
    Fixed(Url),
    /// Path and query in pieces.
    Pieces(Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(Placeholder),
}

/// User and password that stood in a URL (`https://user:password@host/`), decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Userinfo {
    pub username: String,
    pub password: Secret,
}

impl UrlTemplate {
    /// Checks a URL's text and takes credentials out of it. The fault's field is empty.
    ///
    /// # Errors
    /// A fault that says what is wrong; it may name a placeholder and repeats nothing else of the URL, which
    /// may hold a password.
    pub fn parse(text: &str) -> Result<(Self, Option<Userinfo>), Fault> {
        check_text(text)?;
        let (scheme, rest) = text.split_once("://").ok_or_else(no_address)?;
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (userinfo, authority) = split_userinfo(authority)?;
        let origin = parse_origin(scheme, authority)?;
        let pieces = parse_target(target)?;
        let text = format!("{scheme}://{authority}{target}");
        let kind = if pieces.iter().all(|piece| matches!(piece, Piece::Text(_))) {
            Kind::Fixed(Url::parse(&text).map_err(not_a_url)?)
        } else {
            Kind::Pieces(pieces)
        };
        Ok((UrlTemplate { text, origin, kind }, userinfo))
    }

    /// Whether every event is sent to the same URL.
    pub fn is_fixed(&self) -> bool {
        matches!(self.kind, Kind::Fixed(_))
    }

    /// The host as it is connected to: international names in their ASCII form, addresses normalised.
    pub fn host(&self) -> &str {
        self.origin.host_str().unwrap_or_default()
    }

    /// Scheme, host and port with an empty path, for checks of the address when a subscription is made.
    pub fn origin(&self) -> &Url {
        &self.origin
    }

    /// The URL of one delivery; borrowed where no event changes it.
    ///
    /// # Errors
    /// A [`TemplateError`] when the event lacks a value or has one that cannot stand in a URL.
    pub fn render(&self, event: &Event<'_>) -> Result<Cow<'_, Url>, TemplateError> {
        let pieces = match &self.kind {
            Kind::Fixed(url) => return Ok(Cow::Borrowed(url)),
            Kind::Pieces(pieces) => pieces,
        };
        // The origin ends with an empty path, `/`; the target brings its own.
        let mut text = self.origin.as_str().trim_end_matches('/').to_owned();
        for piece in pieces {
            match piece {
                Piece::Text(fixed) => text.push_str(fixed),
                Piece::Value(placeholder) => push_encoded(&mut text, &placeholder.value_in(event)?),
            }
        }
        let url = Url::parse(&text).map_err(|_| TemplateError::NotAUrl)?;
        match url.as_str().len() {
            0..=RENDERED_BYTES_MAX => Ok(Cow::Owned(url)),
            bytes => Err(TemplateError::UrlTooLong { bytes }),
        }
    }
}

/// The text as it was written, without credentials.
impl fmt::Display for UrlTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Paths and queries may hold tokens, so `Debug` shows where it leads and no more.
impl fmt::Debug for UrlTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UrlTemplate({}…)", self.origin)
    }
}

/// Why an event cannot fill a URL. Names the placeholder, never the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("the event has no `{0}` for the URL")]
    Missing(Placeholder),
    #[error("`{0}` is empty and cannot stand in the URL")]
    Empty(Placeholder),
    #[error("`{0}` is null and cannot stand in the URL")]
    Null(Placeholder),
    #[error("`{0}` is not a text, a number or a boolean and cannot stand in the URL")]
    NotScalar(Placeholder),
    #[error("`{placeholder}` has {bytes} bytes; at most {VALUE_BYTES_MAX} can stand in the URL")]
    TooLong { placeholder: Placeholder, bytes: usize },
    #[error("`{0}` is `.` or `..`, which would change the URL's path")]
    DotSegment(Placeholder),
    #[error("the URL has {bytes} bytes; at most {RENDERED_BYTES_MAX} are sent")]
    UrlTooLong { bytes: usize },
    #[error("the filled in URL is not a URL")]
    NotAUrl,
}

/// What the URL parser would silently repair (control characters, backslashes, missing slashes) is refused
/// here: what a person reads in a subscription is what is called.
fn check_text(text: &str) -> Result<(), Fault> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Fault::new("", format!("is longer than {TEXT_BYTES_MAX} bytes")));
    }
    if text.bytes().any(|byte| byte < 0x21 || byte == 0x7f || byte == b'\\') {
        let hint = "percent-encode them: a space is `%20`";
        return Err(Fault::new("", "may not hold spaces, control characters or backslashes").hint(hint));
    }
    let scheme = [7, 8].into_iter().find(|length| {
        let start = text.get(..*length).unwrap_or_default();
        start.eq_ignore_ascii_case("http://") || start.eq_ignore_ascii_case("https://")
    });
    match scheme.and_then(|length| text.as_bytes().get(length)) {
        Some(b'/' | b'?' | b'#') | None => Err(no_address()),
        Some(_) => Ok(()),
    }
}

fn no_address() -> Fault {
    Fault::new("", "must be an absolute http or https URL").hint("for example `https://erp.example.com/hook`")
}

fn not_a_url(reason: url::ParseError) -> Fault {
    Fault::new("", format!("is not a URL: {reason}"))
}

/// Splits `user:password@` from the authority, decoded.
fn split_userinfo(authority: &str) -> Result<(Option<Userinfo>, &str), Fault> {
    let Some((userinfo, host)) = authority.rsplit_once('@') else {
        return Ok((None, authority));
    };
    let (username, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    if userinfo.contains(['{', '}'])
        || username.starts_with(':')
        || password.starts_with(':')
        || password == "id"
    {
        return Err(misplaced());
    }
    let (Some(username), Some(password)) = (decode(username), decode(password)) else {
        return Err(Fault::new("", "holds a user or password that is not percent-encoded UTF-8"));
    };
    if userinfo.contains('@') || username.is_empty() {
        return Err(
            Fault::new("", "holds credentials that can be read in two ways").hint("give them in `auth`")
        );
    }
    Ok((Some(Userinfo { username, password: Secret::new(password) }), host))
}

fn misplaced() -> Fault {
    Fault::new("", "may hold placeholders in the path and the query only")
        .hint("write scheme, host and port out")
}

/// Scheme, host and port, with the rules on names that the URL parser does not check (RFC 1035 §2.3.4).
fn parse_origin(scheme: &str, authority: &str) -> Result<Url, Fault> {
    if authority.contains(['{', '}']) || authority.starts_with(':') || authority.ends_with(":id") {
        return Err(misplaced());
    }
    let origin = Url::parse(&format!("{scheme}://{authority}/")).map_err(not_a_url)?;
    if origin.port() == Some(0) {
        return Err(Fault::new("", "has port 0, which cannot be called"));
    }
    if let Some(Host::Domain(name)) = origin.host() {
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.len() > 253 || name.split('.').any(|label| label.is_empty() || label.len() > 63) {
            let message = "has a host name with an empty label, one over 63 bytes, or over 253 bytes in all";
            return Err(Fault::new("", message));
        }
    }
    Ok(origin)
}

/// Path and query in pieces.
fn parse_target(target: &str) -> Result<Vec<Piece>, Fault> {
    let mut pieces = Vec::new();
    let mut fixed = String::new();
    let mut rest = target;
    let (mut in_query, mut at_word_start) = (false, false);
    while let Some(next) = rest.chars().next() {
        if let Some((placeholder, length_bytes)) = placeholder_at(rest, in_query, at_word_start)? {
            if !fixed.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut fixed)));
            }
            pieces.push(Piece::Value(placeholder));
            rest = &rest[length_bytes..];
            at_word_start = false;
        } else {
            fixed.push(next);
            rest = &rest[next.len_utf8()..];
            in_query |= next == '?';
            at_word_start = is_delimiter(next, in_query);
        }
    }
    if !fixed.is_empty() {
        pieces.push(Piece::Text(fixed));
    }
    check_pieces(&pieces)?;
    Ok(pieces)
}

/// The placeholder with which `rest` begins, and its length in the text.
fn placeholder_at(
    rest: &str,
    in_query: bool,
    at_word_start: bool,
) -> Result<Option<(Placeholder, usize)>, Fault> {
    if rest.starts_with(['{', '}']) {
        let name = rest.strip_prefix('{').and_then(|tail| tail.split_once('}')).map(|(name, _)| name);
        let name = name.ok_or_else(|| {
            Fault::new("", "has a brace without its other half").hint("a literal brace is `%7B` or `%7D`")
        })?;
        return Ok(Some((Placeholder::parse(name)?, name.len() + "{}".len())));
    }
    if !at_word_start || !rest.starts_with(':') {
        return Ok(None);
    }
    if let Some(tail) = rest.strip_prefix(":id")
        && (tail.is_empty() || tail.starts_with(|c| c == '?' || is_delimiter(c, in_query)))
    {
        return Ok(Some((Placeholder::DocumentId, ":id".len())));
    }
    if in_query {
        return Ok(None);
    }
    // A misspelt parameter must not be sent as text.
    let message = "has a segment that starts with `:` and is not `:id`";
    Err(Fault::new("", message).hint("a literal colon there is `%3A`; other values are written as `{…}`"))
}

/// What stands between the words in which `:id` is looked for: segments, and names and values of the query.
fn is_delimiter(c: char, in_query: bool) -> bool {
    if in_query { matches!(c, '?' | '&' | '=') } else { c == '/' }
}

/// Refuses fixed text that would change its meaning next to a value, or would swallow one.
fn check_pieces(pieces: &[Piece]) -> Result<(), Fault> {
    let fixed =
        || pieces.iter().filter_map(|piece| if let Piece::Text(text) = piece { Some(text) } else { None });
    if fixed().any(|text| text.contains('#')) {
        return Err(Fault::new("", "has a fragment, which is never sent").hint("a literal `#` is `%23`"));
    }
    let has_values = fixed().count() < pieces.len();
    let before_a_value = pieces.windows(2).filter(|pair| matches!(pair[1], Piece::Value(_)));
    for pair in before_a_value {
        // `%2{tenant}` could become an encoded slash.
        if let Piece::Text(text) = &pair[0]
            && text.bytes().rev().take(2).any(|byte| byte == b'%')
        {
            return Err(Fault::new("", "has an unfinished percent-encoding in front of a placeholder"));
        }
    }
    let path: String =
        pieces.iter().map(|piece| if let Piece::Text(text) = piece { text } else { "x" }).collect();
    let path = path.split('?').next().unwrap_or_default().to_ascii_lowercase().replace("%2e", ".");
    if has_values && path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(Fault::new("", "may not hold `.` or `..` segments beside placeholders"));
    }
    Ok(())
}

/// Percent-encodes all but letters, digits, `-`, `_`, `~` and `.` (RFC 3986 §2.3). A value that is only `.` or
/// `..` never comes here: encoded or not, parsers take it for a step in the path.
fn push_encoded(text: &mut String, value: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~.".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let digits = [b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            text.extend(digits.map(char::from));
        }
    }
}

/// Percent-decodes a text; `None` if the result is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).filter(|_| *first == b'%').and_then(|pair| std::str::from_utf8(pair).ok());
        match digits.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::Hints;
    use proptest::prelude::*;

    const TIME: &str = "2026-11-22T09:00:07.120Z";

    fn event(json: &str) -> Event<'_> {
        let hints = Hints { message_id: Some("evt_1"), time: Some(TIME), ..Hints::default() };
        Event::parse(json.as_bytes(), &hints).unwrap()
    }

    fn rendered(template: &str, json: &str) -> Result<String, String> {
        let (template, _) = UrlTemplate::parse(template).unwrap();
        template.render(&event(json)).map(|url| url.to_string()).map_err(|error| error.to_string())
    }

    /// The `:id` of `https://h.example/v1/docs/:id/events` for a document id.
    fn with_id(id: &str) -> Result<String, String> {
        let json = serde_json::json!({"type": "a", "tenant": "t", "document_id": id}).to_string();
        rendered("https://h.example/v1/docs/:id/events", &json)
    }

    fn refusal(text: &str) -> Fault {
        match UrlTemplate::parse(text) {
            Ok((template, _)) => panic!("{text:?} was taken as {template}"),
            Err(fault) => fault,
        }
    }

    #[test]
    fn a_value_cannot_leave_its_segment() {
        assert_eq!(with_id("../../admin").unwrap(), "https://h.example/v1/docs/..%2F..%2Fadmin/events");
    }

    #[test]
    fn a_value_that_is_a_step_in_the_path_is_refused() {
        for id in [".", ".."] {
            assert_eq!(
                with_id(id).unwrap_err(),
                "`document_id` is `.` or `..`, which would change the URL's path"
            );
        }
        assert_eq!(with_id("...").unwrap(), "https://h.example/v1/docs/.../events");
        assert_eq!(with_id("%2e%2e").unwrap(), "https://h.example/v1/docs/%252e%252e/events");
    }

    #[test]
    fn delimiters_in_a_value_are_encoded() {
        let cases = [
            ("a/b", "a%2Fb"),
            ("a?b=1", "a%3Fb%3D1"),
            ("a#b", "a%23b"),
            ("a%2Fb", "a%252Fb"),
            ("a b", "a%20b"),
            ("é", "%C3%A9"),
            ("a\\b\r\n", "a%5Cb%0D%0A"),
            ("a.b-c_d~e", "a.b-c_d~e"),
        ];
        for (id, segment) in cases {
            assert_eq!(with_id(id).unwrap(), format!("https://h.example/v1/docs/{segment}/events"), "{id:?}");
        }
    }

    #[test]
    fn only_short_scalars_stand_in_a_url() {
        let data = |value: &str| {
            let json = format!(r#"{{"type":"a","tenant":"t","data":{{"v":{value}}}}}"#);
            rendered("https://h.example/{data./v}", &json)
        };
        for (value, text) in [
            ("7", "7"),
            ("true", "true"),
            ("\"x\"", "x"),
            ("-1.50", "-1.50"),
            ("1e+5", "1e%2B5"),
            ("12345678901234567890123", "12345678901234567890123"),
        ] {
            assert_eq!(data(value).unwrap(), format!("https://h.example/{text}"), "{value}");
        }
        let long = format!("\"{}\"", "x".repeat(2_000));
        for (value, reason) in [
            ("\"\"", "is empty"),
            ("null", "is null"),
            ("{}", "is not a text"),
            ("[1]", "is not a text"),
            ("\"\\ud800\"", "is not a text"),
            (long.as_str(), "has 2000 bytes; at most 256"),
        ] {
            let error = data(value).unwrap_err();
            assert!(error.starts_with(&format!("`data./v` {reason}")), "{error}");
        }
        let bare = r#"{"type":"a","tenant":"t"}"#;
        assert_eq!(
            rendered("https://h.example/:id", bare).unwrap_err(),
            "the event has no `document_id` for the URL"
        );
        assert_eq!(
            rendered("https://h.example/{data./v}", bare).unwrap_err(),
            "the event has no `data./v` for the URL"
        );
        assert_eq!(with_id(&"x".repeat(256)).unwrap().len(), "https://h.example/v1/docs//events".len() + 256);
        assert!(with_id(&"x".repeat(257)).is_err());
    }

    #[test]
    fn every_placeholder_is_filled() {
        let json = r#"{"type":"document.processed","tenant":"acme","scope":{"inbox":"i 7"},"document_id":"d1",
                       "batch_id":"b1","data":{"a/b":[{"n":1}]}}"#;
        let template = "https://h.example/{event.id}/{event.type}/{tenant}-{document_id}/:id\
                        ?b={batch_id}&i={scope.inbox}&d={data./a~1b/0/n}&x=:id&y=:id.json&:z";
        let url = "https://h.example/evt_1/document.processed/acme-d1/d1?b=b1&i=i%207&d=1&x=d1&y=:id.json&:z";
        assert_eq!(rendered(template, json).unwrap(), url);
        assert_eq!(rendered("https://h.example?d=:id", json).unwrap(), "https://h.example/?d=d1");
        assert_eq!(rendered("https://h.example/:id?:id", json).unwrap(), "https://h.example/d1?d1");
        assert_eq!(
            rendered("https://h.example:8443/a:b/{tenant}", json).unwrap(),
            "https://h.example:8443/a:b/acme"
        );
    }

    #[test]
    fn placeholders_stand_in_path_and_query_only() {
        let templates = [
            "https://:host/x",
            "https://h.example:port/x",
            "https://h.example:id/x",
            "https://{tenant}.example/x",
            "https://{tenant}/x",
            "https://h.example:{tenant}/x",
            "{tenant}://h.example/x",
            "https://{tenant}@h.example/x",
            "https://u::id@h.example/x",
            "https://u:id@h.example/x",
            "https://:id@h.example/x",
        ];
        for template in templates {
            refusal(template);
        }
    }

    #[test]
    fn misspelt_placeholders_are_refused_and_named() {
        for template in ["/:docid", "/:id.json", "/a/:ID/b", "/:"] {
            assert!(refusal(&format!("https://h.example{template}")).message.contains("`:id`"), "{template}");
        }
        for name in ["", "id", "scope.", "data", "data.x", "event.time", "tenant ", "data./~2"] {
            refusal(&format!("https://h.example/{{{name}}}"));
        }
        for template in ["/{tenant", "/tenant}", "/{a{b}}"] {
            refusal(&format!("https://h.example{template}"));
        }
    }

    #[test]
    fn fixed_text_cannot_change_a_value_nor_swallow_it() {
        for target in ["/%2{tenant}", "/%{tenant}", "/{tenant}/../x", "/{tenant}/%2E%2e", "/./{tenant}"] {
            refusal(&format!("https://h.example{target}"));
        }
        for target in ["/%2F{tenant}", "/.{tenant}", "/{tenant}?a=../b", "/a/../b"] {
            assert!(UrlTemplate::parse(&format!("https://h.example{target}")).is_ok(), "{target}");
        }
    }

    #[test]
    fn texts_that_are_no_plain_web_address_are_refused() {
        let label = format!("http://{}.example/", "a".repeat(64));
        let name = format!("http://{}example/", "a.".repeat(124));
        let path = format!("http://example.com/{}", "a".repeat(70_000));
        let limit =
            format!("http://example.com/{}", "a".repeat(TEXT_BYTES_MAX + 1 - "http://example.com/".len()));
        let texts = [
            "http://[fe80::1%25eth0]/",
            "http://[fe80::1%eth0]/",
            "http://[v1.a]/",
            "http://[::1/",
            "http://127.0.0.1\\@example.com/",
            "http:\\\\127.0.0.1\\x",
            "http:127.0.0.1/",
            "http:/127.0.0.1/",
            "http:///127.0.0.1/",
            "https:example.com",
            "http://?x",
            "http://#x",
            "http://",
            "https://",
            "http://exam\tple.com/",
            "http://example.com/\r\nX-Injected: 1",
            " http://example.com/",
            "http://example.com/ ",
            "http://example.com/\u{7f}",
            "http://1.1.1.1 &@2.2.2.2# @3.3.3.3/",
            "file:///etc/passwd",
            "gopher://127.0.0.1:6379/_INFO",
            "ftp://example.com/",
            "unix:/run/x.sock",
            "javascript:alert(1)",
            "data:text/plain,x",
            "//example.com/",
            "example.com/hook",
            "",
            "http://example.com:0/",
            "http://example.com:65536/",
            "http://example.com:80:80/",
            "http://xn--/",
            "http://xn--localhost-.example/",
            "http://example.com%00.evil.org/",
            "http://256.256.256.256/",
            "http://4294967296/",
            "http://1.2.3.0x100/",
            "http://example..com/",
            "http://example.com../",
            "http://.example.com/",
            &label,
            &name,
            &path,
            &limit,
            "http://example.com/#x",
            "http://example.com/?a#b",
            "http://example.com#x",
            "http://a@b@example.com/",
            "http://@example.com/",
            "http://:p@example.com/",
            "http://%ff:x@example.com/",
        ];
        for text in texts {
            refusal(text);
        }
    }

    /// Addresses in odd spellings too: they are the guard's matter.
    #[test]
    fn plain_web_addresses_are_taken_as_they_are() {
        let cases = [
            ("http://2130706433/", "127.0.0.1"),
            ("http://0x7f.1/x", "127.0.0.1"),
            ("http://[::ffff:127.0.0.1]/", "[::ffff:7f00:1]"),
            ("http://localhost:8080", "localhost"),
            ("http://example.com/%0d%0aX-Injected:%201", "example.com"),
            ("hTtPs://EXAMPLE.com/A", "example.com"),
            ("http://bücher.example/", "xn--bcher-kva.example"),
            ("http://example.com./", "example.com."),
            ("https://h.example/a/../b", "h.example"),
            ("https://h.example?x", "h.example"),
        ];
        for (text, host) in cases {
            let (template, userinfo) = UrlTemplate::parse(text).unwrap();
            assert_eq!((template.host(), template.to_string().as_str(), userinfo), (host, text, None));
            assert!(template.is_fixed());
        }
        let (template, _) = UrlTemplate::parse("hTtPs://EXAMPLE.com/A").unwrap();
        let event = event(r#"{"type":"a","tenant":"t"}"#);
        assert_eq!(template.render(&event).unwrap().as_str(), "https://example.com/A");
        assert!(matches!(template.render(&event).unwrap(), Cow::Borrowed(_)), "a fixed URL is parsed once");
    }

    /// Credentials are moved to `auth`, not refused.
    #[test]
    fn credentials_are_taken_out_of_the_url() {
        let (template, userinfo) = UrlTemplate::parse("https://us%3Aer:p%40ss%C3%A9@h.example/:id").unwrap();
        assert_eq!(userinfo, Some(Userinfo { username: "us:er".to_owned(), password: Secret::new("p@ssé") }));
        assert_eq!(template.to_string(), "https://h.example/:id");
        let (template, userinfo) = UrlTemplate::parse("http://example.com:80@127.0.0.1/").unwrap();
        assert_eq!((template.host(), userinfo.unwrap().username.as_str()), ("127.0.0.1", "example.com"));
        let (_, userinfo) = UrlTemplate::parse("https://100%@h.example/").unwrap();
        assert_eq!(userinfo.unwrap().username, "100%");
    }

    #[test]
    fn a_refusal_repeats_no_credentials() {
        for text in [
            "https://user:canary@h..example/",
            "https://user:canary@h.example/#x",
            "https://canary:x@h:99999/",
        ] {
            assert!(!format!("{:?}", refusal(text)).contains("canary"), "{text}");
        }
    }

    #[test]
    fn a_filled_url_has_a_greatest_length() {
        let (names, values): (Vec<_>, Vec<_>) = (0..40)
            .map(|index| (format!("{{scope.k{index}}}"), format!("\"k{index}\":\"{}\"", "é".repeat(100))))
            .unzip();
        let json = format!(r#"{{"type":"a","tenant":"t","scope":{{{}}}}}"#, values.join(","));
        let error = rendered(&format!("https://h.example/{}", names.join("/")), &json).unwrap_err();
        assert!(error.starts_with("the URL has 24"), "{error}");
    }

    proptest! {
        #[test]
        fn a_rendered_value_is_one_segment_that_decodes_to_the_value(value in "(?s).{1,60}") {
            prop_assume!(value.len() <= VALUE_BYTES_MAX);
            match with_id(&value) {
                Err(_) => prop_assert!(value == "." || value == ".."),
                Ok(url) => {
                    let url = Url::parse(&url).unwrap();
                    let segments: Vec<&str> = url.path_segments().unwrap().collect();
                    prop_assert_eq!(segments.len(), 4);
                    prop_assert_eq!((segments[0], segments[1], segments[3]), ("v1", "docs", "events"));
                    prop_assert_eq!(decode(segments[2]), Some(value));
                    prop_assert_eq!((url.query(), url.fragment(), url.host_str()), (None, None, Some("h.example")));
                }
            }
        }

        #[test]
        fn values_side_by_side_stay_in_their_segment(a in "[./%\\\\?#&]{1,4}", b in "[./%2eE]{1,4}") {
            let json = serde_json::json!({"type": "a", "tenant": "t", "document_id": a, "batch_id": b}).to_string();
            if let Ok(url) = rendered("https://h.example/x/.{document_id}{batch_id}/y?q={batch_id}", &json) {
                let url = Url::parse(&url).unwrap();
                let segments: Vec<&str> = url.path_segments().unwrap().collect();
                prop_assert_eq!(segments.len(), 3);
                prop_assert_eq!(decode(segments[1]), Some(format!(".{a}{b}")));
                let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
                prop_assert_eq!(pairs, vec![("q".to_owned(), b)]);
                prop_assert_eq!(url.fragment(), None);
            }
        }

        #[test]
        fn no_text_panics_and_what_is_taken_keeps_its_host(text in "(https?://)?[a-z0-9.:/?#@{}%é\\\\ -]{0,40}") {
            let Ok((template, _)) = UrlTemplate::parse(&text) else { return Ok(()) };
            let event = event(r#"{"type":"a","tenant":"t","document_id":"d"}"#);
            if let Ok(url) = template.render(&event) {
                prop_assert_eq!(url.host_str(), Some(template.host()));
                prop_assert!(url.username().is_empty() && url.password().is_none());
            }
        }
    }
}
