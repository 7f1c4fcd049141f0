//! A run as a table on a terminal, drawn in place below what was there before.
//!
//! The terminal stays in its ordinary mode: Ctrl-C reaches the run, the cursor stays visible, and what is cut
//! off by a kill leaves nothing to repair. Narrow terminals show fewer columns.

use super::view::View;
use crate::report::{Distribution, Sample, bytes_text, count_text, time_text};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, RenderDirection, Sparkline};
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};
use std::io::{self, Stderr};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Title, phase, head, four rows, audit, traffic, sparkline, and a place for the cursor.
const LINES: u16 = 11;
/// Cohorts beyond this have no line of their own.
const COHORTS_MAX: usize = 8;
/// Where the sparkline begins.
const SPARKLINE_FROM: u16 = 16;

/// A table on standard error.
pub(super) struct Table {
    terminal: Terminal<CrosstermBackend<Stderr>>,
}

impl Table {
    pub(super) fn open(cohorts: usize) -> io::Result<Self> {
        let viewport = Viewport::Inline(LINES + cohort_lines(cohorts));
        let backend = CrosstermBackend::new(io::stderr());
        let terminal = Terminal::with_options(backend, TerminalOptions { viewport })?;
        Ok(Self { terminal })
    }

    pub(super) fn draw(&mut self, view: &View<'_>) {
        let is_coloured = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        // Nobody reads a terminal that is gone.
        let _ = self.terminal.draw(|frame| draw(frame, view, is_coloured));
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // The report follows where the table was.
        let top = self.terminal.get_frame().area().as_position();
        let _ = self.terminal.clear();
        let _ = self.terminal.set_cursor_position(top);
        let _ = self.terminal.show_cursor();
    }
}

fn cohort_lines(cohorts: usize) -> u16 {
    match u16::try_from(cohorts.min(COHORTS_MAX)) {
        Ok(0 | 1) | Err(_) => 0,
        Ok(cohorts) => cohorts + 1,
    }
}

fn draw(frame: &mut Frame<'_>, view: &View<'_>, is_coloured: bool) {
    let area = frame.area();
    let palette = Palette { is_coloured };
    let mut lines = vec![title(view, &palette), phase(view, &palette)];
    lines.extend(rows(view, &palette, area.width));
    lines.extend(cohorts(view, &palette));
    lines.push(audit(view, &palette));
    lines.push(traffic(view));
    let sparkline_y = area.y + u16::try_from(lines.len()).unwrap_or(u16::MAX);
    lines.push(Line::raw(" delivered/s"));
    frame.render_widget(Paragraph::new(lines), area);
    let line = Rect {
        x: area.x + SPARKLINE_FROM.min(area.width),
        y: sparkline_y,
        width: area.width.saturating_sub(SPARKLINE_FROM),
        height: 1,
    };
    if sparkline_y < area.bottom() && line.width > 0 {
        let newest_first = view.recent.iter().rev();
        let per_second = |(span_s, sample): &(f64, Sample)| {
            (sample.delivered as f64 / span_s.max(0.001)).round() as u64
        };
        let rates = newest_first.map(per_second).take(line.width.into());
        let sparkline = Sparkline::default()
            .data(rates)
            .direction(RenderDirection::RightToLeft)
            .style(palette.good());
        frame.render_widget(sparkline, line);
    }
    // Below the table: a terminal that is left at once is in order.
    frame.set_cursor_position(Position::new(area.x, area.bottom().saturating_sub(1)));
}

type Statistic = fn(&Distribution) -> f64;

struct Palette {
    is_coloured: bool,
}

