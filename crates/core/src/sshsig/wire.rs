//! The SSH wire format (RFC 4251, section 5), as far as keys, signatures and agents use it. Reads only what is really there.

/// Bytes that are read from the front. `None` from any method means that they ended too early.
pub struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    /// To read these from their beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// That many bytes.
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// One byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    /// A number of four bytes, the most significant first.
    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A string: its length in four bytes, and that many bytes.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        self.take(len)
    }

    /// A string that holds exactly `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.string()?.try_into().ok()
    }

    /// A positive `mpint` of at most 256 bits in its one canonical spelling, as 32 bytes.
    pub fn scalar(&mut self) -> Option<[u8; 32]> {
        let magnitude = match self.string()? {
            [0, rest @ ..] if rest.first().is_some_and(|first| *first >= 0x80) => rest,
            bytes if matches!(bytes.first(), Some(1..=0x7f)) => bytes,
            _ => return None,
        };
        let mut scalar = [0; 32];
        let start = scalar.len().checked_sub(magnitude.len())?;
        scalar[start..].copy_from_slice(magnitude);
        Some(scalar)
    }

    /// Nothing may be left.
    pub fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Appends a string. What is written here is a few hundred bytes: its length always fits in four.
pub fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(u32::try_from(bytes.len()).is_ok(), "nothing that long is ever signed or armoured");
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}
