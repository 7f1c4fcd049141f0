//! A broker of the tests' own for MQTT 3.1.1: a thread per connection, topics with `+` and `#`, faults on purpose.
//! Messages are delivered at the QoS they were published with.

use bytes::BytesMut;
use mqttbytes::QoS;
use mqttbytes::v4::{self, ConnectReturnCode, Packet, SubscribeReasonCode};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What the double does to the fifth message of a publisher and to each tenth after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    Drop,
    Double,
    /// The message waits for the publisher's next one.
    Delay,
    /// The last digit of the payload changes.
    Corrupt,
    /// The payload is that of no device.
    Garble,
    /// The last letter of the topic changes.
    Topic,
    /// Delivered at QoS 0, whatever was due.
    Downgrade,
    /// Delivered with the retain flag.
    Retain,
    /// No client is let in.
    Refuse,
    /// Nothing at QoS 1 is acknowledged.
    Withhold,
    /// Subscriptions are answered after [`LATE`].
    Late,
}

/// Longer than anything takes on a loopback address.
pub(crate) const LATE: Duration = Duration::from_millis(1_500);

#[derive(Default)]
struct Subscriptions {
    list: Mutex<Vec<(String, Arc<Mutex<TcpStream>>)>>,
    added: Condvar,
    /// How many connections were let in.
    connections: Mutex<u32>,
    connected: Condvar,
}

/// A listening double; its threads end with the process.
pub(crate) struct Double {
    port: u16,
    subscriptions: Arc<Subscriptions>,
}

impl Double {
    pub(crate) fn start(fault: Fault) -> Self {
        Self::start_at(fault, "")
    }

    /// With a fault that befalls only messages whose topic has this end.
    pub(crate) fn start_at(fault: Fault, topic_end: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let subscriptions = Arc::new(Subscriptions::default());
        let shared = subscriptions.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                stream.set_nodelay(true).unwrap();
                let subscriptions = shared.clone();
                std::thread::spawn(move || serve(stream, &subscriptions, fault, topic_end));
            }
        });
        Self {
            port,
            subscriptions,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Blocks until somebody has connected.
    pub(crate) fn wait_for_a_connection(&self) {
        let count = self.subscriptions.connections.lock().unwrap();
        let connected = &self.subscriptions.connected;
        drop(connected.wait_while(count, |count| *count == 0).unwrap());
    }

    /// Blocks until somebody has subscribed.
    pub(crate) fn wait_for_a_subscriber(&self) {
        let list = self.subscriptions.list.lock().unwrap();
        let nobody = |list: &mut Vec<_>| list.is_empty();
        drop(self.subscriptions.added.wait_while(list, nobody).unwrap());
    }
}

fn serve(
    mut source: TcpStream,
    subscriptions: &Subscriptions,
    fault: Fault,
    topic_end: &'static str,
) {
    let sink = Arc::new(Mutex::new(source.try_clone().unwrap()));
    let mut publisher = Publisher {
        fault,
        topic_end,
        count: 0,
        delayed: None,
        subscriptions,
    };
    let (mut bytes, mut chunk) = (BytesMut::new(), [0; 4_096]);
    while let Ok(length @ 1..) = source.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..length]);
        while let Ok(packet) = v4::read(&mut bytes, 10_000) {
            let answer = match packet {
                Packet::Connect(_) if fault == Fault::Refuse => Packet::ConnAck(v4::ConnAck::new(
                    ConnectReturnCode::BadUserNamePassword,
                    false,
                )),
                Packet::Connect(_) => {
                    *subscriptions.connections.lock().unwrap() += 1;
                    subscriptions.connected.notify_all();
                    Packet::ConnAck(v4::ConnAck::new(ConnectReturnCode::Success, false))
                }
                Packet::Subscribe(subscribe) => {
                    if fault == Fault::Late {
                        std::thread::sleep(LATE);
                    }
                    let (filter, qos) = (&subscribe.filters[0].path, subscribe.filters[0].qos);
                    let subscription = (filter.clone(), sink.clone());
                    subscriptions.list.lock().unwrap().push(subscription);
                    subscriptions.added.notify_all();
                    let code = SubscribeReasonCode::Success(qos);
                    Packet::SubAck(v4::SubAck::new(subscribe.pkid, vec![code]))
                }
                Packet::Publish(publish) => {
                    let (id, qos) = (publish.pkid, publish.qos);
                    publisher.relay(publish);
                    match qos {
                        QoS::AtMostOnce => continue,
                        QoS::AtLeastOnce if fault == Fault::Withhold => continue,
                        QoS::AtLeastOnce => Packet::PubAck(v4::PubAck::new(id)),
                        QoS::ExactlyOnce => Packet::PubRec(v4::PubRec::new(id)),
                    }
                }
                Packet::PubRec(received) => Packet::PubRel(v4::PubRel::new(received.pkid)),
                Packet::PubRel(release) => Packet::PubComp(v4::PubComp::new(release.pkid)),
                Packet::PingReq => Packet::PingResp,
                _ => continue,
            };
            send(&sink, &answer);
        }
    }
}

