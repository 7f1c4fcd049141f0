//! `motemq-sim bench`: a load generator with emqtt_bench's letters.
//!
//! Exit codes: 0 all is well; 1 the run could not take place as asked; 2 options that contradict each other; 99 the
//! broker broke a promise.

use crate::bench::{self, BenchError, FIELDS, Interrupts, Pace, Plan, Report, Shape};
use crate::output::{failed, open_file, write_json};
use crate::signals::Signals;
use crate::text::{duration, rate};
use crate::wire::Version;
use crate::{Endpoint, TlsFiles, Transport};
use clap::{ArgAction, Args, Subcommand, ValueEnum};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const EXIT_USAGE: u8 = 2;
const EXIT_VIOLATION: u8 = 99;

/// Loads any broker with plain connections, publishers and subscribers, and counts what becomes of every message.
///
/// The letters are those of emqtt_bench, and so are the defaults except where an option says otherwise. Figures are of
/// --duration alone: not of the ramp, --warmup or the wait at the end. Exit code 1: connections failed or broke, or
/// nothing arrived; 99: acknowledged messages were lost, or messages came twice (but at QoS 1) or in the wrong order.
#[derive(Args, Debug)]
pub(super) struct BenchArguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Open -c connections at a rate, and hold them.
    #[command(disable_help_flag = true)]
    Conn(Connections),
    /// -c publishers; the rate, and at QoS 1 and 2 the time to the acknowledgement.
    #[command(disable_help_flag = true)]
    Pub {
        #[command(flatten)]
        connections: Connections,
        #[command(flatten)]
        messages: Messages,
        #[command(flatten)]
        sending: Sending,
    },
    /// -c subscribers; follows the messages of `bench pub` elsewhere.
    #[command(disable_help_flag = true)]
    Sub {
        #[command(flatten)]
        connections: Connections,
        #[command(flatten)]
        messages: Messages,
    },
    /// -c publishers, one subscriber to all of them.
    #[command(disable_help_flag = true)]
    Fanin {
        #[command(flatten)]
        connections: Connections,
        #[command(flatten)]
        messages: Messages,
        #[command(flatten)]
        sending: Sending,
    },
    /// One publisher, -c subscribers.
    #[command(disable_help_flag = true)]
    Fanout {
        #[command(flatten)]
        connections: Connections,
        #[command(flatten)]
        messages: Messages,
        #[command(flatten)]
        sending: Sending,
    },
    /// -c clients that each publish to themselves.
    #[command(disable_help_flag = true)]
    Roundtrip {
        #[command(flatten)]
        connections: Connections,
        #[command(flatten)]
        messages: Messages,
        #[command(flatten)]
        sending: Sending,
        /// -c publishers and as many subscribers, on connections of their own.
        #[arg(long)]
        pairs: bool,
    },
    /// Explain the fields of the JSON.
    Fields,
}

