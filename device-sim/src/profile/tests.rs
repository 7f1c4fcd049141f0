use super::*;
use std::collections::HashSet;

const DAY: u32 = 24;

#[test]
fn one_seed_gives_one_series() {
    for profile in Profile::presets() {
        let series = |seed, index| messages(&profile, seed, index, 200);
        let first = series(42, 5);
        assert_eq!(first, series(42, 5), "{}", profile.name);
        assert_ne!(first, series(42, 6), "{}", profile.name);
        assert_ne!(first, series(43, 5), "{}", profile.name);
    }
}

#[test]
fn presets_have_names_of_their_own_and_sensible_figures() {
    let presets = Profile::presets();
    let names: HashSet<&str> = presets.iter().map(|profile| &*profile.name).collect();
    assert_eq!(names.len(), presets.len());
    for profile in &presets {
        assert_eq!(*Profile::named(&profile.name).unwrap(), *profile);
        assert!(profile.qos <= 2 && !profile.what.is_empty());
        assert!((0.0..1.0).contains(&profile.jitter));
        assert!(profile.every <= profile.natural_every);
        assert!(
            profile.every <= Duration::from_secs(30),
            "shows nothing in a short run"
        );
    }
    assert_eq!(Profile::named("toaster"), None);
}

#[test]
fn a_sensor_is_small() {
    assert!(size_of::<Sensor>() <= 96, "{}", size_of::<Sensor>());
    assert!(size_of::<Schedule>() <= 56, "{}", size_of::<Schedule>());
}

#[test]
fn a_longer_pause_between_readings_makes_the_series_pass_faster() {
    let profile = Profile::named("water-meter").unwrap();
    let day = profile.series_time_s(profile.every);
    assert!((day - 86_400.0).abs() < 1e-6);
    let slower = profile.paced(Duration::from_secs(60), 0.1);
    assert!((slower.series_time_s(Duration::from_secs(60)) - day).abs() < 1e-6);
    assert_eq!(
        (slower.every, slower.jitter),
        (Duration::from_secs(60), 0.1)
    );
    let real = Profile {
        speed: Some(1.0),
        ..Profile::clone(&profile)
    };
    assert_eq!(real.series_time_s(Duration::from_secs(7)), 7.0);
}

#[test]
fn rooms_are_warm_by_day_and_dry_when_warm() {
    let profile = natural("thermometer");
    let days = hourly(&profile, 30 * DAY);
    assert_range(&days, 0, -4_000..=8_500);
    assert_range(&days, 1, 50..=1_000);
    assert_range(&days, 2, 50..=100);
    let (day, night) = (mean_at(&days, 15, 0), mean_at(&days, 3, 0));
    assert!((500.0..700.0).contains(&(day - night)), "{day} {night}");
    assert!(mean_at(&days, 15, 1) < mean_at(&days, 3, 1));
}

#[test]
fn energy_grows_and_evenings_draw_more_than_nights() {
    let profile = natural("power-meter");
    let days = hourly(&profile, 30 * DAY);
    assert_range(&days, 0, 15..=15_000);
    assert_range(&days, 1, 1_900..=2_400);
    assert!(days.is_sorted_by_key(|reading| reading.step(2)));
    assert!(mean_at(&days, 19, 0) > 2.0 * mean_at(&days, 3, 0));
    let used_wh = days[days.len() - 1].step(2).unwrap() - days[0].step(2).unwrap();
    // 2 to 25 kWh a day
    assert!((60_000..750_000).contains(&used_wh), "{used_wh}");
}

#[test]
fn meters_raise_alarms_now_and_then() {
    for (name, field, codes) in [("power-meter", 3, 2), ("water-meter", 2, 1)] {
        let profile = natural(name);
        let mut alarms = vec![0; codes];
        for index in 0..50 {
            for reading in readings(&profile, index, 1_000) {
                if let Some(code) = reading.step(field) {
                    alarms[code as usize] += 1;
                }
            }
        }
        for count in alarms {
            assert!((5..150).contains(&count), "{name}: {count} of 50,000");
        }
    }
}

