//! Pairing over loopback TCP: the right code, the wrong code, and a machine in between.

mod common;

use std::sync::Arc;
use std::time::Instant;

use common::within;
use dyad_link::Fingerprint;
use dyad_link::pairing::{self, CodeForm, Codes, MAX_TRIES, Paired, PairingError, Purpose};
use dyad_link::tls::TlsIdentity;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

struct Host {
    identity: TlsIdentity,
    codes: Arc<Codes>,
    listener: TcpListener,
}

impl Host {
    async fn new() -> Self {
        Self {
            identity: TlsIdentity::generate("host").unwrap(),
            codes: Arc::new(Codes::new()),
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    fn open(&self, form: CodeForm) -> String {
        self.codes.open(form, Instant::now()).code
    }

    /// The results of joiner and host of one attempt.
    async fn attempt(&self, joiner: &TlsIdentity, code: &str) -> (Outcome, Outcome) {
        let joiner = joiner.clone();
        let (code, address) = (code.to_owned(), self.listener.local_addr().unwrap());
        let join = tokio::spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            pairing::join(stream, &joiner, &code, Purpose::Node).await
        });
        let (stream, _) = self.listener.accept().await.unwrap();
        let hosted =
            within("the host is done", pairing::host(stream, &self.identity, &self.codes, Purpose::Node)).await;
        (within("the joiner is done", join).await.unwrap(), hosted)
    }
}

type Outcome = Result<Paired, PairingError>;

/// A code that differs from `code`.
fn other_than(code: &str) -> String {
    if code == "000000" { "000001".into() } else { "000000".into() }
}

#[tokio::test]
async fn the_right_code_gives_both_sides_a_connection_and_works_once() {
    let host = Host::new().await;
    let joiner = TlsIdentity::generate("joiner").unwrap();
    let code = host.open(CodeForm::Node);
    let (joined, hosted) = host.attempt(&joiner, &code).await;
    let (mut joined, mut hosted) = (joined.unwrap(), hosted.unwrap());
    assert_eq!(joined.peer(), host.identity.fingerprint());
    assert_eq!(hosted.peer(), joiner.fingerprint());
    joined.send(&("name", 7u32)).await.unwrap();
    assert_eq!(hosted.receive::<(String, u32)>().await.unwrap(), ("name".into(), 7));
    hosted.send_bytes(&[9; 100_000]).await.unwrap();
    hosted.close().await.unwrap();
    assert_eq!(joined.receive_bytes().await.unwrap().len(), 100_000);

    let (joined, hosted) = host.attempt(&joiner, &code).await;
    assert!(matches!(joined, Err(PairingError::NoCodeOpen)));
    assert!(matches!(hosted, Err(PairingError::NoCodeOpen)));
}

#[tokio::test]
async fn joining_is_refused_while_no_code_is_open() {
    let host = Host::new().await;
    let (joined, _) = host.attempt(&TlsIdentity::generate("joiner").unwrap(), "123456").await;
    let error = joined.unwrap_err();
    assert!(matches!(error, PairingError::NoCodeOpen));
    assert!(error.to_string().starts_with("no pairing code is open"));
}

#[tokio::test]
async fn five_wrong_tries_make_the_code_void() {
    let host = Host::new().await;
    let joiner = TlsIdentity::generate("joiner").unwrap();
    let code = host.open(CodeForm::Node);
    for _ in 1..MAX_TRIES {
        let (joined, hosted) = host.attempt(&joiner, &other_than(&code)).await;
        assert!(matches!(joined, Err(PairingError::WrongCode)), "{joined:?}");
        assert!(matches!(hosted, Err(PairingError::WrongCode)));
    }
    let (joined, _) = host.attempt(&joiner, &other_than(&code)).await;
    assert!(matches!(joined, Err(PairingError::TooManyTries)), "{joined:?}");
    let (joined, _) = host.attempt(&joiner, &code).await;
    assert!(matches!(joined, Err(PairingError::TooManyTries)), "the right code is void as well");
}

#[tokio::test]
async fn a_witness_code_is_refused_for_joining_a_node() {
    let host = Host::new().await;
    let code = host.open(CodeForm::Witness);
    let address = host.listener.local_addr().unwrap();
    let join: JoinHandle<Outcome> = tokio::spawn(async move {
        let stream = TcpStream::connect(address).await.unwrap();
        pairing::join(stream, &TlsIdentity::generate("joiner").unwrap(), &code, Purpose::Node).await
    });
    let (stream, _) = host.listener.accept().await.unwrap();
    let hosted = pairing::host(stream, &host.identity, &host.codes, Purpose::Witness).await;
    assert!(matches!(hosted, Err(PairingError::Purpose)));
    assert!(matches!(join.await.unwrap(), Err(PairingError::Purpose)));
}

/// A machine between joiner and host: terminates TLS on both sides with its own key and forwards every frame.
async fn machine_in_between(host: std::net::SocketAddr) -> (std::net::SocketAddr, Fingerprint, JoinHandle<u32>) {
    use dyad_link::tls::{Protocol, Trust, accept, client_config, connect, server_config};
    let own = TlsIdentity::generate("in between").unwrap();
    let print = own.fingerprint();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let config = server_config(&own, Trust::AnyKey, &[Protocol::Pairing]).unwrap();
        let mut near = accept(near, config, common::TEST_DEADLINE).await.unwrap();
        let far = TcpStream::connect(host).await.unwrap();
        let config = client_config(&own, Trust::AnyKey, Protocol::Pairing).unwrap();
        let mut far = connect(far, config, common::TEST_DEADLINE).await.unwrap();
        let mut passed = 0;
        loop {
            let (frame, to) = tokio::select! {
                frame = near.reader.next() => (frame, &mut far.writer),
                frame = far.reader.next() => (frame, &mut near.writer),
            };
            let Ok(Some(frame)) = frame else { return passed };
            passed += 1;
            if to.send_bytes(frame.kind, &frame.payload).await.is_err() {
                return passed;
            }
        }
    });
    (address, print, task)
}

#[tokio::test]
async fn a_machine_in_between_makes_the_right_code_fail() {
    let host = Host::new().await;
    let code = host.open(CodeForm::Node);
    let (address, print, between) = machine_in_between(host.listener.local_addr().unwrap()).await;
    let join: JoinHandle<Outcome> = tokio::spawn(async move {
        let stream = TcpStream::connect(address).await.unwrap();
        pairing::join(stream, &TlsIdentity::generate("joiner").unwrap(), &code, Purpose::Node).await
    });
    let (stream, _) = host.listener.accept().await.unwrap();
    let hosted = within("the host is done", pairing::host(stream, &host.identity, &host.codes, Purpose::Node)).await;
    assert!(matches!(hosted, Err(PairingError::WrongCode)), "{hosted:?}");
    let joined = within("the joiner is done", join).await.unwrap();
    assert!(matches!(joined, Err(PairingError::WrongCode)), "{joined:?}");
    // The machine forwarded start, answer, confirmation and refusal.
    assert_eq!(within("the machine in between ends", between).await.unwrap(), 4);
    assert_ne!(print, host.identity.fingerprint());
}
