//! Subscriptions that fail, or that Paperboy disabled: as a table, as JSON and as warnings.

use serde_json::{Value, json};

use super::output;
use crate::store::status::{Disabled, Troubled};
use crate::store::streaks::Failing;

/// Subscriptions that are warned of one by one.
const NAMED_MAX: usize = 5;

pub(super) fn print(troubled: &Troubled) {
    let row =
        |state: &str, id: &str, name: &Option<String>, tenant: &str, since: String, failures: String| {
            let name = output::printable(name.as_deref().unwrap_or("-"));
            vec![output::printable(id), name, output::printable(tenant), state.to_owned(), since, failures]
        };
    let failing = troubled.failing.iter().map(|it| {
        let failures = format!("{} ({})", it.failures, it.class);
        row("failing", &it.subscription, &it.name, &it.tenant, output::moment(it.since_ms), failures)
    });
    let disabled = troubled.disabled.iter().map(|it| {
        row("disabled by paperboy", &it.subscription, &it.name, &it.tenant, it.since.clone(), "-".to_owned())
    });
    let rows: Vec<Vec<String>> = disabled.chain(failing).collect();
    if !rows.is_empty() {
        println!();
        output::table(&["subscription", "name", "tenant", "state", "since", "failures"], rows, "");
    }
}

pub(super) fn json(troubled: &Troubled) -> Value {
    let failing = troubled.failing.iter().map(|it| {
        json!({
            "subscription": it.subscription, "tenant": it.tenant, "name": it.name,
            "since": output::moment(it.since_ms), "failures": it.failures, "class": it.class,
        })
    });
    let disabled = troubled.disabled.iter().map(|it| {
        json!({ "subscription": it.subscription, "tenant": it.tenant, "name": it.name, "since": it.since })
    });
    json!({
        "failing": failing.collect::<Vec<_>>(),
        "failing_in_all": troubled.failing_in_all,
        "disabled_by_paperboy": disabled.collect::<Vec<_>>(),
    })
}

pub(super) fn warnings(troubled: &Troubled) -> Vec<String> {
    let Troubled { failing, failing_in_all, disabled } = troubled;
    let mut warnings: Vec<String> = disabled.iter().take(NAMED_MAX).map(of_disabled).collect();
    if disabled.len() > NAMED_MAX {
        warnings.push(format!("{} more subscriptions are disabled by paperboy", disabled.len() - NAMED_MAX));
    }
    let named = failing.iter().take(NAMED_MAX);
    warnings.extend(named.clone().map(of_failing));
    let rest = failing_in_all.saturating_sub(named.len() as u64);
    if rest > 0 {
        warnings.push(format!("{rest} more subscriptions get nothing but failures"));
    }
    warnings
}

fn of_disabled(it: &Disabled) -> String {
    let Disabled { subscription: id, tenant, since, .. } = it;
    format!(
        "subscription `{id}` of tenant `{tenant}` is disabled by paperboy since {since}, its events become dead letters: \
         `paperboy subscription enable {id}` once its receiver is well"
    )
}

fn of_failing(it: &Failing) -> String {
    let since = output::moment(it.since_ms);
    format!(
        "subscription `{}` of tenant `{}` gets nothing but failures since {since}: {}, the last one `{}`",
        it.subscription,
        it.tenant,
        output::count(usize::try_from(it.failures).unwrap_or(usize::MAX), "failure"),
        it.class
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(id: &str) -> Failing {
        Failing {
            subscription: id.into(),
            tenant: "acme".into(),
            name: None,
            since_ms: 1_795_338_007_120,
            failures: 12,
            class: "timeout".into(),
            is_told: true,
        }
    }

    #[test]
    fn what_is_disabled_is_told_with_what_to_do_and_what_fails_with_why() {
        let disabled =
            Disabled { subscription: "sub_1".into(), tenant: "acme".into(), name: None, since: "T".into() };
        let troubled =
            Troubled { failing: vec![failing("sub_2")], failing_in_all: 1, disabled: vec![disabled] };
        assert_eq!(
            warnings(&troubled),
            [
                "subscription `sub_1` of tenant `acme` is disabled by paperboy since T, its events become dead letters: \
                 `paperboy subscription enable sub_1` once its receiver is well",
                "subscription `sub_2` of tenant `acme` gets nothing but failures since 2026-11-22T09:00:07Z: 12 failures, \
                 the last one `timeout`",
            ]
        );
    }

    #[test]
    fn many_are_counted() {
        let all: Vec<Failing> = (0..9).map(|n| failing(&format!("sub_{n}"))).collect();
        let warnings = warnings(&Troubled { failing: all, failing_in_all: 109, disabled: Vec::new() });
        assert_eq!(warnings.len(), NAMED_MAX + 1);
        assert_eq!(warnings[NAMED_MAX], "104 more subscriptions get nothing but failures");
    }
}
