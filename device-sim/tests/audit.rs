//! The audit against brokers that break their promises on purpose, and against one that does not.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[expect(dead_code, reason = "other tests of this folder use more of it")]
mod double;

use double::{Double, Fault, LATE};
use motemq_sim::diff::{Parsed, compare};
use motemq_sim::link::Preset;
use motemq_sim::output::{Output, OutputArguments};
use motemq_sim::plan::{ClientKind, Cohort, Commands, Plan, Reconnect};
use motemq_sim::profile::Profile;
use motemq_sim::report::{Counted, Verdict};
use motemq_sim::threshold::Threshold;
use motemq_sim::{Report, SimError, TlsFiles};
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

#[tokio::test]
async fn an_honest_broker_passes_at_every_qos_with_both_clients() {
    for (qos, client) in [
        (0, ClientKind::Simulated),
        (1, ClientKind::Simulated),
        (2, ClientKind::Simulated),
        (1, ClientKind::Rumqttc),
    ] {
        let report = run(qos, client, Fault::None).await;
        assert_eq!(report.outcome.violations, [""; 0], "QoS {qos} {client:?}");
        assert!(report.outcome.total.published > 20);
        assert_eq!(
            report.outcome.total.delivered,
            report.outcome.total.published
        );
        assert_eq!(report.measured.verifier.uncleaned, 0);
        let acknowledged = if qos == 0 {
            0
        } else {
            report.outcome.total.published
        };
        assert_eq!(report.outcome.total.acknowledged, acknowledged);
    }
}

#[tokio::test]
async fn a_broker_that_is_slow_to_answer_the_verifier_makes_no_device_late() {
    let report = run(1, ClientKind::Simulated, Fault::Late).await;
    let figures = &report.measured.total;
    assert!(figures.connect_seconds.max < LATE.as_secs_f64());
    assert!(figures.generator_lag_seconds.max < LATE.as_secs_f64());
    assert!(report.measured.took_s < 0.4 + 0.7 + LATE.as_secs_f64());
    // Not long enough for rates.
    assert_eq!(report.measured.steady_s, None);
    assert_eq!(report.figure("published_per_second"), None);
}

#[tokio::test]
async fn rates_are_those_of_the_steady_time() {
    let broker = Double::start(Fault::None);
    let mut cohort = cohort(1, ClientKind::Simulated);
    cohort.devices = 2;
    // The second device connects after a second.
    cohort.ramp.connects_per_s = 1.0;
    let mut plan = plan(broker.port(), cohort);
    plan.duration = Duration::from_millis(1_100);
    let report = motemq_sim::run(plan).await.unwrap();
    let steady_s = report.measured.steady_s.unwrap();
    assert!(steady_s >= 1.0 && steady_s < report.measured.took_s - 2.0);
    let rate = report.figure("published_per_second").unwrap();
    // What was published while the devices connected does not count.
    assert!(rate * steady_s < report.outcome.total.published as f64 - 50.0);
    assert!(rate * steady_s > 110.0);
}

#[tokio::test]
async fn a_broker_that_drops_acknowledged_messages_is_caught() {
    for qos in [1, 2] {
        let report = run(qos, ClientKind::Simulated, Fault::Drop).await;
        assert!(report.outcome.total.lost > 0);
        assert_eq!(
            report.outcome.total.lost,
            report.outcome.total.acknowledged - report.outcome.total.delivered
        );
        let lost = report.outcome.total.lost;
        let offender = "the first device 000000 message 4";
        assert_eq!(
            report.outcome.violations,
            [format!("{lost} acknowledged but not delivered, {offender}")]
        );
    }
    // QoS 0 promises nothing.
    let report = run(0, ClientKind::Simulated, Fault::Drop).await;
    assert!(report.outcome.total.unfinished > 0);
    assert_eq!(
        report.outcome.total.unfinished,
        report.outcome.total.published - report.outcome.total.delivered
    );
    assert_eq!(report.outcome.violations, [""; 0]);
}

