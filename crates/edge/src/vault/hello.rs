//! Whether a ticket was really offered, read from our own ClientHello as it goes out.
//!
//! The TLS library drops a ticket without a word when it finds it too old or made under other settings; the handshake is
//! then full, and looks like that of a node that declined. So the bytes on the wire are asked, not the library.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is kept of what goes out before the first encrypted record, in bytes: a hello with a post-quantum key and
/// a ticket has under 4 KiB, two of them fit well.
const HELLO_MAX: usize = 32 * 1024;

const RECORD_HEADER: usize = 5;
const RECORD_CHANGE_CIPHER_SPEC: u8 = 20;
const RECORD_HANDSHAKE: u8 = 22;
const HANDSHAKE_CLIENT_HELLO: u8 = 1;
const EXTENSION_PRE_SHARED_KEY: u16 = 41;

/// A stream that reads along what is written to it until the handshake is encrypted.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    hello: HelloWatch,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, hello: HelloWatch::default() }
    }

    /// The stream itself.
    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    /// Whether the last ClientHello that went out offered a ticket. The last, because a server may ask for a second hello,
    /// and the library then leaves the ticket out if it does not fit.
    pub(super) fn ticket_was_offered(&self) -> bool {
        self.hello.offered
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.hello.sent(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let part = left.min(buf.len());
            self.hello.sent(&buf[..part]);
            left -= part;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The outgoing bytes up to the first encrypted record, and what the hellos in them offered.
#[derive(Debug, Default)]
struct HelloWatch {
    records: Vec<u8>,
    handshake: Vec<u8>,
    offered: bool,
    done: bool,
}

impl HelloWatch {
    fn sent(&mut self, bytes: &[u8]) {
        if self.done {
            return;
        }
        self.records.extend_from_slice(bytes);
        self.take_records();
        self.take_messages();
        if self.records.len() + self.handshake.len() > HELLO_MAX {
            self.done = true;
        }
        if self.done {
            (self.records, self.handshake) = (Vec::new(), Vec::new());
        }
    }

    fn take_records(&mut self) {
        while let Some(&[kind, _, _, high, low]) = self.records.first_chunk::<RECORD_HEADER>() {
            let end = RECORD_HEADER + usize::from(u16::from_be_bytes([high, low]));
            if kind == RECORD_HANDSHAKE {
                let Some(content) = self.records.get(RECORD_HEADER..end) else { return };
                self.handshake.extend_from_slice(content);
            } else if kind != RECORD_CHANGE_CIPHER_SPEC {
                // Encrypted from here on, or an alert: no hello follows.
                self.done = true;
                return;
            } else if self.records.len() < end {
                return;
            }
            self.records.drain(..end);
        }
    }

    fn take_messages(&mut self) {
        while let Some(&[kind, a, b, c]) = self.handshake.first_chunk::<4>() {
            let end = 4 + u32::from_be_bytes([0, a, b, c]) as usize;
            let Some(content) = self.handshake.get(4..end) else { return };
            if kind == HANDSHAKE_CLIENT_HELLO {
                self.offered = offers_ticket(content).unwrap_or(false);
            }
            self.handshake.drain(..end);
        }
    }
}

/// Whether this ClientHello (RFC 8446, 4.1.2) has the extension `pre_shared_key`. `None` if it is not a ClientHello.
fn offers_ticket(mut hello: &[u8]) -> Option<bool> {
    let (version_and_random, session_id, suites, compression) = (34, 1, 2, 1);
    hello = hello.get(version_and_random..)?;
    hello = skip_vector(hello, session_id)?;
    hello = skip_vector(hello, suites)?;
    hello = skip_vector(hello, compression)?;
    let length = usize::from(u16::from_be_bytes(*hello.first_chunk::<2>()?));
    let mut extensions = hello.get(2..2 + length)?;
    while !extensions.is_empty() {
        let kind = u16::from_be_bytes(*extensions.first_chunk::<2>()?);
        if kind == EXTENSION_PRE_SHARED_KEY {
            return Some(true);
        }
        extensions = skip_vector(&extensions[2..], 2)?;
    }
    Some(false)
}

/// What follows a vector whose length is written in its first `width` bytes.
fn skip_vector(bytes: &[u8], width: usize) -> Option<&[u8]> {
    let length = bytes.get(..width)?.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
    bytes.get(width + length..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![3; 34];
        body.extend([4, 9, 9, 9, 9, 0, 2, 0x13, 1, 1, 0]);
        let mut list = Vec::new();
        for (kind, content) in extensions {
            list.extend(kind.to_be_bytes());
            list.extend((content.len() as u16).to_be_bytes());
            list.extend(*content);
        }
        body.extend((list.len() as u16).to_be_bytes());
        body.extend(list);
        let mut message = vec![HANDSHAKE_CLIENT_HELLO, 0];
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(body);
        message
    }

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        let mut record = vec![kind, 3, 1];
        record.extend((content.len() as u16).to_be_bytes());
        record.extend(content);
        record
    }

    fn watch(bytes: &[u8], piece: usize) -> HelloWatch {
        let mut watch = HelloWatch::default();
        bytes.chunks(piece).for_each(|piece| watch.sent(piece));
        watch
    }

    #[test]
    fn sees_the_ticket_however_the_hello_is_cut() {
        let with = hello(&[(43, b"\x02\x03\x04"), (EXTENSION_PRE_SHARED_KEY, &[7; 200])]);
        // The extension's number inside another extension is not the extension.
        let without = hello(&[(43, &[0, 41, 0, 41, 0, 41])]);
        for piece in [1, 3, 1000] {
            assert!(watch(&record(RECORD_HANDSHAKE, &with), piece).offered);
            assert!(!watch(&record(RECORD_HANDSHAKE, &without), piece).offered);
            let (head, tail) = with.split_at(50);
            let split = [record(RECORD_HANDSHAKE, head), record(RECORD_HANDSHAKE, tail)].concat();
            assert!(watch(&split, piece).offered);
        }
    }

    #[test]
    fn the_last_hello_counts_and_nothing_after_encryption() {
        let with = record(RECORD_HANDSHAKE, &hello(&[(EXTENSION_PRE_SHARED_KEY, &[7; 200])]));
        let without = record(RECORD_HANDSHAKE, &hello(&[(43, &[])]));
        let change = record(RECORD_CHANGE_CIPHER_SPEC, &[1]);
        let encrypted = record(23, &[0; 80]);
        assert!(!watch(&[&with[..], &change, &without].concat(), 7).offered);
        assert!(watch(&[&with[..], &encrypted, &without].concat(), 7).offered);
        let end = watch(&[&with[..], &encrypted].concat(), 7);
        assert!(end.done && end.records.is_empty());
    }

    #[test]
    fn what_is_no_hello_offers_nothing_and_is_not_kept() {
        for bytes in [&[][..], &[RECORD_HANDSHAKE; 4], &record(RECORD_HANDSHAKE, &[1, 0, 0, 2, 0, 0])] {
            assert!(!watch(bytes, 2).offered);
        }
        let endless = [RECORD_HANDSHAKE, 3, 1, 0xff, 0xff].into_iter().cycle().take(200_000).collect::<Vec<_>>();
        let end = watch(&endless, 1000);
        assert!(end.done && end.records.is_empty() && end.handshake.is_empty());
    }
}
