//! The socket against the kernel.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;

use super::*;
use crate::identity::HostIdentity;
use crate::node::{Node, NodeOptions, Peer};
use crate::tls::ExpectedHost;
use crate::{End, Nobody, OpenOptions, OpenTarget};

fn bound() -> (Arc<Socket>, SocketAddr) {
    let socket = Socket::bind((Ipv4Addr::LOCALHOST, 0).into(), Arc::default()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

async fn send(socket: &Arc<Socket>, contents: &[u8], segment: usize, to: SocketAddr) {
    let mut room = socket.clone().create_io_poller();
    let segment_size = (contents.len() > segment).then_some(segment);
    let transmit = Transmit { destination: to, ecn: None, contents, segment_size, src_ip: None };
    loop {
        std::future::poll_fn(|cx| room.as_mut().poll_writable(cx)).await.unwrap();
        match socket.try_send(&transmit) {
            Ok(()) => return,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
}

/// The sizes of the next datagrams, as many as make up `bytes`.
async fn receive(socket: &Socket, bytes: usize) -> Vec<usize> {
    let mut sizes = Vec::new();
    let mut buffers = vec![vec![0; buffers::DATAGRAM_BYTES_MAX]; 4];
    while sizes.iter().sum::<usize>() < bytes {
        let mut meta = [RecvMeta::default(); 4];
        let received = std::future::poll_fn(|cx| {
            let mut slices: Vec<_> = buffers.iter_mut().map(|b| IoSliceMut::new(b)).collect();
            socket.poll_recv(cx, &mut slices, &mut meta)
        })
        .await;
        for meta in &meta[..received.unwrap()] {
            let last = meta.len % meta.stride;
            sizes.extend(std::iter::repeat_n(meta.stride, meta.len / meta.stride));
            sizes.extend((last > 0).then_some(last));
        }
    }
    sizes
}

#[tokio::test]
async fn batches_of_large_datagrams_arrive_whole() {
    let ((from, _), (to, address)) = (bound(), bound());
    for segment in [1200, 8972, 30_000, 65_507] {
        let bytes = 10 * segment - 7;
        send(&from, &vec![1; bytes], segment, address).await;

        let sizes = receive(&to, bytes).await;

        assert_eq!(sizes.len(), 10, "{segment}");
        assert!(sizes[..9].iter().all(|size| *size == segment), "{sizes:?}");
    }
}

#[tokio::test]
async fn what_waits_for_more_goes_out_when_nothing_comes() {
    let ((from, _), (to, address)) = (bound(), bound());
    send(&from, &[1; 12_000], 1200, address).await;
    assert_eq!(receive(&to, 12_000).await, [1200; 10]);
}

#[tokio::test]
async fn gathered_datagrams_keep_their_order_before_those_of_another_size() {
    let ((from, _), (to, address)) = (bound(), bound());
    send(&from, &[1; 12_000], 1200, address).await;
    send(&from, &[1; 12_000], 1200, address).await;
    send(&from, &[1; 7], 7, address).await;
    send(&from, &[1; 1300], 1300, address).await;

    let sizes = receive(&to, 24_000 + 7 + 1300).await;

    assert_eq!(sizes[..20], [1200; 20]);
    assert_eq!(sizes[20..], [7, 1300]);
}

#[tokio::test]
async fn a_datagram_that_the_kernel_refuses_is_lost_and_no_error() {
    let ((from, _), (to, address)) = (bound(), bound());
    send(&from, &vec![1; 65_508], 65_508, address).await;
    send(&from, &[1; 3], 3, address).await;
    assert_eq!(receive(&to, 3).await, [3]);
}

#[tokio::test]
async fn a_pipe_on_loopback_finds_datagrams_of_64_kib() {
    let node = || {
        let listen = vec![(Ipv4Addr::LOCALHOST, 0).into()];
        let options = NodeOptions { listen, ..NodeOptions::default() };
        let identity = HostIdentity::ephemeral().unwrap().node();
        Node::start(identity, options, Arc::new(Nobody)).unwrap()
    };
    let (a, b) = (node(), node());
    let mut offer = a.offer(End::Write, None).unwrap();
    let peer = Peer {
        addresses: a.local_addresses().into_iter().map(|at| at.try_into().unwrap()).collect(),
        expected: ExpectedHost::Is(a.fingerprint()),
        name: String::new(),
    };
    let secret = offer.secret().clone();
    let session = b.connect(&peer, Some(&secret)).await.unwrap();
    let target = OpenTarget::Ticket(secret);
    let ends = session.open_ends(End::Write, target, OpenOptions::default()).await.unwrap();
    let (mut writer, taken) = (ends.writer.unwrap(), offer.taken().await.unwrap());
    let mut reader = taken.reader.unwrap();
    let mtu = || {
        let link = b.core.links()[0].clone();
        let wire = link.lock().wire.clone().unwrap();
        wire.conn.stats().path.current_mtu
    };

    // Each probe takes a round trip, for which a piece there and its consumption back may stand.
    for _ in 0..1000 {
        if mtu() > 60_000 {
            break;
        }
        writer.write_chunk(vec![7; 4096].into()).await.unwrap();
        let mut left = 4096;
        while left > 0 {
            let piece = reader.read_chunk(left).await.unwrap().unwrap();
            left -= piece.len();
            reader.consume(piece.len() as u64);
        }
    }

    assert!(mtu() > 60_000, "{}", mtu());
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_cannot_receive_is_reported_and_asked_ever_more_seldom() {
    // Of a socket that listens for TCP, nothing can be received: always an error, never the end.
    let listener: OwnedFd = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().into();
    let address = rustix::net::getsockname(&listener).unwrap();
    let address: SocketAddr = address.try_into().unwrap();
    let _caller = std::net::TcpStream::connect(address).unwrap();
    let broken = Arc::new(Notify::new());
    let socket = Socket::over(listener.into(), 1472, broken.clone()).unwrap();
    let reader = socket.clone();
    let receives = tokio::spawn(async move { receive(&reader, 1).await });

    broken.notified().await;
    tokio::time::sleep(std::time::Duration::from_secs(100)).await;

    assert!(!receives.is_finished(), "an error ends quinn's endpoint");
    let failures = lock(&socket.trouble).failures();
    assert!((50..150).contains(&failures), "{failures}");
    receives.abort();
}
