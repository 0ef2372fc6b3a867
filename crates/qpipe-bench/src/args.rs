//! The command line.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    carrier::{self, Carrier, qpipe, quinn, yamux},
    compare, measure,
    run::cores,
};

/// Measures qpipe, and other programs in the same way.
#[derive(Parser)]
struct Args {
    /// Where keys and certificates are, which both ends need
    #[arg(long, global = true, env = "QPIPE_BENCH_STATE", default_value = "target/bench/state")]
    state: PathBuf,
    /// Memory of a qpipe node, in MiB
    #[arg(long, global = true, default_value_t = 256)]
    memory: u64,
    /// Threads of the runtime; 0 is the calling one [default: 0 for qpipe, one per core for others]
    #[arg(long, global = true)]
    threads: Option<usize>,
    /// Keep the near end on the first processor and the far end on the last, as on two hosts
    #[arg(long, global = true)]
    apart: bool,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Measures qpipe and every peer there is, side by side
    Compare(compare::Options),
    /// The far end of what is measured, until SIGTERM
    Serve { carrier: Kind, address: SocketAddr },
    /// One stream to standard output (quinn, yamux)
    Listen { carrier: Kind, address: SocketAddr },
    /// Standard input to one stream (quinn, yamux)
    Send { carrier: Kind, address: SocketAddr },
    /// Pipes that are all busy: what they carry together
    Busy {
        #[command(flatten)]
        ends: Ends,
        #[arg(long, default_value_t = 1)]
        pipes: usize,
        #[command(flatten)]
        times: Times,
    },
    /// Short pipes: how many a second
    Many {
        #[command(flatten)]
        ends: Ends,
        #[arg(long, default_value_t = 10_000)]
        pipes: u64,
        #[arg(long, default_value_t = 1024)]
        bytes: usize,
        #[arg(long, default_value_t = 50)]
        at_once: usize,
    },
    /// 64-byte messages every 10 ms and back, beside a bulk pipe
    Echo {
        #[command(flatten)]
        ends: Ends,
        /// Without a bulk pipe
        #[arg(long)]
        alone: bool,
        #[command(flatten)]
        times: Times,
    },
    /// The same through two commands of a shell: one that sends back, one that takes all it gets
    EchoThrough {
        #[arg(long)]
        echo: String,
        #[arg(long)]
        bulk: Option<String>,
        #[command(flatten)]
        times: Times,
    },
    /// Idle pipes: memory of each, at both ends (qpipe)
    Idle {
        #[command(flatten)]
        ends: Ends,
        #[arg(long, default_value_t = 100_000)]
        pipes: usize,
    },
    /// A node that starts and ends (qpipe): how long that takes
    Start,
}

/// What is measured, and where its far end is.
#[derive(clap::Args)]
struct Ends {
    carrier: Kind,
    /// Where `serve` runs [default: one is started, over loopback]
    #[arg(long)]
    to: Option<SocketAddr>,
}

