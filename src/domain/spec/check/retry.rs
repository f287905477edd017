//! `success` and the `retry` section, which share the grammar of statuses.

use super::faults::{Faults, plain};
use super::not_yet;
use crate::domain::fault::Fault;
use crate::domain::retry::{OnGone, Retry, RetryPolicy};
use crate::domain::spec::RetrySpec;
use crate::domain::statuses::StatusSet;

const STATUSES_MAX: usize = 100;

pub(super) fn check_success(items: Option<&[String]>, faults: &mut Faults) -> Option<StatusSet> {
    match items {
        None => Some(StatusSet::successful()),
        Some([]) => {
            let fault = Fault::new("success", "is empty: nothing would ever count as delivered");
            faults.0.push(fault.hint("leave it out for `[\"2xx\"]`"));
            None
        }
        Some(items) => check_statuses("success", items, faults),
    }
}

/// Each item is read alone, so that every wrong one is named.
fn check_statuses(field: &str, items: &[String], faults: &mut Faults) -> Option<StatusSet> {
    if items.len() > STATUSES_MAX {
        faults.add(field, format!("holds more than {STATUSES_MAX} items"));
    }
    for (index, item) in items.iter().enumerate() {
        faults.keep(&format!("{field}[{index}]"), StatusSet::parse(&[item]).map_err(plain));
    }
    StatusSet::parse(items).ok()
}

pub(super) fn check_retry(spec: Option<&RetrySpec>, faults: &mut Faults) -> Option<Retry> {
    let default = Retry::default();
    let Some(spec) = spec else { return Some(default) };
    let on_gone = match spec.on_gone.as_deref() {
        None | Some("dead") => OnGone::Dead,
        Some("retry") => OnGone::Retry,
        Some("disable") => OnGone::Disable,
        Some(_) => {
            faults.unknown("retry.on_gone", "`dead`, `disable` and `retry`");
            OnGone::Dead
        }
    };
    match spec.when_down.as_deref() {
        None | Some("burn") => {}
        Some("park") => faults.0.push(not_yet("retry.when_down", "park")),
        Some(_) => faults.unknown("retry.when_down", "`burn`"),
    }
    let on = spec.on.as_deref().map(|items| check_statuses("retry.on", items, faults));
    let policy = check_policy(spec, faults);
    let is_known = policy.is_some();
    let retry = Retry {
        policy: policy.unwrap_or(RetryPolicy::None),
        on: on.flatten(),
        retry_after: spec.retry_after.unwrap_or(default.retry_after),
        #[expect(clippy::cast_possible_truncation, reason = "a share of 0 to 1 needs no more digits")]
        jitter: spec.jitter.map_or(default.jitter, |jitter| jitter as f32),
        on_gone,
    };
    let broken = retry.faults();
    let is_good = is_known && broken.is_empty();
    let broken = broken.into_iter().map(|fault| Fault::new(fault.field(), fault.to_string()).under("retry"));
    faults.0.extend(broken);
    is_good.then_some(retry)
}

fn check_policy(spec: &RetrySpec, faults: &mut Faults) -> Option<RetryPolicy> {
    let given = [
        ("base", spec.base.is_some()),
        ("unit_s", spec.unit_s.is_some()),
        ("max_attempts", spec.max_attempts.is_some()),
        ("delay_s", spec.delay_s.is_some()),
        ("delays_s", spec.delays_s.is_some()),
    ];
    let kind = spec.kind.as_deref().unwrap_or("exponential");
    let max_attempts = spec.max_attempts.unwrap_or(10);
    let (policy, allowed): (_, &[&str]) = match kind {
        "exponential" => {
            let (base, unit_s) = (spec.base.unwrap_or(2), spec.unit_s.unwrap_or(1));
            (
                Some(RetryPolicy::Exponential { base, unit_s, max_attempts }),
                &["base", "unit_s", "max_attempts"],
            )
        }
        "fixed" => (
            spec.delay_s.map(|delay_s| RetryPolicy::Fixed { delay_s, max_attempts }),
            &["delay_s", "max_attempts"],
        ),
        "list" => (spec.delays_s.clone().map(|delays_s| RetryPolicy::List { delays_s }), &["delays_s"]),
        "none" => (Some(RetryPolicy::None), &[]),
        _ => {
            faults.unknown("retry.kind", "`exponential`, `fixed`, `list` and `none`");
            return None;
        }
    };
    faults.only("retry", kind, &given, allowed);
    if policy.is_none() {
        faults.add(&format!("retry.{}", allowed[0]), format!("is missing: `{kind}` needs it"));
    }
    policy
}
