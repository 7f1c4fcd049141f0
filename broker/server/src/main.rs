//! `motemq`: arguments, configuration, start, wait, stop.
//!
//! Exit codes: 0 stopped as asked, 1 could not start or the store failed, 2 usage, 3 the store is damaged
//! (`motemq store`), 78 the configuration is invalid.

mod command;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use command::AskArgs;
use command::admin::BanCommand;
use command::drops::DropsArgs;
use command::passwd::PasswdCommand;
use command::store::StoreCommand;
use motemq::config::{self, Bind, Config, LogFormat, Sources};
use motemq::reload::{Mistakes, Reloaded, Reloader};
use motemq::server::{INJECT_SYNC, StartError, Stop};
use motemq::{clock, dev, runtime, server, supervisor};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// glibc's keeps the 19 MiB of each password check in the arena of whichever thread made it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// MQTT broker for constrained devices; it never acknowledges what it could still lose.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the broker.
    Run(RunArgs),
    /// Check the configuration and the files it names, and say what is wrong.
    #[command(alias = "-t")]
    Check(ConfigArgs),
    /// Show the configuration that a run would have.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check, back up, restore or repair the store.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Have the running broker read its configuration and files again, and say what changed.
    Reload {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Where did my message go: what was lost, at which client, why, and which key changes that.
    Drops {
        #[command(flatten)]
        drops: DropsArgs,
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// List clients: who is there, since when, and what waits for them.
    Clients {
        #[command(flatten)]
        args: command::clients::ClientsArgs,
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show a client, end its connection, or end its session.
    Client {
        #[command(subcommand)]
        command: command::clients::ClientCommand,
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// List subscriptions.
    Subs {
        #[command(flatten)]
        args: command::clients::SubsArgs,
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// List, read and remove retained messages.
    Retained {
        #[command(subcommand)]
        command: command::retained::RetainedCommand,
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// The running broker in numbers.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Shut out addresses, clients and users, or end that.
    Ban {
        #[command(subcommand)]
        command: BanCommand,
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show the packets of clients as they come and go.
    Trace {
        #[command(flatten)]
        args: command::trace::TraceArgs,
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Publish to a broker, with the letters of mosquitto_pub.
    Pub(Box<command::mqtt::PubArgs>),
    /// Print what a broker delivers, with the letters of mosquitto_sub.
    Sub(Box<command::mqtt::SubArgs>),
    /// Say what would go wrong with this configuration on this machine, and what to change. Exit code 1: something has failed.
    Doctor(command::doctor::DoctorArgs),
    /// Exit code 0: the broker of this configuration is ready, 1: it is not; for the HEALTHCHECK of a container.
    Healthcheck {
        #[command(flatten)]
        args: command::healthcheck::HealthcheckArgs,
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Manage the users of a password file.
    #[command(subcommand)]
    Passwd(PasswdCommand),
    /// Translate a mosquitto.conf, with its users and access rules, and say what could not be.
    Import(command::import::ImportArgs),
    /// Say who may do what by the access rules; check or import a file with such rules.
    #[command(subcommand)]
    Acl(command::acl::AclCommand),
    /// Print what a shell needs to complete the words of motemq.
    Completions(command::completions::CompletionsArgs),
    /// Print the manual, or write a page for each verb.
    Man(command::man::ManArgs),
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Make certificates and a LAN user, listen on 1883 and 8883, admit clients on this machine without a password.
    #[arg(long)]
    dev: bool,
}

#[derive(Args)]
struct ConfigArgs {
    /// The configuration file.
    #[arg(short, long, env = "MOTEMQ_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Override a key, for example limits.receive_maximum=20 or listeners.mqtt.bind=0.0.0.0:1884.
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Every key with its effective value, in the form of --set.
    Show {
        /// Also where each value comes from: default, file and line, environment, --set.
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

fn main() -> ExitCode {
    raise_descriptors();
    // Starts the clock, from which "ready in" counts.
    let _ = clock::monotonic();
    match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Check(args) => check(&args),
        Command::Config(ConfigCommand::Show { origin, config }) => show_config(&config, origin),
        Command::Store { command, config } => match load(&config) {
            Ok(config) => command::store::run(&command, &config),
            Err(code) => code,
        },
        Command::Acl(command) => command::acl::run(&command),
        Command::Import(args) => command::import::run(&args),
        Command::Reload { config, ask } => match load(&config) {
            Ok(config) => command::admin::reload(&config, &ask),
            // The broker would have refused the same.
            Err(_) => ExitCode::FAILURE,
        },
        Command::Drops { drops, config, ask } => match load(&config) {
            Ok(config) => command::drops::run(&drops, &config, &ask),
            Err(code) => code,
        },
        Command::Ban {
            command,
            config,
            ask,
        } => match load(&config) {
            Ok(config) => command::admin::ban(command, &config, &ask),
            Err(code) => code,
        },
        Command::Clients { args, config, ask } => match load(&config) {
            Ok(config) => command::clients::list(&args, &config, &ask),
            Err(code) => code,
        },
        Command::Client {
            command,
            config,
            ask,
        } => match load(&config) {
            Ok(config) => command::clients::client(command, &config, &ask),
            Err(code) => code,
        },
        Command::Subs { args, config, ask } => match load(&config) {
            Ok(config) => command::clients::subs(&args, &config, &ask),
            Err(code) => code,
        },
        Command::Retained {
            command,
            config,
            ask,
        } => match load(&config) {
            Ok(config) => command::retained::run(command, &config, &ask),
            Err(code) => code,
        },
        Command::Status { json, config, ask } => match load(&config) {
            Ok(config) => command::retained::status(json, &config, &ask),
            Err(code) => code,
        },
        Command::Trace { args, config, ask } => match load(&config) {
            Ok(config) => command::trace::run(&args, &config, &ask),
            Err(code) => code,
        },
        Command::Doctor(args) => command::doctor::run(&args),
        Command::Healthcheck { args, config, ask } => match load(&config) {
            Ok(config) => command::healthcheck::run(&args, &config, &ask),
            Err(code) => code,
        },
        Command::Completions(args) => command::completions::run(&args, Cli::command()),
        Command::Man(args) => command::man::run(&args, Cli::command()),
        Command::Pub(args) => command::mqtt::publish(&args),
        Command::Sub(args) => command::mqtt::subscribe(&args),
        Command::Passwd(command) => match command::passwd::run(&command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
    }
}

/// Services start with room for a thousand files, for the sake of programs that use `select`; the hard limit is the operator's.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Without it there are fewer connections, as the log says when it comes to that.
    let _ = setrlimit(Resource::Nofile, raised);
}

fn load(args: &ConfigArgs) -> Result<Config, ExitCode> {
    load_with_settings(args).map(|(config, _)| config)
}

fn load_with_settings(args: &ConfigArgs) -> Result<(Config, Vec<config::Setting>), ExitCode> {
    if args.config.is_none() && Path::new("motemq.toml").exists() {
        eprintln!(
            "note: there is a motemq.toml here, but it is not used: say so with -c motemq.toml"
        );
    }
    config::load_with_settings(&sources(args)).map_err(|errors| {
        eprintln!("{errors}");
        ExitCode::from(CONFIG_INVALID)
    })
}

fn sources(args: &ConfigArgs) -> Sources<'_> {
    // MOTEMQ_BIN names the binary for the scripts of this repository.
    let ours = [
        "MOTEMQ_CONFIG",
        "MOTEMQ_BIN",
        "MOTEMQ_PASSWORD",
        INJECT_SYNC,
    ];
    let environment = std::env::vars()
        .filter(|(name, _)| name.starts_with("MOTEMQ_") && !ours.contains(&name.as_str()))
        .filter(|(name, _)| !name.starts_with("MOTEMQ_SIM_"));
    Sources {
        file: args.config.as_deref(),
        environment: environment.collect(),
        set: args.set.clone(),
    }
}

fn check(args: &ConfigArgs) -> ExitCode {
    let config = match load(args) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match server::check(&config) {
        Ok(warnings) => {
            for warning in warnings {
                eprintln!("warning: {warning}");
            }
            let mut out = std::io::stdout();
            let _ = writeln!(
                out,
                "the configuration is valid: {} listener(s)",
                config.listeners.len()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(CONFIG_INVALID)
        }
    }
}

fn show_config(args: &ConfigArgs, with_origin: bool) -> ExitCode {
    let settings = match load_with_settings(args) {
        Ok((_, settings)) => settings,
        Err(code) => return code,
    };
    let width = settings.iter().map(|setting| setting.to_string().len());
    let width = width.max().unwrap_or_default().min(ORIGIN_COLUMN_MAX);
    let mut out = std::io::stdout();
    for setting in &settings {
        // Whoever closed standard output has seen enough.
        let _ = match with_origin {
            true => {
                let (line, origin) = (setting.to_string(), setting.origin());
                writeln!(out, "{line:width$}  # {origin}")
            }
            false => writeln!(out, "{setting}"),
        };
    }
    ExitCode::SUCCESS
}

fn run(args: &RunArgs) -> ExitCode {
    let (mut config, settings) = match load_with_settings(&args.config) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let reloader = (!args.dev).then(|| Reloader::new(&sources(&args.config), settings));
    let setup = match args.dev.then(|| dev::prepare(&mut config)).transpose() {
        Ok(setup) => setup,
        Err(error) => return fail(&error),
    };
    if setup.is_some() && std::env::var_os("RUST_LOG").is_none() && config.log.level == "info" {
        config.log.level = "warn".to_owned();
    }
    init_log(&config);
    init_panics();
    let runtime = match runtime::build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let code = runtime.block_on(serve(config, setup, reloader));
    // A password check or a TLS close may still hold a thread; nothing that was acknowledged depends on it.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

async fn serve(
    config: Config,
    setup: Option<dev::DevSetup>,
    mut reloader: Option<Reloader>,
) -> ExitCode {
    // From here on a reload that is asked for while the store is read does not end the process. What `--dev` makes up cannot
    // be read again: there the signal ends the process, as when its terminal is closed.
    let mut hangup = match reloader.is_some().then(|| signal(SignalKind::hangup())) {
        Some(Ok(hangup)) => Some(hangup),
        Some(Err(error)) => return fail(&error),
        None => None,
    };
    let running = match server::start(config).await {
        Ok(running) => running,
        Err(error @ StartError::Bind { .. }) if setup.is_some() => {
            eprintln!("motemq: {error}: for example --set listeners.mqtt.bind=0.0.0.0:11883");
            return ExitCode::FAILURE;
        }
        Err(error @ (StartError::Tls { .. } | StartError::Auth(_) | StartError::Acl(_))) => {
            eprintln!("motemq: {error}");
            return ExitCode::from(CONFIG_INVALID);
        }
        Err(error) => return fail(&error),
    };
    // Before anybody hears that it runs.
    let signals = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    let (mut interrupt, mut terminate) = match signals {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(error), _) | (_, Err(error)) => return fail(&error),
    };
    match &setup {
        Some(setup) => {
            let text = setup.describe(clock::monotonic(), running.http());
            let _ = writeln!(std::io::stdout(), "{text}");
        }
        None => {
            for (name, address) in running.addresses() {
                tracing::info!(listener = name, %address, "listening");
            }
            for listener in running.server().listeners() {
                if let Bind::Unix(path) = &listener.config().bind {
                    tracing::info!(listener = listener.config().name, path = %path.display(), "listening");
                }
            }
            let ready_ms = u64::try_from(clock::monotonic().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(ready_ms, "ready");
        }
    }
    let server = running.server().clone();
    supervisor::ready();
    let watchdog = tokio::spawn(supervisor::watch(server.clone()));
    let mut requests = match &reloader {
        Some(_) => server.reload_requests(),
        None => tokio::sync::mpsc::channel(1).1,
    };
    let stop = loop {
        tokio::select! {
            stop = server.stop_reason() => break stop,
            _ = interrupt.recv() => break Stop::Asked,
            _ = terminate.recv() => break Stop::Asked,
            Some(()) = received(&mut hangup) => {
                let _ = reload(reloader.as_mut(), &server);
            }
            Some(asked) = requests.recv() => {
                // Who asked may have gone.
                let _ = reload(reloader.as_mut(), &server).map(|result| asked.send(result));
            }
            () = look_due(reloader.as_ref()) => {
                if let Some(reloader) = &mut reloader {
                    reloader.look(&server);
                }
            }
        }
    };
    watchdog.abort();
    if stop == Stop::StoreFailed {
        // Nothing can be acknowledged any more: stop listening at once.
        return ExitCode::FAILURE;
    }
    supervisor::stopping();
    tracing::info!("stopping");
    tokio::select! {
        () = running.stop() => ExitCode::SUCCESS,
        _ = interrupt.recv() => ExitCode::from(INTERRUPTED_TWICE),
    }
}

/// The next signal, if it is listened for; never otherwise.
async fn received(signal: &mut Option<Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

/// Ends when it is time to look whether files have changed.
async fn look_due(reloader: Option<&Reloader>) {
    match reloader {
        Some(reloader) => tokio::time::sleep(reloader.look_interval()).await,
        None => std::future::pending().await,
    }
}

fn reload(
    reloader: Option<&mut Reloader>,
    server: &Arc<server::Server>,
) -> Option<Result<Reloaded, Mistakes>> {
    supervisor::reloading();
    let result = reloader.map(|reloader| reloader.reload_and_report(server));
    supervisor::ready();
    result
}

/// A panic ends its connection only; one that met a lock poisoned by an earlier panic ends the process, because the state
/// behind that lock may be broken and the store is crash-safe (contracts section 6).
fn init_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let is_poisoned_lock = panic
            .location()
            .is_some_and(|at| at.file().ends_with("core/src/sync.rs"));
        tracing::error!(
            place,
            what = panic.payload_as_str(),
            "this is a bug of the broker"
        );
        if is_poisoned_lock {
            std::process::exit(1);
        }
    }));
}

fn init_log(config: &Config) {
    // rustls warns about clients that connect by address; that is their business.
    let level = match config.log.level.contains('=') {
        true => config.log.level.clone(),
        false => format!("{},rustls=error", config.log.level),
    };
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(&level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false);
    match config.log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

fn fail(error: &impl std::fmt::Display) -> ExitCode {
    eprintln!("motemq: {error}");
    ExitCode::FAILURE
}

/// The configuration is invalid (`EX_CONFIG`), so that a supervisor does not restart in a loop.
const CONFIG_INVALID: u8 = 78;
/// Origins start in this column at the latest, but for longer lines.
const ORIGIN_COLUMN_MAX: usize = 60;
/// Interrupted while stopping.
const INTERRUPTED_TWICE: u8 = 130;
