//! `motemq sub`: prints what arrives.

use super::link::{Got, Link, Message};
use super::{ConnectArgs, FIRST_ID, Failure, Session, failure, leave, qos, run_to_the_end, words};
use crate::command::trace::clean;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use motemq::clock;
use motemq_codec::{
    Ack, AckKind, Packet, PacketId, QoS, ReasonCode, RetainHandling, Subscribe, SubscribeFilter,
    SubscribeFilters, SubscribeOptions, UserProperties, parse_subscription,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Args)]
#[command(disable_help_flag = true, disable_version_flag = true, after_help = EXAMPLES)]
pub(crate) struct SubArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Topic filter; several times for several.
    #[arg(short, long, value_name = "FILTER", required = true)]
    topic: Vec<String>,
    /// Highest QoS.
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// The topic before each payload.
    #[arg(short, long)]
    verbose: bool,
    /// One JSON object per message.
    #[arg(long)]
    json: bool,
    /// End after so many messages.
    #[arg(short = 'C', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so many seconds; with -C, without all of the messages, exit code 1.
    #[arg(short = 'W', long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// Leave out messages that were retained.
    #[arg(short = 'R', long)]
    no_retained: bool,
    /// Take up the session of the identifier (-i), and leave it to the broker at the end.
    #[arg(short = 'c', long, requires = "id")]
    disable_clean_session: bool,
    /// For how many seconds the broker keeps the session (MQTT 5).
    #[arg(
        short = 'x',
        long,
        value_name = "SECONDS",
        requires = "disable_clean_session"
    )]
    session_expiry_interval: Option<u32>,
}

const EXAMPLES: &str = "Examples:
  motemq sub -t 'fleet/#' -v
  motemq sub -t '$SYS/broker/#' -v -W 2
  motemq sub -h broker.example --cafile root.crt -u ada --password-file secret -t alarms -q 1 --json
  motemq sub -t door/state -C 1 -W 10      (the next message, or exit code 1 after ten seconds)

Exit codes: 0 ended as asked, or by Ctrl-C; 1 refused, lost, or fewer messages than -C within -W; 2 wrong usage.";

pub(crate) fn run(args: &SubArgs) -> ExitCode {
    run_to_the_end(subscribe(args))
}

async fn subscribe(args: &SubArgs) -> Result<(), Failure> {
    for filter in &args.topic {
        if let Err(error) = parse_subscription(filter) {
            return failure(format!("-t {filter}: {error}"));
        }
    }
    let session = Session {
        clean_start: !args.disable_clean_session,
        expiry_s: match (args.disable_clean_session, args.session_expiry_interval) {
            (true, None) => Some(u32::MAX),
            (_, seconds) => seconds,
        },
    };
    let time_is_up = async {
        match args.timeout {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds.into())).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(time_is_up);
    let (mut link, _) = args.connect.connect(&session).await?;
    args.ask(&mut link)?;
    let mut subscriber = Subscriber {
        args,
        link,
        unreleased: BTreeSet::new(),
        shown: 0,
        is_over: false,
    };
    loop {
        tokio::select! {
            got = subscriber.link.next() => subscriber.handle(got?)?,
            () = &mut time_is_up => break,
            _ = tokio::signal::ctrl_c() => {
                leave(subscriber.link).await;
                return Ok(());
            }
        }
        if subscriber.is_over {
            subscriber.settle().await;
            break;
        }
    }
    let (shown, is_over) = (subscriber.shown, subscriber.is_over);
    leave(subscriber.link).await;
    match args.count {
        Some(count) if !is_over => failure(format!(
            "{shown} of {count} messages came within {} seconds",
            args.timeout.unwrap_or_default()
        )),
        _ => Ok(()),
    }
}

impl SubArgs {
    fn ask(&self, link: &mut Link) -> Result<(), Failure> {
        let options = SubscribeOptions {
            qos: qos(self.qos),
            no_local: false,
            retain_as_published: false,
            retain_handling: match self.no_retained {
                true => RetainHandling::DoNotSend,
                false => RetainHandling::SendAlways,
            },
        };
        let filter = |filter| SubscribeFilter { filter, options };
        let filters: Vec<_> = self.topic.iter().map(String::as_str).map(filter).collect();
        link.send(&Packet::Subscribe(Subscribe {
            packet_id: FIRST_ID,
            subscription_id: None,
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::from_list(&filters),
        }))
    }
}

struct Subscriber<'a> {
    args: &'a SubArgs,
    link: Link,
    /// Messages of QoS 2 that are shown and not yet released.
    unreleased: BTreeSet<PacketId>,
    shown: u64,
    is_over: bool,
}

