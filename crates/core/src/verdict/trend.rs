//! The trend of a cluster's drills as a drawing needs it: how high each one's bar is, and where the objective's line lies. One scale for
//! the sentinel's page and for reports. It is logarithmic: a recovery takes milliseconds, and may take a quarter of an hour.

use super::drill::{drill_outcome, recovery_millis};
use super::duration;
use crate::message::{DrillReport, DrillResult};

/// How many drills are drawn: as many as a telephone's screen has room for.
pub const TREND_MAX: usize = 32;

/// The drawing, from the bottom (0) to the top (1).
#[derive(Debug, Clone, PartialEq)]
pub struct Trend<'a> {
    /// Each drill, the oldest first.
    pub bars: Vec<Bar<'a>>,
    /// How long a recovery may take, as the latest says, and where that lies.
    pub objective: Option<(f64, String)>,
    /// The scale.
    pub marks: Vec<(f64, String)>,
}

/// One drill.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar<'a> {
    /// What it is of.
    pub report: &'a DrillReport,
    /// How high it is; none where there was no recovery to measure.
    pub height: Option<f64>,
    /// What came of it.
    pub result: DrillResult,
    /// The same in words.
    pub said: String,
}

/// The trend of drills that are over, the latest first, of which the first [`TREND_MAX`] are taken; not of those that people had to approve,
/// which measure something else. None where no recovery was measured.
pub fn trend<'a>(latest_first: impl IntoIterator<Item = &'a DrillReport>) -> Option<Trend<'a>> {
    let by_itself = latest_first.into_iter().filter(|report| !report.people);
    let over = by_itself.filter_map(|report| Some((report, report.result?)));
    let mut drills: Vec<_> = over.take(TREND_MAX).collect();
    let objective = drills.first().map(|(report, _)| report.objective_ms as f64);
    drills.reverse();
    let measured = drills.iter().filter_map(|(report, _)| recovery_millis(report));
    let (least, most) = measured.chain(objective).fold(None, |range: Option<(f64, f64)>, millis| {
        let (least, most) = range.unwrap_or((millis, millis));
        Some((least.min(millis), most.max(millis)))
    })?;
    drills.iter().find_map(|(report, _)| report.recovery_us)?;
    let first = decade(least).floor();
    let (bottom, top) = (first - 0.2, decade(most).ceil().max(first + 1.0));
    let height = |millis: f64| ((decade(millis) - bottom) / (top - bottom)).clamp(0.0, 1.0);
    let decades = std::iter::successors(Some(first), |at| Some(at + 1.0)).take_while(|at| *at <= top);
    let marks = decades.map(|at| 10_f64.powf(at)).map(|millis| (height(millis), mark(millis))).collect();
    let bars = drills.iter().map(|(report, result)| {
        let node = report.node.as_ref().map_or("no node", |node| node.as_str());
        let said = format!("{}, {node}, {}", report.began_at, drill_outcome(report));
        Bar { report, height: recovery_millis(report).map(height), result: *result, said }
    });
    let objective = objective.filter(|millis| *millis > 0.0).map(|millis| (height(millis), duration(millis)));
    Some(Trend { bars: bars.collect(), objective, marks })
}

/// "100 ms", "10 s"
fn mark(millis: f64) -> String {
    if millis < 1_000.0 { format!("{millis} ms") } else { format!("{} s", millis / 1_000.0) }
}

/// The power of ten, of a millisecond. Nothing is faster than one of its thousandths, or it is not shown.
fn decade(millis: f64) -> f64 {
    millis.max(0.001).log10()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::drill::tests::over;

    #[test]
    fn slower_is_higher_and_the_objective_lies_between() {
        let drills = [
            over(DrillResult::Late, Some(60_000_000)),
            over(DrillResult::Refused, None),
            over(DrillResult::Passed, Some(41_200)),
            over(DrillResult::Passed, Some(400_000)),
        ];
        let drawn = trend(&drills).expect("a trend");
        let heights: Vec<_> = drawn.bars.iter().map(|bar| bar.height).collect();
        let [Some(slow), Some(fast), None, Some(late)] = heights[..] else { panic!("{heights:?}") };
        let (objective, said) = drawn.objective.clone().expect("an objective");
        assert!(0.0 < fast && fast < slow && slow < objective && objective < late && late <= 1.0, "{drawn:?}");
        assert_eq!(said, "30.0 s");
        let marks: Vec<_> = drawn.marks.iter().map(|(_, said)| said.as_str()).collect();
        assert_eq!(marks, ["10 ms", "100 ms", "1 s", "10 s", "100 s"]);
        assert!(
            drawn.marks.is_sorted_by(|a, b| a.0 < b.0) && drawn.marks.iter().all(|(at, _)| (0.0..=1.0).contains(at))
        );
    }

    #[test]
    fn whatever_is_told_can_be_drawn() {
        assert_eq!(trend([]), None);
        assert_eq!(trend(&[over(DrillResult::Refused, None)]), None);
        for took in [0, 1, u64::MAX] {
            let mut drill = over(DrillResult::Passed, Some(took));
            for objective in [0, 1, u64::MAX] {
                drill.objective_ms = objective;
                let many = vec![drill.clone(); 50];
                let drawn = trend(&many).expect("a trend");
                assert_eq!(drawn.bars.len(), TREND_MAX);
                assert!(drawn.marks.len() <= 24, "{}", drawn.marks.len());
                let heights = drawn.bars.iter().filter_map(|bar| bar.height).chain(drawn.objective.iter().map(|o| o.0));
                assert!(heights.into_iter().all(|height| (0.0..=1.0).contains(&height)), "{drawn:?}");
            }
        }
    }
}
