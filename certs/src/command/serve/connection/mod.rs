//! One connection to the broker: requests in, answers out.
//!
//! A request is acknowledged only after the broker has acknowledged its answer. Whatever ends a connection, the broker sends
//! again what was not acknowledged, and the desk's answer is the same; so nothing is kept from one connection to the next.
//!
//! So an answer must always be one that the broker takes, else its request would come again for ever: what is echoed is bounded, and
//! a request that cannot be answered is acknowledged and dropped.

use super::{SharedDesk, lock, log};
use motemq_certs::now_unix_s;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, DisconnectReasonCode, Packet, PubAck, PubAckReason, Publish,
    PublishProperties, SubAck, SubscribeReasonCode,
};
use rumqttc::v5::{
    AsyncClient, ClientError, ConnectionError, Event, EventLoop, MqttOptions, StateError,
};
use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};

/// How a connection ended.
pub(super) enum End {
    /// We were told to stop.
    Stopped,
    /// The certificate is to be replaced.
    Renew,
    /// The broker is away, or does not want us.
    Lost {
        why: String,
        /// Whether requests could have come.
        worked: bool,
    },
}

/// The signals that end the service.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for `duration`; whether a signal came meanwhile.
    pub(super) async fn came_within(&mut self, duration: Duration) -> bool {
        timeout(duration, self.came()).await.is_ok()
    }

    /// Waits for one.
    pub(super) async fn came(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => (),
            _ = self.interrupt.recv() => (),
        }
    }
}

/// Answers requests until the connection ends.
pub(super) async fn run(
    desk: &SharedDesk,
    options: MqttOptions,
    renew_in: Option<Duration>,
    signals: &mut Signals,
) -> End {
    let name = options.client_id();
    let (client, mut events) = AsyncClient::new(options, COMMANDS_MAX);
    let mut exchange = Exchange {
        desk,
        client,
        name,
        sent: VecDeque::new(),
        unacknowledged: HashMap::new(),
        handed: 0,
        answer_bytes_max: ANSWER_BYTES_MAX,
        worked: false,
    };
    let renewal = async {
        match renew_in {
            Some(duration) => sleep(duration).await,
            None => pending().await,
        }
    };
    tokio::pin!(renewal);
    loop {
        let why = tokio::select! {
            () = signals.came() => {
                exchange.leave(&mut events).await;
                return End::Stopped;
            }
            () = &mut renewal => {
                exchange.leave(&mut events).await;
                return End::Renew;
            }
            event = events.poll() => match event {
                Ok(event) => match exchange.handle(event) {
                    Ok(()) => continue,
                    Err(why) => why,
                },
                Err(error) => describe(&error, &exchange.name),
            }
        };
        let worked = exchange.worked;
        return End::Lost { why, worked };
    }
}

struct Exchange<'a> {
    desk: &'a SharedDesk,
    client: AsyncClient,
    name: String,
    /// The requests whose answers were handed over and have no packet id yet, in order.
    sent: VecDeque<Publish>,
    /// The requests whose answers the broker has not acknowledged, by the answer's packet id.
    unacknowledged: HashMap<u16, Publish>,
    /// Commands that the event loop has not carried out.
    handed: usize,
    /// Ours, or the broker's if that is less.
    answer_bytes_max: usize,
    worked: bool,
}

