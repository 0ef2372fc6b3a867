//! Congestion control under test: connections of quinn-proto that share one bottleneck.
//!
//! No part of qpipe's protocol is here: a flow is one connection with one stream that always has
//! something to send, or that sends in bursts. All flows run from host 0 to host 1, through the one
//! link of [`crate::net`].

mod bbr;
mod flow;
mod host;
mod report;
mod run;
mod scene;
mod tables;

pub use flow::Algorithm;
pub use report::{Report, jain};
pub use run::run;
pub use scene::{Change, Demand, FlowPlan, Scene};
pub use tables::{TABLES, Table};

#[cfg(test)]
mod tests;
