//! [`Engine`]: carries out requests of drivers at the backend, in whole blocks and with one change of a block at a
//! time.
//!
//! A *job* is one request of a driver. The engine outlives connections. A job whose ring was stopped is *dead*: its
//! request at the backend runs to its end and its lock is released then, but the job submits no further request and
//! does not touch guest memory.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::error::Error as _;
use std::sync::Arc;

use bytes::BytesMut;
use virtio_bindings::bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP};
use vm_memory::GuestAddress;

use crate::limits::{BLOCK_BYTES, MAX_TRANSFER};
use crate::mailbox::{Mailbox, Part, PartCompletion};
use crate::ranges::RangeLocks;
use crate::vhost_user::job::{Action, Piece, RemainingRequest};
use crate::vhost_user::memory::GuestMemory;
use crate::vhost_user::request::{GuestRequest, Operation};
use crate::{Backend, ReplyTo, Request, RequestResult};

/// Length of the device's serial number in bytes (virtio 5.2.6: VIRTIO_BLK_T_GET_ID).
pub(crate) const SERIAL: usize = 20;

/// Identifies a chain of descriptors that was taken from a ring, so that its answer goes to the same start of that
/// ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChainId {
    /// Number of the ring within the device, from 0.
    pub ring: u16,
    /// Index of the first descriptor of the chain.
    pub head: u16,
    /// Number of the run: the time from one start of the ring to its stop. It is never used again.
    pub run: u64,
}

/// A request whose answer can be given to the driver.
#[derive(Debug)]
pub(crate) struct FinishedRequest {
    pub chain: ChainId,
    /// The status byte, and its address in guest memory.
    pub status: (u8, GuestAddress),
    /// Number of bytes written into the chain, as the used ring reports it.
    pub written: u32,
}

/// One request of a driver, until it is answered or dead and ended.
struct Job {
    chain: ChainId,
    request: GuestRequest,
    memory: Arc<GuestMemory>,
    /// The part of the request that was not cut into pieces yet.
    remaining: RemainingRequest,
    /// Byte offset of the request in the volume. A piece's place in the data is relative to it.
    start: u64,
    /// The piece that is being carried out.
    current: Option<CurrentPiece>,
    /// A flush must complete before the answer, because the driver did not accept FLUSH.
    flush_after: bool,
    /// Bytes that the job's buffers may take.
    buffer_bytes: u64,
}

/// The piece of a job that is being carried out.
struct CurrentPiece {
    piece: Piece,
    /// The data to write, in whole blocks; empty for other actions.
    buffer: BytesMut,
    /// Number of partial blocks whose old content was not read yet.
    old_blocks_left: u8,
    /// A read of old content failed.
    failed: bool,
}

/// Carries out the jobs of one device.
pub(crate) struct Engine {
    backend: Arc<dyn Backend>,
    mailbox: Arc<Mailbox>,
    serial: [u8; SERIAL],
    /// Locks of the blocks that jobs change; the key is the number of the job.
    locks: RangeLocks<u64>,
    /// All jobs that have not ended, by number.
    jobs: HashMap<u64, Job>,
    next_job: u64,
    /// Numbers of the runs of rings that have not ended.
    live_runs: BTreeSet<u64>,
    /// Number of jobs whose run has ended.
    dead_jobs: usize,
    /// Jobs that have got their lock and did not start their change yet.
    lock_granted: VecDeque<u64>,
    finished: Vec<FinishedRequest>,
    /// Bytes that the buffers of all jobs may take.
    buffer_bytes: u64,
    /// The engine is full when `buffer_bytes` reaches this.
    memory_limit: u64,
}

