//! Questions to a person at the terminal, and that nobody is there to be asked.

use std::io::{self, BufRead, IsTerminal, Read, Write};

/// The longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 256;

/// Asks, and takes only a whole "yes" for one. None where nobody is at the terminal.
pub fn confirm(question: &str) -> Option<bool> {
    let stdin = io::stdin();
    stdin.is_terminal().then(|| {
        let mut answer = String::new();
        let asked = write!(io::stderr(), "{question} [yes/no] ")
            .and_then(|()| io::stderr().flush())
            .and_then(|()| stdin.lock().take(ANSWER_MAX).read_line(&mut answer));
        asked.is_ok() && answer.trim() == "yes"
    })
}
