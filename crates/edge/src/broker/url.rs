//! Where the broker is and how a party logs in there: `amqps://host:port/vhost`, and a password that is never shown.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::ServerName;
use serde::Deserialize;
use zeroize::Zeroizing;

/// The port of AMQP over TLS, where the URL names none.
const DEFAULT_PORT: u16 = 5671;

/// The longest password that is read, in bytes: longer than anybody's, shorter than a file given by mistake.
pub const PASSWORD_MAX: usize = 1024;

/// A broker's address: always TLS, never with a login in it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct BrokerUrl {
    host: String,
    port: u16,
    vhost: String,
    server_name: ServerName<'static>,
}

/// Why a text is not a broker's address. The fault of whoever wrote the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerUrlError {
    /// Not a URL at all.
    #[error("the broker's url is not a URL, like amqps://mq.example:5671/holdfast: {0}")]
    Malformed(String),
    /// `amqp://`, which would send the password in clear.
    #[error("the broker's url is {0}://, which has no TLS: write amqps://, and let the broker listen with TLS")]
    NotTls(String),
    /// A user or a password stands in the URL.
    #[error("the broker's url holds a login: take it out, and set username and password_file")]
    Login,
    /// No host, or none that a certificate could name.
    #[error("the broker's url names no host that a certificate could be for: write amqps://mq.example:5671/holdfast")]
    Host,
    /// No virtual host.
    #[error("the broker's url names no virtual host: end it with /holdfast")]
    Vhost,
    /// A query or a fragment: the settings that others keep there are fixed here.
    #[error("the broker's url ends with a query or a fragment: take it out, nothing can be set there")]
    Query,
}

impl BrokerUrl {
    /// The host, without brackets around an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The virtual host.
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    pub(super) fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }
}

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(text: &str) -> Result<Self, BrokerUrlError> {
        let url = url::Url::parse(text).map_err(|error| BrokerUrlError::Malformed(error.to_string()))?;
        // First the login: an error message about anything else must not be the one that the person mends.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BrokerUrlError::Login);
        }
        if url.scheme() != "amqps" {
            return Err(BrokerUrlError::NotTls(url.scheme().to_owned()));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(BrokerUrlError::Query);
        }
        let host = url.host_str().ok_or(BrokerUrlError::Host)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        let server_name = ServerName::try_from(host.clone()).map_err(|_| BrokerUrlError::Host)?;
        // lapin's own parser for the path, so that both understand an escaped virtual host alike.
        let vhost = text.parse::<lapin::uri::AMQPUri>().map_err(BrokerUrlError::Malformed)?.vhost;
        if vhost.is_empty() || vhost == "/" {
            return Err(BrokerUrlError::Vhost);
        }
        Ok(Self { host, port: url.port().unwrap_or(DEFAULT_PORT), vhost, server_name })
    }
}

impl TryFrom<String> for BrokerUrl {
    type Error = BrokerUrlError;

    fn try_from(text: String) -> Result<Self, BrokerUrlError> {
        text.parse()
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(f, "amqps://{host}:{}/{}", self.port, self.vhost)
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A password, the broker's or a Pushgateway's: wiped when dropped, never cloned, shown or compared.
pub struct Password(Zeroizing<String>);

/// Why a file's content is not a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Nothing in it.
    #[error("the password file is empty: write the password into it, on one line")]
    Empty,
    /// Longer than [`PASSWORD_MAX`].
    #[error("the password file is longer than {PASSWORD_MAX} bytes: is it the right file?")]
    Long,
    /// More than a line of text. A NUL would end the password at the broker, and begin something else.
    #[error("the password file does not hold one line of text: write the password into it, on one line")]
    NotALine,
}

impl Password {
    /// The password that a password file holds: its only line, without the line's end.
    pub fn from_file_content(content: Zeroizing<Vec<u8>>) -> Result<Self, PasswordError> {
        if content.len() > PASSWORD_MAX {
            return Err(PasswordError::Long);
        }
        let text = std::str::from_utf8(&content).map_err(|_| PasswordError::NotALine)?;
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            return Err(PasswordError::Empty);
        }
        if line.chars().any(char::is_control) {
            return Err(PasswordError::NotALine);
        }
        Ok(Self(Zeroizing::new(line.to_owned())))
    }

    /// The password, for whoever makes the broker's own list of hashes from it.
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// What HTTP's basic authentication encodes: user, colon, password.
    pub(crate) fn basic(&self, username: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([username.as_bytes(), b":", self.0.as_bytes()].concat())
    }

    /// The answer to SASL PLAIN: NUL, user, NUL, password.
    pub(super) fn sasl_plain(&self, username: &str) -> Vec<u8> {
        let mut answer = Vec::with_capacity(username.len() + self.0.len() + 2);
        for part in [username, &self.0] {
            answer.push(0);
            answer.extend_from_slice(part.as_bytes());
        }
        answer
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_tls_and_holds_no_login() {
        let url: BrokerUrl = "amqps://mq.example/holdfast".parse().expect("good");
        assert_eq!((url.host(), url.port(), url.vhost()), ("mq.example", 5671, "holdfast"));
        let url: BrokerUrl = "amqps://[::1]:1/a%2fb".parse().expect("good");
        assert_eq!((url.host(), url.port(), url.vhost()), ("::1", 1, "a/b"));
        let url: BrokerUrl = "amqps://127.0.0.1:5/holdfast".parse().expect("good");
        assert_eq!(url.to_string(), "amqps://127.0.0.1:5/holdfast");
        for (text, error) in [
            ("amqp://mq.example/holdfast", BrokerUrlError::NotTls("amqp".into())),
            ("https://mq.example/holdfast", BrokerUrlError::NotTls("https".into())),
            ("amqps://me:secret@mq.example/holdfast", BrokerUrlError::Login),
            ("amqp://me@mq.example/holdfast", BrokerUrlError::Login),
            ("amqps://mq.example/holdfast?heartbeat=0", BrokerUrlError::Query),
            ("amqps://mq.example", BrokerUrlError::Vhost),
            ("amqps://mq.example/", BrokerUrlError::Vhost),
            ("amqps:///holdfast", BrokerUrlError::Host),
            ("amqps:holdfast", BrokerUrlError::Host),
        ] {
            assert_eq!(text.parse::<BrokerUrl>().err(), Some(error), "{text}");
        }
        assert!(matches!("mq.example".parse::<BrokerUrl>(), Err(BrokerUrlError::Malformed(_))));
    }

    #[test]
    fn a_password_is_one_line() {
        let read = |content: &[u8]| Password::from_file_content(Zeroizing::new(content.to_vec()));
        assert_eq!(read(b"secret\n").expect("good").sasl_plain("me"), b"\0me\0secret");
        assert_eq!(read(b"secret").expect("good").sasl_plain("me"), b"\0me\0secret");
        assert_eq!(read(b"\n").err(), Some(PasswordError::Empty));
        assert_eq!(read(b"").err(), Some(PasswordError::Empty));
        assert_eq!(read(b"a\nb\n").err(), Some(PasswordError::NotALine));
        assert_eq!(read(b"a\0b").err(), Some(PasswordError::NotALine));
        assert_eq!(read(b"\xff").err(), Some(PasswordError::NotALine));
        assert_eq!(read(&[b'a'; PASSWORD_MAX + 1]).err(), Some(PasswordError::Long));
        assert_eq!(format!("{:?}", read(b"secret").expect("good")), "Password(…)");
    }
}