impl Palette {
    fn coloured(&self, colour: Color) -> Style {
        if self.is_coloured {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn good(&self) -> Style {
        self.coloured(Color::Green)
    }

    /// For a count that should be 0.
    fn verdict(&self, count: u64) -> Style {
        match count {
            0 => self.good(),
            _ => self.coloured(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    fn dim(&self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
}

fn title(view: &View<'_>, palette: &Palette) -> Line<'static> {
    let plan = &view.world.plan;
    let scenario = match plan.digest.as_str() {
        "" => String::new(),
        digest => format!("  scenario {} ({digest})", plan.name),
    };
    let link = match plan.cohorts.as_slice() {
        [cohort] => format!("  link {}", cohort.preset.name),
        cohorts => format!("  {} cohorts", cohorts.len()),
    };
    Line::from(vec![
        Span::styled("motemq-sim", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!(
            " {}  seed {}{scenario}  -> {}{link}",
            env!("CARGO_PKG_VERSION"),
            plan.seed,
            plan.endpoint,
        )),
        Span::styled(format!("  run {}", plan.run), palette.dim()),
    ])
}

fn phase(view: &View<'_>, palette: &Palette) -> Line<'static> {
    let (name, since, lasts) = view.phase;
    let devices = u64::from(view.world.plan.devices());
    let is_complete = view.up == devices;
    let up = format!("{}/{} up", count_text(view.up), count_text(devices));
    let mut spans = vec![
        Span::raw(" phase "),
        Span::styled(name, Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!(" {}/{}   devices ", clock(since), clock(lasts))),
        Span::styled(
            up,
            if is_complete {
                palette.good()
            } else {
                palette.coloured(Color::Yellow)
            },
        ),
        Span::raw(format!("   reconnects {}", count_text(view.reconnects))),
        Span::raw(format!("   failed {}", count_text(view.failures))),
    ];
    if let Some(refused) = &view.refused {
        spans.push(Span::styled(format!("   {refused}"), palette.verdict(1)));
    }
    Line::from(spans)
}

fn rows(view: &View<'_>, palette: &Palette, width: u16) -> Vec<Line<'static>> {
    // The most telling columns stay longest.
    let columns: &[(&str, Statistic)] = match width {
        0..60 => &[("p99", |times| times.p99)],
        60..80 => &[("p50", |times| times.p50), ("p99", |times| times.p99)],
        _ => &[
            ("p50", |times| times.p50),
            ("p90", |times| times.p90),
            ("p99", |times| times.p99),
            ("max", |times| times.max),
        ],
    };
    let mut head = format!(" {:<14}{:>10}{:>13}", "", "now", "total");
    for (name, _) in columns {
        head += &format!("{name:>10}");
    }
    let row = |name: &str, rate: String, total: u64, times: Option<&Distribution>| {
        let mut row = format!(" {name:<14}{rate:>10}{:>13}", count_text(total));
        for (_, of) in columns {
            let time = times
                .and_then(Distribution::measured)
                .map(|times| time_text(of(times)));
            row += &format!("{:>10}", time.as_deref().unwrap_or("-"));
        }
        Line::raw(row)
    };
    let rate = |of| format!("{:.0}/s", view.rate(of));
    let counts = &view.counts;
    let mut rows = vec![
        Line::styled(head, palette.dim()),
        row(
            "published",
            rate(|sample| sample.published),
            counts.published,
            None,
        ),
    ];
    if view.is_acknowledged {
        let rate = rate(|sample| sample.acknowledged);
        rows.push(row(
            "acknowledged",
            rate,
            counts.acknowledged,
            Some(&view.ack),
        ));
    }
    let rate = rate(|sample| sample.delivered);
    rows.push(row(
        "delivered",
        rate,
        counts.delivered,
        Some(&view.delivery),
    ));
    rows
}

/// A line for each cohort, when there are several.
fn cohorts(view: &View<'_>, palette: &Palette) -> Vec<Line<'static>> {
    let troops = &view.world.troops;
    if cohort_lines(troops.len()) == 0 {
        return Vec::new();
    }
    let head = format!(
        " {:<14}{:>10}{:>13}{:>10}{:>10}{:>10}  link",
        "cohort", "up", "delivered", "p50", "p99", "missing"
    );
    let mut lines = vec![Line::styled(head, palette.dim())];
    for troop in troops.iter().take(COHORTS_MAX) {
        let ledger = troop.ledger();
        let counts = ledger.counts();
        let name: String = troop.cohort.name.chars().take(14).collect();
        let times = &ledger.delivery_latency;
        let time = |share| match times.is_empty() {
            true => "-".to_owned(),
            false => time_text(times.value_at_quantile(share) as f64 / 1e6),
        };
        lines.push(Line::raw(format!(
            " {name:<14}{:>10}{:>13}{:>10}{:>10}{:>10}  {}",
            troop.tally.up.load(Ordering::Relaxed),
            count_text(counts.delivered),
            time(0.5),
            time(0.99),
            counts.lost,
            troop.cohort.preset.name,
        )));
    }
    lines
}

fn audit(view: &View<'_>, palette: &Palette) -> Line<'static> {
    let counts = &view.counts;
    let lag = match view.lag.measured() {
        Some(lag) => time_text(lag.p99),
        None => "-".to_owned(),
    };
    let is_late = counts.late * 20 > counts.published;
    // What is acknowledged and on its way is not lost yet.
    let lost = if view.phase.0 == "draining" {
        counts.lost
    } else {
        0
    };
    Line::from(vec![
        Span::raw(" missing "),
        Span::styled(count_text(counts.lost), palette.verdict(lost)),
        Span::raw(format!(
            "   duplicate {}   reordered ",
            count_text(counts.duplicated)
        )),
        Span::styled(
            count_text(counts.reordered),
            palette.verdict(counts.reordered),
        ),
        Span::raw("   altered "),
        Span::styled(count_text(counts.altered), palette.verdict(counts.altered)),
        Span::raw("   generator lag p99 "),
        Span::styled(lag, palette.verdict(is_late.into())),
    ])
}

fn traffic(view: &View<'_>) -> Line<'static> {
    let mut text = String::new();
    if view.up_bytes + view.down_bytes > 0
        && let Some(rates) = view.per_device_hour
    {
        let [up, down] = rates.map(bytes_text);
        text += &format!(" bytes/device/h  up {up}  down {down}");
    }
    if view.tls_full + view.tls_resumed > 0 {
        let (full, resumed) = (count_text(view.tls_full), count_text(view.tls_resumed));
        text += &format!("   TLS full {full}  resumed {resumed}");
    }
    Line::raw(text)
}

/// `03:12`, or `1:03:12` after an hour.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes:02}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::record::Recorder;
    use crate::report::sample::{HOSTILE, world};
    use ratatui::backend::TestBackend;

    #[test]
    fn the_table_shows_rates_totals_and_percentiles() {
        let text = drawn(100, "trackers");
        for expected in [
            "phase connecting 00:02/",
            "devices 30/30 up   reconnects 30",
            "acknowledged        50/s          100",
            "missing 2   duplicate 3   reordered 0",
            "TLS full 40  resumed 20",
            "delivered/s",
            "trackers",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(text.contains("p50       p90       p99       max"));
    }

    #[test]
    fn narrow_terminals_and_wild_names_break_nothing() {
        for width in [1, 10, 16, 17, 40, 60, 80, 250] {
            for height in [1, 3, 11, 30] {
                render(width, height, HOSTILE);
            }
        }
        let text = drawn(50, "trackers");
        assert!(text.contains("p99") && !text.contains("p90"), "{text}");
    }

    fn drawn(width: u16, second: &str) -> String {
        let backend = render(width, 16, second);
        let cells = backend.buffer().content().chunks(width.into());
        let lines = cells.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>());
        lines.collect::<Vec<_>>().join("\n")
    }

    fn render(width: u16, height: u16, second: &str) -> TestBackend {
        let world = world(second);
        let mut recorder = Recorder::new();
        for second in [1, 2] {
            recorder.record(&world, Duration::from_secs(second));
        }
        let view = View::new(&world, &recorder, Duration::from_secs(2));
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &view, true)).unwrap();
        terminal.backend().clone()
    }
}
