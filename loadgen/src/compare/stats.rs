//! The tests and intervals: small, exact where they can be, without a library.

/// Most runs of both sides for which ranks are counted out; above, the normal distribution is as
/// good.
const EXACT_RUNS: usize = 60;

/// An estimate of a shift, with its interval and the chance of one as large where there is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shift {
    pub estimate: f64,
    pub low: f64,
    pub high: f64,
    pub p: f64,
}

/// Returns the mean.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Returns the median; 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Returns the variance, from at least two values.
pub(crate) fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    squares / (values.len() as f64 - 1.0)
}

/// Returns the shift from `a` to `b` by Welch's t-test, each with at least two values; `floor` is
/// a variance of the difference that is there whatever the values say.
///
/// # Source
/// Welch, "The generalization of Student's problem when several different population variances
/// are involved", Biometrika 34, 1947.
pub(crate) fn welch(a: &[f64], b: &[f64], floor: f64, alpha: f64) -> Shift {
    let (part_a, part_b) = (variance(a) / a.len() as f64, variance(b) / b.len() as f64);
    let sampled = part_a + part_b;
    let error = (sampled + floor).sqrt();
    let estimate = mean(b) - mean(a);
    let freedom = if sampled > 0.0 {
        let parts =
            part_a.powi(2) / (a.len() as f64 - 1.0) + part_b.powi(2) / (b.len() as f64 - 1.0);
        sampled.powi(2) / parts
    } else {
        (a.len() + b.len()) as f64 - 2.0
    };
    if error <= 0.0 {
        let p = if estimate == 0.0 { 1.0 } else { 0.0 };
        return Shift {
            estimate,
            low: estimate,
            high: estimate,
            p,
        };
    }
    let width = t_quantile(1.0 - alpha / 2.0, freedom) * error;
    Shift {
        estimate,
        low: estimate - width,
        high: estimate + width,
        p: 2.0 * (1.0 - t_cdf((estimate / error).abs(), freedom)),
    }
}

/// Returns the shift from `a` to `b` by the Mann–Whitney U test, exactly, ties included; the
/// estimate is the median of all differences and the interval is made of their order statistics.
///
/// # Source
/// Hodges, Lehmann, "Estimates of location based on rank tests", 1963; Lehmann, "Nonparametrics",
/// sections 1.2 and 2.5.
pub(crate) fn mann_whitney(a: &[f64], b: &[f64], alpha: f64) -> Shift {
    let mut differences: Vec<f64> = b
        .iter()
        .flat_map(|b| a.iter().map(move |a| b - a))
        .collect();
    differences.sort_by(f64::total_cmp);
    let untied: Vec<usize> = (1..=a.len() + b.len()).map(|rank| 2 * rank).collect();
    let outside = tail_of_ranks(&untied, a.len(), alpha / 2.0);
    let (low, high) = (
        differences[outside],
        differences[differences.len() - 1 - outside],
    );
    Shift {
        estimate: median(&differences),
        low,
        high,
        p: rank_sum_p(a, b),
    }
}

/// Returns the two-sided chance of ranks at least as far apart as those of `a` and `b`.
fn rank_sum_p(a: &[f64], b: &[f64]) -> f64 {
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    let ranks = doubled_ranks(&all);
    let observed: usize = ranks[..a.len()].iter().sum();
    let expected = a.len() * (all.len() + 1);
    let distance = observed.abs_diff(expected);
    if all.len() > EXACT_RUNS {
        let mean = ranks.iter().sum::<usize>() as f64 / ranks.len() as f64;
        let squares: f64 = ranks.iter().map(|rank| (*rank as f64 - mean).powi(2)).sum();
        let (n, m, all) = (a.len() as f64, b.len() as f64, all.len() as f64);
        let deviation = (n * m * squares / (all * (all - 1.0))).sqrt();
        return 2.0 * (1.0 - normal_cdf((distance as f64 - 1.0).max(0.0) / deviation)).min(0.5);
    }
    let ways = subset_sums(&ranks, a.len());
    let total: f64 = ways.iter().sum();
    let far: f64 = ways
        .iter()
        .enumerate()
        .filter(|(sum, _)| sum.abs_diff(expected) >= distance)
        .map(|(_, ways)| ways)
        .sum();
    (far / total).min(1.0)
}

