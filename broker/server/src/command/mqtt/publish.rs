//! `motemq pub`: publishes what the command line, a file or standard input has, and waits until it is acknowledged.

use super::link::{Got, Link};
use super::{
    ConnectArgs, FIRST_ID, Failure, Session, Welcome, failure, leave, qos, run_to_the_end, words,
};
use clap::Args;
use motemq_codec::{
    Ack, AckKind, Forwarded, ForwardedBlock, Packet, PacketId, Publish, PublishProperties, QoS,
    ReasonCode, validate_topic_name,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

#[derive(Args)]
#[command(disable_help_flag = true, disable_version_flag = true, after_help = EXAMPLES)]
#[group(id = "what", required = true, multiple = false, args = ["message", "file", "stdin_line", "stdin_file", "null_message"])]
pub(crate) struct PubArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Topic.
    #[arg(short, long)]
    topic: String,
    /// Payload.
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    message: Option<String>,
    /// File with the payload.
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Each line of standard input is a message.
    #[arg(short = 'l', long)]
    stdin_line: bool,
    /// All of standard input is one message.
    #[arg(short = 's', long)]
    stdin_file: bool,
    /// An empty payload: with -r, removes the retained message.
    #[arg(short, long)]
    null_message: bool,
    /// QoS.
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// The broker keeps the message for later subscribers.
    #[arg(short, long)]
    retain: bool,
    /// A property of MQTT 5: `publish content-type TEXT`, `publish response-topic TOPIC`, `publish correlation-data TEXT`,
    /// `publish message-expiry-interval SECONDS` or `publish user-property NAME VALUE`.
    #[arg(short = 'D', long, value_names = ["COMMAND", "PROPERTY", "VALUE"], num_args = 3..=4, action = clap::ArgAction::Append)]
    property: Vec<String>,
}

const EXAMPLES: &str = "Examples:
  motemq pub -t fleet/17/cmd -m reboot -q 1
  motemq pub -h broker.example --cafile root.crt -u ada --password-file secret -t a/b -f picture.jpg
  sensor | motemq pub -t readings -l -q 1
  motemq pub -t old/state -n -r            (removes the retained message)

Exit codes: 0 everything was sent, and acknowledged with -q 1 and 2; 1 not; 2 wrong usage.";

pub(crate) fn run(args: &PubArgs) -> ExitCode {
    run_to_the_end(publish(args))
}

async fn publish(args: &PubArgs) -> Result<(), Failure> {
    if let Err(error) = validate_topic_name(&args.topic) {
        return failure(format!("-t {}: {error}", args.topic));
    }
    let properties = Properties::read(&args.property)?;
    if !args.property.is_empty() && args.connect.version != super::Version::V5 {
        return failure("-D: properties need MQTT 5 (-V 5)");
    }
    // Before anybody is asked: a file that is not there needs no broker.
    let payload = args.payload().await?;
    let session = Session {
        clean_start: true,
        expiry_s: None,
    };
    let (link, welcome) = args.connect.connect(&session).await?;
    let mut publisher = Publisher {
        args,
        link,
        welcome,
        properties,
        open: BTreeMap::new(),
        next_id: FIRST_ID,
        refused: 0,
    };
    match payload {
        Some(payload) => publisher.publish(&payload).await?,
        None => publisher.publish_lines().await?,
    }
    while !publisher.open.is_empty() {
        publisher.settle_one().await?;
    }
    leave(publisher.link).await;
    match publisher.refused {
        0 => Ok(()),
        count => failure(format!("{count} of the messages were refused")),
    }
}

impl PubArgs {
    /// The one message, if it is not one for each line.
    async fn payload(&self) -> Result<Option<Vec<u8>>, Failure> {
        if self.stdin_line {
            return Ok(None);
        }
        if let Some(file) = &self.file {
            let read = std::fs::read(file);
            let named = |error| Failure(format!("{}: {error}", file.display()));
            return read.map(Some).map_err(named);
        }
        if self.stdin_file {
            let mut payload = Vec::new();
            let read = tokio::io::stdin().read_to_end(&mut payload).await;
            return match read {
                Ok(_) => Ok(Some(payload)),
                Err(error) => failure(format!("standard input: {error}")),
            };
        }
        Ok(Some(self.message.clone().unwrap_or_default().into_bytes()))
    }
}

struct Publisher<'a> {
    args: &'a PubArgs,
    link: Link,
    welcome: Welcome,
    properties: Properties,
    /// What is not acknowledged to the end, and which acknowledgement is awaited.
    open: BTreeMap<PacketId, AckKind>,
    next_id: PacketId,
    refused: usize,
}

