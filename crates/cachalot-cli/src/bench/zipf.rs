//! Ranks drawn from a Zipf distribution, by rejection-inversion: no table, the same cost for any number of ranks.

use rand_xoshiro::Xoshiro256PlusPlus;

use super::workload::unit_interval;

/// Draws ranks `0..ranks`; rank `k` comes with a probability proportional to `1 / (k + 1)^exponent`.
///
/// The histogram of the weights lies under the curve `x^-exponent` shifted by half a step. A point is drawn
/// under the curve by inverting its integral, and kept when it also lies under the histogram.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    ranks: f64,
    exponent: f64,
    integral_first: f64,
    integral_last: f64,
    accept_below: f64,
}

impl Zipf {
    /// A distribution over `ranks` ranks, at least one; `exponent` is finite and not negative.
    pub(crate) fn new(ranks: u64, exponent: f64) -> Self {
        let ranks = ranks.max(1) as f64;
        let mut zipf = Self {
            ranks,
            exponent,
            integral_first: 0.0,
            integral_last: 0.0,
            accept_below: 0.0,
        };
        zipf.integral_first = zipf.integral(1.5) - 1.0;
        zipf.integral_last = zipf.integral(ranks + 0.5);
        zipf.accept_below = 2.0 - zipf.integral_inverse(zipf.integral(2.5) - zipf.weight(2.0));
        zipf
    }

    /// The next rank.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the value is clamped to 1..=ranks, which came from a u64"
    )]
    pub(crate) fn sample(&self, random: &mut Xoshiro256PlusPlus) -> u64 {
        loop {
            let height = self.integral_last
                + unit_interval(random) * (self.integral_first - self.integral_last);
            let point = self.integral_inverse(height);
            let rank = (point + 0.5).floor().clamp(1.0, self.ranks);
            let inside = rank - point <= self.accept_below
                || height >= self.integral(rank + 0.5) - self.weight(rank);
            if inside {
                return rank as u64 - 1;
            }
        }
    }

    fn weight(&self, at: f64) -> f64 {
        (-self.exponent * at.ln()).exp()
    }

    /// The integral of the curve from 1 to `to`: `(to^(1-s) - 1) / (1-s)`, or the logarithm where `s` is one.
    fn integral(&self, to: f64) -> f64 {
        let log = to.ln();
        let power = (1.0 - self.exponent) * log;
        if power.abs() < 1e-8 {
            log * (1.0 + power / 2.0)
        } else {
            power.exp_m1() / power * log
        }
    }

    fn integral_inverse(&self, value: f64) -> f64 {
        let scaled = ((1.0 - self.exponent) * value).max(-1.0);
        if scaled.abs() < 1e-8 {
            (value * (1.0 - scaled / 2.0)).exp()
        } else {
            (scaled.ln_1p() / scaled * value).exp()
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;

    /// Draws often and compares each rank's share with the formula, by the chi-squared statistic.
    fn fits_its_formula(ranks: u64, exponent: f64) {
        const DRAWS: u32 = 200_000;
        let zipf = Zipf::new(ranks, exponent);
        let mut random = Xoshiro256PlusPlus::seed_from_u64(17);
        let mut seen = vec![0_u32; usize::try_from(ranks).unwrap()];
        for _ in 0..DRAWS {
            seen[usize::try_from(zipf.sample(&mut random)).unwrap()] += 1;
        }
        let weights: Vec<f64> = (1..=ranks).map(|k| (k as f64).powf(-exponent)).collect();
        let total: f64 = weights.iter().sum();
        let statistic: f64 = seen
            .iter()
            .zip(&weights)
            .map(|(count, weight)| {
                let expected = weight / total * f64::from(DRAWS);
                (f64::from(*count) - expected).powi(2) / expected
            })
            .sum();
        // Mean ranks - 1, variance twice that: six deviations above is never met by chance.
        let freedom = ranks as f64 - 1.0;
        let bound = freedom + 6.0 * (2.0 * freedom).sqrt();
        assert!(
            statistic < bound,
            "exponent {exponent}: {statistic} is not below {bound}"
        );
    }

    #[test]
    fn ranks_come_as_often_as_the_formula_says() {
        for exponent in [0.0, 0.5, 0.99, 1.0, 1.2, 2.0] {
            fits_its_formula(50, exponent);
        }
    }

    #[test]
    fn one_rank_and_very_many_ranks_work() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
        assert_eq!(Zipf::new(1, 0.99).sample(&mut random), 0);
        let wide = Zipf::new(1 << 40, 0.99);
        let mut above_half = 0;
        for _ in 0..10_000 {
            let rank = wide.sample(&mut random);
            assert!(rank < 1 << 40);
            above_half += u32::from(rank > 1 << 39);
        }
        // P(rank > n/2) is (H(n) - H(n/2)) / H(n) for H(x) = (x^0.01 - 1) / 0.01: 2.9 %.
        assert!((200..400).contains(&above_half), "{above_half}");
    }
}
