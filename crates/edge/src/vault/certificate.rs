//! When a certificate ends: the one thing that we read from a certificate ourselves, because the TLS library checks it
//! and does not tell. For metrics and check-ups alone; nothing is decided by it.

use holdfast_core::time::Timestamp;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The `notAfter` of an X.509 certificate in DER (RFC 5280, 4.1). `None` if it cannot be read.
pub(crate) fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        (_, rest) = element(rest, VERSION)?;
    }
    let (_serial, rest) = element(rest, INTEGER)?;
    let (_algorithm, rest) = element(rest, SEQUENCE)?;
    let (_issuer, rest) = element(rest, SEQUENCE)?;
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_not_before, rest) = element(validity, *validity.first()?)?;
    let kind = *rest.first()?;
    let (time, _) = element(rest, kind)?;
    timestamp(kind, std::str::from_utf8(time).ok()?)
}

/// The content of the element of this kind at the start, and what follows it.
fn element(bytes: &[u8], kind: u8) -> Option<(&[u8], &[u8])> {
    let (&found, bytes) = bytes.split_first()?;
    let (&first, bytes) = bytes.split_first()?;
    // A certificate's lengths fit into three bytes; DER has no indefinite ones (0x80).
    let (length, bytes) = match first {
        0..=0x7f => (usize::from(first), bytes),
        0x81..=0x83 => {
            let (digits, bytes) = bytes.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |n, digit| n << 8 | usize::from(*digit)), bytes)
        }
        _ => return None,
    };
    if found == kind { bytes.split_at_checked(length) } else { None }
}

/// `YYMMDDHHMMSSZ`, where 50 to 99 are the last century, or `YYYYMMDDHHMMSSZ`: the two forms that RFC 5280 allows.
fn timestamp(kind: u8, text: &str) -> Option<Timestamp> {
    if !text.is_ascii() {
        return None;
    }
    let (year, rest) = match kind {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            (format!("{}{year}", if year < "50" { "20" } else { "19" }), rest)
        }
        GENERALIZED_TIME => text.split_at_checked(4).map(|(year, rest)| (year.to_owned(), rest))?,
        _ => return None,
    };
    let digits = rest.strip_suffix('Z').filter(|d| d.len() == 10 && d.bytes().all(|b| b.is_ascii_digit()))?;
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|at| &digits[at..at + 2]);
    format!("{year}-{month}-{day}T{hour}:{minute}:{second}.000Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(year: i32) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(["vault-1".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(1999, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 7, 9);
        let key = rcgen::KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn reads_the_end_in_both_forms() {
        for year in [2026, 2049, 2050, 2200] {
            let expected = format!("{year}-07-09T00:00:00.000Z").parse().expect("a time");
            assert_eq!(not_after(&certificate(year)), Some(expected));
        }
        assert_eq!(timestamp(UTC_TIME, "991231235959Z"), "1999-12-31T23:59:59.000Z".parse().ok());
    }

    #[test]
    fn what_is_no_certificate_has_no_end_and_never_panics() {
        let whole = certificate(2030);
        for cut in 0..whole.len() {
            not_after(&whole[..cut]);
        }
        for at in 0..whole.len().min(200) {
            for value in [0, 0x7f, 0x80, 0x81, 0x84, 0xff] {
                let mut bent = whole.clone();
                bent[at] = value;
                not_after(&bent);
            }
        }
        assert_eq!(not_after(&[]), None);
        for bad in ["", "9912312359", "99123123595", "991331235959Z", "9912312359590", "é91231235959Z", "991231235959"]
        {
            assert_eq!(timestamp(UTC_TIME, bad), None, "{bad}");
            assert_eq!(timestamp(GENERALIZED_TIME, bad), None, "{bad}");
        }
    }
}
