//! The thread that owns the store: it runs all waiting jobs in one batch, commits the batch once, then sends all
//! results.
//!
//! When 10,000 pairs fail over within 10 s, the store makes 1,000 decisions a second. With one disk sync for each batch
//! of up to 256 jobs these need as few as 4 syncs a second.

use tokio::sync::{mpsc, oneshot};

use crate::store::{Batch, Store, StoreError};

/// Maximum number of queued jobs; further callers wait.
const MAX_QUEUED_JOBS: usize = 1024;
/// Maximum number of jobs in one commit.
const MAX_JOBS_PER_COMMIT: usize = 256;

/// Sends the result of a job to its caller; called after the commit.
type SendResult = Box<dyn FnOnce() + Send>;
/// A read or change of the store.
type Job = Box<dyn FnOnce(&mut Batch<'_>) -> Result<SendResult, StoreError> + Send>;

/// The store's thread has ended, and the daemon is about to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the witness's store has failed")]
pub(crate) struct StoreStopped;

/// Sends jobs to the store's thread. The thread ends with the last clone.
#[derive(Clone)]
pub(crate) struct StoreWriter {
    queue: mpsc::Sender<Job>,
}

impl StoreWriter {
    /// Starts the thread. The receiver gets the error that ends it.
    pub(crate) fn start(store: Store) -> (Self, oneshot::Receiver<StoreError>) {
        let (queue, work) = mpsc::channel(MAX_QUEUED_JOBS);
        let (failed, failure) = oneshot::channel();
        std::thread::spawn(move || {
            if let Err(error) = run_batches(&store, work) {
                // Without a receiver the daemon is ending already.
                let _ = failed.send(error);
            }
        });
        (Self { queue }, failure)
    }

    /// Runs `work` in a batch and returns its result once the batch is durable.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreStopped> {
        let (answer, answered) = oneshot::channel();
        let work: Job = Box::new(move |batch| {
            let result = work(batch)?;
            // The caller may have stopped waiting; the change stays.
            Ok(Box::new(move || drop(answer.send(result))))
        });
        self.queue.send(work).await.map_err(|_| StoreStopped)?;
        answered.await.map_err(|_| StoreStopped)
    }
}

/// Runs jobs until the queue is closed. After an error the thread ends, and no job of that batch gets a result.
fn run_batches(store: &Store, mut queue: mpsc::Receiver<Job>) -> Result<(), StoreError> {
    let mut waiting = Vec::with_capacity(MAX_JOBS_PER_COMMIT);
    while queue.blocking_recv_many(&mut waiting, MAX_JOBS_PER_COMMIT) > 0 {
        let mut batch = store.begin()?;
        let answers = waiting.drain(..).map(|work| work(&mut batch)).collect::<Result<Vec<SendResult>, _>>()?;
        batch.finish()?;
        answers.into_iter().for_each(|answer| answer());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::sync::Arc;
    use std::task::{Context, Waker};
    use std::time::{Duration, Instant};

    use dyad_link::{Fingerprint, PairId};
    use dyad_quorum::{Config, Learn, WitnessRequest};
    use dyad_types::{Epoch, NodeId};

    use super::*;
    use crate::pairs;
    use crate::protocol::Enrol;
    use crate::store::StoredEntry;

    #[tokio::test]
    async fn ten_thousand_pairs_change_their_records_within_ten_seconds() {
        const PAIRS: u128 = 10_000;
        const KEY: Fingerprint = Fingerprint([1; 32]);
        let directory = tempfile::tempdir().unwrap();
        let (store_writer, _failure) = StoreWriter::start(Store::open(directory.path()).unwrap());
        let enrolled = store_writer.run(|batch| {
            let enrol = |pair| {
                let ask = Enrol { pair: PairId(pair), name: "p".into(), node: NodeId::A, keys: [Some(KEY), None] };
                Ok(pairs::enrol(batch, KEY, ask)?.expect("a new pair is taken"))
            };
            (0..PAIRS).map(enrol).collect::<Result<Vec<_>, StoreError>>()
        });
        let enrolled = enrolled.await.unwrap();
        let start = Instant::now();
        let mut asking = tokio::task::JoinSet::new();
        for (pair, enrolled) in (0..PAIRS).zip(enrolled) {
            let base = Config {
                epoch: Epoch(3),
                incarnations: [11, 12, enrolled.incarnation],
                witness: enrolled.witness,
                ..Config::none()
            };
            let ask = WitnessRequest::Learn(Learn { pair, sender: NodeId::A, base, witness_changes: 0 });
            let store_writer = store_writer.clone();
            asking.spawn(async move {
                let answer = store_writer.run(move |batch| pairs::answer_request(batch, KEY, PairId(pair), &ask)).await;
                assert_eq!(answer.unwrap().unwrap().witness_changes, 1);
            });
        }
        asking.join_all().await;
        assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
    }

    /// A vote that is told and then lost could be given again, to the other node.
    #[test]
    fn a_result_is_sent_after_the_commit_of_its_batch() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(directory.path()).unwrap());
        let (queue, work) = mpsc::channel(2);
        let store_writer = StoreWriter { queue: queue.clone() };
        let mut enrolled = Box::pin(async move {
            let key = Fingerprint([1; 32]);
            let ask = Enrol { pair: PairId(1), name: "p".into(), node: NodeId::A, keys: [Some(key), None] };
            store_writer.run(move |batch| pairs::enrol(batch, key, ask)).await
        });
        let mut is_answered = move || enrolled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!is_answered(), "the job is queued");
        // A second job of the same batch looks at the first one, before and after the commit.
        let (send, seen) = std::sync::mpsc::channel();
        let shared = Arc::clone(&store);
        let mut look = move || send.send((is_answered(), shared.committed_pairs())).unwrap();
        let second: Job = Box::new(move |_| {
            look();
            Ok(Box::new(look))
        });
        assert!(queue.try_send(second).is_ok(), "the queue has room");
        drop(queue);
        run_batches(&store, work).unwrap();
        assert_eq!(seen.iter().collect::<Vec<_>>(), [(false, vec![]), (true, vec![PairId(1)])]);
    }

    #[tokio::test]
    async fn an_error_of_a_job_ends_the_thread_and_no_result_is_sent() {
        let directory = tempfile::tempdir().unwrap();
        let (store_writer, failure) = StoreWriter::start(Store::open(directory.path()).unwrap());
        assert!(store_writer.run(|batch| Ok(matches!(batch.get(PairId(1))?, StoredEntry::Missing))).await.unwrap());
        let failed: Result<(), StoreStopped> = store_writer.run(|_| Err(StoreError::Header)).await;
        assert_eq!(failed, Err(StoreStopped));
        assert!(matches!(failure.await, Ok(StoreError::Header)));
        assert_eq!(store_writer.run(|_| Ok(())).await, Err(StoreStopped));
    }
}
