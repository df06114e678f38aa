//! Tells whether an authentic datagram was sent now or is a recording.
//!
//! A new boot id of the peer counts as proof that its old VMs have ended, so a replayed datagram of an earlier run must
//! never be accepted. Clocks cannot decide this, because they may be wrong by years. A run of the peer that is not
//! known yet therefore proves itself by echoing a challenge of this node:
//!
//! ```text
//! new run of B: {instance b, challenge y, echo 0}   A: unproven, answers
//! A:            {instance a, challenge x, echo y}   B: echo matches: a is proven, y is replaced
//! B:            {instance b, challenge …, echo x}   A: echo matches: b is proven, x is replaced
//! ```
//!
//! A challenge is used for one proof, so no recording matches the current one. Within a proven run a window over the
//! counters accepts each datagram once; paths may be up to 127 datagrams apart.

use super::datagram::Stamp;

/// Number of counters below the highest one whose reception is recorded.
const WINDOW: u64 = 128;

/// The decision about an authentic datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DatagramVerdict {
    Fresh,
    /// Received before, or too old to tell.
    Replayed,
    /// Sent by a run that has not proven itself; answered with [`Freshness::answer`].
    Unproven,
}

#[derive(Debug)]
struct Peer {
    instance: u64,
    challenge: u64,
    highest: u64,
    /// Bit n: the counter `highest - n` was received.
    seen: u128,
}

/// The runs of both nodes, as this node knows them.
#[derive(Debug)]
pub(super) struct Freshness {
    instance: u64,
    challenge: u64,
    counter: u64,
    peer: Option<Peer>,
}

impl Freshness {
    pub(super) fn new() -> Self {
        let instance = u64::from_ne_bytes(crate::random());
        Self { instance, challenge: challenge(u64::from_ne_bytes(crate::random())), counter: 0, peer: None }
    }

    fn stamp_for(&mut self, echo: u64) -> Stamp {
        self.counter += 1;
        Stamp { instance: self.instance, challenge: self.challenge, echo, counter: self.counter }
    }

    /// The stamp of the next datagram.
    pub(super) fn stamp(&mut self) -> Stamp {
        self.stamp_for(self.peer.as_ref().map_or(0, |peer| peer.challenge))
    }

    /// The stamp of an answer to an unproven datagram.
    pub(super) fn answer(&mut self, unproven: &Stamp) -> Stamp {
        self.stamp_for(unproven.challenge)
    }

    /// Decides about an authentic datagram; `draw` returns a random number for the next challenge.
    pub(super) fn judge(&mut self, stamp: &Stamp, draw: impl FnOnce() -> u64) -> DatagramVerdict {
        match &mut self.peer {
            Some(peer) if peer.instance == stamp.instance => peer.pass(stamp),
            _ if stamp.echo == self.challenge => {
                let peer = Peer {
                    instance: stamp.instance,
                    challenge: stamp.challenge,
                    highest: stamp.counter,
                    // The datagrams that this run sent before its proof are not accepted: they may be recordings.
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

impl Peer {
    fn pass(&mut self, stamp: &Stamp) -> DatagramVerdict {
        if stamp.counter > self.highest {
            let ahead = stamp.counter - self.highest;
            self.seen = if ahead < WINDOW { self.seen << ahead } else { 0 } | 1;
            self.highest = stamp.counter;
            self.challenge = stamp.challenge;
            return DatagramVerdict::Fresh;
        }
        let behind = self.highest - stamp.counter;
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
        u64::from_ne_bytes(crate::random())
    }

    /// Exchanges datagrams until each side has accepted the other's run.
    fn exchange_proofs(a: &mut Freshness, b: &mut Freshness) -> Vec<Stamp> {
        let hello = b.stamp();
        assert_eq!(a.judge(&hello, draw), DatagramVerdict::Unproven);
        let answer = a.answer(&hello);
        assert_eq!(b.judge(&answer, draw), DatagramVerdict::Fresh);
        let proof = b.stamp();
        assert_eq!(a.judge(&proof, draw), DatagramVerdict::Fresh);
        vec![hello, proof]
    }

    #[test]
    fn two_runs_prove_themselves_in_three_datagrams() {
        let (mut a, mut b) = (Freshness::new(), Freshness::new());
        exchange_proofs(&mut a, &mut b);
        for _ in 0..1000 {
            assert_eq!(a.judge(&b.stamp(), draw), DatagramVerdict::Fresh);
            assert_eq!(b.judge(&a.stamp(), draw), DatagramVerdict::Fresh);
        }
    }

    #[test]
    fn a_recording_of_an_earlier_run_is_never_accepted() {
        let (mut a, mut b) = (Freshness::new(), Freshness::new());
        let mut recorded = exchange_proofs(&mut a, &mut b);
        recorded.extend((0..50).map(|_| b.stamp()));
        recorded.iter().for_each(|stamp| {
            a.judge(stamp, draw);
        });
        // B restarts and is accepted only after its proof.
        let mut second = Freshness::new();
        exchange_proofs(&mut a, &mut second);
        // A restarts as well.
        let mut restarted = Freshness::new();
        exchange_proofs(&mut restarted, &mut second);
        for stamp in &recorded {
            assert_eq!(a.judge(stamp, draw), DatagramVerdict::Unproven);
            assert_eq!(restarted.judge(stamp, draw), DatagramVerdict::Unproven);
        }
        // The recordings do not affect the present run.
        assert_eq!(restarted.judge(&second.stamp(), draw), DatagramVerdict::Fresh);
    }

    #[test]
    fn both_sides_may_restart_at_once() {
        let (mut a, mut b) = (Freshness::new(), Freshness::new());
        exchange_proofs(&mut a, &mut b);
        let (mut a, mut b) = (Freshness::new(), Freshness::new());
        let (from_a, from_b) = (a.stamp(), b.stamp());
        assert_eq!(a.judge(&from_b, draw), DatagramVerdict::Unproven);
        assert_eq!(b.judge(&from_a, draw), DatagramVerdict::Unproven);
        let (to_b, to_a) = (a.answer(&from_b), b.answer(&from_a));
        assert_eq!(b.judge(&to_b, draw), DatagramVerdict::Fresh);
        assert_eq!(a.judge(&to_a, draw), DatagramVerdict::Fresh);
        assert_eq!(a.judge(&b.stamp(), draw), DatagramVerdict::Fresh);
        assert_eq!(b.judge(&a.stamp(), draw), DatagramVerdict::Fresh);
    }

    #[test]
    fn each_datagram_is_accepted_once_also_from_a_slower_path() {
        let (mut a, mut b) = (Freshness::new(), Freshness::new());
        exchange_proofs(&mut a, &mut b);
        let stamps: Vec<Stamp> = (0..300).map(|_| b.stamp()).collect();
        let (slow, fast): (Vec<&Stamp>, Vec<&Stamp>) = stamps.iter().partition(|stamp| stamp.counter % 2 == 0);
        for pair in fast.windows(31).zip(&slow) {
            assert_eq!(a.judge(pair.0[30], draw), DatagramVerdict::Fresh);
            assert_eq!(a.judge(pair.1, draw), DatagramVerdict::Fresh);
        }
        for stamp in &stamps[60..240] {
            assert_eq!(a.judge(stamp, draw), DatagramVerdict::Replayed);
        }
        assert_eq!(a.judge(&stamps[0], draw), DatagramVerdict::Replayed);
    }
}
