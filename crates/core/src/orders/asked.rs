//! What somebody has asked custodians for, so that nobody is asked too often, nor only the one that does not answer.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::Principal;
use crate::message::{WANTED_MAX, Want};
use crate::orders::PASSED_ON_MAX;
use crate::time::Steady;

/// How many custodians are asked for an order at once: one of them may only say that it has it.
const ASKED_AT_ONCE: usize = 2;

/// After how long others are asked for an order that did not come.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// After how long the same custodian is asked again.
const ASK_THE_SAME_AGAIN: Duration = Duration::from_secs(300);

/// How many orders one custodian is asked for before it is asked again: whoever names ever more keeps nobody else from being asked.
const ASKED_OF_ONE: usize = 2 * PASSED_ON_MAX;

/// How long an answer takes at most.
const ANSWER: Duration = Duration::from_secs(2);

/// Which orders each custodian was asked for, by digest, and when.
#[derive(Debug, Default)]
pub struct Asked(BTreeMap<Principal, BTreeMap<String, Steady>>);

impl Asked {
    /// What to ask `of` for now, of the orders that it names and the asker lacks.
    pub fn want<'a>(&mut self, lacking: impl Iterator<Item = &'a String>, of: &Principal, now: Steady) -> Option<Want> {
        let sha256: Vec<_> = lacking.filter(|sha256| self.may_ask(sha256, of, now)).take(WANTED_MAX).cloned().collect();
        (!sha256.is_empty()).then(|| Want { of: of.clone(), sha256 })
    }

    /// Whether an order that others have may be on its way here.
    pub fn waits(&self, now: Steady) -> bool {
        self.0.values().flat_map(BTreeMap::values).any(|at| now.since(*at) < ANSWER)
    }

    fn may_ask(&mut self, sha256: &str, of: &Principal, now: Steady) -> bool {
        self.0.values_mut().for_each(|asked| asked.retain(|_, at| now.since(*at) < ASK_THE_SAME_AGAIN));
        let lately = |asked: &&BTreeMap<String, Steady>| asked.get(sha256).is_some_and(|at| now.since(*at) < ASK_AGAIN);
        let others = self.0.values().filter(lately).count();
        let asked = self.0.entry(of.clone()).or_default();
        let may = others < ASKED_AT_ONCE && asked.len() < ASKED_OF_ONE && !asked.contains_key(sha256);
        if may {
            asked.insert(sha256.to_owned(), now);
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
        assert_eq!((want("custodian-2", 10), want("custodian-3", 29)), (Some(2), None), "two at once");
        assert_eq!((want("custodian-1", 60), want("custodian-3", 60)), (None, Some(2)), "then another");
        assert_eq!((want("custodian-1", 299), want("custodian-1", 300)), (None, Some(2)));
    }

    #[test]
    fn whoever_makes_orders_up_keeps_nobody_from_asking_others() {
        let mut asked = Asked::default();
        let made_up: Vec<_> = (0..2_000).map(|i| format!("{i}")).collect();
        let mut want =
            |of: &str, named: &[String]| asked.want(named.iter(), &name(of), at(0)).map(|want| want.sha256.len());
        let times = (0..100).take_while(|_| want("mallory", &made_up).is_some()).count();
        assert_eq!(times, ASKED_OF_ONE / WANTED_MAX);
        assert_eq!(want("custodian-1", &["real".to_owned()]), Some(1));
    }
}
