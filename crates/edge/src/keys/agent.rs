//! A key that an ssh-agent holds: OpenSSH's own, a desktop's, a token's. The client of the SSH agent protocol
//! (draft-ietf-sshm-ssh-agent), as far as signing takes it: two questions, each with a deadline and a limit.
//!
//! An agent is not trusted. What it answers is verified here, as strictly as every receiver will, before it goes anywhere.
//! Written here and not taken: the crates that there are have no deadlines, and take a token's signature apart and put it
//! together again without looking for the touch.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use holdfast_core::sshsig::wire::{Wire, put_string};
use holdfast_core::sshsig::{HashAlg, PublicKey, Signature, SignatureError, armor, signed_data};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::terminal;

/// How long an agent may take to tell which keys it holds: one that a person unlocks asks the person then.
const LISTED_WITHIN: Duration = Duration::from_secs(30);

/// How long a signature may take: a person finds the token, types its PIN and touches it.
const SIGNED_WITHIN: Duration = Duration::from_secs(90);

/// The longest answer that is read, in bytes: OpenSSH's agent sends none longer.
const ANSWER_MAX: usize = 256 * 1024;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// A key that an agent holds. Known here by its public half alone.
#[derive(Debug)]
pub struct AgentKey {
    public: PublicKey,
    socket: Option<PathBuf>,
}

/// Why there is no signature by the agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The environment names no agent.
    #[error(
        "no ssh-agent: SSH_AUTH_SOCK is not set, and the key {0} is not in a file; start one, eval $(ssh-agent), and load \
         the key, ssh-add FILE"
    )]
    None(String),
    /// Nobody answers at its socket.
    #[error("no ssh-agent answers at {}: {source}; is the one that SSH_AUTH_SOCK names still running?", .socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It does not answer in time.
    #[error("the ssh-agent did not answer within {} seconds: was the token touched, or the agent's question seen?", .0.as_secs())]
    Silent(Duration),
    /// It went away in the middle.
    #[error("the ssh-agent ended the connection: {0}")]
    Broken(io::Error),
    /// It does not speak the protocol.
    #[error("the ssh-agent's answer is not of the agent's protocol: {0}; is SSH_AUTH_SOCK really an ssh-agent's?")]
    Protocol(&'static str),
    /// It holds nothing, or shows nothing.
    #[error(
        "the ssh-agent holds no key at all: load yours, ssh-add FILE; if the agent is locked, unlock it, ssh-add -X"
    )]
    Empty,
    /// It holds others.
    #[error("the ssh-agent holds {held} keys, and not {fingerprint}: load it, ssh-add FILE (ssh-add -l lists them)")]
    NotLoaded {
        /// The key that is missing.
        fingerprint: String,
        /// How many it holds.
        held: u32,
    },
    /// It does not want to.
    #[error(
        "the ssh-agent refused to sign with {0}: was it asked and declined, or the token not touched, or pulled out?"
    )]
    Refused(String),
    /// What it answered is no signature that counts.
    #[error("the ssh-agent's signature would count for nobody, and was not sent: {0}")]
    Worthless(#[from] SignatureError),
}

