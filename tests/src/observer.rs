//! Somebody else who looks at a node in a drill, each millisecond, and tells how often it was sealed and for how long: what a drill's own
//! measure is held against.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::vault::Eyes;
use crate::wait::pause;

/// The time between two looks.
const LOOK: Duration = Duration::from_millis(1);

/// How many connections an observer looks over, in turn: an answer may be held back while the node seals itself.
const EYES: u32 = 8;

/// How far a drill's own measure may be from an observer's: so much, or so large a part of it.
const APART: Duration = Duration::from_millis(5);
const APART_PART: f64 = 0.05;

/// Looks at one node, until it is asked what it saw.
#[derive(Debug)]
pub struct Observer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Look>>>,
}

/// One time that the node was sealed and opened again.
#[derive(Debug, Clone, Copy)]
pub struct Seal {
    /// When the first answer was there that it is sealed.
    pub sealed: Instant,
    /// When the first was there that it is open again, to a question that was asked after that.
    pub open: Instant,
    /// The longest time from before the first to the second in which the node answered nobody: it holds its answers back while it seals
    /// itself, and while it starts to serve. Who asks a moment sooner or later, sees the same up to that much sooner or later.
    pub silent: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    asked: Instant,
    answered: Instant,
    sealed: bool,
}

impl Seal {
    /// How long it was seen sealed.
    pub fn recovery(&self) -> Duration {
        self.open - self.sealed
    }

    /// Whether a drill's own measure is as near as it is to be.
    pub fn agrees_with(&self, own: Duration) -> bool {
        let seen = self.recovery();
        own.abs_diff(seen) <= APART.max(seen.mul_f64(APART_PART))
    }
}

impl Observer {
    /// Begins to look at the node at `url`.
    pub fn begin(url: &str, ca_file: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..EYES).map(|number| {
            let (until, url, eyes) = (stop.clone(), url.to_owned(), Eyes::new(ca_file));
            thread::spawn(move || {
                let mut looks = Vec::new();
                pause(LOOK * number);
                while !until.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    if let Some(status) = eyes.look(&url) {
                        looks.push(Look { asked, answered: Instant::now(), sealed: status.sealed });
                    }
                    pause((LOOK * EYES).saturating_sub(asked.elapsed()));
                }
                looks
            })
        });
        let threads = threads.collect();
        Self { stop, threads }
    }

    /// Each time that it was sealed and opened again, the first first.
    pub fn end(self) -> Vec<Seal> {
        self.stop.store(true, Ordering::Relaxed);
        let mut looks: Vec<_> = self.threads.into_iter().flat_map(|thread| thread.join().expect("it looked")).collect();
        looks.sort_by_key(|look| look.answered);
        let mut seals = Vec::new();
        let (mut sealed, mut open, mut last, mut silent) = (None, None, None, Duration::ZERO);
        for look in looks {
            let since = last.replace(look.answered).map_or(Duration::ZERO, |last: Instant| look.answered - last);
            match (sealed, look.sealed) {
                // An answer may be late: what was asked before the other was seen says nothing new.
                (None, true) if open.is_none_or(|at| look.asked >= at) => {
                    (sealed, silent) = (Some(look.answered), since);
                }
                (Some(at), false) if look.asked >= at => {
                    seals.push(Seal { sealed: at, open: look.answered, silent: silent.max(since) });
                    (sealed, open) = (None, Some(look.answered));
                }
                _ => silent = silent.max(since),
            }
        }
        seals
    }
}
