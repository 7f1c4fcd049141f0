//! Line charts as inline SVG: no script, colours from the page's style, readable at 360 pixels.
//!
//! Does not know: reports, what the lines mean.

use std::fmt::Write;

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 26.0;
/// Labels on the value axis, about.
const VALUE_TICKS: f64 = 4.0;
/// Labels on the time axis, at most.
const TIME_TICKS: f64 = 6.0;
/// What can be taken for a number of seconds on a time axis.
const TIME_STEPS_S: [f64; 18] = [
    1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 7_200.0,
    14_400.0, 21_600.0, 43_200.0, 86_400.0,
];

/// A line chart.
pub(super) struct Chart {
    /// What is drawn, for the heading.
    pub(super) title: String,
    pub(super) along: Along,
    pub(super) values: Values,
    /// How a value is written.
    pub(super) text: fn(f64) -> String,
    pub(super) series: Vec<Series>,
    /// Places on the horizontal axis with their names, such as what happened then.
    pub(super) marks: Vec<(f64, String)>,
}

/// One line.
pub(super) struct Series {
    pub(super) name: &'static str,
    /// The style's class, `s1` to `s4`.
    pub(super) class: &'static str,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// The horizontal axis, from 0.
#[derive(Clone, Copy)]
pub(super) enum Along {
    /// Seconds.
    Time { until_s: f64 },
    /// Shares of the measured, each nine as wide as the one before: 1 is 90 %, 2 is 99 %.
    Nines { until: f64 },
}

/// The vertical axis.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Values {
    /// From 0.
    Linear,
    /// From the smallest value above 0.
    Logarithmic,
}

/// A range of values with its labels.
struct Axis {
    from: f64,
    to: f64,
    values: Values,
    ticks: Vec<f64>,
}

/// The place of a share on an axis of nines.
pub(super) fn nines(share: f64) -> f64 {
    -(1.0 - share).log10()
}

impl Chart {
    /// The chart with heading and legend.
    pub(super) fn figure(&self) -> String {
        let mut html = String::from("<figure>");
        let _ = write!(html, "<figcaption>{}", escape(&self.title));
        if self.series.len() > 1 {
            html += "<span class=\"legend\">";
            for series in &self.series {
                let _ = write!(
                    html,
                    "<span><i class=\"{}\"></i>{}</span>",
                    series.class,
                    escape(series.name)
                );
            }
            html += "</span>";
        }
        html += "</figcaption>";
        html += &self.svg();
        html += "</figure>\n";
        html
    }

    fn svg(&self) -> String {
        let values = self.series.iter().flat_map(|series| &series.points);
        let values = values.filter_map(|(_, value)| *value);
        let axis = match self.values {
            Values::Linear => Axis::linear(values),
            Values::Logarithmic => Axis::logarithmic(values),
        };
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(&self.title)
        );
        for tick in &axis.ticks {
            let y = axis.y(*tick);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
                escape(&(self.text)(*tick))
            );
        }
        for (place, label) in self.along.ticks() {
            let x = self.along.x(place);
            let _ = write!(
                svg,
                "<line class=\"tick\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
                 <text class=\"mid\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 4.0,
                HEIGHT - 8.0,
                escape(&label)
            );
        }
        for (number, (place, name)) in self.marks.iter().enumerate() {
            let x = self.along.x(*place);
            // Names stay inside: to the left of a mark that is far right.
            let (anchor, text_x) = if x > WIDTH * 0.7 {
                ("end", x - 3.0)
            } else {
                ("start", x + 3.0)
            };
            let _ = write!(
                svg,
                "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
                 <text class=\"{anchor}\" x=\"{text_x:.1}\" y=\"{:.1}\">{}</text>",
                HEIGHT - BOTTOM,
                // Neighbours are named in two rows.
                TOP + if number % 2 == 0 { -3.0 } else { 11.0 },
                escape(name)
            );
        }
        let _ = write!(
            svg,
            "<line class=\"base\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            WIDTH - RIGHT,
            y = HEIGHT - BOTTOM
        );
        for series in &self.series {
            svg += &self.line(series, &axis);
        }
        svg + "</svg>"
    }

    /// A path that breaks where there is no value; where it would have no length, there is a dot.
    fn line(&self, series: &Series, axis: &Axis) -> String {
        let mut path = String::new();
        let mut dots = String::new();
        let pieces = series.points.split(|(_, value)| value.is_none());
        for piece in pieces {
            let is_dot = match piece {
                [(first, _), .., (last, _)] => first >= last,
                _ => true,
            };
            let places = piece
                .iter()
                .filter_map(|(along, value)| Some((self.along.x(*along), axis.y((*value)?))));
            for (number, (x, y)) in places.enumerate() {
                let step = if number == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{step}{x:.1} {y:.1}");
                if is_dot && number == 0 {
                    let class = series.class;
                    let _ = write!(
                        dots,
                        "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"
                    );
                }
            }
        }
        if path.is_empty() {
            return String::new();
        }
        format!("<path class=\"{}\" d=\"{path}\"/>{dots}", series.class)
    }
}