impl Engine {
    /// An engine without jobs. It is full when the buffers of its jobs may take `memory_limit` bytes.
    pub fn new(backend: Arc<dyn Backend>, mailbox: Arc<Mailbox>, serial: [u8; SERIAL], memory_limit: u64) -> Self {
        Self {
            backend,
            mailbox,
            serial,
            locks: RangeLocks::new(),
            jobs: HashMap::new(),
            next_job: 0,
            live_runs: BTreeSet::new(),
            dead_jobs: 0,
            lock_granted: VecDeque::new(),
            finished: Vec::new(),
            buffer_bytes: 0,
            memory_limit,
        }
    }

    /// Begins a run of a ring: its jobs may touch guest memory until [`Engine::end_run`].
    pub fn begin_run(&mut self, run: u64) {
        assert!(self.live_runs.insert(run), "the number of a run is used once");
    }

    /// Ends a run of a ring: its jobs are dead from now on.
    pub fn end_run(&mut self, run: u64) {
        if self.live_runs.remove(&run) {
            self.dead_jobs += self.jobs.values().filter(|job| job.chain.run == run).count();
        }
    }

    /// Whether a job of a stopped ring is still at the backend. Until it has ended no new request may start: the next
    /// driver must not read a block and then see it changed by a write of the driver before.
    pub fn has_dead(&self) -> bool {
        self.dead_jobs > 0
    }

    /// Whether the memory for buffers is used up: no further job may be submitted until another one has ended.
    pub fn is_full(&self) -> bool {
        self.buffer_bytes >= self.memory_limit
    }

    /// Takes the requests whose answers can be given to the driver now.
    pub fn take_finished(&mut self) -> Vec<FinishedRequest> {
        std::mem::take(&mut self.finished)
    }

    /// Starts a job. With `flush_after` a write must be durable before it is answered.
    pub fn submit(&mut self, chain: ChainId, request: GuestRequest, memory: &Arc<GuestMemory>, flush_after: bool) {
        let operation = request.operation;
        let data_len = request.data_len();
        let (start, changes) = match operation {
            Operation::Read { offset } => (offset, false),
            Operation::Write { offset } | Operation::WriteZeroes { offset, .. } => (offset, true),
            Operation::Discard { offset, .. } => (offset, false),
            _ => (0, false),
        };
        let buffer_bytes = data_len.min(MAX_TRANSFER) + 2 * BLOCK_BYTES;
        let id = self.next_job;
        self.next_job += 1;
        self.buffer_bytes += buffer_bytes;
        let job = Job {
            chain,
            remaining: RemainingRequest::new(operation, data_len),
            request,
            memory: memory.clone(),
            start,
            current: None,
            flush_after: flush_after && changes,
            buffer_bytes,
        };
        self.jobs.insert(id, job);
        match operation {
            Operation::Flush => self.submit_part(id, Part::Main, Request::Flush),
            Operation::GetId => self.answer_id(id),
            Operation::Unknown => self.finish(id, VIRTIO_BLK_S_UNSUPP),
            Operation::Invalid => self.finish(id, VIRTIO_BLK_S_IOERR),
            _ => self.start_next_piece(id),
        }
        self.start_granted_changes();
    }

    /// Continues a job after the completion of one of its parts.
    pub fn complete(&mut self, completion: PartCompletion) {
        let PartCompletion { job: id, part, result } = completion;
        match part {
            Part::OldBlock { at } => self.on_old_block(id, at, result),
            Part::Flush => self.finish(id, status_of(&result)),
            Part::Main => self.on_main(id, result),
        }
        self.start_granted_changes();
    }

    /// Starts the changes of all jobs that have got their lock. Such a change may end and grant further locks.
    fn start_granted_changes(&mut self) {
        while let Some(id) = self.lock_granted.pop_front() {
            self.start_change(id);
        }
    }

    /// Whether the run of the job's ring has not ended.
    fn is_live(&self, id: u64) -> bool {
        self.live_runs.contains(&self.jobs[&id].chain.run)
    }

    /// Sends a request for a part of a job to the backend.
    fn submit_part(&self, job: u64, part: Part, request: Request) {
        self.backend.submit(request, ReplyTo::device(self.mailbox.clone(), job, part));
    }

