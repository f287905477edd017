//! Which dead letters or deliveries are meant, as programs write it: every value a text.

use serde::Deserialize;

use super::moment::unix_ms;
use super::{Caller, Refused};
use crate::domain::fault::Fault;
use crate::domain::name::Tenant;
use crate::store::dead::Kind;
use crate::store::deliveries::{Cursor, DeliveryFilter, StatusRange, What};
use crate::store::{DeadFilter, DeadState};

/// Conditions that all must hold; those that are absent hold always.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    pub tenant: Option<String>,
    pub subscription: Option<String>,
    pub event: Option<String>,
    pub document: Option<String>,
    pub batch: Option<String>,
    /// The event's type.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    pub class: Option<String>,
    pub status: Option<String>,
    pub since: Option<String>,
    pub until: Option<String>,
    /// Of dead letters, as those that follow.
    pub kind: Option<String>,
    pub reason: Option<String>,
    pub host: Option<String>,
    /// Of lists of dead letters; `all` for all.
    #[serde(skip)]
    pub state: Option<String>,
    /// Of deliveries, as what follows.
    #[serde(skip)]
    pub what: Option<String>,
    #[serde(skip)]
    pub failures: Option<String>,
}

/// What both have.
const SHARED: [&str; 10] =
    ["tenant", "subscription", "event", "document", "batch", "type", "class", "status", "since", "until"];

impl Wanted {
    /// What dead letters are found by.
    pub fn names_of_dead() -> impl Iterator<Item = &'static str> {
        SHARED.into_iter().chain(["kind", "reason", "host", "state"])
    }

    /// What deliveries are found by.
    pub fn names_of_deliveries() -> impl Iterator<Item = &'static str> {
        SHARED.into_iter().chain(["what", "failures"])
    }

    /// The member of this name.
    pub fn member(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "tenant" => &mut self.tenant,
            "subscription" => &mut self.subscription,
            "event" => &mut self.event,
            "document" => &mut self.document,
            "batch" => &mut self.batch,
            "type" => &mut self.event_type,
            "class" => &mut self.class,
            "status" => &mut self.status,
            "since" => &mut self.since,
            "until" => &mut self.until,
            "kind" => &mut self.kind,
            "reason" => &mut self.reason,
            "host" => &mut self.host,
            "state" => &mut self.state,
            "what" => &mut self.what,
            "failures" => &mut self.failures,
            _ => return None,
        })
    }

    /// As a filter of dead letters, held to the caller's tenant; without a state those that are open.
    ///
    /// # Errors
    /// Every fault, its field after `place`; or the tenant of others.
    pub fn dead(&self, caller: &Caller, place: &str) -> Result<DeadFilter, Refused> {
        let mut reading = Reading { place, faults: self.odd(place) };
        let state = reading.of("state", self.state.as_deref(), |text| match text {
            "all" => Ok(None),
            text => {
                DeadState::parse(text).map(Some).ok_or("must be `open`, `replayed`, `discarded` or `all`")
            }
        });
        let kind = reading.of("kind", self.kind.as_deref(), |text| {
            Kind::parse(text).ok_or("must be `delivery` or `event`")
        });
        let status = reading.status(self.status.as_deref());
        let (since_ms, until_ms) = reading.span(self);
        let tenant = reading.tenant(self.tenant.as_deref());
        reading.end()?;
        Ok(DeadFilter {
            kind,
            tenant: caller.tenant_of_list(tenant)?.map(|tenant| tenant.to_string()),
            subscription: self.subscription.clone(),
            reason: self.reason.clone(),
            event_id: self.event.clone(),
            event_type: self.event_type.clone(),
            document_id: self.document.clone(),
            batch_id: self.batch.clone(),
            host: self.host.clone(),
            class: self.class.clone(),
            status,
            since_ms,
            until_ms,
            state: state.unwrap_or(Some(DeadState::Open)),
            ..DeadFilter::default()
        })
    }

    /// As a filter of deliveries, held to the caller's tenant and bounded in time where it would be slow otherwise.
    ///
    /// # Errors
    /// As [`Wanted::dead`]; also a place that is none in the log.
    pub fn deliveries(
        &self,
        caller: &Caller,
        limit: u32,
        after: Option<&str>,
    ) -> Result<DeliveryFilter, Refused> {
        let mut reading = Reading { place: "", faults: self.odd("") };
        let what = reading.of("what", self.what.as_deref(), |text| {
            What::parse(text).ok_or_else(|| {
                let known = What::ALL.map(|what| format!("`{}`", what.as_str())).join(", ");
                format!("must be one of {known}")
            })
        });
        let failures = reading.of("failures", self.failures.as_deref(), |text| {
            text.parse::<bool>().map_err(|_| "must be `true` or `false`")
        });
        let after = reading.of("cursor", after, |text| Cursor::parse(text).ok_or("is no cursor of ours"));
        let status = reading.status(self.status.as_deref());
        let (since_ms, until_ms) = reading.span(self);
        let tenant = reading.tenant(self.tenant.as_deref());
        reading.end()?;
        let filter = DeliveryFilter {
            tenant: caller.tenant_of_list(tenant)?.map(|tenant| tenant.to_string()),
            subscription: self.subscription.clone(),
            event: self.event.clone(),
            document: self.document.clone(),
            batch: self.batch.clone(),
            kind: self.event_type.clone(),
            class: self.class.clone(),
            status,
            what,
            since_ms,
            until_ms,
            failures: failures.unwrap_or(false),
            limit,
            after,
        };
        Ok(filter.bounded(super::now_ms()))
    }

    /// Texts that no engine should be asked for.
    fn odd(&self, place: &str) -> Vec<Fault> {
        let texts = [
            ("subscription", &self.subscription),
            ("event", &self.event),
            ("document", &self.document),
            ("batch", &self.batch),
            ("type", &self.event_type),
            ("class", &self.class),
            ("reason", &self.reason),
            ("host", &self.host),
        ];
        let is_odd = |text: &&String| text.contains('\0');
        let odd = texts.into_iter().filter(|(_, text)| text.as_ref().is_some_and(|text| is_odd(&text)));
        odd.map(|(name, _)| Fault::new(format!("{place}{name}"), "holds a control character")).collect()
    }
}