/// Returns how many ordered differences lie outside of the interval on each side.
fn tail_of_ranks(ranks: &[usize], of: usize, tail: f64) -> usize {
    let others = ranks.len() - of;
    if ranks.len() > EXACT_RUNS {
        let (n, m) = (of as f64, others as f64);
        let deviation = (n * m * (n + m + 1.0) / 12.0).sqrt();
        let outside = n * m / 2.0 - normal_quantile(1.0 - tail) * deviation;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the number of differences"
        )]
        return (outside - 1.0).max(0.0) as usize;
    }
    let ways = subset_sums(ranks, of);
    let total: f64 = ways.iter().sum();
    let smallest = of * (of + 1);
    let mut below = 0.0;
    (0..=of * others / 2)
        .take_while(|u| {
            below += ways[smallest + 2 * u] / total;
            below <= tail
        })
        .count()
        .saturating_sub(1)
}

/// Returns twice the rank of each value, so that ties have whole ones.
fn doubled_ranks(values: &[f64]) -> Vec<usize> {
    let rank = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count();
        let below_or_equal = values.iter().filter(|other| *other <= value).count();
        below + below_or_equal + 1
    };
    values.iter().map(rank).collect()
}

/// Returns in how many ways `of` of `ranks` add up to each sum.
fn subset_sums(ranks: &[usize], of: usize) -> Vec<f64> {
    let most: usize = ranks.iter().sum();
    let mut ways = vec![vec![0.0; most + 1]; of + 1];
    ways[0][0] = 1.0;
    for rank in ranks {
        for taken in (1..=of).rev() {
            for sum in (*rank..=most).rev() {
                ways[taken][sum] += ways[taken - 1][sum - rank];
            }
        }
    }
    ways.swap_remove(of)
}

/// Returns the shift that `differences` of pairs show, by Wilcoxon's signed-rank test, exactly up
/// to 60 pairs; the interval is made of the order statistics of the means of any two.
///
/// # Source
/// Lehmann, "Nonparametrics", sections 3.2 and 4.2.
pub(crate) fn signed_rank(differences: &[f64], alpha: f64) -> Shift {
    let mut means: Vec<f64> = (0..differences.len())
        .flat_map(|i| (0..=i).map(move |j| f64::midpoint(differences[i], differences[j])))
        .collect();
    means.sort_by(f64::total_cmp);
    let sizes: Vec<f64> = differences.iter().map(|value| value.abs()).collect();
    let ranks = doubled_ranks(&sizes);
    let up: usize = ranks
        .iter()
        .zip(differences)
        .filter(|(_, value)| **value > 0.0)
        .map(|(rank, _)| rank)
        .sum();
    // A difference of nothing counts half for each side.
    let none: usize = ranks
        .iter()
        .zip(differences)
        .filter(|(_, value)| **value == 0.0)
        .map(|(rank, _)| rank)
        .sum();
    let all: usize = ranks.iter().sum();
    let distance = (2 * up + none).abs_diff(all);
    let chances = sign_sums(&ranks);
    let p: f64 = chances
        .iter()
        .enumerate()
        .filter(|(sum, _)| (2 * sum).abs_diff(all) >= distance)
        .map(|(_, chance)| chance)
        .sum();
    let untied: Vec<usize> = (1..=differences.len()).collect();
    let mut below = 0.0;
    let outside = sign_sums(&untied)
        .into_iter()
        .take_while(|chance| {
            below += chance;
            below <= alpha / 2.0
        })
        .count()
        .saturating_sub(1)
        .min((means.len() - 1) / 2);
    Shift {
        estimate: median(&means),
        low: means[outside],
        high: means[means.len() - 1 - outside],
        p: p.min(1.0),
    }
}

/// Returns the chance of each sum of those of `ranks` whose coin fell on heads.
fn sign_sums(ranks: &[usize]) -> Vec<f64> {
    let most: usize = ranks.iter().sum();
    let mut chances = vec![0.0; most + 1];
    chances[0] = 1.0;
    for rank in ranks {
        for sum in (0..=most).rev() {
            let with = sum.checked_sub(*rank).map_or(0.0, |rest| chances[rest]);
            chances[sum] = f64::midpoint(chances[sum], with);
        }
    }
    chances
}

/// Returns each p-value corrected for that there are several: those of Holm.
///
/// # Source
/// Holm, "A simple sequentially rejective multiple test procedure", 1979.
pub(crate) fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|left, right| p[*left].total_cmp(&p[*right]));
    let mut corrected = vec![1.0; p.len()];
    let mut least: f64 = 0.0;
    for (place, index) in order.into_iter().enumerate() {
        least = least.max(p[index] * (p.len() - place) as f64).min(1.0);
        corrected[index] = least;
    }
    corrected
}

