//! A limit: what of a round is compared with what, and whether it holds.

use serde::Serialize;

use super::figures::{Figure, Round, median};

/// Which side of the limit is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rule {
    AtMost,
    AtLeast,
    /// There is no limit: the value is only told.
    Told,
}

/// Value and limit of one round; none where something of it could not be measured.
type Of = Box<dyn Fn(&Round) -> Option<(f64, f64)> + Send + Sync>;

/// One line of judgement.
pub(super) struct Check {
    what: &'static str,
    unit: &'static str,
    rule: Rule,
    of: Of,
}

/// The word at the beginning of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Pass,
    Fail,
    Told,
    NotMeasured,
}

/// A check with what the rounds came to.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Judged {
    pub(super) what: &'static str,
    pub(super) verdict: Verdict,
    /// Medians of the rounds.
    pub(super) value: Option<f64>,
    pub(super) rule: Rule,
    pub(super) limit: Option<f64>,
    pub(super) unit: &'static str,
}

impl Check {
    /// `of` gives value and limit.
    pub(super) fn new(
        what: &'static str,
        rule: Rule,
        unit: &'static str,
        of: impl Fn(&Round) -> Option<(f64, f64)> + Send + Sync + 'static,
    ) -> Check {
        Check { what, unit, rule, of: Box::new(of) }
    }

    /// A figure of one play over the same figure of another.
    pub(super) fn ratio(
        what: &'static str,
        figure: Figure,
        [of, to]: [&'static str; 2],
        (rule, limit): (Rule, f64),
    ) -> Check {
        Check::new(what, rule, "×", move |round| {
            let ratio = round.get(of, figure)? / round.get(to, figure)?;
            ratio.is_finite().then_some((ratio, limit))
        })
    }

    /// A figure of one play by itself.
    pub(super) fn figure(
        what: &'static str,
        figure: Figure,
        play: &'static str,
        (rule, limit): (Rule, f64),
        unit: &'static str,
    ) -> Check {
        Check::new(what, rule, unit, move |round| Some((round.get(play, figure)?, limit)))
    }

    /// The verdict follows the median of what each round has to spare: what disturbs a round disturbs both sides.
    pub(super) fn judge(&self, rounds: &[Round]) -> Judged {
        let pairs: Vec<(f64, f64)> = rounds.iter().filter_map(|round| (self.of)(round)).collect();
        let spare = |(value, limit): &(f64, f64)| match self.rule {
            Rule::AtMost => limit - value,
            Rule::AtLeast | Rule::Told => value - limit,
        };
        let verdict = match (self.rule, median(pairs.iter().map(spare).collect())) {
            (_, None) => Verdict::NotMeasured,
            (Rule::Told, _) => Verdict::Told,
            (_, Some(spare)) if spare >= 0.0 => Verdict::Pass,
            _ => Verdict::Fail,
        };
        let (what, unit, rule) = (self.what, self.unit, self.rule);
        let value = median(pairs.iter().map(|(value, _)| *value).collect());
        let limit = median(pairs.iter().map(|(_, limit)| *limit).collect());
        Judged { what, verdict, value, rule, limit: limit.filter(|_| rule != Rule::Told), unit }
    }
}

impl Verdict {
    /// The word for people; a failure is seen at once.
    pub(super) fn word(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::Told => "told",
            Verdict::NotMeasured => "not measured",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::Figures;
    use super::*;

    /// A round where `ours` and `floor` have this figure.
    fn round(ours: f64, floor: f64) -> Round {
        let mut round = Round::default();
        for (play, value) in [("ours", ours), ("floor", floor)] {
            let mut figures = Figures::default();
            figures.set(Figure::WorkerUs, value);
            round.add(play, figures);
        }
        round
    }

    fn check(rule: Rule, limit: f64) -> Check {
        Check::ratio("worker CPU", Figure::WorkerUs, ["ours", "floor"], (rule, limit))
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let rounds = [round(20.0, 10.0), round(99.0, 90.0), round(40.0, 20.0)];
        let judged = check(Rule::AtMost, 1.5).judge(&rounds);
        assert_eq!((judged.verdict, judged.value, judged.limit), (Verdict::Fail, Some(2.0), Some(1.5)));
    }

    #[test]
    fn a_value_at_its_limit_passes_and_one_beyond_it_fails() {
        for (rule, limit, verdict) in [
            (Rule::AtMost, 2.0, Verdict::Pass),
            (Rule::AtMost, 1.99, Verdict::Fail),
            (Rule::AtLeast, 2.0, Verdict::Pass),
            (Rule::AtLeast, 2.01, Verdict::Fail),
            (Rule::Told, 9.0, Verdict::Told),
        ] {
            assert_eq!(check(rule, limit).judge(&[round(20.0, 10.0)]).verdict, verdict, "{rule:?} {limit}");
        }
    }

    #[test]
    fn what_never_came_fails_and_what_was_not_seen_is_not_judged() {
        let late = |_: &Round| Some((f64::INFINITY, 50.0));
        assert_eq!(
            Check::new("p99", Rule::AtMost, "ms", late).judge(&[Round::default()]).verdict,
            Verdict::Fail
        );
        assert_eq!(check(Rule::AtMost, 1.0).judge(&[Round::default()]).verdict, Verdict::NotMeasured);
        assert_eq!(check(Rule::AtMost, 1.0).judge(&[]).verdict, Verdict::NotMeasured);
    }
}
