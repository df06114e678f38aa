//! Tests of the task with a witness that swallows requests, in simulated time.

use super::*;
use crate::quorum_handle;
use dyad_link::PairKey;
use dyad_link::beacon::{self, Beacon};
use dyad_quorum::{Ballot, Config, Learn, ReplyBody, TryDecide, WitnessId};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

/// Round trip of the fake witness.
const ROUND_TRIP_DELAY: Duration = Duration::from_millis(20);

/// A witness that answers after [`ROUND_TRIP_DELAY`], or swallows requests.
#[derive(Clone, Default)]
struct FakeWitness {
    swallows: Arc<AtomicBool>,
    /// Time that each answer takes in addition, as if each request needed a new connection.
    delay: Arc<Mutex<Duration>>,
    /// The requests that it got.
    asked: Arc<Mutex<Vec<WitnessRequest>>>,
}

impl WitnessLine for FakeWitness {
    async fn ask(&mut self, request: &WitnessRequest, _limit: Duration) -> Result<AcceptorReply, AskError> {
        self.asked.lock().unwrap().push(request.clone());
        if self.swallows.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let delay = *self.delay.lock().unwrap();
        tokio::time::sleep(ROUND_TRIP_DELAY + delay).await;
        let (from, body) = (dyad_quorum::Acceptor::W, ReplyBody::Base(Config::first(NodeId::A, 7)));
        Ok(AcceptorReply { from, incarnation: 1, witness: WitnessId(1), witness_changes: 0, body })
    }

    async fn add_key(&mut self, _: NodeId, _: Fingerprint, _: Duration) -> Result<(), AskError> {
        Ok(())
    }

    fn round_trip(&self) -> Option<Duration> {
        Some(ROUND_TRIP_DELAY)
    }
}

/// A running task with a fake witness, and the quorum thread's side of it.
struct TaskFixture {
    witness: FakeWitness,
    requests: UnboundedSender<(WitnessRequestId, WitnessRequest)>,
    _commands: UnboundedSender<WitnessCommand<FakeWitness>>,
    inputs: mpsc::Receiver<QuorumInput>,
    last_id: u64,
    answered: usize,
}

impl TaskFixture {
    fn start() -> Self {
        let config = beacon::BeaconConfig { pair: PairId(1), node: NodeId::A, key: PairKey([0; 32]), port: 0 };
        let waker = Beacon::open(&config, Vec::new()).unwrap().waker();
        let (quorum_thread, inputs) = quorum_handle::queue(waker);
        let (requests, receiver) = unbounded_channel();
        let (commands, command_receiver) = unbounded_channel();
        let witness = FakeWitness::default();
        let _ = commands.send(WitnessCommand::Use(Some(Box::new(witness.clone()))));
        tokio::spawn(Task::new(quorum_thread, NodeId::A, receiver, command_receiver).run());
        Self { witness, requests, _commands: commands, inputs, last_id: 0, answered: 0 }
    }

    fn swallow(&self, swallows: bool) {
        self.witness.swallows.store(swallows, Ordering::SeqCst);
    }

    fn ask(&mut self, request: WitnessRequest) -> WitnessRequestId {
        self.last_id += 1;
        let id = WitnessRequestId(self.last_id);
        self.requests.send((id, request)).unwrap();
        id
    }

    /// The results of requests since the last call.
    fn results(&mut self) -> Vec<(WitnessRequestId, WitnessReply)> {
        let result = |input| match input {
            QuorumInput::Quorum(Event::Witness { id, reply }) => Some((id, reply)),
            _ => None,
        };
        let results: Vec<_> = self.inputs.try_iter().filter_map(result).collect();
        self.answered += results.len();
        results
    }

