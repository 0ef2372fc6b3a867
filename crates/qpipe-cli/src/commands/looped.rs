//! `qpipe loop`: both hosts in one process, and everything between them as it is between two.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow};
use indicatif::BinaryBytes;
use qpipe::{
    Access, Cause, Nobody, Node, NodeOptions, OpenOptions, OpenTarget, Peer, PipeError, PipeReader,
    PipeWriter, Session,
    identity::{HostIdentity, PeerIdentity},
    tls::ExpectedHost,
};
use qpipe_node::{Authorized, Config, Home, PeerRules, Rule, Verb, add_peer, pin_host};
use qpipe_proto::ticket::Address;
use tokio::time::Instant;

use crate::{
    args::LoopArgs,
    ending::{self, Label},
    exit::Exit,
    input, output,
    pipes::{FAREWELL, cause_of},
    progress::Progress,
    pump::{self, Stopped},
    rate::Throttle,
    say,
    signals::Signals,
};

/// The pipe on node B.
const PIPE: &str = "loop";

/// Sends standard input to standard output, through QUIC between two nodes.
///
/// # Errors
/// The two nodes did not come together.
pub(crate) async fn run(args: LoopArgs) -> anyhow::Result<Exit> {
    input::must_be_open()?;
    output::must_be_open()?;
    let mut signals = Signals::listen()?;
    let homes = tempfile::tempdir().context("cannot make temporary homes for the two nodes")?;
    let (a_home, b_home) = (Home::at(homes.path().join("a")), Home::at(homes.path().join("b")));
    let b = Receiver::start(&a_home, &b_home, &args)?;
    let a = Sender::start(&a_home, &args)?;
    let (mut writer, mut reader) = tokio::try_join!(a.open(), b.accept())?;

    let began = Instant::now();
    let outcome = tokio::select! {
        outcome = carry(&mut writer, &mut reader, &args) => outcome,
        signal = signals.next() => Err(Stopped::Signal(signal)),
    };
    let took = began.elapsed();
    match &outcome {
        Ok(bytes) => say::note(summary(&a.session()?, &writer, *bytes, took)),
        Err(stopped) => {
            writer.abort(cause_of(stopped));
            reader.close(cause_of(stopped));
        }
    }
    let exit = told(outcome);
    tokio::select! {
        _ = async { tokio::join!(a.node.close(FAREWELL), b.node.close(FAREWELL)) } => {}
        _ = signals.next() => {}
    }
    // Before the process ends, which does not run destructors.
    drop(homes);
    Ok(exit)
}

/// The writer's host: dials B, whose key it has pinned.
struct Sender {
    node: Node,
    peer: Peer,
    session: std::sync::OnceLock<Session>,
}

/// The reader's host: has a pipe, and lets A write into it.
struct Receiver {
    node: Node,
    rules: Arc<Authorized>,
}

impl Sender {
    fn start(home: &Home, args: &LoopArgs) -> anyhow::Result<Self> {
        let identity = HostIdentity::load(&home.key_dir())?;
        let config = Config::load(&home.config_file())?;
        let b = config.host("b").context("node B is not pinned")?;
        let key = b.fingerprint.context("node B has no pinned key")?;
        let (addresses, expected) = (b.addresses.clone(), ExpectedHost::Is(key));
        let options =
            NodeOptions { memory: args.memory.bytes(), accepts: false, ..NodeOptions::default() };
        let node = Node::start(identity.node(), options, Arc::new(Nobody))?;
        let peer = Peer { name: "b".to_owned(), addresses, expected };
        Ok(Self { node, peer, session: std::sync::OnceLock::new() })
    }

    async fn open(&self) -> anyhow::Result<PipeWriter> {
        let session = self.node.connect(&self.peer, None).await?;
        let target = OpenTarget::Name(PIPE.parse()?);
        let writer = session.open_writer(target, OpenOptions::default()).await?;
        let _ = self.session.set(session);
        Ok(writer)
    }

    fn session(&self) -> anyhow::Result<Session> {
        self.session.get().cloned().ok_or_else(|| anyhow!("no session was made"))
    }
}