#[tokio::test]
async fn a_broker_that_delivers_twice_is_caught_but_at_qos_1_where_it_may() {
    for qos in 0..=2 {
        let report = run(qos, ClientKind::Simulated, Fault::Double).await;
        assert!(report.duplicated() > 0);
        assert_eq!(
            (report.outcome.total.lost, report.outcome.total.unfinished),
            (0, 0)
        );
        let twice = format!("{} delivered twice at QoS {qos}", report.duplicated());
        let offender = "first offender: device 000000 message 4 duplicated".to_owned();
        let expected = match qos {
            1 => vec![],
            _ => vec![twice, offender],
        };
        assert_eq!(report.outcome.violations, expected, "QoS {qos}");
    }
}

#[tokio::test]
async fn a_broker_that_reorders_is_caught() {
    for qos in 0..=2 {
        let report = run(qos, ClientKind::Simulated, Fault::Delay).await;
        assert!(report.outcome.total.reordered > 0);
        assert_eq!(report.duplicated(), 0);
        assert!(
            report.outcome.violations.iter().any(|violation| {
                violation == "first offender: device 000000 message 4 reordered"
            })
        );
    }
}

#[tokio::test]
async fn a_broker_that_alters_messages_is_caught_whatever_it_alters() {
    for (fault, client, what) in [
        (Fault::Corrupt, ClientKind::Simulated, "payload altered"),
        (Fault::Topic, ClientKind::Simulated, "topic altered"),
        (Fault::Downgrade, ClientKind::Simulated, "QoS 0 instead of"),
        (Fault::Retain, ClientKind::Simulated, "retain flag set"),
        (Fault::Corrupt, ClientKind::Rumqttc, "payload altered"),
    ] {
        // What came at QoS 0 cannot come lower.
        let lowest = u8::from(fault == Fault::Downgrade);
        for qos in lowest..=2 {
            let report = run(qos, client, fault).await;
            let total = report.outcome.total;
            assert!(total.altered > 0, "{fault:?} at QoS {qos}");
            assert_eq!((total.lost, total.reordered, total.foreign), (0, 0, 0));
            let altered = total.altered;
            let first = format!("the first device 000000 message 4: {what}");
            let expected = format!("{altered} delivered altered, {first}");
            let violations = &report.outcome.violations;
            assert!(violations[0].starts_with(&expected), "{violations:?}");
            assert_eq!(violations.len(), 1);
            assert_eq!(report.figure("altered"), Some(altered as f64));
            assert_eq!(report.verdict(), Verdict::Broken);
        }
    }
}

#[tokio::test]
async fn what_is_altered_beyond_recognition_is_caught_at_qos_0_too() {
    let report = run(0, ClientKind::Simulated, Fault::Garble).await;
    let total = report.outcome.total;
    assert!(total.altered > 0 && total.foreign == 0);
    let violation = &report.outcome.violations[0];
    assert!(
        violation.contains("altered beyond recognition"),
        "{violation}"
    );
}

#[tokio::test]
async fn a_broker_that_alters_commands_is_caught() {
    for fault in [Fault::Topic, Fault::Downgrade, Fault::Retain] {
        let (report, commands) = run_commands(1, fault).await;
        assert!(commands.altered > 0, "{fault:?}");
        assert_eq!((commands.lost, report.outcome.total.altered), (0, 0));
        let expected = format!("commands: {} delivered altered", commands.altered);
        let violation = &report.outcome.violations[0];
        assert!(violation.starts_with(&expected), "{violation}");
    }
}

#[tokio::test]
async fn commands_arrive_and_are_answered_at_every_qos() {
    for qos in 0..=2 {
        let (report, commands) = run_commands(qos, Fault::None).await;
        assert_eq!(report.outcome.violations, [""; 0], "QoS {qos}");
        assert!(commands.published > 10);
        assert_eq!(commands.delivered, commands.published);
        assert_eq!((commands.foreign, report.outcome.total.foreign), (0, 0));
        let acknowledged = if qos == 0 { 0 } else { commands.published };
        assert_eq!(commands.acknowledged, acknowledged);
        // Each is answered with a reading besides those on schedule.
        let (silent, _) = run_commands(3, Fault::None).await;
        assert_eq!(
            report.outcome.total.published,
            silent.outcome.total.published + commands.published
        );
        assert_eq!(
            report.outcome.total.delivered,
            report.outcome.total.published
        );
        assert_eq!(report.measured.verifier.uncleaned, 0);
    }
}

