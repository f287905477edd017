//! Numbers compared by the value they are written for, however long.

/// A decimal number in the one form that equal numbers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    is_negative: bool,
    /// Without zeros at either end; empty for zero.
    digits: String,
    /// The value is 0.digits × 10^exponent.
    exponent: i64,
}

impl Decimal {
    /// Reads a JSON number (RFC 8259 §6); `None` for what is none, or has an exponent beyond all use.
    pub(super) fn parse(text: &str) -> Option<Decimal> {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if !text.starts_with(|char: char| char.is_ascii_digit()) {
            return None;
        }
        let (mantissa, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0');
        if digits.is_empty() {
            return Some(Decimal { is_negative: false, digits: String::new(), exponent: 0 });
        }
        let leading_zeros = i64::try_from(all.len() - digits.len()).ok()?;
        let exponent = i64::try_from(whole.len()).ok()?.checked_sub(leading_zeros)?;
        let exponent = exponent.checked_add(power.parse().ok()?)?;
        Some(Decimal { is_negative, digits: digits.trim_end_matches('0').to_owned(), exponent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_numbers_have_one_form() {
        for (one, other) in [
            ("1", "1.0"),
            ("1", "0.1e1"),
            ("120", "1.2E+2"),
            ("0.05", "5e-2"),
            ("0", "-0.0e7"),
            ("0", "0e99999999999999999999"),
            ("12345678901234567890123", "1234567890123456789012.3e1"),
        ] {
            assert_eq!(Decimal::parse(one).unwrap(), Decimal::parse(other).unwrap(), "{one} {other}");
        }
        for (one, other) in [("1", "-1"), ("1", "10"), ("0.1", "0.01"), ("12", "21")] {
            assert_ne!(Decimal::parse(one), Decimal::parse(other), "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_number_has_none() {
        for text in ["", "-", "true", "null", "\"1\"", "[1]", "1e99999999999999999999"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn shifting_the_point_and_the_exponent_changes_nothing(number in any::<i64>(), places in 0..30_usize) {
            let shifted = format!("{number}{}e-{places}", "0".repeat(places));
            prop_assert_eq!(Decimal::parse(&number.to_string()), Decimal::parse(&shifted));
        }

        #[test]
        fn different_numbers_differ(one in any::<i32>(), other in any::<i32>()) {
            let same = Decimal::parse(&one.to_string()) == Decimal::parse(&other.to_string());
            prop_assert_eq!(same, one == other);
        }
    }
}