#[test]
fn a_van_goes_as_fast_as_it_says_stops_and_stays_in_its_area() {
    let profile = natural("gps-tracker");
    let track = profile.track.clone();
    let (mut standing, mut moves) = (0, 0);
    for index in 0..10 {
        let fixes = readings(&profile, index, 3_000);
        assert_range(&fixes, 2, 0..=380);
        assert_range(&fixes, 3, 0..=359);
        for pair in fixes.windows(2) {
            let place = |reading: &Reading| {
                let degrees = |field| reading.step(field).unwrap() as f64 / 1e6;
                let north = (degrees(0) - track.latitude) * 111.195;
                let east = (degrees(1) - track.longitude) * 111.195;
                (north, east * track.latitude.to_radians().cos())
            };
            let ((north, east), (north2, east2)) = (place(&pair[0]), place(&pair[1]));
            assert!(north.hypot(east) < track.radius_km + 5.0);
            let way_m = (north2 - north).hypot(east2 - east) * 1_000.0;
            let speed_m_s = pair[1].step(2).unwrap() as f64 / 10.0;
            assert!(
                way_m <= (speed_m_s + 0.1) * 30.0 + 1.0 || speed_m_s == 0.0,
                "{way_m} {speed_m_s}"
            );
            standing += u32::from(speed_m_s == 0.0);
            moves += u32::from(way_m > 50.0);
        }
    }
    assert!((5_000..17_000).contains(&standing), "{standing} of 30,000");
    assert!(moves > 10_000, "{moves} of 30,000");
}

#[test]
fn a_plug_obeys_each_command_once_and_says_which() {
    let profile = natural("smart-plug");
    let mut sensor = Sensor::new(&profile, 42, 1);
    let mut minute = 0;
    let mut read = |sensor: &mut Sensor| {
        minute += 1;
        sensor.read(&profile, Duration::from_secs(minute * 60))
    };
    assert_eq!(read(&mut sensor).step(3), None);
    let command = |sequence, is_on| Command {
        device: 1,
        sequence,
        intended_at: Duration::ZERO,
        is_on,
    };
    assert!(sensor.apply(&command(0, true)));
    let on = read(&mut sensor);
    assert_eq!((on.step(0), on.step(3)), (Some(1), Some(0)));
    assert!(on.step(1).unwrap() > 3);
    assert!(sensor.apply(&command(5, false)));
    assert!(!sensor.apply(&command(5, false)), "a repetition");
    assert!(!sensor.apply(&command(4, true)), "an old one");
    assert_eq!(sensor.is_on(), Some(false));
    let off = read(&mut sensor);
    assert_eq!(
        (off.step(0), off.step(1), off.step(3)),
        (Some(0), Some(3), Some(5))
    );
    assert!(off.step(2) >= on.step(2));
    let mut thermometer = Sensor::new(&natural("thermometer"), 42, 1);
    assert!(!thermometer.apply(&command(0, true)));
    assert_eq!(thermometer.is_on(), None);
}

#[test]
fn water_is_used_and_only_counted_up() {
    let profile = natural("water-meter");
    let days = readings(&profile, 3, 365);
    assert!(days.is_sorted_by_key(|reading| reading.step(0)));
    let used = days[364].step(0).unwrap() - days[0].step(0).unwrap();
    // 20 to 700 litres a day
    assert!((7_300..255_000).contains(&used), "{used}");
    let sum: i64 = days
        .iter()
        .skip(1)
        .filter_map(|reading| reading.step(1))
        .sum();
    assert!(sum.abs_diff(used) < 365, "{sum} {used}");
}

#[test]
fn machines_shake_while_shifts_work() {
    let profile = natural("vibration");
    let days = hourly(&profile, 20 * DAY);
    assert_range(&days, 0, 0..=5_000);
    assert_range(&days, 2, 240..=256);
    assert!(mean_at(&days, 12, 0) > 3.0 * mean_at(&days, 2, 0));
    assert!(
        mean_at(&days, 12, 3) > mean_at(&days, 2, 3),
        "warm from working"
    );
}

#[test]
fn a_bay_speaks_when_it_changes() {
    let profile = natural("parking");
    let mut repeated = 0;
    for index in 0..20 {
        let changes = readings(&profile, index, 500);
        repeated += changes
            .windows(2)
            .filter(|pair| pair[0].step(0) == pair[1].step(0))
            .count();
        for change in changes.iter().skip(1) {
            assert!(change.step(1).unwrap() >= 2_400);
        }
    }
    // Only stuck sensors say the same twice: 10,000 * 0.001 * 2.
    assert!((5..45).contains(&repeated), "{repeated}");
}

