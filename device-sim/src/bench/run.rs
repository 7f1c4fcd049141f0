//! The phases of a bench: connect, settle, warm up, measure, drain, leave.

use super::BenchError;
use super::engine::{Engine, Target, nanoseconds};
use super::flow::{Counts, Flow};
use super::packets;
use super::plan::{Plan, Shape};
use super::process::Process;
use super::report::{Cpu, Report, Window};
use super::socket::Down;
use crate::SimError;
use crate::clock::run_number;
use crate::endpoint::Transport;
use crate::open_files::allow_open_files;
use crate::tls::Tls;
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// How long a broker may take to let a client in, and to answer its subscription.
const CONNECT_TIMEOUT_NS: u64 = 15_000_000_000;
/// Some brokers put a subscription in force a little after its SUBACK.
const SETTLE_NS: u64 = 300_000_000;
/// How long to listen on for repetitions when everything has arrived.
const STRAGGLERS_NS: u64 = 100_000_000;
/// At least so often the run looks up from its sockets.
const LOOK_NS: u64 = 50_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// Open files that are not connections.
const OTHER_FILES: u64 = 64;

/// How often the user has interrupted: once ends the measurement, twice the drain.
#[derive(Clone, Debug, Default)]
pub struct Interrupts(Arc<AtomicU8>);

impl Interrupts {
    /// Counts one more.
    pub fn interrupt(&self) {
        let count = self.count().saturating_add(1);
        self.0.store(count, Ordering::Relaxed);
    }

    fn count(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs the plan, with a line a second on standard error. Blocks until it is over.
///
/// # Errors
/// The run could not take place; what went wrong during a run is in the report instead.
pub fn run(plan: &Plan, interrupts: &Interrupts) -> Result<Report, BenchError> {
    plan.check()?;
    raise_open_files(plan.connections())?;
    let broker = match plan.broker_pid {
        Some(pid) => Some(Process::with_id(pid).ok_or(BenchError::NoProcess(pid))?),
        None => None,
    };
    let tls = match plan.endpoint.transport {
        Transport::Tls => Some(Tls::load(&plan.tls_files, &plan.endpoint)?),
        _ => None,
    };
    let target = Target {
        address: address(plan)?,
        sources: plan.sources.clone(),
        tls,
    };
    let engine = Engine::new(plan.version, target).map_err(system("the poller"))?;
    let mut bench = Bench {
        flow: Flow::new(plan, run_number())?,
        began_ns: engine.clock.now(),
        line_ns: engine.clock.now(),
        line: Counts::default(),
        line_cpu: None,
        pinged: 0,
        pinged_ns: engine.clock.now(),
        own: Process::own(),
        engine,
        broker,
        interrupts,
        plan,
    };
    let report = bench.all_phases();
    bench.engine.leave();
    report
}

struct Bench<'plan> {
    plan: &'plan Plan,
    interrupts: &'plan Interrupts,
    engine: Engine,
    flow: Flow,
    broker: Option<Process>,
    own: Option<Process>,
    began_ns: u64,
    /// The last line on standard error, and what it was made from.
    line_ns: u64,
    line: Counts,
    line_cpu: Option<Cpu>,
    /// Connections that have been pinged in this round of pings, and when it began.
    pinged: usize,
    pinged_ns: u64,
}

impl Bench<'_> {
    fn all_phases(&mut self) -> Result<Report, BenchError> {
        let before = self.cpu();
        self.connect_all()?;
        let connected = self.cpu();
        let memory = self.broker.and_then(Process::memory_kib);
        let window = if self.plan.shape == Shape::Conn {
            self.hold()?
        } else {
            self.settle()?;
            self.flow.counts.lost_connections = 0;
            self.measure()?
        };
        self.drain()?;
        Ok(Report::new(
            self.plan,
            &self.flow,
            &window,
            &Window {
                from: before,
                to: connected,
                ..Window::default()
            },
            memory,
            self.broker.and_then(Process::memory_kib),
        ))
    }

