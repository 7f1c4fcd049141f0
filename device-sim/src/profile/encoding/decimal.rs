//! Writes decimal numbers exactly: steps of 10^-decimals, without a detour through floating point.

/// Appends `steps` / 10^`decimals`.
pub(crate) fn push(payload: &mut Vec<u8>, steps: i64, decimals: u8) {
    if steps < 0 {
        payload.push(b'-');
    }
    // 20 digits of a u64 and as many zeros.
    let mut digits = [b'0'; 40];
    let mut rest = steps.unsigned_abs();
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        if rest == 0 && count > usize::from(decimals) {
            break;
        }
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
    }
    let written = digits.get(digits.len() - count..).unwrap_or_default();
    let (whole, part) = written
        .split_at_checked(count - usize::from(decimals))
        .unwrap_or((written, &[]));
    payload.extend_from_slice(whole);
    if !part.is_empty() {
        payload.push(b'.');
        payload.extend_from_slice(part);
    }
}

/// Appends `number`.
pub(crate) fn push_integer(payload: &mut Vec<u8>, number: u64) {
    push(payload, i64::try_from(number).unwrap_or(i64::MAX), 0);
}

/// Appends six digits, more if there are.
pub(crate) fn push_device(payload: &mut Vec<u8>, device: u32) {
    for least in [100_000, 10_000, 1_000, 100, 10] {
        if device < least {
            payload.push(b'0');
        }
    }
    push_integer(payload, device.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        for (steps, decimals, expected) in [
            (0, 0, "0"),
            (7, 0, "7"),
            (-7, 0, "-7"),
            (2_137, 2, "21.37"),
            (-5, 2, "-0.05"),
            (0, 2, "0.00"),
            (100, 2, "1.00"),
            (i64::MAX, 6, "9223372036854.775807"),
            (i64::MIN, 0, "-9223372036854775808"),
        ] {
            let mut text = Vec::new();
            push(&mut text, steps, decimals);
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
    }

    #[test]
    fn devices_have_six_digits() {
        for (device, expected) in [
            (0, "000000"),
            (17, "000017"),
            (999_999, "999999"),
            (1_000_000, "1000000"),
        ] {
            let mut text = Vec::new();
            push_device(&mut text, device);
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
    }
}