impl Subscriber<'_> {
    fn handle(&mut self, got: Got) -> Result<(), Failure> {
        match got {
            Got::SubAck(codes) => self.check_granted(&codes),
            // What comes after the last one stays the broker's.
            Got::Publish(message) if !self.is_over => self.take(&message),
            Got::Ack(AckKind::PubRel, packet_id, _) => {
                let code = match self.unreleased.remove(&packet_id) {
                    true => ReasonCode::Success,
                    false => ReasonCode::PacketIdentifierNotFound,
                };
                self.link.send(&Packet::PubComp(Ack::new(packet_id, code)))
            }
            _ => Ok(()),
        }
    }

    fn check_granted(&self, codes: &[u8]) -> Result<(), Failure> {
        let mut is_any = false;
        for (filter, code) in self.args.topic.iter().zip(codes) {
            match ReasonCode::from_u8(*code) {
                Some(code) if !code.is_error() => is_any = true,
                code => eprintln!(
                    "motemq: the broker refused the subscription to {filter}: {}{}",
                    words(code.unwrap_or(ReasonCode::UnspecifiedError)),
                    self.link.reason()
                ),
            }
        }
        match is_any {
            true => Ok(()),
            false => failure("no subscription is left"),
        }
    }

    fn take(&mut self, message: &Message) -> Result<(), Failure> {
        let is_repeated = message
            .packet_id
            .is_some_and(|id| message.qos == QoS::ExactlyOnce && !self.unreleased.insert(id));
        let is_left_out = self.args.no_retained && message.retain;
        if !is_repeated && !is_left_out {
            if self.args.show(message).is_err() {
                // Whoever closed standard output has seen enough.
                self.is_over = true;
                return Ok(());
            }
            self.shown += 1;
        }
        if let Some(packet_id) = message.packet_id {
            let ack = Ack::new(packet_id, ReasonCode::Success);
            self.link.send(&match message.qos {
                QoS::ExactlyOnce => Packet::PubRec(ack),
                _ => Packet::PubAck(ack),
            })?;
        }
        self.is_over = self.args.count.is_some_and(|count| self.shown >= count);
        Ok(())
    }

    /// Completes what was shown at QoS 2, as far as the broker goes on.
    async fn settle(&mut self) {
        let settled = async {
            while !self.unreleased.is_empty() {
                let got = self.link.next().await?;
                self.handle(got)?;
            }
            Ok::<_, Failure>(())
        };
        let _ = tokio::time::timeout(SETTLE_TIME, settled).await;
    }
}

impl SubArgs {
    fn show(&self, message: &Message) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            return writeln!(out, "{}", json_of(message));
        }
        let is_terminal = out.is_terminal();
        if self.verbose {
            write!(out, "{} ", clean(&message.topic))?;
        }
        match std::str::from_utf8(&message.payload) {
            Ok(text) if is_terminal => {
                let lines: Vec<_> = text.split('\n').map(clean).collect();
                out.write_all(lines.join("\n").as_bytes())?;
            }
            Err(_) if is_terminal => {
                write!(out, "({} bytes that are no text)", message.payload.len())?
            }
            _ => out.write_all(&message.payload)?,
        }
        out.write_all(b"\n")?;
        out.flush()
    }
}

fn json_of(message: &Message) -> Value {
    let mut shown = json!({
        "at_ms": clock::now().as_ms(),
        "topic": message.topic,
        "qos": message.qos as u8,
        "retain": message.retain,
        "dup": message.dup,
        "payload_bytes": message.payload.len(),
    });
    let payload = match std::str::from_utf8(&message.payload) {
        Ok(text) => ("payload", Some(text.to_owned())),
        Err(_) => ("payload_base64", Some(STANDARD.encode(&message.payload))),
    };
    let correlation_data = message.correlation_data.as_ref();
    let fields = [
        payload,
        ("content_type", message.content_type.clone()),
        ("response_topic", message.response_topic.clone()),
        (
            "correlation_data_base64",
            correlation_data.map(|data| STANDARD.encode(data)),
        ),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            shown[name] = value.into();
        }
    }
    if let Some(seconds) = message.message_expiry_s {
        shown["message_expiry_s"] = seconds.into();
    }
    if !message.user_properties.is_empty() {
        shown["user_properties"] = json!(message.user_properties);
    }
    shown
}

/// How long the broker may take to complete the last messages.
const SETTLE_TIME: Duration = Duration::from_secs(5);
