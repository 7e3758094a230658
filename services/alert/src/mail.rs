//! E-mail: a letter for each group of alerts, by SMTP.

use std::time::Duration;

use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use serde::Deserialize;

/// Longest time for a letter.
const SEND_MAX: Duration = Duration::from_secs(20);
/// The port of mail servers that speak TLS from the first byte; on others it is asked for.
const PORT_OF_TLS: u16 = 465;
/// The port of mail servers that is meant where none is said.
const PORT: u16 = 587;

/// A mail server, and whom it writes to.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mail {
    /// The server: a host, or a host and a port.
    pub(crate) server: String,
    /// Whom letters are from.
    pub(crate) from: String,
    /// Whom letters are for.
    pub(crate) to: Vec<String>,
    /// Who signs in, where the server asks for it.
    #[serde(default)]
    pub(crate) user: String,
    /// File with the password.
    #[serde(default)]
    pub(crate) password_file: String,
    /// Whether the way to the server is open to whoever listens: only for servers on this machine or network.
    #[serde(default)]
    pub(crate) plain: bool,
}

impl Mail {
    /// What is wrong with it.
    pub(crate) fn mistake(&self) -> Option<String> {
        if self.place().is_none() {
            return Some(format!("server: {:?} is no host, or host:port", self.server));
        }
        if self.to.is_empty() {
            return Some("to: name somebody".to_owned());
        }
        if self.plain && !self.user.is_empty() {
            return Some("plain: a password would be told to whoever listens; leave out plain, or user".to_owned());
        }
        let odd = std::iter::once(&self.from).chain(&self.to).find(|one| one.parse::<Mailbox>().is_err());
        odd.map(|one| format!("{one:?} is no address of e-mail"))
    }

    fn place(&self) -> Option<(String, u16)> {
        let (host, port) = match self.server.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (self.server.as_str(), PORT),
        };
        (!host.is_empty() && !host.contains(char::is_whitespace)).then(|| (host.to_owned(), port))
    }

    /// Sends a letter.
    ///
    /// # Errors
    /// What the server said, or why it was not reached.
    pub(crate) async fn send(&self, subject: &str, text: String) -> Result<(), String> {
        let (host, port) = self.place().ok_or("the receiver has no server")?;
        let mailbox = |text: &String| text.parse::<Mailbox>().map_err(|error| error.to_string());
        // A line break in a subject would be a header of somebody else's making.
        let subject: String = subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut letter = Message::builder().from(mailbox(&self.from)?).subject(subject);
        for to in &self.to {
            letter = letter.to(mailbox(to)?);
        }
        let letter = letter.body(text).map_err(|error| error.to_string())?;
        let tls = if self.plain {
            Tls::None
        } else {
            let parameters = TlsParameters::new(host.clone()).map_err(|error| error.to_string())?;
            if port == PORT_OF_TLS { Tls::Wrapper(parameters) } else { Tls::Required(parameters) }
        };
        let mut server =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host).port(port).tls(tls).timeout(Some(SEND_MAX));
        if !self.user.is_empty() {
            let password = tokio::fs::read_to_string(&self.password_file).await;
            let password = password.map_err(|error| format!("{}: {error}", self.password_file))?;
            server = server.credentials(Credentials::new(self.user.clone(), password.trim_end().to_owned()));
        }
        let sent = tokio::time::timeout(SEND_MAX, server.build().send(letter)).await;
        sent.map_err(|_| format!("the mail server did not answer within {SEND_MAX:?}"))?
            .map(drop)
            .map_err(|error| error.to_string())
    }
}
