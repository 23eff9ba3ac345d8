use std::fmt::Write as _;

use serde_json::json;

use crate::timing::{Comparison, Difference};

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    suite: String,
    rows: Vec<Row>,
    comparisons: Vec<(String, String, Comparison)>,
}

#[derive(Debug)]
struct Row {
    suite: String,
    what: String,
    unit: &'static str,
    figure: Figure,
    /// What stands beside it, how it did in the same rounds, and the ratio in them.
    peer: Option<(String, Figure, Figure)>,
}

/// Several measurements of the same.
#[derive(Debug)]
struct Figure {
    median: f64,
    /// All but a tenth are not below it.
    low: f64,
    /// All but a tenth are not above it.
    high: f64,
}

impl Figure {
    fn of(rounds: &[f64]) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
        Self { median: at(sorted.len() / 2), low: at(last / 10), high: at(last - last / 10) }
    }
}

impl Report {
    pub(crate) fn suite(&mut self, name: &str) {
        name.clone_into(&mut self.suite);
    }

    /// Ours and the peer's measurements, of the same rounds.
    pub(crate) fn beside(
        &mut self,
        what: &str,
        unit: &'static str,
        ours: &[f64],
        peer: &str,
        theirs: &[f64],
    ) {
        let ratios: Vec<_> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        self.push(what, unit, ours, Some((peer.to_owned(), Figure::of(theirs), Figure::of(&ratios))));
    }

    pub(crate) fn alone(&mut self, what: &str, unit: &'static str, rounds: &[f64]) {
        self.push(what, unit, rounds, None);
    }

    /// How the times of two classes of requests differ, in microseconds.
    pub(crate) fn comparison(&mut self, what: &str, beside: &str, times: &[Vec<f64>; 2]) {
        self.comparisons.push((what.to_owned(), beside.to_owned(), Comparison::of(times)));
    }

    fn push(
        &mut self,
        what: &str,
        unit: &'static str,
        rounds: &[f64],
        peer: Option<(String, Figure, Figure)>,
    ) {
        let (suite, what) = (self.suite.clone(), what.to_owned());
        self.rows.push(Row { suite, what, unit, figure: Figure::of(rounds), peer });
    }

    pub(crate) fn to_table(&self) -> String {
        let mut table = String::new();
        if !self.rows.is_empty() {
            table += "suite | what | median (tenth to ninetieth percentile) | beside | ratio\n---|---|---|---|---\n";
        }
        for Row { suite, what, unit, figure, peer } in &self.rows {
            let told =
                |Figure { median, low, high }: &Figure| format!("{median:.0} ({low:.0} to {high:.0}) {unit}");
            let (beside, ratio) = match peer {
                Some((name, theirs, Figure { median, low, high })) => {
                    (format!("{name}: {}", told(theirs)), format!("{median:.3} ({low:.2} to {high:.2})"))
                }
                None => Default::default(),
            };
            // Writing to a String does not fail.
            let _ = writeln!(table, "{suite} | {what} | {} | {beside} | {ratio}", told(figure));
        }
        if !self.comparisons.is_empty() {
            table += "what | beside | samples | medians, us | difference of medians | of means below the 90th \
                      percentile | largest t (crop)\n---|---|---|---|---|---|---\n";
        }
        for (what, beside, Comparison { samples, medians, median, mean, t, crop }) in &self.comparisons {
            let told = |Difference { value, side }: &Difference| format!("{value:+.2} ± {side:.2}");
            let _ = writeln!(
                table,
                "{what} | {beside} | {}, {} | {:.1}, {:.1} | {} | {} | {t:.1} ({crop})",
                samples[0],
                samples[1],
                medians[0],
                medians[1],
                told(median),
                told(mean),
            );
        }
        table
    }

    pub(crate) fn to_json(&self) -> String {
        let figure =
            |Figure { median, low, high }: &Figure| json!({ "median": median, "p10": low, "p90": high });
        let rows = self.rows.iter().map(|row| {
            let mut value = json!({
                "suite": row.suite, "what": row.what, "unit": row.unit, "figure": figure(&row.figure),
            });
            if let Some((name, theirs, ratio)) = &row.peer {
                value["beside"] = json!({ "what": name, "figure": figure(theirs) });
                value["ratio"] = figure(ratio);
            }
            value
        });
        let difference =
            |Difference { value, side }: &Difference| json!({ "value": value, "plus_or_minus": side });
        let comparisons =
            self.comparisons.iter().map(|(what, beside, Comparison { samples, medians, median, mean, t, crop })| {
                json!({
                    "suite": "timing", "what": what, "beside": beside, "unit": "us", "samples": samples,
                    "medians": medians, "difference_of_medians": difference(median),
                    "difference_of_means_below_90th_percentile": difference(mean), "largest_t": t, "crop": crop,
                })
            });
        serde_json::Value::from_iter(rows.chain(comparisons)).to_string()
    }
}
