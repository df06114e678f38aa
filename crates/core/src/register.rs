//! The register's thread: makes records of the quorum machine durable, one after the other.
//!
//! **Invariant.** After the first failed write no record is written any more in this run, because the content of the disk is
//! unknown after a failed `fsync`.

use crate::quorum_handle::QuorumHandle;
use dyad_control::chain;
use dyad_provision::register::RegisterFiles;
use dyad_quorum::{AcceptorRecord, Event, WriteToken};
use std::sync::mpsc::{Sender, channel};

/// Sends records to the register's thread.
pub struct Register(Sender<(WriteToken, AcceptorRecord)>);

impl Register {
    /// Starts the thread. It reports the result of each write to the quorum thread.
    pub fn start(mut files: RegisterFiles, quorum_thread: QuorumHandle) -> Self {
        let (sender, records) = channel::<(WriteToken, AcceptorRecord)>();
        let run = move || {
            let mut failed = false;
            for (token, record) in records {
                if !failed && let Err(e) = files.write(&record) {
                    failed = true;
                    tracing::error!(error = chain(&e), "the register cannot be written");
                }
                quorum_thread.tell(if failed { Event::PersistFailed { token } } else { Event::Persisted { token } });
            }
        };
        std::thread::Builder::new()
            .name("register".into())
            .spawn(run)
            .expect("the system can start a thread at start-up");
        Self(sender)
    }

    /// Has a record written and synced. The quorum thread then gets `Persisted` or `PersistFailed` with this token.
    pub fn save(&self, token: WriteToken, record: AcceptorRecord) {
        let _ = self.0.send((token, record));
    }
}
