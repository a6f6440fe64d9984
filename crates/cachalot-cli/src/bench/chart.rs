//! Bars for the terminal.

use std::fmt::Write as _;

/// One bar: its name, its length and the figure printed behind it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Bar {
    /// What the bar stands for.
    pub(crate) label: String,
    /// Its length, in any unit; never negative.
    pub(crate) value: f64,
    /// The figure as text.
    pub(crate) text: String,
}

const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// Draws the bars under a title, the longest `width` characters long.
pub(crate) fn render(title: &str, bars: &[Bar], width: usize) -> String {
    let longest = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let label_width = bars.iter().map(|bar| bar.label.chars().count()).max();
    let label_width = label_width.unwrap_or(0);
    let mut chart = format!("{title}\n");
    for bar in bars {
        let share = if longest > 0.0 {
            (bar.value / longest).clamp(0.0, 1.0)
        } else {
            0.0
        };
        let blocks = bar_blocks(share, width);
        writeln!(
            chart,
            "  {:label_width$} {blocks:width$} {}",
            bar.label, bar.text
        )
        .unwrap_or_default();
    }
    chart
}

/// A bar of `share` of `width` characters, to an eighth; a share above nothing shows at least one eighth.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share from 0 to 1 of a terminal's width"
)]
fn bar_blocks(share: f64, width: usize) -> String {
    let eighths = (share * width as f64 * 8.0).round() as usize;
    let eighths = if share > 0.0 { eighths.max(1) } else { 0 };
    let mut blocks = "█".repeat(eighths / 8);
    if let Some(partial) = EIGHTHS.get(eighths % 8).filter(|_| eighths % 8 > 0) {
        blocks.push(*partial);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(label: &str, value: f64) -> Bar {
        Bar {
            label: label.to_owned(),
            value,
            text: format!("{value}"),
        }
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let chart = render(
            "speed",
            &[bar("cache", 8.0), bar("direct", 3.0), bar("none", 0.0)],
            4,
        );
        assert_eq!(
            chart,
            "speed\n  cache  ████ 8\n  direct █▌   3\n  none        0\n"
        );
    }

    #[test]
    fn a_tiny_value_still_shows_and_nothing_at_all_is_no_bar() {
        assert_eq!(bar_blocks(0.000_001, 10), "▏");
        assert_eq!(bar_blocks(1.0, 10), "█".repeat(10));
        let empty = render("x", &[bar("a", 0.0)], 3);
        assert_eq!(empty, "x\n  a     0\n");
        assert_eq!(render("x", &[], 3), "x\n");
    }
}
