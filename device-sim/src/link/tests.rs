//! Each rule of the link on its own.

use super::*;

#[test]
fn a_lost_segment_costs_a_timeout_and_holds_up_the_next() {
    let lossy = Preset {
        loss: 1.0,
        wake_up: None,
        ..(*nb_iot()).clone()
    };
    let mut link = Link::new(Arc::new(lossy.clone()), 1, 0);
    let first = link.carry(Direction::Up, Duration::ZERO, 0);
    let timeout = lossy.retransmission_timeout(0);
    assert!(first > timeout * 7, "{first:?}");
    link.preset = Arc::new(Preset { loss: 0.0, ..lossy });
    assert_eq!(link.carry(Direction::Up, Duration::ZERO, 0), first);
}

#[test]
fn segments_are_lost_as_often_as_the_preset_says() {
    let mut link = Link::new(nb_iot(), 7, 0);
    let segments = 50_000;
    for second in 0..segments {
        link.carry(Direction::Down, Duration::from_secs(second), 0);
    }
    let lost = link.wire_bytes(Direction::Down) / 40 - segments;
    assert!((400..600).contains(&lost), "{lost}");
}

#[test]
fn an_idle_radio_wakes_up_first() {
    let mut link = Link::new(
        Arc::new(Preset {
            loss: 0.0,
            ..PRESETS[0].clone()
        }),
        1,
        0,
    );
    let first = link.carry(Direction::Up, Duration::ZERO, 0);
    assert!(first >= Duration::from_millis(1_500 + 220), "{first:?}");
    let awake = first + Duration::from_secs(5);
    let second = link.carry(Direction::Up, awake, 0);
    assert!(second - awake < Duration::from_millis(1_500));
    let asleep = second + Duration::from_secs(21);
    let third = link.carry(Direction::Up, asleep, 0);
    assert!(third - asleep >= Duration::from_millis(1_500 + 220));
}

#[test]
fn half_duplex_directions_wait_for_each_other() {
    let still = Preset {
        loss: 0.0,
        wake_up: None,
        round_trip_jitter: Duration::ZERO,
        ..(*nb_iot()).clone()
    };
    let full = Preset {
        duplex: Duplex::Full,
        ..still.clone()
    };
    let down_after_up = |preset| {
        let mut link = Link::new(Arc::new(preset), 1, 0);
        link.carry(Direction::Up, Duration::ZERO, 1_000);
        link.carry(Direction::Down, Duration::ZERO, 0)
    };
    let waited = down_after_up(still) - down_after_up(full);
    assert_near(
        waited,
        Duration::from_secs_f64(1_040.0 * 8.0 / 25_000.0),
        0.001,
    );
}

#[test]
fn bytes_come_out_in_order_and_never_early() {
    let mut link = Link::new(nb_iot(), 3, 9);
    let sent: Vec<u8> = (0..=255).cycle().take(9_000).collect();
    for (step, bytes) in sent.chunks(700).enumerate() {
        link.push(
            Direction::Down,
            Duration::from_millis(step as u64 * 10),
            bytes,
        );
    }
    let mut received = Vec::new();
    while let Some(at) = link.next_arrival(Direction::Down) {
        assert!(
            link.pop(Direction::Down, at - Duration::from_nanos(1))
                .is_none()
        );
        received.extend_from_slice(&link.pop(Direction::Down, at).unwrap());
    }
    assert_eq!(received, sent);
    assert_eq!(link.queued_bytes(Direction::Down), 0);
}

#[test]
fn one_seed_gives_one_link() {
    let times = |seed, index| {
        let mut link = Link::new(nb_iot(), seed, index);
        let carry = |second| link.carry(Direction::Up, Duration::from_secs(second), 100);
        (0..500).map(carry).collect::<Vec<_>>()
    };
    assert_eq!(times(42, 1), times(42, 1));
    assert_ne!(times(42, 1), times(42, 2));
    assert_ne!(times(42, 1), times(43, 1));
}

#[test]
fn the_ideal_link_delivers_at_once() {
    let mut link = Link::new(Preset::named("none").unwrap(), 1, 0);
    let now = Duration::from_secs(5);
    link.push(Direction::Up, now, &[1; 5_000]);
    assert_eq!(drain(&mut link, Direction::Up, 5_000), now);
}