#[test]
fn a_gateway_speaks_for_each_leaf_in_turn_and_leaves_differ() {
    let profile = natural("gateway");
    let rounds = readings(&profile, 1, 300);
    for (number, reading) in rounds.iter().enumerate() {
        assert_eq!(reading.leaf(profile.measure), Some((number % 100) as u8));
    }
    assert_range(&rounds, 1, -4_000..=8_500);
    assert_range(&rounds, 3, -105..=-40);
    let first_round: HashSet<i64> = rounds[..100]
        .iter()
        .filter_map(|leaf| leaf.step(1))
        .collect();
    assert!(first_round.len() > 80);
    for (one, next) in rounds.iter().zip(&rounds[100..]) {
        // Five minutes later, the same leaf in the same place.
        assert!(one.step(1).unwrap().abs_diff(next.step(1).unwrap()) < 250);
    }
    let temperature = Reading::new(Measure::Temperature, &[Some(1.0)]);
    assert_eq!(temperature.leaf(Measure::Temperature), None);
}

#[test]
fn the_devices_clock_is_wrong_and_the_label_is_not() {
    let profile = natural("water-meter");
    let mut wrong = HashSet::new();
    for index in 0..50 {
        let reading = Sensor::new(&profile, 42, index).read(&profile, Duration::from_secs(3_600));
        let true_s = 1_767_225_600 + 7 * 3_600;
        wrong.insert(i64::from(reading.clock_s.unwrap()) - true_s);
        let sent = Label {
            device: index,
            sequence: 0,
            intended_at: Duration::from_secs(3_600),
        };
        let mut payload = Vec::new();
        profile.encode(&sent, &reading, &mut payload);
        assert_eq!(label(&payload), Some(sent));
    }
    assert!(wrong.len() > 20 && wrong.iter().all(|wrong_s| wrong_s.abs() <= 121));
    let without = Sensor::new(&natural("thermometer"), 42, 1).read(&profile, Duration::ZERO);
    assert_eq!(without.clock_s.is_some(), profile.has_timestamp);
}

/// Payload bytes at full size: the table of the README.
#[test]
fn packed_sizes_are_as_documented() {
    for (name, bytes) in [
        ("thermometer", 22),
        ("power-meter", 29),
        ("gps-tracker", 34),
        ("smart-plug", 24),
        ("water-meter", 28),
        ("vibration", 25),
        ("parking", 23),
        ("gateway", 27),
    ] {
        let profile = Profile {
            encoding: Encoding::Packed,
            ..Profile::clone(&Profile::named(name).unwrap())
        };
        let reading = readings(&profile, 1, 1)[0];
        let label = Label {
            device: 1,
            sequence: 0,
            intended_at: Duration::ZERO,
        };
        let mut payload = Vec::new();
        profile.encode(&label, &reading, &mut payload);
        assert_eq!(payload.len(), bytes, "{name}");
    }
}

/// As in the field: the series passes as the run does.
fn natural(name: &str) -> Arc<Profile> {
    let profile = Profile::named(name).unwrap();
    let jitter = profile.jitter;
    profile.paced(profile.natural_every, jitter)
}

fn readings(profile: &Profile, index: u32, count: u32) -> Vec<Reading> {
    let mut sensor = Sensor::new(profile, 42, index);
    let read = |number| sensor.read(profile, profile.every * (number + 1));
    (0..count).map(read).collect()
}

/// One reading each full hour, from seven o'clock on.
fn hourly(profile: &Profile, hours: u32) -> Vec<Reading> {
    let mut sensor = Sensor::new(profile, 42, 1);
    let read = |hour| sensor.read(profile, Duration::from_secs(3_600) * (hour + 1));
    (0..hours).map(read).collect()
}

fn mean_at(readings: &[Reading], hour: usize, field: usize) -> f64 {
    // The first is of seven o'clock.
    let values = readings.iter().skip((hour + 17) % 24).step_by(24);
    let values: Vec<i64> = values.filter_map(|reading| reading.step(field)).collect();
    values.iter().sum::<i64>() as f64 / values.len() as f64
}

fn assert_range(readings: &[Reading], field: usize, range: std::ops::RangeInclusive<i64>) {
    for reading in readings {
        let step = reading.step(field).unwrap();
        assert!(range.contains(&step), "field {field}: {step}");
    }
}

fn messages(profile: &Profile, seed: u64, index: u32, count: u32) -> Vec<(Duration, Vec<u8>)> {
    let mut sensor = Sensor::new(profile, seed, index);
    let mut schedule = Schedule::new(profile, seed, index, Duration::ZERO);
    let next = |sequence| {
        let intended_at = schedule.next_at();
        schedule.advance(profile);
        let reading = sensor.read(profile, intended_at);
        let mut payload = Vec::new();
        let label = Label {
            device: 1,
            sequence,
            intended_at,
        };
        profile.encode(&label, &reading, &mut payload);
        (intended_at, payload)
    };
    (0..count).map(next).collect()
}
