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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quorum_handle::{self, QuorumInput};
    use dyad_link::beacon::{self, Beacon};
    use dyad_link::{PairId, PairKey};
    use dyad_quorum::slots::RegisterId;
    use dyad_types::NodeId;
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    use std::os::fd::AsRawFd;
    use std::sync::mpsc::Receiver;
    use std::time::Duration;

    /// The result of a write, for the quorum machine.
    fn told(inputs: &Receiver<QuorumInput>) -> Event {
        match inputs.recv_timeout(Duration::from_secs(30)) {
            Ok(QuorumInput::Quorum(event)) => event,
            other => panic!("{other:?}"),
        }
    }

    /// The quorum machine sends its vote when it is told that the record is written.
    #[test]
    fn a_record_counts_as_written_only_after_the_write_has_succeeded() {
        let config = beacon::BeaconConfig { pair: PairId(7), node: NodeId::A, key: PairKey([0; 32]), port: 0 };
        let beacon = Beacon::open(&config, Vec::new()).expect("a beacon without paths needs no network");
        let (quorum_thread, inputs) = quorum_handle::queue(beacon.waker());
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        // The second file is in memory, so that a seal can make its writes fail.
        let sealed = memfd_create("register", MemfdFlags::ALLOW_SEALING).unwrap();
        let link = format!("/proc/{}/fd/{}", std::process::id(), sealed.as_raw_fd());
        std::os::unix::fs::symlink(link, dyad_provision::register::path(dirs[1].path())).unwrap();
        let (paths, id) = ([dirs[0].path(), dirs[1].path()], RegisterId { pair: 7, node: NodeId::A });
        let record = AcceptorRecord::first_node(NodeId::A, 3);
        RegisterFiles::create(paths, id, &record).unwrap();
        let (files, _) = RegisterFiles::open(paths, id).unwrap();
        let register = Register::start(files, quorum_thread);
        register.save(WriteToken(1), record.clone());
        assert_eq!(told(&inputs), Event::Persisted { token: WriteToken(1) });
        fcntl_add_seals(&sealed, SealFlags::WRITE).unwrap();
        for token in [WriteToken(2), WriteToken(3)] {
            register.save(token, record.clone());
            assert_eq!(told(&inputs), Event::PersistFailed { token });
        }
    }
}