#[test]
fn a_connection_that_was_idle_for_too_long_is_dead_both_ways_until_the_next() {
    let forgetful = Preset {
        nat_timeout: Some(Duration::from_secs(60)),
        wake_up: None,
        ..PRESETS[0].without_chance()
    };
    let mut link = Link::new(Arc::new(forgetful), 1, 0);
    assert!(!link.is_dead(Duration::from_secs(1_000)));
    let known_at = link.carry(Direction::Up, Duration::ZERO, 0);
    let in_time = known_at + Duration::from_secs(59);
    link.push(Direction::Up, in_time, &[1; 10]);
    let late = in_time + Duration::from_secs(61);
    assert!(link.pop(Direction::Up, late).is_some());
    let before = [Direction::Up, Direction::Down].map(|direction| link.wire_bytes(direction));
    assert!(link.is_dead(late));
    link.push(Direction::Up, late, &[2; 10]);
    link.push(Direction::Down, late, &[3; 10]);
    assert_eq!(link.next_arrival(Direction::Up), None);
    assert_eq!(link.next_arrival(Direction::Down), None);
    // The radio sends up in vain; what comes from above ends before it.
    let after = [Direction::Up, Direction::Down].map(|direction| link.wire_bytes(direction));
    assert_eq!([after[0] - before[0], after[1] - before[1]], [50, 0]);
    assert!(link.is_dead(late));
    link.clear();
    link.carry(Direction::Up, late, 0);
    assert!(!link.is_dead(late));
    link.push(Direction::Up, late, &[4; 10]);
    assert!(link.next_arrival(Direction::Up).is_some());
}

#[test]
fn what_is_sent_in_a_partition_arrives_with_the_first_retransmission_after_it() {
    let lte = Arc::new(Preset::named("lte-m").unwrap().without_chance());
    let mut link = Link::new(lte, 1, 0);
    let now = Duration::from_secs(100);
    link.push(Direction::Down, now, &[1; 100]);
    let until = now + Duration::from_millis(6_500);
    link.set_down(now, until);
    // Retransmissions 1, 3 and 7 s after the first try: the last finds the link up.
    let retried_at = now + Duration::from_secs(7);
    let half_a_round_trip = Duration::from_millis(50);
    assert_eq!(
        link.next_arrival(Direction::Down),
        Some(retried_at + half_a_round_trip)
    );
    link.push(Direction::Up, now, &[1; 335]);
    let on_air = Duration::from_millis(8);
    let expected = retried_at + on_air + half_a_round_trip;
    assert_eq!(link.next_arrival(Direction::Up), Some(expected));
    // Afterwards all is as before.
    let later = link.carry(Direction::Up, until + Duration::from_secs(60), 335);
    assert_eq!(
        later,
        until + Duration::from_secs(60) + on_air + half_a_round_trip
    );
    link.set_down(later, Duration::MAX);
    assert!(link.carry(Direction::Up, later, 0) > later + Duration::from_secs(300 * 86_400));
}

#[test]
fn outages_are_as_long_and_as_frequent_as_the_preset_says() {
    let outages = Outages {
        every: Duration::from_secs(600),
        lasts: (Duration::from_secs(5), Duration::from_secs(70)),
    };
    let mut hole = Hole::first(outages, rng(1, 2, Purpose::Outages));
    let mut uncovered = Duration::ZERO;
    for _ in 0..5_000 {
        let lasted = hole.until - hole.from;
        assert!((5..=70).contains(&lasted.as_secs()), "{lasted:?}");
        uncovered += lasted;
        hole.go_on(outages);
    }
    let share = uncovered.as_secs_f64() / hole.from.as_secs_f64();
    let in_theory = 37.5 / (600.0 + 37.5);
    assert!((share / in_theory - 1.0).abs() < 0.05, "{share}");
}

#[test]
fn what_is_sent_in_an_outage_arrives_with_the_first_retransmission_after_it_in_both_directions() {
    let certus = Preset::named("iridium-certus").unwrap();
    let still = Preset {
        outages: certus.outages,
        ..certus.without_chance()
    };
    for direction in [Direction::Up, Direction::Down] {
        let mut link = Link::new(Arc::new(still.clone()), 5, 3);
        let holes = link.holes.as_ref().unwrap();
        let holes = holes.each_ref().map(|hole| (hole.from, hole.until));
        assert_eq!(holes[0], holes[1]);
        let (from, until) = holes[0];
        let before = from - Duration::from_secs(1);
        let delay = Duration::from_millis(350) + still.time_on_air(direction, 40);
        assert_eq!(link.carry(direction, before, 0), before + delay);
        // Already on the air when the outage begins: lost with it.
        let sent_at = from - Duration::from_millis(1);
        let mut retried_at = sent_at;
        let mut timeout = Duration::from_secs(1);
        while retried_at < until {
            retried_at += timeout;
            timeout = (timeout * 2).min(Duration::from_secs(60));
        }
        assert_eq!(link.carry(direction, sent_at, 0), retried_at + delay);
        assert_eq!(link.wire_bytes(direction), 80);
    }
}

