//! Prometheus' text format, written by hand: for programs that tell a few dozen numbers and have to stay small.
//!
//! The library that the sentinel renders its histogram with costs a custodian's program some 270 KB, to do what is done here.
//! What does not live here: any number, and any name.

use std::fmt::Write as _;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gauge,
    Counter,
}

/// Metrics on their way to text.
#[derive(Debug)]
pub struct Exposition {
    families: Vec<Family>,
}

#[derive(Debug)]
struct Family {
    name: &'static str,
    meaning: &'static str,
    kind: Kind,
    samples: String,
}

impl Exposition {
    /// With these gauges and counters, each with its meaning; nothing is told of any yet. What is not among them is not told.
    pub fn new(
        gauges: &'static [(&'static str, &'static str)],
        counters: &'static [(&'static str, &'static str)],
    ) -> Self {
        let family = |kind, all: &'static [(&'static str, &'static str)]| {
            all.iter().map(move |(name, meaning)| Family { name, meaning, kind, samples: String::new() })
        };
        Self { families: family(Kind::Gauge, gauges).chain(family(Kind::Counter, counters)).collect() }
    }

    /// Tells a number, with these labels.
    pub fn tell(&mut self, name: &str, labels: &[(&str, &str)], value: impl Into<f64>) {
        let found = self.families.iter_mut().find(|family| family.name == name);
        debug_assert!(found.is_some(), "{name} has no meaning");
        let Some(Family { name, samples, .. }) = found else { return };
        samples.push_str(name);
        for (number, (label, value)) in labels.iter().enumerate() {
            samples.push(if number == 0 { '{' } else { ',' });
            let _ = write!(samples, "{label}=\"{}\"", escaped(value));
        }
        samples.push_str(if labels.is_empty() { " " } else { "} " });
        // A float is written so that it reads back as it was, and a whole number as one.
        let _ = writeln!(samples, "{}", value.into());
    }

    /// All that was told.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for Family { name, meaning, kind, samples } in self.families.iter().filter(|family| !family.samples.is_empty())
        {
            let kind = if *kind == Kind::Gauge { "gauge" } else { "counter" };
            let _ = write!(text, "# HELP {name} {meaning}\n# TYPE {name} {kind}\n{samples}\n");
        }
        text
    }
}

/// A label's value between its quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_prometheus_reads() {
        let mut told = Exposition::new(&[("a", "One"), ("never", "Two")], &[("b_total", "Three")]);
        told.tell("b_total", &[("x", "1")], 7u32);
        told.tell("a", &[], 0.5);
        told.tell("a", &[("x", "a\"b\\c\nd"), ("y", "é")], true);
        told.tell("a", &[("x", "")], 1_800_000_000.25);
        assert_eq!(
            told.render(),
            "# HELP a One\n# TYPE a gauge\na 0.5\na{x=\"a\\\"b\\\\c\\nd\",y=\"é\"} 1\na{x=\"\"} 1800000000.25\n\n\
             # HELP b_total Three\n# TYPE b_total counter\nb_total{x=\"1\"} 7\n\n"
        );
    }
}
