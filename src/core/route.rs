//! Where a request goes: from path and host to an endpoint, from weights to a deployment. Pure.

use std::collections::HashMap;

use crate::core::settings::EndpointSettings;

/// A share in hundredths of a percent, 0 to 10,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u16);

impl Percent {
    /// All of it.
    pub const HUNDRED: Self = Self(10_000);

    /// Takes a percentage with at most two decimals.
    pub fn new(percent: f64) -> Option<Self> {
        let parts = percent * 100.0;
        let rounded = parts.round();
        ((0.0..=10_000.0).contains(&rounded) && (parts - rounded).abs() < 1e-6)
            .then_some(Self(rounded as u16))
    }

    /// Hundredths of a percent.
    pub fn parts(self) -> u16 {
        self.0
    }

    /// As a percentage.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

/// How requests are split over deployments: a fixed order that repeats.
///
/// In each period every deployment gets exactly its share, and at no point is one ahead of or behind its share by a whole
/// request (see `fair_order`). Percentages with two decimals have a period of at most 10,000, so the order is worked out
/// once and a pick is one index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    weights: Vec<Percent>,
    order: Box<[u8]>,
}

impl Traffic {
    /// A split; the indices of `weights` are those of the deployments. What is missing to 100 % goes to
    /// `default`, where there is one; otherwise the weights are used as they are, and all zero means that no
    /// deployment takes requests without the header. At most 256 deployments; total at most 100 %.
    pub fn new(weights: &[Percent], default: Option<usize>) -> Self {
        let mut parts: Vec<i64> = weights.iter().map(|w| i64::from(w.parts())).collect();
        let total: i64 = parts.iter().sum();
        if let Some(share) = default.and_then(|d| parts.get_mut(d)) {
            *share += (i64::from(Percent::HUNDRED.parts()) - total).max(0);
        }
        let divisor = parts.iter().copied().fold(0, greatest_common_divisor).max(1);
        for part in &mut parts {
            *part /= divisor;
        }
        let order = fair_order(&parts);
        Self { weights: weights.to_vec(), order }
    }

    /// The deployment for the `turn`-th request, or `None` if no deployment has a share.
    pub fn pick(&self, turn: u64) -> Option<usize> {
        let period = self.order.len() as u64;
        (period > 0).then(|| usize::from(self.order[(turn % period) as usize]))
    }

    /// The shares as declared, without the remainder.
    pub fn weights(&self) -> &[Percent] {
        &self.weights
    }

    /// The share that a deployment really gets, remainder included, in percent.
    pub fn effective(&self, deployment: usize) -> f64 {
        if self.order.is_empty() {
            return 0.0;
        }
        let turns = self.order.iter().filter(|d| usize::from(**d) == deployment).count();
        turns as f64 * 100.0 / self.order.len() as f64
    }
}

/// The order in which parties with these whole shares take their turns, one period long.
///
/// Tijdeman's rule for the chairman assignment problem (1980): of those that would not get ahead of their share too far, the
/// one that would fall behind first. With n parties nobody is ever off by more than 1 - 1/(2n - 2) turns. Smooth weighted
/// round-robin, which is simpler, can be off by more than one with five parties.
fn fair_order(shares: &[i64]) -> Box<[u8]> {
    let period: i64 = shares.iter().sum();
    let parties = shares.iter().filter(|share| **share > 0).count() as i64;
    let spread = (2 * parties - 2).max(1);
    let mut taken = vec![0i64; shares.len()];
    let mut order = Vec::with_capacity(period as usize);
    for step in 1..=period {
        // When it would be behind by the bound, in turns: (bound + taken) / share, compared without division.
        let due = |i: usize| spread - 1 + spread * taken[i];
        let next = (0..shares.len())
            .filter(|i| shares[*i] > 0 && spread * (shares[*i] * step - taken[*i] * period) >= period)
            .min_by(|a, b| (due(*a) * shares[*b]).cmp(&(due(*b) * shares[*a])))
            .expect("somebody is behind, or the shares would not add up");
        taken[next] += 1;
        order.push(next as u8);
    }
    order.into()
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// What a path and a host lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/healthz`: the process is alive.
    Alive,
    /// An endpoint, by its index in the settings.
    Endpoint(usize, Call),
    /// `/`: a load balancer's probe.
    Home,
    /// `/readyz`: requests can be served.
    Ready,
    /// Nothing.
    Unknown,
}

/// What is asked of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Any path, passed on as it is (sidecar).
    PassThrough,
    /// A score.
    Score,
    /// The description of its interface.
    Swagger,
}

/// All routes of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// By lower-case name: hosts have no case.
    by_name: HashMap<Box<str>, usize>,
    by_path: HashMap<Box<str>, usize>,
    only: Option<usize>,
    pass_through: Option<usize>,
}

