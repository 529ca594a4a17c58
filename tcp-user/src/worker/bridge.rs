//! `xtcp connect`: bridges a control connection, whose request the main thread has read, with an active
//! open. The daemon's end of [`crate::control::frame`].

use std::io;
use std::rc::Rc;

use tcp_proto::ConnectError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{ActiveOpen, Command, ConnectFailure, Endpoint};
use crate::control::frame::{self, Frame, MAX_FRAME};
use crate::control::{Answer, write_answer};
use crate::stream::Stream;

/// Opens, answers, and carries bytes until both directions have ended or one side failed. Without a port of this
/// worker's it passes the open on to the next.
pub async fn connect(endpoint: Rc<Endpoint>, open: ActiveOpen) {
    let ActiveOpen { remote, options, control, mut others } = open;
    // Without its control connection there is nobody to tell.
    let Ok(mut control) = UnixStream::from_std(control) else { return };
    let opened = tokio::select! {
        opened = endpoint.connect(remote, options.clone()) => opened,
        () = hung_up(&control) => return,
    };
    let stream = match opened {
        Ok(stream) => stream,
        Err(ConnectFailure::NotStarted(ConnectError::NoPort)) if !others.is_empty() => {
            if let (Some(next), Ok(control)) = (others.pop_front(), control.into_std()) {
                // A worker that is gone takes the daemon with it.
                let _ = next.send(Command::Connect(Box::new(ActiveOpen { remote, options, control, others }))).await;
            }
            return;
        }
        Err(failure) => {
            let _ = write_answer(&mut control, &Answer::Error(failure.to_string())).await;
            return;
        }
    };
    let Some((local, remote)) = stream.addresses() else {
        let _ = write_answer(&mut control, &Answer::Error("connection closed".to_owned())).await;
        return;
    };
    if write_answer(&mut control, &Answer::Connected { local, remote }).await.is_ok() {
        carry(stream, control).await;
    }
}

/// Done when the client is gone; it sends nothing before it has its answer.
async fn hung_up(control: &UnixStream) {
    while control.readable().await.is_ok() {
        match control.try_read(&mut [0; 1]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

/// Why the bridge ended early.
enum Broken {
    /// The connection failed: the client is told.
    Stream(io::Error),
    /// The client is gone: the connection is closed.
    Client,
}

async fn carry(stream: Stream, mut control: UnixStream) {
    let (mut from_peer, mut to_peer) = tokio::io::split(stream);
    let (mut from_client, mut to_client) = control.split();
    let outcome = tokio::try_join!(up(&mut from_client, &mut to_peer), down(&mut from_peer, &mut to_client));
    if let Err(Broken::Stream(error)) = outcome {
        let _ = frame::write_failure(&mut to_client, &explain(&error)).await;
    }
}

/// From the client to the peer.
async fn up(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> Result<(), Broken> {
    let mut buffer = Box::new([0; MAX_FRAME]);
    loop {
        match frame::read(from, &mut buffer).await {
            Ok(Some(Frame::Data(length))) => to.write_all(&buffer[..length]).await.map_err(Broken::Stream)?,
            Ok(Some(Frame::End)) => return to.shutdown().await.map_err(Broken::Stream),
            Ok(Some(Frame::Failed(_)) | None) | Err(_) => return Err(Broken::Client),
        }
    }
}

/// From the peer to the client.
async fn down(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> Result<(), Broken> {
    let mut buffer = vec![0; MAX_FRAME];
    loop {
        let written = match from.read(&mut buffer).await.map_err(Broken::Stream)? {
            0 => return frame::write_end(to).await.map_err(|_| Broken::Client),
            length => frame::write_data(to, &buffer[..length]).await,
        };
        written.map_err(|_| Broken::Client)?;
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::TimedOut => "timed out".to_owned(),
        io::ErrorKind::ConnectionAborted => "aborted by the daemon".to_owned(),
        io::ErrorKind::BrokenPipe => "the connection takes no more data".to_owned(),
        _ => error.to_string(),
    }
}
