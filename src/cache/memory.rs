//! What this process remembers of tenants, to be asked for every delivery.
//!
//! Asking takes no lock and allocates nothing: it reads one of many small maps that are never changed, only
//! replaced. Whoever changes something copies one of them (about a hundred entries) under a lock that no
//! reader knows.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::Lookup;
use crate::domain::name::Tenant;

/// A power of two, so that a part of the hash chooses one.
const PAGES: usize = 1024;
/// About 100,000 tenants in all.
const PAGE_TENANTS_MAX: usize = 122;

/// Tenants by name, each as last read and never below its floor.
pub(super) struct Memory {
    pages: Box<[ArcSwap<Page>]>,
    hasher: RandomState,
    floors: Mutex<HashMap<Tenant, u64>>,
}

type Page = HashMap<Tenant, Arc<Entry>>;

struct Entry {
    known: Lookup,
    /// Asked for since its page was last swept.
    used: AtomicBool,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            pages: (0..PAGES).map(|_| ArcSwap::default()).collect(),
            hasher: RandomState::new(),
            floors: Mutex::default(),
        }
    }
}

impl Memory {
    /// What is remembered of a tenant, if nothing newer is known to exist.
    pub(super) fn get(&self, tenant: &str) -> Option<Lookup> {
        let page = self.page(tenant).load();
        let entry = page.get(tenant)?;
        // Looked at first: all threads share this byte, and writing it takes it from the others.
        if !entry.used.load(Ordering::Relaxed) {
            entry.used.store(true, Ordering::Relaxed);
        }
        Some(entry.known.clone())
    }

    /// The lowest version of a tenant that may still be used.
    pub(super) fn floor(&self, tenant: &str) -> u64 {
        self.floors().get(tenant).copied().unwrap_or(0)
    }

    /// Remembers a tenant, unless it has become old while it was being read. Not knowing is never remembered.
    pub(super) fn keep(&self, tenant: &Tenant, known: &Lookup) {
        // Held until it stands there: no floor can rise in between.
        let floors = self.floors();
        let floor = floors.get(tenant).copied().unwrap_or(0);
        if known.version().is_none_or(|version| version < floor) {
            return;
        }
        let mut page = Page::clone(&self.page(tenant.as_str()).load());
        if page.len() >= PAGE_TENANTS_MAX && !page.contains_key(tenant) {
            make_room(&mut page);
        }
        let entry = Entry { known: known.clone(), used: AtomicBool::new(true) };
        page.insert(tenant.clone(), Arc::new(entry));
        self.page(tenant.as_str()).store(Arc::new(page));
    }

    /// Raises floors to these versions, and forgets what lies below.
    pub(super) fn raise_floors(&self, tenants: &[(String, u64)]) {
        if tenants.is_empty() {
            return;
        }
        let mut floors = self.floors();
        for (tenant, version) in tenants {
            let Ok(tenant) = Tenant::parse(tenant) else { continue };
            let slot = self.page(tenant.as_str());
            let page = slot.load();
            let is_old = |entry: &Arc<Entry>| entry.known.version().is_none_or(|known| known < *version);
            if page.get(&tenant).is_some_and(is_old) {
                let mut page = Page::clone(&page);
                page.remove(&tenant);
                slot.store(Arc::new(page));
            }
            let floor = floors.entry(tenant).or_default();
            *floor = (*floor).max(*version);
        }
    }

    fn page(&self, tenant: &str) -> &ArcSwap<Page> {
        let hash = self.hasher.hash_one(tenant);
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits are used")]
        &self.pages[hash as usize % PAGES]
    }

    /// Also the lock of whoever changes a page.
    fn floors(&self) -> MutexGuard<'_, HashMap<Tenant, u64>> {
        self.floors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets who was not asked for since the last time, or any one where all were.
fn make_room(page: &mut Page) {
    page.retain(|_, entry| entry.used.swap(false, Ordering::Relaxed));
    if page.len() >= PAGE_TENANTS_MAX
        && let Some(any) = page.keys().next().cloned()
    {
        page.remove(&any);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::parse(name).unwrap()
    }

    fn version(memory: &Memory, name: &str) -> Option<u64> {
        memory.get(name).and_then(|known| known.version())
    }

    #[test]
    fn what_is_below_its_floor_is_forgotten_and_not_remembered_again() {
        let memory = Memory::default();
        memory.keep(&tenant("acme"), &Lookup::KnownEmpty(4));
        memory.keep(&tenant("beta"), &Lookup::KnownEmpty(4));
        assert_eq!(version(&memory, "acme"), Some(4));
        memory.raise_floors(&[("acme".into(), 5)]);
        assert_eq!((version(&memory, "acme"), version(&memory, "beta")), (None, Some(4)));
        // A reader that began before the change comes back with what it found.
        memory.keep(&tenant("acme"), &Lookup::KnownEmpty(4));
        assert_eq!(version(&memory, "acme"), None);
        memory.keep(&tenant("acme"), &Lookup::KnownEmpty(5));
        assert_eq!(version(&memory, "acme"), Some(5));
    }

    #[test]
    fn reading_takes_no_lock() {
        let memory = Memory::default();
        memory.keep(&tenant("acme"), &Lookup::KnownEmpty(4));
        // A reader that wanted it would stand here for ever.
        let _changing = memory.floors();
        assert_eq!(version(&memory, "acme"), Some(4));
    }

    #[test]
    fn a_floor_never_falls() {
        let memory = Memory::default();
        memory.raise_floors(&[("acme".into(), 5)]);
        memory.raise_floors(&[("acme".into(), 3)]);
        assert_eq!(memory.floor("acme"), 5);
    }

    #[test]
    fn holds_a_bounded_number_of_tenants_and_keeps_those_in_use() {
        let memory = Memory::default();
        let most = PAGES * PAGE_TENANTS_MAX;
        memory.keep(&tenant("busy"), &Lookup::KnownEmpty(1));
        for n in 0..most + most / 2 {
            memory.keep(&tenant(&format!("t{n}")), &Lookup::KnownEmpty(1));
            assert!(memory.get("busy").is_some(), "forgotten after {n} others");
        }
        let kept: usize = memory.pages.iter().map(|page| page.load().len()).sum();
        assert!((most / 2..=most).contains(&kept), "{kept}");
    }
}
