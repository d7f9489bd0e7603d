//! What somebody has asked custodians for, so that nobody is asked too often, nor only the one that does not answer.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::Principal;
use crate::message::{WANTED_MAX, Want};
use crate::orders::PASSED_ON_MAX;
use crate::time::Steady;

/// After how long another custodian is asked for an order that did not come.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// After how long the same custodian is asked again: it may be one that only says that it has the order.
const ASK_THE_SAME_AGAIN: Duration = Duration::from_secs(300);

/// How many questions to one custodian are remembered: as many orders as one passes on. When that is full, it is asked nothing more
/// until some are old: who names orders that are not there keeps nobody from asking the others.
const REMEMBERED_OF_ONE: usize = PASSED_ON_MAX;

/// Who was asked last for an order, and when.
#[derive(Debug, Default)]
pub struct Asked(BTreeMap<String, (Principal, Steady)>);

impl Asked {
    /// What to ask `of` for now, of the orders that it names and the asker lacks.
    pub fn want<'a>(&mut self, lacking: impl Iterator<Item = &'a String>, of: &Principal, now: Steady) -> Option<Want> {
        let sha256: Vec<_> = lacking.filter(|sha256| self.may_ask(sha256, of, now)).take(WANTED_MAX).cloned().collect();
        (!sha256.is_empty()).then(|| Want { of: of.clone(), sha256 })
    }

    fn may_ask(&mut self, sha256: &str, of: &Principal, now: Steady) -> bool {
        self.0.retain(|_, (_, at)| now.since(*at) < ASK_THE_SAME_AGAIN);
        let may = match self.0.get(sha256) {
            Some((last, _)) if last == of => false,
            Some((_, at)) => now.since(*at) >= ASK_AGAIN,
            None => true,
        };
        let of_one = self.0.values().filter(|(last, _)| last == of).count();
        let may = may && of_one < REMEMBERED_OF_ONE;
        if may {
            self.0.insert(sha256.to_owned(), (of.clone(), now));
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Principal {
        text.parse().expect("a name")
    }

    fn at(seconds: u64) -> Steady {
        Steady::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn one_that_does_not_answer_is_not_the_only_one_who_is_asked() {
        let mut asked = Asked::default();
        let orders = ["a".to_owned(), "b".to_owned()];
        let mut want =
            |of: &str, seconds| asked.want(orders.iter(), &name(of), at(seconds)).map(|want| want.sha256.len());
        assert_eq!(want("custodian-1", 0), Some(2));
        assert_eq!((want("custodian-1", 60), want("custodian-2", 29)), (None, None));
        assert_eq!(want("custodian-2", 60), Some(2));
        assert_eq!(want("custodian-1", 95), Some(2), "in turns");
        assert_eq!((want("custodian-1", 390), want("custodian-1", 396)), (None, Some(2)));
    }

    #[test]
    fn whoever_makes_orders_up_keeps_nobody_from_asking_others() {
        let mut asked = Asked::default();
        let made_up: Vec<_> = (0..2_000).map(|i| format!("{i}")).collect();
        let mut want =
            |of: &str, named: &[String]| asked.want(named.iter(), &name(of), at(0)).map(|want| want.sha256.len());
        let times = (0..100).take_while(|_| want("mallory", &made_up).is_some()).count();
        assert_eq!(times, REMEMBERED_OF_ONE / WANTED_MAX);
        assert_eq!(want("custodian-1", &["real".to_owned()]), Some(1));
    }
}
