//! The model against theory, for every preset: what is measured in virtual time against what follows from the
//! figures alone, computed here anew and not by the model's own functions.

use super::*;

const DIRECTIONS: [Direction; 2] = [Direction::Up, Direction::Down];
const TOLERANCE: f64 = 0.05;

#[test]
fn a_transfer_of_known_size_takes_its_theoretical_time_on_every_link() {
    for preset in links() {
        for direction in DIRECTIONS {
            let steady = steady(preset);
            let mut link = ready_link(&steady);
            // Long against the round trip, so that the rate is what counts.
            let bits_per_s = rate(preset, direction);
            let long_s = 100.0 * steady.round_trip.as_secs_f64();
            let payload_bytes = (bits_per_s * long_s / 8.0) as usize;
            link.push(direction, Duration::ZERO, &vec![0; payload_bytes]);
            let arrived_at = drain(&mut link, direction);
            let on_air_s = wire_bytes(preset, payload_bytes) * 8.0 / bits_per_s;
            let expected_s = on_air_s + preset.round_trip.as_secs_f64() / 2.0;
            check(preset, "transfer", arrived_at.as_secs_f64(), expected_s);
            let measured_bytes = link.wire_bytes(direction) as f64;
            check(
                preset,
                "wire bytes",
                measured_bytes,
                wire_bytes(preset, payload_bytes),
            );
        }
    }
}

#[test]
fn the_rate_between_two_moments_is_that_of_the_preset() {
    for preset in links() {
        for direction in DIRECTIONS {
            let steady = Preset {
                round_trip_jitter: Duration::ZERO,
                ..steady(preset)
            };
            let mut link = ready_link(&steady);
            let segment_bytes = preset.mtu_bytes - preset.header_bytes;
            link.push(direction, Duration::ZERO, &vec![0; 200 * segment_bytes]);
            let first = link.next_arrival(direction).unwrap();
            link.pop(direction, first).unwrap();
            let took = drain(&mut link, direction) - first;
            let bits = 199.0 * wire_bytes(preset, segment_bytes) * 8.0;
            check(
                preset,
                "rate",
                bits / took.as_secs_f64(),
                rate(preset, direction),
            );
        }
    }
}

#[test]
fn the_mean_round_trip_is_that_of_every_preset() {
    for preset in links() {
        let mut link = ready_link(&steady(preset));
        let exchanges = 4_000;
        let mut now = Duration::ZERO;
        let mut sum = Duration::ZERO;
        for _ in 0..exchanges {
            let there = link.carry(Direction::Up, now, 0);
            let back = link.carry(Direction::Down, there, 0);
            sum += back - now;
            now = back + Duration::from_secs(60);
        }
        let bits = wire_bytes_of_segment(preset, 0) * 8.0;
        let on_air_s = bits / rate(preset, Direction::Up) + bits / rate(preset, Direction::Down);
        let expected_s = preset.round_trip.as_secs_f64() + on_air_s;
        let measured_s = sum.as_secs_f64() / f64::from(exchanges);
        check(preset, "round trip", measured_s, expected_s);
    }
}

#[test]
fn losses_cost_what_they_should_on_every_link() {
    for preset in links().filter(|preset| preset.loss > 0.0) {
        let lossy = Preset {
            loss: preset.loss,
            ..steady(preset)
        };
        let mut link = ready_link(&lossy);
        let exchanges = 60_000;
        let mut now = Duration::ZERO;
        let mut sum = Duration::ZERO;
        for _ in 0..exchanges {
            let there = link.carry(Direction::Up, now, 20);
            sum += there - now;
            now = there + Duration::from_secs(60);
        }
        let bytes = wire_bytes_of_segment(preset, 20);
        let transmissions = 1.0 / (1.0 - preset.loss);
        let measured_bytes = link.wire_bytes(Direction::Up) as f64 / f64::from(exchanges);
        check(
            preset,
            "bytes with losses",
            measured_bytes,
            bytes * transmissions,
        );
        // RFC 6298: at least a second, the mean plus four mean deviations, doubled each time, at most 60 s.
        let mean_deviations = match preset.jitter_shape {
            JitterShape::Even => 0.5,
            JitterShape::LongTail => 0.75,
        };
        let round_trip_s = preset.round_trip.as_secs_f64();
        let jitter_s = preset.round_trip_jitter.as_secs_f64();
        let first_s = (round_trip_s + 4.0 * mean_deviations * jitter_s).max(1.0);
        let waiting_s: f64 = (0..8)
            .map(|retry| preset.loss.powi(retry + 1) * (first_s * 2_f64.powi(retry)).min(60.0))
            .sum();
        let on_air_s = bytes * 8.0 / rate(preset, Direction::Up) * transmissions;
        let expected_s = on_air_s + round_trip_s / 2.0 + waiting_s;
        let measured_s = sum.as_secs_f64() / f64::from(exchanges);
        check(preset, "time with losses", measured_s, expected_s);
    }
}

