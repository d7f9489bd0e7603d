//! What work on a secret leaves behind on the stack, and its wiping.
//!
//! A value that is wiped when it is dropped was moved before, and each move left a copy; a cipher's and a digest's blocks, and what the compiler
//! put aside, lie on the stack too, until something is written over them, and such garbage is carried off into the heap by values with room in them.
//! So whoever touches a secret does it below one of these calls. What does not live here: the heap, which the programs' allocator wipes.

use zeroize::zeroize_stack;

/// How deep the stack is wiped, in bytes. Decrypting an age file takes under a third of it in a build without optimisation, which is the deepest;
/// `tests/tests/residue.rs` looks at what is left.
const DEPTH: usize = 192 * 1024;

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
