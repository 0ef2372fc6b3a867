//! A peer that opens without end: what it may have is bounded, and others do not notice.

use std::sync::Arc;

use qpipe::identity::HostIdentity;
use qpipe::{
    Cause, Nobody, Node, NodeOptions, OpenOptions, OpenTarget, Patience, PipeError, Session,
};
use qpipe_node::{Home, Serve, ServeOptions, add_peer, local_peer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Half of it is for floors of 4 KiB: so many pipes can be open.
const MEMORY: u64 = 16 << 20;
const FLOORS: usize = 2_048;

const OPENS: usize = 100_000;

/// Opens that are on their way together.
const AT_ONCE: usize = 200;

async fn join(serve: &Serve, home: &Home, name: &str) -> (Node, Session) {
    let identity = HostIdentity::ephemeral().unwrap();
    let rules = ["send:**", "recv:**"].map(|rule| rule.parse().unwrap());
    let name = Some(name.parse().unwrap());
    let peer = qpipe_node::PeerRules::new(identity.fingerprint(), name, rules);
    add_peer(&home.authorized_file(), &peer).unwrap();
    let options = NodeOptions { accepts: false, ..NodeOptions::default() };
    let node = Node::start(identity.process().unwrap(), options, Arc::new(Nobody)).unwrap();
    let host = local_peer(home, serve.node().fingerprint()).unwrap();
    let session = node.connect(&host, None).await.unwrap();
    (node, session)
}

fn target(name: &str) -> OpenTarget {
    OpenTarget::Name(name.parse().unwrap())
}

#[tokio::test]
async fn a_hundred_thousand_opens_of_a_peer_are_bounded_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("home"));
    home.create().unwrap();
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let options = ServeOptions { listen, memory: MEMORY, patience: Patience::default() };
    let serve = Arc::new(Serve::start(&home, options).unwrap());
    let running = serve.clone();
    tokio::spawn(async move { running.run(|error| panic!("{error}")).await });
    let (_one, alice) = join(&serve, &home, "alice").await;
    let (_two, bob) = join(&serve, &home, "bob").await;
    let mut writer = bob.open_writer(target("bob"), OpenOptions::default()).await.unwrap();
    let mut reader = bob.open_reader(target("bob"), OpenOptions::default()).await.unwrap();

    let (mut held, mut refused) = (Vec::new(), 0);
    for round in 0..OPENS / AT_ONCE {
        let mut opening = Vec::new();
        for i in 0..AT_ONCE {
            let name = target(&format!("alice/{}", round * AT_ONCE + i));
            opening.push(alice.open_writer(name, OpenOptions::default()).await.unwrap());
        }
        for opened in opening {
            match opened.accepted().await {
                Ok(()) => held.push(opened),
                Err(PipeError::Refused { cause: Cause::Busy }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        writer.write_all(b"still here").await.unwrap();
        let mut heard = [0; 10];
        reader.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"still here");
    }
    assert!(held.len() <= FLOORS && !held.is_empty(), "{} are open", held.len());
    assert_eq!(held.len() + refused, OPENS);
    writer.finish().await.unwrap();

    held.into_iter().for_each(|writer| writer.abort(Cause::Interrupted));
    // Given back: the same number can be open again.
    let mut again = 0;
    while again < 100 {
        let name = target(&format!("again/{again}"));
        let opened = alice.open_writer(name, OpenOptions::default()).await.unwrap();
        match opened.accepted().await {
            Ok(()) => again += 1,
            Err(PipeError::Refused { cause: Cause::Busy }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
        opened.abort(Cause::Interrupted);
    }
}
