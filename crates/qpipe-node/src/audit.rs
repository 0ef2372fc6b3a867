//! The audit log: one line for every grant and every refusal. Never a secret.

use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use qpipe_proto::Fingerprint;
use qpipe_proto::ticket::TICKET_PREFIX;

use crate::disk::{self, PRIVATE_FILE_MODE};

/// The log is set aside as `audit.log.1` when the next line would make it larger, in bytes: both
/// together hold some 60,000 events, and a peer that is refused for ever cannot fill a disk.
pub const AUDIT_FILE_BYTES_MAX: u64 = 8 << 20;

/// A field is cut after this many characters: peers choose some of the text.
pub const AUDIT_FIELD_CHARS_MAX: usize = 300;

/// The last second that has a four-digit year, 9999-12-31T23:59:59Z, in seconds since 1970.
const TIME_UNIX_S_MAX: u64 = 253_402_300_799;

/// One grant or refusal. Text may come from a peer as it is: the log cleans it. Name an invitation
/// or a ticket by what it grants, never by its text.
#[derive(Clone, Copy, Debug)]
pub struct AuditEntry<'a> {
    /// When it happened.
    pub time: SystemTime,
    /// What the peer wanted: `send`, `recv`, `join`, `hello`, …
    pub verb: &'a str,
    /// The peer's key, if it proved one.
    pub peer: Option<&'a Fingerprint>,
    /// What the user calls the peer, if the user does.
    pub name: Option<&'a str>,
    /// Where the peer is; none for this host itself.
    pub remote: Option<SocketAddr>,
    /// With what: the pipe's name, or what an invitation grants.
    pub what: &'a str,
    /// What came of it.
    pub outcome: Outcome,
    /// Why: the rule, the invitation, the reason of a refusal.
    pub cause: &'a str,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was allowed.
    Granted,
    /// It was not.
    Refused,
}

impl fmt::Display for AuditEntry<'_> {
    /// The line, without its newline. Characters that a terminal or a reader could be fooled by are
    /// escaped, so a line is always one line and a quote always ends a field.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since_epoch = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let shown = since_epoch.min(Duration::from_secs(TIME_UNIX_S_MAX));
        write!(f, "{}", humantime::format_rfc3339_millis(UNIX_EPOCH + shown))?;
        let outcome = match self.outcome {
            Outcome::Granted => "granted",
            Outcome::Refused => "refused",
        };
        field(f, "verb", Some(self.verb))?;
        field(f, "peer", self.peer)?;
        field(f, "name", self.name)?;
        field(f, "remote", self.remote)?;
        field(f, "what", Some(self.what))?;
        field(f, "outcome", Some(outcome))?;
        field(f, "cause", Some(self.cause))
    }
}

/// The file that the entries go to. Several processes may append to it at the same time.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
}

impl AuditLog {
    /// The log in the file `path`, which the first entry makes (mode 0600).
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Appends one line, after setting a full file aside.
    ///
    /// # Errors
    /// If the line could not be written whole. What was granted or refused is not undone by that:
    /// report it once and go on.
    pub fn record(&self, entry: &AuditEntry<'_>) -> Result<(), AuditError> {
        let line = format!("{entry}\n");
        self.append(&line).map_err(|cause| AuditError { path: self.path.clone(), cause })
    }

    fn append(&self, line: &str) -> io::Result<()> {
        let mut file = self.open()?;
        if file.metadata()?.len() + line.len() as u64 > AUDIT_FILE_BYTES_MAX {
            self.rotate(line.len() as u64)?;
            file = self.open()?;
        }
        // One write to a file that appends: lines of several processes do not mix.
        file.write_all(line.as_bytes())
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(PRIVATE_FILE_MODE).open(&self.path)
    }

