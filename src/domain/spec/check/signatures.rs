//! The `signatures` section.

use super::faults::Faults;
use crate::domain::fault::Fault;
use crate::domain::signature::Scheme;
use crate::domain::signature::hmac::{HmacScheme, Settings};
use crate::domain::signature::standard::{Retiring, Standard};
use crate::domain::spec::SignatureSpec;

const SIGNATURES_MAX: usize = 5;

/// The schemes that are good, each with its field.
pub(super) fn check_signatures(
    specs: Option<&[SignatureSpec]>,
    faults: &mut Faults,
) -> Vec<(String, Scheme)> {
    let Some(specs) = specs else {
        let fault = Fault::new("signatures", "is missing");
        faults.0.push(fault.hint("`[]` is unsigned on purpose"));
        return Vec::new();
    };
    if specs.len() > SIGNATURES_MAX {
        faults.add("signatures", format!("holds more than {SIGNATURES_MAX} schemes"));
    }
    let fields = (0..specs.len()).map(|index| format!("signatures[{index}]"));
    let schemes: Vec<(String, Scheme)> = fields
        .zip(specs)
        .filter_map(|(field, spec)| check_signature(&field, spec, faults).map(|scheme| (field, scheme)))
        .collect();
    // One that is wrong may have been meant to send it.
    let sends_timestamp =
        schemes.len() < specs.len() || schemes.iter().any(|(_, scheme)| scheme.sends_timestamp());
    for (field, _) in schemes.iter().filter(|(_, scheme)| scheme.signs_timestamp() && !sends_timestamp) {
        let fault = Fault::new(format!("{field}.timestamp_header"), "is missing: the time is signed");
        faults.0.push(fault.hint("name the header from which the receiver takes the time"));
    }
    schemes
}

fn check_signature(field: &str, spec: &SignatureSpec, faults: &mut Faults) -> Option<Scheme> {
    match spec.scheme.as_str() {
        "standard" => {
            let given = [
                ("header", spec.header.is_some()),
                ("algorithm", spec.algorithm.is_some()),
                ("encoding", spec.encoding.is_some()),
                ("prefix", spec.prefix.is_some()),
                ("content", spec.content.is_some()),
                ("timestamp_header", spec.timestamp_header.is_some()),
                ("id_header", spec.id_header.is_some()),
            ];
            faults.only(field, "standard", &given, &[]);
            let retiring = check_retiring(field, spec, faults);
            faults.keep(field, Standard::new(&spec.secrets, &retiring)).map(Scheme::Standard)
        }
        "hmac" => {
            faults.only(field, "hmac", &[("retiring", !spec.retiring.is_empty())], &[]);
            let settings = Settings {
                header: spec.header.as_deref().unwrap_or_default(),
                algorithm: spec.algorithm.as_deref().unwrap_or("sha256"),
                encoding: spec.encoding.as_deref().unwrap_or("hex"),
                prefix: spec.prefix.as_deref().unwrap_or_default(),
                content: spec.content.as_deref().unwrap_or("{body}"),
                timestamp_header: spec.timestamp_header.as_deref(),
                id_header: spec.id_header.as_deref(),
                secrets: &spec.secrets,
            };
            faults.keep(field, HmacScheme::new(&settings)).map(Scheme::Hmac)
        }
        _ => {
            faults.unknown(&format!("{field}.scheme"), "`standard` and `hmac`");
            None
        }
    }
}

/// The retiring secrets of which the time can be read.
fn check_retiring<'a>(field: &str, spec: &'a SignatureSpec, faults: &mut Faults) -> Vec<Retiring<'a>> {
    let mut retiring = Vec::with_capacity(spec.retiring.len());
    for (index, entry) in spec.retiring.iter().enumerate() {
        let field = format!("{field}.retiring[{index}]");
        match entry.until_unix_s() {
            Some(until_unix_s) => retiring.push(Retiring { secret: &entry.secret, until_unix_s }),
            None => {
                let fault = Fault::new(format!("{field}.until"), "must be RFC 3339");
                faults.0.push(fault.hint("for example `2026-11-22T09:00:07Z`"));
            }
        }
    }
    retiring
}
