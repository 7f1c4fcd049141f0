//! The report as one HTML page that needs nothing else: no script, no network, light and dark, printable.
//!
//! Invariants: the page is well-formed XML too; whatever a scenario or broker named is escaped.

use super::chart::{Along, Chart, Series, Values, escape, nines};
use crate::report::{
    Distribution, Report, Sample, Verdict, bytes_text, count_text, threshold_text, time_text,
};
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");
/// Cohorts beyond this have no bar; the table has them all.
const BARS_MAX: usize = 24;

/// The page.
pub(super) fn page(report: &Report) -> String {
    let name = escape(&report.plan.name);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <meta name=\"color-scheme\" content=\"light dark\"/>\
         <title>{} - {name}</title><style>\n{STYLE}</style></head>\n<body><main>\n",
        verdict(report).0
    );
    html += &head(report);
    html += &tiles(report);
    html += &latencies(report);
    html += &timeline(report);
    html += &cohorts(report);
    html += &traffic(report);
    html += &thresholds(report);
    html += &facts(report);
    let _ = write!(
        html,
        "<footer>motemq-sim {}, report schema {}. Latencies count from when a reading was due, \
         not from when it could be sent. Bytes are those on the link, with TCP and IP headers and \
         retransmissions.</footer>\n</main></body></html>\n",
        escape(report.version),
        report.schema
    );
    html
}

/// The verdict in a word, whether it is good, and a sentence.
fn verdict(report: &Report) -> (&'static str, bool, String) {
    let total = &report.outcome.total;
    let (sent, delivered) = (count_text(total.published), count_text(total.delivered));
    let cohorts = report.plan.cohorts.iter().zip(&report.outcome.cohorts);
    let promised = cohorts.filter(|(planned, _)| planned.qos > 0);
    let promised: u64 = promised.map(|(_, outcome)| outcome.counted.published).sum();
    let is_promised = promised > 0;
    let arrived = if is_promised {
        let (acknowledged, promised) = (count_text(total.acknowledged), count_text(promised));
        format!(
            "{acknowledged} of {promised} messages with QoS 1 or 2 were acknowledged; {delivered} of {sent} messages arrived."
        )
    } else {
        format!("{delivered} of {sent} messages arrived; QoS 0 promises none.")
    };
    match report.verdict() {
        Verdict::Broken => ("Promises broken", false, arrived),
        Verdict::Missed => ("Thresholds missed", false, arrived),
        Verdict::Unproven => ("Not proven", false, arrived),
        Verdict::Kept if is_promised => {
            let all = "Every acknowledged message was delivered, in order and as it was sent.";
            ("All promises kept", true, format!("{arrived} {all}"))
        }
        Verdict::Kept => ("All promises kept", true, arrived),
    }
}

fn head(report: &Report) -> String {
    let (word, is_good, sentence) = verdict(report);
    let plan = &report.plan;
    let mut html = format!(
        "<header><h1>{}</h1><p>{} for {} against {}, {}</p></header>\n\
         <section class=\"verdict{}\"><b>{word}</b>{sentence}",
        escape(&plan.name),
        match plan.devices {
            1 => "1 device".to_owned(),
            devices => format!("{} devices", count_text(devices.into())),
        },
        time_text(plan.duration_s),
        escape(&report.measured.broker),
        escape(&report.measured.started_at),
        if is_good { " good" } else { "" },
    );
    let mut items: Vec<String> = report.outcome.violations.clone();
    items.extend(report.missed().map(|missed| {
        let value = threshold_text(missed.value);
        format!("{} should be {}, was {value}", missed.figure, missed.demand)
    }));
    items.extend(report.measured.doubts.iter().cloned());
    items.extend(report.remarks());
    if !items.is_empty() {
        html += "<ul>";
        for item in items {
            let _ = write!(html, "<li>{}</li>", escape(&item));
        }
        html += "</ul>";
    }
    html + "</section>\n"
}

