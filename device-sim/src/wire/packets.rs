//! Packets that we send, PUBLISH aside.
//!
//! Acknowledgements without a reason, PINGREQ and a normal DISCONNECT are the same bytes in both versions.

use super::{Login, STRING_BYTES_MAX, Session, Version, WireError};
use bytes::BytesMut;
use mqttbytes::{QoS, v4, v5};

/// How long a broker keeps a session of MQTT 5 unless said otherwise, seconds.
pub const EXPIRY_S: u32 = 86_400;

/// CONNECT.
#[derive(Clone, Copy, Debug)]
pub struct Connect<'a> {
    /// 3.1.1 or 5.
    pub version: Version,
    /// Names the session.
    pub client_id: &'a str,
    /// Whether the broker is asked to keep it.
    pub session: Session,
    /// Seconds for which a kept session outlives the connection (MQTT 5); a day unless said otherwise.
    pub expiry_s: Option<u32>,
    /// Seconds; 0 is none.
    pub keep_alive_s: u16,
    /// User name and password.
    pub login: Option<&'a Login>,
}

impl Connect<'_> {
    /// Its bytes.
    ///
    /// # Errors
    /// The packet cannot be encoded.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let clean = self.session == Session::Clean;
        let expiry_s = (!clean).then(|| self.expiry_s.unwrap_or(EXPIRY_S));
        let (keep_alive_s, login) = (self.keep_alive_s, self.login);
        connect(
            self.version,
            self.client_id,
            keep_alive_s,
            clean,
            login,
            expiry_s,
        )
    }
}

/// CONNECT; only MQTT 5 says when the session expires.
pub(crate) fn connect(
    version: Version,
    client_id: &str,
    keep_alive_s: u16,
    clean: bool,
    login: Option<&Login>,
    expiry_s: Option<u32>,
) -> Result<Vec<u8>, WireError> {
    check_string(client_id)?;
    if let Some(login) = login {
        check_string(&login.username)?;
        check_string(&login.password)?;
    }
    let login = login.cloned();
    match version {
        Version::V4 => {
            let mut connect = v4::Connect::new(client_id);
            connect.keep_alive = keep_alive_s;
            connect.clean_session = clean;
            connect.login =
                login.map(|Login { username, password }| v4::Login { username, password });
            encode(|buffer| connect.write(buffer))
        }
        Version::V5 => {
            let mut connect = v5::Connect::new(client_id);
            connect.keep_alive = keep_alive_s;
            connect.clean_session = clean;
            connect.login =
                login.map(|Login { username, password }| v5::Login { username, password });
            connect.properties = expiry_s.map(|seconds| v5::ConnectProperties {
                session_expiry_interval: Some(seconds),
                receive_maximum: None,
                max_packet_size: None,
                topic_alias_max: None,
                request_response_info: None,
                request_problem_info: None,
                user_properties: Vec::new(),
                authentication_method: None,
                authentication_data: None,
            });
            encode(|buffer| connect.write(buffer))
        }
    }
}

/// SUBSCRIBE to one filter.
///
/// # Errors
/// The packet cannot be encoded.
pub fn subscribe(version: Version, id: u16, filter: &str, qos: u8) -> Result<Vec<u8>, WireError> {
    subscribe_all(version, id, &[(filter, qos)])
}

/// SUBSCRIBE to filters with their QoS.
///
/// # Errors
/// The packet cannot be encoded.
pub fn subscribe_all(
    version: Version,
    id: u16,
    filters: &[(&str, u8)],
) -> Result<Vec<u8>, WireError> {
    for (filter, _) in filters {
        check_string(filter)?;
    }
    match version {
        Version::V4 => {
            let filters = filters
                .iter()
                .map(|(filter, qos)| v4::SubscribeFilter::new((*filter).to_owned(), quality(*qos)));
            let mut subscribe = v4::Subscribe::new_many(filters);
            subscribe.pkid = id;
            encode(|buffer| subscribe.write(buffer))
        }
        Version::V5 => {
            let filters = filters
                .iter()
                .map(|(filter, qos)| v5::SubscribeFilter::new((*filter).to_owned(), quality(*qos)));
            let mut subscribe = v5::Subscribe::new_many(filters);
            subscribe.pkid = id;
            encode(|buffer| subscribe.write(buffer))
        }
    }
}

/// PUBREL for a message that the broker has received.
///
/// # Errors
/// The packet cannot be encoded.
pub fn pubrel(id: u16) -> Result<Vec<u8>, WireError> {
    encode(|buffer| v4::PubRel::new(id).write(buffer))
}

/// PUBACK.
///
/// # Errors
/// The packet cannot be encoded.
pub fn puback(id: u16) -> Result<Vec<u8>, WireError> {
    encode(|buffer| v4::PubAck::new(id).write(buffer))
}

