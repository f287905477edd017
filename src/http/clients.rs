//! The HTTP clients, all alike but for what the guard and TLS must tell apart.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use reqwest::{Client, redirect, retry};
use url::Url;

use super::{
    guard::Guard,
    resolver::{GuardedResolver, Lookups},
};

/// Time for name, TCP and TLS together; what takes longer is class `connect`.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Receivers and what stands before them often close idle connections after 5 s or more; a request sent at
/// that very moment is lost.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// One client for each case; each keeps its own connections.
///
/// A resolver learns a name without its port. So each port that a rule of the guard names has a client of its
/// own, and a connection made without checking the certificate is never used where it is to be checked.
pub(super) struct Clients {
    by_case: HashMap<Case, Client>,
    ruled_ports: BTreeSet<u16>,
    insecure_hosts: BTreeSet<String>,
}

#[derive(PartialEq, Eq, Hash, Clone, Copy)]
struct Case {
    port: Option<u16>,
    insecure: bool,
}

impl Clients {
    pub(super) fn new(guard: &Arc<Guard>, insecure_tls: &[String]) -> anyhow::Result<Clients> {
        let ruled_ports = guard.ruled_ports();
        let insecure_hosts: BTreeSet<String> =
            insecure_tls.iter().map(|host| host.trim_end_matches('.').to_lowercase()).collect();
        let lookups = Arc::new(Lookups::default());
        let mut by_case = HashMap::new();
        for port in ruled_ports.iter().copied().map(Some).chain([None]) {
            for insecure in [false, true] {
                if !insecure || !insecure_hosts.is_empty() {
                    let resolver = GuardedResolver::new(guard.clone(), lookups.clone(), port);
                    by_case.insert(Case { port, insecure }, client(resolver, insecure)?);
                }
            }
        }
        Ok(Clients { by_case, ruled_ports, insecure_hosts })
    }

    /// Picks the client for this URL.
    pub(super) fn of(&self, url: &Url) -> Option<&Client> {
        let port = url.port_or_known_default().filter(|port| self.ruled_ports.contains(port));
        let host = url.host_str().unwrap_or_default().trim_end_matches('.');
        self.by_case.get(&Case { port, insecure: self.insecure_hosts.contains(host) })
    }
}

fn client(resolver: GuardedResolver, insecure: bool) -> anyhow::Result<Client> {
    Client::builder()
        .dns_resolver(resolver)
        .http1_only()
        // A redirect could lead anywhere, and a proxy would connect in our place, both past the guard.
        .redirect(redirect::Policy::none())
        .no_proxy()
        // Every attempt is counted and spaced by us. With a limit of none the client keeps no copy of a request either.
        .retry(retry::never().max_retries_per_request(0))
        // Bodies are only glanced at; a small one could decode to gigabytes.
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .tls_danger_accept_invalid_certs(insecure)
        .build()
        .context("could not prepare the HTTP client; are root certificates (`ca-certificates`) installed?")
}
