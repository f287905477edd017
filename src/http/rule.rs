//! One exception from the address guard, as written in `egress.allow`.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use ipnet::IpNet;

/// A range of addresses, perhaps with a port, that may be called although the guard denies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    range: IpNet,
    port: Option<u16>,
}

/// Why a rule was refused; the text of the rule is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardFault {
    #[error("`{rule}` is neither an address nor a range of addresses")]
    NotARange { rule: String },
    #[error("`{rule}` has a port that is not a number from 1 to 65535")]
    BadPort { rule: String },
    #[error("`{rule}` has address bits beyond its prefix")]
    HostBits { rule: String, meant: String },
    #[error("`{rule}` is an IPv4 address written as IPv6, which is judged as IPv4")]
    Mapped { rule: String },
}

impl GuardFault {
    /// Says what to write instead.
    pub fn hint(&self) -> String {
        match self {
            GuardFault::NotARange { .. } => {
                "write `10.1.2.3`, `10.0.0.0/8`, `10.0.0.0/8:443` or `[fd00::/8]:443`; names are not possible"
                    .into()
            }
            GuardFault::BadPort { .. } => "write `10.0.0.0/8:443`, or leave the port out to allow all".into(),
            GuardFault::HostBits { meant, .. } => format!("write `{meant}`"),
            GuardFault::Mapped { .. } => "write the IPv4 address".into(),
        }
    }
}

impl Rule {
    /// Reads `IP`, `CIDR`, `IP:PORT`, `CIDR:PORT` or, for IPv6 with a port, `[CIDR]:PORT`.
    pub fn parse(text: &str) -> Result<Rule, GuardFault> {
        let rule = || text.to_owned();
        let (range, port) = split(text).ok_or_else(|| GuardFault::NotARange { rule: rule() })?;
        let range = parse_range(range).ok_or_else(|| GuardFault::NotARange { rule: rule() })?;
        let port = match port {
            None => None,
            // `parse` alone would take `+443`.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(
                digits
                    .parse()
                    .ok()
                    .filter(|port| *port != 0)
                    .ok_or_else(|| GuardFault::BadPort { rule: rule() })?,
            ),
            Some(_) => return Err(GuardFault::BadPort { rule: rule() }),
        };
        if range.trunc() != range {
            return Err(GuardFault::HostBits {
                rule: rule(),
                meant: Rule { range: range.trunc(), port }.to_string(),
            });
        }
        match range.addr() {
            IpAddr::V6(address) if address.to_ipv4_mapped().is_some() && range.prefix_len() >= 96 => {
                Err(GuardFault::Mapped { rule: rule() })
            }
            _ => Ok(Rule { range, port }),
        }
    }

    pub fn matches(&self, address: SocketAddr) -> bool {
        self.port.is_none_or(|port| port == address.port())
            && self.range.contains(&address.ip().to_canonical())
    }

    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.range, self.port) {
            (range, None) => write!(formatter, "{range}"),
            (IpNet::V4(range), Some(port)) => write!(formatter, "{range}:{port}"),
            (IpNet::V6(range), Some(port)) => write!(formatter, "[{range}]:{port}"),
        }
    }
}

/// Parts a rule into its range and the text of its port.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (range, rest) = rest.split_once(']')?;
        return match rest {
            "" => Some((range, None)),
            _ => rest.strip_prefix(':').map(|port| (range, Some(port))),
        };
    }
    // One colon parts an IPv4 range from its port; more are an IPv6 address without one.
    match text.matches(':').count() {
        1 => text.split_once(':').map(|(range, port)| (range, Some(port))),
        _ => Some((text, None)),
    }
}

fn parse_range(text: &str) -> Option<IpNet> {
    IpNet::from_str(text).ok().or_else(|| IpAddr::from_str(text).ok().map(IpNet::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form_of_a_rule() {
        for (text, normal) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("127.0.0.1", "127.0.0.1/32"),
            ("127.0.0.1:9000", "127.0.0.1/32:9000"),
            ("10.0.0.0/8:443", "10.0.0.0/8:443"),
            ("fd00::/8", "fd00::/8"),
            ("::1", "::1/128"),
            ("[::1]", "::1/128"),
            ("[::1]:80", "[::1/128]:80"),
            ("[fd00::/8]:443", "[fd00::/8]:443"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(Rule::parse(text).unwrap().to_string(), normal, "{text}");
        }
    }

    #[test]
    fn refuses_what_could_be_misread_and_says_what_to_write() {
        for text in [
            "",
            "localhost",
            "example.com:443",
            "10.0.0.0/33",
            "10.0.0",
            "[::1",
            "[::1]x",
            "127.1",
            "fe80::1%eth0",
        ] {
            assert!(matches!(Rule::parse(text), Err(GuardFault::NotARange { .. })), "{text}");
        }
        for text in ["10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:+1", "10.0.0.1:", "[::1]:x"] {
            assert!(matches!(Rule::parse(text), Err(GuardFault::BadPort { .. })), "{text}");
        }
        let fault = Rule::parse("10.0.0.5/8:443").unwrap_err();
        assert_eq!(fault.hint(), "write `10.0.0.0/8:443`");
        assert!(matches!(Rule::parse("::ffff:10.0.0.0/104"), Err(GuardFault::Mapped { .. })));
        assert!(matches!(Rule::parse("[::ffff:127.0.0.1]:80"), Err(GuardFault::Mapped { .. })));
    }
}
