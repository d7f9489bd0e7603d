//! What a sentinel remembers of each custodian's audit log, so that nobody shortens one or writes it anew without somebody else
//! knowing.
//!
//! The numbers that a custodian signs in its heartbeats only grow: an entry is on its disk before it is told of, and a custodian that
//! finds its log cut goes on counting where it was. What does not fit is kept as a doubt, and nothing that the custodian says
//! later ends it: whoever could rewrite the log can say anything. Operators end it, or time.

use std::time::Duration;

use crate::message::AuditReport;
use crate::status::{AuditDoubt, AuditMisfit, AuditWitness};
use crate::time::Timestamp;

/// How long a doubt is told unless an operator accepts it before: long enough for whoever comes back from a holiday.
pub const AUDIT_DOUBT_KEPT: Duration = Duration::from_secs(30 * 86_400);

/// What is known of a log after its custodian said this; `None` if that is nothing new. Operators have accepted what was heard
/// until `accepted`.
pub(super) fn witness(
    known: Option<&AuditWitness>,
    told: &AuditReport,
    issued_at: Timestamp,
    now: Timestamp,
    accepted: Option<Timestamp>,
) -> Option<AuditWitness> {
    if known.is_some_and(|known| issued_at <= known.issued_at) {
        // Said before what is known, and late, or repeated by somebody.
        return None;
    }
    let standing = known.and_then(|known| standing(known, now, accepted));
    let misfit = known.and_then(|known| misfit(known, told));
    // That an entry is broken is said again and again, and may follow from what is known already.
    let misfit =
        misfit.or_else(|| told.broken.filter(|_| standing.is_none()).map(|entry| AuditMisfit::Broken { entry }));
    let doubt = misfit.map(|what| AuditDoubt { at: now, what }).or_else(|| standing.cloned());
    let news = AuditWitness { seq: told.seq, head: told.head.clone(), issued_at, doubt };
    let same = known.is_some_and(|known| (known.seq, &known.head, &known.doubt) == (news.seq, &news.head, &news.doubt));
    (!same).then_some(news)
}

/// The doubt that is still told.
pub(super) fn standing(known: &AuditWitness, now: Timestamp, accepted: Option<Timestamp>) -> Option<&AuditDoubt> {
    let is_accepted = |doubt: &AuditDoubt| accepted.is_some_and(|until| doubt.at <= until);
    known.doubt.as_ref().filter(|doubt| now < doubt.at.after(AUDIT_DOUBT_KEPT) && !is_accepted(doubt))
}

fn misfit(known: &AuditWitness, told: &AuditReport) -> Option<AuditMisfit> {
    let told_head = known.head.clone();
    if told.seq < known.seq {
        return Some(AuditMisfit::Shorter { told: known.seq, told_head, now: told.seq });
    }
    (told.seq == known.seq && told.head != known.head).then_some(AuditMisfit::Otherwise { entry: told.seq, told_head })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(seq: u64, head: &str) -> AuditReport {
        AuditReport { seq, head: head.to_owned(), ok: true, broken: None }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    /// Hears these reports one second after the other, and tells the doubt that is left.
    fn hear(reports: &[AuditReport]) -> Option<AuditMisfit> {
        let mut known: Option<AuditWitness> = None;
        for (second, report) in (1..).zip(reports) {
            known = witness(known.as_ref(), report, at(second), at(second), None).or(known);
        }
        known?.doubt.map(|doubt| doubt.what)
    }

    #[test]
    fn a_log_that_grows_is_believed_and_one_that_does_not_is_doubted() {
        let (told_head, broken) = ("b".to_owned(), AuditReport { ok: false, broken: Some(2), ..told(4, "d") });
        for (reports, doubt) in [
            (vec![told(1, "a"), told(1, "a"), told(2, "b"), told(9, "i")], None),
            (
                vec![told(2, "b"), told(1, "a")],
                Some(AuditMisfit::Shorter { told: 2, told_head: told_head.clone(), now: 1 }),
            ),
            // What comes after it does not end it, however well it fits.
            (
                vec![told(2, "b"), told(1, "a"), told(2, "b"), told(3, "c")],
                Some(AuditMisfit::Shorter { told: 2, told_head: told_head.clone(), now: 1 }),
            ),
            (vec![told(2, "b"), told(2, "x"), told(3, "c")], Some(AuditMisfit::Otherwise { entry: 2, told_head })),
            (vec![told(3, "c"), broken.clone(), told(5, "e")], Some(AuditMisfit::Broken { entry: 2 })),
            // The custodian's own word does not take the place of what was seen.
            (vec![told(5, "e"), broken], Some(AuditMisfit::Shorter { told: 5, told_head: "e".to_owned(), now: 4 })),
        ] {
            assert_eq!(hear(&reports), doubt, "{reports:?}");
        }
    }

    #[test]
    fn what_comes_late_or_again_says_nothing() {
        let known = witness(None, &told(5, "e"), at(10), at(10), None).expect("news");
        for (report, issued) in [(told(4, "d"), 9), (told(5, "x"), 10), (told(5, "e"), 11)] {
            assert_eq!(witness(Some(&known), &report, at(issued), at(12), None), None, "{report:?}");
        }
    }

    #[test]
    fn a_doubt_ends_with_time_or_when_operators_accept_it() {
        let known = witness(None, &told(5, "e"), at(1), at(1), None).expect("news");
        let known = witness(Some(&known), &told(1, "x"), at(2), at(2), None).expect("news");
        let end = at(2).after(AUDIT_DOUBT_KEPT);
        assert!(standing(&known, at(3), None).is_some() && standing(&known, end, None).is_none());
        assert!(standing(&known, at(3), Some(at(1))).is_some(), "what was accepted is another one");
        assert!(standing(&known, at(3), Some(at(2))).is_none());
        for (now, accepted) in [(end, None), (at(3), Some(at(2)))] {
            let after = witness(Some(&known), &told(6, "f"), now, now, accepted).expect("news");
            assert_eq!(after.doubt, None);
        }
    }
}