#[test]
fn a_duty_cycle_gives_back_what_was_used() {
    let one_percent = |window_s| DutyCycle {
        share: 0.01,
        window: Duration::from_secs(window_s),
    };
    let seconds = Duration::from_secs;
    // The whole hour's 36 s at once, then as much as flows back.
    let mut credits = Credits::default();
    let start = seconds(50);
    for _ in 0..18 {
        assert_eq!(credits.spend(one_percent(3_600), start, seconds(2)), start);
    }
    assert_eq!(
        credits.spend(one_percent(3_600), start, seconds(2)),
        start + seconds(200)
    );
    // A silent hour fills them.
    let later = seconds(50_000);
    for _ in 0..18 {
        assert_eq!(credits.spend(one_percent(3_600), later, seconds(2)), later);
    }
    // Without a window: 99 times the time on air of silence after each segment.
    let mut credits = Credits::default();
    assert_eq!(credits.spend(one_percent(0), start, seconds(2)), start);
    assert_eq!(
        credits.spend(one_percent(0), start, seconds(2)),
        start + seconds(2 + 99 * 2)
    );
}

#[test]
fn behind_a_gateway_only_what_is_sent_on_an_accepted_session_crosses_the_air() {
    let mut link = Link::new(
        Arc::new(Preset::named("lorawan-dr0").unwrap().without_chance()),
        1,
        0,
    );
    let now = Duration::from_secs(10);
    link.push(Direction::Up, now, &[0; 2_000]);
    assert_eq!(drain(&mut link, Direction::Up, 2_000), now);
    assert_eq!(link.wire_bytes(Direction::Up), 0);
    link.set_accepted();
    link.push(Direction::Up, now, &[0; 120]);
    // Three frames of 50, 50 and 20 bytes.
    let wire_bytes = 120 + 3 * 14;
    assert_eq!(link.wire_bytes(Direction::Up), wire_bytes);
    let expected = Duration::from_secs_f64(10.0 + wire_bytes as f64 * 8.0 / 250.0 + 0.5);
    assert_near(drain(&mut link, Direction::Up, 120), expected, 1e-6);
    link.clear();
    assert_eq!(link.carry(Direction::Up, now, 0), now);
}

#[test]
fn frames_and_compressed_headers_count_on_the_wire() {
    let lowpan = Preset::named("6lowpan").unwrap();
    // IPv6 header compressed to 20, TCP 20, 46 around: one frame.
    assert_eq!(lowpan.wire_bytes(0), 20 + 20 + 46);
    assert_eq!(lowpan.wire_bytes(41), 41 + 40 + 46);
    // A byte more makes two fragments.
    assert_eq!(lowpan.wire_bytes(42), 42 + 40 + 2 * 51);
    assert_eq!(lowpan.segment_bytes_max(), 1_220);
    assert_eq!(lowpan.wire_bytes(1_220), 1_260 + 18 * 51);
    let nb_iot = nb_iot();
    assert_eq!(nb_iot.transfer_wire_bytes(0), 0);
    assert_eq!(nb_iot.transfer_wire_bytes(1_318), 1_358);
    assert_eq!(nb_iot.transfer_wire_bytes(100_000), 100_000 + 76 * 40);
}

#[test]
fn every_preset_keeps_the_promises_of_its_type() {
    for preset in &PRESETS {
        assert!(preset.mtu_bytes > preset.header_bytes, "{}", preset.name);
        assert!((0.0..0.5).contains(&preset.loss), "{}", preset.name);
        assert!(
            preset.round_trip_jitter <= preset.round_trip,
            "{}",
            preset.name
        );
        assert!(preset.sources.len() > 20, "{}", preset.name);
        let same_name = PRESETS.iter().filter(|other| other.name == preset.name);
        assert_eq!(same_name.count(), 1);
    }
}

fn nb_iot() -> Arc<Preset> {
    Preset::named("nb-iot").unwrap()
}

/// Takes everything out and returns when the last byte arrived.
fn drain(link: &mut Link, direction: Direction, bytes: usize) -> Duration {
    let mut last = Duration::ZERO;
    let mut taken = 0;
    while let Some(at) = link.next_arrival(direction) {
        last = at;
        taken += link.pop(direction, at).unwrap().len();
    }
    assert_eq!(taken, bytes);
    last
}

fn assert_near(measured: Duration, expected: Duration, tolerance: f64) {
    let ratio = measured.as_secs_f64() / expected.as_secs_f64();
    assert!(
        (ratio - 1.0).abs() <= tolerance,
        "{measured:?}, expected {expected:?}"
    );
}
