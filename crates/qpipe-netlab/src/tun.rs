//! TUN devices. Since no offload is negotiated, the kernel cuts TSO and GSO packets to the MTU and
//! fills in all checksums before it hands them over.

use std::{
    fs::{File, OpenOptions},
    os::fd::{AsFd, BorrowedFd},
    os::unix::fs::OpenOptionsExt,
};

use anyhow::{Context, Result};
use rustix::{fs::OFlags, io::Errno};

use crate::{netns::Netns, sys};

/// A network device whose packets this process reads and writes.
pub(crate) struct Tun {
    file: File,
}

impl Tun {
    /// Creates the device `name` in a namespace; it vanishes when this is dropped.
    pub(crate) fn create(netns: &Netns, name: &str) -> Result<Self> {
        let file = netns.enter(|| {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(OFlags::NONBLOCK.bits() as i32)
                .open("/dev/net/tun")
                .context("/dev/net/tun")?;
            sys::make_tun(&file, name).context("TUNSETIFF")?;
            Ok(file)
        })?;
        Ok(Self { file })
    }

    /// Reads one packet that the host sends; `AGAIN` if there is none.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::read(&self.file, buffer)
    }

    /// Has the host receive one packet.
    pub(crate) fn write(&self, packet: &[u8]) -> Result<(), Errno> {
        rustix::io::write(&self.file, packet).map(drop)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