    fn rotate(&self, wanted_bytes: u64) -> io::Result<()> {
        let _lock = disk::lock_for(&self.path)?;
        // Another process may have done it meanwhile, and twice would lose a whole file.
        match fs::metadata(&self.path) {
            Ok(found) if found.len() + wanted_bytes > AUDIT_FILE_BYTES_MAX => {}
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut older = self.path.clone().into_os_string();
        older.push(".1");
        fs::rename(&self.path, older)
    }
}

/// Why a line is missing in the audit log.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to the audit log {}: {cause}", path.display())]
pub struct AuditError {
    /// The log.
    pub path: PathBuf,
    /// What the system said.
    pub cause: io::Error,
}

fn field(f: &mut fmt::Formatter<'_>, key: &str, value: Option<impl ToString>) -> fmt::Result {
    let Some(value) = value.map(|value| value.to_string()) else {
        return write!(f, " {key}=-");
    };
    write!(f, " {key}=\"")?;
    for (n, c) in without_tickets(&value).chars().enumerate() {
        if n == AUDIT_FIELD_CHARS_MAX {
            f.write_char('…')?;
            break;
        }
        if c == '"' || c == '\\' || c.is_control() || is_invisible(c) {
            write!(f, "{}", c.escape_default())?;
        } else {
            f.write_char(c)?;
        }
    }
    f.write_char('"')
}

/// The second line of defence against a secret in the log: what follows the beginning of a ticket
/// is left out.
fn without_tickets(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut kept = String::with_capacity(text.len());
    let mut from = 0;
    while let Some(at) = lower[from..].find(TICKET_PREFIX) {
        let body = from + at + TICKET_PREFIX.len();
        let length = lower[body..].bytes().take_while(u8::is_ascii_alphanumeric).count();
        kept.push_str(&text[from..body]);
        kept.push_str(if length > 0 { "…" } else { "" });
        from = body + length;
    }
    kept + &text[from..]
}

/// Characters that are no controls, but break lines, reorder text or show as nothing.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: &str = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn entry<'a>() -> AuditEntry<'a> {
        AuditEntry {
            time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_125),
            verb: "send",
            peer: None,
            name: None,
            remote: None,
            what: "inbox/x",
            outcome: Outcome::Refused,
            cause: "no rule",
        }
    }

    fn log() -> (tempfile::TempDir, AuditLog) {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::new(dir.path().join("audit.log"));
        (dir, log)
    }

    #[test]
    fn line_tells_when_who_what_and_why() {
        let key: Fingerprint = KEY.parse().unwrap();
        let entry = AuditEntry {
            peer: Some(&key),
            name: Some("alice"),
            remote: Some("[2001:db8::1]:4242".parse().unwrap()),
            outcome: Outcome::Granted,
            cause: "rule send:inbox/*",
            ..entry()
        };

        assert_eq!(
            entry.to_string(),
            format!(
                "2023-11-14T22:13:20.125Z verb=\"send\" peer=\"{KEY}\" name=\"alice\" \
                 remote=\"[2001:db8::1]:4242\" what=\"inbox/x\" outcome=\"granted\" \
                 cause=\"rule send:inbox/*\""
            )
        );
    }

    #[test]
    fn unknown_fields_are_dashes() {
        assert_eq!(
            entry().to_string(),
            "2023-11-14T22:13:20.125Z verb=\"send\" peer=- name=- remote=- what=\"inbox/x\" \
             outcome=\"refused\" cause=\"no rule\""
        );
    }

    #[test]
    fn text_of_a_peer_cannot_forge_lines_fields_or_colours() {
        let what = "x\" outcome=\"granted\"\n2023 \u{1b}[2J\u{202e}\\ é";

        let line = AuditEntry { what, ..entry() }.to_string();

        let cleaned = "what=\"x\\\" outcome=\\\"granted\\\"\\n2023 \\u{1b}[2J\\u{202e}\\\\ é\" out";
        assert!(line.contains(cleaned), "{line}");
        assert!(!line.chars().any(char::is_control));
    }

    #[test]
    fn long_text_is_cut() {
        let what = "é".repeat(AUDIT_FIELD_CHARS_MAX + 1);

        let line = AuditEntry { what: &what, ..entry() }.to_string();

        assert!(line.contains("é…\""));
        assert_eq!(line.matches('é').count(), AUDIT_FIELD_CHARS_MAX);
    }

    #[test]
    fn ticket_that_slips_in_is_left_out() {
        let line = AuditEntry { cause: "no QPIPE1MFRGG, é qpipe1", ..entry() }.to_string();

        assert!(line.ends_with("cause=\"no QPIPE1…, é qpipe1\""), "{line}");
    }

    #[test]
    fn impossible_times_are_shown_as_the_nearest_possible() {
        let line = |time| AuditEntry { time, ..entry() }.to_string();

        assert!(line(UNIX_EPOCH - Duration::from_secs(1)).starts_with("1970-01-01T00:00:00"));
        let far = UNIX_EPOCH + Duration::from_secs(TIME_UNIX_S_MAX * 2);
        assert!(line(far).starts_with("9999-12-31T23:59:59"));
    }

    #[test]
    fn log_is_private_and_appended_to() {
        let (_dir, log) = log();

        log.record(&entry()).unwrap();
        log.record(&AuditEntry { verb: "recv", ..entry() }).unwrap();

        let text = fs::read_to_string(&log.path).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.ends_with('\n') && text.contains("verb=\"recv\""));
        assert_eq!(fs::metadata(&log.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn full_log_is_set_aside_once_whoever_notices() {
        let (dir, log) = log();
        log.record(&entry()).unwrap();
        let line_bytes = fs::metadata(&log.path).unwrap().len();
        OpenOptions::new()
            .write(true)
            .open(&log.path)
            .and_then(|file| file.set_len(AUDIT_FILE_BYTES_MAX - line_bytes))
            .unwrap();
        let older = dir.path().join("audit.log.1");

        log.record(&entry()).unwrap();
        assert_eq!(fs::metadata(&log.path).unwrap().len(), AUDIT_FILE_BYTES_MAX);
        assert!(!older.exists());

        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| log.record(&entry()).unwrap());
            }
        });
        assert!(fs::metadata(&older).unwrap().len() >= AUDIT_FILE_BYTES_MAX);
        let lines = fs::read_to_string(&log.path).unwrap().lines().count() as u64;
        let late = (fs::metadata(&older).unwrap().len() - AUDIT_FILE_BYTES_MAX) / line_bytes;
        assert_eq!(lines + late, 8);
    }

    #[test]
    fn log_that_another_process_has_just_set_aside_is_kept() {
        let (dir, log) = log();
        log.record(&entry()).unwrap();

        log.rotate(1).unwrap();

        assert!(log.path.exists() && !dir.path().join("audit.log.1").exists());
        fs::remove_file(&log.path).unwrap();
        log.rotate(1).unwrap();
    }

    #[test]
    fn log_that_cannot_be_written_is_an_error_with_its_path() {
        let log = AuditLog::new("/dev/null/audit.log");

        let error = log.record(&entry()).unwrap_err();

        assert!(error.to_string().contains("/dev/null/audit.log"));
    }
}
