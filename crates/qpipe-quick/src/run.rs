//! From the first instruction of the process to its end.

use syscalls::Errno;

use crate::{
    End,
    buffer::Buffer,
    event::{Event, first},
    given::{Environment, Strings},
    request::{CONFIRM, is_plain, request},
    system::{self, Fd, STDERR, STDIN, STDOUT},
};

/// How long a pipe may take before `qpipe` takes over, in milliseconds: what it does for those who wait, such
/// as notes and a line of progress, shows only later.
pub const PATIENCE_MS: u64 = 1_000;

/// What is read of the node's events at once. Good news is short.
const EVENTS_BYTES_MAX: usize = 2048;

/// The longest path of an executable (`PATH_MAX` of limits.h).
const PATH_BYTES_MAX: usize = 4096;

/// How far a pipe has come whose process `qpipe` takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It was asked for.
    Asked,
    /// It is open, and the program's descriptor is the node's alone.
    Opened,
    /// Somebody is at its other end.
    Joined,
}

impl Progress {
    /// The option of `qpipe` that says so, as a string that ends with a byte of 0.
    fn option(self) -> &'static [u8] {
        match self {
            Progress::Asked => b"--asked=sent\0",
            Progress::Opened => b"--asked=opened\0",
            Progress::Joined => b"--asked=joined\0",
        }
    }
}

/// What becomes of the process.
enum Next {
    /// It ends with success.
    Done,
    /// `qpipe` does it all.
    Anew,
    /// `qpipe` goes on with what was asked for over this socket.
    GoOn(Fd, Progress),
}

/// Is the program that holds `end`.
///
/// # Safety
/// `stack` is what the kernel gives a new process (the System V ABI, "Process Initialization"): the number of
/// arguments, the arguments, a null pointer, the environment, a null pointer. Nobody else uses it.
pub unsafe fn run(end: End, stack: *mut *const u8) -> ! {
    // SAFETY: the number stands first, the environment behind the null pointer of the arguments.
    let (count, arguments, environment) = unsafe {
        let count = (*stack).addr();
        (count, stack.add(1), stack.add(count + 2).cast_const())
    };
    // SAFETY: both end with a null pointer. They are changed below only when nobody reads them any more.
    let (mut given, entries) =
        unsafe { (Strings::new(arguments.cast_const()), Strings::new(environment)) };
    let target = given.nth(1).filter(|_| count == 2);
    let next = target.map_or(Next::Anew, |target| quick(end, target, &Environment::of(entries)));
    // SAFETY: for the pointers as above.
    unsafe {
        match next {
            Next::Done => system::exit(0),
            Next::GoOn(socket, progress) if hand_over(end, socket, progress).is_ok() => {
                let option = progress.option().as_ptr();
                let arguments = [NAME.as_ptr(), word(end), option, *arguments.add(1), NOTHING];
                be_qpipe(arguments.as_ptr(), environment);
            }
            // What was asked for ends with this socket, as if the process had been killed.
            Next::GoOn(..) => {}
            Next::Anew => {
                // One more argument than before: the place of their number is free.
                *arguments = word(end);
                *stack = NAME.as_ptr();
                be_qpipe(stack.cast_const(), environment);
            }
        }
    }
    let name: &[u8] = if end == End::Send { b"qsend" } else { b"qrecv" };
    let mut text = Buffer::<128>::new();
    text.push(name).push(b": cannot run qpipe, which has to be in the same directory\n");
    system::say(text.whole().unwrap_or_default());
    system::exit(1)
}

/// The name of the command that can do everything, and a string that ends with a byte of 0.
const NAME: &[u8] = b"qpipe\0";

const NOTHING: *const u8 = core::ptr::null();

/// Its subcommand.
fn word(end: End) -> *const u8 {
    let word: &[u8] = match end {
        End::Send => b"send\0",
        End::Recv => b"recv\0",
    };
    word.as_ptr()
}

/// The descriptor that carries the bytes, and the one of the other two that `qpipe` has no need of.
fn descriptors(end: End) -> (Fd, Fd) {
    match end {
        End::Send => (STDIN, STDOUT),
        End::Recv => (STDOUT, STDIN),
    }
}

