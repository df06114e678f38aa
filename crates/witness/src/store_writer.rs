//! The one thread that owns the store: takes what waits, commits once, then answers all.
//!
//! Ten thousand pairs that fail over at the same time need a thousand decisions a second; with one
//! sync for each batch that is a handful of syncs.

use tokio::sync::{mpsc, oneshot};

use crate::store::{Batch, Store, StoreError};

/// Work that waits at most; beyond that the askers wait.
const QUEUE: usize = 1024;
/// Pieces of work in one commit at most.
const BATCH: usize = 256;

/// Tells an asker its answer, after the commit.
type Answer = Box<dyn FnOnce() + Send>;
type Work = Box<dyn FnOnce(&mut Batch<'_>) -> Result<Answer, StoreError> + Send>;

/// The store's thread has ended; the daemon is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the witness's store has failed")]
pub(crate) struct Stopped;

/// Hands work to the store's thread. Cheap to clone; the thread ends with the last clone.
#[derive(Clone)]
pub(crate) struct StoreWriter {
    queue: mpsc::Sender<Work>,
}

impl StoreWriter {
    /// Starts the thread. The receiver gets the error that ended it, if one did.
    pub(crate) fn start(store: Store) -> (Self, oneshot::Receiver<StoreError>) {
        let (queue, work) = mpsc::channel(QUEUE);
        let (failed, failure) = oneshot::channel();
        std::thread::spawn(move || {
            if let Err(error) = keep(&store, work) {
                // Nobody to tell means that the daemon is ending anyway.
                let _ = failed.send(error);
            }
        });
        (Self { queue }, failure)
    }

    /// Does `work` and returns its result once it is durable.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |batch| {
            let result = work(batch)?;
            // The asker may have gone; its work stays done.
            Ok(Box::new(move || drop(answer.send(result))))
        });
        self.queue.send(work).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}

fn keep(store: &Store, mut queue: mpsc::Receiver<Work>) -> Result<(), StoreError> {
    let mut waiting = Vec::with_capacity(BATCH);
    while queue.blocking_recv_many(&mut waiting, BATCH) > 0 {
        let mut batch = store.begin()?;
        let answers = waiting.drain(..).map(|work| work(&mut batch)).collect::<Result<Vec<Answer>, _>>()?;
        batch.finish()?;
        answers.into_iter().for_each(|answer| answer());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use dyad_link::{Fingerprint, PairId};
    use dyad_quorum::{Config, Learn, WitnessAsk};
    use dyad_types::NodeId;

    use super::*;
    use crate::pairs;
    use crate::protocol::Enrol;
    use crate::store::Slot;

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
                epoch: 3,
                incarnations: [11, 12, enrolled.incarnation],
                witness: enrolled.witness,
                ..Config::none()
            };
            let ask = WitnessAsk::Learn(Learn { pair, sender: NodeId::A, base, seen: 0 });
            let store_writer = store_writer.clone();
            asking.spawn(async move {
                let answer = store_writer.run(move |batch| pairs::ask(batch, KEY, PairId(pair), &ask)).await;
                assert_eq!(answer.unwrap().unwrap().mark, 1);
            });
        }
        asking.join_all().await;
        assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
    }

    #[tokio::test]
    async fn an_error_ends_the_thread_and_answers_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let (store_writer, failure) = StoreWriter::start(Store::open(directory.path()).unwrap());
        assert!(store_writer.run(|batch| Ok(matches!(batch.get(PairId(1))?, Slot::Empty))).await.unwrap());
        let failed: Result<(), Stopped> = store_writer.run(|_| Err(StoreError::Header)).await;
        assert_eq!(failed, Err(Stopped));
        assert!(matches!(failure.await, Ok(StoreError::Header)));
        assert_eq!(store_writer.run(|_| Ok(())).await, Err(Stopped));
    }
}