#[test]
fn in_the_long_run_a_device_sends_no_more_than_its_duty_cycle_allows() {
    for preset in links() {
        let Some(duty_cycle) = preset.duty_cycle else {
            continue;
        };
        let busy = Preset {
            duty_cycle: Some(duty_cycle),
            ..steady(preset)
        };
        let mut link = ready_link(&busy);
        let frames = 20_000;
        let mut last = Duration::ZERO;
        for _ in 0..frames {
            last = link.carry(Direction::Up, Duration::ZERO, 40);
        }
        let bytes = f64::from(frames) * wire_bytes_of_segment(preset, 40);
        let on_air_s = bytes * 8.0 / rate(preset, Direction::Up);
        // What may be sent at once at first comes on top.
        let expected_s = (on_air_s - 36.0) / 0.01;
        check(preset, "duty cycle", last.as_secs_f64(), expected_s);
    }
}

/// All that delay anything.
fn links() -> impl Iterator<Item = &'static Preset> {
    PRESETS.iter().filter(|preset| preset.name != "none")
}

/// Without what comes and goes; the jitter stays.
fn steady(preset: &Preset) -> Preset {
    Preset {
        loss: 0.0,
        outages: None,
        wake_up: None,
        nat_timeout: None,
        duty_cycle: None,
        ..preset.clone()
    }
}

/// One on which bytes cross the air.
fn ready_link(preset: &Preset) -> Link {
    let mut link = Link::new(Arc::new(preset.clone()), 1, 0);
    link.set_accepted();
    link
}

fn rate(preset: &Preset, direction: Direction) -> f64 {
    let bits_per_s = match direction {
        Direction::Up => preset.up_bits_per_s,
        Direction::Down => preset.down_bits_per_s,
    };
    f64::from(bits_per_s.unwrap())
}

/// Payload, and a header for each full or begun segment; frames as RFC 4944 and its like cut them.
fn wire_bytes(preset: &Preset, payload_bytes: usize) -> f64 {
    let segment_bytes = preset.mtu_bytes - preset.header_bytes;
    let mut left = payload_bytes;
    let mut sum = 0.0;
    while left > 0 {
        let payload = left.min(segment_bytes);
        sum += wire_bytes_of_segment(preset, payload);
        left -= payload;
    }
    sum
}

fn wire_bytes_of_segment(preset: &Preset, payload_bytes: usize) -> f64 {
    let mut left = payload_bytes + preset.header_bytes;
    let Some(frames) = preset.frames else {
        return left as f64;
    };
    left -= frames.compressed_bytes;
    if left <= frames.payload_bytes {
        return (left + frames.overhead_bytes) as f64;
    }
    let mut sum = 0;
    while left > 0 {
        let payload = left.min(frames.fragment_bytes);
        sum += payload + frames.overhead_bytes + frames.fragment_overhead_bytes;
        left -= payload;
    }
    sum as f64
}

/// Takes everything out and returns when the last byte arrived.
fn drain(link: &mut Link, direction: Direction) -> Duration {
    let mut last = Duration::ZERO;
    while let Some(at) = link.next_arrival(direction) {
        last = at;
        link.pop(direction, at).unwrap();
    }
    last
}

fn check(preset: &Preset, what: &str, measured: f64, expected: f64) {
    let ratio = measured / expected;
    assert!(
        (ratio - 1.0).abs() <= TOLERANCE,
        "{}: {what}: {measured}, expected {expected}",
        preset.name
    );
}