struct Reading<'a> {
    place: &'a str,
    faults: Vec<Fault>,
}

impl Reading<'_> {
    fn of<T, E: Into<String>>(
        &mut self,
        name: &str,
        text: Option<&str>,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let field = || format!("{}{name}", self.place);
        match read(text?) {
            Ok(value) => Some(value),
            Err(why) => {
                self.faults.push(Fault::new(field(), why));
                None
            }
        }
    }

    fn status(&mut self, text: Option<&str>) -> Option<StatusRange> {
        self.of("status", text, |text| {
            StatusRange::parse(text).ok_or("must be a status such as `503` or `5xx`")
        })
    }

    fn span(&mut self, wanted: &Wanted) -> (Option<i64>, Option<i64>) {
        let mut moment = |name, text: &Option<String>| {
            self.of(name, text.as_deref(), |text| unix_ms(text).map_err(|why| format!("is no moment: {why}")))
        };
        (moment("since", &wanted.since), moment("until", &wanted.until))
    }

    fn tenant(&mut self, text: Option<&str>) -> Option<Tenant> {
        self.of("tenant", text, |text| Tenant::parse(text).map_err(|why| why.to_string()))
    }

    fn end(self) -> Result<(), Refused> {
        if self.faults.is_empty() { Ok(()) } else { Err(Refused::Faults(self.faults)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_member() {
        let mut wanted = Wanted::default();
        for name in Wanted::names_of_dead().chain(Wanted::names_of_deliveries()) {
            *wanted.member(name).unwrap() = Some("x".into());
        }
        assert!(wanted.member("color").is_none());
        let Refused::Faults(faults) = wanted.dead(&Caller::operator("x"), "filter.").unwrap_err() else {
            panic!("faults")
        };
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["filter.state", "filter.kind", "filter.status", "filter.since", "filter.until"]);
    }

    #[test]
    fn a_tenants_key_finds_its_own_and_nothing_of_others() {
        let own = Caller { tenant: Some(Tenant::parse("acme").unwrap()), ..Caller::operator("x") };
        assert_eq!(Wanted::default().dead(&own, "").unwrap().tenant.as_deref(), Some("acme"));
        assert_eq!(Wanted::default().deliveries(&own, 9, None).unwrap().tenant.as_deref(), Some("acme"));
        let of_others = Wanted { tenant: Some("bolt".into()), ..Wanted::default() };
        assert!(matches!(of_others.dead(&own, ""), Err(Refused::Forbidden(_))));
        assert!(matches!(of_others.deliveries(&own, 9, None), Err(Refused::Forbidden(_))));
    }

    #[test]
    fn ages_and_dates_are_moments() {
        let wanted = Wanted {
            since: Some("1h".into()),
            until: Some("2026-11-22T09:00:00Z".into()),
            status: Some("5xx".into()),
            ..Wanted::default()
        };
        let filter = wanted.dead(&Caller::operator("x"), "").unwrap();
        assert_eq!(filter.until_ms, Some(1_795_338_000_000));
        assert!(filter.since_ms.is_some() && filter.status == StatusRange::parse("5xx"));
    }
}
