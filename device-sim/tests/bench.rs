//! Every bench against a broker of the test's own, honest or not.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[expect(dead_code, reason = "other tests of this folder use more of it")]
mod double;

use double::{Double, Fault};
use motemq_sim::TlsFiles;
use motemq_sim::bench::{self, BenchError, Interrupts, Pace, Plan, Report, Shape};
use motemq_sim::wire::Version;
use std::time::Duration;

const FLOWS: [Shape; 4] = [Shape::FanIn, Shape::FanOut, Shape::RoundTrip, Shape::Pairs];

#[test]
fn an_honest_broker_loses_nothing_in_any_flow_at_any_qos() {
    for shape in FLOWS {
        for qos in 0..=2 {
            let report = run(Fault::None, |plan| (plan.shape, plan.qos) = (shape, qos));
            let outcome = &report.outcome;
            let copies = if shape == Shape::FanOut { 5 } else { 1 };
            assert_eq!(outcome.sent, 400, "{shape:?} QoS {qos}");
            assert_eq!(outcome.expected, 400 * copies);
            assert_eq!((outcome.received, outcome.lost), (400 * copies, 0));
            assert_eq!(
                (outcome.duplicated, outcome.reordered, outcome.foreign),
                (0, 0, 0)
            );
            assert_eq!(outcome.acknowledged, if qos == 0 { 0 } else { 400 });
            assert_eq!(outcome.violations, [""; 0]);
            assert_eq!(report.failure(), None);
        }
    }
}

#[test]
fn an_open_model_sends_on_schedule_and_measures_from_it() {
    let report = run(Fault::None, |plan| {
        plan.pace = Pace::Every(Duration::from_millis(10));
        (plan.limit, plan.batch) = (0, 1);
        plan.duration = Duration::from_millis(500);
    });
    // Five publishers, 100/s each, for half a second, the first message at once.
    assert_eq!(report.measured.model, "open");
    assert_eq!((report.outcome.sent, report.outcome.unsent), (250, 0));
    assert_eq!(report.outcome.lost, 0);
    assert_eq!(report.measured.latency.count, 250);
    assert_eq!(report.measured.generator.lag.count, 250);
}

#[test]
fn what_a_full_window_held_back_is_sent_late_and_measured_from_when_it_was_due() {
    let report = run(Fault::None, |plan| {
        // The window is one message, and each costs the double at least a switch of threads.
        plan.pace = Pace::Every(Duration::from_micros(1));
        (plan.count, plan.limit, plan.batch, plan.inflight) = (1, 2_000, 1, 1);
    });
    assert_eq!((report.outcome.sent, report.outcome.unsent), (2_000, 0));
    assert!(report.outcome.held > 0);
    assert!(report.measured.ack_latency.max_us > report.measured.ack_latency.min_us);
    assert_eq!(report.measured.ack_latency.count, 2_000);
}

#[test]
fn messages_that_get_lost_are_counted_and_condemned_when_they_were_acknowledged() {
    for (shape, qos) in [
        (Shape::FanIn, 0),
        (Shape::FanIn, 1),
        (Shape::FanOut, 1),
        (Shape::Pairs, 2),
    ] {
        let report = run(Fault::Drop, |plan| {
            (plan.shape, plan.qos) = (shape, qos);
            plan.drain = Duration::from_millis(300);
        });
        let outcome = &report.outcome;
        assert!(outcome.lost > 0, "{shape:?} QoS {qos}");
        assert_eq!(outcome.lost, outcome.expected - outcome.received);
        assert_eq!(
            outcome.lost_acknowledged,
            if qos == 0 { 0 } else { outcome.lost }
        );
        assert_eq!(outcome.violations.is_empty(), qos == 0);
    }
}

#[test]
fn messages_that_come_twice_are_counted_and_allowed_at_qos_1_only() {
    for qos in 0..=2 {
        let report = run(Fault::Double, |plan| plan.qos = qos);
        assert_eq!(report.outcome.lost, 0);
        assert!(report.outcome.duplicated > 0);
        assert_eq!(report.outcome.violations.is_empty(), qos == 1, "QoS {qos}");
    }
}

#[test]
fn messages_in_the_wrong_order_are_a_violation() {
    let report = run(Fault::Delay, |plan| plan.shape = Shape::Pairs);
    assert_eq!((report.outcome.lost, report.outcome.duplicated), (0, 0));
    assert!(report.outcome.reordered > 0);
    assert_eq!(report.outcome.violations.len(), 1);
}