    fn connect_all(&mut self) -> Result<(), BenchError> {
        let count = self.plan.count;
        match self.plan.shape {
            Shape::Conn => self.connect("conn", count, |_| (None, None)),
            Shape::RoundTrip => self.connect("pub", count, |index| (Some(index), Some(index))),
            Shape::Pub | Shape::Sub | Shape::FanIn | Shape::FanOut | Shape::Pairs => {
                let subscribers = self.plan.subscribers();
                self.connect("sub", subscribers, |index| (None, Some(index)))?;
                self.connect("pub", self.plan.publishers(), |index| (Some(index), None))
            }
        }
    }

    /// Begins `count` connections at the plan's rate, each at its time, and waits until they are of use.
    fn connect(
        &mut self,
        role: &str,
        count: u32,
        ends: impl Fn(u32) -> (Option<u32>, Option<u32>),
    ) -> Result<(), BenchError> {
        let start_ns = self.engine.clock.now();
        let interval_ns = 1e9 / self.plan.connects_per_s;
        let mut next = 0;
        let mut last_ns = start_ns;
        loop {
            let now_ns = self.engine.clock.now();
            let mut next_ns = now_ns + LOOK_NS;
            while next < count {
                let intended_ns = start_ns + (f64::from(next) * interval_ns) as u64;
                if intended_ns > now_ns {
                    next_ns = next_ns.min(intended_ns);
                    break;
                }
                let (publisher, subscriber) = ends(next);
                self.flow.expect(self.plan, publisher, subscriber)?;
                let client_id = self.plan.client_id(role, next);
                let username = self.plan.username(next);
                let connect = packets::connect(self.plan, &client_id, &username);
                let connect = connect.map_err(SimError::from)?;
                self.engine.open(connect, intended_ns, &mut self.flow);
                next += 1;
                last_ns = now_ns;
                if next % 64 == 0 {
                    next_ns = now_ns;
                    break;
                }
            }
            if next == count && self.is_connected()? {
                return Ok(());
            }
            if next == count && now_ns > last_ns + CONNECT_TIMEOUT_NS {
                return self.give_up();
            }
            if self.interrupts.count() > 0 {
                return Err(BenchError::Interrupted);
            }
            self.round(now_ns, next_ns)?;
        }
    }

    /// Whether all connections of the ramp so far are of use. Where a flow needs them all, one failure ends the run.
    fn is_connected(&self) -> Result<bool, BenchError> {
        let opened = u32::try_from(self.engine.sockets.len()).unwrap_or(u32::MAX);
        let counts = &self.flow.counts;
        if self.plan.shape == Shape::Conn {
            let failed: u32 = self.flow.failures.values().sum();
            return Ok(counts.accepted + failed >= opened + counts.lost_connections);
        }
        if let Some(why) = &self.flow.first_failure {
            return Err(self.not_connected(why.clone()));
        }
        let subscribers = self.plan.subscribers().min(opened);
        Ok(counts.up == opened && counts.subscribed == subscribers)
    }

    /// Time is up for what has not been answered.
    fn give_up(&mut self) -> Result<(), BenchError> {
        if self.plan.shape != Shape::Conn {
            return Err(self.not_connected(Down::Timeout));
        }
        for token in 0..self.engine.sockets.len() {
            if self.engine.sockets.get(token).state != super::socket::State::Up {
                self.engine.end(token, Down::Timeout, &mut self.flow);
            }
        }
        Ok(())
    }

    fn not_connected(&self, why: Down) -> BenchError {
        BenchError::Connection {
            made: self.flow.counts.up,
            wanted: self.plan.connections(),
            why,
        }
    }

    fn settle(&mut self) -> Result<(), BenchError> {
        let until_ns = self.engine.clock.now() + SETTLE_NS;
        while self.plan.copies() > 0 && self.engine.clock.now() < until_ns {
            self.idle()?;
        }
        match &self.flow.first_failure {
            Some(why) => Err(self.not_connected(why.clone())),
            None => Ok(()),
        }
    }

