//! What this program says: as every command does (`holdfast_edge::report`), in its own name; and what a person copies from there
//! into a shell.

use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;

pub(crate) use holdfast_edge::report::{FAILED, REFUSED, USAGE, report};

/// Says what went wrong.
pub(crate) fn failure(error: &dyn Error, code: u8) -> ExitCode {
    holdfast_edge::report::failure("holdfast", error, code)
}

/// Shows bytes that could not be written anywhere else.
#[expect(clippy::print_stdout, reason = "the last place where this can be kept")]
pub(crate) fn rescue(bytes: &[u8]) {
    println!("{}", String::from_utf8_lossy(bytes));
}

/// A word as a shell takes it: one word, and nothing in it that the shell obeys.
pub(crate) fn quoted(word: impl Display) -> String {
    let word = word.to_string();
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+,@:".contains(c));
    if plain && !word.is_empty() { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(quoted("https://vault-1.example:8200"), "https://vault-1.example:8200");
        assert_eq!(quoted("out of the way/keys"), "'out of the way/keys'");
        assert_eq!(quoted("it's; $(id)"), r"'it'\''s; $(id)'");
        assert_eq!(quoted(""), "''");
    }
}
