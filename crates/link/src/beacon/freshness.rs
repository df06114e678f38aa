//! The check that an authentic datagram was sent now and is not a recording that is replayed.
//!
//! A new boot id of the peer counts as proof that its old VMs have ended, so a replayed datagram of an earlier run must
//! never be accepted. Clocks cannot decide this, because they may be wrong by years. A *run* is one start of the peer's
//! program, named by its random instance number. A run that is not known yet therefore proves itself by echoing a
//! challenge of this node:
//!
//! ```text
//! new run of B: {instance b, challenge y, echo 0}   A: unproven, answers
//! A:            {instance a, challenge x, echo y}   B: echo matches: a is proven, y is replaced
//! B:            {instance b, challenge …, echo x}   A: echo matches: b is proven, x is replaced
//! ```
//!
//! A challenge is used for one proof, so no recording of an earlier run contains the current one. Within a proven
//! run a window over the counters accepts each datagram once; one path may be up to 127 datagrams behind another.

use super::datagram::FreshnessFields;

/// Number of counters, up to and including the highest one received, whose reception is recorded.
const WINDOW: u64 = 128;

/// The decision about an authentic datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DatagramVerdict {
    /// From the proven run, and received for the first time; or the proof of a new run.
    Fresh,
    /// Received before, or [`WINDOW`] or more datagrams behind, so that this is not known.
    Replayed,
    /// From a run that has not proven itself. The answer has the fields of [`Freshness::answer_fields`].
    Unproven,
}

/// The proven run of the peer.
#[derive(Debug)]
struct ProvenRun {
    instance: u64,
    /// The peer's challenge, to be echoed.
    challenge: u64,
    /// Highest counter received.
    highest: u64,
    /// Bit n: the counter `highest - n` was received.
    seen: u128,
}

/// This node's run, and the peer's run that has proven itself last.
#[derive(Debug)]
pub(super) struct Freshness {
    instance: u64,
    challenge: u64,
    counter: u64,
    peer: Option<ProvenRun>,
}

impl Freshness {
    pub(super) fn new() -> Self {
        let instance = u64::from_ne_bytes(crate::random_bytes());
        Self { instance, challenge: challenge(u64::from_ne_bytes(crate::random_bytes())), counter: 0, peer: None }
    }

    fn fields_for(&mut self, echo: u64) -> FreshnessFields {
        self.counter += 1;
        FreshnessFields { instance: self.instance, challenge: self.challenge, echo, counter: self.counter }
    }

    /// The fields of the next datagram, which echo the challenge of the peer's proven run.
    pub(super) fn next_fields(&mut self) -> FreshnessFields {
        self.fields_for(self.peer.as_ref().map_or(0, |peer| peer.challenge))
    }

    /// The fields of the answer to a datagram of an unproven run, which echo the challenge of that run.
    pub(super) fn answer_fields(&mut self, unproven: &FreshnessFields) -> FreshnessFields {
        self.fields_for(unproven.challenge)
    }

    /// Decides whether an authentic datagram is fresh; `draw` returns a random number for the next challenge.
    pub(super) fn judge(&mut self, fields: &FreshnessFields, draw: impl FnOnce() -> u64) -> DatagramVerdict {
        match &mut self.peer {
            Some(peer) if peer.instance == fields.instance => peer.accept_once(fields),
            _ if fields.echo == self.challenge => {
                let peer = ProvenRun {
                    instance: fields.instance,
                    challenge: fields.challenge,
                    highest: fields.counter,
                    // What this run sent before its proof counts as received, so that a recording of it is refused.
                    seen: u128::MAX,
                };
                self.peer = Some(peer);
                self.challenge = challenge(draw());
                DatagramVerdict::Fresh
            }
            _ => DatagramVerdict::Unproven,
        }
    }
}

/// A random challenge; 0 is reserved for "no challenge known".
fn challenge(drawn: u64) -> u64 {
    drawn.max(1)
}