    /// Holds idle connections.
    fn hold(&mut self) -> Result<Window, BenchError> {
        let mut window = self.mark();
        let until_ns = window.from.at_ns + nanoseconds(self.plan.duration);
        while self.engine.clock.now() < until_ns
            && self.interrupts.count() == 0
            && !self.is_broken()
        {
            self.idle()?;
        }
        self.finish(&mut window);
        Ok(window)
    }

    /// Runs the flow: first without, then with measuring.
    fn measure(&mut self) -> Result<Window, BenchError> {
        let start_ns = self.engine.clock.now();
        let measured_ns = start_ns + nanoseconds(self.plan.warm_up);
        let end_ns = measured_ns + nanoseconds(self.plan.duration);
        self.flow.measured = measured_ns..end_ns;
        self.flow.start(&mut self.engine.sockets, start_ns);
        let mut whole = self.mark();
        let mut window = None;
        let mut stall_ns = start_ns + SECOND_NS;
        loop {
            let now_ns = self.engine.clock.now();
            if window.is_none() && now_ns >= measured_ns {
                window = Some(self.mark());
            }
            let is_over = now_ns >= end_ns || self.flow.is_at_limit() || self.is_broken();
            if is_over || self.interrupts.count() > 0 {
                let end_ns = end_ns.min(now_ns);
                self.flow.stop(&mut self.engine.sockets, now_ns, end_ns);
                break;
            }
            if now_ns >= stall_ns {
                stall_ns = now_ns + SECOND_NS;
                self.flow.open_stalled(&mut self.engine.sockets, now_ns);
            }
            let boundary_ns = if window.is_none() {
                measured_ns
            } else {
                end_ns
            };
            let next_ns = self.flow.release(&mut self.engine.sockets, now_ns);
            let next_ns = next_ns.min(boundary_ns).min(now_ns + LOOK_NS);
            self.round(now_ns, next_ns)?;
        }
        // A flow that ended in its warm-up is reported whole.
        let is_whole = window.is_none();
        let window = window.as_mut().unwrap_or(&mut whole);
        self.finish(window);
        let mut window = window.clone();
        window.is_whole = is_whole;
        self.flow.measured.end = self.flow.measured.end.min(window.to.at_ns + 1);
        Ok(window)
    }

    /// Whether nobody is left who could send or receive.
    fn is_broken(&self) -> bool {
        self.flow.counts.up == 0
    }

    /// Waits for what is on its way, and a moment longer for repetitions.
    fn drain(&mut self) -> Result<(), BenchError> {
        if self.plan.shape.publishes() {
            let begun_ns = self.engine.clock.now();
            let drain_ns = nanoseconds(self.plan.drain);
            while !self.flow.is_settled() && !self.is_broken() && self.interrupts.count() < 2 {
                let now_ns = self.engine.clock.now();
                if now_ns > begun_ns + drain_ns {
                    self.flow.give_up_unsent();
                }
                if now_ns > self.flow.last_arrival_ns.max(begun_ns) + drain_ns {
                    break;
                }
                self.idle()?;
            }
        }
        self.flow.give_up_unsent();
        let until_ns = self.engine.clock.now() + STRAGGLERS_NS;
        while self.plan.copies() > 0 && self.engine.clock.now() < until_ns {
            self.idle()?;
        }
        Ok(())
    }

    /// A round that waits for nothing in particular.
    fn idle(&mut self) -> Result<(), BenchError> {
        let now_ns = self.engine.clock.now();
        self.round(now_ns, now_ns + LOOK_NS)
    }

    /// One round of the engine, with what has to happen now and then.
    fn round(&mut self, now_ns: u64, deadline_ns: u64) -> Result<(), BenchError> {
        self.ping(now_ns);
        if now_ns >= self.line_ns + SECOND_NS {
            self.print_line(now_ns);
        }
        self.engine
            .round(now_ns, deadline_ns, &mut self.flow)
            .map_err(system("waiting for sockets"))
    }

