//! Which addresses may be called.
//!
//! A tenant names the URL, so without a guard anybody could have Paperboy call what only this machine or this
//! network can reach. Addresses are judged, never names: a name is judged by all the addresses it resolves
//! to, which `resolver` does. The ranges are those of the IANA special-purpose registries (RFC 6890) and the
//! well-known addresses of cloud platforms that lie outside them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::{Ipv4Net, Ipv6Net};
use url::{Host, Url};

pub use super::rule::GuardFault;
use super::rule::Rule;

/// The policy: a fixed table of denied ranges and the deployment's exceptions.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allow: Vec<Rule>,
}

/// An address that may not be called, by what it is.
///
/// The address itself is not told: subscribers read this, and it could be one of our network's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the address is denied ({what}); `egress.allow` can permit it")]
pub struct Denied {
    pub what: &'static str,
}

impl Guard {
    /// Reads the rules of `egress.allow`.
    ///
    /// # Errors
    /// Every rule that cannot be read.
    pub fn new(allow: &[String]) -> Result<Guard, Vec<GuardFault>> {
        let (rules, faults): (Vec<_>, Vec<_>) =
            allow.iter().map(|rule| Rule::parse(rule)).partition(Result::is_ok);
        match faults.is_empty() {
            true => Ok(Guard { allow: rules.into_iter().flatten().collect() }),
            false => Err(faults.into_iter().filter_map(Result::err).collect()),
        }
    }

    pub fn permits(&self, address: SocketAddr) -> bool {
        self.check(address).is_ok()
    }

    /// Judges one address; an IPv4 address mapped into IPv6 is judged as IPv4.
    pub fn check(&self, address: SocketAddr) -> Result<(), Denied> {
        match what_is_denied(address.ip()) {
            Some(what) if !self.allow.iter().any(|rule| rule.matches(address)) => Err(Denied { what }),
            _ => Ok(()),
        }
    }

    /// Judges a URL whose host is an address; a name passes, for it is judged when it is resolved.
    ///
    /// HTTP clients call no resolver for an address, so this must run before every send.
    pub fn check_literal(&self, url: &Url) -> Result<(), Denied> {
        match Guard::literal(url) {
            // Nobody needs this spelling, and it has led around many a guard; no rule permits it.
            Some(SocketAddr::V6(address)) if address.ip().to_ipv4_mapped().is_some() => {
                Err(Denied { what: "IPv4 written as IPv6" })
            }
            Some(address) => self.check(address),
            None => Ok(()),
        }
    }

    /// The address a URL names without a resolver; the URL parser has already made one of `0x7f.1` and the like.
    pub fn literal(url: &Url) -> Option<SocketAddr> {
        let port = url.port_or_known_default()?;
        match url.host()? {
            Host::Ipv4(address) => Some((address, port).into()),
            Host::Ipv6(address) => Some((address, port).into()),
            Host::Domain(_) => None,
        }
    }

    /// Warns, when a subscription is made, that its URL will be blocked; `None` if nothing speaks against it.
    pub fn warning(&self, url: &Url) -> Option<String> {
        let host = url.host_str()?;
        let denied = match Guard::literal(url) {
            Some(_) => self.check_literal(url).err()?,
            None if is_this_machine(host) => {
                let port = url.port_or_known_default()?;
                // One of the two allowed is enough: which of them the name has is for the resolver to say.
                let ipv6 = self.check((Ipv6Addr::LOCALHOST, port).into());
                ipv6.err().and(self.check((Ipv4Addr::LOCALHOST, port).into()).err())?
            }
            None => return None,
        };
        Some(format!(
            "`{host}` is a denied address ({}): deliveries to it fail as `blocked` unless `egress.allow` names it",
            denied.what
        ))
    }

    /// The ports that rules name: for these the resolver must know the port to judge an answer.
    pub(super) fn ruled_ports(&self) -> BTreeSet<u16> {
        self.allow.iter().filter_map(Rule::port).collect()
    }
}

/// Names that mean this machine everywhere (RFC 6761 §6.3).
fn is_this_machine(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    host == "localhost" || host.ends_with(".localhost")
}