impl Exchange<'_> {
    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Incoming(Packet::ConnAck(ack)) => {
                let taken = ack
                    .properties
                    .and_then(|properties| properties.max_packet_size);
                let taken = taken.and_then(|bytes| usize::try_from(bytes).ok());
                self.answer_bytes_max =
                    taken.map_or(ANSWER_BYTES_MAX, |bytes| bytes.min(ANSWER_BYTES_MAX));
                let handed = self.client.try_subscribe(REQUESTS, QoS::AtLeastOnce);
                self.count(handed)
            }
            Event::Incoming(Packet::SubAck(ack)) => self.subscribed(&ack),
            Event::Incoming(Packet::Publish(request)) => self.answer(request),
            Event::Incoming(Packet::PubAck(ack)) => self.answer_arrived(&ack),
            Event::Outgoing(Outgoing::Publish(packet_id)) => {
                self.handed = self.handed.saturating_sub(1);
                if packet_id != 0
                    && let Some(request) = self.sent.pop_front()
                {
                    self.unacknowledged.insert(packet_id, request);
                }
                Ok(())
            }
            Event::Outgoing(Outgoing::PubAck(_) | Outgoing::Subscribe(_)) => {
                self.handed = self.handed.saturating_sub(1);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, handed: Result<(), ClientError>) -> Result<(), String> {
        handed.map_err(|_| "more came at once than can be answered".to_owned())?;
        self.handed += 1;
        Ok(())
    }

    fn subscribed(&mut self, ack: &SubAck) -> Result<(), String> {
        match ack.return_codes.first() {
            Some(SubscribeReasonCode::Success(_)) => {
                self.worked = true;
                log(&format!("connected as {:?}, answering requests", self.name));
                Ok(())
            }
            reason => Err(format!(
                "the broker does not let {:?} answer requests ({reason:?}): in its [enrolment], signer must be the name \
                 as which the service logs in, --user, or with a certificate (mqtts://) --name",
                self.name
            )),
        }
    }

    fn answer(&mut self, request: Publish) -> Result<(), String> {
        let may_be_lost = request.qos == QoS::AtMostOnce;
        if may_be_lost && self.handed >= COMMANDS_MAX / 2 {
            // The other half is for those that the broker limits: they must not be lost.
            return Ok(());
        }
        let none = PublishProperties::default();
        let asked = request.properties.as_ref().unwrap_or(&none);
        let said = &asked.user_properties;
        let echoed_bytes = echoed_bytes(asked);
        if echoed_bytes > ECHOED_BYTES_MAX {
            let why = format!(
                "the answer would repeat {echoed_bytes} bytes of the request: client id, Response Topic and \
                 Correlation Data may have {ECHOED_BYTES_MAX} together"
            );
            return self.drop(&request, said, &why);
        }
        let answered = lock(self.desk).answer(said, &request.payload, now_unix_s());
        if let Some(line) = &answered.line {
            log(line);
        }
        let answer = answered.answer;
        let mut user_properties: Vec<(String, String)> = said
            .iter()
            .filter(|(name, _)| ADDRESS.contains(&name.as_str()))
            .cloned()
            .collect();
        user_properties.push(("status".to_owned(), answer.status.to_owned()));
        let reason = answer
            .reason
            .map(|word| ("reason".to_owned(), word.to_owned()));
        user_properties.extend(reason);
        let properties = PublishProperties {
            response_topic: asked.response_topic.clone(),
            correlation_data: asked.correlation_data.clone(),
            content_type: Some(answer.content_type.to_owned()),
            user_properties,
            ..PublishProperties::default()
        };
        let (client, payload) = (&self.client, answer.payload);
        let bytes = payload.len() + echoed_bytes + OTHER_BYTES;
        if bytes > self.answer_bytes_max {
            let why = format!(
                "the answer has {bytes} bytes and may have {}",
                self.answer_bytes_max
            );
            return self.drop(&request, said, &why);
        }
        let handed =
            client.try_publish_with_properties(RESPONSES, request.qos, false, payload, properties);
        self.count(handed)?;
        if !may_be_lost {
            self.sent.push_back(request);
        }
        Ok(())
    }

    /// Ends a request without an answer.
    fn drop(
        &mut self,
        request: &Publish,
        said: &[(String, String)],
        why: &str,
    ) -> Result<(), String> {
        let line = lock(self.desk).cannot_answer(said, why, now_unix_s());
        if let Some(line) = line {
            log(&line);
        }
        if request.qos == QoS::AtMostOnce {
            return Ok(());
        }
        let handed = self.client.try_ack(request);
        self.count(handed)
    }

    fn answer_arrived(&mut self, ack: &PubAck) -> Result<(), String> {
        let Some(request) = self.unacknowledged.remove(&ack.pkid) else {
            return Ok(());
        };
        if ack.reason != PubAckReason::Success {
            log(&format!(
                "an answer did not reach its device ({:?}): it may ask again",
                ack.reason
            ));
        }
        let handed = self.client.try_ack(&request);
        self.count(handed)
    }

    /// Says goodbye, so that the broker does not wait for a timeout.
    async fn leave(&mut self, events: &mut EventLoop) {
        if self.client.try_disconnect().is_err() {
            return;
        }
        let gone = async {
            while let Ok(event) = events.poll().await {
                if event == Event::Outgoing(Outgoing::Disconnect) {
                    return;
                }
            }
        };
        // Late is as good as never: the broker keeps what was not acknowledged.
        let _ = timeout(LEAVE_TIMEOUT, gone).await;
    }
}

/// How much of a request its answer repeats.
fn echoed_bytes(asked: &PublishProperties) -> usize {
    let topic = asked.response_topic.as_ref().map_or(0, String::len);
    let data = asked.correlation_data.as_ref().map_or(0, |data| data.len());
    let said = asked.user_properties.iter();
    let address = said.filter(|(name, _)| ADDRESS.contains(&name.as_str()));
    let address: usize = address.map(|(name, value)| name.len() + value.len()).sum();
    topic + data + address
}

/// What the error means for whoever runs the service.
fn describe(error: &ConnectionError, name: &str) -> String {
    match error {
        ConnectionError::ConnectionRefused(
            code @ (ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadUserNamePassword),
        ) => format!(
            "the broker does not accept {name:?} ({code:?}). Likely causes: a client with another login holds the client id {name:?}, which \
             the broker's log says, and its session must end first; the listener's client_ca is not this authority, or its crl or allow_list \
             refuses the certificate; the broker does not know the user, or the password is another"
        ),
        ConnectionError::ConnectionRefused(ConnectReturnCode::ClientIdentifierNotValid) => format!(
            "the broker does not accept {name:?} as a client id: with client_id = \"user\" it must be the name of the login, so give --name and --user alike"
        ),
        ConnectionError::ConnectionRefused(ConnectReturnCode::Banned) => {
            format!(
                "the broker has banned {name:?} or this address for a while: see `motemq ban ls`"
            )
        }
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::SessionTakenOver,
            ..
        }) => format!("another client has connected as {name:?}: run one service under this name"),
        ConnectionError::Timeout(_) => "the broker does not answer".to_owned(),
        error => error.to_string(),
    }
}

/// What the broker passes requests on with.
const REQUESTS: &str = "$certs/request";
/// What answers are published to.
const RESPONSES: &str = "$certs/response";
/// The user properties that tell the broker whom an answer is for.
const ADDRESS: [&str; 2] = ["client-id", "session"];
/// How large an answer is at most, as a packet.
const ANSWER_BYTES_MAX: usize = 8 * 1024;
/// How much of a request an answer repeats at most.
const ECHOED_BYTES_MAX: usize = 2 * 1024;
/// More than all else in an answer: topic, lengths, status, reason, content type.
const OTHER_BYTES: usize = 256;
/// What is handed over between two turns of the event loop: an answer and an acknowledgement per packet of one read.
const COMMANDS_MAX: usize = 256;
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
