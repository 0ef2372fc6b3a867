//! Plain quinn with its own settings but for the number of streams, as a program would use it that wants those and
//! no more.

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context, Result};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, TokioRuntime,
    TransportConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt;

use super::{Carrier, ECHO, Reader, Stream, Writer, serve_stream, stdio, tls};

const PROTOCOL: &[u8] = b"quinn-pipe";

/// With quinn's own 100, who wants to have more open at once waits for one to end.
const STREAMS_MAX: u32 = 100_000;

/// The system's default loses datagrams between two processes that share a core.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// A connection, and the endpoint that has it.
#[derive(Clone)]
pub(crate) struct Near {
    connection: Connection,
    endpoint: Endpoint,
}

impl Near {
    pub(crate) async fn dial(state: &Path, to: SocketAddr) -> Result<Near> {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let endpoint = endpoint(any.parse()?, None)?;
        let crypto = QuicClientConfig::try_from(tls::client(state, PROTOCOL)?)?;
        let config = ClientConfig::new(Arc::new(crypto));
        let connection = endpoint.connect_with(config, to, tls::NAME)?.await?;
        Ok(Near { connection, endpoint })
    }

    pub(crate) async fn close(self) {
        self.connection.close(0u32.into(), b"");
        self.endpoint.wait_idle().await;
    }
}

impl Carrier for Near {
    type Pipe = Stream;

    async fn pipe(&self) -> Result<Stream> {
        let (writer, reader) = self.connection.open_bi().await?;
        Stream::open(Box::pin(writer), Box::pin(reader)).await
    }

    async fn echo(&self) -> Result<(Writer, Reader)> {
        let (mut writer, reader) = self.connection.open_bi().await?;
        writer.write_u8(ECHO).await?;
        Ok((Box::pin(writer), Box::pin(reader)))
    }
}

fn endpoint(address: SocketAddr, server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.bind(&address.into())?;
    let runtime = Arc::new(TokioRuntime);
    Ok(Endpoint::new(EndpointConfig::default(), server, socket.into(), runtime)?)
}

fn listening(state: &Path, listen: SocketAddr) -> Result<Endpoint> {
    let crypto = QuicServerConfig::try_from(tls::server(state, PROTOCOL)?)?;
    let mut transport = TransportConfig::default();
    transport.max_concurrent_bidi_streams(STREAMS_MAX.into());
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    endpoint(listen, Some(config))
}

/// The far end of pipes and echoes, until it is killed.
pub(crate) async fn serve(state: &Path, listen: SocketAddr) -> Result<()> {
    let endpoint = listening(state, listen)?;
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let connection = incoming.await?;
            // Until the near end closes it.
            while let Ok((writer, reader)) = connection.accept_bi().await {
                tokio::spawn(serve_stream(Box::pin(writer), Box::pin(reader)));
            }
            anyhow::Ok(())
        });
    }
    Ok(())
}

/// One stream to standard output.
pub(crate) async fn listen(state: &Path, listen: SocketAddr) -> Result<()> {
    let endpoint = listening(state, listen)?;
    let connection = endpoint.accept().await.context("the socket was closed")?.await?;
    let mut reader = connection.accept_uni().await?;
    stdio::to_stdout(&mut reader).await?;
    connection.closed().await;
    Ok(())
}

/// Standard input to one stream.
pub(crate) async fn send(state: &Path, to: SocketAddr) -> Result<()> {
    let near = Near::dial(state, to).await?;
    let mut writer = near.connection.open_uni().await?;
    stdio::from_stdin(&mut writer).await?;
    writer.finish()?;
    writer.stopped().await?;
    near.close().await;
    Ok(())
}
