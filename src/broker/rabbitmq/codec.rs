//! Tags to AMQP properties and back.
//!
//! Outgoing properties are built from nothing, never copied: 3.10 reads a client's `x-death` as a cycle and
//! parks the message for ever. All headers are scalars (streams and 3.10 drop tables).

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};

use crate::broker::{Asker, Message, Original, Queue, Tags};

const PERSISTENT: u8 = 2;
const VERSION: i64 = 1;
const TRACEPARENT_BYTES_MAX: usize = 64;
const SLACK_BYTES_MAX: usize = 64 * 1024;
/// Together with history (4 KiB), answer (1 KiB) and original headers (8 KiB) far below 16 KiB; at 131,064
/// bytes of headers the broker closes the connection.
const REASON_BYTES_MAX: usize = 1024;

/// The hop a publish is known by until its confirm came.
pub(super) const HOP: &str = "paperboy-hop";

/// Properties for one publish.
pub(super) fn encode(tags: &Tags, hop: u64) -> BasicProperties {
    let mut headers = FieldTable::default();
    let mut text = |name: &str, value: &str| {
        headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
    };
    let texts = [
        ("paperboy-subscription", &tags.subscription),
        ("paperboy-time", &tags.time),
        ("paperboy-original", &tags.original),
        ("traceparent", &tags.traceparent),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            text(name, value);
        }
    }
    if let Some(reason) = &tags.reason {
        text("paperboy-reason", clip(reason, REASON_BYTES_MAX));
    }
    if !tags.history.is_empty() {
        text("paperboy-history", &tags.history);
    }
    if !tags.answer.is_empty() {
        text("paperboy-answer", &tags.answer);
    }
    let mut number = |name: &str, value: i64| {
        headers.insert(name.into(), AMQPValue::LongLongInt(value));
    };
    let numbers = [
        ("paperboy-attempt", tags.attempt),
        ("paperboy-wait", tags.wait),
        ("paperboy-deferrals", tags.deferrals),
        ("paperboy-cycle", tags.cycle),
        ("paperboy-replay", tags.replay),
    ];
    for (name, value) in numbers {
        if value > 0 {
            number(name, i64::from(value));
        }
    }
    if let Some(first_seen_ms) = tags.first_seen_ms {
        number("paperboy-first-seen", first_seen_ms);
    }
    number("paperboy-v", VERSION);
    number(HOP, i64::try_from(hop).unwrap_or(i64::MAX));

    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_headers(headers);
    if let Some(id) = tags.message_id.as_deref().and_then(|id| ShortString::try_new(id).ok()) {
        properties = properties.with_message_id(id);
    }
    if let Some(kind) = tags.kind.as_deref().and_then(|kind| ShortString::try_new(kind).ok()) {
        properties = properties.with_type(kind);
    }
    properties
}

/// The hop a returned message was published under.
pub(super) fn hop_of(properties: &BasicProperties) -> Option<u64> {
    let headers = properties.headers().as_ref()?;
    u64::try_from(integer(headers.inner().get(HOP)?)?).ok()
}

/// A message as the worker sees it. On the events queue every `paperboy-*` header is a stranger's.
pub(super) fn decode(queue: Queue, delivery: Delivery) -> Message {
    let properties = delivery.properties;
    let mut tags = Tags {
        message_id: owned(properties.message_id()),
        kind: owned(properties.kind()),
        time: properties.timestamp().and_then(rfc3339),
        ..Tags::default()
    };
    if let Some(headers) = properties.headers() {
        tags.traceparent =
            header_text(headers, "traceparent").filter(|value| value.len() <= TRACEPARENT_BYTES_MAX);
        // The broker's own mark of a message it gave up on. A client's copy of it never gets this far: we
        // publish to the dead queues from a whitelist.
        let poisoned = is_dead(queue) && headers.contains_key("x-death");
        if !(is_from_outside(queue) || poisoned && queue == Queue::DeadEvents) {
            read_ours(headers, &mut tags);
        }
        if poisoned {
            tags.reason = None;
            // Nobody has resolved the type yet, and this message's own key is the name of the dead queue.
            tags.kind = tags.kind.or_else(|| first_key(headers));
        }
    }
    // The client doubles its buffer with each frame; what is in hand should be as large as it is. A copy, since allocators
    // shrink nothing in place that is more than half full.
    let body = match delivery.data {
        data if data.capacity() > data.len() + SLACK_BYTES_MAX => Bytes::copy_from_slice(&data),
        data => Bytes::from(data),
    };
    Message {
        body,
        tags,
        routing_key: delivery.routing_key.into(),
        redelivered: delivery.redelivered,
        asker: (queue == Queue::Calls).then(|| Box::new(asker(&properties))),
        original: Box::new(AmqpOriginal(properties)),
    }
}

