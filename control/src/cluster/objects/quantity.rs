//! Quantities as Kubernetes writes them (`apimachinery/pkg/api/resource`): `10M`, `1.5Gi`, `3e6`, `500k`.

/// Digits of a number at most; ten more than the largest that any field can hold.
const DIGITS: usize = 30;

/// A quantity rounded up to a whole number, as `Quantity.Value()` gives it; `None` for text that is none. What is too
/// large to be told from any other that is too large is the largest number.
pub(crate) fn quantity(text: &str) -> Option<i128> {
    let (negative, text) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (tens, twos) = scale(suffix)?;
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.len() > DIGITS {
        return None;
    }
    let mantissa: u128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let tens = tens.saturating_sub(i32::try_from(fraction.len()).ok()?);
    let value = scaled(mantissa, tens, twos).unwrap_or(i128::MAX as u128);
    let value = i128::try_from(value).unwrap_or(i128::MAX);
    Some(if negative { -value } else { value })
}

/// A suffix as powers of ten and of two.
fn scale(suffix: &str) -> Option<(i32, u32)> {
    const DECIMAL: [(&str, i32); 10] =
        [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
    const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
    if let Some((_, tens)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((*tens, 0));
    }
    if let Some((_, twos)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some((0, *twos));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    // An exponent of more digits is beyond every field.
    let fits = (1..=9).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    fits.then(|| exponent.parse().ok()).flatten().map(|tens| (tens, 0))
}

/// `None` when it is too large.
fn scaled(mantissa: u128, tens: i32, twos: u32) -> Option<u128> {
    if mantissa == 0 {
        return Some(0);
    }
    let value = mantissa.checked_mul(1u128.checked_shl(twos)?)?;
    match 10u128.checked_pow(tens.unsigned_abs()) {
        Some(power) if tens >= 0 => value.checked_mul(power),
        Some(power) => Some(value.div_ceil(power)),
        // A part of the smallest unit.
        None if tens < 0 => Some(1),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_what_kubernetes_makes_of_them() {
        for (text, value) in [
            ("0", 0),
            ("10M", 10_000_000),
            ("1k", 1000),
            ("1Ki", 1024),
            ("1.5Gi", 1_610_612_736),
            ("1P", 1_000_000_000_000_000),
            ("2E", 2_000_000_000_000_000_000),
            ("3e6", 3_000_000),
            ("3E6", 3_000_000),
            ("25e-1", 3),
            ("+5", 5),
            ("-5k", -5000),
            ("1.", 1),
            (".5", 1),
            ("0.5k", 500),
            ("1500m", 2),
            ("1n", 1),
            ("000000000000000000000000000000000000010M", 10_000_000),
            ("1e-999999999", 1),
            ("1e999999999", i128::MAX),
            ("0e999999999", 0),
        ] {
            assert_eq!(quantity(text), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in [
            "",
            "-",
            "+",
            ".",
            "M",
            "10Mbit",
            "10 M",
            " 10M",
            "1.2.3",
            "1,5",
            "10K",
            "10mi",
            "e6",
            "1e",
            "1e+",
            "1e1.5",
            "1e-+5",
            "1e99999999999",
            "--5",
            "ten",
            "1\u{0663}",
            "1234567890123456789012345678901",
        ] {
            assert_eq!(quantity(text), None, "{text}");
        }
    }
}