/// Returns the chance of a value of Student's t below `t`.
pub(crate) fn t_cdf(t: f64, freedom: f64) -> f64 {
    let tail = 0.5 * incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t));
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// Returns the value below which Student's t lies with the chance `p` of 0.5 and more.
pub(crate) fn t_quantile(p: f64, freedom: f64) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1e6_f64);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if t_cdf(middle, freedom) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Student's t of so much freedom is the normal distribution.
const NORMAL_FREEDOM: f64 = 1e7;

fn normal_cdf(z: f64) -> f64 {
    t_cdf(z, NORMAL_FREEDOM)
}

fn normal_quantile(p: f64) -> f64 {
    t_quantile(p, NORMAL_FREEDOM)
}

/// # Source
/// Press et al., "Numerical Recipes", section 6.4: the continued fraction by Lentz's method.
#[allow(clippy::many_single_char_names, reason = "the names of the source")]
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front =
        (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp();
    let tiny = 1e-300;
    let (mut c, mut d) = (1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction: f64 = d;
    for step in 1..500 {
        let m = f64::from(step);
        for part in [
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
        ] {
            d = 1.0 / nonzero(1.0 + part * d, tiny);
            c = nonzero(1.0 + part / c, tiny);
            fraction *= c * d;
        }
        if (c * d - 1.0).abs() < 1e-14 {
            break;
        }
    }
    front * fraction / a
}

fn nonzero(value: f64, tiny: f64) -> f64 {
    if value.abs() < tiny { tiny } else { value }
}

/// # Source
/// Lanczos, "A precision approximation of the gamma function", 1964; the coefficients of Godfrey.
fn ln_gamma(x: f64) -> f64 {
    const TERMS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let mut sum = 0.999_999_999_999_809_9;
    for (index, term) in (1_i32..).zip(TERMS) {
        sum += term / (x + f64::from(index));
    }
    let t = x + 7.5;
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, truth: f64) {
        assert!((found - truth).abs() < 2e-4, "{found}, not {truth}");
    }

    #[test]
    fn distributions_are_those_of_the_tables() {
        near(t_quantile(0.975, 4.0), 2.7764);
        near(t_quantile(0.975, 30.0), 2.0423);
        near(t_cdf(2.0, 10.0), 0.9633);
        near(t_cdf(-2.0, 10.0), 0.0367);
        near(normal_quantile(0.975), 1.9600);
        near(normal_cdf(1.0), 0.8413);
    }

    #[test]
    fn welch_is_that_of_an_integral_over_the_density() {
        let a = [
            27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7,
            21.4,
        ];
        let b = [
            27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 30.5,
            31.1,
        ];
        near(welch(&a, &b, 0.0, 0.05).p, 0.0064);
    }

    #[test]
    fn ranks_give_the_exact_chances() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]);
        let apart = mann_whitney(&a, &b, 0.05);
        near(apart.p, 2.0 / 252.0);
        near(apart.estimate, 5.0);
        // The tables give U = 2 as the critical value of five and five at 5 %: two differences
        // and the next one on each side.
        near(apart.low, 2.0);
        near(apart.high, 8.0);
        near(mann_whitney(&a, &a, 0.05).p, 1.0);
        near(mann_whitney(&[1.0; 5], &[1.0; 6], 0.05).p, 1.0);
        let paired = signed_rank(&[0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0], 0.05);
        near(paired.p, 2.0 / 256.0);
        assert!(paired.low > 0.0 && paired.low < paired.estimate);
        near(signed_rank(&[0.0; 8], 0.05).p, 1.0);
        near(signed_rank(&[1.0, -1.0, 2.0, -2.0], 0.05).p, 1.0);
    }

    #[test]
    fn many_runs_are_as_few_but_for_rounding() {
        let a: Vec<f64> = (0..30).map(f64::from).collect();
        let b: Vec<f64> = a.iter().map(|value| value + 5.3).collect();
        let exact = rank_sum_p(&a, &b);
        let more: Vec<f64> = b.iter().copied().chain([17.4]).collect();
        assert!((rank_sum_p(&a, &more) - exact).abs() < 0.02, "{exact}");
    }

    #[test]
    fn holm_never_makes_a_chance_smaller_and_keeps_their_order() {
        let corrected = holm(&[0.01, 0.04, 0.03, 0.5]);
        for (found, truth) in corrected.into_iter().zip([0.04, 0.09, 0.09, 0.5]) {
            near(found, truth);
        }
    }
}
