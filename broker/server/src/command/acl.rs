//! `motemq acl`: ask what somebody may do, check a file, translate mosquitto's.
//!
//! Exit codes: 0 allowed or done, 1 denied or not done, 2 wrong arguments, 78 wrong rules or configuration. Results go to
//! standard output, reasons to standard error.

use crate::{CONFIG_INVALID, ConfigArgs, load};
use clap::{Args, Subcommand, ValueEnum};
use motemq::acl_file::{self, Format, LoadedAcl};
use motemq_codec::{QoS, parse_subscription, validate_topic_name};
use motemq_core::{Attributes, ClientId, Decision, Identity, Principal, Rights, import_mosquitto};
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Subcommand)]
pub(crate) enum AclCommand {
    /// Say whether somebody may do something, and which line decides. Exit code 0: allowed, 1: denied.
    Test(Box<TestArgs>),
    /// Check a file with access rules and name every wrong line.
    Check {
        /// The file.
        file: PathBuf,
        /// It is in mosquitto's format.
        #[arg(long)]
        mosquitto: bool,
    },
    /// Translate a mosquitto ACL file; comments say what differs.
    Import {
        /// The file in mosquitto's format.
        file: PathBuf,
        /// The new file, for auth.acl_file; nothing is overwritten. Without it the rules go to standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Args)]
pub(crate) struct TestArgs {
    /// What is wished.
    action: Action,
    /// The topic; for subscribe a filter, perhaps as $share/NAME/FILTER.
    topic: String,
    /// The user name that the client proved.
    #[arg(long)]
    user: Option<String>,
    /// The client id.
    #[arg(long, value_name = "ID")]
    client: String,
    /// The user came in by certificate.
    #[arg(long, requires = "user")]
    certificate: bool,
    /// The client came in without a login; so without --user too.
    #[arg(long, conflicts_with = "user")]
    anonymous: bool,
    /// A group that the login names; may be repeated.
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// A field of the login, such as cn=meter-7; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_field)]
    field: Vec<(Box<str>, Box<str>)>,
    /// A rule that the login brings along, as those of a token; may be repeated.
    #[arg(long, value_name = "RULE")]
    rule: Vec<String>,
    /// Quality of service of the PUBLISH or SUBSCRIBE.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// A PUBLISH with RETAIN.
    #[arg(long)]
    retain: bool,
    /// These rules, instead of those of the configuration.
    #[arg(short, long, value_name = "FILE", conflicts_with = "mosquitto")]
    file: Option<PathBuf>,
    /// These rules in mosquitto's format, instead of those of the configuration.
    #[arg(long, value_name = "FILE")]
    mosquitto: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Copy, Clone, ValueEnum)]
enum Action {
    Publish,
    Subscribe,
    Receive,
}

fn parse_field(text: &str) -> Result<(Box<str>, Box<str>), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("write NAME=VALUE, for example cn=meter-7")?;
    Ok((name.into(), value.into()))
}

pub(crate) fn run(command: &AclCommand) -> ExitCode {
    match command {
        AclCommand::Test(args) => test(args),
        AclCommand::Check { file, mosquitto } => check(file, *mosquitto),
        AclCommand::Import { file, output } => import(file, output.as_deref()),
    }
}