    /// Waits for the result of this request; returns it with the time that it took.
    async fn result_of(&mut self, id: WitnessRequestId) -> (WitnessReply, Duration) {
        let begin = Instant::now();
        loop {
            if let Some((_, reply)) = self.results().into_iter().find(|(found, _)| *found == id) {
                return (reply, begin.elapsed());
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "request {id:?} has no result");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn read() -> WitnessRequest {
    WitnessRequest::Learn(Learn { pair: 1, sender: NodeId::A, base: Config::first(NodeId::A, 7), witness_changes: 0 })
}

fn decision(sender: NodeId) -> WitnessRequest {
    let base = Config::first(NodeId::A, 7);
    let want = base.clone();
    let (ballot, accepted) = (Ballot::ZERO, None);
    WitnessRequest::TryDecide(TryDecide {
        pair: 1,
        sender,
        incarnation: 7,
        base,
        ballot,
        accepted,
        want,
        witness_changes: 0,
    })
}

/// The quorum machine gives a read up after 3 s and asks again.
#[tokio::test(start_paused = true)]
async fn after_a_day_of_silence_the_first_decision_is_answered_in_one_round_trip() {
    let mut task = TaskFixture::start();
    let first = task.ask(read());
    assert!(matches!(task.result_of(first).await.0, WitnessReply::Received(_)));
    task.swallow(true);
    let mut asked = 1;
    for _ in 0..24 * 60 * 60 / 3 {
        task.ask(read());
        asked += 1;
        tokio::time::sleep(Duration::from_secs(3)).await;
        task.results();
        assert!(asked - task.answered <= 2, "one read is in flight, and at most one waits");
    }
    task.ask(read());
    tokio::time::sleep(Duration::from_millis(100)).await;
    task.swallow(false);
    let id = task.ask(decision(NodeId::A));
    let (reply, took) = task.result_of(id).await;
    assert!(matches!(reply, WitnessReply::Received(_)));
    assert!(took <= ROUND_TRIP_DELAY + Duration::from_millis(2), "{took:?}");
}

/// The first decision after the witness has vanished waits for a read that was swallowed, and has to be given up before the
/// lease of the survivor ends.
#[tokio::test(start_paused = true)]
async fn a_silent_witness_keeps_a_decision_for_less_than_a_lease() {
    let lease = Duration::from_nanos(dyad_quorum::Timing::standard().lease_period);
    let mut task = TaskFixture::start();
    let first = task.ask(read());
    task.result_of(first).await;
    task.swallow(true);
    task.ask(read());
    tokio::time::sleep(Duration::from_millis(1)).await;
    let id = task.ask(decision(NodeId::A));
    tokio::time::sleep(WITNESS_DECISION_TIMEOUT).await;
    assert_eq!(task.witness.asked.lock().unwrap().last(), Some(&decision(NodeId::A)), "the read gave way");
    let (reply, took) = task.result_of(id).await;
    assert!(matches!(reply, WitnessReply::NoAnswer) && took < lease, "{took:?}");
    // The quorum machine repeats it; no read stands before it any more.
    let id = task.ask(decision(NodeId::A));
    let (reply, took) = task.result_of(id).await;
    assert!(matches!(reply, WitnessReply::NoAnswer) && took < lease, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn no_read_and_no_decision_of_the_peer_displaces_a_decision() {
    let mut task = TaskFixture::start();
    let first = task.ask(read());
    let own = task.ask(decision(NodeId::A));
    task.ask(decision(NodeId::B));
    task.ask(read());
    task.ask(read());
    task.result_of(first).await;
    assert!(matches!(task.result_of(own).await.0, WitnessReply::Received(_)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = task.witness.asked.lock().unwrap().clone();
    assert_eq!(asked, [read(), decision(NodeId::A), decision(NodeId::B), read()], "one of each kind, decisions first");
}

#[tokio::test(start_paused = true)]
async fn a_healthy_witness_finishes_a_read_before_a_decision_and_keeps_its_connection() {
    let mut task = TaskFixture::start();
    let before = task.ask(read());
    task.result_of(before).await;
    let reading = task.ask(read());
    tokio::time::sleep(ROUND_TRIP_DELAY / 2).await;
    let deciding = task.ask(decision(NodeId::A));
    assert!(matches!(task.result_of(reading).await.0, WitnessReply::Received(_)));
    assert!(matches!(task.result_of(deciding).await.0, WitnessReply::Received(_)));
}

/// A dead name server or a slow path can make each new connection take longer than the first time limit of a decision.
#[tokio::test(start_paused = true)]
async fn a_decision_reaches_a_witness_to_which_a_connection_takes_five_seconds() {
    let mut task = TaskFixture::start();
    *task.witness.delay.lock().unwrap() = Duration::from_secs(5);
    let begin = Instant::now();
    let mut tries = 0;
    loop {
        tries += 1;
        let id = task.ask(decision(NodeId::A));
        if let WitnessReply::Received(_) = task.result_of(id).await.0 {
            break;
        }
        assert!(tries < 10, "the witness is never reached");
    }
    assert!(begin.elapsed() < Duration::from_secs(17), "{:?}", begin.elapsed());
    // The next failure begins with the short limit again.
    task.swallow(true);
    let id = task.ask(decision(NodeId::A));
    assert_eq!(task.result_of(id).await.1.as_millis() / 100, WITNESS_DECISION_TIMEOUT.as_millis() / 100);
}