/// Says what an address is, if it is denied by default.
fn what_is_denied(address: IpAddr) -> Option<&'static str> {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            DENIED_V4.iter().find(|(range, _)| range.contains(&address)).map(|(_, what)| *what)
        }
        // Only global unicast is called at all; that denies whatever embeds or translates IPv4 outside of it.
        IpAddr::V6(address) if !GLOBAL_UNICAST.contains(&address) => {
            let known = NAMED_V6.iter().find(|(range, _)| range.contains(&address));
            Some(known.map_or("not global unicast", |(_, what)| *what))
        }
        IpAddr::V6(address) => {
            DENIED_V6.iter().find(|(range, _)| range.contains(&address)).map(|(_, what)| *what)
        }
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(head: [u16; 3], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(head[0], head[1], head[2], 0, 0, 0, 0, 0), prefix)
}

const DENIED_V4: [(Ipv4Net, &str); 19] = [
    (v4(0, 0, 0, 0, 8), "this network"), // reaches loopback on Linux
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "shared address space"), // holds 100.100.100.200, a metadata service
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(168, 63, 129, 16, 32), "cloud platform"), // Azure's host
    (v4(169, 254, 0, 0, 16), "link-local"),       // holds 169.254.169.254, the metadata services
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "protocol assignments"), // holds 192.0.0.192, a metadata service
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 31, 196, 0, 24), "AS112"),
    (v4(192, 52, 193, 0, 24), "AMT"),
    (v4(192, 88, 99, 0, 24), "6to4 relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(192, 175, 48, 0, 24), "AS112"),
    (v4(198, 18, 0, 0, 15), "benchmarking"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"), // and broadcast
];

const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0], 3);

const DENIED_V6: [(Ipv6Net, &str); 5] = [
    (v6([0x2001, 0, 0], 23), "protocol assignments"), // Teredo, AMT, ORCHID, benchmarking …
    (v6([0x2001, 0xdb8, 0], 32), "documentation"),
    (v6([0x2002, 0, 0], 16), "6to4"), // 2002:7f00:1:: is 127.0.0.1
    (v6([0x2620, 0x4f, 0x8000], 48), "AS112"),
    (v6([0x3fff, 0, 0], 20), "documentation"),
];

