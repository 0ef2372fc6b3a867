//! `qpipe node`: the node that commands of this host share, which they start themselves.

use std::{sync::Arc, time::Duration};

use qpipe::NodeOptions;
use qpipe_node::{
    Config, SharedNode, Stopping,
    local::{Listener, LocalError},
};
use signal_hook::consts::SIGHUP;

use crate::{
    args::NodeArgs, commands::allow_descriptors, exit::Exit, host::ThisHost, pipes::keep_certified,
    say, signals::Signals, silence,
};

/// How long it stays without anything to do, unless config.toml says otherwise.
const LINGER: Duration = Duration::from_secs(60);

/// How long pipes that are open may go on when a signal ends the node.
const GRACE: Duration = Duration::from_secs(10);

/// How long peers may take to hear that the node ends, and how long at least.
const FAREWELL: Duration = Duration::from_secs(3);
const FAREWELL_LEAST: Duration = Duration::from_millis(500);

/// Runs until nobody needs it any more.
///
/// # Errors
/// It cannot start.
pub(crate) async fn run(args: NodeArgs) -> anyhow::Result<Exit> {
    allow_descriptors();
    let mut signals = Signals::listen()?;
    let this = ThisHost::load()?;
    let home = this.home()?;
    let listener = match Listener::bind(home) {
        Ok(listener) => listener,
        // Another command was faster.
        Err(LocalError::Live { .. }) => return Ok(Exit::Success),
        Err(error) => return Err(error.into()),
    };
    let linger = args.linger.or(this.config.node.linger).unwrap_or(LINGER);
    let options = NodeOptions {
        memory: this.memory(args.bounds.memory),
        patience: this.patience(args.bounds.waiting, qpipe_node::GIVE_UP),
        ..NodeOptions::default()
    };
    let identity = this.identity()?.process()?;
    let shared = SharedNode::start(home.clone(), identity.clone(), options)?;
    tokio::spawn(keep_certified(shared.node().clone(), this.identity()?.clone(), identity));
    let stopping = tokio::select! {
        stopping = shared.run(&listener) => stopping,
        () = shared.unused_for(linger) => Stopping::Retired,
        () = tell_notices(&shared, &this.config) => Stopping::Retired,
        () = told_to_end(&mut signals) => Stopping::Within(GRACE),
    };
    // Whoever comes from now on starts another one.
    drop(listener);
    if stopping == Stopping::Retired {
        shared.closed();
    }
    tokio::select! {
        () = end(&shared, stopping) => {}
        () = told_to_end(&mut signals) => end(&shared, Stopping::Within(Duration::ZERO)).await,
        () = async {
            tell_notices(&shared, &this.config).await;
            // It is closed, and about to end.
            std::future::pending().await
        } => {}
    }
    Ok(Exit::Success)
}

/// Waits for a signal that ends the node. It has no terminal that could hang up.
async fn told_to_end(signals: &mut Signals) {
    while signals.next().await == SIGHUP {}
}

/// Lets what is open come to its end, as far as there is time, and cuts the rest.
async fn end(shared: &Arc<SharedNode>, stopping: Stopping) {
    match stopping {
        Stopping::Retired => {
            shared.idle().await;
            shared.node().close_patiently(FAREWELL).await;
        }
        Stopping::Within(within) => {
            let cut = shared.finish(within).await;
            if cut > 0 {
                say::error(format_args!("cut {cut} pipes that had not ended"));
            }
            // Whoever wants it ended does not want to wait for peers that are away.
            shared.node().close(within.clamp(FAREWELL_LEAST, FAREWELL)).await;
        }
    }
    shared.over().await;
}

/// Tells programs that wait for a peer what becomes of it, until the node is closed.
async fn tell_notices(shared: &SharedNode, config: &Config) {
    while let Some(notice) = shared.node().next_notice().await {
        shared.tell(&notice, &silence::name(&notice, config));
    }
}