impl ProvenRun {
    /// Decides about a datagram of this run by the window of counters, and records its reception.
    fn accept_once(&mut self, fields: &FreshnessFields) -> DatagramVerdict {
        if fields.counter > self.highest {
            let ahead = fields.counter - self.highest;
            self.seen = if ahead < WINDOW { self.seen << ahead } else { 0 } | 1;
            self.highest = fields.counter;
            self.challenge = fields.challenge;
            return DatagramVerdict::Fresh;
        }
        let behind = self.highest - fields.counter;
        if behind >= WINDOW || self.seen & (1 << behind) != 0 {
            return DatagramVerdict::Replayed;
        }
        self.seen |= 1 << behind;
        DatagramVerdict::Fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw() -> u64 {
        u64::from_ne_bytes(crate::random_bytes())
    }

    /// Exchanges datagrams until each side has accepted the other's run.
    fn exchange_proofs(a: &mut Freshness, b: &mut Freshness) -> Vec<FreshnessFields> {
        let hello = b.next_fields();
        assert_eq!(a.judge(&hello, draw), DatagramVerdict::Unproven);
        let answer = a.answer_fields(&hello);
        assert_eq!(b.judge(&answer, draw), DatagramVerdict::Fresh);
        let proof = b.next_fields();
        assert_eq!(a.judge(&proof, draw), DatagramVerdict::Fresh);
        vec![hello, proof]
    }

    #[test]
    fn two_new_runs_prove_themselves_in_three_datagrams() {
        let (mut a, mut b) = (Freshness::new(), Freshness::new());
        exchange_proofs(&mut a, &mut b);
        for _ in 0..1000 {
            assert_eq!(a.judge(&b.next_fields(), draw), DatagramVerdict::Fresh);
            assert_eq!(b.judge(&a.next_fields(), draw), DatagramVerdict::Fresh);
        }
    }

    #[test]
    fn a_recording_of_an_earlier_run_is_never_accepted() {
        let (mut a, mut b) = (Freshness::new(), Freshness::new());
        let mut recorded = exchange_proofs(&mut a, &mut b);
        recorded.extend((0..50).map(|_| b.next_fields()));
        recorded.iter().for_each(|fields| {
            a.judge(fields, draw);
        });
        // B restarts and is accepted only after its proof.
        let mut second = Freshness::new();
        exchange_proofs(&mut a, &mut second);
        // A restarts as well.
        let mut restarted = Freshness::new();
        exchange_proofs(&mut restarted, &mut second);
        for fields in &recorded {
            assert_eq!(a.judge(fields, draw), DatagramVerdict::Unproven);
            assert_eq!(restarted.judge(fields, draw), DatagramVerdict::Unproven);
        }
        // The recordings do not affect the present run.
        assert_eq!(restarted.judge(&second.next_fields(), draw), DatagramVerdict::Fresh);
    }

    #[test]
    fn two_runs_that_start_at_once_prove_themselves() {
        let (mut a, mut b) = (Freshness::new(), Freshness::new());
        exchange_proofs(&mut a, &mut b);
        let (mut a, mut b) = (Freshness::new(), Freshness::new());
        let (from_a, from_b) = (a.next_fields(), b.next_fields());
        assert_eq!(a.judge(&from_b, draw), DatagramVerdict::Unproven);
        assert_eq!(b.judge(&from_a, draw), DatagramVerdict::Unproven);
        let (to_b, to_a) = (a.answer_fields(&from_b), b.answer_fields(&from_a));
        assert_eq!(b.judge(&to_b, draw), DatagramVerdict::Fresh);
        assert_eq!(a.judge(&to_a, draw), DatagramVerdict::Fresh);
        assert_eq!(a.judge(&b.next_fields(), draw), DatagramVerdict::Fresh);
        assert_eq!(b.judge(&a.next_fields(), draw), DatagramVerdict::Fresh);
    }

    #[test]
    fn each_datagram_is_accepted_once_on_a_fast_and_a_slow_path() {
        let (mut a, mut b) = (Freshness::new(), Freshness::new());
        exchange_proofs(&mut a, &mut b);
        let sent: Vec<FreshnessFields> = (0..300).map(|_| b.next_fields()).collect();
        let (slow, fast): (Vec<&FreshnessFields>, Vec<&FreshnessFields>) =
            sent.iter().partition(|fields| fields.counter % 2 == 0);
        for pair in fast.windows(31).zip(&slow) {
            assert_eq!(a.judge(pair.0[30], draw), DatagramVerdict::Fresh);
            assert_eq!(a.judge(pair.1, draw), DatagramVerdict::Fresh);
        }
        for fields in &sent[60..240] {
            assert_eq!(a.judge(fields, draw), DatagramVerdict::Replayed);
        }
        assert_eq!(a.judge(&sent[0], draw), DatagramVerdict::Replayed);
    }
}
