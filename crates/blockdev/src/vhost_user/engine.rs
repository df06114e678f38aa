//! Runs requests of drivers against the backend: whole blocks, one change of a block at a time.
//!
//! The engine outlives connections. A job whose ring was stopped is *dead*: its request at the backend ends
//! there and frees its lock, but it submits no further request and does not touch guest memory.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::error::Error as _;
use std::sync::Arc;

use bytes::BytesMut;
use virtio_bindings::bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP};
use vm_memory::GuestAddress;

use crate::limits::{BLOCK_BYTES, MAX_TRANSFER};
use crate::mailbox::{Mailbox, Part, PartCompletion};
use crate::ranges::RangeLocks;
use crate::vhost_user::job::{Action, Piece, Plan};
use crate::vhost_user::memory::GuestMemory;
use crate::vhost_user::request::{Ask, GuestRequest};
use crate::{Backend, ReplyTo, Request, RequestResult};

/// Length of the device's name in bytes (virtio 5.2.6: VIRTIO_BLK_T_GET_ID).
pub(crate) const SERIAL: usize = 20;

/// The ring, chain and run that an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub ring: u16,
    pub head: u16,
    /// Number of the run of the ring. It is never used again.
    pub epoch: u64,
}

/// A request that is ready to be answered to the driver.
#[derive(Debug)]
pub(crate) struct Finished {
    pub token: Token,
    /// Status byte and its address.
    pub status: (u8, GuestAddress),
    /// Bytes written into the chain, for the used ring.
    pub written: u32,
}

struct Job {
    token: Token,
    request: GuestRequest,
    memory: Arc<GuestMemory>,
    plan: Plan,
    /// First byte of the request, to find a piece's place in the data.
    start: u64,
    current: Option<Current>,
    /// A flush must complete before the answer, because the driver did not accept FLUSH.
    flush_after: bool,
    charge: u64,
}

struct Current {
    piece: Piece,
    buffer: BytesMut,
    edges_left: u8,
    failed: bool,
}

/// Runs the jobs of one device.
pub(crate) struct Engine {
    backend: Arc<dyn Backend>,
    mailbox: Arc<Mailbox>,
    serial: [u8; SERIAL],
    locks: RangeLocks<u64>,
    jobs: HashMap<u64, Job>,
    next_job: u64,
    live: BTreeSet<u64>,
    dead_jobs: usize,
    granted: VecDeque<u64>,
    finished: Vec<Finished>,
    charged: u64,
    limit: u64,
}

impl Engine {
    /// An engine that lets in jobs until their buffers may take `limit` bytes.
    pub fn new(backend: Arc<dyn Backend>, mailbox: Arc<Mailbox>, serial: [u8; SERIAL], limit: u64) -> Self {
        Self {
            backend,
            mailbox,
            serial,
            locks: RangeLocks::new(),
            jobs: HashMap::new(),
            next_job: 0,
            live: BTreeSet::new(),
            dead_jobs: 0,
            granted: VecDeque::new(),
            finished: Vec::new(),
            charged: 0,
            limit,
        }
    }

    /// Jobs of this run of a ring may touch guest memory from now on.
    pub fn begin(&mut self, epoch: u64) {
        assert!(self.live.insert(epoch), "an epoch is used once");
    }

    /// Jobs of this run of a ring are dead from now on.
    pub fn revoke(&mut self, epoch: u64) {
        if self.live.remove(&epoch) {
            self.dead_jobs += self.jobs.values().filter(|job| job.token.epoch == epoch).count();
        }
    }

    /// Whether a job of a stopped ring is still under way. Until it has ended nothing new may start: the next driver
    /// must not read a block and then see it changed by a write of the one before.
    pub fn has_dead(&self) -> bool {
        self.dead_jobs > 0
    }

    /// True if no further job is to be submitted before another ended.
    pub fn is_full(&self) -> bool {
        self.charged >= self.limit
    }