fn tiles(report: &Report) -> String {
    let (total, figures) = (&report.outcome.total, &report.measured.total);
    let bad_if = |count: u64| if count > 0 { " class=\"bad\"" } else { "" };
    let mut tiles = vec![
        ("published", count_text(total.published), ""),
        ("delivered", count_text(total.delivered), ""),
        ("lost", count_text(total.lost), bad_if(total.lost)),
        (
            "duplicated",
            count_text(report.duplicated()),
            bad_if(total.duplicated),
        ),
        (
            "reordered",
            count_text(total.reordered),
            bad_if(total.reordered),
        ),
        ("altered", count_text(total.altered), bad_if(total.altered)),
    ];
    for (name, times) in [
        ("acknowledged, p99", &figures.publish_ack_seconds),
        ("delivered, p99", &figures.delivery_seconds),
    ] {
        if let Some(times) = times.measured() {
            tiles.push((name, time_text(times.p99), ""));
        }
    }
    if let Some(bytes) = figures.bytes_per_delivered {
        tiles.push(("per delivered reading", bytes_text(bytes), ""));
    }
    if figures.reconnects > 0 {
        tiles.push(("reconnects", count_text(figures.reconnects), ""));
    }
    let mut html = String::from("<section class=\"tiles\">");
    for (name, value, class) in tiles {
        let _ = write!(
            html,
            "<div class=\"tile\"><span>{name}</span><strong{class}>{value}</strong></div>"
        );
    }
    html + "</section>\n"
}

fn latencies(report: &Report) -> String {
    let figures = &report.measured.total;
    let rows = [
        ("acknowledged", "s1", &figures.publish_ack_seconds),
        ("delivered", "s2", &figures.delivery_seconds),
        ("connected", "s3", &figures.connect_seconds),
        ("reconnected", "s4", &figures.reconnect_seconds),
    ];
    let measured = rows
        .into_iter()
        .filter_map(|(name, class, times)| Some((name, class, times.measured()?)));
    let count = measured.clone().map(|(.., times)| times.count).max();
    let until = (count.unwrap_or(1) as f64).log10().max(1.0);
    let chart = Chart {
        title: "Latency by percentile".to_owned(),
        along: Along::Nines { until },
        values: Values::Logarithmic,
        text: |seconds| rounded(&time_text(seconds)),
        series: measured
            .clone()
            .map(|(name, class, times)| Series {
                name,
                class,
                points: percentiles(times),
            })
            .collect(),
        marks: Vec::new(),
    };
    let mut table = String::from("<div class=\"scroll\"><table><tr><th>latency</th>");
    for name in ["count", "p50", "p90", "p99", "p99.9", "max"] {
        let _ = write!(table, "<th>{name}</th>");
    }
    table += "</tr>";
    let lag = ("simulator's lag", "", &figures.generator_lag_seconds);
    for (name, _, times) in measured.chain(lag.2.measured().map(|_| lag)) {
        let _ = write!(
            table,
            "<tr><td>{name}</td><td>{}</td>",
            count_text(times.count)
        );
        for seconds in [times.p50, times.p90, times.p99, times.p99_9, times.max] {
            let _ = write!(table, "<td>{}</td>", time_text(seconds));
        }
        table += "</tr>";
    }
    table += "</table></div>";
    format!(
        "<h2>Latencies</h2>\n<section class=\"charts\">{}<div>{table}</div></section>\n",
        chart.figure()
    )
}

/// The curve of a distribution on an axis of nines; the longest time is where its count ends.
fn percentiles(times: &Distribution) -> Vec<(f64, Option<f64>)> {
    let end = (times.count as f64).log10();
    let curve = times.curve.iter().map(|(share, seconds)| {
        let place = nines((*share).min(1.0)).min(end);
        (place, Some(*seconds))
    });
    let first = times
        .curve
        .first()
        .map(|(_, seconds)| (0.0, Some(*seconds)));
    first.into_iter().chain(curve).collect()
}

