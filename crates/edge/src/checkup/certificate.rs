//! Until when a certificate is good.

use std::time::Duration;

use holdfast_core::time::Timestamp;

use super::finding::Finding;

/// Renewing takes a person, a change window and a second try.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// How a certificate stands that ends at `not_after`. `whose` is how a person calls its holder.
pub fn certificate_end(whose: &str, not_after: Option<Timestamp>, now: Timestamp) -> Finding {
    let Some(end) = not_after else {
        return Finding::warning(
            "certificate",
            format!("when {whose} certificate ends cannot be read from it"),
            "look at it with openssl x509 -noout -enddate",
        );
    };
    let left = end.since(now);
    let days = left.as_secs() / (24 * 3600);
    if left.is_zero() {
        let what = format!("{whose} certificate ended at {end}");
        Finding::failed(
            "certificate",
            what,
            "renew it: nobody accepts it any more; with the same key, pins stay as they are",
        )
    } else if left < SOON {
        let what = format!("{whose} certificate ends in {days} days, at {end}");
        Finding::warning("certificate", what, "renew it before that; with the same key, pins stay as they are")
    } else {
        Finding::ok("certificate", format!("{whose} certificate is good for {days} days, until {end}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkup::Grade;

    #[test]
    fn thirty_days_are_soon_and_the_end_is_the_end() {
        let now = Timestamp::from_millis(1_795_348_800_000);
        let grade = |end| certificate_end("its", end, now).grade;
        assert_eq!(grade(Some(now.after(SOON + Duration::from_secs(1)))), Grade::Ok);
        assert_eq!(grade(Some(now.after(SOON - Duration::from_secs(1)))), Grade::Warning);
        assert_eq!(grade(Some(now.after(Duration::from_secs(1)))), Grade::Warning);
        assert_eq!(grade(Some(now)), Grade::Failed);
        assert_eq!(grade(Some(now.before(Duration::from_secs(1)))), Grade::Failed);
        assert_eq!(grade(None), Grade::Warning);
    }
}
