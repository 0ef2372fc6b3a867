//! What a program does first that is to outlive whoever started it.

/// Leaves what this process has from whoever started it: the terminal, so that neither Ctrl-C nor its
/// end reaches the process; and file descriptors above 2, which a shell passes on to all that it
/// starts: a node that kept the write end of somebody's pipe would keep its reader from ever seeing
/// the end.
///
/// To be called before anything else in `main`. Where there are such descriptors, this program is
/// executed anew, with the same arguments, since that closes them.
pub fn detach() {
    // Fails where the process leads a group: its shell, or whatever manages services, did the same.
    let _ = rustix::process::setsid();
    #[cfg(target_os = "linux")]
    linux::begin_anew_without_descriptors();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::io;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use rustix::fs::OFlags;

    /// The first descriptor that is not standard input, output or error.
    const FIRST: i32 = 3;

    /// Comes back if there are none, or if it is not possible: then they stay open.
    pub(super) fn begin_anew_without_descriptors() {
        // Without /proc it is unknown, and executing blindly could go on for ever.
        if !inherits().unwrap_or(false) {
            return;
        }
        close_fds::set_fds_cloexec(FIRST, &[]);
        if inherits().unwrap_or(true) {
            return;
        }
        let mut args = std::env::args_os();
        if let (Some(name), Ok(program)) = (args.next(), std::env::current_exe()) {
            // Comes back only with an error, and the node is of use all the same.
            let _ = Command::new(program).arg0(name).args(args).exec();
        }
    }

    /// Whether a descriptor is open that programs which this one executes would get.
    fn inherits() -> io::Result<bool> {
        for entry in fs::read_dir("/proc/self/fdinfo")? {
            let entry = entry?;
            let number = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
            // One that is closed meanwhile, as that of this directory will be, does not matter.
            let Ok(info) = fs::read_to_string(entry.path()) else { continue };
            if number.is_some_and(|number| number >= FIRST) && !closes_on_exec(&info) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a file of `/proc/self/fdinfo` tells that the descriptor closes.
    fn closes_on_exec(info: &str) -> bool {
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok());
        flags.is_none_or(|flags| flags & OFlags::CLOEXEC.bits() != 0)
    }

    #[cfg(test)]
    mod tests {
        use super::closes_on_exec;

        #[test]
        fn flag_is_found_among_the_others() {
            assert!(closes_on_exec("pos:\t0\nflags:\t02100000\nmnt_id:\t9\n"));
            assert!(!closes_on_exec("pos:\t0\nflags:\t0100002\nmnt_id:\t9\n"));
            assert!(closes_on_exec("of another kernel"));
        }
    }
}
