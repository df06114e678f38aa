//! Planted bugs. A checker that never failed proves nothing, so tests plant one and must find it.
//!
//! Without the feature `mutants` none can be planted, and [`Mutants::has`] is `false` at compile time.

/// A planted bug: each variant leaves out one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutant {
    /// A solo node starts the VMs of its peer at once, without waiting for the end of the peer's fence.
    NoFenceWait,
    /// Writes are acknowledged solo as soon as the removal of the peer is proposed, before it is chosen.
    SoloAckEarly,
    /// A restarted daemon assumes that no lease which it granted before is in force.
    NoGrace,
    /// A node acts on the removal of its peer when it proposes it, before it is chosen.
    ActBeforeChosen,
    /// R1 is left out: an accepted, proposed or heard configuration that moves the tie away has no effect.
    NoR1,
    /// D2 is left out: VMs go on without a lease when the tie moves away.
    NoD2,
}

impl Mutant {
    pub const ALL: [Mutant; 6] = [
        Mutant::NoFenceWait,
        Mutant::SoloAckEarly,
        Mutant::NoGrace,
        Mutant::ActBeforeChosen,
        Mutant::NoR1,
        Mutant::NoD2,
    ];
}

/// The planted bug in force: one or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mutants {
    #[cfg(feature = "mutants")]
    planted: Option<Mutant>,
}

impl Mutants {
    /// No planted bug.
    pub const NONE: Mutants = Mutants {
        #[cfg(feature = "mutants")]
        planted: None,
    };

    #[cfg(feature = "mutants")]
    pub fn plant(mutant: Mutant) -> Mutants {
        Mutants { planted: Some(mutant) }
    }

    /// Whether this bug is planted.
    #[inline]
    pub fn has(self, mutant: Mutant) -> bool {
        #[cfg(feature = "mutants")]
        return self.planted == Some(mutant);
        #[cfg(not(feature = "mutants"))]
        {
            let _ = mutant;
            false
        }
    }
}
