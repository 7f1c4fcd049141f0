//! Packets, field by field, under the names of the API.
//!
//! Invariants:
//! - No password, no authentication data, and no user property called `token`: whether there is one is all that is said.
//! - Texts end after [`TEXT_BYTES_MAX`] bytes and lists after [`LIST_MAX`] items; where something was left out, it says so.
//!
//! Does not know: who asked.

use super::packet::TracedValue;
use motemq_codec::{
    Ack, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect, Forwarded,
    Packet, Publish, QoS, ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeFilter, UnsubAck,
    Unsubscribe, UserProperties, Will,
};

/// Names and values, in the order in which they are shown.
pub(crate) type Fields = Vec<(&'static str, TracedValue)>;

/// What is in a packet of this protocol level, with so many bytes of its payload at most.
pub(crate) fn describe(
    packet: &Packet<'_>,
    topic: Option<&str>,
    level: u8,
    payload_bytes_max: usize,
) -> Fields {
    match packet {
        Packet::Connect(connect) => describe_connect(connect, payload_bytes_max),
        Packet::ConnAck(connack) => describe_connack(connack, level),
        Packet::Publish(publish) => {
            describe_publish(publish, topic.unwrap_or(publish.topic), payload_bytes_max)
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            describe_ack(ack, level)
        }
        Packet::Subscribe(subscribe) => describe_subscribe(subscribe, level),
        Packet::SubAck(suback) => describe_suback(suback, level),
        Packet::Unsubscribe(unsubscribe) => describe_unsubscribe(unsubscribe),
        Packet::UnsubAck(unsuback) => describe_unsuback(unsuback),
        Packet::PingReq | Packet::PingResp => Fields::new(),
        Packet::Disconnect(disconnect) => describe_disconnect(disconnect, level),
        Packet::Auth(auth) => describe_auth(auth),
    }
}

/// The name of a packet in the specifications.
pub(crate) const fn name_of(packet: &Packet<'_>) -> &'static str {
    match packet {
        Packet::Connect(_) => "CONNECT",
        Packet::ConnAck(_) => "CONNACK",
        Packet::Publish(_) => "PUBLISH",
        Packet::PubAck(_) => "PUBACK",
        Packet::PubRec(_) => "PUBREC",
        Packet::PubRel(_) => "PUBREL",
        Packet::PubComp(_) => "PUBCOMP",
        Packet::Subscribe(_) => "SUBSCRIBE",
        Packet::SubAck(_) => "SUBACK",
        Packet::Unsubscribe(_) => "UNSUBSCRIBE",
        Packet::UnsubAck(_) => "UNSUBACK",
        Packet::PingReq => "PINGREQ",
        Packet::PingResp => "PINGRESP",
        Packet::Disconnect(_) => "DISCONNECT",
        Packet::Auth(_) => "AUTH",
    }
}

fn describe_connect(connect: &Connect<'_>, payload_bytes_max: usize) -> Fields {
    let mut fields = vec![
        ("clean_start", flag(connect.clean_start)),
        ("keep_alive_s", number(connect.keep_alive_s)),
    ];
    if let Some(username) = connect.username {
        fields.push(("user", text(username)));
    }
    if connect.password.is_some() {
        fields.push(("has_password", flag(true)));
    }
    if let Some(will) = &connect.will {
        let will = describe_will(will, payload_bytes_max);
        fields.push(("will", TracedValue::Object(will)));
    }
    with_properties(fields, connect_properties(&connect.properties))
}

fn connect_properties(properties: &ConnectProperties<'_>) -> Fields {
    let mut fields = Fields::new();
    add(&mut fields, "session_expiry_s", properties.session_expiry_s);
    let receive_maximum = properties.receive_maximum;
    add(
        &mut fields,
        "receive_maximum",
        receive_maximum.map(|max| max.get()),
    );
    let packet_bytes_max = properties.packet_bytes_max;
    add(
        &mut fields,
        "packet_bytes_max",
        packet_bytes_max.map(|max| max.get()),
    );
    let topic_alias_max = properties.topic_alias_max;
    add(
        &mut fields,
        "topic_alias_max",
        Some(topic_alias_max).filter(|max| *max > 0),
    );
    if properties.request_response_information {
        fields.push(("request_response_information", flag(true)));
    }
    if !properties.request_problem_information {
        fields.push(("request_problem_information", flag(false)));
    }
    add_authentication(
        &mut fields,
        properties.authentication_method,
        properties.authentication_data,
    );
    add_user_properties(&mut fields, &properties.user_properties);
    fields
}

fn describe_will(will: &Will<'_>, payload_bytes_max: usize) -> Fields {
    let mut fields = vec![
        ("topic", text(will.topic)),
        ("qos", qos(will.qos)),
        ("retain", flag(will.retain)),
    ];
    add_payload(&mut fields, will.payload, payload_bytes_max);
    let mut properties = Fields::new();
    add(
        &mut properties,
        "will_delay_s",
        Some(will.delay_s).filter(|delay_s| *delay_s > 0),
    );
    add(&mut properties, "message_expiry_s", will.message_expiry_s);
    add_forwarded(&mut properties, &will.forwarded);
    with_properties(fields, properties)
}

fn describe_connack(connack: &ConnAck<'_>, level: u8) -> Fields {
    let mut fields = vec![("session_present", flag(connack.session_present))];
    add_reason(&mut fields, connack.code, connack.code.words());
    match level {
        LEVEL_5.. => with_properties(fields, connack_properties(&connack.properties)),
        _ => fields,
    }
}

fn connack_properties(properties: &ConnAckProperties<'_>) -> Fields {
    let mut fields = Fields::new();
    add_text(
        &mut fields,
        "assigned_client_id",
        properties.assigned_client_id,
    );
    add(&mut fields, "session_expiry_s", properties.session_expiry_s);
    let receive_maximum = properties.receive_maximum;
    add(
        &mut fields,
        "receive_maximum",
        receive_maximum.map(|max| max.get()),
    );
    add(
        &mut fields,
        "qos_max",
        properties.qos_max.map(|qos| qos as u8),
    );
    let packet_bytes_max = properties.packet_bytes_max;
    add(
        &mut fields,
        "packet_bytes_max",
        packet_bytes_max.map(|max| max.get()),
    );
    add(&mut fields, "topic_alias_max", properties.topic_alias_max);
    add(&mut fields, "keep_alive_s", properties.keep_alive_s);
    for (name, value) in [
        ("retain_available", properties.retain_available),
        (
            "wildcard_subscription_available",
            properties.wildcard_subscription_available,
        ),
        (
            "subscription_ids_available",
            properties.subscription_ids_available,
        ),
        (
            "shared_subscription_available",
            properties.shared_subscription_available,
        ),
    ] {
        fields.extend(value.map(|value| (name, flag(value))));
    }
    add_text(
        &mut fields,
        "response_information",
        properties.response_information,
    );
    add_text(&mut fields, "server_reference", properties.server_reference);
    add_authentication(
        &mut fields,
        properties.authentication_method,
        properties.authentication_data,
    );
    add_text(&mut fields, "reason_string", properties.reason_string);
    add_user_properties(&mut fields, &properties.user_properties);
    fields
}

/// A PUBLISH to this topic, which an alias may have stood for.
pub(crate) fn describe_publish(
    publish: &Publish<'_>,
    topic: &str,
    payload_bytes_max: usize,
) -> Fields {
    let mut fields = Fields::new();
    add(
        &mut fields,
        "packet_id",
        publish.packet_id.map(|id| id.get()),
    );
    fields.extend([
        ("qos", qos(publish.qos)),
        ("dup", flag(publish.dup)),
        ("retain", flag(publish.retain)),
        ("topic", text(topic)),
    ]);
    add_payload(&mut fields, publish.payload, payload_bytes_max);
    let mut properties = Fields::new();
    add(
        &mut properties,
        "topic_alias",
        publish.properties.topic_alias.map(|alias| alias.get()),
    );
    add(
        &mut properties,
        "message_expiry_s",
        publish.properties.message_expiry_s,
    );
    let subscription_ids = publish.properties.subscription_ids;
    if !subscription_ids.is_empty() {
        let ids = list(subscription_ids.iter().map(number));
        properties.push(("subscription_ids", ids));
    }
    add_forwarded(&mut properties, &publish.properties.forwarded);
    with_properties(fields, properties)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
pub(crate) fn describe_ack(ack: &Ack<'_>, level: u8) -> Fields {
    let mut fields = vec![("packet_id", number(ack.packet_id.get()))];
    if level < LEVEL_5 {
        return fields;
    }
    add_reason(&mut fields, ack.code, ack.code.words());
    with_answer(fields, ack.reason_string, &ack.user_properties)
}

fn describe_subscribe(subscribe: &Subscribe<'_>, level: u8) -> Fields {
    let filter = |wish: SubscribeFilter<'_>| {
        let mut fields = vec![
            ("filter", text(wish.filter)),
            ("qos", qos(wish.options.qos)),
        ];
        if level >= LEVEL_5 {
            let retain_handling = match wish.options.retain_handling {
                RetainHandling::SendAlways => "send_always",
                RetainHandling::SendIfNew => "send_if_new",
                RetainHandling::DoNotSend => "do_not_send",
            };
            fields.extend([
                ("no_local", flag(wish.options.no_local)),
                (
                    "retain_as_published",
                    flag(wish.options.retain_as_published),
                ),
                ("retain_handling", TracedValue::Word(retain_handling)),
            ]);
        }
        TracedValue::Object(fields)
    };
    let fields = vec![
        ("packet_id", number(subscribe.packet_id.get())),
        ("filters", list(subscribe.filters.iter().map(filter))),
    ];
    let mut properties = Fields::new();
    add(
        &mut properties,
        "subscription_id",
        subscribe.subscription_id,
    );
    add_user_properties(&mut properties, &subscribe.user_properties);
    with_properties(fields, properties)
}

fn describe_suback(suback: &SubAck<'_>, level: u8) -> Fields {
    let words = |code: &u8| match ReasonCode::from_u8(*code) {
        Some(ReasonCode::Success) => "granted QoS 0",
        Some(ReasonCode::UnspecifiedError) if level < LEVEL_5 => "failure",
        Some(code) => code.words(),
        None => "unknown",
    };
    let fields = vec![
        ("packet_id", number(suback.packet_id.get())),
        ("reasons", words_of(suback.codes, words)),
    ];
    with_answer(fields, suback.reason_string, &suback.user_properties)
}

fn describe_unsubscribe(unsubscribe: &Unsubscribe<'_>) -> Fields {
    let fields = vec![
        ("packet_id", number(unsubscribe.packet_id.get())),
        ("filters", list(unsubscribe.filters.iter().map(text))),
    ];
    with_answer(fields, None, &unsubscribe.user_properties)
}

fn describe_unsuback(unsuback: &UnsubAck<'_>) -> Fields {
    let words = |code: &u8| ReasonCode::from_u8(*code).map_or("unknown", ReasonCode::words);
    let fields = vec![
        ("packet_id", number(unsuback.packet_id.get())),
        ("reasons", words_of(unsuback.codes, words)),
    ];
    with_answer(fields, unsuback.reason_string, &unsuback.user_properties)
}

fn describe_disconnect(disconnect: &Disconnect<'_>, level: u8) -> Fields {
    let mut fields = Fields::new();
    if level < LEVEL_5 {
        return fields;
    }
    let words = match disconnect.code {
        ReasonCode::Success => "normal disconnection",
        code => code.words(),
    };
    add_reason(&mut fields, disconnect.code, words);
    let mut properties = Fields::new();
    add(
        &mut properties,
        "session_expiry_s",
        disconnect.session_expiry_s,
    );
    add_text(&mut properties, "reason_string", disconnect.reason_string);
    add_text(
        &mut properties,
        "server_reference",
        disconnect.server_reference,
    );
    add_user_properties(&mut properties, &disconnect.user_properties);
    with_properties(fields, properties)
}

fn describe_auth(auth: &Auth<'_>) -> Fields {
    let mut fields = Fields::new();
    add_reason(&mut fields, auth.code, auth.code.words());
    let mut properties = Fields::new();
    let (method, data) = (auth.authentication_method, auth.authentication_data);
    add_authentication(&mut properties, method, data);
    add_text(&mut properties, "reason_string", auth.reason_string);
    add_user_properties(&mut properties, &auth.user_properties);
    with_properties(fields, properties)
}

fn with_answer(
    fields: Fields,
    reason_string: Option<&str>,
    user_properties: &UserProperties<'_>,
) -> Fields {
    let mut properties = Fields::new();
    add_text(&mut properties, "reason_string", reason_string);
    add_user_properties(&mut properties, user_properties);
    with_properties(fields, properties)
}

fn with_properties(mut fields: Fields, properties: Fields) -> Fields {
    if !properties.is_empty() {
        fields.push(("properties", TracedValue::Object(properties)));
    }
    fields
}

fn add(fields: &mut Fields, name: &'static str, value: Option<impl Into<u64>>) {
    fields.extend(value.map(|value| (name, number(value))));
}

fn add_text(fields: &mut Fields, name: &'static str, value: Option<&str>) {
    fields.extend(value.map(|value| (name, text(value))));
}

fn add_reason(fields: &mut Fields, code: ReasonCode, words: &'static str) {
    fields.extend([
        ("reason_code", number(code as u8)),
        ("reason", TracedValue::Word(words)),
    ]);
}

/// The method, and how long the data are: they may be a secret, or prove that one is known.
fn add_authentication(fields: &mut Fields, method: Option<&str>, data: Option<&[u8]>) {
    add_text(fields, "authentication_method", method);
    let bytes = data.map(|data| data.len() as u64);
    add(fields, "authentication_data_bytes", bytes);
}

fn add_forwarded(fields: &mut Fields, forwarded: &Forwarded<'_>) {
    if forwarded.payload_format_is_utf8() {
        fields.push(("payload_is_utf8", flag(true)));
    }
    add_text(fields, "content_type", forwarded.content_type());
    add_text(fields, "response_topic", forwarded.response_topic());
    if let Some(data) = forwarded.correlation_data() {
        let shown = data.get(..CORRELATION_BYTES_MAX).unwrap_or(data);
        fields.push(("correlation_data_hex", TracedValue::Text(hex(shown))));
    }
    add_user_properties(fields, &forwarded.user_properties());
}

fn add_user_properties(fields: &mut Fields, user_properties: &UserProperties<'_>) {
    if user_properties.is_empty() {
        return;
    }
    let pair = |(name, value): (&str, &str)| {
        let value = match SECRETS
            .iter()
            .any(|secret| name.eq_ignore_ascii_case(secret))
        {
            true => TracedValue::Word("(not shown)"),
            false => text(value),
        };
        TracedValue::List(vec![text(name), value])
    };
    let pairs = list(user_properties.iter().map(pair));
    fields.push(("user_properties", pairs));
}

/// The length of a payload and its beginning: as text where it is UTF-8, else in hexadecimal.
fn add_payload(fields: &mut Fields, payload: &[u8], bytes_max: usize) {
    fields.push(("payload_bytes", number(payload.len() as u64)));
    let shown = payload.get(..bytes_max).unwrap_or(payload);
    let is_cut = shown.len() < payload.len();
    let text = match std::str::from_utf8(shown) {
        Ok(text) => Some(text),
        // The last character was cut in two.
        Err(error) if is_cut && error.error_len().is_none() => shown
            .get(..error.valid_up_to())
            .and_then(|whole| std::str::from_utf8(whole).ok()),
        Err(_) => None,
    };
    let value = match text {
        _ if payload.is_empty() => return,
        Some(text) => ("payload", TracedValue::Text(text.into())),
        None => ("payload_hex", TracedValue::Text(hex(shown))),
    };
    fields.push(value);
    if is_cut {
        fields.push(("payload_is_cut", flag(true)));
    }
}

fn hex(bytes: &[u8]) -> Box<str> {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let digits = digits.filter_map(|digit| char::from_digit(digit.into(), 16));
    digits.collect::<String>().into()
}

fn flag(value: bool) -> TracedValue {
    TracedValue::Flag(value)
}

fn number(value: impl Into<u64>) -> TracedValue {
    TracedValue::Number(value.into())
}

fn qos(qos: QoS) -> TracedValue {
    number(qos as u8)
}

/// A client's text, or its beginning.
pub(crate) fn text(text: &str) -> TracedValue {
    if text.len() <= TEXT_BYTES_MAX {
        return TracedValue::Text(text.into());
    }
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    let shown = text.get(..end).unwrap_or_default();
    TracedValue::Text(format!("{shown}…").into())
}

fn words_of(codes: &[u8], words: impl Fn(&u8) -> &'static str) -> TracedValue {
    list(codes.iter().map(|code| TracedValue::Word(words(code))))
}

/// The first of them; what is left out is said in words.
fn list(mut values: impl Iterator<Item = TracedValue>) -> TracedValue {
    let mut shown: Vec<_> = values.by_ref().take(LIST_MAX).collect();
    let left_out = values.count();
    if left_out > 0 {
        shown.push(TracedValue::Text(format!("and {left_out} more").into()));
    }
    TracedValue::List(shown)
}

/// From this protocol level on packets have reason codes and options.
const LEVEL_5: u8 = 5;
/// Bytes of a topic, a user name and the like.
const TEXT_BYTES_MAX: usize = 1_024;
const CORRELATION_BYTES_MAX: usize = 32;
/// Filters, user properties and the like.
const LIST_MAX: usize = 32;
/// User properties that are as good as a password: the one-time token of a request for a certificate.
const SECRETS: [&str; 2] = ["token", "password"];

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(payload: &[u8], bytes_max: usize) -> Fields {
        let mut fields = Fields::new();
        add_payload(&mut fields, payload, bytes_max);
        fields
    }

    fn shown(text: &str) -> TracedValue {
        TracedValue::Text(text.into())
    }

    #[test]
    fn a_payload_is_text_where_it_is_utf_8_and_hexadecimal_where_not() {
        let bytes = |bytes: u64| ("payload_bytes", TracedValue::Number(bytes));
        let cut = || ("payload_is_cut", TracedValue::Flag(true));
        assert_eq!(payload(b"", 4), [bytes(0)]);
        assert_eq!(payload(b"21.5", 4), [bytes(4), ("payload", shown("21.5"))]);
        let text = [bytes(5), ("payload", shown("21.5")), cut()];
        assert_eq!(payload(b"21.50", 4), text);
        let half = [bytes(5), ("payload", shown("abc")), cut()];
        assert_eq!(payload("abcé".as_bytes(), 4), half);
        let hex = [bytes(3), ("payload_hex", shown("00ff")), cut()];
        assert_eq!(payload(b"\x00\xFF\x10", 2), hex);
        let broken = [bytes(4), ("payload_hex", shown("616263c3"))];
        assert_eq!(payload(b"abc\xC3", 4), broken);
    }

    #[test]
    fn what_is_long_is_cut_and_says_so() {
        let TracedValue::Text(cut) = text(&"é".repeat(TEXT_BYTES_MAX)) else {
            panic!("no text");
        };
        assert_eq!(cut.len(), TEXT_BYTES_MAX + "…".len());
        let TracedValue::List(cut) = list((0..1_000_u32).map(number)) else {
            panic!("no list");
        };
        assert_eq!(cut.len(), LIST_MAX + 1);
        assert_eq!(cut.last(), Some(&shown("and 968 more")));
    }

    #[test]
    fn tokens_are_not_shown() {
        let mut fields = Fields::new();
        let pairs = [("Token", "s3cret"), ("site", "north")];
        add_user_properties(&mut fields, &UserProperties::from_pairs(&pairs));
        let text = format!("{fields:?}");
        assert!(text.contains("Token") && text.contains("north"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}
