//! Many measurements in a few numbers.

/// Measurements in order.
#[derive(Debug, Clone)]
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    /// At least one measurement; none of them is NaN.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The smallest value that `percent` of all do not exceed (nearest rank).
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or(f64::NAN)
    }

    pub(crate) fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    pub(crate) fn least(&self) -> f64 {
        self.0.first().copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn greatest(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let spread = Spread::of((1..=300).rev().map(f64::from).collect());
        assert_eq!(spread.percentile(50), 150.0);
        assert_eq!(spread.percentile(99), 297.0);
        assert_eq!(spread.mean(), 150.5);
        assert_eq!((spread.least(), spread.greatest()), (1.0, 300.0));
        assert_eq!(Spread::of(vec![7.0]).percentile(50), 7.0);
    }
}