impl Routes {
    /// The routes of these endpoints.
    pub fn new<'a>(endpoints: impl ExactSizeIterator<Item = &'a EndpointSettings>) -> Self {
        let mut routes = Self { only: (endpoints.len() == 1).then_some(0), ..Self::default() };
        for (index, endpoint) in endpoints.enumerate() {
            routes.by_name.insert(endpoint.name.as_str().to_ascii_lowercase().into(), index);
            if let Some(path) = &endpoint.scoring_route {
                routes.by_path.insert(path.as_str().into(), index);
            }
            if endpoint.deployments.iter().any(|d| d.routes.pass_through) {
                routes.pass_through = Some(index);
            }
        }
        routes
    }

    /// Where a path (without query) on a host leads (reference §1.1). Most paths say it without the host.
    pub fn find<'a>(&self, path: &str, host: impl FnOnce() -> Option<&'a str>) -> Route {
        if let Some(endpoint) = self.pass_through {
            return Route::Endpoint(endpoint, Call::PassThrough);
        }
        let in_path =
            path.strip_prefix("/api/v1/endpoint/").or_else(|| path.strip_prefix("/api/v1/service/"));
        if let Some((name, call)) = in_path.and_then(|rest| rest.split_once('/')) {
            let call = call_of(call);
            return match (self.named(name), call) {
                (Some(endpoint), Some(call)) => Route::Endpoint(endpoint, call),
                _ => Route::Unknown,
            };
        }
        if let Some(endpoint) = self.by_path.get(path) {
            return Route::Endpoint(*endpoint, Call::Score);
        }
        match path {
            "/" => return Route::Home,
            "/healthz" => return Route::Alive,
            "/readyz" => return Route::Ready,
            _ => {}
        }
        let in_host = host().and_then(|host| host.split_once('.')).and_then(|(name, _)| self.named(name));
        match (path.strip_prefix('/').and_then(call_of), in_host.or(self.only)) {
            (Some(call), Some(endpoint)) => Route::Endpoint(endpoint, call),
            _ => Route::Unknown,
        }
    }

    fn named(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).or_else(|| self.by_name.get(name.to_ascii_lowercase().as_str())).copied()
    }
}

fn call_of(word: &str) -> Option<Call> {
    match word {
        "score" => Some(Call::Score),
        "swagger.json" => Some(Call::Swagger),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percents(values: &[f64]) -> Vec<Percent> {
        values.iter().map(|v| Percent::new(*v).unwrap()).collect()
    }

    fn counts(traffic: &Traffic, turns: std::ops::Range<u64>) -> Vec<usize> {
        let mut counts = vec![0; traffic.weights().len()];
        for turn in turns {
            counts[traffic.pick(turn).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn one_percent_of_any_two_hundred_requests_is_two() {
        let traffic = Traffic::new(&percents(&[0.0, 1.0]), Some(0));
        for start in 0..300 {
            assert_eq!(counts(&traffic, start..start + 200), [198, 2]);
        }
    }

    #[test]
    fn the_documented_examples_of_v1_hold() {
        // One version at 20 % that is the default gets everything.
        assert_eq!(Traffic::new(&percents(&[20.0]), Some(0)).effective(0), 100.0);
        // A second at 10 %: the default has its 20 and the remaining 70.
        assert_eq!(Traffic::new(&percents(&[20.0, 10.0]), Some(0)).effective(0), 90.0);
        // The second raised to 40 % and made the default, the first left at 20 %.
        assert_eq!(Traffic::new(&percents(&[20.0, 40.0]), Some(1)).effective(1), 80.0);
    }

    #[test]
    fn without_weight_nothing_is_picked() {
        assert_eq!(Traffic::new(&percents(&[0.0, 0.0]), None).pick(7), None);
        assert_eq!(Traffic::default().pick(7), None);
    }

    #[test]
    fn percentages_have_at_most_two_decimals_and_lie_in_range() {
        assert_eq!(Percent::new(33.33).map(Percent::parts), Some(3333));
        for bad in [33.333, -1.0, 100.01, f64::NAN, f64::INFINITY] {
            assert_eq!(Percent::new(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nobody_is_ever_a_whole_request_off(
            parts in proptest::collection::vec(0u16..2000, 2..6),
            start in 0u64..20_000,
        ) {
            let weights: Vec<Percent> = parts.iter().map(|p| Percent(*p)).collect();
            let traffic = Traffic::new(&weights, Some(0));
            let mut picked = vec![0i64; weights.len()];
            let shares: Vec<f64> = (0..weights.len()).map(|d| traffic.effective(d) / 100.0).collect();
            for n in 1..=500u64 {
                picked[traffic.pick(n - 1).unwrap()] += 1;
                for (count, share) in picked.iter().zip(&shares) {
                    prop_assert!((*count as f64 - share * n as f64).abs() < 1.0 + 1e-9);
                }
            }
            // Whole periods are exact, wherever they begin.
            let period = traffic.order.len() as u64;
            let whole = counts(&traffic, start..start + period);
            for (count, share) in whole.iter().zip(&shares) {
                prop_assert!((*count as f64 - share * period as f64).abs() < 1e-6);
            }
        }
    }
}