/// By way of `as_str`: its `Display` goes through the formatter.
fn owned(text: &Option<ShortString>) -> Option<String> {
    text.as_ref().map(|text| text.as_str().to_owned())
}

/// Who waits for the answer of a call. An expiration that is no number is none (RabbitMQ refuses those itself).
fn asker(properties: &BasicProperties) -> Asker {
    Asker {
        reply_to: owned(properties.reply_to()).filter(|name| !name.is_empty()),
        correlation_id: owned(properties.correlation_id()),
        expires_ms: properties.expiration().as_ref().and_then(|text| text.as_str().parse().ok()),
    }
}

/// The key a dead-lettered message was published with: the broker keeps it in the newest entry of `x-death`.
fn first_key(headers: &FieldTable) -> Option<String> {
    let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else { return None };
    let AMQPValue::FieldTable(death) = deaths.as_slice().first()? else { return None };
    let AMQPValue::FieldArray(keys) = death.inner().get("routing-keys")? else { return None };
    let AMQPValue::LongString(key) = keys.as_slice().first()? else { return None };
    std::str::from_utf8(key.as_bytes()).ok().filter(|key| !key.is_empty()).map(str::to_owned)
}

/// Whether strangers publish to it: every `paperboy-*` header is theirs.
fn is_from_outside(queue: Queue) -> bool {
    matches!(queue, Queue::Events | Queue::Calls)
}

fn is_dead(queue: Queue) -> bool {
    matches!(queue, Queue::DeadDeliveries | Queue::DeadEvents)
}

/// Reads our own headers in one pass; of an odd type they count as absent.
fn read_ours(headers: &FieldTable, tags: &mut Tags) {
    let count = |value| integer(value).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    for (name, value) in headers.inner() {
        let Some(name) = name.as_str().strip_prefix("paperboy-") else { continue };
        match name {
            "subscription" => tags.subscription = text(value),
            "time" => tags.time = text(value).or(tags.time.take()),
            "history" => tags.history = text(value).unwrap_or_default(),
            "answer" => tags.answer = text(value).unwrap_or_default(),
            "reason" => tags.reason = text(value),
            "original" => tags.original = text(value),
            "attempt" => tags.attempt = count(value),
            "wait" => tags.wait = count(value),
            "deferrals" => tags.deferrals = count(value),
            "cycle" => tags.cycle = count(value),
            "replay" => tags.replay = count(value),
            "first-seen" => tags.first_seen_ms = integer(value),
            _ => {}
        }
    }
}

fn header_text(headers: &FieldTable, name: &str) -> Option<String> {
    text(headers.inner().get(name)?)
}

fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned),
        _ => None,
    }
}

fn integer(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortShortUInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortUInt(n) => Some(i64::from(*n)),
        AMQPValue::LongInt(n) => Some(i64::from(*n)),
        AMQPValue::LongUInt(n) => Some(i64::from(*n)),
        AMQPValue::LongLongInt(n) => Some(*n),
        _ => None,
    }
}

/// AMQP timestamps are whole seconds; some clients write milliseconds all the same.
fn rfc3339(timestamp: u64) -> Option<String> {
    const YEAR_3000_S: u64 = 32_503_680_000;
    let seconds = if timestamp > YEAR_3000_S { timestamp / 1000 } else { timestamp };
    let time = jiff::Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?;
    Some(time.to_string())
}

/// At most `bytes_max` bytes of a text, cut between characters.
fn clip(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// What a message arrived with.
struct AmqpOriginal(BasicProperties);

impl Original for AmqpOriginal {
    fn describe(&self, bytes_max: usize) -> String {
        let mut object = serde_json::Map::new();
        let mut left_out = 0;
        let mut bytes = 32;
        for (name, value) in self.facts() {
            // Escaping can make text up to six times as long; measured, not guessed.
            let cost =
                name.len() + 6 + serde_json::to_string(&value).map_or(usize::MAX / 2, |text| text.len());
            if bytes + cost > bytes_max {
                left_out += 1;
                continue;
            }
            bytes += cost;
            object.insert(name, value);
        }
        if left_out > 0 {
            object.insert("left_out".into(), left_out.into());
        }
        serde_json::Value::Object(object).to_string()
    }
}

impl AmqpOriginal {
    fn facts(&self) -> Vec<(String, serde_json::Value)> {
        let properties = &self.0;
        let mut facts = Vec::new();
        let named = [
            ("content_type", properties.content_type()),
            ("message_id", properties.message_id()),
            ("type", properties.kind()),
            ("correlation_id", properties.correlation_id()),
            ("app_id", properties.app_id()),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                facts.push((name.to_owned(), value.as_str().into()));
            }
        }
        for (name, value) in properties.headers().iter().flat_map(|headers| headers.inner()) {
            facts.push((format!("header {name}"), json(value, 0)));
        }
        facts
    }
}