#[test]
fn idle_connections_are_held_and_counted() {
    let report = run(Fault::None, |plan| {
        (plan.shape, plan.count, plan.limit) = (Shape::Conn, 50, 0);
        (plan.duration, plan.keep_alive_s) = (Duration::from_millis(1_100), 1);
    });
    assert_eq!(report.outcome.connected, 50);
    assert_eq!(report.measured.connect_latency.count, 50);
    // Every one is pinged twice in a keep alive time, so at least once here.
    assert!(report.outcome.pings >= 50, "{}", report.outcome.pings);
    assert_eq!(report.failure(), None);
}

#[test]
fn refused_connections_are_counted_with_the_reason() {
    let report = run(Fault::Refuse, |plan| plan.shape = Shape::Conn);
    assert_eq!(
        (report.outcome.connected, report.outcome.connections_failed),
        (0, 5)
    );
    let (reason, count) = report.outcome.failures.first_key_value().unwrap();
    assert!(reason.contains("-u and -P") && *count == 5, "{reason}");
    assert!(report.failure().is_some());
}

#[test]
fn a_flow_does_not_begin_with_some_of_its_connections() {
    let error = try_run(Fault::Refuse, |_| {}).unwrap_err();
    assert!(matches!(error, BenchError::Connection { .. }), "{error}");
    assert!(error.to_string().contains("-u and -P"), "{error}");
}

#[test]
fn publishers_alone_are_measured_by_their_acknowledgements() {
    let report = run(Fault::None, |plan| {
        (plan.shape, plan.size, plan.qos) = (Shape::Pub, 3, 1);
    });
    assert_eq!(
        (report.outcome.sent, report.outcome.acknowledged),
        (400, 400)
    );
    assert_eq!(report.measured.ack_latency.count, 400);
    assert_eq!((report.outcome.expected, report.outcome.received), (0, 0));
}

#[test]
fn a_subscriber_follows_the_publishers_of_another_run() {
    let double = Double::start(Fault::Drop);
    let mut hears = plan(double.port());
    (hears.shape, hears.count, hears.limit) = (Shape::Sub, 1, 0);
    hears.topic = "bench/#".to_owned();
    hears.duration = Duration::from_secs(60);
    let interrupts = Interrupts::default();
    let stop = interrupts.clone();
    let heard = std::thread::spawn(move || bench::run(&hears, &stop).unwrap());
    double.wait_for_a_subscriber();
    let mut speaks = plan(double.port());
    (speaks.shape, speaks.qos) = (Shape::Pub, 1);
    let spoken = bench::run(&speaks, &Interrupts::default()).unwrap();
    interrupts.interrupt();
    let heard = heard.join().unwrap();
    assert_eq!(spoken.outcome.sent, 400);
    assert_eq!(heard.outcome.streams, 5);
    assert!(heard.outcome.lost > 0);
    // What is missing behind a publisher's last delivery nobody can know here.
    assert!(
        (395..=400).contains(&heard.outcome.expected),
        "{}",
        heard.outcome.expected
    );
    assert_eq!(
        heard.outcome.expected,
        heard.outcome.received + heard.outcome.lost
    );
}

#[test]
fn a_missing_broker_is_explained() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = bench::run(&plan(port), &Interrupts::default()).unwrap_err();
    assert!(
        error.to_string().contains("is the broker running?"),
        "{error}"
    );
}

fn run(fault: Fault, change: impl FnOnce(&mut Plan)) -> Report {
    try_run(fault, change).unwrap()
}

fn try_run(fault: Fault, change: impl FnOnce(&mut Plan)) -> Result<Report, BenchError> {
    let double = Double::start(fault);
    let mut plan = plan(double.port());
    change(&mut plan);
    bench::run(&plan, &Interrupts::default())
}

/// Five publishers that send 400 messages in all, as fast as they can.
fn plan(port: u16) -> Plan {
    Plan {
        shape: Shape::FanIn,
        endpoint: format!("mqtt://127.0.0.1:{port}").parse().unwrap(),
        tls_files: TlsFiles::default(),
        sources: Vec::new(),
        version: Version::V4,
        prefix: bench::new_prefix(),
        start_number: 0,
        count: 5,
        username: None,
        password: String::new(),
        keep_alive_s: 60,
        clean: true,
        session_expiry_s: None,
        connects_per_s: 10_000.0,
        topic: "bench/%i".to_owned(),
        qos: 1,
        retain: false,
        size: 32,
        pace: Pace::Unpaced,
        inflight: 8,
        batch: 4,
        limit: 400,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(60),
        drain: Duration::from_secs(20),
        broker_pid: None,
    }
}
