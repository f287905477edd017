//! Who asks, and what is theirs.

use super::Refused;
use crate::domain::key::{Scope, Scopes};
use crate::domain::name::Tenant;

/// Somebody who asks for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// As the audit names them.
    pub actor: String,
    /// The only tenant they may touch; `None`: an operator, who may touch all.
    pub tenant: Option<Tenant>,
    pub scopes: Scopes,
}

impl Caller {
    /// An operator, who may do anything.
    pub fn operator(actor: impl Into<String>) -> Caller {
        Caller { actor: actor.into(), tenant: None, scopes: Scopes::all() }
    }

    /// Whether this tenant's things are theirs. What is nobody's is an operator's.
    pub fn owns(&self, tenant: Option<&str>) -> bool {
        self.tenant.as_ref().is_none_or(|own| Some(own.as_str()) == tenant)
    }

    /// Says whether they may do such things at all.
    ///
    /// # Errors
    /// [`Refused::Forbidden`], which names what is missing.
    pub fn allow(&self, scope: Scope) -> Result<(), Refused> {
        if self.scopes.allow(scope) {
            return Ok(());
        }
        Err(Refused::Forbidden(format!("this key lacks the scope `{}`", scope.as_str())))
    }

    /// The tenant a list is of: the one that was asked for, else their own.
    ///
    /// # Errors
    /// [`Refused::Forbidden`] for the tenant of others.
    pub fn tenant_of_list(&self, asked: Option<Tenant>) -> Result<Option<Tenant>, Refused> {
        match asked {
            Some(asked) if !self.owns(Some(asked.as_str())) => Err(self.foreign()),
            Some(asked) => Ok(Some(asked)),
            None => Ok(self.tenant.clone()),
        }
    }

    /// What is said to whoever names another tenant.
    pub fn foreign(&self) -> Refused {
        let own = self.tenant.as_ref().map(Tenant::as_str).unwrap_or_default();
        Refused::Forbidden(format!("this key is for tenant `{own}` only"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_key_owns_what_is_the_tenants_and_nothing_else() {
        let acme = Tenant::parse("acme").unwrap();
        let caller = Caller { tenant: Some(acme.clone()), ..Caller::operator("key:pbk_x") };
        assert!(caller.owns(Some("acme")) && !caller.owns(Some("bolt")) && !caller.owns(None));
        assert_eq!(caller.tenant_of_list(None).unwrap(), Some(acme));
        assert!(matches!(
            caller.tenant_of_list(Some(Tenant::parse("bolt").unwrap())),
            Err(Refused::Forbidden(_))
        ));
        let operator = Caller::operator("cli:root");
        assert!(operator.owns(Some("bolt")) && operator.owns(None));
        assert_eq!(operator.tenant_of_list(None).unwrap(), None);
    }
}
