//! Planted bugs. A checker that never failed proves nothing, so tests plant one and must find it.
//!
//! Without the feature `mutants` none can be planted, and [`Mutants::has`] is `false` at compile time.

/// One planted bug: a rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutant {
    /// VMs of the peer start at once, without waiting for its lease.
    NoFenceWait,
    /// Writes are acknowledged solo as soon as the removal of the peer is proposed.
    SoloAckEarly,
    /// A restarted daemon assumes that no grant is in force.
    NoGrace,
    /// A proposal acts before it is chosen.
    ActBeforeChosen,
    /// R1 is left out: an accepted value that is stricter than the base has no effect.
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

/// The planted bug in force, if any.
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

    /// Plants one bug.
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
