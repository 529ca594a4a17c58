//! The command line's end of the control socket.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use super::frame::{self, Frame, MAX_FRAME};
use super::protocol::MAX_ANSWER;
use super::{Answer, Change, LineReader, Outcome, Request, Row, RuleName, read_line, write_line};

/// Why a client command failed; its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the control socket.
    #[error("no daemon at {}: {source}; start `xtcp run`, or name its --control-socket", path.display())]
    NoDaemon {
        /// Path of the control socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon refused or failed.
    #[error("{0}")]
    Daemon(String),
    /// An active open failed or its stream broke.
    #[error("{remote}: {why}")]
    Connection {
        /// The peer.
        remote: SocketAddr,
        /// Why.
        why: String,
    },
    /// The daemon went away or speaks another language.
    #[error("the daemon's answer broke off: {0}")]
    Broken(#[from] io::Error),
    /// Standard input or output failed.
    #[error("can't {doing}: {source}")]
    Standard {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A connection to the daemon.
pub struct Client {
    reader: LineReader<UnixStream>,
}

impl Client {
    /// Connects to the daemon that listens on `path`.
    pub async fn open(path: &Path) -> Result<Client, ClientError> {
        match UnixStream::connect(path).await {
            Ok(stream) => Ok(Client::over(stream)),
            Err(source) => Err(ClientError::NoDaemon { path: path.to_owned(), source }),
        }
    }

    pub(crate) fn over(stream: UnixStream) -> Client {
        Client { reader: LineReader::new(stream, MAX_ANSWER) }
    }

    /// Asks for the connection table, all or only the rows in one state; gives each row to `sink`.
    pub async fn connections(mut self, state: Option<String>, mut sink: impl FnMut(Row)) -> Result<(), ClientError> {
        self.ask(&Request::Conns { state }).await?;
        loop {
            match self.answer().await? {
                Answer::Rows(rows) => rows.into_iter().for_each(&mut sink),
                Answer::Done => return Ok(()),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Asks for the figures.
    pub async fn stats(mut self) -> Result<serde_json::Value, ClientError> {
        self.ask(&Request::Stats).await?;
        match self.answer().await? {
            Answer::Stats(stats) => Ok(stats),
            other => Err(unexpected(&other)),
        }
    }

    /// Changes the prefixes that are allowed or denied, at most [`MAX_PREFIXES_OF_REQUEST`] at a time; gives what became
    /// of each to `sink`, up to the first that fails.
    ///
    /// [`MAX_PREFIXES_OF_REQUEST`]: super::protocol::MAX_PREFIXES_OF_REQUEST
    pub async fn change(
        mut self,
        rule: RuleName,
        change: Change,
        prefixes: Vec<String>,
        mut sink: impl FnMut(String, Outcome),
    ) -> Result<(), ClientError> {
        self.ask(&Request::Change { rule, change, prefixes }).await?;
        loop {
            match self.answer().await? {
                Answer::Changed(changes) => changes.into_iter().for_each(|(prefix, outcome)| sink(prefix, outcome)),
                Answer::Done => return Ok(()),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Asks for the prefixes that are allowed, or for those that are denied.
    pub async fn prefixes(mut self, rule: RuleName) -> Result<Vec<String>, ClientError> {
        self.ask(&Request::Prefixes { rule }).await?;
        match self.answer().await? {
            Answer::Prefixes(prefixes) => Ok(prefixes),
            other => Err(unexpected(&other)),
        }
    }

    /// Opens a connection to `remote` and carries `input` and `output` over it, until both have ended.
    pub async fn connect(
        mut self,
        remote: SocketAddr,
        input: impl AsyncRead + Unpin,
        output: impl AsyncWrite + Unpin,
    ) -> Result<(), ClientError> {
        self.ask(&Request::Connect { remote }).await?;
        self.carry(remote, input, output).await
    }

    /// Carries the stream once the daemon has answered that it is connected.
    pub(crate) async fn carry(
        mut self,
        remote: SocketAddr,
        input: impl AsyncRead + Unpin,
        output: impl AsyncWrite + Unpin,
    ) -> Result<(), ClientError> {
        match self.answer().await {
            Ok(Answer::Connected { .. }) => {}
            Ok(other) => return Err(unexpected(&other)),
            Err(ClientError::Daemon(why)) => return Err(ClientError::Connection { remote, why }),
            Err(error) => return Err(error),
        }
        // The daemon may have sent frames right behind its answer.
        let (early, mut stream) = (self.reader.buffer, self.reader.from);
        let (from_daemon, mut to_daemon) = stream.split();
        let mut from_daemon = early.as_slice().chain(from_daemon);
        // Standard input may never end; what the daemon says decides, so its failure ends both.
        tokio::try_join!(send(remote, input, &mut to_daemon), receive(remote, &mut from_daemon, output)).map(|_| ())
    }

    async fn ask(&mut self, request: &Request) -> Result<(), ClientError> {
        Ok(write_line(&mut self.reader.from, request).await?)
    }

    async fn answer(&mut self) -> Result<Answer, ClientError> {
        match read_line(&mut self.reader).await? {
            Some(Answer::Error(why)) => Err(ClientError::Daemon(why)),
            Some(answer) => Ok(answer),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

fn unexpected(answer: &Answer) -> ClientError {
    ClientError::Daemon(format!("an answer of another kind: {answer:?}"))
}

/// From `input` to the daemon; a daemon that takes no more says why on its own stream.
async fn send(
    remote: SocketAddr,
    mut input: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<(), ClientError> {
    let mut buffer = vec![0; MAX_FRAME];
    loop {
        let length = input
            .read(&mut buffer)
            .await
            .map_err(|source| ClientError::Standard { doing: "read standard input", source })?;
        let written = match length {
            0 => frame::write_end(to).await,
            length => frame::write_data(to, &buffer[..length]).await,
        };
        if let Err(error) = written {
            tracing::debug!(%remote, %error, "the daemon takes no more");
            return Ok(());
        }
        if length == 0 {
            return Ok(());
        }
    }
}

/// From the daemon to `output`.
async fn receive(
    remote: SocketAddr,
    from: &mut (impl AsyncRead + Unpin),
    mut output: impl AsyncWrite + Unpin,
) -> Result<(), ClientError> {
    let written = |source| ClientError::Standard { doing: "write standard output", source };
    let mut buffer = Box::new([0; MAX_FRAME]);
    let mut ended = false;
    loop {
        match frame::read(from, &mut buffer).await? {
            Some(Frame::Data(length)) => {
                output.write_all(&buffer[..length]).await.map_err(written)?;
                output.flush().await.map_err(written)?;
            }
            // The other direction may still fail; the daemon hangs up when it has ended, too.
            Some(Frame::End) => ended = true,
            Some(Frame::Failed(why)) => return Err(ClientError::Connection { remote, why }),
            None if ended => return Ok(()),
            None => {
                let why = "the daemon ended the connection".to_owned();
                return Err(ClientError::Connection { remote, why });
            }
        }
    }
}