    /// Starts the next piece of a job. After the last one the job is finished, if need be after a flush.
    fn start_next_piece(&mut self, id: u64) {
        if !self.is_live(id) {
            return self.drop_job(id);
        }
        let job = self.jobs.get_mut(&id).expect("a job is known until it ends");
        let Some(piece) = job.remaining.next_piece() else {
            if !job.flush_after {
                return self.finish(id, VIRTIO_BLK_S_OK);
            }
            return self.submit_part(id, Part::Flush, Request::Flush);
        };
        job.current = Some(CurrentPiece { piece, buffer: BytesMut::new(), old_blocks_left: 0, failed: false });
        let blocks = piece.block_range();
        if piece.action == Action::Read {
            let len = (blocks.end - blocks.start) as u32;
            self.submit_part(id, Part::Main, Request::Read { offset: blocks.start, len });
        } else if self.locks.acquire(blocks, id) {
            self.lock_granted.push_back(id);
        }
    }

    /// Starts a change whose blocks are locked. If it covers only parts of blocks, their old content is read first.
    fn start_change(&mut self, id: u64) {
        let live = self.is_live(id);
        let job = self.jobs.get_mut(&id).expect("a job is known until it ends");
        let current = job.current.as_mut().expect("only a piece asks for a lock");
        let piece = current.piece;
        let blocks = piece.block_range();
        if !live {
            self.release(blocks.start);
            return self.drop_job(id);
        }
        let (offset, len) = (blocks.start, blocks.end - blocks.start);
        match piece.action {
            Action::Discard => return self.submit_part(id, Part::Main, Request::Discard { offset, len }),
            Action::WriteZeroes => return self.submit_part(id, Part::Main, Request::WriteZeroes { offset, len }),
            Action::Read | Action::Write | Action::ZeroPartOfBlock => {}
        }
        current.buffer = BytesMut::zeroed(len as usize);
        if piece.action == Action::Write {
            // Invariant 4 of the crate: only here are these bytes read from guest memory.
            let at = (piece.offset - blocks.start) as usize;
            let place = &mut current.buffer[at..at + piece.len as usize];
            let skip = job.request.skip + piece.offset - job.start;
            if job.request.data.read(&job.memory, skip, place).is_err() {
                self.release(blocks.start);
                return self.finish(id, VIRTIO_BLK_S_IOERR);
            }
        }
        let partial_blocks: Vec<usize> = piece.partial_blocks().collect();
        current.old_blocks_left = partial_blocks.len() as u8;
        if partial_blocks.is_empty() {
            return self.write_buffer(id);
        }
        for at in partial_blocks {
            let offset = blocks.start + at as u64;
            self.submit_part(id, Part::OldBlock { at }, Request::Read { offset, len: BLOCK_BYTES as u32 });
        }
    }

    /// Merges the old content of a partial block into the buffer. After the last one the buffer is written.
    fn on_old_block(&mut self, id: u64, at: usize, result: RequestResult) {
        let live = self.is_live(id);
        let current = self.current(id);
        current.old_blocks_left -= 1;
        let piece = current.piece;
        let begin = (piece.offset - piece.block_range().start) as usize;
        let end = begin + piece.len as usize;
        match result {
            Ok(old) if old.len() == BLOCK_BYTES as usize => {
                let new = &mut current.buffer[at..at + BLOCK_BYTES as usize];
                for (n, byte) in old.iter().enumerate() {
                    if !(begin..end).contains(&(at + n)) {
                        new[n] = *byte;
                    }
                }
            }
            _ => current.failed = true,
        }
        if current.old_blocks_left > 0 {
            return;
        }
        let failed = current.failed;
        match (live, failed) {
            (true, false) => return self.write_buffer(id),
            (true, true) => self.finish(id, VIRTIO_BLK_S_IOERR),
            (false, _) => self.drop_job(id),
        }
        self.release(piece.block_range().start);
    }

