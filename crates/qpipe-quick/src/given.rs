//! What a process is given at its start: arguments and environment.

use core::ffi::{CStr, c_char};

use crate::buffer::Buffer;

/// Room for a socket's path and the byte that ends it (`sun_path` of unix(7)).
pub(crate) const PATH_BYTES: usize = 108;

/// The path of a socket, without the byte that ends it.
pub(crate) type Path = Buffer<{ PATH_BYTES - 1 }>;

/// The strings of a list of pointers that a null pointer ends.
pub(crate) struct Strings {
    next: *const *const u8,
}

impl Strings {
    /// # Safety
    /// The list and its strings are valid as long as the process lives, and nobody changes them.
    pub(crate) unsafe fn new(list: *const *const u8) -> Strings {
        Strings { next: list }
    }
}

impl Iterator for Strings {
    type Item = &'static [u8];

    fn next(&mut self) -> Option<&'static [u8]> {
        // SAFETY: the list is valid up to its null pointer, which is never passed.
        let string = unsafe { *self.next };
        if string.is_null() {
            return None;
        }
        // SAFETY: as above; and the string ends with a byte of 0 and stays as it is.
        unsafe {
            self.next = self.next.add(1);
            Some(CStr::from_ptr(string.cast::<c_char>()).to_bytes())
        }
    }
}

/// What of the environment says where the node of this host listens, or that it is not wanted.
#[derive(Default)]
pub(crate) struct Environment<'a> {
    /// `QPIPE_DIRECT` or `QPIPE_LOG`: something else than the plain case is wanted.
    is_special: bool,
    qpipe_home: Option<&'a [u8]>,
    runtime_dir: Option<&'a [u8]>,
    state_home: Option<&'a [u8]>,
    home: Option<&'a [u8]>,
}

impl<'a> Environment<'a> {
    /// Reads `NAME=VALUE`. Of several with one name the first counts, as for getenv(3); an empty one
    /// counts as none.
    pub(crate) fn of(entries: impl Iterator<Item = &'a [u8]>) -> Environment<'a> {
        let mut found = Environment::default();
        for entry in entries {
            let value = |name: &[u8]| entry.strip_prefix(name)?.strip_prefix(b"=");
            let places = [
                (&b"QPIPE_HOME"[..], &mut found.qpipe_home),
                (b"XDG_RUNTIME_DIR", &mut found.runtime_dir),
                (b"XDG_STATE_HOME", &mut found.state_home),
                (b"HOME", &mut found.home),
            ];
            for (name, place) in places {
                *place = place.or_else(|| value(name));
            }
            for name in [&b"QPIPE_DIRECT"[..], b"QPIPE_LOG"] {
                found.is_special |= value(name).is_some_and(|value| !value.is_empty());
            }
        }
        found
    }

    /// Where the node may listen, the likelier place first: as `Home::from_env` of qpipe-node says.
    /// None if that is for `qpipe` to find out.
    pub(crate) fn sockets(&self) -> Option<[Option<Path>; 2]> {
        let absolute = |dir: Option<&'a [u8]>| dir.filter(|dir| dir.starts_with(b"/"));
        let path = |parts: [&[u8]; 3]| {
            let mut path = Path::new();
            for part in parts {
                path.push(part);
            }
            path.whole().is_some().then_some(path)
        };
        if self.is_special {
            return None;
        }
        if let Some(dir) = self.qpipe_home.filter(|dir| !dir.is_empty()) {
            return Some([Some(path([dir, b"", b"/node.sock"])?), None]);
        }
        let home = absolute(self.home)?;
        let state = match absolute(self.state_home) {
            Some(dir) => path([dir, b"", b"/qpipe/node.sock"])?,
            None => path([home, b"/.local/state", b"/qpipe/node.sock"])?,
        };
        match absolute(self.runtime_dir) {
            Some(dir) => Some([Some(path([dir, b"", b"/qpipe/node.sock"])?), Some(state)]),
            None => Some([Some(state), None]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(entries: &[&str]) -> Option<Vec<String>> {
        let environment = Environment::of(entries.iter().map(|entry| entry.as_bytes()));
        let paths = environment.sockets()?;
        let text = |path: &Path| String::from_utf8(path.whole().unwrap().to_vec()).unwrap();
        Some(paths.iter().flatten().map(text).collect())
    }

    #[test]
    fn sockets_are_where_nodes_listen() {
        let of = |entries: &[&str], paths: &[&str]| {
            let paths = paths.iter().map(|path| (*path).to_owned()).collect();
            assert_eq!(sockets(entries), Some(paths), "{entries:?}");
        };
        of(&["HOME=/h", "QPIPE_HOME=q"], &["q/node.sock"]);
        of(&["HOME=/h"], &["/h/.local/state/qpipe/node.sock"]);
        of(
            &["XDG_RUNTIME_DIR=/run/user/7", "HOME=/h", "QPIPE_HOME=", "XDG_STATE_HOME=/s"],
            &["/run/user/7/qpipe/node.sock", "/s/qpipe/node.sock"],
        );
        of(
            &["HOME=/h", "XDG_RUNTIME_DIR=run", "XDG_STATE_HOME=", "HOME=/other", "HOMER=x"],
            &["/h/.local/state/qpipe/node.sock"],
        );
    }

    #[test]
    fn what_is_not_plain_is_left_to_qpipe() {
        let long = format!("QPIPE_HOME=/{}", "x".repeat(PATH_BYTES));
        for entries in [
            &["QPIPE_HOME=/q", "QPIPE_DIRECT=1"][..],
            &["QPIPE_LOG=debug", "HOME=/h"],
            &["HOME=h"],
            &[],
            &[&long],
        ] {
            assert_eq!(sockets(entries), None, "{entries:?}");
        }
        assert!(sockets(&["HOME=/h", "QPIPE_DIRECT="]).is_some());
    }

    #[test]
    fn strings_end_where_their_list_does() {
        let texts = [c"a", c"", c"bc"];
        let mut list: Vec<*const u8> = texts.iter().map(|text| text.as_ptr().cast()).collect();
        list.push(std::ptr::null());

        // SAFETY: the list ends with a null pointer and outlives the iterator.
        let strings: Vec<_> = unsafe { Strings::new(list.as_ptr()) }.collect();

        assert_eq!(strings, [&b"a"[..], b"", b"bc"]);
    }
}