#[derive(Args, Debug)]
struct Connections {
    /// Print help.
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// The broker's host name or address.
    #[arg(short, long, default_value = "localhost", help_heading = "Connections")]
    host: String,
    /// The broker's port [default: 1883, with -S 8883].
    #[arg(short, long, help_heading = "Connections")]
    port: Option<u16>,
    /// MQTT version: 4 (3.1.1) or 5.
    #[arg(short = 'V', long, default_value = "5", help_heading = "Connections")]
    version: MqttVersion,
    /// How many clients, or publishers of fanin, subscribers of fanout.
    #[arg(short, long, default_value_t = 200, help_heading = "Connections")]
    count: u32,
    /// Number of the first client.
    #[arg(short = 'n', long, default_value_t = 0, help_heading = "Connections")]
    startnumber: u32,
    /// Milliseconds between two connects.
    #[arg(
        short,
        long,
        default_value_t = 10.0,
        value_name = "MS",
        help_heading = "Connections"
    )]
    interval: f64,
    /// Connects per second, instead of -i.
    #[arg(short = 'R', long, value_name = "RATE", value_parser = rate, conflicts_with = "interval", help_heading = "Connections")]
    connrate: Option<f64>,
    /// User name; %i is the client's number.
    #[arg(short, long, help_heading = "Connections")]
    username: Option<String>,
    /// Password; better given in the environment variable MOTEMQ_SIM_PASSWORD.
    #[arg(short = 'P', long, help_heading = "Connections")]
    password: Option<String>,
    /// Keep alive in seconds, 0 for none.
    #[arg(
        short,
        long,
        default_value_t = 300,
        value_name = "SECONDS",
        help_heading = "Connections"
    )]
    keepalive: u16,
    /// Clean session, or clean start.
    #[arg(short = 'C', long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL", help_heading = "Connections")]
    clean: bool,
    /// Session expiry interval in seconds, with -V 5.
    #[arg(
        short = 'x',
        long,
        value_name = "SECONDS",
        help_heading = "Connections"
    )]
    session_expiry: Option<u32>,
    /// TLS; unlike emqtt_bench, the broker's certificate is verified.
    #[arg(short = 'S', long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL", help_heading = "Connections")]
    ssl: bool,
    /// Authority of the broker's certificate, PEM.
    #[arg(long, value_name = "FILE", help_heading = "Connections")]
    cacertfile: Option<PathBuf>,
    /// Certificate that the clients present, PEM.
    #[arg(
        long,
        value_name = "FILE",
        requires = "keyfile",
        help_heading = "Connections"
    )]
    certfile: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(
        long,
        value_name = "FILE",
        requires = "certfile",
        help_heading = "Connections"
    )]
    keyfile: Option<PathBuf>,
    /// Local addresses to connect from, in turn: more than some 28,000 connections need several.
    #[arg(
        long,
        value_name = "ADDRESSES",
        value_delimiter = ',',
        help_heading = "Connections"
    )]
    ifaddr: Vec<IpAddr>,
    /// What client identifiers begin with; _pub_, _sub_ or _conn_ and the number follow [default: another one in each run].
    #[arg(long, help_heading = "Connections")]
    prefix: Option<String>,
    /// How long to measure, or to hold connections; emqtt_bench runs until it is interrupted.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = duration, help_heading = "Measuring")]
    duration: Duration,
    /// The broker's process on this machine, for its CPU time and memory.
    #[arg(long, value_name = "PID", help_heading = "Measuring")]
    broker_pid: Option<u32>,
    /// Write the report as JSON too; `motemq-sim bench fields` explains it.
    #[arg(long, value_name = "FILE", help_heading = "Measuring")]
    json: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct Messages {
    /// Topic; %i is the client's number, %c its identifier, %u its user name [default: bench/%i, for fanout bench/all].
    #[arg(short, long, help_heading = "Messages")]
    topic: Option<String>,
    /// QoS of messages and subscriptions.
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2), help_heading = "Messages")]
    qos: u8,
    /// How long messages flow before anything is measured.
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = duration, help_heading = "Measuring")]
    warmup: Duration,
}

