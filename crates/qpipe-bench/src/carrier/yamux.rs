//! yamux over TLS over TCP: streams that share one byte stream.

use std::{
    future::poll_fn,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::{Context as _, Result};
use futures_util::io::{AsyncRead, AsyncWrite};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, Mode};

use super::{Carrier, ECHO, Reader, Stream, Writer, serve_stream, stdio, tls};

const PROTOCOL: &[u8] = b"yamux-pipe";

/// Streams of one connection.
const STREAMS_MAX: usize = 100_000;

type Ask = oneshot::Sender<yamux::Result<yamux::Stream>>;

/// Opens streams of a connection that a task drives.
#[derive(Clone)]
pub(crate) struct Near {
    asks: mpsc::UnboundedSender<Ask>,
}

impl Near {
    pub(crate) async fn dial(state: &Path, to: SocketAddr) -> Result<Near> {
        Ok(dial(state, to).await?.0)
    }

    async fn open(&self) -> Result<(Writer, Reader)> {
        let (ask, answer) = oneshot::channel();
        self.asks.send(ask).ok().context("the connection is gone")?;
        let (reader, writer) = tokio::io::split(answer.await??.compat());
        Ok((Box::pin(writer), Box::pin(reader)))
    }
}

impl Carrier for Near {
    type Pipe = Stream;

    async fn pipe(&self) -> Result<Stream> {
        let (writer, reader) = self.open().await?;
        Stream::open(writer, reader).await
    }

    async fn echo(&self) -> Result<(Writer, Reader)> {
        let (mut writer, reader) = self.open().await?;
        writer.write_u8(ECHO).await?;
        Ok((writer, reader))
    }
}

async fn dial(state: &Path, to: SocketAddr) -> Result<(Near, JoinHandle<()>)> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::new(tls::client(state, PROTOCOL)?));
    let stream = connector.connect(tls::NAME.try_into()?, stream).await?;
    let connection = Connection::new(stream.compat(), config(), Mode::Client);
    let (asks, answering) = mpsc::unbounded_channel();
    let (inbound, _) = mpsc::unbounded_channel();
    let driving = tokio::spawn(Driver { connection, asks: answering, ask: None, inbound }.run());
    Ok((Near { asks }, driving))
}

fn config() -> Config {
    let mut config = Config::default();
    config.set_max_connection_receive_window(None);
    config.set_max_num_streams(STREAMS_MAX);
    config
}

/// Polls a connection, which does nothing by itself.
struct Driver<T> {
    connection: Connection<T>,
    asks: mpsc::UnboundedReceiver<Ask>,
    /// One that waits for its stream.
    ask: Option<Ask>,
    inbound: mpsc::UnboundedSender<yamux::Stream>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    /// Until the peer closes the connection, or nobody can ask for streams any more.
    async fn run(mut self) {
        poll_fn(|context| self.poll(context)).await;
        let _ = poll_fn(|context| self.connection.poll_close(context)).await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.ask.is_none()
                && let Poll::Ready(ask) = self.asks.poll_recv(context)
            {
                let Some(ask) = ask else { return Poll::Ready(()) };
                self.ask = Some(ask);
            }
            let mut is_idle = true;
            if self.ask.is_some()
                && let Poll::Ready(stream) = self.connection.poll_new_outbound(context)
                && let Some(ask) = self.ask.take()
            {
                let _ = ask.send(stream);
                is_idle = false;
            }
            match self.connection.poll_next_inbound(context) {
                Poll::Ready(Some(Ok(stream))) => drop(self.inbound.send(stream)),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if is_idle => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }
}

/// Takes one connection after the other, and gives the streams of each.
struct Far {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Far {
    async fn new(state: &Path, listen: SocketAddr) -> Result<Far> {
        let listener = TcpListener::bind(listen).await?;
        let acceptor = TlsAcceptor::from(Arc::new(tls::server(state, PROTOCOL)?));
        Ok(Far { listener, acceptor })
    }

    /// Streams, and what keeps the connection: it ends when the near end closes it.
    async fn next(
        &self,
    ) -> Result<(mpsc::UnboundedReceiver<yamux::Stream>, mpsc::UnboundedSender<Ask>, JoinHandle<()>)>
    {
        let (stream, _) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        let stream = self.acceptor.accept(stream).await?;
        let connection = Connection::new(stream.compat(), config(), Mode::Server);
        let (keep, asks) = mpsc::unbounded_channel();
        let (inbound, streams) = mpsc::unbounded_channel();
        let driver = Driver { connection, asks, ask: None, inbound };
        Ok((streams, keep, tokio::spawn(driver.run())))
    }
}

/// The far end of pipes and echoes, until it is killed.
pub(crate) async fn serve(state: &Path, listen: SocketAddr) -> Result<()> {
    let far = Far::new(state, listen).await?;
    loop {
        let (mut streams, keep, _) = far.next().await?;
        tokio::spawn(async move {
            while let Some(stream) = streams.recv().await {
                let (reader, writer) = tokio::io::split(stream.compat());
                tokio::spawn(serve_stream(Box::pin(writer), Box::pin(reader)));
            }
            drop(keep);
        });
    }
}

/// One stream to standard output.
pub(crate) async fn listen(state: &Path, listen: SocketAddr) -> Result<()> {
    let (mut streams, _keep, driving) = Far::new(state, listen).await?.next().await?;
    let stream = streams.recv().await.context("no stream")?;
    let (mut reader, mut writer) = tokio::io::split(stream.compat());
    stdio::to_stdout(&mut reader).await?;
    writer.shutdown().await?;
    // The near end closes the connection once it has seen that.
    Ok(driving.await?)
}

/// Standard input to one stream.
pub(crate) async fn send(state: &Path, to: SocketAddr) -> Result<()> {
    let (near, driving) = dial(state, to).await?;
    let (mut writer, mut reader) = near.open().await?;
    stdio::from_stdin(&mut writer).await?;
    writer.shutdown().await?;
    // The far end has everything when it ends its direction, too.
    reader.read_to_end(&mut Vec::new()).await?;
    drop(near);
    Ok(driving.await?)
}
