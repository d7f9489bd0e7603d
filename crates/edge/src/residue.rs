//! What work on a secret leaves behind on the stack, and its wiping.
//!
//! A value that is wiped when it is dropped was moved before, and each move left a copy; a cipher's and a digest's blocks, and what the compiler
//! put aside, lie on the stack too, until something is written over them, and such garbage is carried off into the heap by values with room in them.
//! So whoever touches a secret does it below one of these calls. What does not live here: the heap, which the programs' allocator wipes.

use zeroize::zeroize_stack;

/// How deep the stack is wiped, in bytes. Opening an age file takes 9 KiB of it, a test says, and sending a request no more than a few times that.
const DEPTH: usize = 64 * 1024;

/// Does something with a secret, and wipes the stack that it used. What comes out must not hold the secret itself, but where it lies.
pub(crate) fn leaving_none<T>(work: impl FnOnce() -> T) -> T {
    let done = below(work);
    wipe();
    done
}

/// Wipes the stack below the caller: after the awaiting of something that sent a secret.
#[inline(never)]
pub(crate) fn wipe() {
    zeroize_stack::<DEPTH>();
}

/// Inlined, its work would be done in the caller's frame, above what is wiped.
#[inline(never)]
fn below<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::hint::black_box;
    use std::ops::Range;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::keys::AgeIdentity;

    /// A secret that is nowhere but where somebody has put it.
    fn secret(index: usize) -> u8 {
        (index as u8).wrapping_mul(151) ^ 0x5a
    }

    /// The part of this thread's stack that is below the caller, as the kernel shows it.
    #[inline(never)]
    fn below_here() -> Vec<u8> {
        let here = std::ptr::from_ref(&0u8.wrapping_add(black_box(0))).addr() as u64;
        let range = stack_around(here);
        let mut content = vec![0; (here - range.start) as usize];
        File::open("/proc/self/mem").expect("its own").read_exact_at(&mut content, range.start).expect("readable");
        content
    }

    fn stack_around(address: u64) -> Range<u64> {
        let maps = fs::read_to_string("/proc/self/maps").expect("its own");
        let range = |line: &str| {
            let (start, end) = line.split(' ').next()?.split_once('-')?;
            Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
        };
        maps.lines().filter_map(range).find(|range| range.contains(&address)).expect("a stack")
    }

    fn found(stack: &[u8]) -> bool {
        stack.windows(16).any(|run| run.iter().enumerate().all(|(index, byte)| *byte == secret(index)))
    }

    /// Far below the caller, where what comes after does not reach.
    #[inline(never)]
    fn work() {
        let mut room = [0; DEPTH / 2];
        for (index, byte) in room[..16].iter_mut().enumerate() {
            *byte = secret(index);
        }
        black_box(&room);
    }

    #[test]
    fn what_was_on_the_stack_is_not_there_any_more() {
        below(work);
        assert!(found(&below_here()), "where nothing is wiped, it is found");
        leaving_none(work);
        assert!(!found(&below_here()));
        below(work);
        wipe();
        assert!(!found(&below_here()));
    }

    #[test]
    fn it_is_wiped_deeper_than_anything_goes_that_opens_an_age_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("identity.txt");
        AgeIdentity::generate().save(&path, Default::default()).expect("saved");
        let recipient = AgeIdentity::load(&path).expect("ours").recipient();
        let file = recipient.encrypt(b"a secret").expect("encrypted");
        // A clean slate, deeper than it could be, and then how far down something was written.
        zeroize_stack::<{ 4 * DEPTH }>();
        below(|| AgeIdentity::parse_file(&path).expect("ours").open(&file, 8).expect("opened"));
        let stack = below_here();
        // Without the page at the bottom, in which the wiping itself has left its own frame.
        let clean = &stack[stack.len() - 4 * DEPTH + 4096..];
        let used = clean.len() - clean.iter().position(|byte| *byte != 0).expect("something was written");
        assert!(used < DEPTH, "{used} bytes of stack were used, and {DEPTH} are wiped");
    }
}