    /// Sends the buffer of the current piece to the backend.
    fn write_buffer(&mut self, id: u64) {
        let current = self.current(id);
        let offset = current.piece.block_range().start;
        let data = std::mem::take(&mut current.buffer).freeze();
        self.submit_part(id, Part::Main, Request::Write { offset, data });
    }

    /// Ends the current piece, or a flush: releases its lock, gives data that was read to the guest, and continues the
    /// job.
    fn on_main(&mut self, id: u64, result: RequestResult) {
        let live = self.is_live(id);
        let job = self.jobs.get_mut(&id).expect("a job is known until it ends");
        let Some(current) = job.current.take() else {
            return self.finish(id, status_of(&result)); // a job without pieces: a flush
        };
        let (piece, blocks) = (current.piece, current.piece.block_range());
        let mut status = status_of(&result);
        if piece.action != Action::Read {
            self.release(blocks.start);
        } else if let (true, Ok(data)) = (live, result) {
            let begin = (piece.offset - blocks.start) as usize;
            let has_right_length = data.len() as u64 == blocks.end - blocks.start;
            let written = has_right_length.then(|| {
                let part = &data[begin..begin + piece.len as usize];
                job.request.data.write(&job.memory, piece.offset - job.start, part)
            });
            if !matches!(written, Some(Ok(()))) {
                status = VIRTIO_BLK_S_IOERR;
            }
        }
        if status == VIRTIO_BLK_S_OK {
            self.start_next_piece(id);
        } else {
            self.finish(id, status);
        }
    }

    /// Writes the serial number into the guest's buffer and finishes the job.
    fn answer_id(&mut self, id: u64) {
        let job = &self.jobs[&id];
        let len = SERIAL.min(job.request.data.len() as usize);
        let written = job.request.data.write(&job.memory, 0, &self.serial[..len]);
        let status = if written.is_ok() { VIRTIO_BLK_S_OK } else { VIRTIO_BLK_S_IOERR };
        self.finish(id, status);
    }

    fn current(&mut self, id: u64) -> &mut CurrentPiece {
        let job = self.jobs.get_mut(&id).expect("a job is known until it ends");
        job.current.as_mut().expect("a completion belongs to a piece")
    }

    /// Releases the lock of the blocks from byte `start` on, and queues the jobs that get their locks by that.
    fn release(&mut self, start: u64) {
        self.lock_granted.extend(self.locks.release(start));
    }

    /// Ends a job. If it is live, its answer with this status becomes ready.
    fn finish(&mut self, id: u64, status: u32) {
        let live = self.is_live(id);
        let job = &self.jobs[&id];
        if live {
            let room = match job.request.operation {
                Operation::Read { .. } => job.request.data.len(),
                Operation::GetId => job.request.data.len().min(SERIAL as u64),
                _ => 0,
            };
            self.finished.push(FinishedRequest {
                chain: job.chain,
                status: (status as u8, job.request.status),
                written: u32::try_from(room + 1).unwrap_or(u32::MAX),
            });
        }
        self.drop_job(id);
    }

    /// Removes a job without an answer.
    fn drop_job(&mut self, id: u64) {
        if let Some(job) = self.jobs.remove(&id) {
            self.buffer_bytes -= job.buffer_bytes;
            self.dead_jobs -= usize::from(!self.live_runs.contains(&job.chain.run));
        }
    }
}

/// The virtio status for a result of the backend; an error is logged.
fn status_of(result: &RequestResult) -> u32 {
    match result {
        Ok(_) => VIRTIO_BLK_S_OK,
        Err(error) => {
            let cause = error.source().map(tracing::field::display);
            tracing::warn!(%error, cause, "the backend failed a request; the guest sees an I/O error");
            VIRTIO_BLK_S_IOERR
        }
    }
}