/// One connection's messages on their way to the subscribers.
struct Publisher<'broker> {
    fault: Fault,
    topic_end: &'static str,
    count: u32,
    delayed: Option<v4::Publish>,
    subscriptions: &'broker Subscriptions,
}

impl Publisher<'_> {
    fn relay(&mut self, publish: v4::Publish) {
        if !publish.topic.ends_with(self.topic_end) {
            return self.deliver(&publish);
        }
        self.count += 1;
        match (self.fault, self.count % 10 == 5) {
            (Fault::Drop, true) => return,
            (Fault::Double, true) => {
                let pkid = publish.pkid.wrapping_add(30_000);
                self.deliver(&v4::Publish {
                    pkid,
                    ..publish.clone()
                });
            }
            (
                Fault::Corrupt | Fault::Garble | Fault::Topic | Fault::Downgrade | Fault::Retain,
                true,
            ) => {
                return self.deliver_as(&publish.topic, &altered(&publish, self.fault));
            }
            (Fault::Delay, true) => {
                self.delayed = Some(publish);
                return;
            }
            _ => {}
        }
        self.deliver(&publish);
        if let Some(delayed) = self.delayed.take() {
            self.deliver(&delayed);
        }
    }

    fn deliver(&self, publish: &v4::Publish) {
        self.deliver_as(&publish.topic, publish);
    }

    /// Sends it to the subscribers of `topic`, which may be another.
    fn deliver_as(&self, topic: &str, publish: &v4::Publish) {
        for (filter, sink) in &*self.subscriptions.list.lock().unwrap() {
            if mqttbytes::matches(topic, filter) {
                send(sink, &Packet::Publish(publish.clone()));
            }
        }
    }
}

fn altered(publish: &v4::Publish, fault: Fault) -> v4::Publish {
    let mut altered = publish.clone();
    match fault {
        Fault::Corrupt => {
            let mut payload = publish.payload.to_vec();
            let digit = payload.iter_mut().rfind(|byte| byte.is_ascii_digit());
            let digit = digit.unwrap();
            *digit = if *digit == b'9' { b'0' } else { *digit + 1 };
            altered.payload = payload.into();
        }
        Fault::Garble => altered.payload = "?".into(),
        Fault::Topic => {
            altered.topic.pop();
            altered.topic.push('~');
        }
        Fault::Downgrade => (altered.qos, altered.pkid) = (QoS::AtMostOnce, 0),
        _ => altered.retain = true,
    }
    altered
}

fn send(sink: &Mutex<TcpStream>, packet: &Packet) {
    let mut bytes = BytesMut::new();
    let written = match packet {
        Packet::ConnAck(packet) => packet.write(&mut bytes),
        Packet::SubAck(packet) => packet.write(&mut bytes),
        Packet::Publish(packet) => packet.write(&mut bytes),
        Packet::PubAck(packet) => packet.write(&mut bytes),
        Packet::PubRec(packet) => packet.write(&mut bytes),
        Packet::PubRel(packet) => packet.write(&mut bytes),
        Packet::PubComp(packet) => packet.write(&mut bytes),
        _ => v4::PingResp.write(&mut bytes),
    };
    written.unwrap();
    // A client that has left misses nothing.
    let _ = sink.lock().unwrap().write_all(&bytes);
}
