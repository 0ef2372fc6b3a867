//! A host with its endpoint and the ends of all flows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event, ServerConfig, StreamEvent,
    StreamId,
};

use super::Algorithm;
use crate::node::transport::{self, Configs};
use crate::rng::Rng;

/// Datagrams that a connection makes at once, as quinn does.
const BATCH: usize = 10;

/// One end of a flow.
pub(super) struct End {
    pub(super) quic: Connection,
    stream: Option<StreamId>,
    /// Bytes that are to be written yet.
    pub(super) wanted: u64,
    /// Bytes that were read.
    pub(super) received: u64,
}

/// A host.
pub(super) struct Host {
    endpoint: Endpoint,
    configs: Configs,
    pub(super) ends: BTreeMap<usize, End>,
    rng: Rng,
    /// What incoming connections are controlled by: they send acknowledgements only.
    server: Arc<ServerConfig>,
}

impl Host {
    pub(super) fn new(seed: u64, host: usize) -> Host {
        let configs = Configs::new(host);
        let (server, _) = configs.server();
        let mut server = (*server).clone();
        server.transport_config(Algorithm::Own.transport());
        let server = Arc::new(server);
        let config = Arc::new(transport::endpoint(seed, host, 0));
        Host {
            endpoint: Endpoint::new(config, Some(server.clone()), true, None),
            configs,
            ends: BTreeMap::new(),
            rng: Rng::new(seed, "dials"),
            server,
        }
    }

    /// Begins a connection; `None` if quinn will not have it.
    pub(super) fn dial(&mut self, now: Instant, to: SocketAddr, by: Algorithm) -> Option<usize> {
        let (mut config, _) = self.configs.client(&mut self.rng);
        config.transport_config(by.transport());
        let (handle, quic) = self.endpoint.connect(now, config, to, "peer").ok()?;
        self.ends.insert(handle.0, End::new(quic));
        Some(handle.0)
    }

    /// A datagram arrived; the end that it is for.
    pub(super) fn datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Option<usize> {
        let mut response = Vec::new();
        match self.endpoint.handle(now, from, None, None, BytesMut::from(bytes), &mut response)? {
            DatagramEvent::ConnectionEvent(handle, event) => {
                self.ends.get_mut(&handle.0)?.quic.handle_event(event);
                Some(handle.0)
            }
            DatagramEvent::NewConnection(incoming) => {
                let config = Some(self.server.clone());
                let (handle, quic) =
                    self.endpoint.accept(incoming, now, &mut response, config).ok()?;
                self.ends.insert(handle.0, End::new(quic));
                Some(handle.0)
            }
            DatagramEvent::Response(_) => None,
        }
    }

    /// Does all there is to do for one end; the datagrams that it sends.
    pub(super) fn drive(&mut self, now: Instant, id: usize) -> Vec<Vec<u8>> {
        let Some(end) = self.ends.get_mut(&id) else { return Vec::new() };
        end.work();
        let mut out = Vec::new();
        let mut buffer = Vec::new();
        while let Some(transmit) = end.quic.poll_transmit(now, BATCH, &mut buffer) {
            let bytes = &buffer[..transmit.size];
            let segment = transmit.segment_size.unwrap_or(transmit.size);
            out.extend(bytes.chunks(segment).map(<[u8]>::to_vec));
            buffer.clear();
        }
        while let Some(event) = end.quic.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(ConnectionHandle(id), event) {
                end.quic.handle_event(event);
            }
        }
        out
    }
}

impl End {
    fn new(quic: Connection) -> End {
        End { quic, stream: None, wanted: 0, received: 0 }
    }

    fn work(&mut self) {
        while let Some(event) = self.quic.poll() {
            match event {
                Event::Connected if self.quic.side().is_client() => {
                    self.stream = self.quic.streams().open(Dir::Uni);
                }
                Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                    self.stream = self.quic.streams().accept(Dir::Uni);
                }
                _ => {}
            }
        }
        let Some(stream) = self.stream else { return };
        if self.quic.side().is_client() { self.write(stream) } else { self.read(stream) }
    }

    fn write(&mut self, stream: StreamId) {
        static CONTENT: [u8; 65_536] = [0; 65_536];
        while self.wanted > 0 {
            let length = self.wanted.min(CONTENT.len() as u64) as usize;
            let chunk = &mut [Bytes::from_static(&CONTENT[..length])];
            match self.quic.send_stream(stream).write_chunks(chunk) {
                Ok(written) => self.wanted -= written.bytes as u64,
                Err(_) => return,
            }
        }
    }

    fn read(&mut self, stream: StreamId) {
        let mut receive = self.quic.recv_stream(stream);
        let Ok(mut chunks) = receive.read(false) else { return };
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            self.received += chunk.bytes.len() as u64;
        }
        let _ = chunks.finalize();
    }
}
