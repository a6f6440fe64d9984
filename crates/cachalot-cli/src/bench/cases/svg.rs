//! The figures beside their goals as a picture: bars on a logarithmic scale.

use std::fmt::Write as _;

use super::goals::GOALS;
use super::report::CaseReport;
use crate::bench::report::human_nanos;

const WIDTH: f64 = 860.0;
const LABEL_WIDTH: f64 = 270.0;
const BAR_WIDTH: f64 = 500.0;
const ROW_HEIGHT: f64 = 38.0;
const HEAD_HEIGHT: f64 = 58.0;
const FOOT_HEIGHT: f64 = 14.0;
/// The ends of the scale, as powers of ten of nanoseconds.
const SCALE: (f64, f64) = (1.0, 8.0);

/// How far right a time lies.
fn right_of(nanos: f64) -> f64 {
    let (first, last) = SCALE;
    let share = (nanos.max(1.0).log10() - first) / (last - first);
    LABEL_WIDTH + share.clamp(0.0, 1.0) * BAR_WIDTH
}

/// Draws those of the goals that were measured and have a figure to compare with.
pub(crate) fn draw(cases: &[CaseReport]) -> String {
    let rows: Vec<(&str, [f64; 3])> = GOALS
        .iter()
        .filter(|goal| goal.theirs_ns.is_finite())
        .filter_map(|goal| {
            let median = goal.found(cases)?.median;
            Some((goal.what, [goal.theirs_ns, median, goal.goal_ns]))
        })
        .collect();
    let bottom = HEAD_HEIGHT + rows.len() as f64 * ROW_HEIGHT;
    let height = bottom + FOOT_HEIGHT;
    let mut svg = String::new();
    let mut add = |text: String| svg.write_str(&text).unwrap_or_default();
    add(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"8\" y=\"18\" font-size=\"14\">Time of an operation, shorter is better; each line is ten times \
         the one before</text>\n\
         <rect x=\"8\" y=\"28\" width=\"12\" height=\"8\" fill=\"#b0b0b0\"/><text x=\"24\" y=\"36\">C++ cache</text>\n\
         <rect x=\"100\" y=\"28\" width=\"12\" height=\"8\" fill=\"#1f6f9f\"/><text x=\"116\" y=\"36\">Cachalot</text>\n\
         <rect x=\"190\" y=\"26\" width=\"2\" height=\"12\" fill=\"#c04020\"/><text x=\"198\" y=\"36\">goal</text>\n"
    ));
    for power in 1..=8 {
        let x = right_of(10_f64.powi(power));
        add(format!(
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{HEAD_HEIGHT}\" y2=\"{bottom:.1}\" stroke=\"#e0e0e0\"/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#707070\" font-size=\"10\">{}</text>\n",
            HEAD_HEIGHT - 4.0,
            human_nanos(10_f64.powi(power))
        ));
    }
    for (number, (what, [theirs, ours, goal])) in rows.into_iter().enumerate() {
        let top = HEAD_HEIGHT + number as f64 * ROW_HEIGHT + 6.0;
        add(format!(
            "<text x=\"8\" y=\"{:.1}\">{what}</text>\n",
            top + 17.0
        ));
        for (nanos, y, color) in [(theirs, top, "#b0b0b0"), (ours, top + 13.0, "#1f6f9f")] {
            let right = right_of(nanos);
            add(format!(
                "<rect x=\"{LABEL_WIDTH}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"11\" fill=\"{color}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\">{}</text>\n",
                right - LABEL_WIDTH,
                right + 4.0,
                y + 9.5,
                human_nanos(nanos)
            ));
        }
        add(format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"2\" height=\"28\" fill=\"#c04020\"/>\n",
            right_of(goal) - 1.0,
            top - 2.0
        ));
    }
    add("</svg>\n".to_owned());
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_ten_times_as_long_lies_as_far_right_everywhere() {
        let step = right_of(1e3) - right_of(1e2);
        assert!(((right_of(1e6) - right_of(1e5)) - step).abs() < 1e-9);
        assert!(right_of(0.0) >= LABEL_WIDTH && right_of(1e12) <= LABEL_WIDTH + BAR_WIDTH);
    }

    #[test]
    fn a_picture_of_nothing_is_still_one() {
        let svg = draw(&[]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }
}
