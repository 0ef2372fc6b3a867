//! Which cipher suite a dial ended up with.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::KeyLog;

use super::PROVIDER;

/// Learns a connection's cipher suite, which quinn does not tell.
///
/// It sits where a key log would, but keeps no secret: only how long it is.
///
/// That is enough between nodes of qpipe. Of the three suites two hash with SHA-256 (secrets of
/// 32 bytes) and one with SHA-384 (48 bytes), so the length alone leaves two to choose from. But
/// the server follows the client's order and knows all three, so it takes the first one offered,
/// and of two suites with the same hash the one that was offered first is never passed over for
/// the other.
#[derive(Debug, Default)]
pub struct SuiteProbe {
    /// 0 until the secret of the connection's data was made.
    secret_bytes: AtomicUsize,
}

impl SuiteProbe {
    /// The suite's name, such as `TLS13_AES_128_GCM_SHA256`; `None` before the handshake.
    pub fn suite(&self) -> Option<&'static str> {
        let secret_bytes = self.secret_bytes.load(Ordering::Relaxed);
        let hashes_to = |suite: &&rustls::SupportedCipherSuite| {
            suite
                .tls13()
                .is_some_and(|suite| suite.common.hash_provider.output_len() == secret_bytes)
        };
        PROVIDER.cipher_suites.iter().find(hashes_to)?.suite().as_str()
    }
}

impl KeyLog for SuiteProbe {
    fn log(&self, _label: &str, _client_random: &[u8], secret: &[u8]) {
        self.secret_bytes.store(secret.len(), Ordering::Relaxed);
    }

    fn will_log(&self, label: &str) -> bool {
        label == "CLIENT_TRAFFIC_SECRET_0"
    }
}
