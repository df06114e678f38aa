//! A volume in memory that can hold back requests, and that records the requests that it gets.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dyad_blockdev::{BLOCK_BYTES, Backend, BackendError, ReplyTo, Request, RequestResult};

pub struct Volume {
    data: Mutex<Vec<u8>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    holding: bool,
    /// Selects the requests that the volume refuses; `None` = it refuses none.
    fails: Option<fn(&Request) -> bool>,
    /// Requests that are held back.
    held: Vec<(Request, ReplyTo)>,
    /// All requests since the last call of [`Volume::take_requests`].
    requests: Vec<Request>,
}

impl Volume {
    pub fn new(size: u64) -> Arc<Self> {
        Arc::new(Self { data: Mutex::new(vec![0; size as usize]), state: Mutex::default() })
    }

    /// Holds back all requests from now on.
    pub fn hold(&self) {
        self.state.lock().unwrap().holding = true;
    }

    /// Carries out the requests that are held back, in reverse order, on another thread. Later requests are not held
    /// back.
    pub fn release(self: &Arc<Self>) {
        let mut state = self.state.lock().unwrap();
        state.holding = false;
        let held = std::mem::take(&mut state.held);
        drop(state);
        let volume = self.clone();
        std::thread::spawn(move || {
            for (request, reply_to) in held.into_iter().rev() {
                reply_to.complete(volume.perform(&request));
            }
        });
    }

    /// Carries out the `at`th of the requests that are held back; the others stay.
    pub fn release_one(&self, at: usize) {
        let (request, reply_to) = self.state.lock().unwrap().held.remove(at);
        reply_to.complete(self.perform(&request));
    }

    /// Lets all requests fail from now on.
    pub fn fail(&self) {
        self.fail_if(|_| true);
    }

    /// Lets the requests fail from now on for which `fails` holds, and no others.
    pub fn fail_if(&self, fails: fn(&Request) -> bool) {
        self.state.lock().unwrap().fails = Some(fails);
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// Number of requests that are held back.
    pub fn held(&self) -> usize {
        self.state.lock().unwrap().held.len()
    }

    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        self.data.lock().unwrap()[offset..offset + len].to_vec()
    }

    fn perform(&self, request: &Request) -> RequestResult {
        if self.state.lock().unwrap().fails.is_some_and(|fails| fails(request)) {
            return Err(BackendError::failed("planted by the test"));
        }
        let mut data = self.data.lock().unwrap();
        let size = data.len() as u64;
        let part = |offset: u64, len: u64| {
            assert!(offset.is_multiple_of(BLOCK_BYTES) && len.is_multiple_of(BLOCK_BYTES));
            assert!(len > 0 && offset + len <= size);
            offset as usize..(offset + len) as usize
        };
        match request {
            Request::Read { offset, len } => {
                return Ok(Bytes::copy_from_slice(&data[part(*offset, u64::from(*len))]));
            }
            Request::Write { offset, data: new } => {
                data[part(*offset, new.len() as u64)].copy_from_slice(new);
            }
            Request::Discard { offset, len } | Request::WriteZeroes { offset, len } => {
                data[part(*offset, *len)].fill(0);
            }
            Request::Flush => {}
        }
        Ok(Bytes::new())
    }
}

impl Backend for Volume {
    fn submit(&self, request: Request, reply_to: ReplyTo) {
        let mut state = self.state.lock().unwrap();
        state.requests.push(request.clone());
        if state.holding {
            state.held.push((request, reply_to));
            return;
        }
        drop(state);
        reply_to.complete(self.perform(&request));
    }

    fn size(&self) -> u64 {
        self.data.lock().unwrap().len() as u64
    }
}