impl Along {
    fn x(self, place: f64) -> f64 {
        let until = match self {
            Self::Time { until_s } => until_s,
            Self::Nines { until } => until,
        };
        let part = (place / until.max(1e-9)).clamp(0.0, 1.0);
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }

    fn ticks(self) -> Vec<(f64, String)> {
        match self {
            Self::Time { until_s } => {
                let fits = |step: &&f64| until_s / **step <= TIME_TICKS;
                let longest = (until_s / TIME_TICKS / 86_400.0).ceil() * 86_400.0;
                let step = TIME_STEPS_S.iter().find(fits).copied().unwrap_or(longest);
                let steps = (0..).map(|number| f64::from(number) * step);
                let steps = steps.take_while(|at_s| *at_s <= until_s);
                steps.map(|at_s| (at_s, time_of(at_s))).collect()
            }
            Self::Nines { until } => {
                let shares = [
                    (0.0, "0"),
                    (0.5, "50 %"),
                    (0.9, "90 %"),
                    (0.99, "99 %"),
                    (0.999, "99.9 %"),
                    (0.9999, "99.99 %"),
                    (0.99999, "99.999 %"),
                    (0.999_999, "99.9999 %"),
                ];
                let places = shares.map(|(share, name)| (nines(share), name.to_owned()));
                // The middle of the first nine is named only where there is room.
                let is_wide = until < 3.5;
                let mut ticks: Vec<(f64, String)> = places.into();
                ticks.retain(|(place, name)| *place <= until + 1e-9 && (is_wide || name != "50 %"));
                ticks
            }
        }
    }
}

impl Axis {
    fn linear(values: impl Iterator<Item = f64>) -> Self {
        let largest = values.fold(0.0, f64::max);
        let step = nice_step(largest / VALUE_TICKS);
        let count = (largest / step).ceil().max(1.0);
        let ticks = (0..=count as u32).map(|number| f64::from(number) * step);
        Self {
            from: 0.0,
            to: count * step,
            values: Values::Linear,
            ticks: ticks.collect(),
        }
    }

    fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let positive = values.filter(|value| *value > 0.0);
        let (smallest, largest) = positive.fold((f64::MAX, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if largest == 0.0 {
            return Self {
                from: 0.001,
                to: 1.0,
                values: Values::Logarithmic,
                ticks: vec![0.001, 0.01, 0.1, 1.0],
            };
        }
        let from = smallest.log10().floor();
        let to = largest.log10().ceil().max(from + 1.0);
        // At most five decades have a label each; between few of them, 2 and 5 have one too.
        let stride = ((to - from) / 5.0).ceil() as usize;
        let parts: &[f64] = if to - from <= 2.0 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let mut ticks = Vec::new();
        for decade in (from as i32..=to as i32).step_by(stride) {
            ticks.extend(parts.iter().map(|part| part * 10_f64.powi(decade)));
        }
        let (from, to) = (10_f64.powf(from), 10_f64.powf(to));
        ticks.retain(|tick| *tick <= to * 1.000_1);
        Self {
            from,
            to,
            values: Values::Logarithmic,
            ticks,
        }
    }

    fn y(&self, value: f64) -> f64 {
        let part = match self.values {
            Values::Linear => (value - self.from) / (self.to - self.from),
            Values::Logarithmic => {
                let value = value.max(self.from);
                (value / self.from).log10() / (self.to / self.from).log10()
            }
        };
        HEIGHT - BOTTOM - part.clamp(0.0, 1.0) * (HEIGHT - BOTTOM - TOP)
    }
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn nice_step(step: f64) -> f64 {
    if step <= 0.0 || !step.is_finite() {
        return 1.0;
    }
    let decade = 10_f64.powf(step.log10().floor());
    let parts = [1.0, 2.0, 5.0, 10.0];
    let nice = parts.iter().find(|part| *part * decade >= step * 0.999_9);
    nice.unwrap_or(&10.0) * decade
}

/// `0:05`, `12:30`, `1:05:00`.
fn time_of(at_s: f64) -> String {
    let seconds = at_s as u64;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// Text for HTML and attributes; what XML cannot hold is replaced.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(' '),
            _ if letter.is_control() || matches!(letter, '\u{FFFE}' | '\u{FFFF}') => {
                escaped.push('\u{FFFD}');
            }
            _ => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers_around_their_values() {
        check_linear(&[0.0, 37.0], &[0.0, 10.0, 20.0, 30.0, 40.0]);
        check_linear(&[], &[0.0, 1.0]);
        check_linear(&[0.03], &[0.0, 0.01, 0.02, 0.03]);
        let axis = Axis::logarithmic([0.03, 40.0].into_iter());
        assert_eq!((axis.from, axis.to, axis.ticks.len()), (0.01, 100.0, 5));
        for values in [&[][..], &[0.0], &[1.0], &[1e-6, 1e6]] {
            let axis = Axis::logarithmic(values.iter().copied());
            assert!((2..=7).contains(&axis.ticks.len()), "{values:?}");
            assert!(axis.from < axis.to);
        }
    }

    #[test]
    fn time_axes_have_few_labels_however_long_the_run() {
        for until_s in [0.4, 1.0, 7.0, 60.0, 3_000.0, 86_400.0, 1e7] {
            let ticks = Along::Time { until_s }.ticks();
            assert!((1..=8).contains(&ticks.len()), "{until_s}: {ticks:?}");
        }
        assert_eq!(time_of(3_905.0), "1:05:05");
    }

    #[test]
    fn lines_break_where_nothing_was_measured() {
        let chart = Chart {
            title: "<t>".to_owned(),
            along: Along::Time { until_s: 4.0 },
            values: Values::Linear,
            text: |value| value.to_string(),
            series: vec![Series {
                name: "a&b",
                class: "s1",
                points: vec![
                    (0.0, Some(1.0)),
                    (1.0, Some(2.0)),
                    (2.0, None),
                    (3.0, Some(1.0)),
                ],
            }],
            marks: vec![(3.9, "kill".to_owned())],
        };
        let figure = chart.figure();
        assert_eq!(figure.matches('M').count(), 2, "{figure}");
        assert_eq!(figure.matches("<circle").count(), 1);
        roxmltree::Document::parse(&figure).unwrap();
    }

    fn check_linear(values: &[f64], ticks: &[f64]) {
        let axis = Axis::linear(values.iter().copied());
        let is_near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9;
        assert_eq!(axis.ticks.len(), ticks.len(), "{:?}", axis.ticks);
        assert!(
            axis.ticks.iter().zip(ticks).all(is_near),
            "{:?}",
            axis.ticks
        );
    }
}
