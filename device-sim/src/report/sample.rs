//! A world in which something has happened, for tests.

use super::{Report, Sample, Timeline};
use crate::connects::Handshake;
use crate::imprint::{Arrival, Imprint};
use crate::label::Label;
use crate::ledger::Digest;
use crate::link::Preset;
use crate::plan::{Cohort, Event, Phase, Plan};
use crate::profile::Profile;
use crate::steady::Mark;
use crate::threshold::Threshold;
use crate::world::World;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A name that would break every format it gets into unescaped.
pub(crate) const HOSTILE: &str = "a\"<b>&\\\n'</script>";

/// What [`world`] showed.
pub(crate) fn report() -> Report {
    report_of(&world("trackers"))
}

pub(crate) fn report_of(world: &World) -> Report {
    let mut timeline = Timeline::default();
    for second in 1..=30_u32 {
        timeline.push(Sample {
            at_s: second.into(),
            up: second.into(),
            published: 40,
            acknowledged: 40,
            delivered: 38,
            up_bytes: 12_000,
            down_bytes: 4_000,
            ack_p50_s: Some(0.9),
            ack_p99_s: (second > 5).then_some(2.5),
            ..Sample::default()
        });
    }
    Report::new(world, Duration::from_secs(30), timeline)
}

/// 20 meters and 10 devices of the cohort `second`; two messages were lost, one threshold missed.
pub(crate) fn world(second: &str) -> World {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let world = runtime.block_on(World::new(plan(second))).unwrap();
    world.steady.begin(|| Mark::new(&world, Duration::ZERO));
    for (place, troop) in world.troops.iter().enumerate() {
        let mut ledger = troop.ledger();
        for sequence in 0..50 {
            let label = Label {
                device: troop.cohort.first + sequence % troop.cohort.devices,
                sequence: sequence / troop.cohort.devices,
                intended_at: Duration::from_secs(sequence.into()),
            };
            let late = Duration::from_millis(u64::from(sequence) * 17);
            ledger.record_published(Digest::of(&label, b"payload"), Duration::from_micros(80));
            ledger.record_sent(&label, Imprint::default());
            let arrival = Arrival {
                qos: troop.cohort.qos,
                granted: 2,
                ..Arrival::default()
            };
            ledger.record_acknowledged(&label, label.intended_at + late * 2);
            if place > 0 || sequence % 25 != 13 {
                ledger.record_delivered(Some(&label), &arrival, label.intended_at + late);
            }
            if place == 0 && sequence < 3 {
                ledger.record_delivered(Some(&label), &arrival, label.intended_at + late);
            }
        }
        for device in 0..troop.cohort.devices {
            let took = Duration::from_millis(u64::from(device) * 40 + 5);
            troop
                .connects()
                .record(Handshake::Full, took, (3_000, 4_000));
            troop.connects().record_first(took);
            troop.connects().record_return(took * 3);
            troop.tally.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        troop
            .tally
            .up
            .fetch_add(troop.cohort.devices, Ordering::Relaxed);
        troop.tally.tls_full.fetch_add(20, Ordering::Relaxed);
        troop.tally.tls_resumed.fetch_add(10, Ordering::Relaxed);
        troop.tally.record_bytes([0, 0], [40_000, 9_000]);
    }
    let steady_until = Duration::from_secs(20);
    world.steady.end(|| Mark::new(&world, steady_until));
    world
}

fn plan(second: &str) -> Plan {
    let cohort = |name: &str, first, devices, link, qos| {
        let profile = Profile::named("power-meter").unwrap();
        let preset = Preset::named(link).unwrap();
        let every = Duration::from_secs(10);
        Cohort::new(name, first, devices, profile, preset, qos, every)
    };
    let threshold = |figure: &str, demand: &str| Threshold {
        figure: figure.to_owned(),
        demand: demand.parse().unwrap(),
    };
    Plan {
        run: "0123abcd".to_owned(),
        name: HOSTILE.to_owned(),
        digest: "9f3c0123456789ab".to_owned(),
        endpoint: "mqtt://127.0.0.1:1883".parse().unwrap(),
        tls_files: crate::TlsFiles::default(),
        login: None,
        source_addresses: Vec::new(),
        cohorts: vec![
            cohort("meters", 0, 20, "nb-iot", 1),
            cohort(second, 20, 10, "lte-m", 2),
        ],
        phases: vec![Phase {
            at: Duration::from_secs(10),
            cohort: Some("meters".to_owned()),
            share: 0.3,
            event: Event::Kill(None),
        }],
        thresholds: vec![
            threshold("lost", "== 0"),
            threshold("publish_ack_seconds.p99", "< 5s"),
        ],
        duration: Duration::from_secs(20),
        drain_max: Duration::from_secs(5),
        seed: 42,
    }
}