#[tokio::test]
async fn a_broker_that_drops_doubles_or_reorders_commands_is_caught() {
    for qos in [1, 2] {
        let (report, commands) = run_commands(qos, Fault::Drop).await;
        assert_eq!(commands.lost, commands.acknowledged - commands.delivered);
        let lost = commands.lost;
        let offender = "the first device 000000 message 4";
        let expected = format!("commands: {lost} acknowledged but not delivered, {offender}");
        assert_eq!(report.outcome.violations, [expected]);
    }
    let (report, commands) = run_commands(2, Fault::Double).await;
    assert!(commands.duplicated > 0 && commands.lost == 0);
    let offender = "commands: first offender: device 000000 message 4 duplicated";
    assert_eq!(report.outcome.violations[1], offender);
    let (report, commands) = run_commands(1, Fault::Delay).await;
    assert!(commands.reordered > 0);
    assert_eq!(
        (report.outcome.total.lost, report.outcome.total.reordered),
        (0, 0)
    );
    assert!(!report.outcome.violations.is_empty());
}

#[tokio::test]
async fn a_broker_that_acknowledges_nothing_breaks_no_promise_and_proves_nothing() {
    let report = run(1, ClientKind::Simulated, Fault::Withhold).await;
    assert_eq!(report.outcome.violations, [""; 0]);
    assert!(report.outcome.total.delivered > 0);
    assert_eq!(report.verdict(), Verdict::Unproven);
    let doubt = &report.measured.doubts[0];
    assert!(
        doubt.contains("neither acknowledged nor refused"),
        "{doubt}"
    );
}

#[tokio::test]
async fn an_honest_run_is_proof_and_one_without_readings_is_not() {
    let broker = Double::start(Fault::None);
    let honest = plan(broker.port(), cohort(1, ClientKind::Simulated));
    let report = motemq_sim::run(honest.clone()).await.unwrap();
    let mut doubts = report.measured.doubts.iter();
    // A machine may be busy with other things.
    assert!(doubts.all(|doubt| doubt.starts_with("INVALID")));
    let is_doubted = !report.measured.doubts.is_empty();
    assert_eq!(report.verdict() == Verdict::Unproven, is_doubted);
    let empty = Plan {
        duration: Duration::ZERO,
        ..honest
    };
    let report = motemq_sim::run(empty).await.unwrap();
    assert_eq!(report.verdict(), Verdict::Unproven);
}

#[tokio::test]
async fn one_seed_gives_one_plan_and_one_outcome() {
    for qos in 0..=2 {
        let (first, second) = tokio::join!(
            run(qos, ClientKind::Simulated, Fault::None),
            run(qos, ClientKind::Simulated, Fault::None),
        );
        assert_ne!(first.measured.run, second.measured.run);
        assert_eq!(first.plan, second.plan);
        assert_eq!(first.outcome, second.outcome);
        let bytes = |report: &Report| report.measured.total.up_bytes;
        assert_eq!(bytes(&first), bytes(&second));
    }
}

#[tokio::test]
async fn another_seed_gives_another_outcome() {
    let broker = Double::start(Fault::None);
    let mut plan = plan(broker.port(), cohort(1, ClientKind::Simulated));
    plan.seed = 43;
    let other = motemq_sim::run(plan).await.unwrap();
    let first = run(1, ClientKind::Simulated, Fault::None).await;
    assert_ne!(first.plan, other.plan);
    assert_ne!(
        first.outcome.published_digest,
        other.outcome.published_digest
    );
}

