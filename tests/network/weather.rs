//! Faults that come again and again while something else goes on.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use qpipe_netlab::Lab;

/// When a command was given and when it had taken effect.
pub struct Change {
    pub began: Instant,
    pub over: Instant,
}

/// A thread that changes a lab, until this is dropped.
pub struct Weather {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<Vec<Change>>>,
}

impl Weather {
    /// Executes a command after each `period`.
    pub fn every(period: Duration, lab: &Arc<Lab>, command: &'static str) -> Weather {
        Weather::cycle(lab, vec![(period, command)])
    }

    /// Waits and executes, over and over.
    pub fn cycle(lab: &Arc<Lab>, steps: Vec<(Duration, &'static str)>) -> Weather {
        let (stop, stopped) = channel();
        let lab = lab.clone();
        let thread = thread::spawn(move || change(&lab, &steps, &stopped));
        Weather { stop: Some(stop), thread: Some(thread) }
    }

    /// Ends it; returns what it did.
    pub fn end(mut self) -> Vec<Change> {
        self.stop = None;
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Weather {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn change(lab: &Lab, steps: &[(Duration, &str)], stopped: &Receiver<()>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (time, command) in steps.iter().cycle() {
        if stopped.recv_timeout(*time) != Err(RecvTimeoutError::Timeout) {
            break;
        }
        let began = Instant::now();
        lab.control(command).unwrap();
        changes.push(Change { began, over: Instant::now() });
    }
    changes
}