    /// The requests that can be answered to the driver now.
    pub fn take_finished(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.finished)
    }

    /// Start one request. `flush_after`: writes must be durable before they are answered.
    pub fn submit(&mut self, token: Token, request: GuestRequest, memory: &Arc<GuestMemory>, flush_after: bool) {
        let ask = request.ask;
        let data_len = request.data_len();
        let (start, changes) = match ask {
            Ask::Read { offset } => (offset, false),
            Ask::Write { offset } | Ask::WriteZeroes { offset, .. } => (offset, true),
            Ask::Discard { offset, .. } => (offset, false),
            _ => (0, false),
        };
        let charge = data_len.min(MAX_TRANSFER) + 2 * BLOCK_BYTES;
        let id = self.next_job;
        self.next_job += 1;
        self.charged += charge;
        let job = Job {
            token,
            plan: Plan::new(ask, data_len),
            request,
            memory: memory.clone(),
            start,
            current: None,
            flush_after: flush_after && changes,
            charge,
        };
        self.jobs.insert(id, job);
        match ask {
            Ask::Flush => self.ask(id, Part::Main, Request::Flush),
            Ask::GetId => self.answer_id(id),
            Ask::Unknown => self.finish(id, VIRTIO_BLK_S_UNSUPP),
            Ask::Invalid => self.finish(id, VIRTIO_BLK_S_IOERR),
            _ => self.advance(id),
        }
        self.settle();
    }

    /// Continues a job with the completion of one of its parts.
    pub fn complete(&mut self, completion: PartCompletion) {
        let PartCompletion { job: id, part, result } = completion;
        match part {
            Part::Edge { at } => self.edge_done(id, at, result),
            Part::Flush => self.finish(id, status_of(&result)),
            Part::Main => self.main_done(id, result),
        }
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(id) = self.granted.pop_front() {
            self.start_change(id);
        }
    }

    fn is_live(&self, id: u64) -> bool {
        self.live.contains(&self.jobs[&id].token.epoch)
    }

    fn ask(&self, job: u64, part: Part, request: Request) {
        self.backend.submit(request, ReplyTo::device(self.mailbox.clone(), job, part));
    }

    /// Start the next piece of a job, or end it.
    fn advance(&mut self, id: u64) {
        if !self.is_live(id) {
            return self.drop_job(id);
        }
        let job = self.jobs.get_mut(&id).expect("a job is known until it ends");
        let Some(piece) = job.plan.next_piece() else {
            if !job.flush_after {
                return self.finish(id, VIRTIO_BLK_S_OK);
            }
            return self.ask(id, Part::Flush, Request::Flush);
        };
        job.current = Some(Current { piece, buffer: BytesMut::new(), edges_left: 0, failed: false });
        let cover = piece.cover();
        if piece.action == Action::Read {
            let len = (cover.end - cover.start) as u32;
            self.ask(id, Part::Main, Request::Read { offset: cover.start, len });
        } else if self.locks.acquire(cover, id) {
            self.granted.push_back(id);
        }
    }

    /// Continues a change whose blocks are locked: reads the old content of partial blocks, then writes.
    fn start_change(&mut self, id: u64) {
        let live = self.is_live(id);
        let job = self.jobs.get_mut(&id).expect("a job is known until it ends");
        let current = job.current.as_mut().expect("only a piece asks for a lock");
        let piece = current.piece;
        let cover = piece.cover();
        if !live {
            self.release(cover.start);
            return self.drop_job(id);
        }
        let (offset, len) = (cover.start, cover.end - cover.start);
        match piece.action {
            Action::Discard => return self.ask(id, Part::Main, Request::Discard { offset, len }),
            Action::WriteZeroes => return self.ask(id, Part::Main, Request::WriteZeroes { offset, len }),
            Action::Read | Action::Write | Action::Fill => {}
        }
        current.buffer = BytesMut::zeroed(len as usize);
        if piece.action == Action::Write {
            // Invariant 4 of the crate: these bytes are read from guest memory only here.
            let at = (piece.offset - cover.start) as usize;
            let place = &mut current.buffer[at..at + piece.len as usize];
            let skip = job.request.skip + piece.offset - job.start;
            if job.request.data.read(&job.memory, skip, place).is_err() {
                self.release(cover.start);
                return self.finish(id, VIRTIO_BLK_S_IOERR);
            }
        }
        let edges: Vec<usize> = piece.edges().collect();
        current.edges_left = edges.len() as u8;
        if edges.is_empty() {
            return self.write_buffer(id);
        }
        for at in edges {
            let offset = cover.start + at as u64;
            self.ask(id, Part::Edge { at }, Request::Read { offset, len: BLOCK_BYTES as u32 });
        }
    }

    fn edge_done(&mut self, id: u64, at: usize, result: RequestResult) {
        let live = self.is_live(id);
        let current = self.current(id);
        current.edges_left -= 1;
        let piece = current.piece;
        let begin = (piece.offset - piece.cover().start) as usize;
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
        if current.edges_left > 0 {
            return;
        }
        let failed = current.failed;
        match (live, failed) {
            (true, false) => return self.write_buffer(id),
            (true, true) => self.finish(id, VIRTIO_BLK_S_IOERR),
            (false, _) => self.drop_job(id),
        }
        self.release(piece.cover().start);
    }

    fn write_buffer(&mut self, id: u64) {
        let current = self.current(id);
        let offset = current.piece.cover().start;
        let data = std::mem::take(&mut current.buffer).freeze();
        self.ask(id, Part::Main, Request::Write { offset, data });
    }

    fn main_done(&mut self, id: u64, result: RequestResult) {
        let live = self.is_live(id);
        let job = self.jobs.get_mut(&id).expect("a job is known until it ends");
        let Some(current) = job.current.take() else {
            return self.finish(id, status_of(&result)); // a flush
        };
        let (piece, cover) = (current.piece, current.piece.cover());
        let mut status = status_of(&result);
        if piece.action != Action::Read {
            self.release(cover.start);
        } else if let (true, Ok(data)) = (live, result) {
            let begin = (piece.offset - cover.start) as usize;
            let sound = data.len() as u64 == cover.end - cover.start;
            let written = sound.then(|| {
                let part = &data[begin..begin + piece.len as usize];
                job.request.data.write(&job.memory, piece.offset - job.start, part)
            });
            if !matches!(written, Some(Ok(()))) {
                status = VIRTIO_BLK_S_IOERR;
            }
        }
        if status == VIRTIO_BLK_S_OK {
            self.advance(id);
        } else {
            self.finish(id, status);
        }
    }

    fn answer_id(&mut self, id: u64) {
        let job = &self.jobs[&id];
        let len = SERIAL.min(job.request.data.len() as usize);
        let written = job.request.data.write(&job.memory, 0, &self.serial[..len]);
        let status = if written.is_ok() { VIRTIO_BLK_S_OK } else { VIRTIO_BLK_S_IOERR };
        self.finish(id, status);
    }

    fn current(&mut self, id: u64) -> &mut Current {
        let job = self.jobs.get_mut(&id).expect("a job is known until it ends");
        job.current.as_mut().expect("a completion belongs to a piece")
    }

    fn release(&mut self, start: u64) {
        self.granted.extend(self.locks.release(start));
    }

    fn finish(&mut self, id: u64, status: u32) {
        let live = self.is_live(id);
        let job = &self.jobs[&id];
        if live {
            let room = match job.request.ask {
                Ask::Read { .. } => job.request.data.len(),
                Ask::GetId => job.request.data.len().min(SERIAL as u64),
                _ => 0,
            };
            self.finished.push(Finished {
                token: job.token,
                status: (status as u8, job.request.status),
                written: u32::try_from(room + 1).unwrap_or(u32::MAX),
            });
        }
        self.drop_job(id);
    }

    fn drop_job(&mut self, id: u64) {
        if let Some(job) = self.jobs.remove(&id) {
            self.charged -= job.charge;
            self.dead_jobs -= usize::from(!self.live.contains(&job.token.epoch));
        }
    }
}

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
