//! Helpers of the loopback tests: a time limit, and a TCP relay that can stop forwarding, as a cut cable does.
#![allow(dead_code, reason = "each test program uses a part of this")]

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Upper bound of one step of a test, also on a busy machine.
pub const TEST_DEADLINE: Duration = Duration::from_secs(30);

/// Awaits `future`, or fails the test with `what`.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(TEST_DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {TEST_DEADLINE:?}: {what}"),
    }
}

/// A TCP relay that stands for one cable.
pub struct Cable {
    pub address: SocketAddr,
    whole: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cable {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (whole, state) = watch::channel(true);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let state = state.clone();
                tokio::spawn(async move {
                    // A new connection over a cut cable waits until the cable is restored.
                    state.clone().wait_for(|whole| *whole).await.ok();
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    let (near_read, near_write) = near.into_split();
                    let (far_read, far_write) = far.into_split();
                    tokio::join!(relay(near_read, far_write, state.clone()), relay(far_read, near_write, state));
                });
            }
        });
        Self { address, whole, task }
    }

    /// Stops forwarding without closing a connection.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// Forwards again; the bytes held back meanwhile arrive late.
    pub fn restore(&self) {
        self.whole.send_replace(true);
    }
}

async fn relay(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut whole: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut buffer).await.unwrap_or(0);
        // A cut cable does not deliver the end of a connection either.
        if whole.wait_for(|whole| *whole).await.is_err() || count == 0 {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