/// Names for the better known of what is not global unicast; all the rest is denied just the same.
const NAMED_V6: [(Ipv6Net, &str); 5] = [
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), "loopback"),
    (v6([0x64, 0xff9b, 0], 31), "translated IPv4"), // NAT64: 64:ff9b::/96 and 64:ff9b:1::/48
    (v6([0xfc00, 0, 0], 7), "private"),
    (v6([0xfe80, 0, 0], 10), "link-local"),
    (v6([0xff00, 0, 0], 8), "multicast"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guard(rules: &[&str]) -> Guard {
        Guard::new(&rules.iter().map(|rule| (*rule).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn permits(address: &str) -> bool {
        guard(&[]).permits(SocketAddr::new(address.parse().unwrap(), 443))
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn ipv4_ranges_are_denied_from_their_first_to_their_last_address_and_not_beyond() {
        let ranges = [
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "168.63.129.16/32",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ];
        assert_eq!(ranges.len(), DENIED_V4.len());
        let neighbours = |address: u32| permits(&Ipv4Addr::from(address).to_string());
        for range in ranges {
            let range: Ipv4Net = range.parse().unwrap();
            let (first, last) = (u32::from(range.network()), u32::from(range.broadcast()));
            assert!(!neighbours(first) && !neighbours(last), "{range}");
            // Only multicast and reserved touch another denied range.
            if first != 0 && range.network() != Ipv4Addr::new(240, 0, 0, 0) {
                assert!(neighbours(first - 1), "one before {range}");
            }
            if range.network() != Ipv4Addr::new(224, 0, 0, 0) && last != u32::MAX {
                assert!(neighbours(last + 1), "one after {range}");
            }
        }
    }

    #[test]
    fn ipv6_ranges_are_denied_from_their_first_to_their_last_address_and_not_beyond() {
        for (range, before, after) in [
            // range, whether the address before it is allowed, whether the one after is
            ("2001::/23", true, true),
            ("2001:db8::/32", true, true),
            ("2002::/16", true, true),
            ("2620:4f:8000::/48", true, true),
            ("3fff::/20", true, true),
            // Outside of global unicast everything is denied.
            ("::/128", false, false),
            ("::1/128", false, false),
            ("::/96", false, false),
            ("::ffff:0:0:0/96", false, false),
            ("64:ff9b::/96", false, false),
            ("64:ff9b:1::/48", false, false),
            ("100::/64", false, false),
            ("100:0:0:1::/64", false, false),
            ("200::/7", false, false),
            ("5f00::/16", false, false),
            ("fc00::/7", false, false),
            ("fe80::/10", false, false),
            ("fec0::/10", false, false),
            ("ff00::/8", false, false),
            ("::/3", false, true),
            ("4000::/2", true, false),
        ] {
            let net: Ipv6Net = range.parse().unwrap();
            let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
            let allowed = |address: u128| permits(&Ipv6Addr::from(address).to_string());
            assert!(!allowed(first) && !allowed(last), "{range}");
            if let Some(address) = first.checked_sub(1) {
                assert_eq!(allowed(address), before, "one before {range}");
            }
            // One after `::/96` (compatible) lies `::1:0:0`, denied as well; after `::1` lies a compatible
            // address.
            if let Some(address) = last.checked_add(1) {
                assert_eq!(allowed(address), after, "one after {range}");
            }
        }
    }

    #[test]
    fn the_special_blocks_inside_2001_are_denied_as_a_whole() {
        for address in [
            "2001::1",
            "2001:0:1234::1",
            "2001:1::1",
            "2001:2::1",
            "2001:3::1",
            "2001:4:112::1",
            "2001:10::1",
            "2001:20::1",
            "2001:30::1",
            "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert!(!permits(address), "{address}");
        }
    }

    #[test]
    fn neighbours_of_denied_ranges_and_public_resolvers_are_allowed() {
        for address in [
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "169.253.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "1.1.1.1",
            "8.8.8.8",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700:4700::1111",
            "2003::1",
        ] {
            assert!(permits(address), "{address}");
        }
    }

    #[test]
    fn well_known_targets_of_attacks_are_denied() {
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "255.255.255.255",
            "233.252.0.1",
            "::",
            "::1",
            "::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::7f00:1",
            "2002:7f00:1::",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fec0::1",
            "fe80::1",
        ] {
            assert!(!permits(address), "{address}");
        }
    }

    #[test]
    fn a_mapped_answer_is_judged_as_ipv4() {
        assert!(permits("::ffff:8.8.8.8"));
        for address in ["::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0:0", "::ffff:ffff:ffff"] {
            assert!(!permits(address), "{address}");
        }
        assert!(guard(&["127.0.0.1"]).permits("[::ffff:127.0.0.1]:80".parse().unwrap()));
    }

    #[test]
    fn a_mapped_literal_is_always_denied() {
        let open = guard(&["0.0.0.0/0", "::/0"]);
        for text in ["http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[::ffff:8.8.8.8]/"] {
            assert_eq!(
                open.check_literal(&url(text)),
                Err(Denied { what: "IPv4 written as IPv6" }),
                "{text}"
            );
        }
    }

    #[test]
    fn a_rule_allows_its_range_and_nothing_beside_it() {
        let guard = guard(&["10.1.0.0/16", "fd00:1::/32"]);
        for (address, allowed) in [
            ("10.1.0.0:80", true),
            ("10.1.255.255:65535", true),
            ("10.0.255.255:80", false),
            ("10.2.0.0:80", false),
            ("[fd00:1::1]:80", true),
            ("[fd00:2::1]:80", false),
            ("127.0.0.1:80", false),
        ] {
            assert_eq!(guard.permits(address.parse().unwrap()), allowed, "{address}");
        }
    }

    #[test]
    fn a_rule_with_a_port_allows_that_port_only() {
        let guard = guard(&["127.0.0.1:9000", "[::1]:9001"]);
        for (address, allowed) in [
            ("127.0.0.1:9000", true),
            ("127.0.0.1:9001", false),
            ("127.0.0.2:9000", false),
            ("[::1]:9001", true),
            ("[::1]:9000", false),
        ] {
            assert_eq!(guard.permits(address.parse().unwrap()), allowed, "{address}");
        }
        assert_eq!(guard.ruled_ports().into_iter().collect::<Vec<_>>(), [9000, 9001]);
    }

    #[test]
    fn every_spelling_of_an_address_in_a_url_is_judged_as_that_address() {
        for text in [
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://0/",
            "http://127.0.0.1./",
            "http://127.0.0.1%2e/",
            "http://%31%32%37.0.0.1/",
            "http://127。0。0。1/",
            "http://①②⑦.⓪.⓪.①/",
            "http://0xA9FEA9FE/",
            "http://169.254.43518/",
            "https://[::1]/",
            "http://[::]:8080/",
            "http://[::127.0.0.1]/",
            "http://[64:ff9b::169.254.169.254]/",
        ] {
            assert!(guard(&[]).check_literal(&url(text)).is_err(), "{text}");
        }
        assert_eq!(Guard::literal(&url("https://1.2.3.4/")), Some("1.2.3.4:443".parse().unwrap()));
        assert_eq!(Guard::literal(&url("http://1.2.3.4:81/")), Some("1.2.3.4:81".parse().unwrap()));
        assert!(guard(&[]).check_literal(&url("http://1.2.3.4:81/")).is_ok());
    }

    #[test]
    fn a_name_is_left_to_the_resolver() {
        assert_eq!(Guard::literal(&url("http://localhost/")), None);
        assert!(guard(&[]).check_literal(&url("http://localhost/")).is_ok());
    }

    #[test]
    fn making_a_subscription_to_a_denied_address_warns() {
        for text in
            ["http://127.0.0.1/x", "http://10.0.0.1:8080/", "http://localhost/", "http://a.localhost./"]
        {
            let warning = guard(&[]).warning(&url(text)).unwrap();
            assert!(warning.contains("`blocked`") && warning.contains("egress.allow"), "{warning}");
        }
        for text in ["https://example.com/", "http://8.8.8.8/"] {
            assert_eq!(guard(&[]).warning(&url(text)), None, "{text}");
        }
        assert_eq!(guard(&["127.0.0.1:80"]).warning(&url("http://localhost/")), None);
        assert!(guard(&["127.0.0.1:80"]).warning(&url("http://localhost:81/")).is_some());
    }

    #[test]
    fn all_bad_rules_are_told_at_once() {
        let rules = ["10.0.0.0/8", "nowhere", "10.0.0.1/8"].map(str::to_owned);
        assert_eq!(Guard::new(&rules).unwrap_err().len(), 2);
    }

    /// Addresses at and around what is denied, more often than chance would have them.
    fn any_v4() -> impl Strategy<Value = Ipv4Addr> {
        let edges = DENIED_V4.map(|(range, _)| [range.network(), range.broadcast()].map(u32::from)).concat();
        let near = (proptest::sample::select(edges), -2_i32..=2);
        let near = near.prop_map(|(edge, by)| edge.wrapping_add_signed(by));
        prop_oneof![near, any::<u32>()].prop_map(Ipv4Addr::from)
    }

    proptest! {
        #[test]
        fn however_an_address_is_spelt_it_is_judged_as_what_it_is(address in any_v4(), spelling in 0..7) {
            let [a, b, c, d] = address.octets();
            let whole = u32::from(address);
            let host = match spelling {
                0 => whole.to_string(),
                1 => format!("0x{whole:x}"),
                2 => format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
                3 => format!("0x{a:X}.{b}.0{c:o}.{d}"),
                4 => format!("{a}.{}", whole & 0xff_ffff),
                5 => format!("{a}.{b}.{}.", whole & 0xffff),
                _ => address.to_string().replace('1', "%31").replace('.', "。"),
            };
            let verdict = guard(&[]).check_literal(&url(&format!("http://{host}/")));
            prop_assert_eq!(verdict, guard(&[]).check((address, 80).into()), "{}", host);
            let mapped = format!("http://[{}]/", address.to_ipv6_mapped());
            prop_assert!(guard(&["0.0.0.0/0"]).check_literal(&url(&mapped)).is_err(), "{}", mapped);
        }

        #[test]
        fn only_global_unicast_is_ever_called_over_ipv6(address: [u16; 8]) {
            let address = Ipv6Addr::from(address);
            let is_permitted = guard(&[]).permits((address, 443).into());
            prop_assert!(!is_permitted || GLOBAL_UNICAST.contains(&address));
        }
    }
}