#[derive(Args, Debug)]
struct Sending {
    /// Bytes of a payload; at least 28 where messages are followed.
    #[arg(
        short,
        long,
        default_value_t = 256,
        value_name = "BYTES",
        help_heading = "Messages"
    )]
    size: usize,
    /// Milliseconds between two messages of a publisher, such as 0.5, kept whatever the broker does (open model); 0:
    /// as fast as -F allows, so that the broker sets the pace (closed model).
    #[arg(
        short = 'I',
        long,
        default_value_t = 1_000.0,
        value_name = "MS",
        help_heading = "Messages"
    )]
    interval_of_msg: f64,
    /// Messages of all publishers, 0 for no limit.
    #[arg(
        short = 'L',
        long,
        default_value_t = 0,
        value_name = "MESSAGES",
        help_heading = "Messages"
    )]
    limit: u64,
    /// Messages that a publisher may have on the way: unacknowledged at QoS 1 and 2 (emqtt_bench: 1), with -I 0 also
    /// undelivered, where the subscribers are here too.
    #[arg(
        short = 'F',
        long,
        default_value_t = 20,
        value_name = "MESSAGES",
        help_heading = "Messages"
    )]
    inflight: u16,
    /// Messages that a publisher sends at once, with -I 0.
    #[arg(
        long,
        default_value_t = 1,
        value_name = "MESSAGES",
        help_heading = "Messages"
    )]
    batch: u16,
    /// Ask the broker to retain the messages.
    #[arg(short, long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL", help_heading = "Messages")]
    retain: bool,
    /// Publishers always wait until all are connected; accepted for emqtt_bench's sake.
    #[arg(short, long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL", help_heading = "Messages")]
    wait_before_publishing: bool,
    /// How long to wait at the end for what is missing, from the last arrival; and to send what a full window held back.
    #[arg(long, default_value = "4s", value_name = "TIME", value_parser = duration, help_heading = "Measuring")]
    drain: Duration,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MqttVersion {
    #[value(name = "4")]
    V311,
    #[value(name = "5")]
    V5,
}

/// Runs a bench; what to print and how to end. Errors go to standard error.
pub(super) fn bench(arguments: BenchArguments) -> (String, ExitCode) {
    match try_bench(arguments.bench) {
        Ok(outcome) => outcome,
        Err(error) => {
            let _ = writeln!(io::stderr(), "motemq-sim: {error}");
            let code = match error {
                BenchError::Options(_) => ExitCode::from(EXIT_USAGE),
                _ => ExitCode::FAILURE,
            };
            (String::new(), code)
        }
    }
}

fn try_bench(bench: Bench) -> Result<(String, ExitCode), BenchError> {
    let (shape, connections, messages, sending) = match bench {
        Bench::Fields => return Ok((FIELDS.to_owned(), ExitCode::SUCCESS)),
        Bench::Conn(connections) => (Shape::Conn, connections, None, None),
        Bench::Pub {
            connections,
            messages,
            sending,
        } => (Shape::Pub, connections, Some(messages), Some(sending)),
        Bench::Sub {
            connections,
            messages,
        } => (Shape::Sub, connections, Some(messages), None),
        Bench::Fanin {
            connections,
            messages,
            sending,
        } => (Shape::FanIn, connections, Some(messages), Some(sending)),
        Bench::Fanout {
            connections,
            messages,
            sending,
        } => (Shape::FanOut, connections, Some(messages), Some(sending)),
        Bench::Roundtrip {
            connections,
            messages,
            sending,
            pairs,
        } => {
            let shape = if pairs {
                Shape::Pairs
            } else {
                Shape::RoundTrip
            };
            (shape, connections, Some(messages), Some(sending))
        }
    };
    let json = connections.json.clone();
    let plan = plan(shape, connections, messages, sending)?;
    // What cannot be written at the end is refused before anything is measured.
    let json = json.as_deref().map(open_file).transpose()?;
    let report = bench::run(&plan, &interrupts()?)?;
    let mut code = exit_code(&report);
    if let Some(file) = json {
        let path = file.path().to_owned();
        if let Err(error) = write_json(file, &report) {
            let _ = writeln!(io::stderr(), "motemq-sim: {}", failed(&path, error));
            code = super::at_least_failure(code);
        }
    }
    Ok((report.to_string(), code))
}