impl AgentKey {
    /// The key with this public half, in the agent at `socket`.
    pub fn new(public: PublicKey, socket: Option<PathBuf>) -> Self {
        Self { public, socket }
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Whether the agent holds the key now. Whether it would sign, only a signature tells.
    pub fn find(&self) -> Result<(), AgentError> {
        self.find_by(&mut self.connect()?)
    }

    /// Signs `message`: an armoured signature, verified.
    pub fn sign(&self, namespace: &str, message: &[u8]) -> Result<String, AgentError> {
        let mut agent = self.connect()?;
        self.find_by(&mut agent)?;
        let mut request = vec![SIGN_REQUEST];
        put_string(&mut request, self.public.as_blob());
        put_string(&mut request, &signed_data(namespace, HashAlg::Sha512, message));
        // No flags: they are for RSA.
        request.extend([0; 4]);
        if self.public.is_token() {
            terminal::tell("touch your token now");
        }
        let answer = agent.ask(&request, SIGNED_WITHIN)?;
        let mut wire = Wire::new(&answer);
        match wire.byte() {
            Some(SIGN_RESPONSE) => {}
            Some(FAILURE) => return Err(AgentError::Refused(self.public.fingerprint())),
            _ => return Err(AgentError::Protocol("another answer than to a request to sign")),
        }
        let proof = wire.string().ok_or(AgentError::Protocol("the signature ends too early"))?;
        wire.end().ok_or(AgentError::Protocol("something follows the signature"))?;
        let armored = armor(&self.public, namespace, HashAlg::Sha512, proof);
        Signature::parse(&armored)?.verify(namespace, message)?;
        Ok(armored)
    }

    fn find_by(&self, agent: &mut Connection) -> Result<(), AgentError> {
        let answer = agent.ask(&[REQUEST_IDENTITIES], LISTED_WITHIN)?;
        let mut wire = Wire::new(&answer);
        match wire.byte() {
            Some(IDENTITIES_ANSWER) => {}
            Some(FAILURE) => return Err(AgentError::Empty),
            _ => return Err(AgentError::Protocol("another answer than a list of keys")),
        }
        let held = wire.u32().ok_or(AgentError::Protocol("the list of keys ends too early"))?;
        let mut found = false;
        for _ in 0..held {
            let (Some(key), Some(_comment)) = (wire.string(), wire.string()) else {
                return Err(AgentError::Protocol("the list of keys ends too early"));
            };
            found |= key == self.public.as_blob();
        }
        match (found, held) {
            (true, _) => Ok(()),
            (false, 0) => Err(AgentError::Empty),
            (false, held) => Err(AgentError::NotLoaded { fingerprint: self.public.fingerprint(), held }),
        }
    }

    fn connect(&self) -> Result<Connection, AgentError> {
        let socket = self.socket.clone().ok_or_else(|| AgentError::None(self.public.fingerprint()))?;
        let opened = || -> io::Result<UnixStream> {
            // Not waiting for its turn: the standard library's connect to an agent that takes nobody would wait for ever.
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            connect(&fd, &SocketAddrUnix::new(&socket)?)?;
            let stream = UnixStream::from(fd);
            stream.set_nonblocking(false)?;
            Ok(stream)
        };
        opened().map(Connection).map_err(|source| AgentError::Unreachable { socket, source })
    }
}

/// A connection to an agent.
struct Connection(UnixStream);

impl Connection {
    /// Asks one question, and reads the one answer: its length in four bytes, and that many bytes.
    fn ask(&mut self, request: &[u8], within: Duration) -> Result<Vec<u8>, AgentError> {
        let deadline = Instant::now() + within;
        let mut framed = Vec::with_capacity(request.len() + 4);
        put_string(&mut framed, request);
        self.transfer(deadline, within, framed.len(), |stream, done| stream.write(&framed[done..]))?;
        let mut length = [0; 4];
        self.transfer(deadline, within, length.len(), |stream, done| stream.read(&mut length[done..]))?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if !(1..=ANSWER_MAX).contains(&length) {
            return Err(AgentError::Protocol("an answer of an impossible length"));
        }
        let mut answer = vec![0; length];
        self.transfer(deadline, within, length, |stream, done| stream.read(&mut answer[done..]))?;
        Ok(answer)
    }

    /// Reads or writes until all of it is done, or the time is up: however slowly it trickles.
    fn transfer(
        &mut self,
        deadline: Instant,
        within: Duration,
        all: usize,
        mut some: impl FnMut(&mut UnixStream, usize) -> io::Result<usize>,
    ) -> Result<(), AgentError> {
        let mut done = 0;
        while done < all {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(AgentError::Silent(within));
            }
            let timed = self.0.set_read_timeout(Some(left)).and_then(|()| self.0.set_write_timeout(Some(left)));
            timed.map_err(AgentError::Broken)?;
            match some(&mut self.0, done) {
                Ok(0) => return Err(AgentError::Broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(more) => done += more,
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {}
                    _ => return Err(AgentError::Broken(error)),
                },
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(100);

    #[test]
    fn an_agent_that_says_nothing_or_too_little_is_given_up() {
        for said in [&[][..], &[0], &[0, 0, 0, 2, IDENTITIES_ANSWER]] {
            let (ours, mut theirs) = UnixStream::pair().expect("two ends");
            theirs.write_all(said).expect("there is room");
            let refused = Connection(ours).ask(&[REQUEST_IDENTITIES], SOON).expect_err("no answer");
            assert!(matches!(refused, AgentError::Silent(SOON)), "{refused}");
        }
    }

    #[test]
    fn an_agent_that_goes_away_is_no_agent_that_refuses() {
        let (ours, mut theirs) = UnixStream::pair().expect("two ends");
        theirs.write_all(&[0, 0]).expect("there is room");
        drop(theirs);
        let refused = Connection(ours).ask(&[REQUEST_IDENTITIES], SOON).expect_err("no answer");
        assert!(matches!(refused, AgentError::Broken(_)), "{refused}");
    }
}