/// PUBREC.
///
/// # Errors
/// The packet cannot be encoded.
pub fn pubrec(id: u16) -> Result<Vec<u8>, WireError> {
    encode(|buffer| v4::PubRec::new(id).write(buffer))
}

/// PUBCOMP.
///
/// # Errors
/// The packet cannot be encoded.
pub fn pubcomp(id: u16) -> Result<Vec<u8>, WireError> {
    encode(|buffer| v4::PubComp::new(id).write(buffer))
}

/// PINGREQ.
///
/// # Errors
/// The packet cannot be encoded.
pub fn pingreq() -> Result<Vec<u8>, WireError> {
    encode(|buffer| v4::PingReq.write(buffer))
}

/// DISCONNECT.
///
/// # Errors
/// The packet cannot be encoded.
pub fn disconnect() -> Result<Vec<u8>, WireError> {
    encode(|buffer| v4::Disconnect.write(buffer))
}

pub(super) fn check_string(string: &str) -> Result<(), WireError> {
    if string.len() > STRING_BYTES_MAX {
        return Err(WireError::StringTooLong(string.len()));
    }
    Ok(())
}

pub(crate) fn encode(
    write: impl FnOnce(&mut BytesMut) -> Result<usize, mqttbytes::Error>,
) -> Result<Vec<u8>, WireError> {
    let mut buffer = BytesMut::new();
    write(&mut buffer).map_err(WireError::Encode)?;
    Ok(buffer.to_vec())
}

pub(crate) fn quality(qos: u8) -> QoS {
    match qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_has_the_bytes_of_its_version() {
        let login = Login {
            username: "u".to_owned(),
            password: "pw".to_owned(),
        };
        let mut connect = Connect {
            version: Version::V4,
            client_id: "id",
            session: Session::Clean,
            expiry_s: Some(9),
            keep_alive_s: 60,
            login: None,
        };
        check(connect, b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02id");
        connect.login = Some(&login);
        check(
            connect,
            b"\x10\x15\0\x04MQTT\x04\xc2\0\x3c\0\x02id\0\x01u\0\x02pw",
        );
        connect.version = Version::V5;
        check(
            connect,
            b"\x10\x16\0\x04MQTT\x05\xc2\0\x3c\0\0\x02id\0\x01u\0\x02pw",
        );
        connect.login = None;
        connect.session = Session::Kept;
        check(
            connect,
            b"\x10\x14\0\x04MQTT\x05\0\0\x3c\x05\x11\0\0\0\x09\0\x02id",
        );
        connect.expiry_s = None;
        check(
            connect,
            b"\x10\x14\0\x04MQTT\x05\0\0\x3c\x05\x11\0\x01\x51\x80\0\x02id",
        );
    }

    #[test]
    fn subscribe_has_the_bytes_of_its_version() {
        let filters = [("a/+", 1), ("b", 2)];
        assert_eq!(
            subscribe_all(Version::V4, 7, &filters).unwrap(),
            b"\x82\x0c\0\x07\0\x03a/+\x01\0\x01b\x02"
        );
        assert_eq!(
            subscribe_all(Version::V5, 7, &filters).unwrap(),
            b"\x82\x0d\0\x07\0\0\x03a/+\x01\0\x01b\x02"
        );
    }

    #[test]
    fn answers_and_pings_are_as_short_as_they_can_be() {
        assert_eq!(puback(258).unwrap(), [0x40, 2, 1, 2]);
        assert_eq!(pubrec(258).unwrap(), [0x50, 2, 1, 2]);
        assert_eq!(pubrel(258).unwrap(), [0x62, 2, 1, 2]);
        assert_eq!(pubcomp(258).unwrap(), [0x70, 2, 1, 2]);
        assert_eq!(pingreq().unwrap(), [0xC0, 0]);
        assert_eq!(disconnect().unwrap(), [0xE0, 0]);
    }

    #[test]
    fn a_string_that_its_length_cannot_say_is_refused() {
        let long = "x".repeat(65_536);
        for version in [Version::V4, Version::V5] {
            assert_eq!(
                subscribe(version, 1, &long, 0),
                Err(WireError::StringTooLong(65_536))
            );
            let connect = Connect {
                version,
                client_id: &long,
                session: Session::Clean,
                expiry_s: None,
                keep_alive_s: 0,
                login: None,
            };
            assert_eq!(connect.encode(), Err(WireError::StringTooLong(65_536)));
        }
        assert!(subscribe(Version::V5, 1, &long[1..], 0).is_ok());
    }

    fn check(connect: Connect<'_>, expected: &[u8]) {
        assert_eq!(connect.encode().unwrap(), expected);
    }
}
