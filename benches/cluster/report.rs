//! What was measured, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use crate::scale::{Measured, Waiting};

/// Floor and operator on one shape, in alternating pairs.
#[derive(Debug, Serialize)]
pub struct Pairs {
    /// The shape.
    pub shape: String,
    /// How many tasks it has.
    pub tasks: usize,
    /// Seconds of each run of the floor.
    pub floor: Vec<f64>,
    /// Seconds of each run of the operator.
    pub operator: Vec<f64>,
    /// Floor's time by operator's time, of each pair: 1 is as fast as can be.
    pub ratios: Vec<f64>,
    /// The median of `ratios`.
    pub ratio: f64,
}

/// From a pod seen as succeeded to the next Job seen as stored.
#[derive(Debug, Serialize)]
pub struct HandOff {
    /// The shape.
    pub shape: String,
    /// Runs that were pooled.
    pub runs: usize,
    /// Links of all runs.
    pub samples: usize,
    /// Milliseconds.
    pub p50: f64,
    /// Milliseconds.
    pub p99: f64,
    /// Milliseconds.
    pub max: f64,
}

/// Everything.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Where the operator ran.
    pub operator: String,
    /// Throughput.
    pub pairs: Vec<Pairs>,
    /// Latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hand_off: Option<HandOff>,
    /// What size costs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scale: Vec<Measured>,
    /// What waiting costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
}

impl Pairs {
    /// Of the seconds of both.
    pub fn new(shape: String, tasks: usize, floor: Vec<f64>, operator: Vec<f64>) -> Self {
        let ratios: Vec<f64> = floor.iter().zip(&operator).map(|(floor, operator)| floor / operator).collect();
        let ratio = quantile(&ratios, 0.5);
        Self { shape, tasks, floor, operator, ratios, ratio }
    }
}

impl HandOff {
    /// Of the milliseconds of all links.
    pub fn new(shape: String, runs: usize, links: &[f64]) -> Self {
        Self {
            shape,
            runs,
            samples: links.len(),
            p50: quantile(links, 0.5),
            p99: quantile(links, 0.99),
            max: quantile(links, 1.0),
        }
    }
}

/// The smallest value that at least this part of the values does not exceed; not a number where there is none.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let place = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "operator: {}", self.operator)?;
        if !self.pairs.is_empty() {
            writeln!(
                f,
                "{:<12} {:>6} {:>10} {:>10} {:>8} {:>12} {:>7}",
                "shape", "pairs", "floor s", "operator s", "tasks/s", "floor tasks/s", "ratio"
            )?;
        }
        for pairs in &self.pairs {
            let (floor, operator) = (quantile(&pairs.floor, 0.5), quantile(&pairs.operator, 0.5));
            #[allow(clippy::cast_precision_loss)]
            let tasks = pairs.tasks as f64;
            writeln!(
                f,
                "{:<12} {:>6} {floor:>10.2} {operator:>10.2} {:>8.1} {:>12.1} {:>7.2}",
                pairs.shape,
                pairs.floor.len(),
                tasks / operator,
                tasks / floor,
                pairs.ratio
            )?;
        }
        if let Some(HandOff { shape, runs, samples, p50, p99, max }) = &self.hand_off {
            writeln!(
                f,
                "hand-off, {shape}, {runs} runs, {samples} links: p50 {p50:.1} ms, p99 {p99:.1} ms, longest {max:.1} ms"
            )?;
        }
        self.write_scale(f)
    }
}

impl Report {
    fn write_scale(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.scale.is_empty() {
            writeln!(f, "{:<24} {:>6} {:>8} {:>8} {:>18}", "load", "tasks", "seconds", "tasks/s", "by small graphs'")?;
        }
        for Measured { name, tasks, seconds, ratio } in &self.scale {
            #[allow(clippy::cast_precision_loss)]
            let rate = *tasks as f64 / seconds;
            writeln!(f, "{name:<24} {tasks:>6} {seconds:>8.1} {rate:>8.1} {ratio:>18.2}")?;
        }
        if let Some(Waiting { tasks, before, during, cpu, over }) = &self.waiting {
            writeln!(
                f,
                "{tasks} waiting tasks: the operator takes {during:.1} MiB ({before:.1} before), {cpu:.2} s of CPU in {over:.0} s"
            )?;
        }
        Ok(())
    }
}
