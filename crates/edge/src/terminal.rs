//! Questions to a person at the terminal, what may be seen of the answers, and that nobody is there to be asked.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use rustix::io::Errno;
use rustix::stdio::stdin;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use zeroize::Zeroizing;

/// The longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 256;

/// What a terminal sends for Ctrl-C and Ctrl-D, while it makes no signals of them.
const CANCEL: [u8; 2] = [3, 4];

/// What ends a process from outside while it waits for a person. Not SIGHUP: that is sent when the terminal is gone.
const ENDINGS: [i32; 3] = [SIGINT, SIGQUIT, SIGTERM];

/// What a terminal sends to take the last character back.
const TAKE_BACK: [u8; 2] = [8, 127];

/// Whether somebody is at the terminal to be asked.
pub fn is_there() -> bool {
    io::stdin().is_terminal()
}

/// Asks, and takes only a whole "yes" for one. None where nobody is at the terminal.
pub fn confirm(question: &str) -> Option<bool> {
    is_there().then(|| {
        let mut answer = String::new();
        let asked = write!(io::stderr(), "{question} [yes/no] ")
            .and_then(|()| io::stderr().flush())
            .and_then(|()| io::stdin().lock().take(ANSWER_MAX).read_line(&mut answer));
        asked.is_ok() && answer.trim() == "yes"
    })
}

/// Tells something that is of use only while the command waits.
pub fn tell(line: &str) {
    // Whoever cannot see it sees a command that waits.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Why nothing was taken. No message has anything in it of what was typed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HiddenError {
    /// The person broke it off.
    #[error("broken off")]
    Cancelled,
    /// More came than there is room for.
    #[error("more than {0} bytes were given")]
    TooMuch(usize),
    /// Reading failed, or the terminal cannot be kept from showing it.
    #[error("standard input cannot be {action}: {source}")]
    Input {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: Errno,
    },
}

/// Reads one line of at most `max` bytes from standard input; at a terminal it is asked for, and nothing of it is shown. What
/// was typed is wiped when dropped, and never was moved: not by way of the standard library's reader, whose buffer is not wiped.
pub fn read_hidden(prompt: &str, max: usize) -> Result<Zeroizing<Vec<u8>>, HiddenError> {
    let terminal = is_there();
    let quiet = if terminal { Some(Quiet::begin()?) } else { None };
    if terminal {
        // Where it cannot be shown, the person sees a terminal that waits.
        let _ = write!(io::stderr(), "{prompt}").and_then(|()| io::stderr().flush());
    }
    let mut typed = Zeroizing::new(vec![0; max]);
    let read = read_line(&mut typed, terminal);
    drop(quiet);
    if terminal {
        let _ = writeln!(io::stderr());
    }
    typed.truncate(read?);
    Ok(typed)
}

/// One byte at a time: what lies behind the line is not ours to read.
fn read_line(typed: &mut [u8], terminal: bool) -> Result<usize, HiddenError> {
    let mut filled = 0;
    loop {
        let mut byte = Zeroizing::new([0]);
        match rustix::io::read(stdin(), byte.as_mut_slice()) {
            Ok(0) => return Ok(filled),
            Err(Errno::INTR) => continue,
            Err(source) => return Err(HiddenError::Input { action: "read", source }),
            Ok(_) => {}
        }
        match byte[0] {
            b'\n' | b'\r' if filled > 0 || terminal => return Ok(filled),
            key if terminal && CANCEL.contains(&key) => return Err(HiddenError::Cancelled),
            key if terminal && TAKE_BACK.contains(&key) => filled = filled.saturating_sub(1),
            _ if filled == typed.len() => return Err(HiddenError::TooMuch(filled)),
            key => {
                typed[filled] = key;
                filled += 1;
            }
        }
    }
}

/// Makes the terminal as it was before it was kept from showing what is typed. For the end of a program: a question may be standing
/// then, on another thread, that nobody has answered.
pub fn give_back() {
    if let Some(before) = before().take() {
        // A terminal that is gone needs nothing any more.
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &before);
    }
}

/// While this lives, the terminal shows nothing of what is typed, keeps no line of it, and makes no signals of keys: a program
/// that Ctrl-C ended would leave it silent. Signals from elsewhere give it back before they end the program.
struct Quiet;

impl Quiet {
    fn begin() -> Result<Self, HiddenError> {
        give_back_when_ended();
        let failed = |source| HiddenError::Input { action: "kept from being shown", source };
        let modes = tcgetattr(stdin()).map_err(failed)?;
        let mut quiet = modes.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        // Before it is silent, so that there is no moment in which nobody knows how it was.
        *before() = Some(modes);
        tcsetattr(stdin(), OptionalActions::Flush, &quiet).map_err(failed)?;
        Ok(Self)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        give_back();
    }
}

/// How the terminal was before it was made silent; none while it is not.
fn before() -> MutexGuard<'static, Option<Termios>> {
    static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sees to it that a signal that ends the program gives the terminal back first. Without a question, it ends it as it always does.
fn give_back_when_ended() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let watch = Signals::new(ENDINGS).and_then(|mut signals| {
            thread::Builder::new().spawn(move || {
                for signal in signals.forever() {
                    give_back();
                    // It does not return for these.
                    let _ = emulate_default_handler(signal);
                }
            })
        });
        if let Err(error) = watch {
            // No reason not to ask.
            tracing::warn!(%error, "a signal would leave the terminal silent (`reset` mends it)");
        }
    });
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// Runs [`ends_while_it_asks`] at a terminal, and asks that how it is.
    #[test]
    fn a_program_that_ends_while_another_thread_asks_gives_the_terminal_back() {
        let test = std::env::current_exe().expect("this test");
        let test = format!("'{}' --exact terminal::tests::ends_while_it_asks --ignored --nocapture", test.display());
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--flush", "--command", &format!("{test}; stty -a"), "/dev/null"]);
        // Nobody types anything, and nobody hangs up.
        let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script, of util-linux");
        let keyboard = script.stdin.take();
        let shown = script.wait_with_output().expect("it ends").stdout;
        drop(keyboard);
        let shown = String::from_utf8_lossy(&shown);
        // A name that is no test's would run none, and be well.
        assert!(shown.contains("who is there? ") && shown.contains("1 passed"), "{shown}");
        let words: Vec<_> = shown.split([' ', ';', '\r', '\n']).collect();
        for mode in ["echo", "icanon", "isig"] {
            assert!(words.contains(&mode), "{mode} is off: {shown}");
        }
    }

    // Ignored by itself and never left out: the test above runs it at a terminal, and wants to see that it passed.
    #[test]
    #[ignore = "run by a_program_that_ends_while_another_thread_asks_gives_the_terminal_back, which gives it a terminal"]
    fn ends_while_it_asks() {
        thread::spawn(|| read_hidden("who is there? ", 16));
        let deadline = Instant::now() + Duration::from_secs(10);
        let is_silent = || !tcgetattr(stdin()).expect("a terminal").local_modes.contains(LocalModes::ECHO);
        while !is_silent() {
            assert!(Instant::now() < deadline, "it never asked");
            thread::yield_now();
        }
        give_back();
        assert!(!is_silent());
    }
}