fn timeline(report: &Report) -> String {
    let timeline = &report.measured.timeline;
    let Some(last) = timeline.samples().last() else {
        return String::new();
    };
    let until_s = last.at_s;
    let along = Along::Time { until_s };
    let plan = &report.plan;
    let marks: Vec<(f64, String)> = plan
        .phases
        .iter()
        .map(|phase| {
            let what = phase.event.split([' ', ',']).next().unwrap_or_default();
            let share = format!("{what} {:.0} %", phase.share * 100.0);
            (plan.steady_at_s + phase.at_s, share)
        })
        .filter(|(at_s, _)| *at_s < until_s)
        .collect();
    let per_second = |of: fn(&Sample) -> u64| {
        let samples = timeline.spans();
        samples
            .map(|(span_s, sample)| (sample.at_s, Some(of(sample) as f64 / span_s)))
            .collect()
    };
    let value = |of: fn(&Sample) -> Option<f64>| {
        let samples = timeline.samples();
        samples.map(|sample| (sample.at_s, of(sample))).collect()
    };
    let chart = |title: &str,
                 values,
                 text: fn(f64) -> String,
                 series: Vec<(&'static str, &'static str, _)>| {
        let series = series
            .into_iter()
            .map(|(name, class, points)| Series {
                name,
                class,
                points,
            })
            .collect();
        let (title, marks) = (title.to_owned(), marks.clone());
        Chart {
            title,
            along,
            values,
            text,
            series,
            marks,
        }
        .figure()
    };
    let number = short_number;
    let is_acknowledged = plan.cohorts.iter().any(|cohort| cohort.qos > 0);
    let mut rates = vec![("published", "s3", per_second(|sample| sample.published))];
    let mut delays = vec![
        ("p50", "s2", value(|sample| sample.delivery_p50_s)),
        ("p99", "s1", value(|sample| sample.delivery_p99_s)),
    ];
    if is_acknowledged {
        rates.push((
            "acknowledged",
            "s1",
            per_second(|sample| sample.acknowledged),
        ));
        delays.push(("acknowledged, p99", "s3", value(|sample| sample.ack_p99_s)));
    }
    rates.push(("delivered", "s2", per_second(|sample| sample.delivered)));
    let mut html = String::from("<h2>Timeline</h2>\n<section class=\"charts\">");
    html += &chart("Messages per second", Values::Linear, number, rates);
    html += &chart(
        "Latency when delivered",
        Values::Logarithmic,
        |seconds| rounded(&time_text(seconds)),
        delays,
    );
    let up = value(|sample| Some(sample.up as f64));
    html += &chart(
        "Devices connected",
        Values::Linear,
        number,
        vec![("connected", "s1", up)],
    );
    if report.measured.total.reconnects + report.measured.total.connection_failures > 0 {
        let series = vec![
            ("reconnects", "s1", per_second(|sample| sample.reconnects)),
            (
                "failed",
                "s3",
                per_second(|sample| sample.connection_failures),
            ),
        ];
        html += &chart("Connections per second", Values::Linear, number, series);
    }
    if report.measured.total.bytes_per_delivered.is_some() {
        let series = vec![
            ("up", "s1", per_second(|sample| sample.up_bytes)),
            ("down", "s2", per_second(|sample| sample.down_bytes)),
        ];
        html += &chart(
            "Bytes per second on the links",
            Values::Linear,
            |bytes| rounded(&bytes_text(bytes)),
            series,
        );
    }
    html + "</section>\n"
}

fn cohorts(report: &Report) -> String {
    let mut html = String::from(
        "<h2>Cohorts</h2>\n<div class=\"scroll\"><table><tr><th>cohort</th><th class=\"text\">link</th>\
         <th class=\"text\">profile</th><th>devices</th><th>every</th><th>QoS</th><th>published</th>\
         <th>delivered</th><th>lost</th><th>twice</th><th>reordered</th><th>altered</th><th>open</th>\
         <th>ack p99</th><th>del. p50</th><th>p99</th><th>back</th><th>B/reading</th></tr>",
    );
    let parts = report.plan.cohorts.iter().zip(&report.outcome.cohorts);
    for ((planned, outcome), measured) in parts.zip(&report.measured.cohorts) {
        let (counted, figures) = (&outcome.counted, &measured.figures);
        let time = |times: &Distribution, of: fn(&Distribution) -> f64| {
            let text = times.measured().map(|times| time_text(of(times)));
            text.unwrap_or_else(|| "-".to_owned())
        };
        let bad = |count: u64| match count {
            0 => "<td>0</td>".to_owned(),
            _ => format!("<td class=\"bad\">{}</td>", count_text(count)),
        };
        let twice = counted.duplicated + figures.redelivered;
        let _ = write!(
            html,
            "<tr><td>{}</td><td class=\"text\">{}</td><td class=\"text\">{}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{}</td><td>{}</td>{}{}{}{}<td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td></tr>",
            escape(&planned.name),
            escape(&planned.link),
            escape(&planned.profile),
            count_text(planned.devices.into()),
            time_text(planned.every_s),
            planned.qos,
            count_text(counted.published),
            count_text(counted.delivered),
            bad(counted.lost),
            if counted.duplicated > 0 {
                bad(twice)
            } else {
                format!("<td>{}</td>", count_text(twice))
            },
            bad(counted.reordered),
            bad(counted.altered),
            count_text(counted.unfinished),
            time(&figures.publish_ack_seconds, |times| times.p99),
            time(&figures.delivery_seconds, |times| times.p50),
            time(&figures.delivery_seconds, |times| times.p99),
            count_text(figures.reconnects),
            figures
                .bytes_per_delivered
                .map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.0}")),
        );
    }
    html + "</table></div>\n"
}

