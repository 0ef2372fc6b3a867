//! Programs, started on hosts of a lab or on this machine, with what goes in and comes out.

pub(crate) mod cores;
mod flow;
mod process;
pub(crate) mod stop;
mod sys;

pub(crate) use flow::{Arrivals, Outlet, feed};
pub(crate) use process::{Exit, Process, Ready, Site, find, wait_for_port};
