//! A host with its endpoint and the ends of all flows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event, ServerConfig, StreamEvent,
    StreamId,
};

use super::Algorithm;
use crate::node::transport::{self, Configs};
use crate::rng::Rng;

/// What the host sends at once of what it paces, as the kernel does.
const PACED_BURST: Duration = Duration::from_millis(1);

/// One end of a flow.
pub(super) struct End {
    pub(super) quic: Connection,
    stream: Option<StreamId>,
    by: Algorithm,
    /// When it may send again, as far as the host paces it, and whether it waits for that.
    paced: Option<Instant>,
    waits: bool,
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
        self.ends.insert(handle.0, End::new(quic, by));
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
                self.ends.insert(handle.0, End::new(quic, Algorithm::Own));
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
        while end.may_send(now)
            && let Some(transmit) = end.quic.poll_transmit(now, end.by.batch(), &mut buffer)
        {
            end.pace(now, transmit.size);
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
    fn new(quic: Connection, by: Algorithm) -> End {
        End { quic, stream: None, by, paced: None, waits: false, wanted: 0, received: 0 }
    }

    /// When something is due.
    pub(super) fn due(&mut self) -> Option<Instant> {
        let paced = self.paced.filter(|_| self.waits);
        self.quic.poll_timeout().into_iter().chain(paced).min()
    }

    fn may_send(&mut self, now: Instant) -> bool {
        // Once it waits, until all that was sent before is through.
        let ahead = if self.waits { Duration::ZERO } else { PACED_BURST };
        self.waits = self.paced.is_some_and(|at| at > now + ahead);
        !self.waits
    }

    /// What is sent next waits until these bytes are through, at the rate that the controller says.
    fn pace(&mut self, now: Instant, bytes: usize) {
        if self.by.is_paced_by_host() {
            let rate = self.quic.congestion_state().metrics().pacing_rate;
            let took = rate.map(|rate| bytes as f64 * 8.0 / rate as f64);
            let from = self.paced.map_or(now, |at| at.max(now));
            self.paced = took.map(|took| from + Duration::from_secs_f64(took));
        }
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
