/// Of both classes together: times above these are left out, once for each.
const CROPS: [f64; 8] = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];

/// The crop of which the means are told: the tail is the machine's.
const TOLD_CROP: f64 = 0.9;

/// Standard errors on each side of an interval of 95 %.
const SIDE: f64 = 1.96;

/// A difference and half the width of its interval of 95 %.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Difference {
    pub(crate) value: f64,
    pub(crate) side: f64,
}

/// How the times of two classes differ: the first less the second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparison {
    pub(crate) samples: [usize; 2],
    pub(crate) medians: [f64; 2],
    pub(crate) median: Difference,
    /// Of the times below the ninetieth percentile.
    pub(crate) mean: Difference,
    /// The largest of Welch's |t| over the crops, and its crop. Of what does not differ it is below 4.5 all
    /// but always.
    pub(crate) t: f64,
    pub(crate) crop: f64,
}

impl Comparison {
    pub(crate) fn of([one, other]: &[Vec<f64>; 2]) -> Self {
        let [one, other] = [one, other].map(|times| sorted(times));
        let pooled = sorted(&[one.as_slice(), &other].concat());
        let welch = |crop| {
            let limit = at(&pooled, crop);
            Welch::of(below(&one, limit), below(&other, limit))
        };
        let all = CROPS.map(|crop| (welch(crop).t().abs(), crop));
        let (t, crop) = all.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
        let told = welch(TOLD_CROP);
        let medians = [at(&one, 0.5), at(&other, 0.5)];
        let error = error_of_median(&one).hypot(error_of_median(&other));
        Self {
            samples: [one.len(), other.len()],
            medians,
            median: Difference { value: medians[0] - medians[1], side: SIDE * error },
            mean: Difference { value: told.difference, side: SIDE * told.error },
            t,
            crop,
        }
    }
}

/// Welch's test: two means, and variances that need not be equal.
struct Welch {
    difference: f64,
    error: f64,
}

impl Welch {
    fn of(one: &[f64], other: &[f64]) -> Self {
        let ((one_mean, one_error), (other_mean, other_error)) = (mean(one), mean(other));
        Self { difference: one_mean - other_mean, error: one_error.hypot(other_error) }
    }

    fn t(&self) -> f64 {
        self.difference / self.error
    }
}

/// The mean and its standard error.
fn mean(times: &[f64]) -> (f64, f64) {
    let count = times.len() as f64;
    let mean = times.iter().sum::<f64>() / count;
    let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, (variance / count).sqrt())
}

/// The standard error of a median, by the distance of the order statistics that bound its interval.
fn error_of_median(sorted: &[f64]) -> f64 {
    let side = SIDE / 2.0 / (sorted.len() as f64).sqrt();
    (at(sorted, 0.5 + side) - at(sorted, 0.5 - side)) / (2.0 * SIDE)
}

fn sorted(times: &[f64]) -> Vec<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

fn at(sorted: &[f64], quantile: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((quantile * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
}

fn below(sorted: &[f64], limit: f64) -> &[f64] {
    &sorted[..sorted.partition_point(|time| *time <= limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times of a long tail, all different.
    fn times(shift: f64) -> Vec<f64> {
        let mut state = 1_u64;
        let mut time = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            100.0 + shift - 20.0 * (((state >> 11) + 1) as f64 / (1_u64 << 53) as f64).ln()
        };
        (0..20_000).map(|_| time()).collect()
    }

    #[test]
    fn a_difference_is_seen_with_its_size_and_none_is_made_up() {
        let other: Vec<f64> = times(0.0).into_iter().rev().collect();
        let (first, second) = other.split_at(10_000);
        let same = Comparison::of(&[first.to_vec(), second.to_vec()]);
        assert!(same.t < 4.5 && same.mean.value.abs() < 2.0 * same.mean.side, "{same:?}");

        let shifted = Comparison::of(&[times(2.0), other]);
        assert!(shifted.t > 4.5, "{shifted:?}");
        for Difference { value, side } in [shifted.median, shifted.mean] {
            assert!((value - 2.0).abs() < 3.0 * side && side < 0.6, "{shifted:?}");
        }
    }
}