    /// Pings every connection once in half a keep alive time, spread over that time.
    fn ping(&mut self, now_ns: u64) {
        let connections = self.engine.sockets.len();
        let turn_ns = u64::from(self.flow.keep_alive_s) * SECOND_NS / 2;
        if turn_ns == 0 || connections == 0 {
            return;
        }
        let passed_ns = (now_ns - self.pinged_ns).min(turn_ns);
        let wanted = (connections as u128 * u128::from(passed_ns) / u128::from(turn_ns)) as usize;
        while self.pinged < wanted {
            if self.engine.sockets.get(self.pinged).state == super::socket::State::Up {
                let out = self.engine.sockets.out(self.pinged);
                out.extend_from_slice(&packets::PINGREQ);
                self.flow.counts.pings += 1;
            }
            self.pinged += 1;
        }
        if passed_ns == turn_ns {
            (self.pinged, self.pinged_ns) = (0, now_ns);
        }
    }

    fn cpu(&self) -> Cpu {
        Cpu {
            at_ns: self.engine.clock.now(),
            broker: self.broker.and_then(Process::cpu),
            own: self.own.and_then(Process::cpu),
        }
    }

    fn mark(&self) -> Window {
        Window {
            from: self.cpu(),
            counts_from: self.flow.counts,
            ..Window::default()
        }
    }

    fn finish(&self, window: &mut Window) {
        window.to = self.cpu();
        window.counts_to = self.flow.counts;
    }

    fn print_line(&mut self, now_ns: u64) {
        let cpu = self.cpu();
        let seconds = (now_ns - self.line_ns) as f64 / 1e9;
        let (now, before) = (self.flow.counts, self.line);
        let rate = |now: u64, before: u64| (now - before) as f64 / seconds;
        let mut line = format!(
            "{:>4} s  {}  up {}/{}",
            (now_ns - self.began_ns) / SECOND_NS,
            self.plan.shape.name(),
            now.up,
            self.plan.connections()
        );
        if self.plan.publishers() > 0 {
            line += &format!(
                "   sent {} ({:.0}/s)",
                now.sent,
                rate(now.sent, before.sent)
            );
        }
        if self.plan.publishers() > 0 && self.plan.qos > 0 {
            let acknowledged = rate(now.acknowledged, before.acknowledged);
            line += &format!("   acknowledged {} ({acknowledged:.0}/s)", now.acknowledged);
        }
        if self.plan.subscribers() > 0 {
            let received = rate(now.received, before.received);
            line += &format!(
                "   received {} ({received:.0}/s)   duplicated {}   reordered {}",
                now.received, now.duplicated, now.reordered
            );
        }
        let failed: u32 = self.flow.failures.values().sum();
        if failed > 0 {
            line += &format!("   failures {failed}");
        }
        if let Some(share) = self.line_cpu.and_then(|before| before.broker_share(&cpu)) {
            line += &format!("   broker {:.0} % CPU", share * 100.0);
        }
        // Nobody reads a closed standard error.
        let _ = writeln!(io::stderr(), "{line}");
        self.line_ns = now_ns;
        self.line = now;
        self.line_cpu = Some(cpu);
    }
}

fn address(plan: &Plan) -> Result<SocketAddr, BenchError> {
    let unreachable = |source| SimError::Unreachable {
        endpoint: plan.endpoint.clone(),
        source,
    };
    let host = (plan.endpoint.host.as_str(), plan.endpoint.port);
    let mut addresses: Vec<SocketAddr> = host.to_socket_addrs().map_err(unreachable)?.collect();
    // A source address decides the family; without one, a broker on one family only is often on IPv4.
    if let Some(source) = plan.sources.first() {
        addresses.retain(|address| address.is_ipv6() == source.is_ipv6());
    }
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let none = || unreachable(io::Error::other("no address of the family of --ifaddr"));
    Ok(addresses.first().copied().ok_or_else(none)?)
}

/// Raises the limit of open files as far as the system allows; fails early where that is not enough.
fn raise_open_files(connections: u32) -> Result<(), BenchError> {
    let needed = u64::from(connections) + OTHER_FILES;
    let too_few = |limit| {
        BenchError::Setup(SimError::OpenFiles {
            devices: connections,
            needed,
            limit,
        })
    };
    allow_open_files(needed).map_err(too_few)
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> BenchError {
    move |source| BenchError::System { doing, source }
}
