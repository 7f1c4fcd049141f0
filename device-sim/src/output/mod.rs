//! What people and programs see of a run while it lasts, and the files that remain of it.
//!
//! Everything that may fail because of a path or an address fails before the run: see [`Output::open`].
//! Files appear whole or not at all.

mod chart;
mod file;
mod hdr;
mod html;
mod line;
mod metrics;
mod record;
#[cfg(feature = "tui")]
mod table;
mod view;

use crate::SimError;
use crate::report::Report;
use crate::world::World;
pub(crate) use file::OutputFile;
use hdr::HdrLog;
use record::Recorder;
use serde::Serialize;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use view::View;

/// How often the table on a terminal is drawn.
#[cfg(feature = "tui")]
const REDRAW: Duration = Duration::from_millis(500);

/// What is to be shown of a run, and where.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct OutputArguments {
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the report as one HTML page.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the latencies as an HdrHistogram interval log.
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
    /// Serve Prometheus metrics while the run lasts, such as 127.0.0.1:9884.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,
    /// Show nothing while the run lasts.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Where a run is shown, opened and found writable.
#[derive(Debug, Default)]
pub struct Output {
    json: Option<OutputFile>,
    html: Option<OutputFile>,
    hdr: Option<OutputFile>,
    metrics: Option<TcpListener>,
    shows: bool,
}

/// Shows a run while it lasts.
pub(crate) struct Live {
    recorder: Recorder,
    screen: Screen,
    hdr: Option<HdrLog>,
    json: Option<OutputFile>,
    html: Option<OutputFile>,
    /// Why files will be missing.
    unwritten: Vec<SimError>,
    /// Ends with this value.
    _servers: JoinSet<()>,
}

enum Screen {
    Dark,
    /// A line a second on standard error.
    Lines,
    #[cfg(feature = "tui")]
    Table {
        table: Box<table::Table>,
        next_at: Duration,
    },
}

impl Output {
    /// Shows nothing, writes nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self::default()
    }

    /// Opens what `arguments` name.
    ///
    /// # Errors
    /// A file that cannot be written, an address that cannot be listened at.
    pub fn open(arguments: &OutputArguments) -> Result<Self, SimError> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(open_file).transpose();
        let paths = [&arguments.json, &arguments.html, &arguments.hdr];
        let mut named: Vec<&PathBuf> = paths.into_iter().flatten().collect();
        named.sort();
        if let Some([path, _]) = named.array_windows().find(|[one, other]| one == other) {
            let problem = "two reports cannot have one file: give each its own";
            let source = io::Error::other(problem);
            return Err(failed(path, source));
        }
        Ok(Self {
            json: open(&arguments.json)?,
            html: open(&arguments.html)?,
            hdr: open(&arguments.hdr)?,
            metrics: arguments.metrics.map(metrics::bind).transpose()?,
            shows: !arguments.quiet,
        })
    }

    /// Begins to show a run.
    pub(crate) fn start(self, world: &Arc<World>) -> Result<Live, SimError> {
        let mut servers = JoinSet::new();
        if let Some(listener) = self.metrics {
            metrics::serve(listener, world.clone(), &mut servers)?;
        }
        let log = self.hdr.map(|file| HdrLog::begin(file, world));
        Ok(Live {
            recorder: Recorder::new(),
            screen: if self.shows {
                Screen::open(world)
            } else {
                Screen::Dark
            },
            hdr: log.transpose()?,
            json: self.json,
            html: self.html,
            unwritten: Vec::new(),
            _servers: servers,
        })
    }
}

impl Live {
    /// Shows what there is to show by now; called several times a second.
    pub(crate) fn tick(&mut self, world: &World) {
        let now = world.clock.now();
        let is_new = self.recorder.is_due(now);
        if is_new {
            self.sample(world, now);
        }
        let recorder = &self.recorder;
        match &mut self.screen {
            Screen::Lines if is_new => {
                let line = line::line(&View::new(world, recorder, now));
                // Nobody reads a closed standard error.
                let _ = writeln!(io::stderr(), "{line}");
            }
            #[cfg(feature = "tui")]
            Screen::Table { table, next_at } if now >= *next_at => {
                *next_at = now + REDRAW;
                table.draw(&View::new(world, recorder, now));
            }
            _ => {}
        }
    }

    /// The run is over: makes its report and writes the files; also returns why some are missing.
    pub(crate) fn finish(mut self, world: &World, took: Duration) -> (Report, Vec<SimError>) {
        self.sample(world, took);
        // The terminal is whole before anything can fail.
        self.screen = Screen::Dark;
        let report = Report::new(world, took, self.recorder.into_timeline());
        let mut written = Vec::new();
        if let Some(log) = self.hdr {
            written.push(log.finish(world));
        }
        if let Some(file) = self.json {
            let path = file.path().to_owned();
            written.push(write_json(file, &report).map_err(|source| failed(&path, source)));
        }
        if let Some(file) = self.html {
            let path = file.path().to_owned();
            let page = html::page(&report);
            written.push(write_all(file, page.as_bytes()).map_err(|source| failed(&path, source)));
        }
        let mut unwritten = self.unwritten;
        unwritten.extend(written.into_iter().filter_map(Result::err));
        (report, unwritten)
    }

    /// A log that cannot be written ends; the run does not.
    fn sample(&mut self, world: &World, now: Duration) {
        let intervals = self.recorder.record(world, now);
        if let Some(log) = &mut self.hdr
            && let Err(error) = log.write(world, now, &intervals)
        {
            self.unwritten.push(error);
            self.hdr = None;
        }
    }
}

impl Screen {
    /// The table needs a terminal for standard output too: that is where it asks for the cursor.
    #[cfg(feature = "tui")]
    fn open(world: &World) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let is_terminal = {
            use io::IsTerminal;
            io::stderr().is_terminal() && io::stdout().is_terminal()
        };
        if !is_terminal || is_dumb {
            return Self::Lines;
        }
        match table::Table::open(world.plan.cohorts.len()) {
            Ok(table) => Self::Table {
                table: Box::new(table),
                next_at: Duration::ZERO,
            },
            Err(_) => Self::Lines,
        }
    }

    #[cfg(not(feature = "tui"))]
    fn open(_: &World) -> Self {
        Self::Lines
    }
}

/// Opens a file that will be written at the end.
pub(crate) fn open_file(path: &Path) -> Result<OutputFile, SimError> {
    OutputFile::create(path).map_err(|source| failed(path, source))
}

/// The file at `path` could not be written.
pub(crate) fn failed(path: &Path, source: io::Error) -> SimError {
    SimError::Report {
        path: path.to_owned(),
        source,
    }
}

/// Writes a whole file of JSON.
pub(crate) fn write_json(mut file: OutputFile, report: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut file, report)?;
    write_all(file, b"\n")
}

fn write_all(mut file: OutputFile, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.commit()
}