/// Bytes per device and hour, cohort by cohort, and what connecting cost.
fn traffic(report: &Report) -> String {
    let bars: Vec<(&str, f64, f64)> = report
        .measured
        .cohorts
        .iter()
        .filter_map(|cohort| {
            let figures = &cohort.figures;
            let up = figures.up_bytes_per_device_hour?;
            Some((
                cohort.name.as_str(),
                up,
                figures.down_bytes_per_device_hour?,
            ))
        })
        .take(BARS_MAX)
        .collect();
    if bars.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Traffic</h2>\n<section class=\"charts\">{}<div>{}</div></section>\n",
        bar_figure(&bars),
        connects(report)
    )
}

fn bar_figure(bars: &[(&str, f64, f64)]) -> String {
    let largest = bars
        .iter()
        .fold(0.0_f64, |largest, (_, up, down)| largest.max(up + down));
    let height = bars.len() * 44 + 4;
    let mut svg = format!(
        "<figure><figcaption>Bytes per device and hour while all publish<span class=\"legend\">\
         <span><i class=\"s1\"></i>up</span><span><i class=\"s2\"></i>down</span></span></figcaption>\
         <svg viewBox=\"0 0 520 {height}\" role=\"img\" aria-label=\"Bytes per device and hour\">"
    );
    for (number, (name, up, down)) in bars.iter().enumerate() {
        let y = number * 44;
        let width = |bytes: &f64| bytes / largest.max(1e-9) * 508.0;
        let _ = write!(
            svg,
            "<text class=\"name\" x=\"6\" y=\"{}\">{}</text><text class=\"end\" x=\"514\" y=\"{}\">{} up, {} down</text>\
             <rect class=\"s1\" x=\"6\" y=\"{}\" width=\"{:.1}\" height=\"14\"/>\
             <rect class=\"s2\" x=\"{:.1}\" y=\"{}\" width=\"{:.1}\" height=\"14\"/>",
            y + 15,
            escape(&clipped(name, 34)),
            y + 15,
            bytes_text(*up),
            bytes_text(*down),
            y + 21,
            width(up),
            6.0 + width(up) + 2.0,
            y + 21,
            (width(down) - 2.0).max(0.0),
        );
    }
    svg + "</svg></figure>"
}

fn connects(report: &Report) -> String {
    if report.measured.connect_costs.is_empty() {
        return String::new();
    }
    let mut html = String::from(
        "<div class=\"scroll\"><table><tr><th>connecting</th><th class=\"text\">handshake</th><th>times</th>\
         <th>up each</th><th>down each</th><th>p50</th><th>p99</th></tr>",
    );
    for cost in &report.measured.connect_costs {
        let each = |bytes: u64| bytes_text(bytes as f64 / cost.seconds.count.max(1) as f64);
        let _ = write!(
            html,
            "<tr><td>{}</td><td class=\"text\">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&cost.cohort),
            cost.handshake,
            count_text(cost.seconds.count),
            each(cost.up_bytes),
            each(cost.down_bytes),
            time_text(cost.seconds.p50),
            time_text(cost.seconds.p99),
        );
    }
    html + "</table></div>"
}

fn thresholds(report: &Report) -> String {
    if report.measured.thresholds.is_empty() {
        return String::new();
    }
    let mut html = String::from(
        "<h2>Thresholds</h2>\n<div class=\"scroll\"><table><tr><th>figure</th><th>should be</th><th>was</th>\
         <th class=\"text\">met</th></tr>",
    );
    for threshold in &report.measured.thresholds {
        let (class, word) = match threshold.met {
            true => ("good", "yes"),
            false => ("bad", "no"),
        };
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"text {class}\">{word}</td></tr>",
            escape(&threshold.figure),
            escape(&threshold.demand),
            threshold_text(threshold.value),
        );
    }
    html + "</table></div>\n"
}

