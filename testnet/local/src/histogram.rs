//! Quantiles from a Prometheus histogram.

/// A histogram's cumulative buckets: upper bound in the metric's unit and count, ascending; the last is `+Inf`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    /// The histogram `name` in a scrape of Prometheus' or OpenMetrics' text format; without buckets if there is none.
    /// Series with different labels are added up.
    pub fn parse(scrape: &str, name: &str) -> Self {
        let mut all = Self::default();
        for line in scrape.lines() {
            let Some(rest) = line.strip_prefix(name).and_then(|r| r.strip_prefix("_bucket{")) else { continue };
            let Some((labels, value)) = rest.split_once('}') else { continue };
            let bound = labels.split(',').find_map(|l| l.trim().strip_prefix("le=\"")?.strip_suffix('"'));
            let value = value.split_whitespace().next().and_then(|v| v.parse::<f64>().ok());
            if let (Some(bound), Some(count)) = (bound.and_then(|b| b.parse::<f64>().ok()), value) {
                all.0.push((bound, count));
            }
        }
        Self::default().plus(&all)
    }

    /// The sum of two histograms with the same bounds.
    pub fn plus(&self, other: &Self) -> Self {
        let mut sum = self.0.clone();
        for (bound, count) in &other.0 {
            match sum.iter_mut().find(|(b, _)| b == bound) {
                Some((_, total)) => *total += count,
                None => sum.push((*bound, *count)),
            }
        }
        sum.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self(sum)
    }

    /// What was counted since `earlier`. A restarted process counts from zero again: its counts are never negative.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |bound: f64| earlier.0.iter().find(|(b, _)| *b == bound).map_or(0.0, |(_, c)| *c);
        Self(self.0.iter().map(|(bound, count)| (*bound, (count - before(*bound)).max(0.0))).collect())
    }

    /// The quantile `q` (0 to 1), interpolated within its bucket; none if nothing was counted.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.0.last().map(|(_, c)| *c).filter(|c| *c > 0.0)?;
        let rank = q * total;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count >= rank {
                // Nothing is known of values above the last finite bound.
                if bound.is_infinite() {
                    return Some(lower);
                }
                let inside = count - below;
                let share = if inside > 0.0 { (rank - below) / inside } else { 1.0 };
                return Some(lower + (bound - lower) * share);
            }
            (lower, below) = (*bound, *count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAPE: &str = "\
# TYPE switchyard_finality_seconds histogram
switchyard_finality_seconds_sum 12.5
switchyard_finality_seconds_count 100
switchyard_finality_seconds_bucket{le=\"0.25\"} 10
switchyard_finality_seconds_bucket{le=\"0.5\"} 60
switchyard_finality_seconds_bucket{le=\"+Inf\"} 100
switchyard_other_bucket{le=\"1\"} 5
";

    #[test]
    fn quantiles_are_interpolated_within_their_bucket() {
        let histogram = Histogram::parse(SCRAPE, "switchyard_finality_seconds");
        assert_eq!(histogram.quantile(0.1), Some(0.25));
        assert_eq!(histogram.quantile(0.35), Some(0.375));
        assert_eq!(histogram.quantile(0.99), Some(0.5), "above the last finite bound");
        assert_eq!(Histogram::parse(SCRAPE, "switchyard_missing").quantile(0.5), None);
    }

    #[test]
    fn series_add_up_and_a_restart_counts_from_zero() {
        let labelled = "x_bucket{rollup=\"1\",le=\"1.0\"} 2\nx_bucket{rollup=\"2\",le=\"1.0\"} 3\n";
        assert_eq!(Histogram::parse(labelled, "x"), Histogram(vec![(1.0, 5.0)]));
        let after = Histogram(vec![(1.0, 4.0)]);
        assert_eq!(after.since(&Histogram(vec![(1.0, 5.0)])), Histogram(vec![(1.0, 0.0)]));
        assert_eq!(after.since(&Histogram(vec![(1.0, 0.0)])).quantile(0.5), Some(0.5));
    }
}