impl Receiver {
    /// Makes the two homes, each with a key and the other's pinned, and starts node B.
    fn start(a_home: &Home, b_home: &Home, args: &LoopArgs) -> anyhow::Result<Self> {
        a_home.create()?;
        b_home.create()?;
        let a_key = HostIdentity::load_or_create(&a_home.key_dir())?.fingerprint();
        let b_identity = HostIdentity::load_or_create(&b_home.key_dir())?;
        let rule = Rule { verb: Verb::Send, pattern: PIPE.parse()? };
        let a_rules = PeerRules::new(a_key, Some("a".parse()?), [rule]);
        add_peer(&b_home.authorized_file(), &a_rules)?;
        let rules = Arc::new(Authorized::load(&b_home.authorized_file())?);

        let options = NodeOptions {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            memory: args.memory.bytes(),
            takes_names: true,
            ..NodeOptions::default()
        };
        let node = Node::start(b_identity.node(), options, Arc::new(ByRules(rules.clone())))?;
        let addresses: Result<Vec<Address>, _> =
            node.local_addresses().into_iter().map(Address::try_from).collect();
        pin_host(&a_home.config_file(), &"b".parse()?, &addresses?, &b_identity.fingerprint())?;
        Ok(Self { node, rules })
    }

    async fn accept(&self) -> anyhow::Result<PipeReader> {
        let open = self.node.next_open().await.context("node B ended")?;
        let peer = self.rules.rules_for(&open.peer().host());
        let may = match open.target() {
            OpenTarget::Name(name) => peer.is_some_and(|peer| peer.may_send(name)),
            OpenTarget::Ticket(_) | OpenTarget::Unknown => false,
        };
        if !may {
            open.refuse(Cause::NotAllowed);
            return Err(anyhow!("node B does not allow what node A asked for"));
        }
        let ends = open.accept().map_err(|cause| anyhow!("node B refused the pipe: {cause}"))?;
        let reader = ends.reader.context("node A opened no pipe to write")?;
        reader.join();
        Ok(reader)
    }
}

/// Lets in whom B's authorized.toml lists.
struct ByRules(Arc<Authorized>);

impl Access for ByRules {
    fn knows(&self, peer: &PeerIdentity) -> bool {
        self.0.rules_for(&peer.host()).is_some()
    }
}

/// Both ends at once; the first to fail ends the other. Gives the number of bytes.
async fn carry(
    writer: &mut PipeWriter,
    reader: &mut PipeReader,
    args: &LoopArgs,
) -> Result<u64, Stopped> {
    let progress = Progress::start(input::is_terminal() || output::is_terminal());
    let mut input = input::take().map_err(Stopped::Input)?;
    let output = output::take().map_err(Stopped::Output)?;
    let (mut throttle, mut unthrottled) =
        (Throttle::new(args.rate, args.burst), Throttle::new(None, None));
    let uncounted = Progress::none();
    let outcome = tokio::try_join!(
        pump::send_all(&mut input, writer, &mut throttle, &progress),
        pump::receive_all(reader, output, &mut unthrottled, &uncounted),
    );
    progress.stop();
    outcome.map(|_| reader.delivered())
}

/// Both ends are of one pipe: what ended it is told once, from the side that noticed.
fn told(outcome: Result<u64, Stopped>) -> Exit {
    let label = Label::Local(PIPE.to_owned());
    match outcome {
        outcome @ Err(
            Stopped::Output(_)
            | Stopped::Pipe(PipeError::Aborted { .. } | PipeError::Corrupt { .. }),
        ) => ending::of_recv(&label, outcome, false).tell(),
        outcome => ending::of_send(&label, outcome).tell(),
    }
}

/// What the loop shows: that there were two hosts with keys, and that nothing was lost.
fn summary(session: &Session, writer: &PipeWriter, bytes: u64, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    // Precise to the byte up to 2^53 of them.
    let rate = if seconds > 0.0 { bytes as f64 / seconds } else { 0.0 };
    let suite = session.suite().unwrap_or("a cipher suite that is not known");
    format!(
        "{bytes} bytes went through\npeer      {} at {}/udp\ncipher    {suite}, TLS 1.3\nbytes     \
         {bytes} ({})\nchecksum  {:016x} (XXH3-64), the same at both ends\ntime      {seconds:.3} s, \
         {}/s",
        session.peer().host(),
        session.remote_address(),
        BinaryBytes(bytes),
        writer.checksum(),
        BinaryBytes(rate as u64)
    )
}