/// A header's value as JSON; nesting is cut at eight levels.
fn json(value: &AMQPValue, depth: u8) -> serde_json::Value {
    if depth > 8 {
        return "…".into();
    }
    match value {
        AMQPValue::Boolean(flag) => (*flag).into(),
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into(),
        AMQPValue::ShortString(text) => text.as_str().into(),
        AMQPValue::Timestamp(seconds) => (*seconds).into(),
        AMQPValue::Float(number) => f64::from(*number).into(),
        AMQPValue::Double(number) => (*number).into(),
        AMQPValue::FieldArray(values) => {
            values.as_slice().iter().map(|value| json(value, depth + 1)).collect()
        }
        AMQPValue::FieldTable(table) => {
            table.inner().iter().map(|(name, value)| (name.to_string(), json(value, depth + 1))).collect()
        }
        other => integer(other).map_or(serde_json::Value::Null, Into::into),
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::{DecimalValue, FieldArray};
    use proptest::prelude::*;

    use super::*;

    fn delivery(properties: BasicProperties) -> Delivery {
        let mut delivery = Delivery::mock(1, "".into(), "key".into(), false, b"{}".to_vec());
        delivery.properties = properties;
        delivery
    }

    fn full() -> Tags {
        Tags {
            message_id: Some("evt_1".into()),
            kind: Some("document.processed".into()),
            time: Some("2026-11-22T09:00:07.120Z".into()),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            subscription: Some("sub_1".into()),
            attempt: 3,
            wait: 7,
            deferrals: 2,
            first_seen_ms: Some(1_800_000_000_123),
            history: "h".into(),
            answer: "no".into(),
            reason: Some("exhausted".into()),
            original: Some("{}".into()),
            cycle: 1,
            replay: 1,
        }
    }

    #[test]
    fn tags_survive_a_hop() {
        let message = decode(Queue::Retries, delivery(encode(&full(), 9)));
        assert_eq!(message.tags, full());
    }

    #[test]
    fn our_headers_from_outside_are_ignored() {
        let message = decode(Queue::Events, delivery(encode(&full(), 9)));
        let expected = Tags {
            message_id: full().message_id,
            kind: full().kind,
            traceparent: full().traceparent,
            ..Tags::default()
        };
        assert_eq!(message.tags, expected);
    }

    #[test]
    fn a_poisoned_event_keeps_nothing_a_stranger_wrote() {
        let mut properties = encode(&full(), 9);
        let mut headers = properties.headers().clone().unwrap();
        headers.insert("x-death".into(), AMQPValue::FieldArray(Vec::new().into()));
        properties = properties.with_headers(headers);
        assert_eq!(decode(Queue::DeadEvents, delivery(properties.clone())).tags.reason, None);
        let ours = decode(Queue::DeadDeliveries, delivery(properties)).tags;
        assert_eq!((ours.reason, ours.subscription), (None, Some("sub_1".into())));
    }

    #[test]
    fn odd_header_types_count_as_absent() {
        let mut headers = FieldTable::default();
        headers.insert("paperboy-attempt".into(), AMQPValue::LongString("3".into()));
        headers.insert("paperboy-wait".into(), AMQPValue::LongLongInt(-1));
        headers.insert("paperboy-subscription".into(), AMQPValue::Boolean(true));
        let message = decode(Queue::Retries, delivery(BasicProperties::default().with_headers(headers)));
        assert_eq!(message.tags, Tags::default());
    }

    #[test]
    fn original_headers_stay_within_their_limit() {
        let mut headers = FieldTable::default();
        for n in 0..200 {
            let value = AMQPValue::LongString("\u{1}".repeat(100).as_str().into());
            headers.insert(format!("x-{n}").into(), value);
        }
        let original = AmqpOriginal(BasicProperties::default().with_headers(headers));
        let text = original.describe(8192);
        assert!(text.len() <= 8192, "{}", text.len());
        assert!(text.contains("left_out"));
    }

    #[test]
    fn a_timestamp_becomes_the_events_time() {
        assert_eq!(rfc3339(1_800_000_000).as_deref(), Some("2027-01-15T08:00:00Z"));
        assert_eq!(rfc3339(1_800_000_000_000).as_deref(), Some("2027-01-15T08:00:00Z"));
        assert_eq!(rfc3339(u64::MAX), None);
    }

    const QUEUES: [Queue; 6] = Queue::ALL;

    /// Any value a client can put into a table, tables and lists within it too.
    fn any_value() -> impl Strategy<Value = AMQPValue> {
        let scalar = prop_oneof![
            any::<bool>().prop_map(AMQPValue::Boolean),
            any::<i8>().prop_map(AMQPValue::ShortShortInt),
            any::<u8>().prop_map(AMQPValue::ShortShortUInt),
            any::<i16>().prop_map(AMQPValue::ShortInt),
            any::<u16>().prop_map(AMQPValue::ShortUInt),
            any::<i32>().prop_map(AMQPValue::LongInt),
            any::<u32>().prop_map(AMQPValue::LongUInt),
            any::<i64>().prop_map(AMQPValue::LongLongInt),
            any::<f32>().prop_map(AMQPValue::Float),
            any::<f64>().prop_map(AMQPValue::Double),
            any::<(u8, u32)>()
                .prop_map(|(scale, value)| AMQPValue::DecimalValue(DecimalValue { scale, value })),
            any::<u64>().prop_map(AMQPValue::Timestamp),
            "(?s).{0,60}".prop_map(|text| AMQPValue::ShortString(text.as_str().into())),
            "(?s).{0,90}".prop_map(|text| AMQPValue::LongString(text.into())),
            proptest::collection::vec(any::<u8>(), 0..90)
                .prop_map(|bytes| AMQPValue::LongString(bytes.into())),
            proptest::collection::vec(any::<u8>(), 0..20)
                .prop_map(|bytes| AMQPValue::ByteArray(bytes.into())),
            Just(AMQPValue::Void),
        ];
        scalar.prop_recursive(12, 40, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4)
                    .prop_map(|values| AMQPValue::FieldArray(FieldArray::from(values))),
                any_table(inner).prop_map(AMQPValue::FieldTable),
            ]
        })
    }

    /// A table of which many names are ours or the broker's.
    fn any_table(value: impl Strategy<Value = AMQPValue> + 'static) -> impl Strategy<Value = FieldTable> {
        let name = prop_oneof![
            "paperboy-(subscription|time|history|answer|reason|original|attempt|wait|deferrals|cycle|replay|first-seen|hop|v)",
            "x-death|traceparent|routing-keys",
            "(?s).{0,9}",
        ];
        proptest::collection::vec((name, value), 0..8).prop_map(|entries| {
            let mut table = FieldTable::default();
            for (name, value) in entries {
                table.insert(name.as_str().into(), value);
            }
            table
        })
    }

    fn any_tags() -> impl Strategy<Value = Tags> {
        let text = || proptest::option::of("(?s).{0,60}");
        let short = || proptest::option::of("\\PC{0,60}");
        let trace = proptest::option::of("[ -~]{0,64}");
        let texts = (short(), short(), text(), trace, text(), "\\PC{0,90}", "\\PC{0,90}", text(), text());
        let numbers = (any::<[u32; 5]>(), proptest::option::of(any::<i64>()));
        (texts, numbers).prop_map(|(texts, ([attempt, wait, deferrals, cycle, replay], first_seen_ms))| {
            let (message_id, kind, time, traceparent, subscription, history, answer, reason, original) =
                texts;
            Tags {
                message_id,
                kind,
                time,
                traceparent,
                subscription,
                attempt,
                wait,
                deferrals,
                first_seen_ms,
                history,
                answer,
                reason,
                original,
                cycle,
                replay,
            }
        })
    }

    proptest! {
        #[test]
        fn no_header_table_panics_or_passes_for_ours(headers in any_table(any_value()), bytes_max in 64_usize..9_000) {
            let properties = BasicProperties::default().with_headers(headers.clone());
            let _ = hop_of(&properties);
            for queue in QUEUES {
                let message = decode(queue, delivery(properties.clone()));
                let description = message.original.describe(bytes_max);
                prop_assert!(description.len() <= bytes_max, "{} of {bytes_max}", description.len());
                prop_assert!(serde_json::from_str::<serde_json::Value>(&description).is_ok());
                prop_assert!(message.tags.traceparent.is_none_or(|trace| trace.len() <= TRACEPARENT_BYTES_MAX));
            }
            let tags = decode(Queue::Events, delivery(properties)).tags;
            let strangers = Tags { traceparent: tags.traceparent.clone(), ..Tags::default() };
            prop_assert_eq!(tags, strangers);
        }

        #[test]
        fn any_tags_survive_a_hop_over_every_queue_of_ours(tags in any_tags(), hop in 0..u64::try_from(i64::MAX).unwrap()) {
            let properties = encode(&tags, hop);
            prop_assert_eq!(hop_of(&properties), Some(hop));
            for queue in [Queue::Deliveries, Queue::Retries, Queue::DeadDeliveries, Queue::DeadEvents] {
                prop_assert_eq!(&decode(queue, delivery(properties.clone())).tags, &tags);
            }
        }
    }
}