fn exit_code(report: &Report) -> ExitCode {
    if !report.outcome.violations.is_empty() {
        ExitCode::from(EXIT_VIOLATION)
    } else if report.failure().is_some() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn plan(
    shape: Shape,
    connections: Connections,
    messages: Option<Messages>,
    sending: Option<Sending>,
) -> Result<Plan, BenchError> {
    let problem = |text: &str| Err(BenchError::Options(text.to_owned()));
    if connections.ssl && connections.cacertfile.is_none() {
        return problem(
            "-S needs the authority of the broker's certificate: add --cacertfile pki/ca.crt",
        );
    }
    if !connections.ssl && (connections.cacertfile.is_some() || connections.certfile.is_some()) {
        return problem("--cacertfile and --certfile are for TLS: add -S");
    }
    if sending
        .as_ref()
        .is_some_and(|sending| !sending.wait_before_publishing)
    {
        return problem("-w false is not possible: publishers wait until all are connected");
    }
    let connects_per_s = match connections.connrate {
        Some(rate) => rate,
        None if connections.interval > 0.0 => 1_000.0 / connections.interval,
        None => return problem("-i must be more than 0 ms"),
    };
    let interval_ms = sending
        .as_ref()
        .map_or(0.0, |sending| sending.interval_of_msg);
    let pace = match Duration::try_from_secs_f64(interval_ms / 1_000.0) {
        Ok(_) if interval_ms == 0.0 => Pace::Unpaced,
        Ok(interval) => Pace::Every(interval),
        Err(_) => return problem("-I is a number of milliseconds, 0 or more"),
    };
    let default_topic = match shape {
        Shape::FanOut => "bench/all",
        _ => "bench/%i",
    };
    let given_topic = messages
        .as_ref()
        .and_then(|messages| messages.topic.clone());
    let password = connections
        .password
        .or_else(|| std::env::var("MOTEMQ_SIM_PASSWORD").ok())
        .filter(|_| connections.username.is_some());
    Ok(Plan {
        shape,
        endpoint: endpoint(&connections.host, connections.port, connections.ssl)?,
        tls_files: TlsFiles {
            authority: connections.cacertfile,
            certificate: connections.certfile,
            private_key: connections.keyfile,
        },
        sources: connections.ifaddr,
        version: match connections.version {
            MqttVersion::V311 => Version::V4,
            MqttVersion::V5 => Version::V5,
        },
        prefix: connections.prefix.unwrap_or_else(bench::new_prefix),
        start_number: connections.startnumber,
        count: connections.count,
        username: connections.username,
        password: password.unwrap_or_default(),
        keep_alive_s: connections.keepalive,
        clean: connections.clean,
        session_expiry_s: connections.session_expiry,
        connects_per_s,
        topic: given_topic.unwrap_or_else(|| default_topic.to_owned()),
        qos: messages.as_ref().map_or(0, |messages| messages.qos),
        retain: sending.as_ref().is_some_and(|sending| sending.retain),
        size: sending
            .as_ref()
            .map_or(bench::LABEL_BYTES, |sending| sending.size),
        pace,
        inflight: sending.as_ref().map_or(1, |sending| sending.inflight),
        batch: sending.as_ref().map_or(1, |sending| sending.batch),
        limit: sending.as_ref().map_or(0, |sending| sending.limit),
        warm_up: messages.map_or(Duration::ZERO, |messages| messages.warmup),
        duration: connections.duration,
        drain: sending.map_or(Duration::ZERO, |sending| sending.drain),
        broker_pid: connections.broker_pid,
    })
}

fn endpoint(host: &str, port: Option<u16>, tls: bool) -> Result<Endpoint, BenchError> {
    if host.is_empty() || host.contains(['/', '@', ',']) {
        let text = "-h is one host name or address, such as -h 192.168.1.20";
        return Err(BenchError::Options(text.to_owned()));
    }
    let (transport, default_port) = if tls {
        (Transport::Tls, 8883)
    } else {
        (Transport::Tcp, 1883)
    };
    Ok(Endpoint {
        host: host.to_owned(),
        port: port.unwrap_or(default_port),
        transport,
        websocket_path: None,
    })
}

/// Counts the user's interrupts; without it, an interrupt would end the run without a report.
fn interrupts() -> Result<Interrupts, BenchError> {
    let failed = |source| BenchError::System {
        doing: "listening for interrupts",
        source,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(failed)?;
    let mut signals = {
        let _context = runtime.enter();
        Signals::listen().map_err(failed)?
    };
    let interrupts = Interrupts::default();
    let counted = interrupts.clone();
    let listen = move || {
        runtime.block_on(async {
            loop {
                signals.next().await;
                counted.interrupt();
            }
        });
    };
    // It ends with the process.
    std::thread::Builder::new().spawn(listen).map_err(failed)?;
    Ok(interrupts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: BenchArguments,
    }

    #[test]
    fn emqtt_benchs_letters_mean_what_they_mean_there() {
        let words = "bench pub -h ::1 -p 1884 -V 4 -c 10 -n 5 -i 20 -t a/%i -q 1 -s 64 -I 10 -L 99 -k 30 -C false -u me -P secret -F 7 -w true -r true --prefix x";
        let plan = planned(words).unwrap();
        assert_eq!(plan.endpoint.to_string(), "mqtt://[::1]:1884");
        assert_eq!((plan.count, plan.start_number, plan.limit), (10, 5, 99));
        assert_eq!((plan.connects_per_s, plan.qos, plan.size), (50.0, 1, 64));
        assert_eq!(plan.pace, Pace::Every(Duration::from_millis(10)));
        assert_eq!((plan.version, plan.keep_alive_s), (Version::V4, 30));
        assert_eq!((plan.clean, plan.retain, plan.inflight), (false, true, 7));
        assert_eq!((plan.topic.as_str(), plan.prefix.as_str()), ("a/%i", "x"));
        assert_eq!(plan.username.as_deref(), Some("me"));
        assert_eq!(plan.password, "secret");
        plan.check().unwrap();
    }

    #[test]
    fn every_command_is_consistent_by_default() {
        for command in [
            "conn",
            "pub",
            "sub",
            "fanin",
            "fanout",
            "roundtrip",
            "roundtrip --pairs",
        ] {
            let plan = planned(&format!("bench {command} -R 500/s")).unwrap();
            plan.check().unwrap();
            assert_eq!(plan.connects_per_s, 500.0);
            assert_eq!(plan.endpoint.port, 1883);
        }
    }

    #[test]
    fn contradictions_of_the_command_line_name_the_option() {
        for (words, named) in [
            ("conn -S", "--cacertfile"),
            ("conn --cacertfile ca.crt", "-S"),
            ("pub -w false", "-w"),
            ("pub -I=-1", "-I"),
            ("conn -i 0", "-i"),
            ("conn -h a,b", "-h"),
        ] {
            let error = planned(&format!("bench {words}")).unwrap_err();
            assert!(matches!(error, BenchError::Options(_)), "{words}");
            assert!(error.to_string().contains(named), "{words}: {error}");
        }
        assert!(Line::try_parse_from(["bench", "conn", "-R", "5", "-i", "5"]).is_err());
        assert!(Line::try_parse_from(["bench", "conn", "-V", "3"]).is_err());
    }

    fn planned(words: &str) -> Result<Plan, BenchError> {
        let line = Line::try_parse_from(words.split(' '))
            .map_err(|error| BenchError::Options(error.to_string()))?;
        match line.arguments.bench {
            Bench::Fields => panic!("no plan"),
            Bench::Conn(connections) => plan(Shape::Conn, connections, None, None),
            Bench::Sub {
                connections,
                messages,
            } => plan(Shape::Sub, connections, Some(messages), None),
            Bench::Pub {
                connections,
                messages,
                sending,
            }
            | Bench::Fanin {
                connections,
                messages,
                sending,
            }
            | Bench::Fanout {
                connections,
                messages,
                sending,
            }
            | Bench::Roundtrip {
                connections,
                messages,
                sending,
                ..
            } => {
                let shape = if words.contains("fanout") {
                    Shape::FanOut
                } else {
                    Shape::FanIn
                };
                plan(shape, connections, Some(messages), Some(sending))
            }
        }
    }
}