/// Has the node do the plain case.
fn quick(end: End, target: &[u8], environment: &Environment<'_>) -> Next {
    let (data, _) = descriptors(end);
    // What is not there would be taken for what is opened next.
    let is_whole = [STDIN, STDOUT, STDERR].into_iter().all(system::is_open);
    // People at a terminal are `qpipe`'s to deal with.
    if !is_plain(target) || !is_whole || system::is_terminal(data) {
        return Next::Anew;
    }
    let started = system::now_ms();
    let Some(socket) = environment.sockets().and_then(|[first, second]| {
        first.into_iter().chain(second).find_map(|path| connect(path.whole()?))
    }) else {
        return Next::Anew;
    };
    let request = request(end, target, system::is_terminal(STDERR));
    let request = request.whole().unwrap_or_default();
    match system::send_with(socket, request, data) {
        Ok(sent) if sent == request.len() => {}
        // A node that does not take so little at once, or that has just ended.
        _ => {
            system::close(socket);
            return Next::Anew;
        }
    }
    follow(end, socket, started + PATIENCE_MS)
}

/// A connection to the node of this user that listens there.
fn connect(path: &[u8]) -> Option<Fd> {
    let socket = system::socket().ok()?;
    let is_trusted = |uid| uid == 0 || Some(uid) == system::own_uid();
    let connected = system::connect(socket, path).and_then(|()| system::peer_uid(socket));
    if connected.is_ok_and(is_trusted) {
        return Some(socket);
    }
    system::close(socket);
    None
}

/// Hears what becomes of the pipe.
fn follow(end: End, socket: Fd, deadline: u64) -> Next {
    let (data, _) = descriptors(end);
    let mut progress = Progress::Asked;
    let mut room = [0; EVENTS_BYTES_MAX];
    loop {
        // What `qpipe` is to hear stays where it is.
        let bytes = match system::receive(socket, &mut room, true) {
            Ok(0) if progress == Progress::Asked => {
                // The node has ended: `qpipe` asks another one.
                system::close(socket);
                return Next::Anew;
            }
            Ok(bytes) => bytes,
            Err(Errno::EAGAIN) => {
                let left = deadline.saturating_sub(system::now_ms());
                if left == 0 {
                    return Next::GoOn(socket, progress);
                }
                // Interrupted or late, the next turn finds out.
                let _ = system::wait(socket, left);
                continue;
            }
            Err(_) => 0,
        };
        let heard = room.get(..bytes).and_then(first);
        let Some((json, whole)) = heard else { return Next::GoOn(socket, progress) };
        let event = Event::of(json, end);
        match event {
            Event::Opened if progress == Progress::Asked => progress = Progress::Opened,
            Event::Joined if progress == Progress::Opened => progress = Progress::Joined,
            Event::Eof if progress != Progress::Asked => {}
            Event::Progress => {}
            Event::Done => return Next::Done,
            _ => return Next::GoOn(socket, progress),
        }
        // It is there: it was just seen.
        let _ = room.get_mut(..whole).map(|room| system::receive(socket, room, false));
        match event {
            // This copy would hide the end of a pipe from the programs at its other end.
            Event::Opened => system::close(data),
            // A node that does not hear it has ended, which the next turn finds out.
            Event::Eof => drop(system::send(socket, CONFIRM)),
            _ => {}
        }
    }
}

/// Puts the socket where `qpipe` looks for it, and something in each place that is empty.
fn hand_over(end: End, socket: Fd, progress: Progress) -> Result<(), Errno> {
    let (data, other) = descriptors(end);
    if progress != Progress::Asked {
        system::fill(data)?;
    }
    system::put(socket, other)?;
    system::close(socket);
    Ok(())
}

/// Runs the `qpipe` that lies beside this program. Comes back if there is none.
///
/// # Safety
/// Both lists end with a null pointer, and their strings with a byte of 0.
unsafe fn be_qpipe(arguments: *const *const u8, environment: *const *const u8) {
    let mut room = [0; PATH_BYTES_MAX];
    let Ok(own) = system::own_path(&mut room) else { return };
    let Some(dir) = own.iter().rposition(|byte| *byte == b'/').and_then(|at| own.get(..=at)) else {
        return;
    };
    let mut path = Buffer::<PATH_BYTES_MAX>::new();
    path.push(dir).push(NAME);
    if let Some(path) = path.whole() {
        // SAFETY: the path ends with the byte of the name; for the lists the caller vouches.
        unsafe { system::execute(path.as_ptr(), arguments, environment) };
    }
}
