//! What pages share, the sentinel's and that of a drill's report: the colours of states, and the drawing of the last drills' trend.
//! What is drawn, the core decides (`verdict::trend`). Across, places are percentages and letters keep their size, so that it can be read
//! on a telephone.

use holdfast_core::id::DrillId;
use holdfast_core::verdict::Trend;
use maud::{Markup, html};

/// The sheet that goes before a page's own.
pub const STYLE: &str = include_str!("page.css");

/// The height of the trend's bars, in pixels; of what is above them, and below: a mark.
const BARS: f64 = 120.0;
const ABOVE: f64 = 18.0;
const BELOW: f64 = 22.0;

/// How much of the width the scale's words take, in percent.
const SCALE: f64 = 13.0;

/// A few drills are drawn as narrow as this many.
const NARROW: usize = 12;

/// The trend: a bar for each drill, the oldest first, and a line for the objective. The drill that a page is about is marked.
pub fn trend(trend: &Trend<'_>, about: Option<&DrillId>) -> Markup {
    let y = |height: f64| ABOVE + BARS * (1.0 - height);
    let below = about.map_or(BELOW / 4.0, |_| BELOW);
    let step = (100.0 - SCALE) / trend.bars.len().max(NARROW) as f64;
    html! {
        svg class="trend" width="100%" height=(px(ABOVE + BARS + below)) role="img" aria-label="Recovery in the last drills" {
            @for (height, said) in &trend.marks {
                line class="grid" x1=(percent(SCALE)) x2="100%" y1=(px(y(*height))) y2=(px(y(*height))) {}
                text x=(percent(SCALE)) dx="-6" y=(px(y(*height) + 4.0)) text-anchor="end" { (said) }
            }
            @for (number, bar) in trend.bars.iter().enumerate() {
                @let x = SCALE + step * number as f64;
                @let this = about == Some(&bar.report.drill);
                g class={ (bar.result.as_str()) @if this { " this" } } {
                    title { (bar.said) }
                    @match bar.height {
                        Some(height) => {
                            rect x=(percent(x + step * 0.15)) width=(percent(step * 0.7)) y=(px(y(height)))
                                height=(px((BARS * height).max(1.0))) {}
                        },
                        None => {
                            text x=(percent(x + step / 2.0)) y=(px(ABOVE + BARS - 4.0)) text-anchor="middle" { "×" }
                        },
                    }
                    @if this {
                        text x=(percent(x + step / 2.0)) y=(px(ABOVE + BARS + 15.0)) text-anchor="middle" { "▲" }
                    }
                }
            }
            @if let Some((height, said)) = &trend.objective {
                line class="objective" x1=(percent(SCALE)) x2="100%" y1=(px(y(*height))) y2=(px(y(*height))) {}
                text class="objective" x="100%" y=(px(y(*height) - 5.0)) text-anchor="end" { "objective " (said) }
            }
        }
    }
}

/// A place across a drawing, as SVG has it.
pub fn percent(part: f64) -> String {
    format!("{part:.2}%")
}

fn px(length: f64) -> String {
    format!("{length:.1}")
}