fn facts(report: &Report) -> String {
    let (plan, measured) = (&report.plan, &report.measured);
    let machine = &measured.machine;
    let processor = machine.processor.as_deref().unwrap_or(machine.architecture);
    let mut facts = vec![
        ("scenario", format!("{} {}", plan.name, plan.digest)),
        ("seed", plan.seed.to_string()),
        ("published digest", report.outcome.published_digest.clone()),
        ("run", measured.run.clone()),
        ("broker", measured.broker.clone()),
        ("started", measured.started_at.clone()),
        ("took", time_text(measured.took_s)),
        (
            "devices",
            format!(
                "{}, {} connected at the end",
                count_text(plan.devices.into()),
                count_text(measured.total.connected)
            ),
        ),
        (
            "machine",
            format!("{}, {} threads, {processor}", machine.os, machine.cores),
        ),
        ("TLS handshakes", {
            let (full, resumed) = (measured.total.tls_full, measured.total.tls_resumed);
            format!("{} full, {} resumed", count_text(full), count_text(resumed))
        }),
        ("simulator's lag, p99", {
            let lag = measured.total.generator_lag_seconds.measured();
            lag.map_or_else(|| "-".to_owned(), |lag| time_text(lag.p99))
        }),
    ];
    if let Some(bytes) = measured.memory.resident_bytes_max {
        facts.push(("simulator's memory", bytes_text(bytes as f64)));
    }
    for phase in &plan.phases {
        let whom = phase.cohort.as_deref().unwrap_or("all");
        let share = phase.share * 100.0;
        facts.push((
            "phase",
            format!(
                "at {} s: {share:.0} % of {whom}: {}",
                phase.at_s, phase.event
            ),
        ));
    }
    let mut html = String::from("<h2>Run</h2>\n<dl class=\"facts\">");
    for (name, value) in facts {
        let _ = write!(
            html,
            "<div><dt>{name}</dt><dd>{}</dd></div>",
            escape(value.trim())
        );
    }
    html + "</dl>\n"
}

/// At most this many characters, the last of which says that there are more.
fn clipped(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    let start: String = text.chars().take(characters - 1).collect();
    start + "\u{2026}"
}

/// Without zeros behind the point, for an axis.
fn rounded(text: &str) -> String {
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            let number = number.trim_end_matches('0').trim_end_matches('.');
            format!("{number} {unit}")
        }
        _ => text.to_owned(),
    }
}

/// A number for an axis.
fn short_number(number: f64) -> String {
    match number {
        _ if number >= 1e6 => format!("{}M", trimmed(number / 1e6)),
        _ if number >= 1e4 => format!("{}k", trimmed(number / 1e3)),
        _ => trimmed(number),
    }
}

fn trimmed(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{HOSTILE, report, report_of, world};
    use roxmltree::{Document, Node, ParsingOptions};

    #[test]
    fn the_page_says_what_was_broken() {
        let page = page(&report());
        let document = parse(&page);
        let text = text_of(document.root());
        for expected in [
            "Promises broken",
            "meters: 2 acknowledged but not delivered",
            "lost should be == 0, was 2",
            "Latency by percentile",
            "kill 30 %",
            "nb-iot",
            "lte-m",
            "Bytes per device and hour",
            "handshake",
        ] {
            assert!(text.contains(expected), "{expected}");
        }
        let paths = document
            .descendants()
            .filter(|node| node.has_tag_name("path"));
        assert!(paths.count() >= 10);
    }

    #[test]
    fn hostile_names_are_text_and_nothing_else() {
        let page = page(&report_of(&world(HOSTILE)));
        let document = parse(&page);
        let heading = document.descendants().find(|node| node.has_tag_name("h1"));
        assert_eq!(text_of(heading.unwrap()), HOSTILE.replace('\n', " "));
        for tag in ["script", "b"] {
            let strangers = document.descendants().filter(|node| node.has_tag_name(tag));
            // The verdict is one.
            assert!(strangers.count() <= 1, "{tag}");
        }
        assert_eq!(escape("\u{1}\u{0}"), "\u{FFFD}\u{FFFD}");
    }

    #[test]
    fn the_page_needs_nothing_else() {
        let page = page(&report());
        let document = parse(&page);
        for node in document.descendants() {
            for name in ["href", "src", "onclick", "onload"] {
                assert_eq!(node.attribute(name), None);
            }
        }
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
    }

    #[test]
    fn a_run_in_which_nothing_happened_has_a_page_too() {
        let mut report = report();
        for figures in [
            &mut report.measured.total.publish_ack_seconds,
            &mut report.measured.total.delivery_seconds,
            &mut report.measured.total.connect_seconds,
            &mut report.measured.total.reconnect_seconds,
            &mut report.measured.total.generator_lag_seconds,
        ] {
            *figures = Distribution::default();
        }
        report.measured.timeline = crate::report::Timeline::default();
        report.outcome.violations.clear();
        report.measured.thresholds.clear();
        let page = page(&report);
        assert!(page.contains("All promises kept") && !page.contains("NaN"));
        parse(&page);
    }

    fn parse(page: &str) -> Document<'_> {
        let options = ParsingOptions {
            allow_dtd: true,
            ..ParsingOptions::default()
        };
        Document::parse_with_options(page, options).unwrap()
    }

    fn text_of(node: Node<'_, '_>) -> String {
        let texts = node.descendants().filter(|node| node.is_text());
        texts.filter_map(|node| node.text()).collect()
    }
}