impl Publisher<'_> {
    async fn publish_lines(&mut self) -> Result<(), Failure> {
        let mut lines = BufReader::new(tokio::io::stdin()).split(b'\n');
        loop {
            tokio::select! {
                line = lines.next_segment() => match line {
                    Ok(Some(line)) => self.publish(&line).await?,
                    Ok(None) => return Ok(()),
                    Err(error) => return failure(format!("standard input: {error}")),
                },
                got = self.link.next() => self.handle(got?)?,
            }
        }
    }

    async fn publish(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let qos = qos(self.args.qos);
        if qos > self.welcome.qos_max {
            return failure(format!(
                "the broker takes QoS {} at most: give -q {0}",
                self.welcome.qos_max as u8
            ));
        }
        let window = usize::from(self.welcome.receive_maximum).min(WINDOW);
        while self.open.len() >= window {
            self.settle_one().await?;
        }
        let packet_id = (qos != QoS::AtMostOnce).then(|| self.free_id());
        let publish = Publish {
            dup: false,
            qos,
            retain: self.args.retain,
            topic: &self.args.topic,
            packet_id,
            properties: PublishProperties {
                message_expiry_s: self.properties.message_expiry_s,
                forwarded: Forwarded::from_block(&self.properties.forwarded),
                ..PublishProperties::default()
            },
            payload,
        };
        let length = publish.encoded_len(self.link.version());
        if length.is_ok_and(|length| length > self.welcome.packet_bytes_max) {
            return failure(format!(
                "the message is too large: the broker takes packets of {} bytes at most (limits.packet_bytes_max)",
                self.welcome.packet_bytes_max
            ));
        }
        if let Some(packet_id) = packet_id {
            let awaited = match qos {
                QoS::ExactlyOnce => AckKind::PubRec,
                _ => AckKind::PubAck,
            };
            self.open.insert(packet_id, awaited);
        }
        self.link.send(&Packet::Publish(publish))?;
        if self.link.is_full() {
            self.link.drain().await?;
        }
        Ok(())
    }

    fn free_id(&mut self) -> PacketId {
        while self.open.contains_key(&self.next_id) {
            self.next_id = following(self.next_id);
        }
        let id = self.next_id;
        self.next_id = following(id);
        id
    }

    async fn settle_one(&mut self) -> Result<(), Failure> {
        let got = self.link.next().await?;
        self.handle(got)
    }

    fn handle(&mut self, got: Got) -> Result<(), Failure> {
        let Got::Ack(kind, packet_id, code) = got else {
            return Ok(());
        };
        if self.open.get(&packet_id) != Some(&kind) {
            return Ok(());
        }
        if code.is_error() {
            self.open.remove(&packet_id);
            self.refused += 1;
            let said = self.link.reason();
            eprintln!(
                "motemq: the broker refused a message to {}: {}{said}",
                self.args.topic,
                words(code)
            );
        } else if kind == AckKind::PubRec {
            self.open.insert(packet_id, AckKind::PubComp);
            let release = Ack::new(packet_id, ReasonCode::Success);
            self.link.send(&Packet::PubRel(release))?;
        } else {
            self.open.remove(&packet_id);
        }
        Ok(())
    }
}

fn following(id: PacketId) -> PacketId {
    PacketId::new(id.get().wrapping_add(1)).unwrap_or(FIRST_ID)
}

/// What `-D` asked for.
struct Properties {
    message_expiry_s: Option<u32>,
    forwarded: Box<[u8]>,
}

impl Properties {
    /// One after the other; how many values there are depends on the property.
    fn read(words: &[String]) -> Result<Self, Failure> {
        let mut message_expiry_s = None;
        let mut block = ForwardedBlock::default();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let mut rest = words.as_slice();
        while !rest.is_empty() {
            rest = match rest {
                [command, ..] if !command.eq_ignore_ascii_case("publish") => {
                    return failure("-D: only properties of publish can be given");
                }
                [_, "content-type", text, rest @ ..] => {
                    block.content_type(text);
                    rest
                }
                [_, "response-topic", topic, rest @ ..] => {
                    if let Err(error) = validate_topic_name(topic) {
                        return failure(format!("-D response-topic {topic}: {error}"));
                    }
                    block.response_topic(topic);
                    rest
                }
                [_, "correlation-data", data, rest @ ..] => {
                    block.correlation_data(data.as_bytes());
                    rest
                }
                [_, "user-property", name, value, rest @ ..] => {
                    block.user_property(name, value);
                    rest
                }
                [_, "message-expiry-interval", seconds, rest @ ..] => {
                    let Ok(seconds) = seconds.parse() else {
                        return failure(format!("-D: {seconds} is no number of seconds"));
                    };
                    message_expiry_s = Some(seconds);
                    rest
                }
                _ => {
                    return failure(format!(
                        "-D {}: there is content-type, response-topic, correlation-data, message-expiry-interval (one value) and user-property (name and value)",
                        rest.join(" ")
                    ));
                }
            };
        }
        Ok(Self {
            message_expiry_s,
            forwarded: block.into_bytes(),
        })
    }
}

/// Messages of QoS 1 and 2 under way at a time.
const WINDOW: usize = 100;