#[derive(clap::Args, Clone, Copy)]
struct Times {
    /// How long it runs before it is measured
    #[arg(long, value_parser = humantime::parse_duration, default_value = "1s")]
    warmup: Duration,
    /// How long it is measured
    #[arg(long, value_parser = humantime::parse_duration, default_value = "5s")]
    time: Duration,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Kind {
    Qpipe,
    Quinn,
    Yamux,
}

/// The program.
pub(crate) fn main() -> ExitCode {
    match Args::parse().run() {
        Ok(Some(result)) => println!("{result}"),
        Ok(None) => {}
        Err(error) => {
            eprintln!("qpipe-bench: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

impl Args {
    fn run(self) -> Result<Option<Value>> {
        let start = Instant::now();
        if let Verb::Compare(options) = &self.command {
            return compare::compare(options, &self.state).map(|()| None);
        }
        if let Verb::EchoThrough { echo, bulk, times } = &self.command {
            let Times { warmup, time } = *times;
            return measure::through::through(echo, bulk.as_deref(), warmup, time).map(Some);
        }
        carrier::make_certificate(&self.state)?;
        let runtime = self.runtime()?;
        let result = runtime.block_on(async {
            match &self.command {
                Verb::Start => {
                    qpipe::start_and_end(&self.state).await?;
                    Ok(Some(json!({ "start_ms": start.elapsed().as_secs_f64() * 1e3 })))
                }
                Verb::Serve { carrier, address } => self.serve(*carrier, *address).await,
                Verb::Listen { carrier, address } => match carrier {
                    Kind::Quinn => quinn::listen(&self.state, *address).await.map(|()| None),
                    Kind::Yamux => yamux::listen(&self.state, *address).await.map(|()| None),
                    Kind::Qpipe => bail!("that is what `qpipe recv` is for"),
                },
                Verb::Send { carrier, address } => match carrier {
                    Kind::Quinn => quinn::send(&self.state, *address).await.map(|()| None),
                    Kind::Yamux => yamux::send(&self.state, *address).await.map(|()| None),
                    Kind::Qpipe => bail!("that is what `qpipe send` is for"),
                },
                _ => self.measure().await.map(Some),
            }
        });
        runtime.shutdown_background();
        result
    }

    fn runtime(&self) -> Result<tokio::runtime::Runtime> {
        let is_qpipe = match &self.command {
            Verb::Serve { carrier, .. } => *carrier == Kind::Qpipe,
            Verb::Start => true,
            _ => self.ends().is_some_and(|ends| ends.carrier == Kind::Qpipe),
        };
        let mut builder = match (self.threads, is_qpipe) {
            (Some(0), _) | (None, true) => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        if is_qpipe {
            builder.event_interval(::qpipe::EVENT_INTERVAL);
            builder.global_queue_interval(::qpipe::WAKE_INTERVAL);
        }
        if let Some(threads @ 1..) = self.threads {
            builder.worker_threads(threads);
        }
        Ok(builder.enable_all().build()?)
    }

    fn ends(&self) -> Option<&Ends> {
        match &self.command {
            Verb::Busy { ends, .. }
            | Verb::Echo { ends, .. }
            | Verb::Idle { ends, .. }
            | Verb::Many { ends, .. } => Some(ends),
            _ => None,
        }
    }

    async fn serve(&self, carrier: Kind, address: SocketAddr) -> Result<Option<Value>> {
        if self.apart {
            cores::keep_to(cores::first_and_last()?.1)?;
        }
        // It leaves through `main`, where a build that counts what it does (bench/pgo.sh) writes that down.
        let mut told_to_end = signal(SignalKind::terminate())?;
        tokio::select! {
            ended = async {
                match carrier {
                    Kind::Qpipe => qpipe::serve(&self.state, self.memory << 20, address).await,
                    Kind::Quinn => quinn::serve(&self.state, address).await,
                    Kind::Yamux => yamux::serve(&self.state, address).await,
                }
            } => ended?,
            _ = told_to_end.recv() => {}
        }
        Ok(None)
    }

    async fn measure(&self) -> Result<Value> {
        let ends = self.ends().context("nothing to measure")?;
        let far = match ends.to {
            Some(to) => Far { to, child: None },
            None => Far::start(self, ends.carrier)?,
        };
        if self.apart {
            // Only now: the far end inherits it.
            cores::keep_to(cores::first_and_last()?.0)?;
        }
        match ends.carrier {
            Kind::Qpipe => {
                let near = qpipe::Near::dial(&self.state, self.memory << 20, far.to).await?;
                let mut result = match &self.command {
                    Verb::Idle { pipes, .. } => measure::idle::idle(&near, *pipes).await?,
                    _ => self.measure_over(near.clone()).await?,
                };
                if let Some(connection) = near.connection() {
                    result["rtt_ms"] = (connection.rtt.as_secs_f64() * 1e3).into();
                    result["datagram_bytes"] = connection.mtu.into();
                    result["lost_packets"] = connection.lost_packets.into();
                }
                near.close().await;
                Ok(result)
            }
            Kind::Quinn => {
                let near = quinn::Near::dial(&self.state, far.to).await?;
                let result = self.measure_over(near.clone()).await;
                near.close().await;
                result
            }
            Kind::Yamux => self.measure_over(yamux::Near::dial(&self.state, far.to).await?).await,
        }
    }

    async fn measure_over<C: Carrier>(&self, carrier: C) -> Result<Value> {
        match &self.command {
            Verb::Busy { pipes, times, .. } => {
                measure::busy::busy(carrier, *pipes, times.warmup, times.time).await
            }
            Verb::Many { pipes, bytes, at_once, .. } => {
                measure::many::many(carrier, *pipes, *bytes, *at_once).await
            }
            Verb::Echo { alone, times, .. } => {
                measure::echo::echo(carrier, !alone, times.warmup, times.time).await
            }
            _ => bail!("only qpipe can do that"),
        }
    }
}

/// The far end, which ends with this if it was started by it.
struct Far {
    to: SocketAddr,
    child: Option<Child>,
}

impl Far {
    fn start(args: &Args, carrier: Kind) -> Result<Far> {
        // The port of a socket that is closed again; nobody else asks for it in the meantime.
        let to = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
        let name = carrier.to_possible_value().context("no name")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", name.get_name(), &to.to_string()]);
        command.arg("--state").arg(&args.state).arg("--memory").arg(args.memory.to_string());
        if args.apart {
            command.arg("--apart");
        }
        if let Some(threads) = args.threads {
            command.arg("--threads").arg(threads.to_string());
        }
        let far = Far { to, child: Some(command.stdin(Stdio::null()).spawn()?) };
        crate::run::wait_for_port(far.child.as_ref().map(Child::id), to.port())?;
        Ok(far)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
            let _ = child.wait();
        }
    }
}