fn test(args: &TestArgs) -> ExitCode {
    let loaded = match rules(args) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let rights = loaded.acl.rights(&Arc::new(principal(args)));
    let decision = match decide(args, rights.as_ref()) {
        Ok(decision) => decision,
        Err(fault) => {
            eprintln!("motemq: {:?}: {fault}", args.topic);
            return ExitCode::from(USAGE);
        }
    };
    let verdict = if decision.allowed {
        "allowed"
    } else {
        "denied"
    };
    let file = loaded.path.as_deref().filter(|_| decision.line.is_some());
    let file = file.map_or_else(String::new, |path| format!("{} ", path.display()));
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{verdict}: {file}{}", decision.text);
    match decision.allowed {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn rules(args: &TestArgs) -> Result<LoadedAcl, ExitCode> {
    let auth = match (&args.file, &args.mosquitto) {
        (None, None) => load(&args.config)?.auth,
        (own, mosquitto) => motemq::config::AuthConfig {
            acl_file: own.clone(),
            mosquitto_acl_file: mosquitto.clone(),
            ..motemq::config::AuthConfig::default()
        },
    };
    LoadedAcl::load(&auth).map_err(invalid)
}

fn principal(args: &TestArgs) -> Principal {
    Principal {
        client_id: ClientId::new(&args.client),
        identity: match &args.user {
            None => Identity::Anonymous,
            Some(user) if args.certificate => Identity::Certificate(user.as_str().into()),
            Some(user) => Identity::User(user.as_str().into()),
        },
        attributes: Arc::new(Attributes {
            groups: args.group.iter().map(|name| name.as_str().into()).collect(),
            fields: args.field.clone().into(),
            rules: args.rule.iter().map(|rule| rule.as_str().into()).collect(),
        }),
    }
}

/// `rights` is `None` where everything is allowed.
fn decide(args: &TestArgs, rights: Option<&Rights>) -> Result<Decision, String> {
    let qos = match args.qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    };
    let topic = args.topic.as_str();
    let checked = match args.action {
        Action::Subscribe => parse_subscription(topic).map_err(|fault| fault.to_string()),
        _ => validate_topic_name(topic)
            .map_err(|fault| fault.to_string())
            .and_then(|()| parse_subscription(topic).map_err(|fault| fault.to_string())),
    }?;
    let dollar = match args.action {
        Action::Publish if topic.starts_with('$') => Some("publishes to topics that start with $"),
        Action::Subscribe if is_closed(checked.filter.as_str()) => {
            Some("subscribes to filters that start with $, but for $SYS/")
        }
        _ => None,
    };
    if let Some(what) = dollar {
        return Ok(Decision {
            allowed: false,
            line: None,
            text: format!("no client {what}, whatever the rules"),
        });
    }
    let Some(rights) = rights else {
        return Ok(Decision {
            allowed: true,
            line: None,
            text: "there are no access rules (auth.acl_file)".to_owned(),
        });
    };
    Ok(match args.action {
        Action::Publish => rights.explain_publish(topic, qos, args.retain),
        Action::Subscribe => rights.explain_subscribe(checked.filter.as_str(), checked.share, qos),
        Action::Receive => rights.explain_receive(topic),
    })
}

/// The broker refuses such filters before it asks for rules.
fn is_closed(filter: &str) -> bool {
    filter.starts_with('$') && filter != "$SYS" && !filter.starts_with("$SYS/")
}

fn check(file: &Path, is_mosquitto: bool) -> ExitCode {
    let format = match is_mosquitto {
        true => Format::Mosquitto,
        false => Format::Own,
    };
    match acl_file::load(file, format) {
        Ok(acl) => {
            let mut out = std::io::stdout();
            let _ = writeln!(
                out,
                "{}: {} rule(s), no mistake",
                file.display(),
                acl.rule_count()
            );
            ExitCode::SUCCESS
        }
        Err(error) => invalid(error),
    }
}

fn import(file: &Path, output: Option<&Path>) -> ExitCode {
    let text = match acl_file::read(file) {
        Ok(text) => text,
        Err(error) => return invalid(error),
    };
    let own = match import_mosquitto(&text) {
        Ok(own) => own,
        Err(mistakes) => {
            let path = file.to_owned();
            return invalid(acl_file::AclFileError::Mistakes { path, mistakes });
        }
    };
    let Some(output) = output else {
        let _ = std::io::stdout().write_all(own.as_bytes());
        return ExitCode::SUCCESS;
    };
    let created = OpenOptions::new().write(true).create_new(true).open(output);
    match created.and_then(|mut file| file.write_all(own.as_bytes())) {
        Ok(()) => {
            let mut out = std::io::stdout();
            let _ = writeln!(
                out,
                "look for \"differs\" in {}, then use it with: auth.acl_file = {output:?}",
                output.display()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("motemq: {} cannot be written: {error}", output.display());
            ExitCode::FAILURE
        }
    }
}

fn invalid(error: impl Display) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(CONFIG_INVALID)
}

const USAGE: u8 = 2;