#[tokio::test]
async fn what_a_run_showed_remains_in_files() {
    let broker = Double::start(Fault::None);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| Some(folder.path().join(name));
    let arguments = OutputArguments {
        json: path("run.json"),
        html: path("run.html"),
        hdr: path("run.hlog"),
        metrics: Some("127.0.0.1:0".parse().unwrap()),
        quiet: true,
    };
    let output = Output::open(&arguments).unwrap();
    let mut plan = plan(broker.port(), cohort(1, ClientKind::Simulated));
    plan.duration = Duration::from_millis(1_200);
    let finished = motemq_sim::run_with(plan, output).await.unwrap();
    assert!(finished.unwritten.is_empty());
    let report = finished.report;
    let read = |path: &Option<PathBuf>| std::fs::read(path.as_ref().unwrap()).unwrap();
    let json = Parsed::read(&read(&arguments.json)).unwrap();
    let report = Parsed::read(&serde_json::to_vec(&report).unwrap()).unwrap();
    let comparison = compare(&json, &report);
    assert!(comparison.equal, "{comparison}");
    assert!(read(&arguments.html).ends_with(b"</html>\n"));
    let log = String::from_utf8(read(&arguments.hdr)).unwrap();
    // An interval that began with the run, and one after it.
    assert!(log.matches("Tag=meters.delivery,").count() >= 2, "{log}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[tokio::test]
async fn a_run_that_cannot_take_place_leaves_the_old_report_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    std::fs::write(&path, "old").unwrap();
    let arguments = OutputArguments {
        json: Some(path.clone()),
        quiet: true,
        ..OutputArguments::default()
    };
    let output = Output::open(&arguments).unwrap();
    let plan = plan(1, cohort(1, ClientKind::Simulated));
    assert!(motemq_sim::run_with(plan, output).await.is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_threshold_that_names_no_figure_is_an_error_before_the_run() {
    let mut plan = plan(1, cohort(1, ClientKind::Simulated));
    plan.thresholds.push(Threshold {
        figure: "losst".to_owned(),
        demand: "== 0".parse().unwrap(),
    });
    let error = motemq_sim::run(plan).await.unwrap_err();
    assert!(
        error.to_string().contains("did you mean \"lost\"?"),
        "{error}"
    );
}

#[tokio::test]
async fn names_that_would_mix_up_cohorts_are_errors_before_the_run() {
    for (names, advice) in [
        (["a", "a"], "give each a name of its own"),
        (["a", ""], "give it one of 1 to 100 bytes"),
        (["a", "b/c"], "take '/' out of the name"),
        (["a", "b+"], "take '+' out"),
        (["a", "#"], "take '#' out"),
        (["a", "{run}"], "take '{' out"),
        (["a", "b\n"], "take '\\n' out"),
    ] {
        let mut plan = plan(1, cohort(1, ClientKind::Simulated));
        plan.cohorts.push(plan.cohorts[0].clone());
        for (cohort, name) in plan.cohorts.iter_mut().zip(names) {
            cohort.name = name.to_owned();
        }
        let error = plan.check().unwrap_err().to_string();
        assert!(error.contains(advice), "{error}");
    }
}

#[tokio::test]
async fn a_missing_broker_is_explained() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = motemq_sim::run(plan(port, cohort(1, ClientKind::Simulated))).await;
    let error = error.unwrap_err();
    assert!(matches!(error, SimError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("is the broker running?"));
}

async fn run(qos: u8, client: ClientKind, fault: Fault) -> Report {
    let broker = Double::start(fault);
    let plan = plan(broker.port(), cohort(qos, client));
    motemq_sim::run(plan).await.unwrap()
}

/// A smart plug with commands of this QoS, which the fault befalls; 3 is no commands.
async fn run_commands(qos: u8, fault: Fault) -> (Report, Counted) {
    let broker = Double::start_at(fault, "/cmd");
    let mut cohort = cohort(1, ClientKind::Simulated);
    cohort.profile = Profile::named("smart-plug").unwrap();
    if qos < 3 {
        cohort.take_commands(Commands::new(Duration::from_millis(20), qos));
    }
    let report = motemq_sim::run(plan(broker.port(), cohort)).await.unwrap();
    let commands = report.outcome.commands;
    (report, commands.unwrap_or_default())
}

fn cohort(qos: u8, client: ClientKind) -> Cohort {
    let mut cohort = Cohort::new(
        "meters",
        0,
        1,
        Profile::named("power-meter").unwrap(),
        Preset::named("none").unwrap(),
        qos,
        Duration::from_millis(10),
    );
    cohort.client = client;
    cohort.ramp.connects_per_s = 1_000.0;
    cohort.reconnect = Reconnect::Fixed(Duration::from_millis(50));
    cohort
}

fn plan(port: u16, cohort: Cohort) -> Plan {
    Plan {
        run: Plan::new_run_name(),
        name: "audit".to_owned(),
        digest: String::new(),
        endpoint: format!("mqtt://127.0.0.1:{port}").parse().unwrap(),
        tls_files: TlsFiles::default(),
        login: None,
        source_addresses: Vec::new(),
        cohorts: vec![cohort],
        phases: Vec::new(),
        thresholds: Vec::new(),
        duration: Duration::from_millis(400),
        drain_max: Duration::from_millis(700),
        seed: 42,
    }
}
